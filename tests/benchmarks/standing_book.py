"""A book full of resting orders, kept at its size: what is placed is cancelled again, and what is
over is dropped as the persister drops it.
"""

from collections.abc import Callable, Sequence
from typing import Any

from redis import Redis

from app.engine.commands import NewOrder
from app.engine.executor import Call
from app.engine.keys import book_keys
from app.persistence import event_stream
from app.persistence.persister import STREAM_WINDOW
from tests.benchmarks.order_flow import Orders, numbers_of, open_book
from tests.benchmarks.private_redis import Cost, cost_of_calls, make
from tests.commands import Side

FILL_CHUNK = 10_000
"""Orders made and sent at a time while a book is filled."""


class StandingBook:
    """A new book of `symbol` in `client`'s Redis with `size` resting orders. `how` calls
    are made when they are measured.
    """

    def __init__(
        self,
        client: "Redis",
        symbol: str,
        orders: Orders,
        size: int,
        how: Callable[..., list[Any]] = make,
    ) -> None:
        self.client = client
        self._how = how
        self.symbol = symbol
        self.orders = orders
        self.caller = open_book(client, symbol)
        self.resting: dict[Side, list[int]] = {"buy": [], "sell": []}
        """Numbers of the orders that rest, by side."""
        for first in range(0, size, FILL_CHUNK):
            self._fill(min(FILL_CHUNK, size - first))

    def _fill(self, count: int) -> None:
        chosen = [self.orders.resting() for _ in range(count)]
        numbers = numbers_of(make(self.client, [self.caller.place(order) for order in chosen]))
        self._note(chosen, numbers)
        self.drop([], numbers[-1])

    def _note(self, placed: list[NewOrder], numbers: list[int]) -> None:
        for order, number in zip(placed, numbers, strict=True):
            self.resting["buy" if order.side == "buy" else "sell"].append(number)

    def drop(self, over: list[int], last: int) -> None:
        """What the persister does once Postgres has everything up to sequence `last`."""
        event_stream.drop(self.client, self.symbol, (last,), over, last - STREAM_WINDOW + 1)

    def place_resting(self, count: int) -> Cost:
        """Place `count` orders that rest."""
        chosen = [self.orders.resting() for _ in range(count)]
        cost, replies = self.run([self.caller.place(order) for order in chosen])
        self._note(chosen, numbers_of(replies))
        return cost

    def cancel(self, count: int) -> Cost:
        """Cancel `count` orders, old and new ones alike."""
        numbers = [self.take(side) for side in ("buy", "sell") for _ in range(count // 2)]
        self.orders.rng.shuffle(numbers)
        cost, replies = self.run([self.caller.cancel(number) for number in numbers])
        self.drop(numbers, numbers_of(replies)[-1])
        return cost

    def take(self, side: Side) -> int:
        """The number of any resting order of a side, which the caller is going to cancel."""
        resting = self.resting[side]
        chosen = self.orders.rng.randrange(len(resting))
        resting[chosen], resting[-1] = resting[-1], resting[chosen]
        return resting.pop()

    def run(self, calls: Sequence[Call]) -> tuple[Cost, list[Any]]:
        """Make calls of this book; every one must be accepted."""
        cost, replies = cost_of_calls(self.client, calls, self._how)
        numbers_of(replies)
        return cost, replies

    def order_count(self) -> int:
        """How many orders rest, as Redis says."""
        keys = book_keys(self.symbol)
        return int(self.client.zcard(keys.bids)) + int(self.client.zcard(keys.asks))
