"""Whatever is killed, whenever: nothing acknowledged is lost and nothing happens twice. Traders
keep placing and cancelling while a part dies or hangs; afterwards every answer that one of them got
is held against Redis, Postgres and the reference.
"""

import os
import random
import signal
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from datetime import datetime
from typing import Any, Final

import pytest
import redis

from tests.audit import audit, await_quiet
from tests.commands import Place, limit, market
from tests.flow import NO_ANSWER, Crowd
from tests.processes import children_of, is_running
from tests.reference import ReferenceBook
from tests.rest import (
    Answer,
    Json,
    order_body,
    order_id,
    order_words,
    raw_request,
    same_words,
    volley,
)
from tests.system import WORKERS, System, running_system
from tests.waiting import fastest_s, least, wait_for

TRADERS: Final = 8
OUTAGE_S: Final = 10.0
PROGRESS: Final = 200
"""Commands that count as the traders' going on."""
READ_BACK: Final = 100
"""Orders read over REST at the end; the audit has seen them all in the stores."""

MICROSECONDS: Final = 1_000_000
EARLY_US: Final = 1000
"""Rounding of this test's own floats."""
LATE_US: Final = 1.3 * MICROSECONDS
"""A second, and what passes between two requests of a test."""
LATE_AFTER_A_KILL_US: Final = 7.0 * MICROSECONDS
"""What died often is started again after up to 5 s; and it takes a moment to start."""

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def system() -> Iterator[System]:
    """One of our own: here it suffers."""
    with running_system() as running:
        yield running


@pytest.fixture(autouse=True)
def well_again(system: System) -> None:
    """What the test before has killed is back: `up` starts it ever later if it dies often."""
    await_reads(system)


@pytest.fixture
def crowd(system: System, symbol: str, rng: random.Random) -> Crowd:
    """Traders on a fresh instrument, half of whose orders have keys."""
    return Crowd(system.api, symbol, rng, TRADERS)


def await_progress(crowd: Crowd, commands: int = PROGRESS) -> None:
    """Returns once the traders have carried through so many more commands."""
    goal = crowd.count + commands
    wait_for(lambda: crowd.count >= goal)


def answers(client: redis.Redis) -> bool:
    """Whether this Redis takes commands: it is there, and has loaded its files."""
    try:
        return bool(client.ping())
    except redis.RedisError:
        return False


def kill_redis(system: System) -> None:
    """kill -9; returns when its successor has loaded the append-only file."""
    killed = system.kill("redis")
    wait_for(lambda: system.pid("redis") != killed and answers(system.redis))


def check_story(system: System, crowd: Crowd, rng: random.Random) -> ReferenceBook:
    """All that was told is so, each order exactly once; and REST says it, too."""
    symbol = crowd.symbol
    for one in crowd.untold:
        assert isinstance(one.command, Place), one
        assert one.command.idempotency_key is None, f"asked again and again: {one}"
    book = audit(system, symbol, crowd.outcomes)
    numbers = [event.sequence for event in book.events if event.type == "place"]
    for number in rng.sample(numbers, min(READ_BACK, len(numbers))):
        order = book.order(number)
        assert order is not None
        words = order_words(symbol, order)
        assert same_words(read_back(system, order_id(symbol, number)), words) == words
    return book


def read_back(system: System, order_id: str) -> Json:
    """GET /orders/{order_id}, as often as it is told to try again: after an outage of Postgres a
    worker takes a while to find it.
    """
    told: list[Answer] = []

    def is_told() -> bool:
        told.append(system.api.get(f"/orders/{order_id}"))
        return told[-1].status != 503

    wait_for(is_told)
    assert told[-1].status == 200, told[-1]
    return told[-1].json()


def await_reads(system: System) -> None:
    """Returns once those who answer have all their connections again."""
    request = raw_request("GET", "/readyz")

    def are_well() -> bool:
        try:
            told = system.ask_each_worker(request)
            return len(told) == WORKERS and all(map(is_well, told))
        except NO_ANSWER:  # of a worker that is just being replaced
            return False

    wait_for(are_well)


def is_well(answer: Answer) -> bool:
    """Whether /readyz says that nothing is missing."""
    return answer.status == 200 and all(c["ok"] for c in answer.json()["checks"].values())


