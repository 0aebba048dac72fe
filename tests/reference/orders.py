"""What the reference tells: orders, trades, levels, events and answers. All of it immutable, so
that what was told stays true.
"""

from dataclasses import dataclass
from typing import Literal, TypeAlias

from tests.commands import OrderType, SelfTradePrevention, Side, TimeInForce

Status: TypeAlias = Literal["pending", "open", "partially_filled", "filled", "cancelled", "expired"]
EventType: TypeAlias = Literal[
    "place",
    "amend",
    "cancel",
    "mass_cancel",
    "expire",
    "trigger",
    "cancel_after",
    "rules",
    "kill_switch",
]


@dataclass(frozen=True, slots=True)
class Order:
    """State of an order; a change makes a new one."""

    number: int
    client: str
    side: Side
    type: OrderType
    time_in_force: TimeInForce
    post_only: bool
    price_ticks: int | None
    quantity_lots: int
    client_order_id: str | None
    filled_lots: int
    notional: int  # exact sum of price_ticks * quantity_lots over the fills
    status: Status
    reason: str | None
    sequence: int  # of the last command that changed it
    stop_price_ticks: int | None = None
    display_lots: int | None = None
    shown_lots: int | None = None  # of an iceberg; 0 while it does not rest
    expires_us: int | None = None
    self_trade_prevention: SelfTradePrevention = "none"
    # Orders the queue (PLC), and stops of one stop price: the sequence of the command that put the
    # order there, and which of that command's refills it was (0: none). Means nothing once the
    # order is over.
    place: tuple[int, int] = (0, 0)

    @property
    def remaining_lots(self) -> int:
        """What has not traded, also of a cancelled order."""
        return self.quantity_lots - self.filled_lots

    @property
    def rests(self) -> bool:
        """Whether it is on the book."""
        return self.status in ("open", "partially_filled")

    @property
    def is_open(self) -> bool:
        """Whether it rests or is a pending stop."""
        return self.status in ("open", "partially_filled", "pending")

    @property
    def visible_lots(self) -> int:
        """What it adds to its level while it rests."""
        return self.remaining_lots if self.shown_lots is None else self.shown_lots

    @property
    def limit_ticks(self) -> int:
        """The price of an order that must have one."""
        assert self.price_ticks is not None
        return self.price_ticks

    @property
    def trigger_ticks(self) -> int:
        """The stop price of an order that must have one."""
        assert self.stop_price_ticks is not None
        return self.stop_price_ticks

    def is_past_expiry(self, now_us: int) -> bool:
        """EXP-1, whether or not its status says so yet."""
        return self.expires_us is not None and self.expires_us <= now_us


@dataclass(frozen=True, slots=True)
class Trade:
    """One fill of the taker `taker` against the resting order `maker`, at the maker's price."""

    maker: int
    taker: int
    price_ticks: int
    quantity_lots: int
    side: Side  # the taker's
    sequence: int
    index: int  # 1..n within its command


@dataclass(frozen=True, slots=True, order=True)
class LevelChange:
    """New total of a price level, as far as it is shown; 0 when the level is gone. Sorts by side
    (buy first), then price.
    """

    side: Side
    price_ticks: int
    total_lots: int


@dataclass(frozen=True, slots=True)
class Event:
    """All that an accepted command did, or one thing that it set off. `orders`: the command's own
    first, then the makers that changed, each once, in the order in which they were met; of an
    event that cancels or expires, the orders in the order of doing so. `levels`: every level that
    an order joined, left or changed its shown quantity on; sorted by side, then ascending price.
    """

    sequence: int
    type: EventType
    orders: tuple[Order, ...]
    trades: tuple[Trade, ...]
    levels: tuple[LevelChange, ...]
    detail: str = ""


@dataclass(frozen=True, slots=True)
class Placed:
    """Answer to an accepted place: the order right after its own matching, and its trades."""

    order: Order
    trades: tuple[Trade, ...]
    replayed: bool = False


@dataclass(frozen=True, slots=True)
class Amended:
    """Answer to an accepted amend: the order right after its own matching, and its trades."""

    order: Order
    trades: tuple[Trade, ...]


@dataclass(frozen=True, slots=True)
class Cancelled:
    """Answer to an accepted cancel."""

    order: Order


@dataclass(frozen=True, slots=True)
class MassCancelled:
    """Answer to a mass cancel: what it cancelled, oldest number first; none, and no event."""

    orders: tuple[Order, ...]


@dataclass(frozen=True, slots=True)
class Swept:
    """Answer to a sweep: whether something that is due remains to be done."""

    more: bool


@dataclass(frozen=True, slots=True)
class Done:
    """Answer to a command that is never refused: a timer, rules, a kill switch."""

    sequence: int


@dataclass(frozen=True, slots=True)
class Ticked:
    """The time after a tick."""

    now_us: int


@dataclass(frozen=True, slots=True)
class Refused:
    """The command changed nothing and took no sequence."""

    code: str


Answer: TypeAlias = Placed | Amended | Cancelled | MassCancelled | Swept | Done | Ticked | Refused
