"""The tables of snapshots: books as text, as they were at some sequences. A snapshot only saves
time: one that cannot be used is passed over, and all can be made again from the events. Must not
know how a book is computed.
"""

import hashlib
import logging
from collections.abc import Iterable, Iterator
from datetime import datetime
from itertools import islice
from typing import Final

import msgspec

from app.domain.book_state import BookState, Inconsistent, feeding
from app.domain.views import timestamp
from app.persistence.event_store import Connection
from app.persistence.rows import microseconds

log: Final = logging.getLogger("crossbook.snapshots")

SNAPSHOTS_KEPT: Final = 3
"""Of each instrument: the newest, and some to go back to where it cannot be used."""
LINES_PER_PART: Final = 1_000
"""Some 150 kB: a statement of moderate size."""
PARTS_PER_READ: Final = 10
"""Parts that are in memory at a time."""


class Snapshot(msgspec.Struct, frozen=True):
    """That there is one: of which instrument at which sequence, and the digest of its text."""

    instrument: str
    sequence: int
    digest: str
    taken_at: datetime

    def line(self) -> str:
        """For a person."""
        return f"{self.instrument} sequence {self.sequence} digest {self.digest}"


def document(snapshot: Snapshot) -> str:
    """As JSON."""
    view = msgspec.structs.asdict(snapshot)
    view["taken_at"] = timestamp(microseconds(snapshot.taken_at))
    return msgspec.json.encode(view).decode()


def snapshots_of(connection: Connection, symbol: str, last: int) -> list[Snapshot]:
    """An instrument's snapshots up to sequence `last`, newest first."""
    found = connection.execute(
        "SELECT instrument, sequence, digest, taken_at FROM book_snapshots"
        " WHERE instrument = %s AND sequence <= %s ORDER BY sequence DESC",
        (symbol, last),
    )
    return [Snapshot(*row) for row in found.fetchall()]


def load(connection: Connection, snapshot: Snapshot) -> BookState:
    """The book of a snapshot.

    Raises:
        Inconsistent: its text is not what was stored, or of another version.
    """
    digest = hashlib.sha256()
    lines = feeding(digest, _lines(connection, snapshot))
    state = BookState.from_lines(lines)
    if digest.hexdigest() != snapshot.digest:
        raise Inconsistent(f"the text has the digest {digest.hexdigest()}")
    if (state.symbol, state.sequence) != (snapshot.instrument, snapshot.sequence):
        raise Inconsistent(f"the text is of {state.symbol} at {state.sequence}")
    return state


def newest_usable(connection: Connection, symbol: str, last: int) -> BookState | None:
    """The book of the newest snapshot up to sequence `last` that can be used, if there is any."""
    for snapshot in snapshots_of(connection, symbol, last):
        try:
            return load(connection, snapshot)
        except Inconsistent as error:
            place = {"instrument": symbol, "sequence": snapshot.sequence}
            log.warning("a snapshot cannot be used", extra={**place, "why": str(error)})
    return None


def store(connection: Connection, state: BookState) -> Snapshot:
    """Write a book down as it is, unless it is there, and drop snapshots that are older than the
    newest ones.

    Raises:
        Inconsistent: another one of that sequence is there.
    """
    digest = state.digest()
    with connection.transaction():
        is_new = connection.execute(
            "INSERT INTO book_snapshots (instrument, sequence, digest, open_orders)"
            " VALUES (%s, %s, %s, %s) ON CONFLICT DO NOTHING",
            (state.symbol, state.sequence, digest, len(state.orders)),
        ).rowcount
        for number, part in enumerate(_parts(state.lines()) if is_new else (), 1):
            connection.execute(
                "INSERT INTO book_snapshot_parts (instrument, sequence, part, lines)"
                " VALUES (%s, %s, %s, %s)",
                (state.symbol, state.sequence, number, part),
            )
        connection.execute(_DROP_OLD, {"instrument": state.symbol, "kept": SNAPSHOTS_KEPT})
    (stored, *_) = snapshots_of(connection, state.symbol, state.sequence)
    if (stored.sequence, stored.digest) != (state.sequence, digest):
        raise Inconsistent(f"{state.symbol} had another snapshot at {state.sequence}")
    return stored


_DROP_OLD: Final = """
DELETE FROM book_snapshots WHERE instrument = %(instrument)s AND sequence < (
    SELECT min(sequence) FROM (
        SELECT sequence FROM book_snapshots WHERE instrument = %(instrument)s
        ORDER BY sequence DESC LIMIT %(kept)s
    ) AS newest
)
"""


def _lines(connection: Connection, snapshot: Snapshot) -> Iterator[str]:
    first = 1
    while True:
        found = connection.execute(
            "SELECT lines FROM book_snapshot_parts WHERE instrument = %s AND sequence = %s"
            " AND part >= %s AND part < %s ORDER BY part",
            (snapshot.instrument, snapshot.sequence, first, first + PARTS_PER_READ),
        ).fetchall()
        for (text,) in found:
            yield from text.split("\n")
        if len(found) < PARTS_PER_READ:
            return
        first += PARTS_PER_READ


def _parts(lines: Iterable[str]) -> Iterator[str]:
    iterator = iter(lines)
    while part := list(islice(iterator, LINES_PER_PART)):
        yield "\n".join(part)
