"""Commands of the tests' own model of a book: what the generators make, the reference matcher
executes and an adapter hands to the real engine. Integers only; knows nothing of the product.
"""

from dataclasses import dataclass, replace
from typing import Literal, TypeAlias, get_args

Side: TypeAlias = Literal["buy", "sell"]
OrderType: TypeAlias = Literal["limit", "market", "stop", "stop_limit"]
TimeInForce: TypeAlias = Literal["gtc", "gtd", "ioc", "fok"]
SelfTradePrevention: TypeAlias = Literal[
    "none", "cancel_newest", "cancel_oldest", "cancel_both", "decrement"
]
InstrumentStatus: TypeAlias = Literal["open", "cancel_only", "halted"]

SIDES: tuple[Side, Side] = ("buy", "sell")
SELF_TRADE_PREVENTIONS: tuple[SelfTradePrevention, ...] = get_args(SelfTradePrevention)


@dataclass(frozen=True, slots=True)
class Place:
    """A new order. Shapes are valid by assumption: market means no price and ioc or fok; stop and
    stop_limit have a stop price, stop no other; post_only means limit gtc or gtd; display_lots
    (1..quantity) means limit or stop_limit, gtc or gtd; gtd has expires_us, and nothing else has.
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
    stop_price_ticks: int | None = None
    display_lots: int | None = None
    expires_us: int | None = None
    self_trade_prevention: SelfTradePrevention = "none"

    def payload(self) -> "Place":
        """What must be equal for the same idempotency key to mean the same request."""
        return replace(self, idempotency_key=None)


@dataclass(frozen=True, slots=True)
class Cancel:
    """Takes the order with this number (the sequence of its place command) off the book."""

    number: int


@dataclass(frozen=True, slots=True)
class Amend:
    """Gives an order other terms; what is None stays. The quantity is the order's new total."""

    number: int
    price_ticks: int | None = None
    quantity_lots: int | None = None
    stop_price_ticks: int | None = None


@dataclass(frozen=True, slots=True)
class MassCancel:
    """Looks at a client's open orders of greater numbers than `after`, as many as one command may,
    and cancels those of one side, or of both.
    """

    client: str
    side: Side | None = None
    after: int = 0


@dataclass(frozen=True, slots=True)
class ArmTimer:
    """Cancels all the client's orders when so long has passed; 0 disarms."""

    client: str
    timeout_us: int


@dataclass(frozen=True, slots=True)
class Sweep:
    """Does some of what is due: waiting triggers, expiries, timers."""


@dataclass(frozen=True, slots=True)
class SetRules:
    """Status, band and limits of the instrument from now on, all of them; None is no limit."""

    status: InstrumentStatus = "open"
    price_band_bps: int | None = None
    max_order_lots: int | None = None
    max_order_notional: int | None = None  # ticks x lots
    max_open_orders: int | None = None


@dataclass(frozen=True, slots=True)
class KillSwitch:
    """Forbids a client new orders and amends, or allows them again."""

    client: str
    engaged: bool


@dataclass(frozen=True, slots=True)
class Tick:
    """The clock goes forward. Not a command of the book: it takes no sequence."""

    us: int


Command: TypeAlias = (
    Place | Cancel | Amend | MassCancel | ArmTimer | Sweep | SetRules | KillSwitch | Tick
)


def opposite(side: Side) -> Side:
    """The side that an order of this side trades with."""
    return "sell" if side == "buy" else "buy"


def limit(client: str, side: Side, price_ticks: int, quantity_lots: int) -> Place:
    """A plain resting limit order; vary it with dataclasses.replace."""
    return Place(client, side, "limit", "gtc", quantity_lots, price_ticks)


def market(client: str, side: Side, quantity_lots: int) -> Place:
    """A plain market order."""
    return Place(client, side, "market", "ioc", quantity_lots)


def iceberg(
    client: str, side: Side, price_ticks: int, quantity_lots: int, display_lots: int
) -> Place:
    """A limit order that shows no more than display_lots."""
    return replace(limit(client, side, price_ticks, quantity_lots), display_lots=display_lots)


def stop(client: str, side: Side, stop_price_ticks: int, quantity_lots: int) -> Place:
    """A stop order: a market order as soon as a trade reaches its stop price."""
    return Place(client, side, "stop", "gtc", quantity_lots, stop_price_ticks=stop_price_ticks)


def stop_limit(
    client: str, side: Side, stop_price_ticks: int, price_ticks: int, quantity_lots: int
) -> Place:
    """A stop-limit order: a limit order as soon as a trade reaches its stop price."""
    return replace(
        stop(client, side, stop_price_ticks, quantity_lots),
        type="stop_limit",
        price_ticks=price_ticks,
    )
