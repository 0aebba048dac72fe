"""The persister's statements: one transaction per batch, and what it compares and continues from.
Must not know Redis. Columns travel as arrays, so that a batch is a few statements, not thousands.
"""

from collections.abc import Collection, Iterable
from typing import Any, Final, LiteralString, NamedTuple

from psycopg import sql
from psycopg.conninfo import make_conninfo

from app.domain.holdings import Holding
from app.domain.instruments import Instrument
from app.domain.rules import Rules
from app.persistence.connections import BoundedConnection
from app.persistence.instruments import RULE_COLUMNS, stored_rules
from app.persistence.rows import Batch, PositionKey, Row, microseconds

Connection = BoundedConnection[Any]

APPLICATION_NAME: Final = "crossbook persister"
CONNECT_TIMEOUT_S: Final = 5
STATEMENT_TIMEOUT_MS: Final = 10_000
LOCK_TIMEOUT_MS: Final = 5_000
ANSWER_TIMEOUT_S: Final = 12.0
"""After which a connection is given up whose server neither answers nor ends the statement itself.
Shorter than whoever stops a persister waits until it kills it.
"""
IDLE_IN_TRANSACTION_TIMEOUT_MS: Final = 15_000
"""After which Postgres ends the transaction of a persister that stands still with the lock."""
UNSENT_TIMEOUT_MS: Final = 15_000
"""After which a connection whose other end no longer answers is given up by TCP."""
KEEPALIVE_IDLE_S: Final = 5

_SESSION: Final = (
    f"SET statement_timeout = {STATEMENT_TIMEOUT_MS}",
    f"SET lock_timeout = {LOCK_TIMEOUT_MS}",
    f"SET idle_in_transaction_session_timeout = {IDLE_IN_TRANSACTION_TIMEOUT_MS}",
    # What is committed here leaves Redis: a server that answers before its disk would lose it.
    "SET synchronous_commit = on",
)

EVENT_COLUMNS: Final = {
    "instrument": "text",
    "sequence": "bigint",
    "type": "text",
    "occurred_at": "timestamptz",
    "orders": "text",
    "fills": "text",
    "levels": "text",
    "detail": "text",
}
ORDER_COLUMNS: Final = {
    "order_id": "text",
    "instrument": "text",
    "client_id": "text",
    "side": "text",
    "type": "text",
    "time_in_force": "text",
    "post_only": "boolean",
    "client_order_id": "text",
    "idempotency_key": "text",
    "price": "numeric",
    "quantity": "numeric",
    "filled_quantity": "numeric",
    "remaining_quantity": "numeric",
    "notional": "numeric",
    "status": "text",
    "reason": "text",
    "sequence": "bigint",
    "created_at": "timestamptz",
    "updated_at": "timestamptz",
    "stop_price": "numeric",
    "display_quantity": "numeric",
    "displayed_quantity": "numeric",
    "expires_at": "timestamptz",
    "self_trade_prevention": "text",
    "priority": "text",
}
ORDER_COLUMNS_THAT_CHANGE: Final = (
    "price",
    "quantity",
    "filled_quantity",
    "remaining_quantity",
    "notional",
    "status",
    "reason",
    "sequence",
    "updated_at",
    "stop_price",
    "displayed_quantity",
    "priority",
)
TRADE_COLUMNS: Final = {
    "trade_id": "text",
    "instrument": "text",
    "sequence": "bigint",
    "fill_index": "integer",
    "price": "numeric",
    "quantity": "numeric",
    "side": "text",
    "buy_order_id": "text",
    "sell_order_id": "text",
    "maker_order_id": "text",
    "taker_order_id": "text",
    "executed_at": "timestamptz",
    "buyer_client_id": "text",
    "seller_client_id": "text",
    "maker_fee": "numeric",
    "taker_fee": "numeric",
}
POSITION_COLUMNS: Final = {
    "client_id": "text",
    "instrument": "text",
    "fees": "numeric",
    "bought_quantity": "numeric",
    "sold_quantity": "numeric",
    "bought_notional": "numeric",
    "sold_notional": "numeric",
    "trades": "bigint",
    "cost": "numeric",
}
POSITION_KEY: Final = ("client_id", "instrument")
POSITION_SUMS: Final = (
    "fees",
    "bought_quantity",
    "sold_quantity",
    "bought_notional",
    "sold_notional",
    "trades",
)
"""To be added to what is there; the cost is then what the row says."""
CANDLE_COLUMNS: Final = {
    "instrument": "text",
    "start": "timestamptz",
    "open": "numeric",
    "high": "numeric",
    "low": "numeric",
    "close": "numeric",
    "volume": "numeric",
    "quote_volume": "numeric",
    "trades": "bigint",
    "buy_volume": "numeric",
    "largest_quantity": "numeric",
    "first_sequence": "bigint",
    "last_sequence": "bigint",
}
CANDLE_KEY: Final = ("instrument", "start")


