"""One state, one digest: a live Redis, that after kill -9, a replica, a model fed by events, and
the reference matcher; and whichever versions of the scripts have written the book.
"""

import random
import shutil
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Final

import pytest
import redis

from app.domain.book_state import BookState
from app.domain.events import parse_event
from app.domain.rules import Rules
from app.embedded.redis_server import EmbeddedRedis
from app.engine.book import Books, Scripts
from app.engine.commands import Cancel, NewOrder, OrderNumber, Placed, Refused
from app.engine.executor import PipelinedExecutor
from app.engine.keys import book_keys
from app.engine.layout import read_book
from app.engine.scripts import LUA_FOLDER
from tests.audit import Stored, replayed
from tests.commands import SetRules
from tests.differential import KINDS, PipelinedVenue, Tape, run_tape
from tests.free_ports import free_port
from tests.reference.digest import book_digest
from tests.venue import SYMBOL, event_of
from tests.waiting import wait_for

COMMANDS: Final = 3_000
TRADERS: Final = 4
ORDERS_EACH: Final = 150


@contextmanager
def running_redis(folder: Path, *extra_args: str) -> Iterator[EmbeddedRedis]:
    server = EmbeddedRedis(folder, port=free_port(), extra_args=extra_args)
    try:
        server.start()
        server.wait_ready()
        yield server
    finally:
        server.stop()


@pytest.fixture
def folder() -> Iterator[Path]:
    with TemporaryDirectory(prefix="crossbook-", ignore_cleanup_errors=True) as name:
        yield Path(name)


def client_of(server: EmbeddedRedis) -> redis.Redis:
    return redis.Redis.from_url(server.url, protocol=2)


def events_of(client: redis.Redis) -> list[tuple[int, dict[str, str]]]:
    entries: Any = client.xrange(book_keys(SYMBOL).events)
    return [
        (int(entry_id.partition(b"-")[0]), {n.decode(): v.decode() for n, v in fields.items()})
        for entry_id, fields in entries
    ]


@pytest.mark.slow
def test_live_restarted_replicated_replayed_and_the_reference_have_one_digest(
    folder: Path, rng: random.Random
) -> None:
    tape = Tape(KINDS * rng.randrange(2**32), COMMANDS, low_limits=True)
    with running_redis(folder / "one") as server:
        client = client_of(server)
        venue = PipelinedVenue(client, tape.scripts())
        book = run_tape(venue, tape)
        state = BookState.empty(SYMBOL, Rules())
        for sequence, fields in events_of(client):
            state.apply(sequence, fields)
        # Ticks moved the clock of the test's book on, but no command has come since.
        client.hset(venue.keys.book, "time", str(state.time_us))
        digest = book_digest(book, SYMBOL)
        assert state.digest() == digest
        assert read_book(client, SYMBOL).digest() == digest
        with running_redis(folder / "two", "--replicaof", f"127.0.0.1 {server.port}") as other:
            replica = client_of(other)
            wait_for(lambda: replica.info("replication")["master_link_status"] == "up")  # type: ignore[index]
            assert read_book(replica, SYMBOL).digest() == digest
        assert server.process is not None
        server.process.send_signal(signal.SIGKILL)
        server.process.wait()
        server.start()
        server.wait_ready()
        assert read_book(client_of(server), SYMBOL).digest() == digest


def test_two_versions_of_the_scripts_at_once_make_one_history(
    folder: Path, rng: random.Random
) -> None:
    """As while one API process after the other is replaced by a newer one."""
    newer = Path(shutil.copytree(LUA_FOLDER, folder / "lua"))
    for path in newer.glob("*.lua"):
        path.write_text("-- the next release\n" + path.read_text())
    with running_redis(folder) as server:
        client = client_of(server)
        versions = [Scripts.load(), Scripts.load(newer)]
        assert not {script.sha for script in versions[0]} & {script.sha for script in versions[1]}
        doors = [Books(PipelinedExecutor(client_of(server)), 60, scripts) for scripts in versions]
        doors[0].open(SYMBOL)
        seeds = [(books, random.Random(rng.random())) for books in doors * (TRADERS // 2)]
        threads = [threading.Thread(target=trade, args=pair) for pair in seeds]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        events = events_of(client)
        assert len(events) > TRADERS * ORDERS_EACH * 0.9
        book = replayed([stored(*event) for event in events])
        assert read_book(client, SYMBOL).digest() == book_digest(book, SYMBOL)


def stored(sequence: int, fields: dict[str, str]) -> Stored:
    event = parse_event(SYMBOL, f"{sequence}-0", fields)
    return Stored(event.time_us, event_of(event), SetRules(), (0, 0))  # type: ignore[arg-type]


def trade(books: Books, rng: random.Random) -> None:
    """Places and cancels at random prices that cross."""
    mine: list[int] = []
    for _ in range(ORDERS_EACH):
        if mine and rng.random() < 0.2:
            with suppress(Refused):  # it was filled meanwhile
                books.cancel(SYMBOL, Cancel(OrderNumber(mine.pop())))
        placed = books.place(
            SYMBOL,
            NewOrder(
                side=rng.choice(("buy", "sell")),
                type="limit",
                time_in_force=rng.choice(("gtc", "ioc")),
                price_ticks=rng.randint(95, 105),
                quantity_lots=rng.randint(1, 9),
                client_id=f"client-{rng.randrange(20)}",
            ),
        )
        assert isinstance(placed, Placed)
        if placed.order.is_open:
            mine.append(placed.order.number)
