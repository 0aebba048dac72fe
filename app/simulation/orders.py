"""A simulated trader's orders as it knows them, and the batch items that place, amend and cancel
them. Orders are named by their client, so that an order whose answer never came can be cancelled.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    from app.domain.instruments import Market

Item = dict[str, Any]
"""Of a batch, see POST /orders/batch."""


@dataclass(slots=True, eq=False)
class WorkingOrder:
    """An order that was sent. `price_ticks` is that of a limit order, `lots` what is left of it."""

    client_id: str
    name: str
    side: str
    lots: int
    price_ticks: int | None = None
    order_id: str = ""
    """The server's; empty until it is known."""
    is_over: bool = False
    """As far as is known: somebody else may have traded with it."""
    is_untouched: bool = True
    """Nothing of it has traded."""

    @property
    def was_refused(self) -> bool:
        """It is over, and never was an order to the server."""
        return self.is_over and not self.order_id


class Intent(NamedTuple):
    """One item of a batch, and the order that it is about."""

    item: Item
    order: WorkingOrder
    price_ticks: int | None = None
    """What an amendment asks for."""

    @property
    def is_order(self) -> bool:
        """Whether it places or changes one."""
        return bool(self.item["op"] != "cancel")


def placing(market: Market, order: WorkingOrder, kind: str, **fields: object) -> Intent:
    """Place `order`, of type `kind`; further fields as the API has them."""
    item: Item = {
        "op": "place",
        "instrument": market.symbol,
        "client_id": order.client_id,
        "client_order_id": order.name,
        "side": order.side,
        "type": kind,
        "quantity": market.quantity.format(order.lots),
    }
    if order.price_ticks is not None:
        item["price"] = market.price.format(order.price_ticks)
    return Intent(item | fields, order)


def cancelling(market: Market, order: WorkingOrder) -> Intent:
    """Cancel `order`."""
    return Intent({"op": "cancel"} | _named(market, order), order)


def repricing(market: Market, order: WorkingOrder, price_ticks: int) -> Intent:
    """Amend the price of `order`."""
    item = {"op": "amend", "price": market.price.format(price_ticks)}
    return Intent(item | _named(market, order), order, price_ticks)


def _named(market: Market, order: WorkingOrder) -> Item:
    return {
        "client_id": order.client_id,
        "instrument": market.symbol,
        "client_order_id": order.name,
    }
