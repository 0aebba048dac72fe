"""The scripts under fakeredis, command by command against the reference and the truth files."""

import random
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import fakeredis
import pytest
from hypothesis import HealthCheck, given, settings
from redis import Redis

from app.domain.refusals import Reason
from app.engine.book import MAX_SWEEP_STEPS
from app.engine.commands import Refused as EngineRefused
from tests import truth
from tests.commands import Amend, Cancel, Command, Sweep, Tick, limit, market, stop
from tests.differential import PipelinedVenue, Tape, run_tape
from tests.reference import MAX_FILLS, START_US, Cancelled, Placed, ReferenceBook, Refused
from tests.scripting import scripts_for, scripts_with
from tests.strategies import tapes as generated_tapes
from tests.venue import TTL_S, EngineVenue, comparable_answer, comparable_event, play

TAPE_LENGTH = 1_500
START_S = 4_100_000_000  # after the tests' books begin


@pytest.fixture
def client() -> Iterator[Redis]:
    server = fakeredis.FakeRedis()
    yield server
    server.flushall()


@pytest.mark.parametrize("low_limits", [False, True], ids=["usual limits", "low limits"])
@pytest.mark.parametrize("seed", range(2))
def test_answers_events_and_book_equal_the_reference(
    client: Redis, seed: int, low_limits: bool
) -> None:
    """All rules at once, on generated commands."""
    tape = Tape(seed, TAPE_LENGTH, low_limits)
    run_tape(PipelinedVenue(client, tape.scripts()), tape)


@settings(max_examples=40, suppress_health_check=list(HealthCheck))
@given(tape=generated_tapes())
def test_any_tape_that_hypothesis_finds(tape: list[Command]) -> None:
    client = fakeredis.FakeRedis()
    client.flushall()
    venue, book = EngineVenue(client), ReferenceBook()
    for command in tape:
        play(venue, book, command)
        venue.check_against(book)


@pytest.mark.parametrize("path", truth.case_files(), ids=lambda path: path.stem)
def test_cases_that_others_wrote(path: Path) -> None:
    for case in truth.load_cases(path):
        client = fakeredis.FakeRedis()
        client.flushall()
        truth.check_case(EngineVenue(client), case)


def test_the_most_makers_fill_in_one_command(client: Redis) -> None:
    """MAT-4: the limit itself fits into one command; Lua's stack takes that many arguments."""
    venue, book = EngineVenue(client), ReferenceBook()
    rng = random.Random(5)
    for number in range(MAX_FILLS + 1):
        play(venue, book, limit(f"client-{number}", "sell", 100 + rng.randrange(40), 3))
    play(venue, book, market("taker", "buy", 4 * MAX_FILLS))
    venue.check_against(book)
    assert len(book.events[-1].trades) == MAX_FILLS


def test_orders_of_one_call_are_what_they_would_be_in_several(client: Redis) -> None:
    """STP-2, STP-4: the first stop of a book, and what triggers it, in the same call."""
    venue, book = PipelinedVenue(client, scripts_for(ReferenceBook())), ReferenceBook()
    commands = [
        limit("bob", "sell", 100, 1),
        limit("carol", "buy", 100, 1),
        stop("alice", "buy", 101, 1),
        limit("bob", "sell", 101, 2),
        market("carol", "buy", 1),
        limit("bob", "buy", 99, 1),
    ]
    expected = [comparable_answer(book.apply(command)) for command in commands]
    assert venue.apply_all(commands, together=True) == expected
    assert [event for _, event in venue.timed_events(0)] == list(map(comparable_event, book.events))
    assert [event.type for event in book.events].index("trigger") == 5
    venue.check_against(book)


def test_a_book_that_is_there_is_not_made_again(client: Redis) -> None:
    """Whoever lists an instrument twice loses nothing, and a book of another layout stays too."""
    venue = EngineVenue(client)
    venue.apply(limit("alice", "buy", 10, 1))
    before = client.dump(venue.keys.book)
    assert not venue.books.open(venue.symbol)
    assert client.dump(venue.keys.book) == before
    client.hset(venue.keys.book, "schema", "0")
    with pytest.raises(EngineRefused, match="schema_mismatch"):
        venue.books.open(venue.symbol)


