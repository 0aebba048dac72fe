"""Events as the Lua scripts write them, made by hand: what feeds the feed's tests.

`TapeBook` mimics one book: it keeps level totals and gives, for each event, the stream entry and
the changes of the book's hash. Knows nothing of matching: its trades are only plausible.
"""

from __future__ import annotations

import random
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from app.domain.instruments import DEFAULT_INSTRUMENTS, Market
from app.domain.orders import RECORD_FIELDS
from app.engine.keys import book_keys

if TYPE_CHECKING:
    from redis import Redis

MARKETS = {each.symbol: Market(each) for each in DEFAULT_INSTRUMENTS}
TIME_US = 1_700_000_000_000_000

Fields = dict[str, str]


def order_line(number: int, **changes: str) -> str:
    """One line of an event's `orders`."""
    record = dict.fromkeys(RECORD_FIELDS, "") | {
        "status": "open",
        "quantity_lots": "100",
        "filled_lots": "0",
        "notional": "0",
        "price_ticks": "5000",
        "sequence": str(number),
        "updated_us": str(TIME_US),
        "created_us": str(TIME_US),
        "client_id": "alice",
        "side": "buy",
        "type": "limit",
        "time_in_force": "gtc",
        "post_only": "0",
    }
    return f"{number}|" + "|".join((record | changes).values())


def entry(sequence: int, levels: str = "", fills: str = "", orders: str = "") -> tuple[str, Fields]:
    """A stream entry; without `orders` it has the one that the command placed."""
    return event("place", sequence, orders or order_line(sequence), levels, fills)


def event(
    type_: str, sequence: int, orders: str = "", levels: str = "", fills: str = "", detail: str = ""
) -> tuple[str, Fields]:
    """A stream entry of any type; without `orders` no order changed."""
    fields = {
        "type": type_,
        "time": str(TIME_US + sequence),
        "orders": orders,
        "fills": fills,
        "levels": levels,
    }
    return f"{sequence}-0", fields | ({"detail": detail} if detail else {})


@dataclass
class TapeBook:
    """One instrument's book, moved by random events."""

    symbol: str = "BTC-USD"
    prices: int = 50
    seed: int = 1
    sequence: int = 0
    levels: dict[str, int] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self._random = random.Random(self.seed)
        self._keys = book_keys(self.symbol)

    def next(self) -> tuple[str, Fields, dict[str, int]]:
        """The next event's id and fields, and the new totals of the levels that it changed."""
        self.sequence += 1
        changed = {self._level(): self._total() for _ in range(self._random.randrange(4))}
        for level, total in changed.items():
            self.levels[level] = total
            if not total:
                del self.levels[level]
        fills = f"{self.sequence},5000,7" if self._random.random() < 0.5 else ""
        orders = order_line(self.sequence)
        if fills:
            orders += "\n" + order_line(max(1, self.sequence - 1), status="filled", side="sell")
        text = " ".join(f"{level}={total}" for level, total in changed.items())
        entry_id, fields = entry(self.sequence, text, fills, orders)
        return entry_id, fields, changed

    def _level(self) -> str:
        tick = self._random.randrange(self.prices)
        return f"bid:{1000 + tick}" if self._random.random() < 0.5 else f"ask:{2000 + tick}"

    def _total(self) -> int:
        return self._random.choice((0, 0, 1, 7, 10**12))

    def write(self, redis: Redis, events: int) -> None:
        """Add `events` to Redis, each in one step as a script does."""
        for _ in range(events):
            entry_id, fields, changed = self.next()
            pipeline: Any = redis.pipeline(transaction=True)
            pipeline.xadd(self._keys.events, fields, id=entry_id)
            new: dict[str, int] = {level: total for level, total in changed.items() if total}
            pipeline.hset(self._keys.book, mapping={"sequence": self.sequence, **new})
            gone = [level for level, total in changed.items() if not total]
            if gone:
                pipeline.hdel(self._keys.book, *gone)
            pipeline.execute()

    def sides(self) -> tuple[dict[str, str], dict[str, str]]:
        """Price -> quantity of all bids and asks, as the feed writes them."""
        market = MARKETS[self.symbol]
        sides: dict[str, dict[str, str]] = {"bid": {}, "ask": {}}
        for level, total in self.levels.items():
            side, _, price = level.partition(":")
            sides[side][market.price.format(int(price))] = market.quantity.format(total)
        return sides["bid"], sides["ask"]


class BookView:
    """What a client rebuilds from `book_snapshot` and `book_delta`; refuses a gap or a repeat."""

    def __init__(self) -> None:
        self.sequence: int | None = None
        self.snapshots = 0
        self.bids: dict[str, str] = {}
        self.asks: dict[str, str] = {}

    def see(self, message: dict[str, Any]) -> None:
        """Apply a message of the book channel."""
        if message["type"] == "book_snapshot":
            self.bids, self.asks = dict(message["bids"]), dict(message["asks"])
            self.snapshots += 1
        else:
            assert message["type"] == "book_delta"
            assert message["previous_sequence"] == self.sequence
            assert message["sequence"] == message["previous_sequence"] + 1
            for side, name in ((self.bids, "bids"), (self.asks, "asks")):
                for price, quantity in message[name]:
                    side[price] = quantity
                    if quantity == "0":
                        del side[price]
        self.sequence = message["sequence"]
