"""What the API reads from Postgres. Each method is one statement, hence one snapshot: where it says
positions, these are the positions that its rows stand for. Must not know Redis or Flask.
"""

import logging
import threading
import time
from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any, Final, NamedTuple

import msgspec
import psycopg
from psycopg import sql
from psycopg.conninfo import make_conninfo
from psycopg.rows import DictRow, dict_row
from psycopg_pool import ConnectionPool, PoolTimeout

from app.domain.events import Event, Trade, parse_event
from app.domain.instruments import Instrument, Market
from app.domain.orders import OrderRecord, Status, order_id, split_order_id
from app.persistence import instruments
from app.persistence.connections import BoundedConnection, at_most
from app.persistence.rows import microseconds, notional_step, to_units

POOL_CONNECTIONS: Final = 4
"""Per process. Reads are short; more would only queue inside Postgres."""
POOL_WAIT_S: Final = 2.0
PING_WAIT_S: Final = 0.3
"""For a connection, and for its answer: who asks for health has little time himself."""
CHECK_PATIENCE_S: Final = 1.0
"""For the answer of a connection that the pool gives out."""
CONNECT_TIMEOUT_S: Final = 3
STATEMENT_TIMEOUT_MS: Final = 3_000
READ_PATIENCE_S: Final = 4.0
"""For an answer; longer than the above, which Postgres keeps itself unless it is frozen."""
UNSENT_TIMEOUT_MS: Final = 5_000
RECONNECT_FOR_S: Final = 0.5
"""How long the pool tries by itself, with ever longer pauses; afterwards each call makes it try at
once, so a short time means a quick recovery."""
WARN_EVERY_S: Final = 10.0
"""Seconds between warnings, at least: every read fails while Postgres is away."""

log: Final = logging.getLogger("crossbook.queries")

Connection = BoundedConnection[DictRow]
Pool = ConnectionPool[Connection]


class DatabaseUnavailable(Exception):
    """Postgres is away, too slow or has no connection left; the same call may work later."""

    def __str__(self) -> str:
        """Always the same: clients read it, and the cause names hosts, users and paths."""
        return "Postgres does not answer"


class DatabaseBusy(Exception):
    """Others have read for as long as one may wait; the same call may work later."""


class OrderFilter(msgspec.Struct, frozen=True, kw_only=True):
    """Which orders; None and the empty tuple stand for any."""

    client_id: str | None = None
    instrument: str | None = None
    statuses: tuple[str, ...] = ()
    client_order_id: str | None = None


class OrderCursor(NamedTuple):
    """The place of an order in the list; orders sort by it, greatest (newest) first."""

    created_us: int
    symbol: str
    number: int


class ListedOrder(NamedTuple):
    """An order and its instrument."""

    symbol: str
    order: OrderRecord

    @property
    def cursor(self) -> OrderCursor:
        """Its place in the list."""
        return OrderCursor(self.order.created_us, self.symbol, self.order.number)


class TradeCursor(NamedTuple):
    """The place of a trade among those of its instrument, greatest (newest) first."""

    sequence: int
    fill_index: int


_END: Final = TradeCursor(2**63 - 1, 1)


def open_pool(database_url: str) -> Pool:
    """Connections for one process, opened in the background: also while Postgres is away. Call it
    after gevent's patching and after the fork.
    """
    conninfo = make_conninfo(
        database_url,
        connect_timeout=CONNECT_TIMEOUT_S,
        tcp_user_timeout=UNSENT_TIMEOUT_MS,
        application_name="crossbook api",
    )
    return ConnectionPool(
        conninfo,
        connection_class=Connection,
        kwargs={"autocommit": True, "row_factory": dict_row},
        min_size=1,
        max_size=POOL_CONNECTIONS,
        timeout=POOL_WAIT_S,
        # No max_waiting: the pool counts calls that have given up, too, until a connection comes,
        # and once there are as many it never makes one (psycopg_pool 3.3). See Queries._slot.
        reconnect_timeout=RECONNECT_FOR_S,
        configure=_configure,
        # After a restart of Postgres every connection is stale; a reader must not find out.
        check=_check,
        name="queries",
        open=True,
    )


