"""The process `python -m app persist`: the persister, and beside it, in threads of their own, the
sweeper and what takes snapshots now and then. Decides when they start and end; must not know what
they do.
"""

import logging
import signal
import threading
from functools import partial
from typing import Final

from app import sweeper
from app.config import ConfigurationError, Settings
from app.engine import halts
from app.engine.book import Books
from app.engine.executor import PipelinedExecutor
from app.engine.floors import Floors
from app.periodic_snapshots import PeriodicSnapshots
from app.persistence import event_store, event_stream
from app.persistence.persister import Persister
from app.sweeper import Sweeper

log: Final = logging.getLogger("crossbook.persist")

SWEEPER_STOP_TIMEOUT_S: Final = 1.0
"""How long the end waits for the sweeper; it may be cut off anywhere without harm."""


def run(settings: Settings) -> None:
    """Persists and sweeps until SIGTERM or SIGINT.

    Raises:
        ConfigurationError: it was not told which Redis and which Postgres.
    """
    if settings.redis_url is None or settings.database_url is None:
        raise ConfigurationError("the persister needs REDIS_URL and DATABASE_URL")
    stop = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stop.set())
    # What the persister knows of the books, the sweeper goes by.
    floors = Floors()
    sweeping = _start_sweeper(settings.redis_url, settings.idempotency_ttl_s, floors, stop)
    persister = Persister(
        event_stream.connect(settings.redis_url),
        partial(event_store.connect, settings.database_url),
        floors=floors,
    )
    _start_snapshots(settings.database_url, stop)
    log.info("persister started")
    persister.run(stop)
    persister.close()
    sweeping.join(SWEEPER_STOP_TIMEOUT_S)
    log.info("persister stopped")


def _start_sweeper(
    redis_url: str, ttl_s: int, floors: Floors, stop: threading.Event
) -> threading.Thread:
    client = sweeper.connect(redis_url)
    tell_behind = partial(halts.tell_lost, client)
    books = Books(PipelinedExecutor(client), ttl_s, floors=floors, tell_behind=tell_behind)
    sweeping = Sweeper(client, books)
    thread = threading.Thread(target=_sweep, args=(sweeping, stop), name="sweeper", daemon=True)
    thread.start()
    return thread


def _start_snapshots(database_url: str, stop: threading.Event) -> None:
    """It may be cut off anywhere, so nobody waits for its end."""
    snapshots = PeriodicSnapshots(database_url, event_store.connect)
    threading.Thread(target=snapshots.run, args=(stop,), name="snapshots", daemon=True).start()


def _sweep(sweeping: Sweeper, stop: threading.Event) -> None:
    try:
        sweeping.run(stop)
    finally:
        # Unless we were asked to end it has failed: rather none of both, which whoever looks after
        # this process notices, than timers that never fire.
        stop.set()
