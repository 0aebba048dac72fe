"""The sweeper against a real Redis: what is due happens in time, once, whoever else is gone."""

import contextlib
import logging
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import redis

from app import persist, sweeper
from app.domain.events import Event, EventType, parse_event
from app.domain.orders import Status
from app.embedded.redis_server import EmbeddedRedis
from app.engine.book import Books
from app.engine.commands import Cancel, NewOrder, OrderNumber, Placed, Refused
from app.engine.crowding import Crowding
from app.engine.executor import DirectExecutor, EngineUnavailable, PipelinedExecutor
from app.engine.keys import INSTRUMENTS, SWEEPER_ALIVE, book_keys
from app.sweeper import Sweeper
from tests.free_ports import free_port
from tests.waiting import least

PATIENCE_S = 30.0
ROOT = Path(__file__).resolve().parents[2]
SECOND_US = 1_000_000
LATE_US = SECOND_US
"""What is due happens within a second."""
TTL_S = 3600
BALLAST_BYTES = 8 * 2**20
NOTHING_THERE = "postgresql://127.0.0.1:1/nothing"


def wait_until(condition: Callable[[], object], what: str) -> None:
    deadline = time.monotonic() + PATIENCE_S
    while not condition():
        assert time.monotonic() < deadline, f"waited in vain until {what}"
        time.sleep(0.005)


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[EmbeddedRedis]:
    running = EmbeddedRedis(tmp_path_factory.mktemp("sweeper"), port=free_port())
    try:
        running.start()
        running.wait_ready()
        yield running
    finally:
        running.stop()