class TestRedis:
    """kill -9 of redis-server, which `up` starts again."""

    def test_killed_under_load_it_keeps_every_acknowledged_order_exactly_once(
        self, system: System, crowd: Crowd, rng: random.Random
    ) -> None:
        with crowd.trading():
            for _ in range(5):
                await_progress(crowd)
                kill_redis(system)
            await_progress(crowd)
        assert any(one.attempts > 1 for one in crowd.told), "it was killed under their hands"
        check_story(system, crowd, rng)

    def test_killed_in_peace_it_comes_back_with_every_key_as_it_was(
        self, system: System, crowd: Crowd, rng: random.Random
    ) -> None:
        """Queue order, level totals, indexes, idempotency records, events: nothing is missing and
        nothing is new, and trading goes on at the next sequence.
        """
        crowd.trade(steps=50)
        symbol = crowd.symbol
        await_quiet(system, symbol)
        before = system.contents(symbol)
        held = {key.removeprefix(f"{{{symbol}}}:") for key in before}
        assert held >= {"book", "owners", "idempotency:0", "events"}
        assert held & {"bids", "asks"}, "orders rest, so there is something to lose"
        kill_redis(system)
        assert system.contents(symbol) == before
        sequence = system.sequences()[symbol]
        order = system.api.placed(order_body(symbol, limit("late", "buy", 1, 1)))["order"]
        assert order["sequence"] == sequence + 1
        check_story(system, crowd, rng)

    def test_while_it_is_away_answers_are_503_and_come_at_once(
        self, system: System, symbol: str
    ) -> None:
        api = system.api
        order = order_body(symbol, limit("ann", "buy", 100, 5))
        placed = api.placed(order)["order"]
        requests = [
            raw_request("POST", "/orders", order, {"Idempotency-Key": "k"}),
            raw_request("DELETE", f"/orders/{placed['order_id']}"),
            raw_request("GET", f"/orderbook?instrument={symbol}"),
            raw_request("GET", "/readyz"),
        ]
        system.settled()
        with system.paused("serve"), system.stopped_supervisor():
            # The workers wake up when Redis is gone and cannot come back.
            system.kill("redis")
            pid = system.pid("serve")
            for one in (pid, *children_of(pid)):
                os.kill(one, signal.SIGCONT)
            refused: list[Answer] = []
            assert fastest_s(lambda: refused.extend(volley(api.port, requests)), 5) < 5
        for answer in refused:
            assert answer.status == 503, answer
        for answer in refused[-4:-1]:
            assert answer.headers["Retry-After"] == "1", answer
        assert refused[-1].json()["checks"]["redis"]["ok"] is False
        wait_for(lambda: answers(system.redis))
        assert api.order(placed["order_id"]) == placed, "the refused cancel was not carried out"
        assert api.found("/orderbook", instrument=symbol)["sequence"] == 1


def hang(system: System, meanwhile: Callable[[], None]) -> None:
    """Postgres neither answers nor closes a connection for OUTAGE_S."""
    with system.paused("postgres"):
        ends = time.monotonic() + OUTAGE_S
        meanwhile()
        wait_for(lambda: time.monotonic() > ends)


def die_again_and_again(system: System, meanwhile: Callable[[], None]) -> None:
    """For OUTAGE_S Postgres is killed as soon as it is there."""
    ends = time.monotonic() + OUTAGE_S
    system.kill("postgres")
    meanwhile()
    while time.monotonic() < ends:
        system.kill("postgres")


class TestPostgres:
    """Postgres away for ten seconds: trading goes on."""

    @pytest.mark.parametrize("outage", [hang, die_again_and_again])
    def test_no_order_fails_and_nothing_is_missing_or_twice_afterwards(
        self,
        system: System,
        crowd: Crowd,
        rng: random.Random,
        outage: Callable[[System, Callable[[], None]], None],
    ) -> None:
        api, quiet = system.api, system.list_instrument()
        # The others may come to ask for orders that only Postgres still has.
        late = Crowd(api, system.list_instrument(), rng, TRADERS)

        def trading_goes_on() -> None:
            for _ in range(3):
                await_progress(late)
                order = api.placed(order_body(quiet, limit("eve", "buy", 1, 1)))["order"]
                assert api.order(order["order_id"]) == order
                assert api.found("/orderbook", instrument=quiet)["bids"]
                mine = {"client_id": "eve", "instrument": quiet, "status": "open"}
                assert api.found("/orders", **mine)["orders"][0] == order

        def trading_begins_and_goes_on() -> None:
            with late.trading():
                trading_goes_on()

        with crowd.trading():
            await_progress(crowd)
            outage(system, trading_begins_and_goes_on)
            await_progress(crowd)
        for each in (crowd, late):
            assert not each.untold
            check_story(system, each, rng)
        audit(system, quiet)

    def test_while_it_hangs_nothing_that_asks_it_hangs_with_it(
        self, system: System, symbol: str
    ) -> None:
        """Lists are answered or refused with 503, and /readyz names it, well before it is back."""
        api = system.api
        api.placed(order_body(symbol, limit("ann", "sell", 100, 5)))
        taker = api.placed(order_body(symbol, market("bob", "buy", 5)))
        system.settled()
        paths = (
            f"/orders?instrument={symbol}",
            f"/trades?instrument={symbol}",
            f"/orders/{taker['order']['order_id']}",
            "/readyz",
        )
        with system.paused("postgres"):
            told: list[Answer] = []
            requests = [raw_request("GET", path) for path in paths]
            assert fastest_s(lambda: told.extend(volley(api.port, requests)), OUTAGE_S) < OUTAGE_S
            told = told[-len(paths) :]
        for answer in told[:3]:
            assert answer.status in (200, 503), answer
        assert told[3].json()["checks"]["postgres"]["ok"] is False
        await_reads(system)
        assert api.found(paths[1])["trades"] == taker["trades"]