class Standing(NamedTuple):
    """The last sequence written down of one instrument, and the rules as of that sequence."""

    position: int
    rules: Rules


class PositionUnreadable(Exception):
    """What a client holds is stored as no whole number of lots, or of ticks x lots."""


class PositionMoved(Exception):
    """The batch does not continue from the committed positions: another persister was here."""


def connect(database_url: str) -> Connection:
    """A connection on which nothing waits longer than `ANSWER_TIMEOUT_S`.

    Raises:
        psycopg.OperationalError: Postgres is away.
    """
    connection = Connection.connect(patient(database_url, APPLICATION_NAME), autocommit=True)
    connection.patience_s = ANSWER_TIMEOUT_S
    for setting in _SESSION:
        connection.execute(setting)
    return connection


def patient(database_url: str, name: str) -> str:
    """The address of the database for a connection that gives up whom it does not reach, and that
    pg_stat_activity shows as `name`.
    """
    return make_conninfo(
        database_url,
        connect_timeout=CONNECT_TIMEOUT_S,
        tcp_user_timeout=UNSENT_TIMEOUT_MS,
        keepalives_idle=KEEPALIVE_IDLE_S,
        application_name=name,
    )


def open_position(connection: Connection, symbol: str) -> int:
    """The last sequence written down of one instrument; 0, and noted so, if it is new."""
    connection.execute(
        "INSERT INTO stream_positions (instrument) VALUES (%s) ON CONFLICT DO NOTHING", (symbol,)
    )
    return positions(connection, [symbol])[symbol]


def standing(connection: Connection, instrument: Instrument) -> Standing:
    """Where an instrument stands, new or not: position and rules of the same moment."""
    open_position(connection, instrument.symbol)
    columns = ", ".join(f"i.{name}" for name in RULE_COLUMNS)
    found = connection.execute(
        f"SELECT p.sequence, {columns}"  # noqa: S608  # constants
        " FROM stream_positions AS p JOIN instruments AS i ON i.symbol = p.instrument"
        " WHERE p.instrument = %s",
        (instrument.symbol,),
    )
    ((position, *rules),) = found.fetchall()
    return Standing(position, stored_rules(instrument, rules))


def stored_events(
    connection: Connection, symbol: str, sequences: Iterable[int]
) -> dict[int, dict[str, str]]:
    """The fields of events that are written down, as the stream had them; `detail` in any case."""
    found = connection.execute(
        "SELECT sequence, type, occurred_at, orders, fills, levels, detail FROM events"
        " WHERE instrument = %s AND sequence = ANY(%s::bigint[])",
        (symbol, list(sequences)),
    )
    return {
        sequence: {
            "type": kind,
            "time": str(microseconds(occurred_at)),
            "orders": orders,
            "fills": fills,
            "levels": levels,
            "detail": detail,
        }
        for sequence, kind, occurred_at, orders, fills, levels, detail in found
    }


def write(connection: Connection, batch: Batch) -> None:
    """Commit a batch: rows and positions together, or nothing.

    Raises:
        PositionMoved: the batch is not what comes next; nothing was written.
        PositionUnreadable: nothing was written.
        psycopg.Error: nothing was written, or the connection broke and nobody knows.
    """
    with connection.transaction():
        if positions(connection, batch.starts, "ORDER BY instrument FOR UPDATE") != batch.starts:
            raise PositionMoved
        _execute(connection, _INSERT_EVENTS, batch.events)
        write_read_models(connection, batch)
        _execute(connection, _UPDATE_STREAM_POSITIONS, batch.ends.items())


def write_read_models(connection: Connection, batch: Batch) -> None:
    """What a batch's events amount to, as a part of the caller's transaction. The tables are those
    that the session's search_path names: a replay fills others of the same names. Nobody else may
    write events of these instruments meanwhile: what is held is read first.

    Raises:
        PositionUnreadable: a stored position has been tampered with.
    """
    _execute(connection, _UPSERT_ORDERS, batch.orders.values())
    _execute(connection, _INSERT_TRADES, batch.trades)
    _execute(connection, _ADD_TO_POSITIONS, batch.position_rows(_held(connection, batch)))
    _execute(connection, _ADD_TO_CANDLES, batch.candle_rows)
    _execute(connection, _UPDATE_RULES, batch.rules.values())


def write_rules(connection: Connection, rows: Collection[Row]) -> None:
    """The rules of instruments, rows as of `rows.rules_row`."""
    _execute(connection, _UPDATE_RULES, rows)


