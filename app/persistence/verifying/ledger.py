"""Postgres by itself: whether events, orders, trades, positions and candles of one instrument tell
the same story, all at one moment. Must not know Redis. Whole rows against the events are what a
replay compares; here it is the open orders, row by row, every sum, and what positions cost.
"""

from collections import defaultdict
from collections.abc import Callable
from datetime import datetime
from decimal import Decimal
from typing import Any, Final

from app.domain.book_state import BookState
from app.domain.holdings import Holding
from app.domain.instruments import Instrument
from app.domain.orders import OPEN, parse_record, split_order_id
from app.persistence.event_store import ORDER_COLUMNS, Connection
from app.persistence.rows import Texts, order_row, to_units
from app.persistence.verifying.findings import Findings

NAMED: Final = 5
"""Rows that are told of each thing that is wrong."""
ROWS_AT_ONCE: Final = 1_000


def check_events(connection: Connection, findings: Findings) -> None:
    """The table has exactly the sequences 1 to the position."""
    symbol, position = findings.instrument, findings.position
    count, first, last = connection.execute(
        "SELECT count(*), coalesce(min(sequence), 1), coalesce(max(sequence), 0) FROM events"
        " WHERE instrument = %s",
        (symbol,),
    ).fetchall()[0]
    if (count, first, last) == (position, 1, position):
        return
    findings.breach(
        "event_store", f"{count} events from {first} to {last}, the position is {position}"
    )
    missing = connection.execute(
        "SELECT sequence + 1 FROM events AS e WHERE instrument = %(symbol)s AND sequence < %(last)s"
        " AND NOT EXISTS (SELECT FROM events WHERE instrument = %(symbol)s"
        " AND sequence = e.sequence + 1) ORDER BY sequence LIMIT %(named)s",
        {"symbol": symbol, "last": last, "named": NAMED},
    )
    for (sequence,) in missing.fetchall():
        findings.breach("event_store", f"event {sequence} is missing")


def check_open_orders(
    connection: Connection, findings: Findings, instrument: Instrument, state: BookState
) -> None:
    """The orders that are open in the table are those of the model, which is at the position, each
    with every column as its record says.
    """
    texts, unmet = Texts(instrument), set(state.orders)
    statement = (
        f"SELECT {', '.join(ORDER_COLUMNS)} FROM orders"  # noqa: S608  # constants
        f" WHERE instrument = %s AND status IN ({_OPEN_STATUSES})"
    )
    with connection.cursor(name="open_orders") as cursor:
        cursor.itersize = ROWS_AT_ONCE
        for row in cursor.execute(statement, (findings.instrument,)):
            found = split_order_id(row[0])
            record = state.orders.get(found[1]) if found else None
            if found is None or record is None:
                findings.breach("orders", f"{row[0]} is {row[_STATUS]}, by its events it is not")
                continue
            unmet.discard(found[1])
            for name, here, there in _differing(
                row, order_row(texts, parse_record(found[1], record))
            ):
                findings.breach("orders", f"{row[0]} {name} is {here}, must be {there}")
    for number in sorted(unmet)[:NAMED]:
        findings.breach("orders", f"order {number} is open, and not in the table as such")


_OPEN_STATUSES: Final = ", ".join(f"'{status}'" for status in sorted(OPEN))
_STATUS: Final = list(ORDER_COLUMNS).index("status")

_READ: Final[dict[str, Callable[[Any], object]]] = {
    "numeric": Decimal,
    "timestamptz": datetime.fromisoformat,
}


def _differing(row: tuple[Any, ...], expected: tuple[Any, ...]) -> list[tuple[str, object, object]]:
    """Column, what it is, what it must be."""
    return [
        (name, here, there)
        for (name, kind), here, there in zip(ORDER_COLUMNS.items(), row, expected, strict=True)
        if here != (there if there is None or kind not in _READ else _READ[kind](there))
    ]


def check_sums(connection: Connection, findings: Findings) -> None:
    """Each order is filled as its trades say, each position is the sum of its trades, each candle
    is what its minute's trades are, and in all what was bought was sold.
    """
    for code, wrong, statement in (
        ("orders", "is not filled as its trades say", _ORDERS_UNLIKE_TRADES),
        ("positions", "is not the sum of its trades", _POSITIONS_UNLIKE_TRADES),
        ("candles", "is not what its trades are", _CANDLES_UNLIKE_TRADES),
    ):
        found = connection.execute(
            statement, {"symbol": findings.instrument, "named": NAMED}
        ).fetchall()
        for named, total in found:
            findings.breach(code, f"{named} {wrong} ({total} in all)")
    bought, sold, bought_notional, sold_notional, fees, charged = connection.execute(
        _TOTALS, {"symbol": findings.instrument}
    ).fetchall()[0]
    if (bought, bought_notional) != (sold, sold_notional):
        findings.breach(
            "conservation",
            f"bought {bought} for {bought_notional}, sold {sold} for {sold_notional}",
        )
    if fees != charged:
        findings.breach("conservation", f"clients paid {fees}, trades cost {charged}")