class TestPersister:
    """kill -9 of the persister."""

    def test_killed_at_random_moments_it_writes_everything_down_once(
        self, system: System, crowd: Crowd, rng: random.Random
    ) -> None:
        """While it starts, catches up, or is in the middle of a batch."""
        with crowd.trading():
            for _ in range(6):
                moment = time.monotonic() + rng.uniform(0, 1.2)
                wait_for(lambda moment=moment: time.monotonic() > moment)  # type: ignore[misc]
                system.kill("persist")
            await_progress(crowd)
        assert not crowd.untold
        check_story(system, crowd, rng)

    @pytest.mark.parametrize(
        "table", ["events", "orders", "trades", "positions", "candles", "stream_positions"]
    )
    def test_killed_between_two_statements_it_has_written_all_or_nothing(
        self, system: System, crowd: Crowd, rng: random.Random, table: str
    ) -> None:
        """A lock on a table stops it in the middle of its transaction: there it dies, and what it
        had sent and not been answered dies with it.
        """
        with crowd.trading():
            wait_for(lambda: position(system, crowd.symbol))
            with system.postgres() as connection:
                connection.execute(f"LOCK TABLE {table} IN SHARE MODE")
                wait_for(lambda: waiting_for(system, table))
                system.kill("persist")
                for (backend,) in waiting_for(system, table):
                    system.rows("SELECT pg_terminate_backend(%s, 5000)", backend)
            await_progress(crowd)
        assert not crowd.untold
        check_story(system, crowd, rng)

    def test_killed_between_its_commit_and_redis_it_drops_later_what_it_has_written(
        self, system: System, crowd: Crowd, rng: random.Random
    ) -> None:
        """Redis stands still while Postgres commits, then both die: the commit is done, and what
        should follow it is not: an order that is over is still in Redis.
        """
        crowd.trade(steps=20)
        symbol = crowd.symbol
        for each in system.sequences():  # or something due would come before or after the order
            await_quiet(system, each)
        with system.postgres() as connection:
            connection.execute("LOCK TABLE stream_positions IN SHARE MODE")
            over = system.api.placed(order_body(symbol, market("eve", "buy", 1)))["order"]
            wait_for(lambda: waiting_for(system, "stream_positions"))
            with system.paused("redis"):
                connection.commit()
                wait_for(lambda: position(system, symbol) == over["sequence"])
                system.kill("persist")
                system.kill("redis")
        wait_for(lambda: answers(system.redis))
        crowd.trade(steps=10)
        check_story(system, crowd, rng)


class TestTimers:
    """What is due by the clock while parts are gone: cancel-after timers and expiries."""

    def test_they_fire_though_api_and_postgres_hang(self, system: System, symbol: str) -> None:
        """Within a second; and those who asked find it so afterwards."""

        def late_us() -> float:
            timed, dated = arm(system, symbol, timeout_s=2)
            with system.paused("postgres"), system.paused("serve"):
                wait_for(lambda: not open_numbers(system, symbol))
            return ended_late_us(system, timed, dated)

        assert least(late_us, LATE_US) < LATE_US
        audit(system, symbol)

    def test_they_fire_though_the_persister_was_killed(self, system: System, symbol: str) -> None:
        """Its successor does it, late by no more than it takes to start."""

        def late_us() -> float:
            timed, dated = arm(system, symbol, timeout_s=3)
            system.kill("persist")
            wait_for(lambda: not open_numbers(system, symbol))
            return ended_late_us(system, timed, dated)

        assert least(late_us, LATE_AFTER_A_KILL_US) < LATE_AFTER_A_KILL_US
        audit(system, symbol)

    def test_they_outlive_redis(self, system: System, symbol: str) -> None:
        """kill -9 of Redis while they run: they fire when it is back."""

        def late_us() -> float:
            timed, dated = arm(system, symbol, timeout_s=3)
            kill_redis(system)
            wait_for(lambda: not open_numbers(system, symbol))
            return ended_late_us(system, timed, dated)

        assert least(late_us, LATE_US) < LATE_US
        audit(system, symbol)


