"""The text of a book and its digest as db/README.md ("Snapshots") lays them down, by the
reference's own means: what the product makes of events, of Redis or of Postgres must be the same.
"""

import hashlib
from collections.abc import Iterator

from tests.commands import Place
from tests.reference.orders import Order
from tests.reference.state import BookState

DIGITS = 14
FEES = "maker_fee_bps=0 taker_fee_bps=0"  # the reference knows none


def book_digest(book: BookState, instrument: str) -> str:
    """SHA-256 (hex) of the lines, joined by newlines."""
    return hashlib.sha256("\n".join(book_lines(book, instrument)).encode()).hexdigest()


def book_lines(book: BookState, instrument: str) -> Iterator[str]:
    """Every line of the text."""
    yield "crossbook-book 1"
    yield f"instrument {instrument}"
    yield f"sequence {book.sequence}"
    yield f"time {_time_of(book, book.sequence)}"
    if book.last_price_ticks is not None:
        yield f"last {book.last_price_ticks}"
    yield f"rules {_rules(book)}"
    for client in sorted(book.killed):
        yield f"killed {client}"
    for client in sorted(book.timers):
        yield f"timer {book.timers[client]} {client}"
    for kind, side in (("bid", "buy"), ("ask", "sell")):
        for order in book.resting(side):  # type: ignore[arg-type]
            yield f"{kind} {_line(book, order)}"
    for order in book.pending("buy"):
        waits = book.reached() is not None and order.trigger_ticks <= book.reached()[1]  # type: ignore[index]
        yield f"{'waiting_' if waits else ''}buy_stop {_line(book, order)}"
    for order in book.pending("sell"):
        waits = book.reached() is not None and order.trigger_ticks >= book.reached()[0]  # type: ignore[index]
        yield f"{'waiting_' if waits else ''}sell_stop {_line(book, order)}"


def _rules(book: BookState) -> str:
    rules = book.rules
    named = {
        "price_band_bps": rules.price_band_bps,
        "max_order_lots": rules.max_order_lots,
        "max_order_notional": rules.max_order_notional,
        "max_open_orders": rules.max_open_orders,
    }
    limits = [f"{name}={value}" for name, value in named.items() if value is not None]
    return " ".join([f"status={rules.status}", *limits, FEES])


def _time_of(book: BookState, sequence: int) -> int:
    return book.past[sequence - 1][0] if sequence else 0


def _line(book: BookState, order: Order) -> str:
    """`number|record`, the record's fields as lua/README.md numbers them."""
    changed = order.sequence != order.number
    fields = (
        order.status,
        order.reason,
        order.quantity_lots,
        order.filled_lots,
        order.notional,
        order.price_ticks,
        order.shown_lots,
        _place(order),
        order.sequence if changed else None,
        _time_of(book, order.sequence) if changed else None,
        _time_of(book, order.number),
        order.client,
        order.client_order_id,
        None if order.expires_us is None else f"{order.expires_us:016}",
        order.display_lots,
        None if order.self_trade_prevention == "none" else order.self_trade_prevention,
        order.side,
        order.type,
        order.time_in_force,
        1 if order.post_only else None,
        order.stop_price_ticks,
        _idempotency_key(book, order),
    )
    record = "|".join("" if field is None else str(field) for field in fields)
    return f"{order.number:0{DIGITS}}|{record}"


def _place(order: Order) -> str:
    sequence, refill = order.place
    if (sequence, refill) == (order.number, 0):
        return ""
    return f"{sequence:0{DIGITS}}" + (f".{refill:04}" if refill else "")


def _idempotency_key(book: BookState, order: Order) -> str | None:
    command = book.past[order.number - 1][1]
    return command.idempotency_key if isinstance(command, Place) else None
