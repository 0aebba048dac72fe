"""Linearizability of what clients were told: all answers fit one order of events, which respects
real time. Each accepted answer carries its sequence; a refusal, and what was read, must have been
right at some moment between request and answer. Knows the reference, not the product.
"""

import heapq
from bisect import bisect_left, bisect_right
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from itertools import accumulate
from typing import Final

from tests.commands import SIDES, Amend, ArmTimer, Cancel, MassCancel, Place
from tests.flow import MICROSECONDS, ReadBook, ReadOrder, Told
from tests.reference import Event, Order, ReferenceBook, checks
from tests.rest import Json, number_of, order_words, same_words

ACCEPTED: Final = (200, 201)
END: Final = 2**62
"""Beyond every sequence."""


def is_accepted(one: Told) -> bool:
    """Whether the book did what was asked."""
    return one.answer.status in ACCEPTED


def sequence_of(one: Told) -> int:
    """The sequence that an accepted order, cancel or amend took; of a replay, the first one's."""
    order = one.answer.json()["order"]
    return number_of(order["order_id"]) if isinstance(one.command, Place) else order["sequence"]


def due_us(one: Told) -> int | None:
    """When an armed timer will fire; None where it was disarmed."""
    cancel_at = one.answer.json()["cancel_at"]
    if cancel_at is None:
        return None
    moment = datetime.fromisoformat(cancel_at)
    return int(moment.timestamp()) * MICROSECONDS + moment.microsecond


@dataclass(frozen=True, slots=True)
class Taken:
    """An accepted request, and the first and last sequence that it took. `is_repeat`: it took them
    when it was asked for before, and answered then.
    """

    told: Told
    first: int
    last: int
    is_repeat: bool = False


class Watch:
    """Follows a replay of one book, state by state, and ticks off what was right in one of them."""

    def __init__(self, symbol: str, told: Sequence[Told], events: Iterable[Event]) -> None:
        self._symbol = symbol
        self._taken = list(_taken(told, list(events)))
        first = [one for one in self._taken if not one.is_repeat]
        received = sorted((one.told.received_at, one.last) for one in self._taken)
        sent = sorted((one.told.sent_at, one.first) for one in first)
        self._received_at = [at for at, _ in received]
        self._greatest = list(accumulate((last for _, last in received), max))
        self._sent_at = [at for at, _ in sent]
        least = list(accumulate((one for _, one in reversed(sent)), min))
        self._least = least[::-1]
        # (first state in which it may have been looked at, index, last such state)
        self._coming = [
            (*self.window(one.sent_at, one.received_at), index, one)
            for index, one in enumerate(told)
            if not _has_sequence(one)
        ]
        heapq.heapify(self._coming)
        self._open: list[tuple[int, int, int, Told]] = []
        self.looked_at = len(self._coming)
        """How many refusals and reads there are."""

    def window(self, sent_at: float, received_at: float) -> tuple[int, int]:
        """The lowest and the highest sequence at which the book may have stood in between."""
        before = bisect_left(self._received_at, sent_at)
        after = bisect_right(self._sent_at, received_at)
        low = self._greatest[before - 1] if before else 0
        high = self._least[after] if after < len(self._least) else END
        return low, high - 1

    def check_real_time(self) -> None:
        """Nobody was answered before another asked who has the smaller sequence."""
        for one in self._taken:
            low, high = self.window(one.told.sent_at, one.told.received_at)
            assert one.last <= high, f"{high}: {one}"
            assert one.is_repeat or low < one.first, f"{low}: {one}"

    def state(self, book: ReferenceBook, until_us: int | None) -> None:
        """The book stood like this until `until_us`, None: to the end."""
        while self._coming and self._coming[0][0] <= book.sequence:
            self._open.append(heapq.heappop(self._coming))
        if not self._open:
            return
        still = [entry for entry in self._open if not self._is_right(book, until_us, entry[3])]
        late = [one for _, high, _, one in still if high <= book.sequence or until_us is None]
        assert not late, f"wrong in each state that it may have been in, like {late[0]}"
        self._open = still

    def _is_right(self, book: ReferenceBook, until_us: int | None, one: Told) -> bool:
        if isinstance(one.command, ReadBook):
            return _is_book(one.answer.json(), book, one.command.levels)
        if isinstance(one.command, ReadOrder):
            order = book.order(one.command.number)
            if order is None:
                return False
            words = order_words(self._symbol, order)
            return same_words(one.answer.json(), words) == words
        if isinstance(one.command, MassCancel):
            own = book.open_orders(one.command.client)
            return is_accepted(one) and all(o.side not in _sides(one.command) for o in own)
        if isinstance(one.command, ArmTimer) and is_accepted(one):
            return one.command.client not in book.timers
        until_us = END if until_us is None else until_us
        code = one.answer.code
        return any(refusal(book, one, now_us) == code for now_us in (book.now_us, until_us))


