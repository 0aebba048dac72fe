"""Settlements against the trades that they are of, in Postgres alone: every trade up to where an
instrument's last run ends is in one run and in no other, and what a run says of each client and
asset is what its trades make of it, so that with the venue's fees every asset sums to zero. Must
not know how a settlement is computed.
"""

from collections.abc import Iterator
from typing import Final

from app.persistence.event_store import Connection
from app.persistence.verifying.findings import Breach

CODE: Final = "settlements"
NAMED: Final = 5
"""Rows that are told of each thing that is wrong."""


def check_settlements(connection: Connection) -> list[Breach]:
    """Of all runs, also of one that is under way, as far as it has come. The caller sees to it that
    all of it is of one moment.
    """
    details = (*_broken_ranges(connection), *_miscounted(connection), *_wrong_sums(connection))
    return [Breach(CODE, detail) for detail in details]


def _broken_ranges(connection: Connection) -> Iterator[str]:
    for run_id, symbol, first, last, ended, position, total in _rows(connection, _BROKEN_RANGES):
        yield (
            f"{run_id} is of {symbol} after {first} up to {last}, the run before it ended at"
            f" {ended}, the position is {position} ({total} in all)"
        )


def _miscounted(connection: Connection) -> Iterator[str]:
    for run_id, status, symbol, told, last, counted, netted, total in _rows(
        connection, _MISCOUNTED
    ):
        yield (
            f"{run_id} is {status}, of {symbol} with {told} trades up to {last};"
            f" there are {counted} up to {netted} ({total} in all)"
        )


def _wrong_sums(connection: Connection) -> Iterator[str]:
    for run_id, client_id, asset, total in _rows(connection, _WRONG_SUMS):
        whose = client_id or "the venue"
        yield f"{run_id} {whose} {asset} is not what the trades make ({total} in all)"


def _rows(connection: Connection, statement: str) -> list[tuple[object, ...]]:
    return connection.execute(statement, {"named": NAMED}).fetchall()


_BROKEN_RANGES: Final = """
    SELECT run_id, instrument, after_sequence, up_to_sequence, ended, position, count(*) OVER ()
    FROM (
        SELECT r.*, coalesce(p.sequence, 0) AS position, lag(up_to_sequence, 1, 0::bigint) OVER (
            PARTITION BY instrument ORDER BY after_sequence
        ) AS ended
        FROM settlement_ranges AS r LEFT JOIN stream_positions AS p USING (instrument)
    ) AS ranges
    WHERE after_sequence <> ended OR up_to_sequence > position
    ORDER BY instrument, after_sequence LIMIT %(named)s
"""
_MISCOUNTED: Final = """
    SELECT run_id, status, r.instrument, r.trades, up_to_sequence, counted, netted_sequence,
        count(*) OVER ()
    FROM settlement_ranges AS r JOIN settlements AS s USING (run_id) CROSS JOIN LATERAL (
        SELECT count(*) AS counted FROM trades AS t WHERE t.instrument = r.instrument
            AND t.sequence > r.after_sequence AND t.sequence <= r.netted_sequence
    ) AS t
    WHERE r.trades <> counted OR (status = 'done' AND netted_sequence < up_to_sequence)
    ORDER BY r.instrument, after_sequence LIMIT %(named)s
"""
_WRONG_SUMS: Final = """
    SELECT run_id, client_id, asset, count(*) OVER () FROM (
        SELECT run_id, client_id, asset, (received, delivered, fees) AS told
        FROM settlement_obligations
    ) AS o FULL JOIN (
        SELECT run_id, client_id, asset, (sum(received), sum(delivered), sum(fees)) AS made
        FROM settlement_ranges AS r
        JOIN trades AS t ON t.instrument = r.instrument
            AND t.sequence > r.after_sequence AND t.sequence <= r.netted_sequence
        CROSS JOIN LATERAL (
            SELECT split_part(t.instrument, '-', 1) AS base, price * quantity AS notional,
                split_part(t.instrument, '-', 2) AS quote,
                CASE side WHEN 'buy' THEN taker_fee ELSE maker_fee END AS buyer_fee,
                CASE side WHEN 'buy' THEN maker_fee ELSE taker_fee END AS seller_fee
        ) AS of_trade
        CROSS JOIN LATERAL (VALUES
            (buyer_client_id, base, quantity, 0, 0),
            (buyer_client_id, quote, 0, notional, buyer_fee),
            (seller_client_id, base, 0, quantity, 0),
            (seller_client_id, quote, notional, 0, seller_fee),
            ('', quote, 0, 0, -(maker_fee + taker_fee))
        ) AS part (client_id, asset, received, delivered, fees)
        GROUP BY run_id, client_id, asset
    ) AS m USING (run_id, client_id, asset)
    WHERE told IS DISTINCT FROM made
    ORDER BY run_id, client_id, asset LIMIT %(named)s
"""
