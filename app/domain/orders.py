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
    "side",
    "type",
    "time_in_force",
    "post_only",
    "stop_price_ticks",
    "display_lots",
    "expires_us",
    "self_trade_prevention",
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


class TimeInForce(StrEnum):
    """How long the unfilled part of an order lives."""

    GTC = "gtc"
    IOC = "ioc"
    FOK = "fok"


class Status(StrEnum):
    """The states of an order. Open and partially filled rest in the book; the others are final."""

    OPEN = "open"
    PARTIALLY_FILLED = "partially_filled"
    FILLED = "filled"
    CANCELLED = "cancelled"


RESTING = frozenset({Status.OPEN, Status.PARTIALLY_FILLED})


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
    sequence: int
    updated_us: int
    created_us: int
    client_id: str
    client_order_id: str
    side: str
    type: str
    time_in_force: str
    post_only: bool
    idempotency_key: str

    @property
    def remaining_lots(self) -> int:
        """What is not filled; of a cancelled order, what never will be."""
        return self.quantity_lots - self.filled_lots

    @property
    def is_open(self) -> bool:
        """Whether the order rests in the book."""
        return self.status in RESTING


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
        _displayed,
        _priority,
        sequence,
        updated,
        created,
        client_id,
        client_order_id,
        side,
        type_,
        time_in_force,
        post_only,
        _stop,
        _display,
        _expires,
        _prevention,
        idempotency_key,
    ) = text.split("|")
    return OrderRecord(
        number=number,
        status=status,
        reason=reason,
        quantity_lots=int(quantity),
        filled_lots=int(filled),
        notional=int(notional),
        price_ticks=int(price) if price else None,
        sequence=int(sequence) if sequence else number,
        updated_us=int(updated or created),
        created_us=int(created),
        client_id=client_id,
        client_order_id=client_order_id,
        side=side,
        type=type_,
        time_in_force=time_in_force,
        post_only=post_only == "1",
        idempotency_key=idempotency_key,
    )