def _has_sequence(one: Told) -> bool:
    """Whether the events tell where it belongs."""
    if not is_accepted(one):
        return False
    match one.command:
        case ReadBook() | ReadOrder():
            return False
        case MassCancel():
            return bool(one.answer.json()["cancelled"])
        case ArmTimer():
            return due_us(one) is not None
    return True


def _sides(mass: MassCancel) -> tuple[str, ...]:
    return SIDES if mass.side is None else (mass.side,)


def _taken(told: Iterable[Told], events: list[Event]) -> Iterable[Taken]:
    cancelled_by = {
        order.number: event.sequence
        for event in events
        if event.type == "mass_cancel"
        for order in event.orders
    }
    timers: dict[str, list[int]] = defaultdict(list)
    for event in events:
        if event.type == "cancel_after":
            timers[event.detail].append(event.sequence)
    placed: set[int] = set()
    for one in filter(is_accepted, told):
        match one.command:
            case Place():
                number = sequence_of(one)
                yield Taken(one, number, number, is_repeat=number in placed)
                placed.add(number)
            case Cancel() | Amend():
                yield Taken(one, sequence_of(one), sequence_of(one))
            case MassCancel():
                numbers = map(number_of, one.answer.json()["cancelled"])
                if sequences := [cancelled_by[number] for number in numbers]:
                    yield Taken(one, min(sequences), max(sequences))
            case ArmTimer(client) if (due := due_us(one)) is not None:
                armed = timers[f"{client}|{due}"]
                assert armed, f"no event says so: {one}"
                if len(armed) == 1:  # where time stands still, more may have the same due time
                    yield Taken(one, armed[0], armed[0])


def _is_book(document: Json, book: ReferenceBook, levels: int) -> bool:
    if document["sequence"] != book.sequence:
        return False
    for name, side in (("bids", "buy"), ("asks", "sell")):
        told = [(int(e["price"]), int(e["quantity"]), e["orders"]) for e in document[name]]
        expected = book.levels(side)[:levels]  # type: ignore[arg-type]
        last = book.events[-3:]
        assert told == expected, f"{side} {told}, must be {expected} after {last}"
    return True


def refusal(book: ReferenceBook, one: Told, now_us: int) -> str | None:
    """Why the book as it stands would refuse this at that time. Changes nothing."""
    stood_at, book.now_us = book.now_us, now_us
    try:
        match one.command:
            case Place() as place:
                return checks.refuses_place(book, place) or _refuses_entry(book, place)
            case Cancel(number):
                order = book.order(number)
                is_open = order is not None and order.is_open
                return None if is_open else "order_not_open" if order else "order_not_found"
            case Amend() as amend:
                return _refuses_amend(book, amend)
            case ArmTimer(client):
                due = book.timers.get(client)
                return "timer_due" if due is not None and due <= now_us else None
        raise AssertionError(f"not expected to be refused: {one}")
    finally:
        book.now_us = stood_at


def _refuses_entry(book: ReferenceBook, place: Place) -> str | None:
    order = book._new_order(place)
    if order.status == "pending":
        return None
    match = book._match(order, book.max_fills)
    return checks.refuses_match(book, match, match.settled())


def _refuses_amend(book: ReferenceBook, amend: Amend) -> str | None:
    order = book.order(amend.number)
    if order is None:
        return "order_not_found"
    code = checks.refuses_amend(book, order, amend)
    if code is not None or amend.quantity_lots == order.filled_lots:
        return code
    after = with_terms(order, amend)
    code = checks.refuses_terms(book, order, after)
    stays = after.price_ticks == order.price_ticks and after.quantity_lots <= order.quantity_lots
    if code is not None or order.status == "pending" or stays:
        return code
    match = book._match(after, book.max_fills)
    return checks.refuses_match(book, match, match.settled())


def with_terms(order: Order, amend: Amend) -> Order:
    """The order with what the amend gives."""
    price, lots, stop = amend.price_ticks, amend.quantity_lots, amend.stop_price_ticks
    return replace(
        order,
        price_ticks=order.price_ticks if price is None else price,
        quantity_lots=order.quantity_lots if lots is None else lots,
        stop_price_ticks=order.stop_price_ticks if stop is None else stop,
    )
