"""What the reference's book consists of, and how it is asked and kept: orders, the queues and
indexes that follow their status, the rules, the events. Nothing here decides what a command does.
"""

from bisect import bisect_left, insort
from collections.abc import Iterable
from typing import Self

from tests.commands import Command, Place, SetRules, Side
from tests.reference.orders import Event, EventType, LevelChange, Order, Placed, Trade
from tests.reference.queues import BookSide, Stops

MAX_FILLS = 250
MAX_TRIGGERS = 20
MAX_CANCELS = 250
MAX_EXPIRIES = 250
START_US = 4_000_000_000_000_000  # in 2096: a clock of tests, ahead of any real one


class BookState:
    """The state of one instrument's book, and its whole past."""

    def __init__(
        self,
        max_fills: int = MAX_FILLS,
        max_triggers: int = MAX_TRIGGERS,
        max_cancels: int = MAX_CANCELS,
        max_expiries: int = MAX_EXPIRIES,
        now_us: int = START_US,
    ) -> None:
        assert min(max_fills, max_triggers, max_cancels, max_expiries) >= 1
        self.max_fills, self.max_triggers = max_fills, max_triggers
        self.max_cancels, self.max_expiries = max_cancels, max_expiries
        self.now_us = now_us
        self.sequence = 0
        self.events: list[Event] = []
        self.rules = SetRules()
        self.last_price_ticks: int | None = None
        self.timers: dict[str, int] = {}  # due_us by client
        self.killed: set[str] = set()  # clients whose kill switch is on
        self.orders: dict[int, Order] = {}
        self.sides: dict[Side, BookSide] = {"buy": BookSide("buy"), "sell": BookSide("sell")}
        self.stops = Stops()
        self.open_numbers: dict[str, dict[int, None]] = {}  # by client, ascending, never empty
        self.open_client_order_ids: dict[tuple[str, str], int] = {}
        self.expiries: list[tuple[int, int]] = []  # (expires_us, number) of open orders, sorted
        self.answers: dict[tuple[str, str], tuple[Place, Placed]] = {}
        # Of each event, the time and the command; None where a command set it off (CMD-2).
        self.past: list[tuple[int, Command | None]] = []
        self._command: Command | None = None  # under way, until its event is recorded
        self._touched: set[tuple[Side, int]] = set()  # levels, by the command under way

    def copy(self) -> Self:
        """A book that goes its own way from here, with the same past."""
        other = type(self)(
            self.max_fills, self.max_triggers, self.max_cancels, self.max_expiries, self.now_us
        )
        other.sequence = self.sequence
        other.events, other.past = self.events.copy(), self.past.copy()
        other.rules, other.last_price_ticks = self.rules, self.last_price_ticks
        other.timers, other.killed = self.timers.copy(), self.killed.copy()
        other.orders = self.orders.copy()
        other.sides = {side: book_side.copy() for side, book_side in self.sides.items()}
        other.stops = self.stops.copy()
        other.open_numbers = {c: numbers.copy() for c, numbers in self.open_numbers.items()}
        other.open_client_order_ids = self.open_client_order_ids.copy()
        other.expiries, other.answers = self.expiries.copy(), self.answers.copy()
        return other

    # Queries

    def order(self, number: int) -> Order | None:
        """An order in its present state, also long after it is over."""
        return self.orders.get(number)

    def open_orders(self, client: str) -> list[Order]:
        """The client's resting orders and pending stops, oldest first."""
        return [self.orders[number] for number in self.open_numbers.get(client, ())]

    def queue(self, side: Side) -> list[tuple[int, int, int]]:
        """(price, remaining, number) of each resting order, best first, first come first."""
        return [
            (order.limit_ticks, order.remaining_lots, order.number)
            for order in self.sides[side].orders()
        ]

    def levels(self, side: Side) -> list[tuple[int, int, int]]:
        """(price, shown total, number of orders) of each level, best first."""
        book_side = self.sides[side]
        return [
            (price, book_side.totals[price], len(book_side.levels[price]))
            for price in book_side.best_first()
        ]

    def resting(self, side: Side) -> list[Order]:
        """The orders of `queue`."""
        return list(self.sides[side].orders())

    def pending(self, side: Side) -> list[Order]:
        """The pending stops of a side in the order in which they would trigger."""
        return self.stops.pending(side)

    def waiting(self) -> Order | None:
        """The first of the triggered stops that wait (STP-6)."""
        return self.stops.next_triggered()

    def reached(self) -> tuple[int, int] | None:
        """Lowest and highest trade price that count for the stops that wait; None if none waits."""
        return self.stops.reached

    # Keeping

    def begin(self, command: Command | None) -> None:
        """Whose event comes next, if any does."""
        self._command = command

    def store(self, order: Order) -> None:
        """The only place where orders change; queues and indexes follow the order's status."""
        before = self.orders.get(order.number)
        self.orders[order.number] = order
        if before is not None:
            self._leave(before, order)
        self._join(before, order)
        was_open = before is not None and before.is_open
        if order.is_open and not was_open:
            self._index(order)
        elif was_open and not order.is_open:
            self._forget(order)

    def _leave(self, before: Order, after: Order) -> None:
        if before.status == "pending":
            self.stops.remove(before)
        elif before.rests and not _stays(before, after):
            self.sides[before.side].leave(before)
            self._touched.add((before.side, before.limit_ticks))

    def _join(self, before: Order | None, after: Order) -> None:
        if after.status == "pending":
            self.stops.add(after)
        elif after.rests:
            book_side = self.sides[after.side]
            if before is None or not _stays(before, after):
                book_side.join(after)
            else:
                book_side.change(before, after)
                if before.visible_lots == after.visible_lots:
                    return
            self._touched.add((after.side, after.limit_ticks))

    def _index(self, order: Order) -> None:
        """Among the open orders from now on."""
        self.open_numbers.setdefault(order.client, {})[order.number] = None
        if order.client_order_id is not None:
            self.open_client_order_ids[order.client, order.client_order_id] = order.number
        if order.expires_us is not None:
            insort(self.expiries, (order.expires_us, order.number))

    def _forget(self, order: Order) -> None:
        """No longer among the open orders."""
        numbers = self.open_numbers[order.client]
        del numbers[order.number]
        if not numbers:
            del self.open_numbers[order.client]
        if order.client_order_id is not None:
            del self.open_client_order_ids[order.client, order.client_order_id]
        if order.expires_us is not None:
            del self.expiries[bisect_left(self.expiries, (order.expires_us, order.number))]

    def record(
        self,
        kind: EventType,
        orders: Iterable[Order],
        trades: Iterable[Trade] = (),
        detail: str = "",
    ) -> None:
        """The event of what was done, and what its trades mean for the stops."""
        self.sequence += 1
        self.past.append((self.now_us, self._command))
        self._command = None
        trades = tuple(trades)
        levels = [
            LevelChange(side, price, self.sides[side].total(price))
            for side, price in sorted(self._touched)
        ]
        self._touched.clear()
        self.events.append(Event(self.sequence, kind, tuple(orders), trades, tuple(levels), detail))
        if trades:
            self.last_price_ticks = trades[-1].price_ticks
        self.stops.note(trades)


def _stays(before: Order, after: Order) -> bool:
    """Whether an order that rested still does, at its place."""
    return (
        before.rests
        and after.rests
        and before.place == after.place
        and before.price_ticks == after.price_ticks
    )
