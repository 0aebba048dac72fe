"""The model that an audit compares with: a book's state, moved on by the very events that the book
took, each audited on the way, to whatever sequence the book is at.
"""

from collections.abc import Callable
from typing import Final, NamedTuple

from app.domain.book_state import BookState
from app.domain.orders import NUMBER_DIGITS, OVER
from app.engine.inspection import Inspector, Marks, sequence_of
from app.persistence.event_store import Connection
from app.persistence.rows import Entry
from app.persistence.stored_events import event_chunks

OVER_BEGINNINGS: Final = tuple(f"{status}|" for status in sorted(OVER))


class Moved(Exception):
    """The book is at a sequence before one that it had: it was rebuilt, or Redis went back."""


class Ended(NamedTuple):
    """An order that is over: the event that ended it, and its last record."""

    sequence: int
    record: str


class Follower:
    """Goes along with one book. `ended` has the orders that ended lately and whose records Redis
    may still hold.
    """

    def __init__(
        self, state: BookState, inspector: Inspector, connect: Callable[[], Connection]
    ) -> None:
        self.state = state
        self.ended: dict[int, Ended] = {}
        self._inspector = inspector
        self._connect = connect

    def look_back(self, unsettled: int) -> None:
        """Learn which orders ended since event `unsettled`, before the model's own sequence."""
        first = unsettled
        while first <= self.state.sequence:
            entries = self._inspector.entries(first, self.state.sequence)
            if not entries:
                return
            for entry_id, fields in entries:
                first = sequence_of(entry_id) + 1
                self._note_ended(first - 1, fields.get("orders", ""))

    def follow(self, marks: Marks) -> None:
        """Go on to where the book is.

        Raises:
            Inconsistent: an event does not follow. EventMissing: one is in neither store.
            Moved.
        """
        if marks.sequence < self.state.sequence:
            raise Moved(f"the book was at {self.state.sequence}, and is at {marks.sequence}")
        while self.state.sequence < marks.sequence:
            first = self.state.sequence + 1
            entries = self._inspector.entries(first, marks.sequence)
            if not entries or not entries[0][0].startswith(f"{first}-"):
                # Trimmed meanwhile, so it is committed.
                last = sequence_of(entries[0][0]) - 1 if entries else marks.sequence
                self._follow_postgres(max(last, first))
                continue
            for entry_id, fields in entries:
                self._apply(Entry(sequence_of(entry_id), fields))
        self._forget(marks.unsettled)

    def _follow_postgres(self, last: int) -> None:
        with self._connect() as connection:
            state = self.state
            for entries in event_chunks(connection, state.symbol, state.sequence, last):
                for entry in entries:
                    self._apply(entry)

    def _apply(self, entry: Entry) -> None:
        self.state.apply(entry.sequence, entry.fields)
        self._note_ended(entry.sequence, entry.fields["orders"])

    def _note_ended(self, sequence: int, orders: str) -> None:
        for line in orders.split("\n"):
            number, record = line[:NUMBER_DIGITS], line[NUMBER_DIGITS + 1 :]
            if record.startswith(OVER_BEGINNINGS) and number.isdecimal():
                self.ended[int(number)] = Ended(sequence, record)

    def _forget(self, unsettled: int) -> None:
        """In the order in which they ended, which is that of the dictionary."""
        while self.ended:
            number, ended = next(iter(self.ended.items()))
            if ended.sequence >= unsettled:
                return
            del self.ended[number]
