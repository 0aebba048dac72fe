"""From stream entries to rows: what one transaction of the persister writes. Pure; must not know
Redis or Postgres. Everything that may be wrong with an entry shows here, before a row is kept.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping
from datetime import UTC, datetime, timedelta
from decimal import (
    Context,
    Decimal,
    DivisionByZero,
    Inexact,
    InvalidOperation,
    Overflow,
)
from typing import Final, NamedTuple

import msgspec

from app.domain.candles import Candle, flat, minute_of
from app.domain.events import (
    EVENT_FIELDS,
    EventType,
    Fill,
    parse_fills,
    parse_orders,
    trade_id,
)
from app.domain.holdings import Holding
from app.domain.instruments import Instrument, Market
from app.domain.orders import OVER, OrderRecord, Side, order_id
from app.domain.rules import Rules, parse_rules_detail
from app.domain.views import timestamp

ROWS_PER_TRANSACTION: Final = 20_000
"""Bounds memory and the time of one transaction: one command may change a thousand orders."""
PRODUCT_DIGITS: Final = 200
"""More than tick size times lot size can have."""
FEE_BPS_MAX: Final = 10_000
"""The whole notional, as a fee or as a rebate."""
FEE_BPS_DECIMALS_MAX: Final = 18
"""With it every fee, and every sum of fees, stays within PRODUCT_DIGITS."""
UNREADABLE: Final = (ValueError, KeyError, ArithmeticError, OSError)
"""What reading a malformed entry raises; the last two also by `datetime`, for times out of range.
"""
WITHOUT_ORDERS: Final = frozenset({EventType.RULES, EventType.KILL_SWITCH, EventType.CANCEL_AFTER})
"""Kinds of events that may change no order."""

Row = tuple[str | int | bool | None, ...]
Delivery = dict[str, list["Entry"]]
PositionKey = tuple[str, str]
"""Client and symbol."""

EXACT: Final = Context(
    prec=PRODUCT_DIGITS, traps=[InvalidOperation, DivisionByZero, Overflow, Inexact]
)
"""Arithmetic that never rounds: it would raise Inexact instead, an ArithmeticError."""
BASIS_POINT: Final = Decimal("0.0001")

_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND: Final = timedelta(microseconds=1)


class Entry(NamedTuple):
    """One entry of an events stream. `fields` is empty where its id is not `<sequence>-0`."""

    sequence: int
    fields: dict[str, str]


class Texts:
    """An instrument's numbers as decimal text, exactly."""

    __slots__ = ("_notional_step", "cost", "instrument", "notional", "price", "quantity", "symbol")

    def __init__(self, instrument: Instrument) -> None:
        market = Market(instrument)
        self.instrument = instrument
        self.symbol = instrument.symbol
        self.price = market.price.format
        self.quantity = market.quantity.format
        self.notional = market.notional.format
        self.cost = market.notional.format_signed
        self._notional_step = notional_step(instrument)

    def fees(self, rules: Rules) -> "Fees":
        """What `rules` take of a trade.

        Raises:
            ValueError, InvalidOperation: a rate is out of range or has too many decimals.
        """
        return Fees(self._per_unit(rules.maker_fee_bps), self._per_unit(rules.taker_fee_bps))

    def _per_unit(self, rate_bps: Decimal) -> Decimal:
        exponent = rate_bps.as_tuple().exponent
        if not isinstance(exponent, int) or exponent < -FEE_BPS_DECIMALS_MAX:
            raise ValueError(f"a fee of {rate_bps} bp has too many decimals")
        if abs(rate_bps) > FEE_BPS_MAX:
            raise ValueError(f"a fee of {rate_bps} bp is more than all")
        return EXACT.multiply(self._notional_step, EXACT.multiply(rate_bps, BASIS_POINT))


class Fees(NamedTuple):
    """What one tick x lot of a trade costs, in the quote currency; negative: a rebate."""

    maker: Decimal
    taker: Decimal


