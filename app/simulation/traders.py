"""All traders of one instrument: what they send as time goes on, and what they make of the answers.
Depends on seed and answers alone, never on a clock: the same seed on the same book sends the same.
"""

from __future__ import annotations

from random import Random
from typing import TYPE_CHECKING, Final

from app.simulation.arrivals import Arrivals
from app.simulation.floor import Floor
from app.simulation.makers import LEVELS, MAKERS, Maker
from app.simulation.orders import Intent, Item, cancelling
from app.simulation.takers import PATIENT_ORDERS_MAX, TAKERS, Takers

if TYPE_CHECKING:
    from app.domain.instruments import Market

MAKERS_SHARE: Final = 0.7
"""Of the orders that are makers'."""
OPEN_ORDERS_MAX: Final = 2 * LEVELS * MAKERS + PATIENT_ORDERS_MAX
"""Of one instrument, all traders together."""
BAND_PATIENCE: Final = 20
"""Orders in a row that a price band refuses, until the traders look where the price is."""
NOT_TRADED: Final = frozenset({"instrument_halted", "cancel_only", "kill_switch"})
"""Refusals that concern every order, not this one."""
TAKEN: Final = frozenset({200, 201})
GONE: Final = frozenset({404, 409})
SERVER_ERROR: Final = 500
OPEN: Final = frozenset({"open", "partially_filled", "pending"})


def maker_ids(seed: int) -> list[str]:
    """The makers' client ids; the seed keeps two simulations apart."""
    return [f"sim{seed}-maker-{number}" for number in range(1, MAKERS + 1)]


def taker_ids(seed: int) -> list[str]:
    """The takers' client ids."""
    return [f"sim{seed}-taker-{number}" for number in range(1, TAKERS + 1)]


class Traders:
    """The traders of one instrument, who send `rate_per_s` orders on average."""

    def __init__(self, market: Market, rate_per_s: float, seed: int) -> None:
        rng = Random(f"{seed} {market.symbol}")  # noqa: S311  # nothing secret about it
        self.market = market
        self._rng = rng
        self._floor = Floor(market, rate_per_s, rng)
        self._arrivals = Arrivals(rate_per_s, rng)
        makers = enumerate(maker_ids(seed))
        self._makers = [Maker(self._floor, number, name, rng) for number, name in makers]
        self._takers = Takers(self._floor, taker_ids(seed), rng)
        self._now_s = 0.0
        self._is_to_fill = True
        self._banded = 0
        self.trouble: str | None = None
        """Code of a refusal that concerns all orders of the instrument; `resume` forgets it."""

    @property
    def open_orders(self) -> int:
        """As far as is known."""
        return len(self._floor.working)

    def begin_at(self, price_ticks: int) -> None:
        """The price is there now."""
        self._floor.fair.anchor(price_ticks)

    def advance(self, seconds: float) -> list[Intent]:
        """What they send in the next `seconds` of their time."""
        self._now_s += seconds
        intents: list[Intent] = []
        if self._is_to_fill:
            intents += (intent for maker in self._makers for intent in maker.fill())
            self._is_to_fill = False
        for _ in self._arrivals.until(self._now_s):
            self._floor.fair.step()
            is_maker = self._rng.random() < MAKERS_SHARE
            intents += (self._rng.choice(self._makers) if is_maker else self._takers).act()
        return intents

    def resume(self) -> list[Intent]:
        """After an interruption: take back whatever may be open, and quote anew. Only one order
        comes along; the others follow when that one was taken.
        """
        self.trouble, self._banded, self._is_to_fill = None, 0, True
        orders = list(self._floor.working.values())
        for order in orders:
            order.is_over = True
        return [*(cancelling(self.market, order) for order in orders), *self._makers[0].act()]

    def answered(self, intent: Intent, status: int, body: Item) -> None:
        """What the server said to `intent`."""
        if status in TAKEN:
            self._banded = 0
            self._taken(intent, body)
            return
        code = str(body.get("code"))
        self._banded = self._banded + 1 if code == "price_band" else 0
        if status >= SERVER_ERROR or code in NOT_TRADED or self._banded > BAND_PATIENCE:
            self.trouble = code
        # After a 5xx nobody knows in each case: it stays to be cancelled.
        if status in GONE or (status < SERVER_ERROR and intent.item["op"] == "place"):
            self._floor.over(intent.order)

    def _taken(self, intent: Intent, body: Item) -> None:
        order, told = intent.order, body["order"]
        self._floor.known_as(order, told["order_id"])
        if intent.price_ticks is not None:
            order.price_ticks = intent.price_ticks
        for trade in body.get("trades", ()):
            self._floor.traded(trade)
        if told["status"] not in OPEN:
            self._floor.over(order)
