"""Orders as exchanges see them, and the calls that the product would make for them. Prices lie
around a mid, densest near it; clients have names of an exchange's length, keys are UUIDs.
"""

import random
import uuid
from collections.abc import Callable, Sequence
from typing import Any, TypeAlias

import msgspec
from redis import Redis

from app.domain.refusals import Reason
from app.domain.rules import Rules
from app.engine.book import Books, Scripts
from app.engine.commands import Cancel, NewOrder, OrderNumber
from app.engine.executor import Call, DirectExecutor, Reply
from app.engine.floors import Floors
from app.engine.installing import redis_time_us
from tests.commands import SIDES, Side

TTL_S = 86_400
CLIENTS = 5_000
MID_TICKS = 6_000_000
NEAREST_TICKS = 50
"""No resting order is nearer to the mid: room for the makers that a benchmark puts in front."""
SIZE_STEP_LOTS = 10_000

Changed: TypeAlias = str | int | None
"""What a field of an order may be."""


class _Recorded(Exception):
    """The command is packed; nothing was sent."""


class _Recorder:
    """In an executor's place: keeps the call that would be made."""

    def __init__(self) -> None:
        self.call: Call | None = None

    def run(self, call: Call) -> Reply:
        """Never returns: there is no reply."""
        self.call = call
        raise _Recorded

    def run_all(self, calls: Sequence[Call]) -> list[Reply | Exception]:
        """Not needed here."""
        raise NotImplementedError


class Caller:
    """Calls of one book, exactly as the product would make them."""

    def __init__(self, symbol: str, scripts: Scripts, floors: Floors) -> None:
        self._symbol = symbol
        self._recorder = _Recorder()
        self._books = Books(self._recorder, TTL_S, scripts, floors)

    def place(self, order: NewOrder) -> Call:
        """See `Books.place`."""
        return self._call(lambda: self._books.place(self._symbol, order))

    def cancel(self, number: int) -> Call:
        """See `Books.cancel`."""
        return self._call(lambda: self._books.cancel(self._symbol, Cancel(OrderNumber(number))))

    def mass_cancel(self, client_id: str) -> Call:
        """See `Books.mass_cancel`."""
        reason = Reason.CANCELLED_BY_CLIENT
        return self._call(lambda: self._books.mass_cancel(self._symbol, client_id, "", reason))

    def depth(self, levels: int) -> Call:
        """See `Books.depth`."""
        return self._call(lambda: self._books.depth(self._symbol, levels))

    def sweep(self) -> Call:
        """See `Books.sweep`."""
        return self._call(lambda: self._books.sweep(self._symbol))

    def _call(self, command: Callable[[], object]) -> Call:
        try:
            command()
        except _Recorded:
            assert self._recorder.call is not None
            return self._recorder.call
        raise AssertionError("not reached")


class Orders:
    """A seeded source of orders; `with_keys` gives each an idempotency key, `prevention` is their
    self-trade prevention.
    """

    def __init__(self, seed: int, *, with_keys: bool = True, prevention: str = "none") -> None:
        self.rng = random.Random(seed)
        self._with_keys = with_keys
        self._prevention = prevention

    def resting(self) -> NewOrder:
        """Rests behind NEAREST_TICKS, where nothing crosses it."""
        side = self.rng.choice(SIDES)
        away = NEAREST_TICKS + round(self.rng.lognormvariate(5.5, 1.4))
        price = MID_TICKS - away if side == "buy" else MID_TICKS + away
        return self.limit(side, price, self.lots())

    def limit(
        self, side: Side, price_ticks: int, quantity_lots: int, **changes: Changed
    ) -> NewOrder:
        """Any limit order; `changes` are fields of NewOrder that differ from a plain one's."""
        order = self._order(side, "limit", "gtc", price_ticks, quantity_lots)
        return msgspec.structs.replace(order, **changes) if changes else order

    def stop(self, side: Side, stop_price_ticks: int, quantity_lots: int) -> NewOrder:
        """A stop order."""
        order = self._order(side, "stop", "gtc", None, quantity_lots)
        return msgspec.structs.replace(order, stop_price_ticks=stop_price_ticks)

    def market(self, side: Side, quantity_lots: int) -> NewOrder:
        """A market order."""
        return self._order(side, "market", "ioc", None, quantity_lots)

    def lots(self) -> int:
        """Median 0.05 BTC, at most 20."""
        return SIZE_STEP_LOTS * max(1, min(round(self.rng.lognormvariate(6.2, 1.2)), 200_000))

    def _order(
        self, side: Side, kind: str, time_in_force: str, price_ticks: int | None, lots: int
    ) -> NewOrder:
        key = str(uuid.UUID(int=self.rng.getrandbits(128), version=4)) if self._with_keys else ""
        return NewOrder(
            side=side,
            type=kind,
            time_in_force=time_in_force,
            price_ticks=price_ticks,
            quantity_lots=lots,
            client_id=f"trader-{self.rng.randrange(CLIENTS):06d}",
            idempotency_key=key,
            fingerprint=f"{self.rng.getrandbits(44):011x}" if key else "",
            self_trade_prevention=self._prevention,
        )


RULES = Rules(
    price_band_bps=1_000,
    max_order_lots=10**12,
    max_order_notional=10**20,
    max_open_orders=100_000,
)
"""Every protection is on, and none bites."""


def open_book(client: "Redis", symbol: str) -> Caller:
    """A new book with RULES, and Redis knows all scripts."""
    scripts = Scripts.load()
    for script in scripts:
        client.script_load(script.source)
    floors = Floors()
    was_new = Books(DirectExecutor(client), TTL_S, scripts, floors).open(symbol, RULES)
    assert was_new, f"{symbol} was there"
    floors.clock.seen(redis_time_us(client))
    return Caller(symbol, scripts, floors)


def numbers_of(replies: Sequence[Any]) -> list[int]:
    """The sequences that accepted commands took: of places, the orders' numbers."""
    refused = [reply for reply in replies if reply[0] != b"accepted"]
    assert not refused, f"{len(refused)} commands refused, first {refused[0]}"
    return [int(reply[1]) for reply in replies]