def check_costs(connection: Connection, findings: Findings, instrument: Instrument) -> None:
    """Each position cost what its trades make it, one after the other."""
    held: dict[str, Holding] = defaultdict(Holding)
    with connection.cursor(name="trades") as cursor:
        cursor.itersize = ROWS_AT_ONCE
        for buyer, seller, price, quantity in cursor.execute(_STEPS, (findings.instrument,)):
            ticks = to_units(price, instrument.tick_size)
            lots = to_units(quantity, instrument.lot_size)
            if buyer != seller:
                held[buyer] = held[buyer].after(lots, ticks)
                held[seller] = held[seller].after(-lots, ticks)
    cost_of = Texts(instrument).cost
    wrong = [
        f"{client} cost {cost}, must be {must}"
        for client, cost in connection.execute(_COSTS, (findings.instrument,)).fetchall()
        if cost != (must := Decimal(cost_of(held[client].cost)))
    ]
    for one in wrong[:NAMED]:
        findings.breach("positions", f"{one} ({len(wrong)} in all)")


_STEPS: Final = (
    "SELECT buyer_client_id, seller_client_id, price, quantity FROM trades WHERE instrument = %s"
    " ORDER BY sequence, fill_index"
)
_COSTS: Final = "SELECT client_id, cost FROM positions WHERE instrument = %s ORDER BY client_id"

_SIDES: Final = """
    SELECT buy_order_id AS order_id, buyer_client_id AS client_id, price, quantity AS bought,
        0 AS sold, CASE side WHEN 'buy' THEN taker_fee ELSE maker_fee END AS fee
    FROM trades WHERE instrument = %(symbol)s
    UNION ALL
    SELECT sell_order_id, seller_client_id, price, 0, quantity,
        CASE side WHEN 'sell' THEN taker_fee ELSE maker_fee END
    FROM trades WHERE instrument = %(symbol)s
"""

_ORDERS_UNLIKE_TRADES: Final = f"""
    SELECT order_id, count(*) OVER () FROM (
        SELECT order_id, filled_quantity, notional FROM orders WHERE instrument = %(symbol)s
    ) AS o FULL JOIN (
        SELECT order_id, sum(bought + sold) AS traded, sum(price * (bought + sold)) AS paid
        FROM ({_SIDES}) AS sides GROUP BY order_id
    ) AS t USING (order_id)
    WHERE (coalesce(filled_quantity, -1), coalesce(notional, -1))
        <> (coalesce(traded, 0), coalesce(paid, 0))
    ORDER BY order_id LIMIT %(named)s
"""  # noqa: S608  # constants

_POSITIONS_UNLIKE_TRADES: Final = f"""
    SELECT client_id, count(*) OVER () FROM (
        SELECT client_id, (bought_quantity, sold_quantity, bought_notional, sold_notional, fees,
            trades) AS held
        FROM positions WHERE instrument = %(symbol)s
    ) AS p FULL JOIN (
        SELECT client_id, (sum(bought), sum(sold), sum(bought * price), sum(sold * price), sum(fee),
            count(*)) AS dealt
        FROM ({_SIDES}) AS sides GROUP BY client_id
    ) AS t USING (client_id)
    WHERE held IS DISTINCT FROM dealt
    ORDER BY client_id LIMIT %(named)s
"""  # noqa: S608  # constants

_CANDLES_UNLIKE_TRADES: Final = """
    SELECT to_char(start AT TIME ZONE 'UTC', 'YYYY-MM-DD"T"HH24:MI"Z"'), count(*) OVER () FROM (
        SELECT start, (open, high, low, close, volume, quote_volume, trades, buy_volume,
            largest_quantity, first_sequence, last_sequence) AS kept
        FROM candles WHERE instrument = %(symbol)s
    ) AS c FULL JOIN (
        SELECT date_bin('1 minute', executed_at, timestamptz '1970-01-01 00:00:00+00') AS start,
            ((array_agg(price ORDER BY sequence, fill_index))[1], max(price), min(price),
            (array_agg(price ORDER BY sequence DESC, fill_index DESC))[1],
            sum(quantity), sum(price * quantity), count(*),
            coalesce(sum(quantity) FILTER (WHERE side = 'buy'), 0),
            max(quantity), min(sequence), max(sequence)) AS traded
        FROM trades WHERE instrument = %(symbol)s GROUP BY start
    ) AS t USING (start)
    WHERE kept IS DISTINCT FROM traded
    ORDER BY start LIMIT %(named)s
"""

_TOTALS: Final = """
    SELECT coalesce(sum(bought_quantity), 0), coalesce(sum(sold_quantity), 0),
        coalesce(sum(bought_notional), 0), coalesce(sum(sold_notional), 0),
        coalesce(sum(fees), 0), (
            SELECT coalesce(sum(maker_fee + taker_fee), 0) FROM trades
            WHERE instrument = %(symbol)s
        )
    FROM positions WHERE instrument = %(symbol)s
"""