class Dealings(msgspec.Struct):
    """What trades add to one client's position in one instrument: lots, and ticks x lots. A trade
    of a client with himself counts on both sides, and is not among the `changes`.
    """

    bought_lots: int = 0
    sold_lots: int = 0
    bought_notional: int = 0
    sold_notional: int = 0
    fees: Decimal = Decimal(0)
    trades: int = 0
    changes: list[tuple[int, int]] = []
    """Lots, negative for a sale, and price in ticks of each trade that changes what is held, in the
    order of execution: what the position costs depends on it.
    """


class Execution(NamedTuple):
    """One fill with what its rows say beyond it. `buyer` and `seller` are clients; the fees are
    the maker's and the taker's, in the quote currency.
    """

    fill: Fill
    side: str
    buyer: str
    seller: str
    maker_fee: Decimal
    taker_fee: Decimal


def notional_step(instrument: Instrument) -> Decimal:
    """One tick times one lot."""
    return EXACT.multiply(instrument.tick_size, instrument.lot_size)


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
        self.dealings: dict[PositionKey, Dealings] = {}
        """What the trades add to each position."""
        self.candles: dict[tuple[str, int], Candle] = {}
        """Symbol and the minute's first µs -> its trades in the batch."""
        self.rules: dict[str, Row] = {}
        """Symbol -> the instrument's rules after the batch, where the batch changes them."""
        self.fees: dict[str, Fees] = {}
        """Symbol -> the fees in force after the batch."""
        self.starts: dict[str, int] = {}
        """Symbol -> the position that the batch continues from."""
        self.ends: dict[str, int] = {}
        """Symbol -> the position after it."""
        self.over: dict[str, list[int]] = {}
        """Symbol -> numbers of the orders that ended."""
        self._texts: dict[str, Texts] = {}

    def add(self, texts: Texts, entry: Entry, fees: Fees) -> None:
        """Add one event; the batch is unchanged where it cannot be read. `fees` are those in force
        before the batch; what the batch itself says of rules comes after them.

        Raises:
            one of `UNREADABLE`: the entry is not one of ours.
        """
        symbol, sequence = texts.symbol, entry.sequence
        kind, time_us, lines, fills, levels = (entry.fields[name] for name in EVENT_FIELDS)
        detail = entry.fields.get("detail", "")
        orders = parse_orders(lines)
        if not orders and kind not in WITHOUT_ORDERS:
            raise ValueError(f"an event {kind!r} without an order")
        moment = timestamp(int(time_us))
        order_rows = [order_row(texts, order) for order in orders]
        in_force = self.fees.get(symbol, fees)
        executions = executions_of(orders, parse_fills(fills), in_force)
        trades = trade_rows(texts, sequence, moment, orders, executions)
        if kind == EventType.RULES:
            rules = parse_rules_detail(entry.fields["detail"])
            in_force, self.rules[symbol] = texts.fees(rules), rules_row(texts, rules)
        # Nothing raises from here on.
        self.trades += trades
        self.events.append((symbol, sequence, kind, moment, lines, fills, levels, detail))
        for order, row in zip(orders, order_rows, strict=True):
            self.orders[order_id(symbol, order.number)] = row
        if executions:
            self._deal(symbol, executions)
            self._chart(symbol, sequence, minute_of(int(time_us)), executions)
        self.fees[symbol], self._texts[symbol] = in_force, texts
        self.starts.setdefault(symbol, sequence - 1)
        self.ends[symbol] = sequence
        self.over.setdefault(symbol, []).extend(numbers_over(orders))

    def _deal(self, symbol: str, executions: list[Execution]) -> None:
        for fill, side, buyer, seller, maker_fee, taker_fee in executions:
            lots, notional = fill.quantity_lots, fill.price_ticks * fill.quantity_lots
            is_bought = side == Side.BUY
            buying = self.dealings.setdefault((buyer, symbol), Dealings())
            buying.trades += 1
            buying.bought_lots += lots
            buying.bought_notional += notional
            buying.fees = EXACT.add(buying.fees, taker_fee if is_bought else maker_fee)
            selling = self.dealings.setdefault((seller, symbol), Dealings())
            selling.trades += 1
            selling.sold_lots += lots
            selling.sold_notional += notional
            selling.fees = EXACT.add(selling.fees, maker_fee if is_bought else taker_fee)
            if buyer != seller:
                buying.changes.append((lots, fill.price_ticks))
                selling.changes.append((-lots, fill.price_ticks))

    def _chart(
        self, symbol: str, sequence: int, minute_us: int, executions: list[Execution]
    ) -> None:
        """A trade belongs to the minute of its own time, also where the clock has stepped back."""
        candle = self.candles.get((symbol, minute_us))
        if candle is None:
            candle = flat(minute_us, executions[0].fill.price_ticks)
            self.candles[symbol, minute_us] = candle
        for fill, side, *_ in executions:
            candle.add(sequence, fill.price_ticks, fill.quantity_lots, side)

    def position_rows(self, held: Mapping[PositionKey, Holding]) -> list[Row]:
        """What to add to each position, in the order of event_store.POSITION_COLUMNS; `held` are
        those that there are already.
        """
        rows = []
        for (client, symbol), dealings in self.dealings.items():
            holding = held.get((client, symbol), Holding())
            for lots, price_ticks in dealings.changes:
                holding = holding.after(lots, price_ticks)
            rows.append(position_row(self._texts[symbol], client, dealings, holding.cost))
        return rows

    @property
    def candle_rows(self) -> list[Row]:
        """What to add to each candle, in the order of event_store.CANDLE_COLUMNS."""
        return [candle_row(self._texts[symbol], c) for (symbol, _), c in self.candles.items()]

    def holding(self, symbol: str, quantity: Decimal, cost: Decimal) -> Holding:
        """A position of the batch as it is stored.

        Raises:
            ValueError: no whole number of steps: it has been tampered with.
        """
        instrument = self._texts[symbol].instrument
        lots = to_units(quantity, instrument.lot_size)
        return Holding(lots, to_units(cost, notional_step(instrument)))

    @property
    def sequences(self) -> dict[str, range]:
        """Symbol -> the sequences of its events in the batch."""
        return {s: range(self.starts[s] + 1, end + 1) for s, end in self.ends.items()}


