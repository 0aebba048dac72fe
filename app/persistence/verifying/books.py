"""Redis's keys against the model, element by element, each at the very sequence at which it was
read: all that is there must be expected, and all that is expected must be there. Idempotency
records and the stream are looked at elsewhere.
"""

from collections.abc import Callable, Iterator
from itertools import islice
from typing import Final

from app.domain.book_state import BookState
from app.domain.orders import NUMBER_DIGITS, Status, parse_record
from app.engine.inspection import PIECE, Elements, Inspector, Marks, Value
from app.engine.layout import PROCESS_FIELDS, Standing, field_of, settings_of, standing_of
from app.persistence.verifying.findings import Findings
from app.persistence.verifying.following import Follower

WAITING_FIELDS: Final = ("trigger_low", "trigger_high")
_NO_LOW: Final = 2**53


class BookComparison:
    """Of one book."""

    def __init__(self, follower: Follower, inspector: Inspector, findings: Findings) -> None:
        self._follower = follower
        self._inspector = inspector
        self._findings = findings
        keys = inspector.keys
        self._sides = {"bids": keys.bids, "asks": keys.asks}
        self._sides |= {"buy_stops": keys.buy_stops, "sell_stops": keys.sell_stops}
        self._expected: dict[str, Callable[[str], Value | None]] = {
            keys.book: self._expected_field,
            keys.client_order_ids: self._expected_client_order_id,
            keys.owners: self._expected_owner,
            keys.expiries: self._expected_expiry,
            keys.timers: self._expected_timer,
            **dict.fromkeys(self._sides.values(), self._expected_member),
        }
        self._side = ""
        """The key of which members are being compared."""
        self._committed = 0
        """As of the piece that is being compared."""

    def compare(self) -> None:
        """All of it.

        Raises:
            what Follower.follow and Inspector raise.
        """
        seen: dict[str, set[str | int]] = {}
        for key in self._expected:
            seen[key] = set()
            for marks, elements in self._inspector.scan(key):
                self._follower.follow(marks)
                self._check(key, elements, marks)
                seen[key].update(_brief(element) for element, _ in elements)
        missing = self._unseen(seen)
        while portion := list(islice(missing, PIECE)):
            self._look_for(portion)
        self._check_waiting()

    @property
    def _state(self) -> BookState:
        return self._follower.state

    def _check(self, key: str, elements: Elements, marks: Marks) -> None:
        self._side, self._committed = key, marks.committed
        for element, value in elements:
            expected = self._expected[key](element)
            if expected != value and not self._is_excused(key, element, value, marks):
                self._tell(key, element, value, expected)

    def _look_for(self, elements: list[tuple[str, str]]) -> None:
        """What should be there and was not met: it may have come since, or gone."""
        marks, values = self._inspector.look_up(elements)
        self._follower.follow(marks)
        for (key, element), value in zip(elements, values, strict=True):
            if value is not None:
                self._check(key, [(element, value)], marks)
                continue
            self._side, self._committed = key, marks.committed
            expected = self._expected[key](element)
            if expected is not None:
                self._tell(key, element, value, expected)

    def _tell(self, key: str, element: str, value: Value | None, expected: Value | None) -> None:
        if value is None:
            what = f"is missing, must be {expected}"
        elif expected is None:
            what = f"is {value}, must not be there"
        else:
            what = f"is {value}, must be {expected}"
        self._findings.breach("book", f"{key} {element!r} {what}")

    def _is_excused(self, key: str, element: str, value: Value, marks: Marks) -> bool:
        """Fields of the book's hash that are right although the model does not have them."""
        if key != self._inspector.keys.book:
            return False
        if element in PROCESS_FIELDS:
            return True
        if element in WAITING_FIELDS:  # compared by what they select, and stale at times
            return str(value).isdecimal()
        if not _is_number(element) or int(element) in self._state.orders:
            return False
        # An order that is over is there until all of its commit is done.
        ended = self._follower.ended.get(int(element))
        return ended is not None and ended.record == value and ended.sequence >= marks.unsettled

    # What is expected of each element

    def _expected_field(self, name: str) -> str | None:
        state = self._state
        if _is_number(name):
            ended = self._follower.ended.get(int(name))
            # Over, and nowhere but here.
            is_needed = ended is not None and ended.sequence > self._committed
            return ended.record if ended and is_needed else state.orders.get(int(name))
        kind, _, of = name.partition(":")
        if not of:
            return settings_of(state).get(name)
        if kind == "open":
            count = state.open_counts.get(of)
            return None if count is None else str(count)
        if kind == "killed":
            return "1" if of in state.killed else None
        total = state.levels.get(name)
        return None if total is None else str(total)

    def _expected_client_order_id(self, field: str) -> str | None:
        number = self._state.client_order_ids.get(field)
        return None if number is None else field_of(number)

    def _expected_owner(self, member: str) -> float | None:
        standing = self._standing(member.rpartition("|")[2])
        return 0.0 if standing is not None and standing.owner == member else None

    def _expected_member(self, member: str) -> float | None:
        standing = self._standing(member[-NUMBER_DIGITS:])
        if standing is None or standing.member != member:
            return None
        return float(standing.score) if self._sides[standing.key] == self._side else None

    def _expected_expiry(self, member: str) -> float | None:
        standing = self._standing(member)
        expires_us = None if standing is None else standing.expires_us
        return None if expires_us is None else float(expires_us)

    def _expected_timer(self, client: str) -> float | None:
        due_us = self._state.timers.get(client)
        return None if due_us is None else float(due_us)

    def _standing(self, digits: str) -> Standing | None:
        text = self._state.orders.get(int(digits)) if _is_number(digits) else None
        return None if text is None else standing_of(parse_record(int(digits), text))

    # What was not met

    def _unseen(self, seen: dict[str, set[str | int]]) -> Iterator[tuple[str, str]]:
        """Every key and element that the model has and the scans did not meet."""
        keys = self._inspector.keys
        # Copies: the model goes on while these are looked for.
        settings, timers = list(settings_of(self._state)), list(self._state.timers)
        numbers, over = list(self._state.orders), list(self._follower.ended.items())
        committed = self._inspector.stream_ends().marks.committed
        for name in settings:
            if name not in seen[keys.book] and name not in WAITING_FIELDS:
                yield keys.book, name
        for client in timers:
            if client not in seen[keys.timers]:
                yield keys.timers, client
        for number, ended in over:
            if ended.sequence > committed and number not in seen[keys.book]:
                yield keys.book, field_of(number)
        for number in numbers:
            yield from self._unseen_of(number, seen)

    def _unseen_of(self, number: int, seen: dict[str, set[str | int]]) -> Iterator[tuple[str, str]]:
        keys, standing = self._inspector.keys, self._standing(field_of(number))
        if standing is None:  # over meanwhile
            return
        places = [
            (keys.book, field_of(number)),
            (self._sides[standing.key], standing.member),
            (keys.owners, standing.owner),
        ]
        if standing.client_order_id:
            places.append((keys.client_order_ids, standing.client_order_id))
        if standing.expires_us is not None:
            places.append((keys.expiries, field_of(number)))
        yield from ((key, element) for key, element in places if _brief(element) not in seen[key])

    def _check_waiting(self) -> None:
        """Whether the range in the book's hash reaches just the stops that wait (STP-6). Where none
        does it may be anything that reaches no stop.
        """
        book = self._inspector.keys.book
        marks, (low, high) = self._inspector.look_up([(book, name) for name in WAITING_FIELDS])
        self._follower.follow(marks)
        if not (str(low or 0).isdecimal() and str(high or 0).isdecimal()):
            return  # told already
        lowest, highest = int(low or _NO_LOW), int(high or 0)
        wait_low, wait_high = self._state.waiting or (_NO_LOW, 0)
        for text in self._state.orders.values():
            if not text.startswith(Status.PENDING):
                continue
            order = parse_record(0, text)
            stop = order.stop_price_ticks or 0
            buys = order.side == "buy"
            waits = stop <= wait_high if buys else stop >= wait_low
            if waits != (stop <= highest if buys else stop >= lowest):
                detail = (
                    f"{book} trigger_low {low} trigger_high {high}, must be {wait_low} {wait_high}"
                )
                self._findings.breach("book", detail)
                return


def _is_number(name: str) -> bool:
    return len(name) == NUMBER_DIGITS and name.isascii() and name.isdigit()


def _brief(element: str) -> str | int:
    """An element in less memory, where there may be millions."""
    return int(element) if _is_number(element) else element
