"""What candles, positions and VWAP must be, by plain SQL over the table of trades, written without
a look at the product's own: windows for candles, a recursion over each client's trades for costs.
"""

from datetime import datetime
from decimal import Decimal
from typing import Any, Final, NamedTuple

import psycopg

Connection = psycopg.Connection[tuple[Any, ...]]
Rows = list[tuple[Any, ...]]

CANDLES: Final = """
    WITH numbered AS (
        SELECT *,
            to_timestamp(floor(extract(epoch FROM executed_at) / %(seconds)s) * %(seconds)s)
                AS start,
            row_number() OVER (PARTITION BY instrument ORDER BY sequence, fill_index) AS place
        FROM trades
    ), placed AS (
        SELECT *,
            first_value(price) OVER (PARTITION BY instrument, start ORDER BY place) AS first_price,
            first_value(price) OVER (PARTITION BY instrument, start ORDER BY place DESC)
                AS last_price
        FROM numbered
    )
    SELECT instrument, start, min(first_price), max(price), min(price), min(last_price),
        sum(quantity), sum(quantity * price), count(*),
        sum(CASE WHEN side = 'buy' THEN quantity ELSE 0 END), max(quantity),
        min(sequence), max(sequence)
    FROM placed GROUP BY instrument, start ORDER BY instrument, start
"""
KEPT_CANDLES: Final = """
    SELECT instrument, start, open, high, low, close, volume, quote_volume, trades, buy_volume,
        largest_quantity, first_sequence, last_sequence
    FROM candles ORDER BY instrument, start
"""

# One row for each trade that a client has with another, in the units of the book, numbered.
_STEPS: Final = """
    CREATE TEMP TABLE steps AS
    SELECT client, instrument, lots, ticks, row_number() OVER (
        PARTITION BY client, instrument ORDER BY sequence, fill_index
    ) AS n
    FROM (
        SELECT unnest(ARRAY[buyer_client_id, seller_client_id]) AS client, instrument, sequence,
            fill_index, unnest(ARRAY[1, -1]) * trunc(quantity / lot_size) AS lots,
            trunc(price / tick_size) AS ticks
        FROM trades JOIN instruments ON symbol = instrument
        WHERE buyer_client_id <> seller_client_id
    ) AS sides
"""
_PREPARED: Final = (
    _STEPS,
    "CREATE UNIQUE INDEX ON steps (client, instrument, n)",
    "ANALYZE steps",
    # Each round of the recursion looks a few rows up; a join by hash would read all in each.
    "SET LOCAL enable_hashjoin = off",
    "SET LOCAL enable_mergejoin = off",
)
# `floor(x + 1/2)` rounds half up; a half that came to an odd number so goes one back.
_COSTS: Final = """
    WITH RECURSIVE held AS (
        SELECT client, instrument, n, lots, lots * ticks AS cost FROM steps WHERE n = 1
        UNION ALL
        SELECT s.client, s.instrument, s.n, h.lots + s.lots,
            CASE
                WHEN h.lots = 0 OR sign(h.lots) = sign(s.lots) THEN h.cost + s.lots * s.ticks
                WHEN abs(s.lots) >= abs(h.lots) THEN (h.lots + s.lots) * s.ticks
                ELSE h.cost - sign(h.cost) * (
                    div(2 * abs(h.cost * s.lots) + abs(h.lots), 2 * abs(h.lots))
                    - CASE WHEN mod(2 * abs(h.cost * s.lots) + abs(h.lots), 2 * abs(h.lots)) = 0
                        THEN mod(
                            div(2 * abs(h.cost * s.lots) + abs(h.lots), 2 * abs(h.lots)), 2
                        )
                        ELSE 0 END
                )
            END
        FROM held AS h JOIN steps AS s
            ON s.client = h.client AND s.instrument = h.instrument AND s.n = h.n + 1
    )
    SELECT DISTINCT ON (client, instrument)
        client, instrument, cost * tick_size * lot_size AS cost
    FROM held JOIN instruments ON symbol = instrument ORDER BY client, instrument, n DESC
"""
POSITIONS: Final = f"""
    SELECT client, instrument, sum(bought) - sum(sold), sum(fee), sum(bought), sum(sold),
        sum(bought * price), sum(sold * price), count(*), coalesce(min(cost), 0),
        sum(sold * price) - sum(bought * price) + coalesce(min(cost), 0)
    FROM (
        SELECT buyer_client_id AS client, instrument, price, quantity AS bought, 0 AS sold,
            CASE WHEN side = 'buy' THEN taker_fee ELSE maker_fee END AS fee
        FROM trades
        UNION ALL
        SELECT seller_client_id, instrument, price, 0, quantity,
            CASE WHEN side = 'buy' THEN maker_fee ELSE taker_fee END
        FROM trades
    ) AS sides LEFT JOIN ({_COSTS}) AS costs USING (client, instrument)
    GROUP BY client, instrument ORDER BY client COLLATE "C", instrument
"""
KEPT_POSITIONS: Final = """
    SELECT client_id, instrument, quantity, fees, bought_quantity, sold_quantity, bought_notional,
        sold_notional, trades, cost, realised_pnl
    FROM positions ORDER BY client_id, instrument
"""
VWAP: Final = """
    SELECT coalesce(sum(quantity), 0), coalesce(sum(quantity * price), 0), count(*) FROM trades
    WHERE instrument = %s AND executed_at >= %s AND executed_at < %s
"""


class Vwap(NamedTuple):
    """Of a stretch of time; the price itself is `quote_volume / volume`."""

    volume: Decimal
    quote_volume: Decimal
    trades: int


def candles(connection: Connection, seconds: int = 60) -> Rows:
    """What the table must be, row by row; or the same of larger intervals."""
    return connection.execute(CANDLES, {"seconds": seconds}).fetchall()


def positions(connection: Connection) -> Rows:
    """What the table must be, row by row, with the cost and what was realised at the end."""
    with connection.transaction():
        for statement in _PREPARED:
            connection.execute(statement)
        found = connection.execute(POSITIONS).fetchall()
        connection.execute("DROP TABLE steps")
    return found


def vwap(connection: Connection, symbol: str, start: datetime, end: datetime) -> Vwap:
    """Of the trades from `start` on and before `end`."""
    return Vwap(*connection.execute(VWAP, (symbol, start, end)).fetchall()[0])


def check(connection: Connection, symbol: str | None = None) -> None:
    """The tables of candles and positions are what the trades make them, of one instrument or all,
    while nobody trades there.
    """
    for statement, truth, column in (
        (KEPT_CANDLES, candles(connection), 0),
        (KEPT_POSITIONS, positions(connection), 1),
    ):
        kept = connection.execute(statement).fetchall()
        of_symbol = [
            [row for row in rows if symbol in (None, row[column])] for rows in (kept, truth)
        ]
        assert of_symbol[0] == of_symbol[1]
