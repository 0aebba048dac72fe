"""`python -m app up`: Redis, Postgres, migrations, persister and API on this machine, as one.
Decides the order and tells the person what runs where; must not know how any of them works.
"""

from __future__ import annotations

import logging
import os
import shlex
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Final

import psycopg

from app.config import ConfigurationError
from app.embedded import postgres_server, redis_server
from app.embedded.lock import DataDirLock
from app.embedded.part import Part, missing_at
from app.embedded.postgres_server import EmbeddedPostgres
from app.embedded.process import EmbeddedServerError
from app.embedded.redis_server import EmbeddedRedis
from app.embedded.stores import Stores, publish
from app.embedded.supervisor import StopRequested, Supervisor
from app.listening import await_port, base_url

if TYPE_CHECKING:
    from collections.abc import Callable

    from app.config import Settings

log: Final = logging.getLogger("crossbook.up")

# gunicorn's own GRACEFUL_TIMEOUT_S and its workers' one-second rounds fit in.
SERVE_STOP_TIMEOUT_S: Final = 10.0
# Enough to commit the batch under way.
PERSIST_STOP_TIMEOUT_S: Final = 15.0
EXTERNAL_STORE_TIMEOUT_S: Final = 5.0


def run(settings: Settings) -> int:
    """Returns 0 after a clean stop. Raises ConfigurationError, EmbeddedServerError."""
    with DataDirLock(settings.data_dir):
        await_port(settings)
        with Supervisor() as supervisor:
            try:
                _start_all(settings, supervisor)
                supervisor.watch()
            except StopRequested:
                print("Crossbook stops", flush=True)
    print("Crossbook has stopped, the data is kept", flush=True)
    return 0


def _start_all(settings: Settings, supervisor: Supervisor) -> None:
    redis_url, redis_shell = _redis(settings, supervisor)
    database_url, postgres_shell = _postgres(settings, supervisor)
    stores = Stores(redis_url, database_url, settings.idempotency_ttl_s)
    publish(settings.data_dir, stores)
    _migrate(stores)
    _rebuild(settings, stores, supervisor)
    environ = os.environ | dict(stores.environment())
    supervisor.start(Part("persist", environ, stop_timeout_s=PERSIST_STOP_TIMEOUT_S))
    supervisor.start(
        Part(
            "serve",
            environ,
            what_is_missing=lambda: missing_at(f"{base_url(settings)}/readyz"),
            stop_timeout_s=SERVE_STOP_TIMEOUT_S,
        )
    )
    _tell(settings, redis_shell, postgres_shell)


def _redis(settings: Settings, supervisor: Supervisor) -> tuple[str, list[str]]:
    """URL, and what to type to look inside."""
    url = settings.redis_url
    if url is None:
        server = EmbeddedRedis(settings.data_dir)
        supervisor.start(server)
        return server.url, server.shell_command()
    _require("REDIS_URL", lambda: redis_server.answers(url), supervisor)
    return url, ["redis-cli", "-u", url]


def _postgres(settings: Settings, supervisor: Supervisor) -> tuple[str, list[str]]:
    """URL, and what to type to look inside."""
    url = settings.database_url
    if url is None:
        server = EmbeddedPostgres(settings.data_dir)
        supervisor.start(server)
        return server.url, server.shell_command()
    _require("DATABASE_URL", lambda: postgres_server.answers(url), supervisor)
    return url, ["psql", url]


def _require(name: str, answers: Callable[[], bool], supervisor: Supervisor) -> None:
    if not supervisor.wait_for(answers, EXTERNAL_STORE_TIMEOUT_S):
        raise ConfigurationError(
            f"nothing answers at {name} (waited {EXTERNAL_STORE_TIMEOUT_S:g} s); "
            "without it, Crossbook runs a server of its own"
        )


def _migrate(stores: Stores) -> None:
    # Only now are they needed.
    from app.persistence.instruments import seed  # noqa: PLC0415
    from app.persistence.migrations import migrate  # noqa: PLC0415

    try:
        migrate(stores.database_url)
        seed(stores.database_url)
    except psycopg.Error as error:
        raise EmbeddedServerError(f"the migrations failed: {error}") from error


def _rebuild(settings: Settings, stores: Stores, supervisor: Supervisor) -> None:
    """Books that Postgres remembers and Redis lost whole, as when its disk was lost."""
    from app.persistence.rebuild import AWAY, RebuildRefused, Wish, rebuild  # noqa: PLC0415

    wish, ttl_s = Wish(only_lost=True), settings.idempotency_ttl_s
    outcomes = []
    try:
        for outcome in rebuild(stores.redis_url, stores.database_url, ttl_s, wish):
            outcomes.append(outcome)
            # Each may take long: whoever wants us to end is heard in between.
            supervisor.wait_for(lambda: False, 0)
    except (*AWAY, RebuildRefused) as error:
        raise EmbeddedServerError(f"the books cannot be rebuilt: {error}") from error
    if outcomes:
        books = {one.instrument: one.sequence for one in outcomes if one.is_well and one.sequence}
        log.warning("Redis held no book: rebuilt from Postgres", extra={"sequences": books})
    for failed in (one for one in outcomes if not one.is_well):
        told = {"instrument": failed.instrument, "why": failed.text}
        log.error("a book is not rebuilt", extra=told)


def _tell(settings: Settings, redis_shell: list[str], postgres_shell: list[str]) -> None:
    url = base_url(settings)
    lines = {
        "page": f"{url}/",
        "REST": f"{url}/orders",
        "WebSocket": f"{url.replace('http', 'ws', 1)}/ws",
        "books": shlex.join(redis_shell),
        "history": shlex.join(postgres_shell),
        "data": str(settings.data_dir),
        "traders": shlex.join([_python(), "-m", "app", "simulate", "--url", url]),
    }
    print(*(f"{what:>10}  {where}" for what, where in lines.items()), sep="\n")
    print("Crossbook is ready", flush=True)


def _python() -> str:
    """As short as it can be typed where we were started."""
    path = Path(sys.executable)
    return str(path.relative_to(Path.cwd())) if path.is_relative_to(Path.cwd()) else str(path)
