"""Looking at a book piece by piece while it is traded. Every piece comes with the sequence at which
it was so, read in one transaction with it, and is small: no look holds Redis for more than a
millisecond or two. Reads only; must not know what ought to be there.
"""

from collections.abc import Iterator, Sequence
from typing import Any, Final, NamedTuple

import redis
from redis.client import Pipeline

from app.engine.keys import HALTED, INSTRUMENTS, PERSISTER_GROUP, BookKeys, book_keys

PIECE: Final = 200
"""Fields, members or look-ups of one piece: some 0.4 ms of Redis."""
PIECE_EVENTS: Final = 100
"""Stream entries of one piece: a single one may tell of hundreds of orders."""

Value = str | float
"""A hash field's text, or a member's score."""
Elements = list[tuple[str, Value]]


class NoBook(Exception):
    """There is no book, or not any more."""


class Marks(NamedTuple):
    """How far a book is, and how far the persister is with it. `committed` is what the book was
    told; entries below `unsettled` are through, with all that follows their commit.
    """

    sequence: int
    committed: int
    unsettled: int


class Group(NamedTuple):
    """The persister's consumer group: the last entry delivered, and the first that is not
    acknowledged, 0 where all are.
    """

    delivered: int
    pending: int


class StreamEnds(NamedTuple):
    """A stream's oldest and newest entry id, empty where there is none, and how many there are.
    `group` is None where the persister has none.
    """

    marks: Marks
    first: str
    last: str
    length: int
    group: Group | None


class Inspector:
    """Looks at one book. `client` must return text."""

    def __init__(self, client: redis.Redis, symbol: str) -> None:
        self.keys: BookKeys = book_keys(symbol)
        self._client = client

    def process_fields(self, names: Sequence[str]) -> dict[str, str]:
        """Those fields of the book's hash that there are; none at all: no book."""
        found: Any = self._client.hmget(self.keys.book, list(names))
        pairs = zip(names, found, strict=True)
        return {name: text for name, text in pairs if text is not None}

    def scan(self, key: str) -> Iterator[tuple[Marks, Elements]]:
        """A hash or sorted set, all of it that is there from the first piece to the last; what
        comes or goes meanwhile may be among it or not, and some may come twice.

        Raises:
            NoBook.
        """
        is_hash = key in {*self.keys[:1], *self.keys[4:7]}
        cursor: Any = 0
        while True:
            pipe = self._client.pipeline(transaction=True)
            if is_hash:
                pipe.hscan(key, cursor, count=PIECE)
            else:
                pipe.zscan(key, cursor, count=PIECE)
            marks, _, ((cursor, found),) = self._look(pipe)
            yield marks, list(found.items() if is_hash else found)
            if not int(cursor):
                return

    def look_up(self, elements: Sequence[tuple[str, str]]) -> tuple[Marks, list[Value | None]]:
        """The value or score of each (key, field or member), at most PIECE; None: not there.

        Raises:
            NoBook.
        """
        hashes = {*self.keys[:1], *self.keys[4:7]}
        pipe = self._client.pipeline(transaction=True)
        for key, element in elements:
            if key in hashes:
                pipe.hget(key, element)
            else:
                pipe.zscore(key, element)
        marks, _, found = self._look(pipe)
        return marks, found

    def clock_us(self) -> int:
        """The book's clock: Redis's, never before its last command."""
        seconds, micros = self._client.time()
        time_us: Any = self._client.hget(self.keys.book, "time")
        return max(seconds * 1_000_000 + micros, int(time_us or 0))

    def entries(self, first: int, last: int | None) -> list[tuple[str, dict[str, str]]]:
        """Stream entries from sequence `first` to `last`, None: the newest, as they lie there; at
        most PIECE_EVENTS.
        """
        end = "+" if last is None else f"{last}-18446744073709551615"
        found: Any = self._client.xrange(self.keys.events, f"{first}-0", end, PIECE_EVENTS)
        return list(found)

    def stream_ends(self) -> StreamEnds:
        """The stream and the persister's group at one moment.

        Raises:
            NoBook.
        """
        pipe = self._client.pipeline(transaction=True)
        pipe.xrange(self.keys.events, count=1)
        pipe.xrevrange(self.keys.events, count=1)
        pipe.xlen(self.keys.events)
        marks, group, (first, last, length) = self._look(pipe)
        return StreamEnds(
            marks, first[0][0] if first else "", last[0][0] if last else "", length, group
        )

    def _look(self, pipe: Pipeline) -> tuple[Marks, Group | None, list[Any]]:
        """The replies to what is in `pipe`, and where things stand at that moment."""
        pipe.hmget(self.keys.book, ["sequence", "committed"])
        pipe.xinfo_groups(self.keys.events)
        pipe.xpending(self.keys.events, PERSISTER_GROUP)
        *found, marks, groups, pending = pipe.execute(raise_on_error=False)
        for reply in (*found, marks):
            if isinstance(reply, Exception):
                raise reply
        sequence, committed = marks
        if sequence is None:
            raise NoBook
        group = _group(groups, pending)
        unsettled = (group.pending or group.delivered + 1) if group else 1
        return Marks(int(sequence), int(committed or 0), unsettled), group, found


def listed(client: redis.Redis) -> list[str]:
    """Symbols that this Redis is said to hold."""
    found: Any = client.hkeys(INSTRUMENTS)
    return sorted(found)


def listing(client: redis.Redis, symbol: str) -> str | None:
    """What Redis has of an instrument, JSON."""
    found: Any = client.hget(INSTRUMENTS, symbol)
    return None if found is None else str(found)


def halts(client: redis.Redis) -> dict[str, str]:
    """Symbol -> JSON of each announced halt."""
    found: Any = client.hgetall(HALTED)
    return dict(found)


def _group(
    groups: list[dict[str, Any]] | Exception, pending: dict[str, Any] | Exception
) -> Group | None:
    if isinstance(groups, Exception) or isinstance(pending, Exception):
        return None  # no stream, or no group
    own = [group for group in groups if group["name"] == PERSISTER_GROUP]
    if not own:
        return None
    first = pending["min"] if pending["pending"] else "0-0"
    return Group(sequence_of(own[0]["last-delivered-id"]), sequence_of(first))


def sequence_of(entry_id: str) -> int:
    """The event that a stream entry tells of."""
    return int(entry_id.partition("-")[0])
