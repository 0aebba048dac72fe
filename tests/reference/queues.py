"""Where open orders are kept: the two sides of the book in queue order, and the pending stops in
the order in which they trigger. Nothing here decides what becomes of an order.
"""

from bisect import bisect_left, insort
from collections.abc import Iterator, Sequence

from tests.commands import Side
from tests.reference.orders import Order, Trade


class BookSide:
    """The resting orders of one side, by price and then by place."""

    __slots__ = ("levels", "prices", "side", "totals")

    def __init__(self, side: Side) -> None:
        self.side = side
        # Price -> number -> order, first in the queue first. No empty levels.
        self.levels: dict[int, dict[int, Order]] = {}
        self.totals: dict[int, int] = {}  # shown lots by price
        self.prices: list[int] = []  # of the levels, ascending

    def copy(self) -> "BookSide":
        """One that changes without this one."""
        other = BookSide(self.side)
        other.levels = {price: level.copy() for price, level in self.levels.items()}
        other.totals = self.totals.copy()
        other.prices = self.prices.copy()
        return other

    def best_first(self) -> Iterator[int]:
        """Prices of the levels; the side must not change meanwhile."""
        return reversed(self.prices) if self.side == "buy" else iter(self.prices)

    def orders(self) -> Iterator[Order]:
        """All orders as they would be met."""
        for price in self.best_first():
            yield from self.levels[price].values()

    def total(self, price_ticks: int) -> int:
        """What is shown at a price."""
        return self.totals.get(price_ticks, 0)

    def join(self, order: Order) -> None:
        """Last of the queue at the order's price."""
        price = order.limit_ticks
        if price not in self.levels:
            self.levels[price] = {}
            self.totals[price] = 0
            insort(self.prices, price)
        self.levels[price][order.number] = order
        self.totals[price] += order.visible_lots

    def leave(self, order: Order) -> None:
        """The order as it was when it joined or last changed."""
        price = order.limit_ticks
        del self.levels[price][order.number]
        self.totals[price] -= order.visible_lots
        if not self.levels[price]:
            del self.levels[price], self.totals[price]
            del self.prices[bisect_left(self.prices, price)]

    def change(self, before: Order, after: Order) -> None:
        """Another state of the order at the same place."""
        self.levels[after.limit_ticks][after.number] = after
        self.totals[after.limit_ticks] += after.visible_lots - before.visible_lots


class Stops:
    """The pending stops, and which prices the trades reached while triggered ones wait (STP-2)."""

    __slots__ = ("_buys", "_orders", "_sells", "reached")

    def __init__(self) -> None:
        self._orders: dict[int, Order] = {}
        # Sorted (stop price, place, number), of sell stops with the price negated: first is next.
        self._buys: list[tuple[int, tuple[int, int], int]] = []
        self._sells: list[tuple[int, tuple[int, int], int]] = []
        self.reached: tuple[int, int] | None = None  # lowest, highest

    def copy(self) -> "Stops":
        """One that changes without this one."""
        other = Stops()
        other._orders = self._orders.copy()
        other._buys, other._sells = self._buys.copy(), self._sells.copy()
        other.reached = self.reached
        return other

    def add(self, stop: Order) -> None:
        """A stop that is pending from now on."""
        self._orders[stop.number] = stop
        insort(self._keys(stop), _key(stop))

    def remove(self, stop: Order) -> None:
        """The stop as it was added or last changed."""
        del self._orders[stop.number]
        keys = self._keys(stop)
        del keys[bisect_left(keys, _key(stop))]

    def note(self, trades: Sequence[Trade]) -> None:
        """Trades that may trigger."""
        if trades and self._orders:
            prices = [trade.price_ticks for trade in trades]
            self.reached = (
                min(*prices, *(self.reached or prices)),
                max(*prices, *(self.reached or prices)),
            )
        if self.reached is not None and self.next_triggered() is None:
            self.reached = None

    def next_triggered(self) -> Order | None:
        """STP-4: the first of the stops that a trade has reached."""
        if self.reached is None:
            return None
        lowest, highest = self.reached
        if self._buys and self._buys[0][0] <= highest:
            return self._orders[self._buys[0][2]]
        if self._sells and -self._sells[0][0] >= lowest:
            return self._orders[self._sells[0][2]]
        return None

    def pending(self, side: Side) -> list[Order]:
        """The stops of one side as they would trigger."""
        keys = self._buys if side == "buy" else self._sells
        return [self._orders[number] for _, _, number in keys]

    def _keys(self, stop: Order) -> list[tuple[int, tuple[int, int], int]]:
        return self._buys if stop.side == "buy" else self._sells


def _key(stop: Order) -> tuple[int, tuple[int, int], int]:
    sign = 1 if stop.side == "buy" else -1
    return sign * stop.trigger_ticks, stop.place, stop.number