class Queries:
    """Reads for the API. Every method raises DatabaseUnavailable when Postgres cannot answer."""

    def __init__(self, pool: Pool) -> None:
        self._pool = pool
        self._markets: dict[str, Market] = {}
        self._slots = threading.BoundedSemaphore(POOL_CONNECTIONS)
        self._is_away = False
        self._trying = threading.Lock()
        self._quiet_until = 0.0

    def ping(self) -> None:
        """Whether Postgres answers at all; says so within about a second in any case."""
        with at_most(PING_WAIT_S), self._connection(PING_WAIT_S):
            pass  # the pool has just asked it; see _check

    def order(self, market: Market, number: int) -> OrderRecord | None:
        """One order's last committed state."""
        found = self.rows(_ORDER, id=order_id(market.symbol, number))
        return _order_record(market.instrument, found[0]) if found else None

    def has_order(self, market: Market, number: int) -> bool:
        """Whether there ever was such an order; much cheaper than reading it."""
        return bool(self.rows(_ORDER_EXISTS, id=order_id(market.symbol, number)))

    def event(self, market: Market, sequence: int) -> Event | None:
        """One event as it was when its command was answered."""
        found = self.rows(_EVENT, instrument=market.symbol, sequence=sequence)
        return _event(market.symbol, found[0]) if found else None

    def orders(
        self, wanted: OrderFilter, limit: int, before: OrderCursor | None = None
    ) -> tuple[list[ListedOrder], dict[str, int]]:
        """Up to `limit` orders, newest first, those older than `before`; and the positions."""
        found = self.rows(_orders_statement(wanted, before), limit=limit, **_named(wanted, before))
        listed = [
            ListedOrder(row["symbol"], _order_record(self.market(row["symbol"]).instrument, row))
            for row in found
            if row["order_id"] is not None
        ]
        return listed, {row["symbol"]: row["position"] for row in found}

    def trades(
        self, market: Market, limit: int, before: TradeCursor | None = None
    ) -> tuple[list[Trade], int]:
        """Up to `limit` trades of one instrument, newest first, those older than `before`; and its
        position.
        """
        place = before or _END
        found = self.rows(_TRADES, instrument=market.symbol, limit=limit, **place._asdict())
        trades = [_trade(market.instrument, row) for row in found if row["trade_id"] is not None]
        return trades, found[0]["position"] if found else 0

    def market(self, symbol: str) -> Market:
        """A market that rows are of."""
        if symbol not in self._markets:
            with self._connection() as connection:
                for listed in instruments.stored_instruments(connection):
                    self._markets[listed.instrument.symbol] = Market(listed.instrument)
        return self._markets[symbol]

    def rows(self, statement: sql.SQL | sql.Composed, **values: object) -> list[DictRow]:
        """What one statement finds, for those who have statements of their own."""
        with self._connection() as connection:
            return connection.execute(statement, values).fetchall()

    @contextmanager
    def _connection(self, wait_s: float = POOL_WAIT_S) -> Iterator[Connection]:
        try:
            with self._trial(), self._slot(wait_s), self._pool.connection(wait_s) as connection:
                self._note_answer()
                yield connection
        except (psycopg.OperationalError, psycopg.InterfaceError) as error:
            # With a slot in hand there is room in the pool: what was missing is the connection.
            # A ping does not wait long enough to conclude that for others.
            is_away = isinstance(error, PoolTimeout) and wait_s >= POOL_WAIT_S
            self._note_failure(error, is_away=is_away)
            raise DatabaseUnavailable from error

    @contextmanager
    def _trial(self) -> Iterator[None]:
        """After a call has waited for a connection in vain, one call at a time tries whether there
        is one again; the others are told at once, instead of queueing up behind an outage.
        """
        is_trial = self._is_away
        if is_trial and not self._trying.acquire(blocking=False):
            raise psycopg.OperationalError("another call is trying to connect")
        try:
            yield
        finally:
            if is_trial:
                self._trying.release()

    @contextmanager
    def _slot(self, wait_s: float) -> Iterator[None]:
        """The right to one connection: tells a busy pool from a Postgres that is away."""
        if not self._slots.acquire(timeout=wait_s):
            raise psycopg.OperationalError(f"all {POOL_CONNECTIONS} connections are in use")
        try:
            yield
        finally:
            self._slots.release()

    def _note_answer(self) -> None:
        if self._is_away:
            self._is_away = False
            self._quiet_until = 0.0
            log.info("Postgres answers again")

    def _note_failure(self, error: Exception, *, is_away: bool) -> None:
        self._is_away = self._is_away or is_away
        now = time.monotonic()
        if now >= self._quiet_until:
            self._quiet_until = now + WARN_EVERY_S
            why = f"{type(error).__name__}: {error}".strip()
            log.warning("a read from Postgres failed", extra={"why": why})


