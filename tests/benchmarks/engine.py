"""What commands of the book cost Redis, against the least that a durable resting order needs. The
floor has as many orders standing as the books have. Rounds of all kinds are interleaved, so that
whatever slows the machine slows all of them. Orders and cancels go as the executor sends those of
as many users at once: up to 16 in one run of their script.
"""

import hashlib
from collections.abc import Callable
from statistics import median
from typing import Any

from hiredis import pack_command
from redis import Redis

from app.engine.commands import NewOrder
from tests.benchmarks.order_flow import MID_TICKS, NEAREST_TICKS, Orders, numbers_of
from tests.benchmarks.private_redis import PIPELINED, Cost, cost_of, private_redis
from tests.benchmarks.sizes import Sizes
from tests.benchmarks.standing_book import StandingBook
from tests.benchmarks.tables import Bound, Table

STANDING_ORDERS = 10_000
SEED = 1
MAKER_LOTS = 5_000_000
TAKER_PRICE_TICKS = MID_TICKS * 95 // 100
"""Below all bids, and within the band."""
MIX = "mix: 60 % rest, 20 % cross, 20 % cancels"
MIX_RATIO_MAX = 2.5
RESTING_SHARE, CROSSING_SHARE = 0.6, 0.2
"""Of the mix; the rest are cancels. Bands, limits and self-trade prevention are on."""

FLOOR = """
local number = redis.call('INCR', KEYS[1])
redis.call('SET', KEYS[2], ARGV[1], 'EX', 86400)
redis.call('ZADD', KEYS[3], ARGV[2], number)
redis.call('XADD', KEYS[4], '*', 'order', ARGV[1])
return number
"""
"""The least that a resting order needs to be numbered, safe to repeat, in order and on record."""

Measure = Callable[[int], Cost]


def run(sizes: Sizes) -> Table:
    """Redis CPU of each kind of command, in µs and as a multiple of the floor."""
    with private_redis() as client:
        book, mix_book = (
            StandingBook(client, symbol, Orders(SEED, prevention="cancel_oldest"), STANDING_ORDERS)
            for symbol in ("BENCH-USD", "MIX-USD")
        )
        kinds: dict[str, Measure] = {
            "floor: INCR, SET EX, ZADD, XADD": Floor(client, Orders(SEED)).measure,
            "place, rests": book.place_resting,
            "cancel": book.cancel,
            "place, takes one maker": lambda count: _crossing(book, count),
            MIX: Mix(mix_book).measure,
        }
        rounds = [
            {kind: measure(sizes.commands) for kind, measure in kinds.items()}
            for _ in range(sizes.rounds)
        ]
    return Table(
        f"engine: Redis CPU per command, appendfsync always, {PIPELINED} commands in one write",
        ("", "CPU µs", "of it script µs", "times the floor"),
        [_row(kind, rounds) for kind in kinds],
        [Bound("mix, times the floor", _ratio(MIX, rounds), MIX_RATIO_MAX)],
    )


def _row(kind: str, rounds: list[dict[str, Cost]]) -> tuple[str, ...]:
    cpu_us = median(costs[kind].cpu_us for costs in rounds)
    script_us = median(costs[kind].script_us for costs in rounds)
    return kind, f"{cpu_us:.1f}", f"{script_us:.1f}", f"{_ratio(kind, rounds):.2f}"


def _ratio(kind: str, rounds: list[dict[str, Cost]]) -> float:
    """Median of the rounds' ratios to the floor, which comes first in each."""
    return median(costs[kind].cpu_us / next(iter(costs.values())).cpu_us for costs in rounds)


class Floor:
    """Places orders by FLOOR, each with the key and a record of the length that a real one has."""

    def __init__(self, client: "Redis", orders: Orders) -> None:
        self._client = client
        self._orders = orders
        self._sha = hashlib.sha1(FLOOR.encode()).hexdigest()
        client.script_load(FLOOR)
        self.measure(STANDING_ORDERS)

    def measure(self, count: int) -> Cost:
        """The cost of `count` floor orders; the stream is trimmed afterwards."""
        cost, _ = cost_of(self._client, [self._command() for _ in range(count)])
        self._client.xtrim("{FLOOR}:events", 0, approximate=False)
        return cost

    def _command(self) -> bytes:
        order = self._orders.resting()
        keys = ("{FLOOR}:n", "{FLOOR}:" + order.idempotency_key, "{FLOOR}:side", "{FLOOR}:events")
        record = (
            f"open||{order.quantity_lots}|0|0|{order.price_ticks}||||1700000000000000|"
            f"{order.client_id}||{order.side}|limit|gtc||||||{order.idempotency_key}"
        )
        command: Any = ("EVALSHA", self._sha, len(keys), *keys, record, order.price_ticks or 0)
        packed: bytes = pack_command(command)
        return packed


def _crossing(book: StandingBook, count: int) -> Cost:
    """Buys that take one maker each, whole; the makers were put in front of all others before."""
    orders, caller = book.orders, book.caller
    makers = [
        orders.limit("sell", MID_TICKS + number % NEAREST_TICKS, MAKER_LOTS)
        for number in range(count)
    ]
    _, placed = book.run([caller.place(order) for order in makers])
    # Of clients of their own: who cancels his own maker leaves another one standing.
    takers = [
        orders.limit("buy", MID_TICKS + NEAREST_TICKS - 1, MAKER_LOTS, client_id=f"taker-{n}")
        for n in range(count)
    ]
    cost, taken = book.run([caller.place(order) for order in takers])
    over = numbers_of(placed) + numbers_of(taken)
    book.drop(over, over[-1])
    return cost


class Mix:
    """The standard mix on a book that nobody else uses. Takers sell into the bids and cancels are
    of asks, so that every cancel finds its order.
    """

    def __init__(self, book: StandingBook) -> None:
        self._book = book

    def measure(self, count: int) -> Cost:
        """The cost of `count` commands."""
        book = self._book
        chosen = [self._choose() for _ in range(count)]
        cost, replies = book.run(
            [book.caller.cancel(c) if isinstance(c, int) else book.caller.place(c) for c in chosen]
        )
        over = [command for command in chosen if isinstance(command, int)]
        for command, number in zip(chosen, numbers_of(replies), strict=True):
            if not isinstance(command, int):
                self._note(command, number, over)
        book.drop(over, numbers_of(replies)[-1])
        return cost

    def _choose(self) -> NewOrder | int:
        """A new order, or the number of one to cancel."""
        chance, orders = self._book.orders.rng.random(), self._book.orders
        if chance < RESTING_SHARE:
            return orders.resting()
        if chance < RESTING_SHARE + CROSSING_SHARE:
            # Of usual size: takes one maker or a few.
            return orders.limit("sell", TAKER_PRICE_TICKS, orders.lots())
        return self._book.take("sell")

    def _note(self, order: NewOrder, number: int, over: list[int]) -> None:
        is_taker = order.price_ticks == TAKER_PRICE_TICKS
        if is_taker:
            over.append(number)
        elif order.side == "sell":
            self._book.resting["sell"].append(number)
