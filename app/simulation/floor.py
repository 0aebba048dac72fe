"""What the traders of one instrument share: its market, its fair price, their orders and what they
hold.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Final

from app.domain.instruments import parse_decimal
from app.simulation.characters import character_of, first_price_ticks
from app.simulation.fair_price import FairPrice
from app.simulation.orders import WorkingOrder

if TYPE_CHECKING:
    from random import Random

    from app.domain.instruments import Market
    from app.simulation.orders import Item

SIGNIFICANT_DIGITS: Final = 3
"""Of quantities: nobody types 0.31415926."""


class Floor:
    """Of one instrument."""

    def __init__(self, market: Market, rate_per_s: float, rng: Random) -> None:
        self.market = market
        self.character = character_of(market.symbol)
        step_bps = self.character.volatility_bps / math.sqrt(rate_per_s)
        self.fair = FairPrice(first_price_ticks(market), step_bps, rng)
        self.working: dict[str, WorkingOrder] = {}
        """Orders by name that are open, or may be."""
        self._by_id: dict[str, WorkingOrder] = {}
        """The same by the server's id, where that is known."""
        self._held_lots: dict[str, int] = {}
        self._names = 0
        self._lot = float(market.quantity.step)
        self._tick = float(market.price.step)

    def lots(self, notional: float) -> int:
        """A quantity worth about `notional`, in few digits."""
        wanted = notional / (self.fair.ticks * self._tick * self._lot)
        if wanted < 1:
            return 1
        unit: int = 10 ** max(0, int(math.log10(wanted)) - SIGNIFICANT_DIGITS + 1)
        return min(round(wanted / unit) * unit, self.market.quantity.limit)

    def held_notional(self, client_id: str) -> float:
        """What a client has bought and not sold, at what it is worth now."""
        return self._held_lots.get(client_id, 0) * self._lot * self.fair.ticks * self._tick

    # Orders

    def order(
        self, client_id: str, side: str, lots: int, price_ticks: int | None = None
    ) -> WorkingOrder:
        """A new order, about to be sent."""
        self._names += 1
        order = WorkingOrder(client_id, str(self._names), side, lots, price_ticks)
        self.working[order.name] = order
        return order

    def known_as(self, order: WorkingOrder, order_id: str) -> None:
        """The server calls it so."""
        order.order_id = order_id
        self._by_id[order_id] = order

    def over(self, order: WorkingOrder) -> None:
        """It is open no more."""
        order.is_over = True
        self.working.pop(order.name, None)
        self._by_id.pop(order.order_id, None)

    def traded(self, trade: Item) -> None:
        """A Trade as the API tells it; both its orders may be theirs."""
        lots = self.market.quantity.to_units(parse_decimal(trade["quantity"]), "lot")
        for order_id in (trade["taker_order_id"], trade["maker_order_id"]):
            order = self._by_id.get(order_id)
            if order is None:
                continue
            signed = lots if order.side == "buy" else -lots
            self._held_lots[order.client_id] = self._held_lots.get(order.client_id, 0) + signed
            order.lots -= lots
            order.is_untouched = False
            if order.lots <= 0:
                self.over(order)