def _configure(connection: Connection) -> None:
    connection.patience_s = READ_PATIENCE_S
    connection.execute(f"SET statement_timeout = {STATEMENT_TIMEOUT_MS}")
    connection.execute("SET default_transaction_read_only = on")
    # Python has no year 10000, which the last hours of 9999 are in other time zones.
    connection.execute("SET TimeZone = 'UTC'")


def _check(connection: Connection) -> None:
    with at_most(CHECK_PATIENCE_S):
        ConnectionPool.check_connection(connection)


_ORDER: Final = sql.SQL("SELECT * FROM orders WHERE order_id = %(id)s")
_ORDER_EXISTS: Final = sql.SQL("SELECT 1 AS found FROM orders WHERE order_id = %(id)s")
_EVENT: Final = sql.SQL(
    "SELECT * FROM events WHERE instrument = %(instrument)s AND sequence = %(sequence)s"
)
# From the position outwards, so that it is there also where no trade is.
_TRADES: Final = sql.SQL(
    """
    SELECT p.sequence AS position, t.*
    FROM stream_positions AS p
    LEFT JOIN LATERAL (
        SELECT * FROM trades
        WHERE instrument = p.instrument AND (sequence, fill_index) < (%(sequence)s, %(fill_index)s)
        ORDER BY sequence DESC, fill_index DESC
        LIMIT %(limit)s
    ) AS t ON true
    WHERE p.instrument = %(instrument)s
    ORDER BY t.sequence DESC, t.fill_index DESC
    """
)
# Order ids sort like (instrument, number): fixed width, and "-" comes before letters and digits.
_NEWEST_FIRST: Final = sql.SQL("ORDER BY created_at DESC, order_id DESC")
_OF_CLIENT: Final = sql.SQL("SELECT * FROM orders WHERE {conditions} {order} LIMIT %(limit)s")
# Without a client: the newest of each instrument from its index, and of those the newest.
_OF_INSTRUMENTS: Final = sql.SQL(
    """
    SELECT o.*
    FROM stream_positions AS p
    CROSS JOIN LATERAL (
        SELECT * FROM orders
        WHERE instrument = p.instrument AND {conditions} {order} LIMIT %(limit)s
    ) AS o
    {order} LIMIT %(limit)s
    """
)
_WITH_POSITIONS: Final = sql.SQL(
    """
    WITH page AS ({page})
    SELECT p.instrument AS symbol, p.sequence AS position, page.*
    FROM stream_positions AS p
    LEFT JOIN page ON page.instrument = p.instrument
    ORDER BY page.created_at DESC NULLS LAST, page.order_id DESC
    """
)


def _orders_statement(wanted: OrderFilter, before: OrderCursor | None) -> sql.Composed:
    page = _OF_INSTRUMENTS if wanted.client_id is None else _OF_CLIENT
    conditions = sql.SQL(" AND ").join(_conditions(wanted, before))
    return _WITH_POSITIONS.format(page=page.format(conditions=conditions, order=_NEWEST_FIRST))


