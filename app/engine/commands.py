"""What can be asked of a book, and what it answers: the types on both sides of the engine's door.
Ticks, lots and microseconds since 1970; must not know scripts or Redis.
"""

from typing import NamedTuple, TypeAlias

import msgspec

from app.domain.events import Fill
from app.domain.orders import OrderRecord
from app.domain.refusals import Reason, Refusal


class NewOrder(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """An order as the book takes it: checked, in ticks and lots. Empty text: not given."""

    side: str
    type: str
    time_in_force: str
    price_ticks: int | None
    quantity_lots: int
    post_only: bool = False
    client_id: str
    client_order_id: str = ""
    idempotency_key: str = ""
    fingerprint: str = ""
    """Of the payload; two uses of an idempotency key are the same if theirs are equal."""
    stop_price_ticks: int | None = None
    display_lots: int | None = None
    expires_us: int | None = None
    self_trade_prevention: str = "none"


class OrderNumber(NamedTuple):
    """An order by its number."""

    number: int


class ClientOrderId(NamedTuple):
    """An open order by what its client calls it."""

    client_id: str
    client_order_id: str


Target: TypeAlias = OrderNumber | ClientOrderId
"""How a command names the order that it is about."""


class Cancel(msgspec.Struct, frozen=True):
    """Take one open order out of the book."""

    target: Target
    reason: Reason = Reason.CANCELLED_BY_CLIENT


class Amendment(msgspec.Struct, frozen=True, kw_only=True):
    """Change one open order; None: stays as it is. `quantity_lots` is its new total."""

    target: Target
    price_ticks: int | None = None
    quantity_lots: int | None = None
    stop_price_ticks: int | None = None


class Refused(Exception):
    """The book refused the command and is unchanged."""

    def __init__(self, refusal: Refusal) -> None:
        super().__init__(refusal.value)
        self.refusal = refusal


class Executed(msgspec.Struct, frozen=True):
    """An accepted command about one order: the order in the state right after it, and its fills."""

    sequence: int
    time_us: int
    order: OrderRecord
    fills: tuple[Fill, ...] = ()


class Placed(Executed, frozen=True):
    """An accepted order."""


class Amended(Executed, frozen=True):
    """An amended order."""


class Cancelled(Executed, frozen=True):
    """A cancelled order in its final state."""


class Replayed(msgspec.Struct, frozen=True):
    """The idempotency key was used before for this payload: the answer is that event's."""

    sequence: int


class MassCancelled(msgspec.Struct, frozen=True):
    """One step of a mass cancel: what it cancelled, oldest first, and where the next goes on."""

    orders: tuple[OrderRecord, ...]
    continue_after: int | None
    """Order number; None: nothing is left."""


class Timer(msgspec.Struct, frozen=True):
    """A cancel-after timer as it is now. `due_us` None: disarmed."""

    sequence: int
    time_us: int
    due_us: int | None


class RulesChanged(msgspec.Struct, frozen=True):
    """The instrument's rules are changed as of this sequence."""

    sequence: int


class Level(msgspec.Struct, frozen=True):
    """One price of one side: lots that are shown there, in how many orders."""

    price_ticks: int
    quantity_lots: int
    orders: int


class Depth(msgspec.Struct, frozen=True):
    """Both sides at one sequence, best level first."""

    sequence: int
    bids: tuple[Level, ...]
    asks: tuple[Level, ...]


OrderCommand: TypeAlias = NewOrder | Amendment | Cancel
Outcome: TypeAlias = Placed | Replayed | Amended | Cancelled
