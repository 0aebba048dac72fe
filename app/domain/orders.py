"""Orders as the book keeps them: the text record in Redis and its typed form.

The record is what redis-cli shows: fields joined by `|`, integers in ticks, lots and microseconds,
an empty field where there is nothing to say. `lua/lib/record.lua` writes it, this module reads it.
"""

from enum import StrEnum

import msgspec

NUMBER_DIGITS = 14
"""Width of an order number: the sequence of the command that placed it, with leading zeros."""

RECORD_FIELDS = (
    "status",
    "reason",
    "quantity_lots",
    "filled_lots",
    "notional",
    "price_ticks",
    "displayed_lots",
    "priority",
    "sequence",
    "updated_us",
    "created_us",
    "client_id",
    "client_order_id",
    "expires_us",
    "display_lots",
    "self_trade_prevention",
    "side",
    "type",
    "time_in_force",
    "post_only",
    "stop_price_ticks",
    "idempotency_key",
)
"""The record's fields in their order; the first ten change during an order's life."""


class Side(StrEnum):
    """Which way an order trades."""

    BUY = "buy"
    SELL = "sell"


class OrderType(StrEnum):
    """Kinds of order that the book takes."""

    LIMIT = "limit"
    MARKET = "market"
    STOP = "stop"
    STOP_LIMIT = "stop_limit"


STOPS = frozenset({OrderType.STOP, OrderType.STOP_LIMIT})


class TimeInForce(StrEnum):
    """How long the unfilled part of an order lives."""

    GTC = "gtc"
    IOC = "ioc"
    FOK = "fok"
    GTD = "gtd"


class SelfTradePrevention(StrEnum):
    """What happens when a taker meets a maker of the same client; the taker's mode decides."""

    NONE = "none"
    CANCEL_NEWEST = "cancel_newest"
    CANCEL_OLDEST = "cancel_oldest"
    CANCEL_BOTH = "cancel_both"
    DECREMENT = "decrement"


class Status(StrEnum):
    """The states of an order. Open and partially filled rest in the book, pending stops wait
    outside it; the others are final.
    """

    OPEN = "open"
    PARTIALLY_FILLED = "partially_filled"
    FILLED = "filled"
    CANCELLED = "cancelled"
    EXPIRED = "expired"
    PENDING = "pending"


OPEN = frozenset({Status.OPEN, Status.PARTIALLY_FILLED, Status.PENDING})
"""States of an order that can be cancelled."""
OVER = frozenset({Status.FILLED, Status.CANCELLED, Status.EXPIRED})
"""States after which an order never changes."""


class OrderRecord(msgspec.Struct, frozen=True, kw_only=True):
    """One order's whole state at one sequence. Ticks, lots and microseconds since 1970 (UTC)."""

    number: int
    status: str
    reason: str
    quantity_lots: int
    filled_lots: int
    notional: int
    """Sum of ticks x lots over all fills, exact."""
    price_ticks: int | None
    displayed_lots: int | None
    """What an iceberg shows; None of other orders."""
    priority: str
    """Its place in the queue, where that is not its number."""
    sequence: int
    updated_us: int
    created_us: int
    client_id: str
    client_order_id: str
    expires_us: int | None
    display_lots: int | None
    self_trade_prevention: str
    side: str
    type: str
    time_in_force: str
    post_only: bool
    stop_price_ticks: int | None
    idempotency_key: str

    @property
    def remaining_lots(self) -> int:
        """What is not filled; of a cancelled order, what never will be."""
        return self.quantity_lots - self.filled_lots

    @property
    def is_open(self) -> bool:
        """Whether the order rests in the book, or waits to be triggered."""
        return self.status in OPEN


def order_id(symbol: str, number: int) -> str:
    """The public id of an order: `BTC-USD-00000000000042`."""
    return f"{symbol}-{number:014d}"


def split_order_id(text: str) -> tuple[str, int] | None:
    """Symbol and number of an order id, or None where `text` cannot be one."""
    symbol, _, digits = text.rpartition("-")
    if len(digits) != NUMBER_DIGITS or not (digits.isascii() and digits.isdigit()) or not symbol:
        return None
    return symbol, int(digits)


def parse_record(number: int, text: str) -> OrderRecord:
    """Read one order's record.

    Raises:
        ValueError: the text has not the fields of `RECORD_FIELDS`.
    """
    (
        status,
        reason,
        quantity,
        filled,
        notional,
        price,
        displayed,
        priority,
        sequence,
        updated,
        created,
        client_id,
        client_order_id,
        expires,
        display,
        prevention,
        side,
        type_,
        time_in_force,
        post_only,
        stop_price,
        idempotency_key,
    ) = text.split("|")
    return OrderRecord(
        number=number,
        status=status,
        reason=reason,
        quantity_lots=int(quantity),
        filled_lots=int(filled),
        notional=int(notional),
        price_ticks=_optional(price),
        displayed_lots=_optional(displayed),
        priority=priority,
        sequence=int(sequence) if sequence else number,
        updated_us=int(updated or created),
        created_us=int(created),
        client_id=client_id,
        client_order_id=client_order_id,
        expires_us=_optional(expires),
        display_lots=_optional(display),
        self_trade_prevention=prevention or SelfTradePrevention.NONE,
        side=side,
        type=type_,
        time_in_force=time_in_force,
        post_only=post_only == "1",
        stop_price_ticks=_optional(stop_price),
        idempotency_key=idempotency_key,
    )


def _optional(text: str) -> int | None:
    return int(text) if text else None