def _conditions(wanted: OrderFilter, before: OrderCursor | None) -> Sequence[sql.Composable]:
    chosen: list[sql.Composable] = [sql.SQL("true")]
    if wanted.client_id is not None:
        chosen.append(sql.SQL("client_id = %(client_id)s"))
    if wanted.instrument is not None:
        chosen.append(sql.SQL("instrument = %(instrument)s"))
    if wanted.client_order_id is not None:
        chosen.append(sql.SQL("client_order_id = %(client_order_id)s"))
    if wanted.statuses:
        chosen.append(_is_one_of(wanted.statuses))
    if before is not None:
        chosen.append(sql.SQL("(created_at, order_id) < (%(before_time)s, %(before_id)s)"))
    return chosen


def _is_one_of(statuses: Collection[str]) -> sql.Composable:
    # As constants: with a parameter the planner cannot know that the index of open orders has all
    # that is wanted. And a state that no order can have must not be searched for in all of them.
    possible = [sql.Literal(status.value) for status in Status if status in statuses]
    if not possible:
        return sql.SQL("false")
    return sql.SQL("status IN ({})").format(sql.SQL(", ").join(possible))


def _named(wanted: OrderFilter, before: OrderCursor | None) -> dict[str, Any]:
    values = msgspec.structs.asdict(wanted)
    if before is not None:
        values["before_time"] = moment(before.created_us)
        values["before_id"] = order_id(before.symbol, before.number)
    return values


def moment(time_us: int) -> datetime:
    """Microseconds since 1970 as Postgres takes times."""
    return datetime(1970, 1, 1, tzinfo=UTC) + timedelta(microseconds=time_us)


def _number(text: str) -> int:
    parts = split_order_id(text)
    assert parts is not None, "the persister wrote it"
    return parts[1]


def _units_or_none(value: Decimal | None, step: Decimal) -> int | None:
    return None if value is None else to_units(value, step)


def _microseconds_or_none(moment: datetime | None) -> int | None:
    return None if moment is None else microseconds(moment)


def _order_record(instrument: Instrument, row: DictRow) -> OrderRecord:
    lot, tick = instrument.lot_size, instrument.tick_size
    return OrderRecord(
        number=_number(row["order_id"]),
        status=row["status"],
        reason=row["reason"] or "",
        quantity_lots=to_units(row["quantity"], lot),
        filled_lots=to_units(row["filled_quantity"], lot),
        notional=to_units(row["notional"], notional_step(instrument)),
        price_ticks=_units_or_none(row["price"], tick),
        displayed_lots=_units_or_none(row["displayed_quantity"], lot),
        priority=row["priority"] or "",
        sequence=row["sequence"],
        updated_us=microseconds(row["updated_at"]),
        created_us=microseconds(row["created_at"]),
        client_id=row["client_id"],
        client_order_id=row["client_order_id"] or "",
        expires_us=_microseconds_or_none(row["expires_at"]),
        display_lots=_units_or_none(row["display_quantity"], lot),
        self_trade_prevention=row["self_trade_prevention"],
        side=row["side"],
        type=row["type"],
        time_in_force=row["time_in_force"],
        post_only=row["post_only"],
        stop_price_ticks=_units_or_none(row["stop_price"], tick),
        idempotency_key=row["idempotency_key"] or "",
    )


def _event(symbol: str, row: DictRow) -> Event:
    fields = row | {"time": str(microseconds(row["occurred_at"]))}
    return parse_event(symbol, f"{row['sequence']}-0", fields)


def _trade(instrument: Instrument, row: DictRow) -> Trade:
    return Trade(
        sequence=row["sequence"],
        index=row["fill_index"],
        price_ticks=to_units(row["price"], instrument.tick_size),
        quantity_lots=to_units(row["quantity"], instrument.lot_size),
        side=row["side"],
        maker_number=_number(row["maker_order_id"]),
        taker_number=_number(row["taker_order_id"]),
        time_us=microseconds(row["executed_at"]),
    )