def positions(
    connection: Connection, symbols: Collection[str], ending: LiteralString = ""
) -> dict[str, int]:
    """The last sequence written down of those of `symbols` that have been persisted; `ending` of
    the statement.
    """
    found = connection.execute(
        f"SELECT instrument, sequence FROM stream_positions"  # noqa: S608  # `ending` is ours
        f" WHERE instrument = ANY(%s) {ending}",
        (list(symbols),),
    )
    return dict(found.fetchall())


def _held(connection: Connection, batch: Batch) -> dict[PositionKey, Holding]:
    """Of the clients who trade in the batch. Not locked: whoever writes positions has locked their
    instrument's row of stream_positions, as the caller has.
    """
    if not batch.dealings:
        return {}
    keys = [list(column) for column in zip(*batch.dealings, strict=True)]
    found = connection.execute(_HELD, keys).fetchall()
    try:
        return {
            (client, symbol): batch.holding(symbol, quantity, cost)
            for client, symbol, quantity, cost in found
        }
    except (ValueError, ArithmeticError) as error:
        raise PositionUnreadable(str(error)) from error


def _execute(
    connection: Connection, statement: sql.Composed, rows: Collection[Row | tuple[str, int]]
) -> None:
    if rows:
        connection.execute(statement, [list(column) for column in zip(*rows, strict=True)])


def _arrays(columns: dict[str, str]) -> sql.Composed:
    return sql.SQL(", ").join(sql.SQL("%s::" + kind + "[]") for kind in columns.values())


def _insert(table: str, columns: dict[str, str]) -> sql.Composed:
    return sql.SQL("INSERT INTO {} ({}) SELECT * FROM unnest({})").format(
        sql.Identifier(table),
        sql.SQL(", ").join(map(sql.Identifier, columns)),
        _arrays(columns),
    )


def _upsert_orders() -> sql.Composed:
    changes = [
        sql.SQL("{0} = excluded.{0}").format(sql.Identifier(name))
        for name in ORDER_COLUMNS_THAT_CHANGE
    ]
    return _insert("orders", ORDER_COLUMNS) + sql.SQL(
        " ON CONFLICT (order_id) DO UPDATE SET {}"
    ).format(sql.SQL(", ").join(changes))


def _add_to_positions() -> sql.Composed:
    changes = [
        sql.SQL("{0} = positions.{0} + excluded.{0}").format(sql.Identifier(name))
        for name in POSITION_SUMS
    ]
    return _insert("positions", POSITION_COLUMNS) + sql.SQL(
        " ON CONFLICT (client_id, instrument) DO UPDATE SET cost = excluded.cost, {}"
    ).format(sql.SQL(", ").join(changes))


def _add_to_candles() -> sql.Composed:
    """What comes later in the order of sequences is newer, whatever its minute."""
    return _insert("candles", CANDLE_COLUMNS) + sql.SQL(
        " ON CONFLICT (instrument, start) DO UPDATE SET"
        " high = greatest(candles.high, excluded.high),"
        " low = least(candles.low, excluded.low),"
        " close = excluded.close,"
        " volume = candles.volume + excluded.volume,"
        " quote_volume = candles.quote_volume + excluded.quote_volume,"
        " trades = candles.trades + excluded.trades,"
        " buy_volume = candles.buy_volume + excluded.buy_volume,"
        " largest_quantity = greatest(candles.largest_quantity, excluded.largest_quantity),"
        " last_sequence = excluded.last_sequence"
    )


def _update_rules() -> sql.Composed:
    columns = {"symbol": "text", **RULE_COLUMNS}
    changes = [sql.SQL("{0} = n.{0}").format(sql.Identifier(name)) for name in RULE_COLUMNS]
    return sql.SQL(
        "UPDATE instruments AS i SET {} FROM unnest({}) AS n ({}) WHERE i.symbol = n.symbol"
    ).format(
        sql.SQL(", ").join(changes),
        _arrays(columns),
        sql.SQL(", ").join(map(sql.Identifier, columns)),
    )


_INSERT_EVENTS: Final = _insert("events", EVENT_COLUMNS)
_INSERT_TRADES: Final = _insert("trades", TRADE_COLUMNS)
_UPSERT_ORDERS: Final = _upsert_orders()
_ADD_TO_POSITIONS: Final = _add_to_positions()
_ADD_TO_CANDLES: Final = _add_to_candles()
_HELD: Final = sql.SQL(
    "SELECT client_id, instrument, quantity, cost FROM positions"
    " JOIN unnest(%s::text[], %s::text[]) AS n (client_id, instrument)"
    " USING (client_id, instrument)"
)
_UPDATE_RULES: Final = _update_rules()
_UPDATE_STREAM_POSITIONS: Final = sql.SQL(
    "UPDATE stream_positions AS p SET sequence = n.sequence, updated_at = now()"
    " FROM unnest({}) AS n (instrument, sequence) WHERE p.instrument = n.instrument"
).format(_arrays({"instrument": "text", "sequence": "bigint"}))
