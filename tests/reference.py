"""An independent matcher for one instrument, written to be read and believed rather than to be
fast. It is the other half of the differential tests and shares no code with the product: it must
never import `app`. Integers only; time and money do not exist here.
"""

import hashlib
from bisect import insort
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Literal, TypeAlias

from tests.commands import (
    SIDES,
    Cancel,
    Command,
    OrderType,
    Place,
    Side,
    TimeInForce,
    opposite,
)

Status: TypeAlias = Literal["open", "partially_filled", "filled", "cancelled"]

MAX_FILLS_PER_COMMAND = 1000
LEVEL_TOTAL_LIMIT_LOTS = 2**53  # first total that a double no longer counts exactly


@dataclass(frozen=True, slots=True)
class Order:
    """State of an order; a change makes a new one, so states in answers and events stay true."""

    number: int
    client: str
    side: Side
    type: OrderType
    time_in_force: TimeInForce
    post_only: bool
    price_ticks: int | None
    quantity_lots: int
    client_order_id: str | None
    filled_lots: int
    notional: int  # exact sum of price_ticks * quantity_lots over the fills
    status: Status
    reason: str | None
    sequence: int  # of the last command that changed it

    @property
    def remaining_lots(self) -> int:
        """What has not traded, also of a cancelled order."""
        return self.quantity_lots - self.filled_lots

    @property
    def is_open(self) -> bool:
        """Whether it rests on the book."""
        return self.status in ("open", "partially_filled")

    @property
    def limit_ticks(self) -> int:
        """The price of an order that must have one."""
        assert self.price_ticks is not None
        return self.price_ticks


@dataclass(frozen=True, slots=True)
class Trade:
    """One fill of the taker `taker` against the resting order `maker`, at the maker's price."""

    maker: int
    taker: int
    price_ticks: int
    quantity_lots: int
    side: Side  # the taker's
    sequence: int
    index: int  # 1..n within its command


@dataclass(frozen=True, slots=True, order=True)
class LevelChange:
    """New total of a price level; 0 when it is gone. Sorts by side (buy first), then price."""

    side: Side
    price_ticks: int
    total_lots: int


@dataclass(frozen=True, slots=True)
class Event:
    """All that an accepted command did. `orders`: the command's own first, then the makers in the
    order of their first fill, each once. `levels`: sorted by side, then ascending price.
    """

    sequence: int
    type: Literal["place", "cancel"]
    orders: tuple[Order, ...]
    trades: tuple[Trade, ...]
    levels: tuple[LevelChange, ...]


@dataclass(frozen=True, slots=True)
class Placed:
    """Answer to an accepted place: the order right after matching, and its trades."""

    order: Order
    trades: tuple[Trade, ...]
    replayed: bool = False


@dataclass(frozen=True, slots=True)
class Cancelled:
    """Answer to an accepted cancel."""

    order: Order


@dataclass(frozen=True, slots=True)
class Refused:
    """The command changed nothing and took no sequence."""

    code: str


Answer: TypeAlias = Placed | Cancelled | Refused


@dataclass(frozen=True, slots=True)
class Match:
    """What matching an order would do, worked out before anything is changed."""

    fills: tuple[tuple[Order, int], ...]  # makers in queue order, each with the lots it gives
    remaining_lots: int
    cut_short: bool  # the fill limit ended it although another maker crosses