def numbers_over(orders: Iterable[OrderRecord]) -> list[int]:
    """Numbers of those orders that never change again."""
    return [order.number for order in orders if order.status in OVER]


def order_row(texts: Texts, order: OrderRecord) -> Row:
    """The row of `orders`, in the order of event_store.ORDER_COLUMNS."""
    quantity = texts.quantity
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
        _text(texts.price, order.price_ticks),
        quantity(order.quantity_lots),
        quantity(order.filled_lots),
        quantity(order.remaining_lots),
        texts.notional(order.notional),
        order.status,
        order.reason or None,
        order.sequence,
        timestamp(order.created_us),
        timestamp(order.updated_us),
        _text(texts.price, order.stop_price_ticks),
        _text(quantity, order.display_lots),
        _text(quantity, order.displayed_lots),
        _text(timestamp, order.expires_us),
        order.self_trade_prevention,
        order.priority or None,
    )


def _text(write: Callable[[int], str], units: int | None) -> str | None:
    return None if units is None else write(units)


def rules_row(texts: Texts, rules: Rules) -> Row:
    """Symbol and rules, in the order of event_store.RULE_COLUMNS."""
    return (
        texts.symbol,
        str(rules.status),
        rules.price_band_bps,
        _text(texts.quantity, rules.max_order_lots),
        _text(texts.notional, rules.max_order_notional),
        rules.max_open_orders,
        f"{rules.maker_fee_bps:f}",
        f"{rules.taker_fee_bps:f}",
    )


