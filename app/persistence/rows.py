"""From stream entries to rows: what one transaction of the persister writes. Pure; must not know
Redis or Postgres. Everything that may be wrong with an entry shows here, before a row is kept.
"""

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from decimal import Decimal, localcontext
from typing import Final, NamedTuple

from app.domain.events import EVENT_FIELDS, Fill, parse_fills, parse_order_line, trade_id
from app.domain.instruments import Instrument, Market, Scale
from app.domain.orders import OrderRecord, Side, Status, order_id
from app.domain.views import timestamp

OVER: Final = frozenset({Status.FILLED, Status.CANCELLED})
"""States after which an order never changes. Named one by one: a state that this code does not
know must keep its order in Redis."""
ROWS_PER_TRANSACTION: Final = 20_000
"""Bounds memory and the time of one transaction: one command may change a thousand orders."""
PRODUCT_DIGITS: Final = 200
"""More than tick size times lot size can have."""
UNREADABLE: Final = (ValueError, KeyError, OverflowError, OSError)
"""What reading a malformed entry raises; the last two by `datetime`, for times out of range."""

Row = tuple[str | int | bool | None, ...]
Delivery = dict[str, list["Entry"]]

_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND: Final = timedelta(microseconds=1)


class Entry(NamedTuple):
    """One entry of an events stream. `fields` is empty where its id is not `<sequence>-0`."""

    sequence: int
    fields: dict[str, str]


class Texts:
    """An instrument's numbers as decimal text, exactly."""

    __slots__ = ("notional", "price", "quantity", "symbol")

    def __init__(self, instrument: Instrument) -> None:
        market = Market(instrument)
        self.symbol = instrument.symbol
        self.price = market.price.format
        self.quantity = market.quantity.format
        self.notional = notional_scale(instrument).format


def notional_scale(instrument: Instrument) -> Scale:
    """Steps of one tick times one lot."""
    with localcontext() as context:
        context.prec = PRODUCT_DIGITS
        return Scale(instrument.tick_size * instrument.lot_size, 0)


def microseconds(moment: datetime) -> int:
    """Microseconds since 1970 of a time that Postgres returned, exactly."""
    return (moment - _EPOCH) // _MICROSECOND


def to_units(value: Decimal, step: Decimal) -> int:
    """How many steps `value` is, exactly. Unlike a Scale, which reads what clients send, it takes
    zero and knows no limit: the limit may have been lowered since the value was stored.

    Raises:
        ValueError: not a whole number of steps: the instrument's sizes have been tampered with.
    """
    numerator, denominator = value.as_integer_ratio()
    step_numerator, step_denominator = step.as_integer_ratio()
    units, rest = divmod(numerator * step_denominator, denominator * step_numerator)
    if rest:
        raise ValueError(f"{value} is not a multiple of {step}")
    return units


class Batch:
    """The rows of one transaction, and what Redis may drop once they are committed."""

    def __init__(self) -> None:
        self.events: list[Row] = []
        self.trades: list[Row] = []
        self.orders: dict[str, Row] = {}
        """Order id -> its last state within the batch."""
        self.starts: dict[str, int] = {}
        """Symbol -> the position that the batch continues from."""
        self.ends: dict[str, int] = {}
        """Symbol -> the position after it."""
        self.over: dict[str, list[int]] = {}
        """Symbol -> numbers of the orders that ended."""

    def add(self, texts: Texts, entry: Entry) -> None:
        """Add one event; the batch is unchanged where it cannot be read.

        Raises:
            one of `UNREADABLE`: the entry is not one of ours.
        """
        symbol, sequence = texts.symbol, entry.sequence
        kind, time_us, lines, fills, levels = (entry.fields[name] for name in EVENT_FIELDS)
        orders = [parse_order_line(line) for line in lines.split("\n")]
        moment = timestamp(int(time_us))
        order_rows = [order_row(texts, order) for order in orders]
        self.trades += trade_rows(texts, sequence, moment, orders[0], parse_fills(fills))
        self.events.append((symbol, sequence, kind, moment, lines, fills, levels))
        for order, row in zip(orders, order_rows, strict=True):
            self.orders[order_id(symbol, order.number)] = row
        self.starts.setdefault(symbol, sequence - 1)
        self.ends[symbol] = sequence
        self.over.setdefault(symbol, []).extend(numbers_over(orders))

    @property
    def sequences(self) -> dict[str, range]:
        """Symbol -> the sequences of its events in the batch."""
        return {s: range(self.starts[s] + 1, end + 1) for s, end in self.ends.items()}


def numbers_over(orders: list[OrderRecord]) -> list[int]:
    """Numbers of those orders that never change again."""
    return [order.number for order in orders if order.status in OVER]


def order_row(texts: Texts, order: OrderRecord) -> Row:
    """The row of `orders`, in the order of event_store.ORDER_COLUMNS."""
    price, quantity = order.price_ticks, texts.quantity
    return (
        order_id(texts.symbol, order.number),
        texts.symbol,
        order.client_id,
        order.side,
        order.type,
        order.time_in_force,
        order.post_only,
        order.client_order_id or None,
        order.idempotency_key or None,
        None if price is None else texts.price(price),
        quantity(order.quantity_lots),
        quantity(order.filled_lots),
        quantity(order.remaining_lots),
        texts.notional(order.notional),
        order.status,
        order.reason or None,
        order.sequence,
        timestamp(order.created_us),
        timestamp(order.updated_us),
    )


def trade_rows(
    texts: Texts, sequence: int, moment: str, taker: OrderRecord, fills: tuple[Fill, ...]
) -> list[Row]:
    """The rows of `trades` of one event, in the order of event_store.TRADE_COLUMNS."""
    symbol, taker_id = texts.symbol, order_id(texts.symbol, taker.number)
    rows: list[Row] = []
    for index, fill in enumerate(fills, 1):
        maker_id = order_id(symbol, fill.maker_number)
        taker_buys = taker.side == Side.BUY
        rows.append(
            (
                trade_id(symbol, sequence, index),
                symbol,
                sequence,
                index,
                texts.price(fill.price_ticks),
                texts.quantity(fill.quantity_lots),
                taker.side,
                taker_id if taker_buys else maker_id,
                maker_id if taker_buys else taker_id,
                maker_id,
                taker_id,
                moment,
            )
        )
    return rows


def transactions(delivery: Delivery, rows_max: int = ROWS_PER_TRANSACTION) -> Iterator[Delivery]:
    """Cut a delivery into pieces of about `rows_max` rows, each instrument's entries in order."""
    piece: Delivery = {}
    rows = 0
    for symbol, entries in delivery.items():
        for entry in entries:
            piece.setdefault(symbol, []).append(entry)
            rows += 2 + entry.fields.get("orders", "").count("\n")
            if rows >= rows_max:
                yield piece
                piece, rows = {}, 0
    if piece:
        yield piece


def halves(delivery: Delivery) -> list[Delivery]:
    """Cut a refused delivery in two, to find what is refused; empty if it is a single entry."""
    if len(delivery) > 1:
        symbols = list(delivery)
        middle = len(symbols) // 2
        parts = symbols[:middle], symbols[middle:]
        return [{symbol: delivery[symbol] for symbol in part} for part in parts]
    symbol, entries = next(iter(delivery.items()))
    middle = len(entries) // 2
    return [{symbol: entries[:middle]}, {symbol: entries[middle:]}] if middle else []
