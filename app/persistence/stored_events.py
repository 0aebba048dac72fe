"""Reading the event store in order, a bounded chunk at a time, each by a statement of its own: no
long snapshot keeps Postgres from clearing up. Events never change, so the chunks fit together.
"""

from collections.abc import Iterator
from typing import Final

from app.persistence.event_store import Connection
from app.persistence.rows import Entry, microseconds

CHUNK_EVENTS: Final = 500
"""As many as the persister writes at a time; one event may have hundreds of orders."""


class EventMissing(Exception):
    """The event store has a hole, or ends before its position."""

    def __init__(self, sequence: int) -> None:
        super().__init__(f"event {sequence} is missing from the event store")
        self.sequence = sequence


def event_chunks(
    connection: Connection, symbol: str, after: int, last: int
) -> Iterator[list[Entry]]:
    """The events of an instrument from sequence `after` + 1 to `last`, as the stream had them.

    Raises:
        EventMissing: one of them is not there.
    """
    while after < last:
        chunk = _chunk(connection, symbol, after, last)
        for expected, entry in enumerate(chunk, after + 1):
            if entry.sequence != expected:
                raise EventMissing(expected)
        if not chunk:
            raise EventMissing(after + 1)
        yield chunk
        after = chunk[-1].sequence


def _chunk(connection: Connection, symbol: str, after: int, last: int) -> list[Entry]:
    found = connection.execute(
        "SELECT sequence, type, occurred_at, orders, fills, levels, detail FROM events"
        " WHERE instrument = %s AND sequence > %s AND sequence <= %s ORDER BY sequence LIMIT %s",
        (symbol, after, last, CHUNK_EVENTS),
    )
    return [
        Entry(
            sequence,
            {
                "type": kind,
                "time": str(microseconds(occurred_at)),
                "orders": orders,
                "fills": fills,
                "levels": levels,
                "detail": detail,
            },
        )
        for sequence, kind, occurred_at, orders, fills, levels, detail in found.fetchall()
    ]