class Venue:
    """Books of one Redis, and their clock."""

    def __init__(self, url: str) -> None:
        self.client = redis.Redis.from_url(url, protocol=2, decode_responses=True)
        self.books = Books(DirectExecutor(redis.Redis.from_url(url, protocol=2)), TTL_S)

    def open(self, symbol: str) -> str:
        """An instrument as the API lists it, for those who look."""
        self.client.hset(INSTRUMENTS, symbol, "{}")
        self.books.open(symbol)
        return symbol

    def now_us(self) -> int:
        seconds, micros = self.client.time()  # type: ignore[misc]
        return int(seconds) * SECOND_US + int(micros)

    def rest(self, symbol: str, expires_us: int | None = None, client_id: str = "alice") -> int:
        """The number of an order that rests."""
        order = NewOrder(
            side="buy",
            type="limit",
            time_in_force="gtc" if expires_us is None else "gtd",
            price_ticks=100,
            quantity_lots=5,
            client_id=client_id,
            expires_us=expires_us,
        )
        placed = self.books.place(symbol, order)
        assert isinstance(placed, Placed)
        return placed.order.number

    def rest_dated(self, symbol: str, in_us: int) -> tuple[int, int]:
        """The number of an order that rests, and when it is due: so soon, or later where it was too
        late for that when it came to Redis.
        """
        while True:
            due_us = self.now_us() + in_us
            try:
                return self.rest(symbol, due_us), due_us
            except Refused as refused:
                if refused.refusal.value != "expires_in_past":
                    raise
                in_us *= 2

    def rest_until_due(self, symbol: str) -> int:
        """One that rests, and whose time has come."""
        number, due_us = self.rest_dated(symbol, SECOND_US // 5)
        wait_until(lambda: self.now_us() >= due_us, "it is due")
        return number

    def events(self, symbol: str) -> list[Event]:
        raw: Any = self.client.xrange(book_keys(symbol).events)
        return [parse_event(symbol, entry_id, fields) for entry_id, fields in raw]

    def ended(self, symbol: str) -> dict[int, tuple[str, int]]:
        """Number -> status and time of each order that is over; none may end twice."""
        found: dict[int, tuple[str, int]] = {}
        for event in self.events(symbol):
            for order in event.orders:
                assert order.number not in found, "over is over"
                if not order.is_open:
                    found[order.number] = order.status, event.time_us
        return found


@pytest.fixture
def venue(server: EmbeddedRedis) -> Venue:
    found = Venue(server.url)
    found.client.flushall()
    return found


def sweeper_of(server: EmbeddedRedis) -> Sweeper:
    client = sweeper.connect(server.url)
    return Sweeper(client, Books(PipelinedExecutor(client), TTL_S))


@contextlib.contextmanager
def sweeping(*sweepers: Sweeper) -> Iterator[None]:
    """The sweepers' own loops, each in a thread."""
    stop = threading.Event()
    threads = [threading.Thread(target=each.run, args=(stop,)) for each in sweepers]
    for thread in threads:
        thread.start()
    try:
        yield
        assert all(thread.is_alive() for thread in threads)
    finally:
        stop.set()
        for thread in threads:
            thread.join(PATIENCE_S)
    assert not any(thread.is_alive() for thread in threads)


@contextlib.contextmanager
def persist_process(server: EmbeddedRedis) -> Iterator[subprocess.Popen[bytes]]:
    """`python -m app persist` whose Postgres does not exist; nobody serves."""
    environment = os.environ | {"REDIS_URL": server.url, "DATABASE_URL": NOTHING_THERE}
    command = [sys.executable, "-m", "app", "persist"]
    process = subprocess.Popen(command, cwd=ROOT, env=environment)
    try:
        yield process
    finally:
        process.kill()
        process.wait()


def test_dated_orders_expire_within_a_second(server: EmbeddedRedis, venue: Venue) -> None:
    """Rule: an order expires at its time or within a second after it, though nobody trades."""
    symbol = venue.open("AAA-USD")
    stays = venue.rest(symbol, venue.now_us() + 1000 * SECOND_US)

    def late_us() -> int:
        steps = range(1, 15)
        due = dict(venue.rest_dated(symbol, SECOND_US + n * SECOND_US // 10) for n in steps)
        with sweeping(sweeper_of(server)):
            wait_until(lambda: due.keys() <= venue.ended(symbol).keys(), "all have expired")
        ended = venue.ended(symbol)
        assert {ended[number][0] for number in due} == {Status.EXPIRED}
        late = [ended[number][1] - due_us for number, due_us in due.items()]
        assert min(late) >= 0
        return max(late)

    assert least(late_us, LATE_US) < LATE_US
    assert stays not in venue.ended(symbol)


def test_timers_fire_though_api_and_postgres_are_gone(server: EmbeddedRedis, venue: Venue) -> None:
    """Rule: a cancel-after timer needs neither who armed it nor Postgres: it fires within a second,
    for its client alone; one armed again or disarmed does not.
    """
    symbol = venue.open("AAA-USD")
    for client in ("bob", "carol", "dave"):
        venue.rest(symbol, client_id=client)
    alices: list[int] = []

    def late_us() -> int:
        alices.append(venue.rest(symbol, client_id="alice"))
        due_us = venue.books.set_timer(symbol, "alice", SECOND_US // 2).due_us
        wait_until(lambda: alices[-1] in venue.ended(symbol), "the timer fires")
        status, time_us = venue.ended(symbol)[alices[-1]]
        assert status == Status.CANCELLED
        assert due_us is not None
        assert time_us >= due_us
        return time_us - due_us

    with persist_process(server):
        wait_until(lambda: _is_swept(venue), "the process sweeps")
        armed = [
            venue.books.set_timer(symbol, client, 2 * SECOND_US) for client in ("bob", "carol")
        ]
        venue.books.set_timer(symbol, "bob", 1000 * SECOND_US)
        venue.books.set_timer(symbol, "carol", 0)
        assert least(late_us, LATE_US) < LATE_US
        wait_until(lambda: venue.now_us() > (armed[1].due_us or 0), "theirs would have fired")
        last, _ = venue.rest_dated(symbol, SECOND_US // 2)
        wait_until(lambda: last in venue.ended(symbol), "what comes later is done, too")
    assert set(venue.ended(symbol)) == {*alices, last}


def _is_swept(venue: Venue) -> bool:
    """Whether an order that expires soon does; on an instrument of its own."""
    symbol = venue.open("SWEPT-USD")
    if not venue.events(symbol):
        venue.rest_dated(symbol, SECOND_US // 20)
    return bool(venue.ended(symbol))


def test_process_ends_when_asked_though_postgres_is_gone(
    server: EmbeddedRedis, venue: Venue
) -> None:
    """Rule: SIGTERM ends both, persister and sweeper, at once."""

    def takes_s() -> float:
        venue.client.flushall()
        with persist_process(server) as process:
            wait_until(lambda: _is_swept(venue), "the process sweeps")
            began = time.monotonic()
            process.send_signal(signal.SIGTERM)
            assert process.wait(PATIENCE_S) == 0
            return time.monotonic() - began

    assert least(takes_s, 5) < 5


def test_two_sweepers_do_everything_once(server: EmbeddedRedis, venue: Venue) -> None:
    """Rule: several sweepers at once neither do a thing twice nor leave one out."""
    symbols = [venue.open(f"A{n}-USD") for n in range(20)]
    count = 40
    for symbol in symbols:
        for n in range(count):
            venue.rest_dated(symbol, (500 + n * 20) * 1000)
        venue.rest(symbol, client_id="bob")
        venue.books.set_timer(symbol, "bob", SECOND_US)
    with sweeping(*(sweeper_of(server) for _ in range(3))):
        for symbol in symbols:
            wait_until(lambda s=symbol: len(venue.ended(s)) == count + 1, "all are over")
    for symbol in symbols:
        sequences = [event.sequence for event in venue.events(symbol)]
        assert sequences == list(range(1, len(sequences) + 1))
        statuses = [status for status, _ in venue.ended(symbol).values()]
        assert sorted(statuses) == [Status.CANCELLED] + [Status.EXPIRED] * count


def test_new_instrument_is_swept(server: EmbeddedRedis, venue: Venue) -> None:
    """Rule: an instrument that is listed while the sweeper runs is swept without a restart."""
    symbol = venue.open("AAA-USD")
    first = venue.rest_until_due(symbol)
    with sweeping(sweeper_of(server)):
        wait_until(lambda: first in venue.ended(symbol), "what was listed before is swept")
        wait_until(lambda: _is_swept(venue), "the new one is swept")


def test_much_that_is_due_is_done_in_steps(
    server: EmbeddedRedis, venue: Venue, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Rule: a round is bounded; what it leaves over the next one does at once. No book waits for
    another that has much to do.
    """
    busy, calm = venue.open("AAA-USD"), venue.open("BBB-USD")
    due_us = venue.now_us() + 1000 * SECOND_US
    for _ in range(600):
        venue.rest(busy, due_us)
    venue.rest(calm, due_us)
    monkeypatch.setattr(sweeper, "MAX_STEPS", 1)
    monkeypatch.setattr(sweeper, "BOOKS_PER_WRITE", 1)
    monkeypatch.setattr(sweeper, "SWEEP_EVERY_S", PATIENCE_S)
    one = sweeper_of(server)
    assert one.step(), "nothing is due yet"
    for symbol in (busy, calm):
        venue.client.hset(book_keys(symbol).book, "time", due_us)
    assert not one.step(), "all is due"
    assert 0 < len(venue.ended(busy)) < 600
    assert len(venue.ended(calm)) == 1
    with sweeping(one):
        wait_until(lambda: len(venue.ended(busy)) == 600, "the rest is done without a pause")
    assert len([e for e in venue.events(busy) if e.type == EventType.EXPIRE]) == 3


def test_portions_leave_no_book_out(
    server: EmbeddedRedis, venue: Venue, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Rule: however many books there are, each is swept in each round."""
    monkeypatch.setattr(sweeper, "BOOKS_PER_WRITE", 3)
    symbols = [venue.open(f"A{n}-USD") for n in range(10)]
    due_us = max(venue.rest_dated(symbol, SECOND_US // 5)[1] for symbol in symbols)
    wait_until(lambda: venue.now_us() >= due_us, "they are due")
    assert sweeper_of(server).step()
    assert [len(venue.ended(symbol)) for symbol in symbols] == [1] * len(symbols)


def test_outage_is_told_once_and_survived(
    server: EmbeddedRedis, venue: Venue, caplog: pytest.LogCaptureFixture
) -> None:
    """Rule: while Redis is away the sweeper waits and says so in one line; what became due
    meanwhile is done when it is back.
    """
    caplog.set_level(logging.INFO, sweeper.log.name)
    symbol = venue.open("AAA-USD")

    def late_us() -> int:
        caplog.clear()
        number, due_us = venue.rest_dated(symbol, SECOND_US // 2)
        server.stop()
        wait_until(lambda: caplog.records, "the outage is noticed")
        time.sleep(1)  # the outage itself: some tries in vain
        server.start()
        server.wait_ready()
        back_us = venue.now_us()
        wait_until(lambda: number in venue.ended(symbol), "it expires")
        wait_until(lambda: len(caplog.records) >= 2, "the end is told")
        told = [record.levelname for record in caplog.records if record.name == sweeper.log.name]
        assert told == ["WARNING", "INFO"]
        return venue.ended(symbol)[number][1] - max(back_us, due_us)

    late_us_max = round(sweeper.SETTLE_S * SECOND_US) + LATE_US
    with sweeping(sweeper_of(server)):
        wait_until(lambda: _is_swept(venue), "it sweeps")
        assert least(late_us, late_us_max) < late_us_max


def test_book_that_cannot_be_swept_stops_no_other(
    server: EmbeddedRedis, venue: Venue, caplog: pytest.LogCaptureFixture
) -> None:
    """Rule: a book that a script cannot sweep is reported once; one that is missing is nothing to
    report; the others are swept.
    """
    strange, broken = venue.open("AAA-USD"), venue.open("BBB-USD")
    venue.client.hset(INSTRUMENTS, "CCC-USD", "{}")  # announced, its book to come
    good = venue.open("DDD-USD")
    venue.client.hset(book_keys(strange).book, "schema", "of the future")
    venue.client.delete(book_keys(broken).timers)
    venue.client.set(book_keys(broken).timers, "no set")
    number = venue.rest_until_due(good)
    one = sweeper_of(server)
    for _ in range(3):
        one.step()
    assert number in venue.ended(good)
    told = [getattr(record, "instrument", None) for record in caplog.records]
    assert sorted(map(str, told)) == [strange, broken]


class Failing(Sweeper):
    """A sweeper with a defect."""

    def step(self) -> bool:
        """Fails as no outage does."""
        raise LookupError


def test_failed_sweeper_ends_the_process(server: EmbeddedRedis) -> None:
    """Rule: a sweeper that fails for no outage does not die in silence beside a persister that
    lives: both end, and whoever looks after the process starts it again.
    """
    client = sweeper.connect(server.url)
    stop = threading.Event()
    with pytest.raises(LookupError):
        persist._sweep(Failing(client, Books(PipelinedExecutor(client), TTL_S)), stop)
    assert stop.is_set()


def test_redis_that_takes_no_writes_is_an_outage(server: EmbeddedRedis, venue: Venue) -> None:
    """Rule: a Redis that is there but takes no writes is not asked on and on, book after book."""
    venue.rest_until_due(venue.open("AAA-USD"))
    venue.client.replicaof("127.0.0.1", "1")
    try:
        with pytest.raises(EngineUnavailable):
            sweeper_of(server).step()
    finally:
        venue.client.replicaof("NO", "ONE")


def test_each_round_is_a_sign_of_life(server: EmbeddedRedis, venue: Venue) -> None:
    """Which /readyz looks for: a timer that nobody fires is worth nothing."""
    assert not venue.client.exists(SWEEPER_ALIVE)
    sweeper_of(server).step()
    assert 0 < int(venue.client.ttl(SWEEPER_ALIVE)) <= sweeper.ALIVE_S  # type: ignore[arg-type]


class TestCrowding:
    """The backlog's bound in bytes."""

    SYMBOLS = ("AAA-USD", "BBB-USD", "CCC-USD")

    def marks(self, venue: Venue) -> list[str | None]:
        return [venue.client.hget(book_keys(s).book, "crowded") for s in self.SYMBOLS]  # type: ignore[misc]

    def size(self, venue: Venue, symbol: str) -> int:
        found: Any = venue.client.memory_usage(book_keys(symbol).events)
        return int(found)

    def test_book_whose_events_take_too_much_takes_no_orders_until_they_take_less(
        self, server: EmbeddedRedis, venue: Venue
    ) -> None:
        for symbol in self.SYMBOLS:
            venue.open(symbol)
        for _ in range(300):
            venue.rest("BBB-USD")
        size = self.size(venue, "BBB-USD")
        crowding = Crowding(sweeper.connect(server.url), bytes_max=size - 1)
        crowding.look(self.SYMBOLS)
        assert self.marks(venue) == [None, str(size), None]
        with pytest.raises(Refused, match="backlog_full"):
            venue.rest("BBB-USD")
        venue.books.cancel("BBB-USD", Cancel(OrderNumber(1)))
        venue.rest("AAA-USD")
        venue.client.xtrim(book_keys("BBB-USD").events, maxlen=299, approximate=False)
        crowding.look(self.SYMBOLS)
        assert self.marks(venue)[1], "a little less is not enough"
        venue.client.xtrim(book_keys("BBB-USD").events, maxlen=100)
        crowding.look(self.SYMBOLS)
        assert self.marks(venue) == [None] * 3
        venue.rest("BBB-USD")

    def test_when_redis_is_nearly_full_no_book_takes_orders_and_cancels_pass(
        self, server: EmbeddedRedis, venue: Venue
    ) -> None:
        for symbol in self.SYMBOLS:
            venue.rest(venue.open(symbol))
        crowding = Crowding(sweeper.connect(server.url))
        # Beside it, what connections take as they come and go is nothing.
        venue.client.set("ballast", "x" * BALLAST_BYTES)
        memory: Any = venue.client.info("memory")
        used = memory["used_memory"]
        try:
            venue.client.config_set("maxmemory", int(used / 0.95))
            crowding.look(self.SYMBOLS)
            assert all(self.marks(venue))
            for symbol in self.SYMBOLS:
                with pytest.raises(Refused, match="backlog_full"):
                    venue.rest(symbol)
                venue.books.cancel(symbol, Cancel(OrderNumber(1)))
            venue.client.config_set("maxmemory", used * 4)
            crowding.look(self.SYMBOLS)
            assert not any(self.marks(venue))
        finally:
            venue.client.config_set("maxmemory", 0)

    def test_each_of_many_has_its_turn(self, server: EmbeddedRedis, venue: Venue) -> None:
        for symbol in self.SYMBOLS:
            venue.rest(venue.open(symbol))
        crowding = Crowding(sweeper.connect(server.url), bytes_max=1, books_per_look=2)
        crowding.look(self.SYMBOLS)
        assert [bool(mark) for mark in self.marks(venue)] == [True, True, False]
        crowding.look(self.SYMBOLS)
        assert all(self.marks(venue))

    def test_lost_book_is_not_made_by_a_mark(self, server: EmbeddedRedis, venue: Venue) -> None:
        venue.rest(venue.open("AAA-USD"))
        venue.client.delete(book_keys("AAA-USD").book)
        Crowding(sweeper.connect(server.url), bytes_max=1).look(self.SYMBOLS)
        assert not venue.client.exists(book_keys("AAA-USD").book)

    def test_damaged_book_keeps_no_other_from_its_turn(
        self, server: EmbeddedRedis, venue: Venue
    ) -> None:
        for symbol in self.SYMBOLS:
            venue.rest(venue.open(symbol))
        venue.client.delete(book_keys("AAA-USD").book)
        venue.client.set(book_keys("AAA-USD").book, "?")
        Crowding(sweeper.connect(server.url), bytes_max=1).look(self.SYMBOLS)
        for symbol in self.SYMBOLS[1:]:
            assert venue.client.hexists(book_keys(symbol).book, "crowded")

    def test_a_sweeper_looks(self, server: EmbeddedRedis, venue: Venue) -> None:
        symbol = venue.open("AAA-USD")
        venue.client.hset(book_keys(symbol).book, "crowded", "9")
        sweeper_of(server).step()
        assert self.marks(venue)[0] is None


def test_nothing_is_swept_just_after_redis_was_started_anew(
    server: EmbeddedRedis, venue: Venue
) -> None:
    """A book that went back in time must not grow before the API has seen that it did."""
    symbol = venue.open("AAA-USD")
    own = sweeper_of(server)
    own.step()
    venue.rest_until_due(symbol)
    own._run_id = "of the one before"
    before = venue.events(symbol)
    assert own.step()
    assert venue.events(symbol) == before
    assert venue.client.exists(SWEEPER_ALIVE)
    own._sweep_at = 0.0
    own.step()
    assert len(venue.events(symbol)) == len(before) + 1
