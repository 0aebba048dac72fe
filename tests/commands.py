"""Commands of the tests' own model of a book: what the generators make, the reference matcher
executes and an adapter hands to the real engine. Integers only; knows nothing of the product.
"""

from dataclasses import dataclass, replace
from typing import Literal, TypeAlias

Side: TypeAlias = Literal["buy", "sell"]
OrderType: TypeAlias = Literal["limit", "market"]
TimeInForce: TypeAlias = Literal["gtc", "ioc", "fok"]

SIDES: tuple[Side, Side] = ("buy", "sell")


@dataclass(frozen=True, slots=True)
class Place:
    """A new order. Shapes are valid by assumption: market means no price and ioc or fok,
    post_only means limit gtc.
    """

    client: str
    side: Side
    type: OrderType
    time_in_force: TimeInForce
    quantity_lots: int
    price_ticks: int | None = None
    post_only: bool = False
    client_order_id: str | None = None
    idempotency_key: str | None = None

    def payload(self) -> "Place":
        """What must be equal for the same idempotency key to mean the same request."""
        return replace(self, idempotency_key=None)


@dataclass(frozen=True, slots=True)
class Cancel:
    """Takes the order with this number (the sequence of its place command) off the book."""

    number: int


Command: TypeAlias = Place | Cancel


def opposite(side: Side) -> Side:
    """The side that an order of this side trades with."""
    return "sell" if side == "buy" else "buy"


def limit(client: str, side: Side, price_ticks: int, quantity_lots: int) -> Place:
    """A plain resting limit order; vary it with dataclasses.replace."""
    return Place(client, side, "limit", "gtc", quantity_lots, price_ticks)


def market(client: str, side: Side, quantity_lots: int) -> Place:
    """A plain market order."""
    return Place(client, side, "market", "ioc", quantity_lots)
