"""What is known of each book from outside Redis: when it was made, the highest sequence of it that
anybody was told, and what time it is there. A Redis that went back in time (an old file, a
failover) has books below these floors, and the scripts refuse every command for such a book
(lua/lib/standing.lua).

Workers that serve together share their floors through memory, so that none takes an order for a
book that lacks what another has acknowledged. Each writes into a column of its own, which nobody
else writes to: that takes no lock, which a killed worker might hold for ever. Must not import
Redis: the memory is made in gunicorn's master.
"""

import hashlib
import mmap
from collections.abc import Container
from time import monotonic_ns
from typing import Final, NamedTuple

BOOKS_MAX: Final = 4_096
"""Books that a column has room for, twice as many as can be listed, so that probing stays short."""
LATE_AFTER_US: Final = 6_000_000
"""After which a command is not carried out any more: longer than any caller waits for an answer."""
COLUMNS_MAX: Final = 256
"""Workers alive at the same time; memory of columns that are not used is never touched."""
_WORD_BYTES: Final = 8
_ENTRY_WORDS: Final = 3
"""A book's name (its hash), `rebuilt`, and floor; all 0 where there is none. A word is written at
once, so no reader ever sees half a number.
"""
_COLUMN_WORDS: Final = BOOKS_MAX * _ENTRY_WORDS


class Standing(NamedTuple):
    """`rebuilt`: when the book was made, µs since 1970, 0 where that is not known. `floor`: the
    highest sequence since then that is known to be acknowledged.
    """

    rebuilt: int = 0
    floor: int = 0


class RedisClock:
    """Redis's time, as its refusals tell: whoever does not know it, as a new process, sends what is
    long too late, and so learns it. The same where it leaps ahead. Where it is set back we stay
    ahead of it, so that a command may be carried out later than it should.
    """

    def __init__(self) -> None:
        self._ahead_us = 0

    def seen(self, time_us: int) -> None:
        """Redis said that it is `time_us` (µs since 1970), or was a moment ago."""
        self._ahead_us = max(self._ahead_us, time_us - monotonic_ns() // 1_000)

    def latest(self) -> str:
        """The time until which Redis may begin a command that is sent now, in 16 digits."""
        return f"{monotonic_ns() // 1_000 + self._ahead_us + LATE_AFTER_US:016}"


class Column:
    """The floors that one process knows. `words`: memory of 64-bit numbers, all 0 at first."""

    def __init__(self, words: memoryview) -> None:
        self._words = words
        self._places: dict[str, int] = {}

    def get(self, book: str) -> Standing:
        """What this column says of `book`; zeros where it says nothing."""
        place = self._places.get(book)
        if place is None:
            place = self._find(book)
            if not self._words[place]:
                return Standing()
            self._places[book] = place
        return Standing(self._words[place + 1], self._words[place + 2])

    def put(self, book: str, standing: Standing) -> None:
        """Only for the process whose column it is."""
        place = self._places.get(book)
        if place is None:
            place = self._places[book] = self._find(book)
        # The floor first: between the two stores it may sink, and never be one of another book.
        self._words[place + 2], self._words[place + 1] = standing.floor, standing.rebuilt
        self._words[place] = _name(book)

    def _find(self, book: str) -> int:
        """The book's entry, or the free one where it belongs."""
        name = _name(book)
        for step in range(BOOKS_MAX):
            place = (name + step) % BOOKS_MAX * _ENTRY_WORDS
            if self._words[place] in (name, 0):
                return place
        raise RuntimeError(f"floors of more than {BOOKS_MAX} books")


def _name(book: str) -> int:
    """64 bits, never 0: two of some thousand books share one once in 10^12."""
    return int.from_bytes(hashlib.blake2b(book.encode(), digest_size=8).digest()) or 1


class Floors:
    """The floors of this process, and of those it shares memory with."""

    def __init__(self, shared: "SharedMemory | None" = None, column: int = 0) -> None:
        self._shared = shared or SharedMemory(columns=1)
        self._shared.use(column)
        self._own = self._shared.columns[column]
        self.clock = RedisClock()

    def arguments(self, book: str) -> tuple[str | int, ...]:
        """The first arguments of every script (lua/lib/standing.lua)."""
        known = self.of(book)
        return known.rebuilt or "", known.floor, self.clock.latest()

    def of(self, book: str) -> Standing:
        """The newest `rebuilt` and the highest floor since, of all processes; `book`: its key."""
        return max(column.get(book) for column in self._shared.in_use())

    def raise_to(self, book: str, sequence: int) -> None:
        """`sequence` is about to be acknowledged, or known to be."""
        known = self.of(book)
        if sequence > known.floor:
            self._own.put(book, Standing(known.rebuilt, sequence))

    def adopt(self, book: str, rebuilt: int, sequence: int) -> bool:
        """A book says that it was made at `rebuilt`, and is at `sequence`. False where that is
        before the one that is known: then it is not that one's successor.
        """
        known = self.of(book)
        if rebuilt <= known.rebuilt:
            # Somebody else has adopted it meanwhile, and may have raised its floor.
            return rebuilt == known.rebuilt
        # The first time that it is asked, what is known comes from elsewhere and still holds.
        self._own.put(book, Standing(rebuilt, sequence if known.rebuilt else known.floor))
        return True


class SharedMemory:
    """Columns for processes that are forked later."""

    def __init__(self, columns: int = COLUMNS_MAX) -> None:
        words = memoryview(mmap.mmap(-1, (1 + columns * _COLUMN_WORDS) * _WORD_BYTES)).cast("Q")
        self._used = words[:1]
        starts = range(1, len(words), _COLUMN_WORDS)
        self.columns = tuple(Column(words[start : start + _COLUMN_WORDS]) for start in starts)

    def use(self, column: int) -> None:
        """From now on `column` is looked at."""
        self._used[0] = max(self._used[0], column + 1)

    def in_use(self) -> tuple[Column, ...]:
        """Columns that somebody writes to, or wrote to: what a worker knew outlives it."""
        return self.columns[: self._used[0]]

    @staticmethod
    def free_column(taken: Container[int]) -> int:
        """The first that no process has."""
        return next(column for column in range(COLUMNS_MAX) if column not in taken)


_of_this_process: list[Floors] = []


def use(floors: Floors) -> None:
    """Let `floors` be those of this process from now on: once, right after the fork."""
    _of_this_process[:] = [floors]


def current() -> Floors:
    """Those that `use` named; where it was not called, as outside gunicorn, new ones."""
    return _of_this_process[0] if _of_this_process else Floors()
