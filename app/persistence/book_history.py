"""Books computed from Postgres alone: a snapshot, where there is one, and the events after it, each
audited on its way (`app/domain/auditing.py`). Events never change, so a book is exact as of the
sequence that it was asked for, whatever the persister writes meanwhile. Must not know Redis.
"""

from collections.abc import Collection, Iterator
from typing import Final

from app.domain.book_state import BookState, Inconsistent
from app.domain.rules import parse_rules_detail
from app.persistence import snapshots
from app.persistence.audit_connections import connect
from app.persistence.event_store import Connection
from app.persistence.snapshots import Snapshot
from app.persistence.stored_events import EventMissing, event_chunks

BROKEN: Final = (Inconsistent, EventMissing)
"""What an event store that was tampered with leads to; the text says where."""


class UnknownInstrument(ValueError):
    """Postgres has no instrument of that symbol."""


def positions(connection: Connection) -> dict[str, int]:
    """The last sequence written down of every instrument that was ever listed, by symbol."""
    found = connection.execute(
        "SELECT symbol, coalesce(p.sequence, 0) FROM instruments"
        " LEFT JOIN stream_positions AS p ON p.instrument = symbol ORDER BY symbol"
    )
    return dict(found.fetchall())


def state_at_position(connection: Connection, symbol: str) -> BookState:
    """The book as of the last event that is written down.

    Raises:
        UnknownInstrument. One of `BROKEN`: its events do not make a book.
    """
    known = positions(connection)
    if symbol not in known:
        raise UnknownInstrument(f"no instrument {symbol} was ever listed")
    return state_at(connection, symbol, known[symbol])


def state_at(
    connection: Connection, symbol: str, sequence: int, *, from_snapshot: bool = True
) -> BookState:
    """The book as of `sequence`, which is written down; without a snapshot from the first event on.

    Raises:
        As `state_at_position`.
    """
    state = snapshots.newest_usable(connection, symbol, sequence) if from_snapshot else None
    state = state or first_state(connection, symbol)
    for chunk in event_chunks(connection, symbol, state.sequence, sequence):
        for entry in chunk:
            state.apply(entry.sequence, entry.fields)
    return state


def first_state(connection: Connection, symbol: str) -> BookState:
    """The book before its first event.

    Raises:
        UnknownInstrument.
    """
    found = connection.execute(
        "SELECT first_rules FROM instruments WHERE symbol = %s", (symbol,)
    ).fetchone()
    if found is None:
        raise UnknownInstrument(f"no instrument {symbol} was ever listed")
    return BookState.empty(symbol, parse_rules_detail(found[0]))


def take_snapshot(connection: Connection, symbol: str) -> Snapshot:
    """Write the book down as of its position; the one that is there, where nothing has happened
    since.

    Raises:
        As `state_at_position`.
    """
    position = positions(connection).get(symbol)
    if position is not None:
        newest = snapshots.snapshots_of(connection, symbol, position)[:1]
        if newest and newest[0].sequence == position:
            return newest[0]
    return snapshots.store(connection, state_at_position(connection, symbol))


def take_snapshots(database_url: str, symbols: Collection[str]) -> Iterator[Snapshot]:
    """Of each of `symbols`, or of every instrument that was ever listed, one after the other.

    Raises:
        As `state_at_position`; psycopg.Error: Postgres is away, or of an older version.
    """
    with connect(database_url, "snapshot") as connection:
        for symbol in sorted(symbols or positions(connection)):
            yield take_snapshot(connection, symbol)