def test_a_sweep_takes_steps_until_nothing_is_due(client: Redis) -> None:
    """EXP-3: an event for each step; False where there are more steps than one sweep takes."""
    venue = EngineVenue(client, scripts_with({"MAX_EXPIRIES": 1}))
    dated = replace(limit("alice", "buy", 10, 1), time_in_force="gtd", expires_us=START_US + 1)
    for _ in range(MAX_SWEEP_STEPS + 2):
        assert isinstance(venue.apply(dated), Placed)
    venue.apply(Tick(1))
    assert not venue.books.sweep(venue.symbol)
    assert venue.books.sweep(venue.symbol)
    assert {order.status for order in venue.orders().values()} == {"expired"}
    assert venue.books.sweep(venue.symbol)


def test_a_mass_cancel_says_where_to_go_on(client: Redis) -> None:
    """CXL-3: after the last order that was looked at, whether or not it was cancelled."""
    venue = EngineVenue(client, scripts_with({"MAX_CANCELS": 2}))
    for side in ("buy", "sell", "buy"):
        price = 10 if side == "buy" else 20
        venue.apply(limit("alice", side, price, 1))  # type: ignore[arg-type]
    steps, after = [], 0
    for _ in range(2):
        step = venue.books.mass_cancel(
            venue.symbol, "alice", "buy", Reason.CANCELLED_BY_CLIENT, after
        )
        steps.append(([order.number for order in step.orders], step.continue_after))
        after = step.continue_after or 0
    assert steps == [([1], 2), ([3], None)]


def refusal_of(venue: EngineVenue, command: Command) -> str:
    answer = venue.apply(command)
    assert isinstance(answer, Refused)
    return answer.code


def test_a_full_backlog_stops_orders_and_amends_and_lets_cancels_pass(client: Redis) -> None:
    """CXL-2. What Postgres could not store for too long is bounded; a trader can still get out.
    `committed` is the persister's: the last event that Postgres has.
    """
    venue = EngineVenue(client, scripts_with({"MAX_BACKLOG": 2}))
    for number in range(3):
        assert isinstance(venue.apply(limit("alice", "buy", 10 + number, 1)), Placed)
    assert refusal_of(venue, limit("alice", "buy", 10, 1)) == "backlog_full"
    assert refusal_of(venue, Amend(2, 9)) == "backlog_full"
    assert isinstance(venue.apply(Cancel(1)), Cancelled)
    venue.client.hset(venue.keys.book, "committed", "1")
    assert refusal_of(venue, limit("alice", "buy", 10, 1)) == "backlog_full"
    venue.client.hset(venue.keys.book, "committed", "2")
    assert isinstance(venue.apply(limit("alice", "buy", 10, 1)), Placed)


def test_a_crowded_book_takes_no_orders_and_lets_cancels_pass(client: Redis) -> None:
    """The sweeper writes `crowded` while what waits for Postgres takes too much memory."""
    venue = EngineVenue(client)
    venue.apply(limit("alice", "buy", 10, 1))
    venue.client.hset(venue.keys.book, "crowded", "1073741824")
    assert refusal_of(venue, limit("alice", "buy", 10, 1)) == "backlog_full"
    assert refusal_of(venue, Amend(1, 9)) == "backlog_full"
    assert isinstance(venue.apply(Cancel(1)), Cancelled)
    venue.client.hdel(venue.keys.book, "crowded")
    assert isinstance(venue.apply(limit("alice", "buy", 10, 1)), Placed)


def test_a_suspended_book_takes_no_orders_and_lets_cancels_pass(client: Redis) -> None:
    """The persister writes `suspended` where Redis and Postgres disagree."""
    venue = EngineVenue(client)
    venue.apply(limit("alice", "buy", 10, 1))
    venue.client.hset(venue.keys.book, "suspended", "diverged")
    assert refusal_of(venue, limit("alice", "buy", 10, 1)) == "instrument_halted"
    assert isinstance(venue.apply(Cancel(1)), Cancelled)
    venue.client.hdel(venue.keys.book, "suspended")
    assert isinstance(venue.apply(limit("alice", "buy", 10, 1)), Placed)