def arm(system: System, symbol: str, timeout_s: int) -> tuple[Json, Json]:
    """An order that a timer will cancel, and one that will expire at about the same time."""
    timed = system.api.placed(order_body(symbol, limit("alice", "buy", 10, 1)))["order"]
    ends_us = int((time.time() + timeout_s) * MICROSECONDS)
    body = replace(limit("bob", "sell", 20, 1), time_in_force="gtd", expires_us=ends_us)
    dated = system.api.placed(order_body(symbol, body))["order"]
    timer = {"instrument": symbol, "client_id": "alice", "timeout_s": timeout_s}
    answer = system.api.request("POST", "/orders/cancel-after", timer)
    assert answer.status == 200, answer
    cancel_at = datetime.fromisoformat(answer.json()["cancel_at"])
    timed_us = cancel_at.timestamp() * MICROSECONDS
    return timed | {"ends_us": timed_us}, dated | {"ends_us": ends_us}


def open_numbers(system: System, symbol: str) -> list[int]:
    """Of the orders that are open by Redis's word."""
    owners: Any = system.redis.zrange(f"{{{symbol}}}:owners", 0, -1)
    return [int(owner.rpartition(b"|")[2]) for owner in owners]


def ended_late_us(system: System, timed: Json, dated: Json) -> float:
    """How long after its time the later one ended; each for its own reason, and REST says so."""
    system.settled()
    late: list[float] = []
    for order, status, reason in (
        (timed, "cancelled", "cancel_after"),
        (dated, "expired", "expired"),
    ):
        await_reads(system)
        told = read_back(system, order["order_id"])
        assert (told["status"], told["reason"]) == (status, reason)
        ended = datetime.fromisoformat(told["updated_at"]).timestamp() * MICROSECONDS
        late.append(ended - order["ends_us"])
        assert late[-1] > -EARLY_US, late
    return max(late)


def position(system: System, symbol: str) -> int:
    """The last sequence written down; 0 while the persister has not looked at the instrument."""
    found = system.rows("SELECT sequence FROM stream_positions WHERE instrument = %s", symbol)
    return found[0][0] if found else 0


def waiting_for(system: System, table: str) -> list[tuple[Any, ...]]:
    """Those of Postgres's processes that wait for a lock on this table."""
    return system.rows(
        "SELECT pid FROM pg_locks WHERE relation = %s::regclass AND NOT granted", table
    )


class TestWorkers:
    """kill -9 of the processes that answer HTTP."""

    def test_what_a_killed_worker_had_in_hand_happened_once_or_not_at_all(
        self, system: System, crowd: Crowd, rng: random.Random
    ) -> None:
        with crowd.trading():
            for _ in range(5):
                await_progress(crowd)
                os.kill(rng.choice(children_of(system.pid("serve"))), signal.SIGKILL)
            await_progress(crowd)
        check_story(system, crowd, rng)


class TestEverything:
    """`up` itself."""

    def test_a_clean_stop_leaves_no_process_and_the_next_start_finds_the_same_book(
        self, system: System, crowd: Crowd, rng: random.Random
    ) -> None:
        """Every key as it was; answers to idempotency keys, too; the next sequence follows."""
        crowd.trade(steps=30)
        symbol = crowd.symbol
        body = order_body(symbol, limit("ann", "buy", 1, 5))
        first = system.api.place(body, key="k")
        await_quiet(system, symbol)
        before, book = system.contents(symbol), system.api.found("/orderbook", instrument=symbol)
        pids = system.pids()
        assert len(pids) >= 6
        assert system.stop() == 0
        assert [pid for pid in pids if is_running(pid)] == []

        system.start()
        assert system.contents(symbol) == before
        assert system.api.found("/orderbook", instrument=symbol) == book
        again = system.api.place(body, key="k")
        assert (again.status, again.body, again.is_replayed) == (201, first.body, True)
        order = system.api.placed(body)["order"]
        assert order["sequence"] == book["sequence"] + 1
        check_story(system, crowd, rng)

    @pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
    def test_stopped_under_load_it_goes_on_where_it_was(
        self, system: System, crowd: Crowd, rng: random.Random, number: signal.Signals
    ) -> None:
        """A clean stop ends with 0; kill -9 takes everything with it, as a power cut does."""
        with crowd.trading():
            await_progress(crowd)
            pids, process = system.pids(), system.up.process
            assert process is not None
            process.send_signal(number)
            assert process.wait(60) == (0 if number == signal.SIGTERM else -signal.SIGKILL)
            wait_for(lambda: not any(map(is_running, pids)))
            system.start()
            await_progress(crowd)
        check_story(system, crowd, rng)
