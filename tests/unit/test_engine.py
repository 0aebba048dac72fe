"""The scripts under fakeredis, command by command against the reference and the truth files."""

import random
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import fakeredis
import pytest
from hypothesis import HealthCheck, given, settings
from redis import Redis

from app.engine.book import Scripts
from app.engine.scripts import LUA_FOLDER
from tests import tapes, truth
from tests.commands import Cancel, Command, limit, market
from tests.reference import Cancelled, Placed, ReferenceBook, Refused
from tests.strategies import tapes as generated_tapes
from tests.venue import TTL_S, EngineVenue, play

SMALL_FILL_LIMIT = 3


@pytest.fixture
def client() -> Iterator[Redis]:
    server = fakeredis.FakeRedis()
    yield server
    server.flushall()


def scripts_with(folder: Path, old: str, new: str) -> Scripts:
    """The scripts with `new` in place of `old`: limits that a test can reach."""
    (folder / "lib").mkdir()
    assert any(old in source.read_text() for source in LUA_FOLDER.rglob("*.lua"))
    for source in LUA_FOLDER.rglob("*.lua"):
        text = source.read_text().replace(old, new)
        (folder / source.relative_to(LUA_FOLDER)).write_text(text)
    return Scripts.load(folder)


def run_tape(venue: EngineVenue, book: ReferenceBook, commands: Iterator[Command]) -> None:
    for command in commands:
        play(venue, book, command)
        venue.check_against(book)


@pytest.mark.parametrize("seed", range(3))
def test_every_answer_event_and_key_equals_the_reference(client: Redis, seed: int) -> None:
    run_tape(EngineVenue(client), ReferenceBook(), tapes.commands(seed, 400))


def test_the_remainder_beyond_the_fill_limit_is_cancelled(client: Redis, tmp_path: Path) -> None:
    scripts = scripts_with(tmp_path, "MAX_FILLS = 1000", f"MAX_FILLS = {SMALL_FILL_LIMIT}")
    book = ReferenceBook(SMALL_FILL_LIMIT)
    tape = list(tapes.commands(7, 600, max_fills_per_command=SMALL_FILL_LIMIT))
    run_tape(EngineVenue(client, scripts), book, iter(tape))
    assert any(order.reason == "fill_limit" for event in book.events for order in event.orders)


@settings(max_examples=40, deadline=None, suppress_health_check=list(HealthCheck))
@given(tape=generated_tapes())
def test_any_tape_that_hypothesis_finds(tape: list[Command]) -> None:
    client = fakeredis.FakeRedis()
    client.flushall()
    run_tape(EngineVenue(client), ReferenceBook(), iter(tape))


@pytest.mark.parametrize("path", truth.case_files(), ids=lambda path: path.stem)
def test_cases_that_others_wrote(path: Path) -> None:
    for case in truth.load_cases(path):
        if truth.needs_supported(case):
            client = fakeredis.FakeRedis()
            client.flushall()
            truth.check_case(EngineVenue(client), case)


def test_a_thousand_makers_fill_in_one_command(client: Redis) -> None:
    """The fill limit itself fits into one command: Lua's stack takes that many arguments."""
    venue, book = EngineVenue(client), ReferenceBook()
    rng = random.Random(5)
    for number in range(1001):
        play(venue, book, limit(f"client-{number}", "sell", 100 + rng.randrange(40), 3))
    play(venue, book, market("taker", "buy", 4000))
    venue.check_against(book)
    assert len(book.events[-1].trades) == 1000


def refusal_of(venue: EngineVenue, command: Command) -> str:
    answer = venue.apply(command)
    assert isinstance(answer, Refused)
    return answer.code


def test_a_full_backlog_stops_orders_and_lets_cancels_pass(client: Redis, tmp_path: Path) -> None:
    """What Postgres could not store for too long is bounded; a trader can still get out."""
    venue = EngineVenue(client, scripts_with(tmp_path, "MAX_BACKLOG = 1000000", "MAX_BACKLOG = 2"))
    for number in range(3):
        venue.apply(limit("alice", "buy", 10 + number, 1))
    assert refusal_of(venue, limit("alice", "buy", 10, 1)) == "backlog_full"
    assert isinstance(venue.apply(Cancel(1)), Cancelled)
    venue.client.xtrim(venue.keys.events, maxlen=1, approximate=False)
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
    """Records move through both generations; each is found for one TTL, however they turn."""
    venue = EngineVenue(client)
    keyed = replace(limit("alice", "buy", 10, 1), idempotency_key="k")
    now = 2_000_000_000
    monkeypatch.setattr(fakeredis.commands_mixins.server_mixin.time, "time", lambda: now)
    first = venue.apply(keyed)
    assert isinstance(first, Placed)
    for elapsed in (TTL_S // 2, TTL_S - 1):
        now = 2_000_000_000 + elapsed
        other = replace(limit("alice", "buy", 10, 1), idempotency_key=f"k{elapsed}")
        assert isinstance(venue.apply(other), Placed)
        assert venue.apply(keyed) == replace(first, replayed=True)
    now = 2_000_000_000 + TTL_S
    again = venue.apply(keyed)
    assert isinstance(again, Placed)
    assert not again.replayed
    late = replace(limit("alice", "buy", 10, 1), idempotency_key=f"k{TTL_S - 1}")
    replayed = venue.apply(late)  # from the generation before
    assert isinstance(replayed, Placed)
    assert replayed.replayed
    now += TTL_S - 1
    assert venue.apply(keyed) == replace(again, replayed=True)
    fresh = venue.apply(late)
    assert isinstance(fresh, Placed)
    assert not fresh.replayed


def test_time_never_goes_back_within_a_book(client: Redis, monkeypatch: pytest.MonkeyPatch) -> None:
    """A clock that is set back must not reorder history."""
    venue = EngineVenue(client)
    now = 2_000_000_000
    monkeypatch.setattr(fakeredis.commands_mixins.server_mixin.time, "time", lambda: now)
    times = []
    for step in (0, 5, -3600, 1):
        now += step
        venue.apply(limit("alice", "buy", 10, 1))
        times.append(int(venue.client.hget(venue.keys.book, "time") or 0))  # type: ignore[arg-type]
    assert times == sorted(times)
    assert times[2] == times[1]


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