def test_a_book_of_another_layout_refuses_everything(client: Redis) -> None:
    venue = EngineVenue(client)
    venue.client.hset(venue.keys.book, "schema", "0")
    assert refusal_of(venue, limit("alice", "buy", 10, 1)) == "schema_mismatch"
    assert refusal_of(venue, Cancel(1)) == "schema_mismatch"


def test_a_key_is_forgotten_when_its_time_is_over_and_no_sooner(
    client: Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    """CMD-4. Sweeps move records through both generations; each is found for one TTL, to the
    fraction of a second and however these turn, and is dropped in the end.
    """
    venue = EngineVenue(client)
    now = start = START_S + 0.75
    late = TTL_S - 0.25

    def is_replayed(key: str) -> bool:
        venue.apply(Sweep())
        answer = venue.apply(replace(limit("alice", "buy", 10, 1), idempotency_key=key))
        assert isinstance(answer, Placed)
        return answer.replayed

    monkeypatch.setattr(fakeredis.commands_mixins.server_mixin.time, "time", lambda: now)
    assert not is_replayed("k")
    for elapsed in (TTL_S / 2, late):
        now = start + elapsed
        assert not is_replayed(f"k{elapsed}")
        assert is_replayed("k")
    now = start + TTL_S
    assert not is_replayed("k")
    assert is_replayed(f"k{late}"), "from the generation before"
    now += late
    assert is_replayed("k")
    assert not is_replayed(f"k{late}")
    for _ in range(2):
        now += TTL_S
        venue.apply(Sweep())
    assert not client.exists(venue.keys.idempotency_0, venue.keys.idempotency_1)


def test_time_never_goes_back_within_a_book(client: Redis, monkeypatch: pytest.MonkeyPatch) -> None:
    """A clock that is set back must not reorder history."""
    venue = EngineVenue(client)
    now = START_S
    monkeypatch.setattr(fakeredis.commands_mixins.server_mixin.time, "time", lambda: now)
    times = []
    for step in (0, 5, -3600, 1):
        now += step
        venue.apply(limit("alice", "buy", 10, 1))
        times.append(int(venue.client.hget(venue.keys.book, "time") or 0))  # type: ignore[arg-type]
    assert times == sorted(times)
    assert times[2] == times[1]


@pytest.mark.parametrize("own_id", [None, "slow"], ids=["plain", "with an id of its own"])
def test_the_sum_of_price_times_quantity_is_exact(client: Redis, own_id: str | None) -> None:
    """MAT-2: also just above what a double tells from its neighbour, and far above."""
    venue, book = EngineVenue(client), ReferenceBook()
    for ticks, lots in ((3, 2**52 + 1), (5, 2**51 + 1), (2**53 - 1, 2**53 - 1)):
        for maker_lots in (lots - 1, 1):
            play(venue, book, limit("bob", "sell", ticks, maker_lots))
        taker = replace(limit("alice", "buy", ticks, lots), client_order_id=own_id)
        play(venue, book, taker)
        assert book.events[-1].orders[0].notional == ticks * lots
    venue.check_against(book)


def test_a_level_holds_less_than_two_to_the_53_lots(client: Redis) -> None:
    """The first total that a double does not tell from its neighbour is refused."""
    venue, book = EngineVenue(client), ReferenceBook()
    play(venue, book, limit("alice", "buy", 10, 2**53 - 3))
    play(venue, book, limit("alice", "buy", 10, 2))
    assert refusal_of(venue, limit("alice", "buy", 10, 1)) == "level_quantity_overflow"
    play(venue, book, limit("alice", "buy", 10, 1))
    play(venue, book, limit("bob", "sell", 10, 1))
    play(venue, book, limit("alice", "buy", 10, 1))
    venue.check_against(book)