class ReferenceBook:
    """The book of one instrument: strict price-time priority, trades at the maker's price."""

    def __init__(self, max_fills_per_command: int = MAX_FILLS_PER_COMMAND) -> None:
        assert max_fills_per_command >= 1
        self.max_fills_per_command = max_fills_per_command
        self.sequence = 0
        self.events: list[Event] = []
        self._orders: dict[int, Order] = {}
        # Per side: price -> numbers of the resting orders, first come first. No empty lists.
        self._levels: dict[Side, dict[int, list[int]]] = {"buy": {}, "sell": {}}
        self._prices: dict[Side, list[int]] = {"buy": [], "sell": []}  # of the levels, ascending
        self._open_client_order_ids: dict[tuple[str, str], int] = {}
        self._answers: dict[tuple[str, str], tuple[Place, Placed]] = {}

    # Commands

    def apply(self, command: Command) -> Answer:
        """Executes any command."""
        return self.place(command) if isinstance(command, Place) else self.cancel(command)

    def place(self, place: Place) -> Placed | Refused:
        """Refusals in the order in which they are checked: idempotency_key_reused (where an equal
        payload gets the first answer again), duplicate_client_order_id, post_only_would_cross,
        level_quantity_overflow.
        """
        earlier = self._earlier_answer(place)
        if earlier is not None:
            return earlier
        match = self._match(place)
        code = self._refusal(place, match)
        if code is not None:
            return Refused(code)
        answer = self._execute(place, match)
        if place.idempotency_key is not None:
            self._answers[place.client, place.idempotency_key] = (place.payload(), answer)
        return answer

    def cancel(self, cancel: Cancel) -> Cancelled | Refused:
        """Refusals: order_not_found, order_not_open."""
        order = self._orders.get(cancel.number)
        if order is None:
            return Refused("order_not_found")
        if not order.is_open:
            return Refused("order_not_open")
        self.sequence += 1
        order = replace(
            order, status="cancelled", reason="cancelled_by_client", sequence=self.sequence
        )
        self._store(order)
        self._record("cancel", [order], [])
        return Cancelled(order)

    # Queries

    def order(self, number: int) -> Order | None:
        """An order in its present state, also long after it is over."""
        return self._orders.get(number)

    def open_orders(self, client: str) -> list[Order]:
        """The client's resting orders, oldest first."""
        return [
            order for order in self._orders.values() if order.client == client and order.is_open
        ]

    def queue(self, side: Side) -> list[tuple[int, int, int]]:
        """(price, remaining, number) of each resting order, best first, first come first."""
        return [
            (order.limit_ticks, order.remaining_lots, order.number) for order in self._resting(side)
        ]

    def levels(self, side: Side) -> list[tuple[int, int, int]]:
        """(price, total, number of orders) of each level, best first."""
        return [
            (price, self._total(side, price), len(self._levels[side][price]))
            for price in self._best_first(side)
        ]

    def digest(self) -> str:
        """sha256 (hex) of the book as UTF-8 text, each line ended by a newline: first
        `sequence <n>`, then the bids and then the asks in queue order, each as
        `<buy|sell> <price> <remaining> <number> <client>`.
        """
        return hashlib.sha256(self.canonical_text().encode()).hexdigest()

    def canonical_text(self) -> str:
        """The text under the digest; print it where two digests differ."""
        lines = [f"sequence {self.sequence}"]
        for side in SIDES:
            for price, remaining, number in self.queue(side):
                lines.append(f"{side} {price} {remaining} {number} {self._orders[number].client}")
        return "".join(line + "\n" for line in lines)

    # Deciding: reads only

    def _earlier_answer(self, place: Place) -> Placed | Refused | None:
        if place.idempotency_key is None:
            return None
        earlier = self._answers.get((place.client, place.idempotency_key))
        if earlier is None:
            return None
        payload, answer = earlier
        if payload != place.payload():
            return Refused("idempotency_key_reused")
        return replace(answer, replayed=True)

    def _refusal(self, place: Place, match: Match) -> str | None:
        if (place.client, place.client_order_id) in self._open_client_order_ids:
            return "duplicate_client_order_id"
        if place.post_only and any(self._crossing_makers(place)):
            return "post_only_would_cross"
        if _outcome(place, match)[0] in ("open", "partially_filled"):
            assert place.price_ticks is not None
            total = self._total(place.side, place.price_ticks) + match.remaining_lots
            if total >= LEVEL_TOTAL_LIMIT_LOTS:
                return "level_quantity_overflow"
        return None

    def _match(self, place: Place) -> Match:
        """A fill-or-kill that comes out short of its quantity trades nothing at all."""
        fills: list[tuple[Order, int]] = []
        remaining, cut_short = place.quantity_lots, False
        for maker in self._crossing_makers(place):
            if remaining == 0:
                break
            if len(fills) == self.max_fills_per_command:
                cut_short = True
                break
            lots = min(remaining, maker.remaining_lots)
            fills.append((maker, lots))
            remaining -= lots
        if place.time_in_force == "fok" and remaining > 0:
            return Match((), place.quantity_lots, cut_short)
        return Match(tuple(fills), remaining, cut_short)

    def _crossing_makers(self, place: Place) -> Iterator[Order]:
        """Orders that this one may trade with, in the order in which it must."""
        side = opposite(place.side)
        for price in self._best_first(side):
            if place.price_ticks is not None and not _crosses(place.side, place.price_ticks, price):
                return
            for number in self._levels[side][price]:
                yield self._orders[number]

    # Executing: cannot fail any more

    def _execute(self, place: Place, match: Match) -> Placed:
        self.sequence += 1
        makers = [self._give(maker, lots) for maker, lots in match.fills]
        trades = [
            Trade(m.number, self.sequence, m.limit_ticks, lots, place.side, self.sequence, index)
            for index, (m, lots) in enumerate(match.fills, start=1)
        ]
        order = self._new_order(place, match)
        for changed in [order, *makers]:
            self._store(changed)
        self._record("place", [order, *makers], trades)
        return Placed(order, tuple(trades))

    def _new_order(self, place: Place, match: Match) -> Order:
        status, reason = _outcome(place, match)
        return Order(
            number=self.sequence,
            client=place.client,
            side=place.side,
            type=place.type,
            time_in_force=place.time_in_force,
            post_only=place.post_only,
            price_ticks=place.price_ticks,
            quantity_lots=place.quantity_lots,
            client_order_id=place.client_order_id,
            filled_lots=place.quantity_lots - match.remaining_lots,
            notional=sum(maker.limit_ticks * lots for maker, lots in match.fills),
            status=status,
            reason=reason,
            sequence=self.sequence,
        )

    def _give(self, maker: Order, lots: int) -> Order:
        """The maker after it has traded."""
        return replace(
            maker,
            filled_lots=maker.filled_lots + lots,
            notional=maker.notional + maker.limit_ticks * lots,
            status="filled" if lots == maker.remaining_lots else "partially_filled",
            sequence=self.sequence,
        )

    def _store(self, order: Order) -> None:
        """The only place where orders change; queue and index follow the order's status."""
        before = self._orders.get(order.number)
        self._orders[order.number] = order
        if before is None and order.is_open:
            self._join_queue(order)
        elif before is not None and before.is_open and not order.is_open:
            self._leave_queue(order)

    def _join_queue(self, order: Order) -> None:
        if order.limit_ticks not in self._levels[order.side]:
            self._levels[order.side][order.limit_ticks] = []
            insort(self._prices[order.side], order.limit_ticks)
        self._levels[order.side][order.limit_ticks].append(order.number)
        if order.client_order_id is not None:
            self._open_client_order_ids[order.client, order.client_order_id] = order.number

    def _leave_queue(self, order: Order) -> None:
        numbers = self._levels[order.side][order.limit_ticks]
        numbers.remove(order.number)
        if not numbers:
            del self._levels[order.side][order.limit_ticks]
            self._prices[order.side].remove(order.limit_ticks)
        if order.client_order_id is not None:
            del self._open_client_order_ids[order.client, order.client_order_id]

    def _record(
        self, kind: Literal["place", "cancel"], orders: list[Order], trades: list[Trade]
    ) -> None:
        command, *makers = orders
        touched = {(maker.side, maker.limit_ticks) for maker in makers}
        if kind == "cancel" or command.is_open:
            touched.add((command.side, command.limit_ticks))
        levels = sorted(LevelChange(side, at, self._total(side, at)) for side, at in touched)
        self.events.append(Event(self.sequence, kind, tuple(orders), tuple(trades), tuple(levels)))

    def _total(self, side: Side, price_ticks: int) -> int:
        numbers = self._levels[side].get(price_ticks, [])
        return sum(self._orders[number].remaining_lots for number in numbers)

    def _resting(self, side: Side) -> Iterator[Order]:
        for price in self._best_first(side):
            for number in self._levels[side][price]:
                yield self._orders[number]

    def _best_first(self, side: Side) -> list[int]:
        prices = self._prices[side]
        return prices[::-1] if side == "buy" else prices[:]

    # Proof

    def check_invariants(self) -> None:
        """Raises AssertionError unless the whole history and the present state agree."""
        self._check_not_crossed()
        self._check_queues_hold_exactly_the_open_orders()
        self._check_orders_add_up()
        self._check_trades_explain_the_fills()
        self._check_events_are_gapless_and_lead_here()

    def _check_not_crossed(self) -> None:
        if self._levels["buy"] and self._levels["sell"]:
            assert max(self._levels["buy"]) < min(self._levels["sell"]), "crossed"

    def _check_queues_hold_exactly_the_open_orders(self) -> None:
        for side in SIDES:
            assert self._prices[side] == sorted(self._levels[side])
            for price, numbers in self._levels[side].items():
                assert numbers, f"empty level {side} {price}"
                assert numbers == sorted(numbers), f"not first come first: {side} {price}"
                assert {self._orders[number].price_ticks for number in numbers} == {price}
                assert 0 < self._total(side, price) < LEVEL_TOTAL_LIMIT_LOTS
        queued = sorted(order.number for side in SIDES for order in self._resting(side))
        still_open = [order for order in self._orders.values() if order.is_open]
        assert queued == sorted(order.number for order in still_open)
        named = {
            (o.client, o.client_order_id): o.number
            for o in still_open
            if o.client_order_id is not None
        }
        assert named == self._open_client_order_ids

    def _check_orders_add_up(self) -> None:
        for number, order in self._orders.items():
            assert number == order.number <= order.sequence <= self.sequence
            assert 0 <= order.filled_lots <= order.quantity_lots
            assert (order.status == "filled") == (order.remaining_lots == 0)
            assert (order.status == "cancelled") == (order.reason is not None)
            assert order.status != "open" or order.filled_lots == 0
            assert order.status != "partially_filled" or order.filled_lots > 0
            assert not order.is_open or (order.type, order.time_in_force) == ("limit", "gtc")

    def _check_trades_explain_the_fills(self) -> None:
        lots: dict[int, int] = defaultdict(int)
        notional: dict[int, int] = defaultdict(int)
        traded = 0
        for trade in (trade for event in self.events for trade in event.trades):
            self._check_trade(trade)
            traded += trade.quantity_lots
            for number in (trade.maker, trade.taker):
                lots[number] += trade.quantity_lots
                notional[number] += trade.price_ticks * trade.quantity_lots
        for number, order in self._orders.items():
            assert (order.filled_lots, order.notional) == (lots[number], notional[number])
        for side in SIDES:
            assert traded == sum(o.filled_lots for o in self._orders.values() if o.side == side)

    def _check_trade(self, trade: Trade) -> None:
        maker, taker = self._orders[trade.maker], self._orders[trade.taker]
        assert trade.quantity_lots > 0
        assert maker.number < taker.number == trade.sequence
        assert taker.side == trade.side == opposite(maker.side)
        assert trade.price_ticks == maker.price_ticks
        if taker.price_ticks is not None:
            assert _crosses(taker.side, taker.price_ticks, trade.price_ticks)

    def _check_events_are_gapless_and_lead_here(self) -> None:
        levels: dict[tuple[Side, int], int] = {}
        orders: dict[int, Order] = {}
        for sequence, event in enumerate(self.events, start=1):
            assert event.sequence == sequence
            assert len(event.trades) <= self.max_fills_per_command
            assert [trade.index for trade in event.trades] == list(range(1, len(event.trades) + 1))
            for change in event.levels:
                assert levels.get((change.side, change.price_ticks), 0) != change.total_lots
                levels[change.side, change.price_ticks] = change.total_lots
            orders.update((order.number, order) for order in event.orders)
        assert self.sequence == len(self.events)
        assert orders == self._orders
        for side in SIDES:
            told = {price: total for (s, price), total in levels.items() if s == side and total}
            assert told == {price: total for price, total, _ in self.levels(side)}


def _crosses(side: Side, limit_ticks: int, other_ticks: int) -> bool:
    """Whether an order of this side and limit may trade at the other side's price."""
    return other_ticks <= limit_ticks if side == "buy" else other_ticks >= limit_ticks


def _outcome(place: Place, match: Match) -> tuple[Status, str | None]:
    """Status and reason of an order right after matching."""
    if match.remaining_lots == 0:
        return "filled", None
    if match.cut_short:
        return "cancelled", "fill_limit"
    if place.time_in_force == "fok":
        return "cancelled", "fok_unfilled"
    if place.type == "market":
        return "cancelled", "no_liquidity"
    if place.time_in_force == "ioc":
        return "cancelled", "ioc_remainder"
    return ("partially_filled" if match.fills else "open"), None
