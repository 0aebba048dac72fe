"""What the API reads of candles and positions. Larger intervals and windows are computed from the
candles of their minutes, a bounded number in each statement. Must not know Redis or Flask.
"""

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from datetime import timedelta
from decimal import Decimal
from threading import BoundedSemaphore
from typing import Final, NamedTuple

from psycopg import sql
from psycopg.rows import DictRow

from app.domain.candles import MINUTE_US, Candle
from app.domain.instruments import Instrument, Market
from app.persistence.queries import DatabaseBusy, Queries, moment
from app.persistence.rows import microseconds, notional_step, to_units

MINUTES_AT_ONCE: Final = 200_000
"""Of which one statement sums up candles: within its time-out by far. A page may take several."""
INSTRUMENTS_AT_ONCE: Final = 50
"""Whose windows one statement looks at."""
LONG_MINUTES: Final = 20_000
"""Two weeks: from so many on a page of candles takes longer than other reads."""
LONG_READS_MAX: Final = 2
"""Of a process at once: the pool has connections left for everybody else."""
LONG_READ_TURN_S: Final = 2.0
"""How long one waits for its turn."""
MAX_POSITIONS: Final = 2_000
"""Of one client: one in every instrument that can be listed."""


class Span(NamedTuple):
    """The minutes of an instrument's first trade, and of now; or of its last trade, should its
    clock be ahead.
    """

    first_us: int
    current_us: int


class LastTrade(NamedTuple):
    """The newest trade of an instrument; None: nobody who was asked knows more than its price."""

    price_ticks: int
    quantity_lots: int | None = None
    time_us: int | None = None


class Window(NamedTuple):
    """What an instrument traded in some whole minutes, that of now the last; None: nothing. What it
    traded last, whenever that was. All as of event `position`.
    """

    position: int
    start_us: int
    end_us: int
    traded: Candle | None
    last: LastTrade | None


class Position(NamedTuple):
    """What a client holds of an instrument as of event `sequence`. Lots, and ticks x lots; fees in
    the quote currency.
    """

    client_id: str
    market: Market
    quantity_lots: int
    cost: int
    realised: int
    fees: Decimal
    bought_lots: int
    sold_lots: int
    trades: int
    sequence: int


