"""Settlements held against plain SQL over `trades`, which shares nothing with the product's: nets,
not sums of what came and went; and whether every trade is settled once.
"""

from typing import Any

import psycopg

Connection = psycopg.Connection[Any]

# One row for each account, asset and run, from trades alone.
EXPECTED = """
    SELECT r.run_id, side.client_id, side.asset, sum(side.amount) AS amount
    FROM settlement_ranges AS r
    JOIN trades AS t ON t.instrument = r.instrument
        AND t.sequence BETWEEN r.after_sequence + 1 AND r.up_to_sequence
    JOIN instruments AS i ON i.symbol = t.instrument
    CROSS JOIN LATERAL (VALUES
        (t.buyer_client_id, split_part(i.symbol, '-', 1), t.quantity),
        (t.seller_client_id, split_part(i.symbol, '-', 1), -t.quantity),
        (t.buyer_client_id, split_part(i.symbol, '-', 2), -t.price * t.quantity),
        (t.seller_client_id, split_part(i.symbol, '-', 2), t.price * t.quantity),
        (CASE WHEN t.maker_order_id = t.buy_order_id THEN t.buyer_client_id
            ELSE t.seller_client_id END, split_part(i.symbol, '-', 2), -t.maker_fee),
        (CASE WHEN t.taker_order_id = t.buy_order_id THEN t.buyer_client_id
            ELSE t.seller_client_id END, split_part(i.symbol, '-', 2), -t.taker_fee),
        ('', split_part(i.symbol, '-', 2), t.maker_fee + t.taker_fee)
    ) AS side (client_id, asset, amount)
    GROUP BY r.run_id, side.client_id, side.asset
"""
FOUND = "SELECT run_id, client_id, asset, amount FROM settlement_obligations"
NO_SUM_OF_ZERO = """
    SELECT run_id, asset, sum(amount) FROM settlement_obligations
    GROUP BY run_id, asset HAVING sum(amount) <> 0 OR sum(received) <> sum(delivered)
"""
# A range that does not begin where the one before it ended, or where the instrument begins.
NO_CHAIN = """
    SELECT * FROM (
        SELECT instrument, after_sequence, lag(up_to_sequence, 1, 0::bigint) OVER (
            PARTITION BY instrument ORDER BY after_sequence
        ) AS before FROM settlement_ranges
    ) AS ranges WHERE after_sequence <> before
"""
UNFINISHED = "SELECT run_id FROM settlements WHERE status <> 'done'"
MISCOUNTED = """
    SELECT run_id, instrument FROM settlement_ranges AS r WHERE trades <> (
        SELECT count(*) FROM trades AS t WHERE t.instrument = r.instrument
            AND t.sequence > r.after_sequence AND t.sequence <= r.up_to_sequence
    )
"""


def check_settlements(connection: Connection) -> None:
    """Every settlement there is: over, what its trades say, zero in sum, one after the other."""
    for wrong in (
        UNFINISHED,
        NO_CHAIN,
        MISCOUNTED,
        NO_SUM_OF_ZERO,
        f"({EXPECTED}) EXCEPT ({FOUND})",
        f"({FOUND}) EXCEPT ({EXPECTED})",
    ):
        assert connection.execute(wrong).fetchall() == [], wrong