def executions_of(
    orders: tuple[OrderRecord, ...], fills: tuple[Fill, ...], fees: Fees
) -> list[Execution]:
    """What an event's fills mean to its clients; the taker is the first of its orders.

    Raises:
        KeyError: a maker is not among the orders. ValueError: nobody is.
    """
    if not fills:
        return []
    if not orders:
        raise ValueError("fills without an order")
    clients = {order.number: order.client_id for order in orders}
    side, taker = orders[0].side, orders[0].client_id
    executions = []
    for fill in fills:
        maker = clients[fill.maker_number]
        buyer, seller = (taker, maker) if side == Side.BUY else (maker, taker)
        units = Decimal(fill.price_ticks * fill.quantity_lots)
        maker_fee, taker_fee = EXACT.multiply(units, fees.maker), EXACT.multiply(units, fees.taker)
        executions.append(Execution(fill, side, buyer, seller, maker_fee, taker_fee))
    return executions


def trade_rows(
    texts: Texts,
    sequence: int,
    moment: str,
    orders: tuple[OrderRecord, ...],
    executions: list[Execution],
) -> list[Row]:
    """The rows of `trades` of one event, in the order of event_store.TRADE_COLUMNS."""
    rows: list[Row] = []
    for index, execution in enumerate(executions, 1):
        fill, side, buyer, seller, maker_fee, taker_fee = execution
        maker_id = order_id(texts.symbol, fill.maker_number)
        taker_id = order_id(texts.symbol, orders[0].number)
        taker_buys = side == Side.BUY
        rows.append(
            (
                trade_id(texts.symbol, sequence, index),
                texts.symbol,
                sequence,
                index,
                texts.price(fill.price_ticks),
                texts.quantity(fill.quantity_lots),
                side,
                taker_id if taker_buys else maker_id,
                maker_id if taker_buys else taker_id,
                maker_id,
                taker_id,
                moment,
                buyer,
                seller,
                f"{maker_fee:f}",
                f"{taker_fee:f}",
            )
        )
    return rows


def position_row(texts: Texts, client: str, dealings: Dealings, cost: int) -> Row:
    """What to add to one position, in the order of event_store.POSITION_COLUMNS; the cost is that
    of the whole position then.
    """
    return (
        client,
        texts.symbol,
        f"{dealings.fees:f}",
        texts.quantity(dealings.bought_lots),
        texts.quantity(dealings.sold_lots),
        texts.notional(dealings.bought_notional),
        texts.notional(dealings.sold_notional),
        dealings.trades,
        texts.cost(cost),
    )


def candle_row(texts: Texts, candle: Candle) -> Row:
    """The row of `candles`, in the order of event_store.CANDLE_COLUMNS."""
    return (
        texts.symbol,
        timestamp(candle.start_us),
        texts.price(candle.open_ticks),
        texts.price(candle.high_ticks),
        texts.price(candle.low_ticks),
        texts.price(candle.close_ticks),
        texts.quantity(candle.volume_lots),
        texts.notional(candle.quote_volume),
        candle.trades,
        texts.quantity(candle.buy_lots),
        texts.quantity(candle.largest_lots),
        candle.first_sequence,
        candle.last_sequence,
    )


def transactions(delivery: Delivery, rows_max: int = ROWS_PER_TRANSACTION) -> Iterator[Delivery]:
    """Cut a delivery into pieces of about `rows_max` rows, each instrument's entries in order."""
    piece: Delivery = {}
    rows = 0
    for symbol, entries in delivery.items():
        for entry in entries:
            piece.setdefault(symbol, []).append(entry)
            # An event, its orders, and its trades: an iceberg has one for each part that it shows.
            orders, fills = entry.fields.get("orders", ""), entry.fields.get("fills", "")
            rows += 3 + orders.count("\n") + fills.count(" ")
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