class MarketData:
    """Reads for the API. Every method raises DatabaseUnavailable when Postgres cannot answer."""

    def __init__(self, queries: Queries) -> None:
        self._queries = queries
        self._long_reads = BoundedSemaphore(LONG_READS_MAX)

    def span(self, market: Market) -> Span | None:
        """From when to when an instrument has candles; None before its first trade."""
        (found,) = self._queries.rows(_SPAN, instrument=market.symbol)
        if found["first"] is None:
            return None
        return Span(microseconds(found["first"]), microseconds(found["current"]))

    def candles(self, market: Market, starts: range) -> list[Candle]:
        """The candles that begin at `starts`, oldest first; those without a trade are missing.

        Raises:
            DatabaseBusy: others read as long pages for as long as one may wait.
        """
        with self._turn(len(starts) * starts.step // MINUTE_US):
            return [candle for part in _parts(starts) for candle in self._candles(market, part)]

    @contextmanager
    def _turn(self, minutes: int) -> Iterator[None]:
        if minutes < LONG_MINUTES:
            yield
            return
        if not self._long_reads.acquire(timeout=LONG_READ_TURN_S):
            raise DatabaseBusy
        try:
            yield
        finally:
            self._long_reads.release()

    def _candles(self, market: Market, starts: range) -> Iterator[Candle]:
        found = self._queries.rows(
            _CANDLES,
            instrument=market.symbol,
            interval=timedelta(microseconds=starts.step),
            start=moment(starts.start),
            stop=moment(starts.stop),
        )
        return (_candle(market.instrument, row) for row in found)

    def close_before(self, market: Market, time_us: int) -> int | None:
        """Ticks at which the last minute with a trade before that time closed."""
        found = self._queries.rows(_CLOSE, instrument=market.symbol, time=moment(time_us))
        return to_units(found[0]["close"], market.instrument.tick_size) if found else None

    def windows(self, markets: Iterable[Market], minutes: int) -> dict[str, Window]:
        """The newest `minutes` of each of these."""
        by_symbol = {market.symbol: market for market in markets}
        symbols, windows = list(by_symbol), {}
        for first in range(0, len(symbols), INSTRUMENTS_AT_ONCE):
            some = symbols[first : first + INSTRUMENTS_AT_ONCE]
            for row in self._queries.rows(_WINDOWS, instruments=some, minutes=minutes):
                symbol = row["symbol"]
                windows[symbol] = _window(by_symbol[symbol].instrument, minutes, row)
        return windows

    def positions(self, client_id: str, symbol: str | None = None) -> list[Position]:
        """Of a client who has traded, by instrument; or only the one."""
        found = self._queries.rows(
            _POSITIONS, client=client_id, instrument=symbol, limit=MAX_POSITIONS
        )
        return [_position(self._queries.market(row["instrument"]), row) for row in found]


def _parts(starts: range) -> Iterator[range]:
    at_once = max(1, MINUTES_AT_ONCE * MINUTE_US // starts.step)
    for first in range(0, len(starts), at_once):
        yield starts[first : first + at_once]


# Both by the primary key, whatever lies between.
_SPAN: Final = sql.SQL(
    """
    SELECT min(start) AS first, greatest(max(start), date_trunc('minute', now())) AS current
    FROM candles WHERE instrument = %(instrument)s
    """
)
_CLOSE: Final = sql.SQL(
    """
    SELECT close FROM candles WHERE instrument = %(instrument)s AND start < %(time)s
    ORDER BY start DESC LIMIT 1
    """
)
# Arrays are compared element by element: the least sequence comes first, and with it its price.
_SUMS: Final = sql.SQL(
    """
    (min(ARRAY[first_sequence, open]))[2] AS open, max(high) AS high, min(low) AS low,
    (max(ARRAY[last_sequence, close]))[2] AS close, sum(volume) AS volume,
    sum(quote_volume) AS quote_volume, sum(trades)::bigint AS trades,
    sum(buy_volume) AS buy_volume, max(largest_quantity) AS largest_quantity,
    min(first_sequence) AS first_sequence, max(last_sequence) AS last_sequence
    """
)
_CANDLES: Final = sql.SQL(
    """
    SELECT date_bin(%(interval)s, start, timestamptz '1970-01-01 00:00:00+00') AS start, {sums}
    FROM candles WHERE instrument = %(instrument)s AND start >= %(start)s AND start < %(stop)s
    GROUP BY 1 ORDER BY 1
    """
).format(sums=_SUMS)
_WINDOWS: Final = sql.SQL(
    """
    WITH spans AS MATERIALIZED (
        SELECT w.symbol, coalesce(p.sequence, 0) AS position, greatest(
            date_trunc('minute', now()),
            (SELECT max(start) FROM candles WHERE instrument = w.symbol)
        ) AS current
        FROM unnest(%(instruments)s::text[]) AS w (symbol)
        LEFT JOIN stream_positions AS p ON p.instrument = w.symbol
    )
    SELECT s.*, c.*, t.*
    FROM spans AS s
    CROSS JOIN LATERAL (
        SELECT {sums} FROM candles
        WHERE instrument = s.symbol AND start > s.current - %(minutes)s * interval '1 minute'
    ) AS c
    LEFT JOIN LATERAL (
        SELECT price AS last_price, quantity AS last_quantity, executed_at AS last_time FROM trades
        WHERE instrument = s.symbol ORDER BY sequence DESC, fill_index DESC LIMIT 1
    ) AS t ON true
    """
).format(sums=_SUMS)
_POSITIONS: Final = sql.SQL(
    """
    SELECT p.*, s.sequence FROM positions AS p JOIN stream_positions AS s USING (instrument)
    WHERE client_id = %(client)s AND instrument = coalesce(%(instrument)s::text, instrument)
    ORDER BY instrument LIMIT %(limit)s
    """
)


def _candle(instrument: Instrument, row: DictRow, start_us: int | None = None) -> Candle:
    tick, lot = instrument.tick_size, instrument.lot_size
    return Candle(
        start_us=microseconds(row["start"]) if start_us is None else start_us,
        open_ticks=to_units(row["open"], tick),
        high_ticks=to_units(row["high"], tick),
        low_ticks=to_units(row["low"], tick),
        close_ticks=to_units(row["close"], tick),
        volume_lots=to_units(row["volume"], lot),
        quote_volume=to_units(row["quote_volume"], notional_step(instrument)),
        trades=row["trades"],
        buy_lots=to_units(row["buy_volume"], lot),
        largest_lots=to_units(row["largest_quantity"], lot),
        first_sequence=row["first_sequence"],
        last_sequence=row["last_sequence"],
    )


def _window(instrument: Instrument, minutes: int, row: DictRow) -> Window:
    end_us = microseconds(row["current"]) + MINUTE_US
    start_us = end_us - minutes * MINUTE_US
    last = None
    if row["last_price"] is not None:
        last = LastTrade(
            to_units(row["last_price"], instrument.tick_size),
            to_units(row["last_quantity"], instrument.lot_size),
            microseconds(row["last_time"]),
        )
    traded = _candle(instrument, row, start_us) if row["trades"] else None
    return Window(row["position"], start_us, end_us, traded, last)


def _position(market: Market, row: DictRow) -> Position:
    lot, notional = market.instrument.lot_size, notional_step(market.instrument)
    return Position(
        client_id=row["client_id"],
        market=market,
        quantity_lots=to_units(row["quantity"], lot),
        cost=to_units(row["cost"], notional),
        realised=to_units(row["realised_pnl"], notional),
        fees=row["fees"],
        bought_lots=to_units(row["bought_quantity"], lot),
        sold_lots=to_units(row["sold_quantity"], lot),
        trades=row["trades"],
        sequence=row["sequence"],
    )
