"""The scripts under fakeredis, command by command against the reference and the truth files."""

import random
from collections.abc import Iterator
from pathlib import Path

import fakeredis
import pytest
from hypothesis import HealthCheck, given, settings
from redis import Redis

from app.engine.book import Scripts
from app.engine.scripts import LUA_FOLDER
from tests import tapes, truth
from tests.commands import Command, limit, market
from tests.reference import ReferenceBook
from tests.strategies import tapes as generated_tapes
from tests.venue import EngineVenue, play

SMALL_FILL_LIMIT = 3


@pytest.fixture
def client() -> Iterator[Redis]:
    server = fakeredis.FakeRedis()
    yield server
    server.flushall()


def scripts_with_fill_limit(folder: Path, most: int) -> Scripts:
    """The scripts with another MAX_FILLS, so that tapes of small books reach it."""
    (folder / "lib").mkdir()
    for source in LUA_FOLDER.rglob("*.lua"):
        text = source.read_text().replace("MAX_FILLS = 1000", f"MAX_FILLS = {most}")
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
    scripts = scripts_with_fill_limit(tmp_path, SMALL_FILL_LIMIT)
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
