"""What the reference is asked, the product is asked, too: each story that a rule test of the
reference tells is told again to the scripts under fakeredis, command by command.
"""

import functools
from collections.abc import Iterator

import fakeredis
import pytest

from app.engine.book import Scripts
from tests.commands import Command, Sweep, Tick
from tests.reference import START_US, ReferenceBook
from tests.reference import book as reference_book
from tests.scripting import scripts_for
from tests.venue import EngineVenue, play

MODULES = "test_reference"
LONGEST_STORY = 700
"""Commands; enough for the usual limits. Longer ones are tapes: the product has its own."""
MOST_STORIES = 12
"""Of one test; those with more make books by the hundred, of the same kind."""
UNITS_LIMIT = 2**53
"""No price or quantity at or above it reaches the engine."""

Limits = tuple[int, int, int, int]


def _limits(book: ReferenceBook) -> Limits:
    return book.max_fills, book.max_triggers, book.max_cancels, book.max_expiries


@functools.cache
def _scripts(limits: Limits) -> Scripts:
    return scripts_for(ReferenceBook(*limits))


class _Stories:
    """The commands of every book that a test makes, from its beginning."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.told: list[tuple[ReferenceBook, list[Command]]] = []
        self._patch(monkeypatch)

    def _patch(self, monkeypatch: pytest.MonkeyPatch) -> None:
        make, begin, copy = ReferenceBook.__init__, ReferenceBook.begin, ReferenceBook.copy
        tick = ReferenceBook.tick

        def made(book: ReferenceBook, *args: int, **limits: int) -> None:
            make(book, *args, **limits)
            self.told.append((book, []))

        def begun(book: ReferenceBook, command: Command | None) -> None:
            self._tell(book, Sweep() if command is None else command)
            begin(book, command)

        def ticked(book: ReferenceBook, command: Tick) -> object:
            self._tell(book, command)
            return tick(book, command)

        def copied(book: ReferenceBook) -> ReferenceBook:
            other = copy(book)
            self.told.append((other, list(self._story(book))))
            return other

        monkeypatch.setattr(ReferenceBook, "__init__", made)
        monkeypatch.setattr(ReferenceBook, "begin", begun)
        monkeypatch.setattr(ReferenceBook, "copy", copied)
        monkeypatch.setattr(ReferenceBook, "tick", ticked)
        monkeypatch.setitem(reference_book._EXECUTED_BY, Tick, ticked)

    def _story(self, book: ReferenceBook) -> list[Command]:
        """The newest: a copy is first made empty. None of a book that was made otherwise."""
        return next((story for other, story in reversed(self.told) if other is book), [])

    def _tell(self, book: ReferenceBook, command: Command) -> None:
        self._story(book).append(command)


@pytest.fixture(autouse=True)
def _also_of_the_product(request: pytest.FixtureRequest) -> Iterator[None]:
    """After the test, so that it fails for its own reasons first."""
    if not request.module.__name__.rpartition(".")[2].startswith(MODULES):
        yield
        return
    with pytest.MonkeyPatch.context() as monkeypatch:
        stories = _Stories(monkeypatch)
        yield
    tellable = [(book, story) for book, story in stories.told if _can_be_told(story)]
    for book, story in tellable[:MOST_STORIES]:
        _tell_again(_limits(book), story)


def _can_be_told(story: list[Command]) -> bool:
    return 0 < len(story) <= LONGEST_STORY and all(map(_is_for_the_engine, story))


def _is_for_the_engine(command: Command) -> bool:
    fields = ("quantity_lots", "price_ticks", "stop_price_ticks")
    return all((getattr(command, field, None) or 0) < UNITS_LIMIT for field in fields)


def _tell_again(limits: Limits, story: list[Command]) -> None:
    client = fakeredis.FakeRedis()
    client.flushall()
    venue, book = EngineVenue(client, _scripts(limits)), ReferenceBook(*limits, now_us=START_US)
    for command in story:
        play(venue, book, command)
    venue.check_against(book)
