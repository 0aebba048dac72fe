"""The persister against a real Redis and a real Postgres: exactly once, whatever dies when.

Histories are made by hand (`Tape`), in the form that the scripts write, so that the expected rows
come from somewhere else than from the code under test.
"""

import contextlib
import json
import logging
import os
import random
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from decimal import Decimal
from fractions import Fraction
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import msgspec
import psycopg
import pytest
import redis
from psycopg import sql

from app.domain.events import Event, EventType, Trade, parse_event
from app.domain.instruments import EXACT_LIMIT, Instrument, Market, list_instrument
from app.domain.orders import (
    RECORD_FIELDS,
    OrderRecord,
    SelfTradePrevention,
    Status,
    parse_record,
)
from app.domain.refusals import Reason
from app.domain.rules import Rules, parse_rules_detail, rule_texts
from app.embedded.ports import LOOPBACK
from app.embedded.postgres_server import DATABASE, EmbeddedPostgres
from app.embedded.redis_server import EmbeddedRedis
from app.engine import halts
from app.engine.book import Books
from app.engine.commands import Amendment, Cancel, NewOrder, OrderNumber, Placed, Refused
from app.engine.executor import DirectExecutor
from app.engine.floors import Standing
from app.engine.keys import HALTED, INSTRUMENTS, PERSISTER_GROUP, book_keys
from app.persistence import event_store, event_stream, migrations, persister
from app.persistence.instruments import (
    InstrumentDiffers,
    Listed,
    positions,
    store_instrument,
    stored_instruments,
)
from app.persistence.persister import Persister
from app.persistence.queries import (
    POOL_CONNECTIONS,
    POOL_WAIT_S,
    READ_PATIENCE_S,
    DatabaseUnavailable,
    OrderCursor,
    OrderFilter,
    Queries,
    TradeCursor,
    _named,
    _orders_statement,
    open_pool,
)
from app.persistence.rows import Batch, Entry, Texts
from app.up import PERSIST_STOP_TIMEOUT_S
from tests import sql_truth
from tests.free_ports import free_port
from tests.processes import standing_still
from tests.waiting import fastest_s

PATIENCE_S = 60.0
POLL_S = 0.005
ROOT = Path(__file__).resolve().parents[2]
PROCESS = """
import os
from app.config import Settings
from app.persist import run
run(Settings.from_environment(os.environ))
"""
TABLES = "events, orders, trades, positions, candles, stream_positions, instruments"


def wait_until(condition: Callable[[], object], what: str) -> None:
    deadline = time.monotonic() + PATIENCE_S
    while not condition():
        assert time.monotonic() < deadline, f"waited in vain until {what}"
        time.sleep(POLL_S)


class Tape:
    """What one book did, written to Redis as the scripts would, and kept to compare with."""

    def __init__(self, client: redis.Redis, instrument: Instrument) -> None:
        self.client = client
        self.instrument = instrument
        self.market = Market(instrument)
        self.keys = book_keys(instrument.symbol)
        self.events: list[dict[str, str]] = []
        self.orders: dict[int, dict[str, str]] = {}
        self.trades: list[Trade] = []
        self.rules = Rules()
        self.fees: list[tuple[Fraction, Fraction]] = []
        """Maker's and taker's, of each trade."""
        self.time_us = 1_700_000_000_000_000
        self._resting: list[int] = []
        client.hset(INSTRUMENTS, instrument.symbol, msgspec.json.encode(instrument).decode())

    @property
    def symbol(self) -> str:
        return self.instrument.symbol

    @property
    def last(self) -> int:
        return len(self.events)

    @property
    def open_numbers(self) -> set[int]:
        return {n for n, order in self.orders.items() if parse_record(n, _record(order)).is_open}

    def sell(self, quantity: int = 10, price: int = 500, **extra: str) -> int:
        """An order that rests."""
        number = self._new("sell", quantity, price, **extra)
        self._resting.append(number)
        self._append("place", [number], [])
        return number

    def buy(self, quantity: int = 10, price: int = 500, **extra: str) -> int:
        """An immediate-or-cancel order: takes the oldest sells at their prices."""
        number = self._new("buy", quantity, price, time_in_force="ioc", **extra)
        changed, fills, left = [number], [], quantity
        while left and self._resting:
            maker = self._resting[0]
            traded = min(left, self._open_lots(maker))
            left -= traded
            self._fill(maker, traded, int(self.orders[maker]["price_ticks"]))
            self._fill(number, traded, int(self.orders[maker]["price_ticks"]))
            self.orders[maker]["sequence"] = str(number)
            self.orders[maker]["updated_us"] = str(self.time_us)
            changed.append(maker)
            fills.append((maker, int(self.orders[maker]["price_ticks"]), traded))
            if not self._open_lots(maker):
                self._resting.pop(0)
        if left:
            self.orders[number] |= {"status": "cancelled", "reason": "ioc_remainder"}
        self._append("place", changed, fills)
        return number

    def cancel(self, number: int) -> None:
        self._tick()
        self._resting.remove(number)
        self.orders[number] |= {
            "status": "cancelled",
            "reason": "cancelled_by_client",
            "sequence": str(self.last + 1),
            "updated_us": str(self.time_us),
        }
        self._append("cancel", [number], [])

    def change_rules(self, **changes: object) -> None:
        """Such as `taker_fee_bps`; holds from the next command on."""
        self._tick()
        self.rules = msgspec.structs.replace(self.rules, **changes)
        said = rule_texts(self.rules).items()
        detail = " ".join(f"{name}={text}" for name, text in said if text)
        self._append("rules", [], [], detail=detail)

    def note(self, kind: str, detail: str) -> None:
        """A kill switch or a timer."""
        self._tick()
        self._append(kind, [], [], detail=detail)

    def change(self, kind: str, number: int, **changes: str) -> None:
        """Whatever else a command makes of an order that trades nothing."""
        self._tick()
        self.orders[number] |= changes
        self.orders[number] |= {"sequence": str(self.last + 1), "updated_us": str(self.time_us)}
        if number in self._resting and number not in self.open_numbers:
            self._resting.remove(number)
        self._append(kind, [number], [])

    def stop(self, stop_price: int = 600, **extra: str) -> int:
        """A stop order that waits."""
        stopped = {"stop_price_ticks": str(stop_price), "type": "stop", "price_ticks": ""}
        number = self._new("buy", 10, 0, **stopped | {"status": "pending"} | extra)
        self._append("place", [number], [])
        return number

    def play(self, dice: random.Random, commands: int) -> None:
        """Random commands."""
        for _ in range(commands):
            if self._resting and dice.random() < 0.2:
                self.cancel(dice.choice(self._resting))
            elif dice.random() < 0.5:
                self.buy(dice.randint(1, 30), client_id=f"c{dice.randint(1, 5)}")
            else:
                self.sell(dice.randint(1, 30), dice.randint(400, 600))

    def deal(self, dice: random.Random, trades: int) -> None:
        """Random trades of a few clients, who buy and sell: small ones, so that costs are often
        halves.
        """
        for _ in range(trades):
            lots, clients = dice.randint(1, 6), dice.choices(["alice", "bob", "carol"], k=2)
            self.sell(lots, dice.randint(1, 9), client_id=clients[0])
            self.buy(lots, client_id=clients[1])

    def _new(self, side: str, quantity: int, price: int, **extra: str) -> int:
        self._tick()
        number = self.last + 1
        self.orders[number] = {
            "status": "open",
            "quantity_lots": str(quantity),
            "filled_lots": "0",
            "notional": "0",
            "price_ticks": str(price),
            "created_us": str(self.time_us),
            "client_id": "alice",
            "side": side,
            "type": "limit",
            "time_in_force": "gtc",
            "post_only": "0",
            "self_trade_prevention": "none",
        } | extra
        return number

    def _tick(self) -> None:
        self.time_us += 1009

    def _open_lots(self, number: int) -> int:
        return int(self.orders[number]["quantity_lots"]) - int(self.orders[number]["filled_lots"])

    def _fill(self, number: int, lots: int, price: int) -> None:
        order = self.orders[number]
        order["filled_lots"] = str(int(order["filled_lots"]) + lots)
        order["notional"] = str(int(order["notional"]) + lots * price)
        order["status"] = "partially_filled" if self._open_lots(number) else "filled"

    def _append(
        self, kind: str, changed: list[int], fills: list[tuple[int, int, int]], **more: str
    ) -> None:
        records = {f"{n:014d}": _record(self.orders[n]) for n in changed}
        event = {
            "type": kind,
            "time": str(self.time_us),
            "orders": "\n".join(f"{n}|{text}" for n, text in records.items()),
            "fills": " ".join(f"{maker:014d},{p},{q}" for maker, p, q in fills),
            "levels": f"ask:500={len(self._resting)}",
            **more,
        }
        self.events.append(event)
        for index, (maker, price, lots) in enumerate(fills, 1):
            side, taker = self.orders[changed[0]]["side"], changed[0]
            self.trades.append(
                Trade(self.last, index, price, lots, side, maker, taker, self.time_us)
            )
            self.fees.append((self._fee("maker", price * lots), self._fee("taker", price * lots)))
        with self.client.pipeline(transaction=True) as pipe:
            pipe.xadd(self.keys.events, _encoded(event), id=f"{self.last}-0")  # type: ignore[arg-type]
            if records:
                pipe.hset(self.keys.orders, mapping=_encoded(records))  # type: ignore[arg-type]
            pipe.hset(self.keys.book, mapping={"schema": "any", "sequence": self.last})
            pipe.execute()

    def _fee(self, role: str, units: int) -> Fraction:
        rate = Fraction(getattr(self.rules, f"{role}_fee_bps"))
        step = Fraction(self.instrument.tick_size) * Fraction(self.instrument.lot_size)
        return units * step * rate / 10_000


def _record(order: dict[str, str]) -> str:
    return "|".join(order.get(name, "") for name in RECORD_FIELDS)


def _encoded(fields: dict[str, str]) -> dict[str, bytes]:
    return {name: text.encode("utf-8", "surrogateescape") for name, text in fields.items()}


class Servers:
    """One Redis and one Postgres for all tests of this file."""

    def __init__(self, folder: Path) -> None:
        self.redis = EmbeddedRedis(folder, port=free_port())
        self.postgres = EmbeddedPostgres(folder, port=free_port())

    def start(self, *servers: EmbeddedRedis | EmbeddedPostgres) -> None:
        for server in servers:
            server.start()
        for server in servers:
            server.wait_ready()

    def client(self) -> redis.Redis:
        return event_stream.connect(self.redis.url)

    def connect(self) -> event_store.Connection:
        return event_store.connect(self.postgres.url)

    def persister(self, **options: int) -> Persister:
        return Persister(self.client(), self.connect, **options)


@pytest.fixture(scope="module")
def running() -> Iterator[Servers]:
    # Not pytest's folders: each new session of pytest closes them to other users, and to Postgres.
    with TemporaryDirectory(prefix="crossbook-", ignore_cleanup_errors=True) as folder:
        servers = Servers(Path(folder))
        try:
            servers.start(servers.redis, servers.postgres)
            migrations.migrate(servers.postgres.url)
            yield servers
        finally:
            servers.postgres.stop()
            servers.redis.stop()


@pytest.fixture
def servers(running: Servers) -> Servers:
    running.client().flushall()
    with running.connect() as connection:
        connection.execute(f"TRUNCATE {TABLES} CASCADE")
    return running


@pytest.fixture
def client(servers: Servers) -> redis.Redis:
    return servers.client()


@pytest.fixture
def queries(servers: Servers) -> Iterator[Queries]:
    with open_pool(servers.postgres.url) as pool:
        yield Queries(pool)


@pytest.fixture
def tape(client: redis.Redis) -> Tape:
    return Tape(client, list_instrument("BTC-USD", Decimal("0.01"), Decimal("0.00000001")))


@pytest.fixture
def other(client: redis.Redis) -> Tape:
    return Tape(client, list_instrument("XRP-USD", Decimal("0.0005"), Decimal(25)))


def rows(servers: Servers, statement: str, *values: object) -> list[tuple[Any, ...]]:
    with servers.connect() as connection:
        return connection.execute(statement, values).fetchall()  # type: ignore[arg-type]


FEES = "SELECT maker_fee, taker_fee FROM trades WHERE instrument = %s ORDER BY sequence, fill_index"
POSITIONS = """
    SELECT client_id, quantity, bought_quantity, sold_quantity, bought_notional, sold_notional,
        fees, trades
    FROM positions WHERE instrument = %s ORDER BY client_id
"""
SUMS = """
    SELECT client_id, sum(bought) - sum(sold), sum(bought), sum(sold), sum(bought * price),
        sum(sold * price), sum(fee), count(*)
    FROM (
        SELECT o.client_id, t.instrument, t.price,
            CASE o.side WHEN 'buy' THEN t.quantity ELSE 0 END AS bought,
            CASE o.side WHEN 'sell' THEN t.quantity ELSE 0 END AS sold,
            CASE o.side WHEN t.side THEN t.taker_fee ELSE t.maker_fee END AS fee
        FROM trades AS t JOIN orders AS o ON o.order_id IN (t.buy_order_id, t.sell_order_id)
    ) AS parts
    WHERE instrument = %s GROUP BY client_id ORDER BY client_id
"""


def position(servers: Servers, tape: Tape) -> int:
    with servers.connect() as connection:
        return positions(connection).get(tape.symbol, 0)


def orders_in_redis(tape: Tape) -> dict[int, str]:
    """Number -> record of the orders that Redis has."""
    fields: Any = tape.client.hgetall(tape.keys.orders)
    return {int(name): record for name, record in fields.items() if name.isdigit()}


def drain(*persisters: Persister) -> None:
    """Step until nothing new comes."""
    for each in persisters:
        each.step(1)
        while each.step(1):
            pass


def group(tape: Tape) -> dict[str, Any]:
    groups: Any = tape.client.xinfo_groups(tape.keys.events)
    return next(g for g in groups if g["name"] == PERSISTER_GROUP)


def persisted_once(servers: Servers, queries: Queries, tape: Tape) -> None:
    """All of the tape is in Postgres, once and right, and Redis holds only what it should."""
    found = rows(
        servers, "SELECT sequence FROM events WHERE instrument = %s ORDER BY 1", tape.symbol
    )
    assert [sequence for (sequence,) in found] == list(range(1, tape.last + 1))
    for sequence, fields in enumerate(tape.events, 1):
        expected = parse_event(tape.symbol, f"{sequence}-0", fields)
        assert queries.event(tape.market, sequence) == expected
    for number, order in tape.orders.items():
        assert queries.order(tape.market, number) == parse_record(number, _record(order))
    found = rows(servers, "SELECT count(*) FROM orders WHERE instrument = %s", tape.symbol)
    assert found == [(len(tape.orders),)]
    assert queries.trades(tape.market, len(tape.trades) + 1) == (tape.trades[::-1], tape.last)
    found = rows(servers, FEES, tape.symbol)
    assert [(Fraction(maker), Fraction(taker)) for maker, taker in found] == tape.fees
    assert rows(servers, POSITIONS, tape.symbol) == rows(servers, SUMS, tape.symbol)
    with servers.connect() as connection:
        sql_truth.check(connection)
    assert tape.client.hget(tape.keys.book, event_stream.COMMITTED) == str(tape.last)
    assert set(orders_in_redis(tape)) == tape.open_numbers
    assert group(tape)["pending"] == 0
    assert group(tape)["last-delivered-id"] == f"{tape.last}-0"


@contextlib.contextmanager
def in_background(persister: Persister) -> Iterator[threading.Thread]:
    """The persister's own loop in a thread; stopped and joined at the end."""
    stop = threading.Event()
    thread = threading.Thread(target=persister.run, args=(stop,))
    thread.start()
    try:
        yield thread
    finally:
        stop.set()
        thread.join(PATIENCE_S)
        persister.close()
    assert not thread.is_alive()


def start_process(servers: Servers) -> subprocess.Popen[bytes]:
    environment = os.environ | {
        "REDIS_URL": servers.redis.url,
        "DATABASE_URL": servers.postgres.url,
    }
    return subprocess.Popen([sys.executable, "-c", PROCESS], cwd=ROOT, env=environment)


# --- what is written --------------------------------------------------------------------------


def test_history_is_written_down(servers: Servers, queries: Queries, tape: Tape) -> None:
    """Rule: events, orders and trades reach Postgres as they were, in batches of any size."""
    tape.play(random.Random(1), 100)
    drain(servers.persister(batch_entries=7))
    tape.play(random.Random(2), 300)
    drain(servers.persister())
    persisted_once(servers, queries, tape)


@pytest.mark.parametrize("batch_entries", [3, 500])
def test_costs_go_on_from_batch_to_batch(
    servers: Servers, queries: Queries, tape: Tape, other: Tape, batch_entries: int
) -> None:
    """Rule: what is held and what it cost goes on from what is stored, wherever a batch begins."""
    for each in (tape, other):
        each.deal(random.Random(44), 150)
    drain(servers.persister(batch_entries=batch_entries))
    persisted_once(servers, queries, tape)
    persisted_once(servers, queries, other)


def test_what_the_scripts_write_is_written_down(
    servers: Servers, queries: Queries, tape: Tape, client: redis.Redis
) -> None:
    """Rule: the events of the real scripts are read as they are meant, all kinds of them, with
    numbers up to 2^53; positions and fees are those of the trades.
    """
    books = Books(DirectExecutor(redis.Redis.from_url(servers.redis.url)), 3600)
    _drive(books, client, tape.symbol, random.Random(34))
    raw: Any = client.xrange(tape.keys.events)
    events = [parse_event(tape.symbol, entry_id, fields) for entry_id, fields in raw]
    assert {event.type for event in events} == set(EventType)
    drain(servers.persister(batch_entries=50))
    last_states = {order.number: order for event in events for order in event.orders}
    assert {order.status for order in last_states.values()} == set(Status)
    assert {n: queries.order(tape.market, n) for n in last_states} == last_states
    assert [queries.event(tape.market, event.sequence) for event in events] == events
    trades, at = queries.trades(tape.market, 10_000)
    assert (trades[::-1], at) == ([t for event in events for t in event.trades], len(events))
    assert rows(servers, FEES, tape.symbol) == _charged(tape.market, events)
    assert rows(servers, POSITIONS, tape.symbol) == rows(servers, SUMS, tape.symbol)
    with servers.connect() as connection:
        sql_truth.check(connection)
        ((_, rules),) = stored_instruments(connection)
    assert rules == _rules_after(events)
    left = orders_in_redis(tape)
    resting = {n: order for n, order in last_states.items() if order.is_open}
    assert {n: parse_record(n, record) for n, record in left.items()} == resting


def _rules_after(events: list[Event]) -> Rules:
    changes = [event.detail for event in events if event.type == EventType.RULES]
    return parse_rules_detail(changes[-1]) if changes else Rules()


def _charged(market: Market, events: list[Event]) -> list[tuple[Fraction, Fraction]]:
    charged = []
    for event in events:
        rules = _rules_after(events[: event.sequence])
        for trade in event.trades:
            price = trade.price_ticks * Fraction(market.instrument.tick_size)
            paid = price * trade.quantity_lots * Fraction(market.instrument.lot_size) / 10_000
            rates = rules.maker_fee_bps, rules.taker_fee_bps
            charged.append((paid * Fraction(rates[0]), paid * Fraction(rates[1])))
    return charged


def _drive(books: Books, client: redis.Redis, symbol: str, dice: random.Random) -> None:
    """Every kind of command, at random."""
    books.open(symbol)
    numbers = [1]
    for _ in range(600):
        with contextlib.suppress(Refused):
            _command(books, symbol, dice, numbers)
    books.set_rules(symbol, Rules())
    books.set_kill_switch(symbol, "bob", engaged=False)
    later_us = int(time.time() + 3600) * 1_000_000
    dated = {"time_in_force": "gtd", "expires_us": later_us}
    books.place(
        symbol, _order(dice, 0, "limit", side="buy", price_ticks=1, client_id="bob", **dated)
    )
    books.set_timer(symbol, "alice", 1000)
    client.hset(book_keys(symbol).book, "time", later_us)  # their time has come
    books.sweep(symbol)


def _command(books: Books, symbol: str, dice: random.Random, numbers: list[int]) -> None:
    kind = dice.random()
    target = OrderNumber(dice.choice(numbers[-30:]))
    client = dice.choice(["alice", "bob"])
    if kind < 0.7:
        stops = ["limit"] * 6 + ["market", "stop", "stop_limit"]
        placed = books.place(symbol, _order(dice, len(numbers), dice.choice(stops)))
        assert isinstance(placed, Placed)
        numbers.append(placed.order.number)
    elif kind < 0.82:
        price = EXACT_LIMIT - dice.randint(1, 20)
        change = {"price_ticks": price} if dice.random() < 0.5 else {"quantity_lots": 9}
        books.amend(symbol, Amendment(target=target, **change))
    elif kind < 0.9:
        books.cancel(symbol, Cancel(target))
    elif kind < 0.95:
        rates = Decimal(dice.randint(-50, 300)) / 8, Decimal(dice.randint(-50, 300)) / 8
        books.set_rules(symbol, Rules(maker_fee_bps=rates[0], taker_fee_bps=rates[1]))
    elif kind < 0.97:
        books.mass_cancel(symbol, client, "", Reason.CANCELLED_BY_CLIENT)
    elif kind < 0.98:
        books.set_timer(symbol, client, dice.choice([0, 10**9]))
    else:
        books.set_kill_switch(symbol, client, engaged=dice.random() < 0.2)


def _order(dice: random.Random, index: int, kind: str, **more: object) -> NewOrder:
    is_priced = kind.endswith("limit")
    can_rest = dice.random() < 0.7
    largest = 2 ** dice.choice([4, 4, 30, 49])
    quantity = dice.randint(1, largest)
    words: dict[str, Any] = {
        "side": dice.choice(["buy", "sell"]),
        "type": kind,
        "time_in_force": "gtc" if is_priced and can_rest else dice.choice(["ioc", "fok"]),
        "price_ticks": EXACT_LIMIT - dice.randint(1, 20) if is_priced else None,
        "quantity_lots": quantity,
        "stop_price_ticks": EXACT_LIMIT - dice.randint(1, 20) if "stop" in kind else None,
        "display_lots": max(1, quantity // 3) if is_priced and dice.random() < 0.2 else None,
        "post_only": kind == "limit" and can_rest and dice.random() < 0.1,
        "client_id": dice.choice(["alice", "bob"]),
        "client_order_id": f"{index}",
        "idempotency_key": dice.choice(["", f"key {index}"]),
        "self_trade_prevention": dice.choice([*SelfTradePrevention]),
    }
    return NewOrder(**words | more)


def test_several_instruments_share_a_batch(
    servers: Servers, queries: Queries, tape: Tape, other: Tape
) -> None:
    """Rule: one transaction takes the news of all instruments, each with its own numbers."""
    tape.play(random.Random(3), 50)
    other.play(random.Random(4), 70)
    one = servers.persister()
    assert one.step(1) == 120
    persisted_once(servers, queries, tape)
    persisted_once(servers, queries, other)


def test_orders_of_every_kind_are_written_down(
    servers: Servers, queries: Queries, tape: Tape
) -> None:
    """Rule: what a stop, an iceberg, a dated order and their changes are in the book, the same they
    are when read back from Postgres; those that are over leave Redis.
    """
    stop = tape.stop(self_trade_prevention="decrement")
    limit = tape.stop(
        type="stop_limit", price_ticks="610", time_in_force="gtd", expires_us=YEAR_END
    )
    iceberg = tape.sell(display_lots="4", displayed_lots="4", idempotency_key="k")
    dated = tape.sell(time_in_force="gtd", expires_us=str(tape.time_us + 5))
    waiting = tape.stop(client_order_id="waits")
    drain(servers.persister())
    persisted_once(servers, queries, tape)
    tape.change("amend", stop, stop_price_ticks="605", quantity_lots="7")
    tape.change("trigger", limit, status="open", priority=f"{tape.last + 1:014d}")
    tape.change("amend", iceberg, displayed_lots="3", quantity_lots="3")
    tape.change("expire", dated, status="expired", reason="expired")
    tape.change("mass_cancel", stop, status="cancelled", reason="cancel_after")
    drain(servers.persister())
    persisted_once(servers, queries, tape)
    listed, _ = queries.orders(OrderFilter(statuses=("pending", "expired")), 10)
    assert [each.order.number for each in listed] == [waiting, dated]


def test_every_query_of_the_readme_works(servers: Servers, tape: Tape) -> None:
    """Rule: what db/README.md tells an operator to type is answered; and what it says returns no
    row returns none.
    """
    tape.change_rules(taker_fee_bps=Decimal("1.5"))
    tape.play(random.Random(41), 100)
    drain(servers.persister())
    text = (ROOT / "db" / "README.md").read_text(encoding="utf-8")
    queries = re.findall(r'psql "\$DATABASE_URL" -c "(SELECT [^"]+)"', text)
    assert len(queries) >= 10
    empty = re.findall(r'(SELECT [^"]+)"\n\n +returns no row', text)
    assert len(empty) == 3
    for query in queries:
        found = rows(servers, query)
        assert not (found and query in empty), query


def test_time_zone_of_the_server_does_not_matter(
    servers: Servers, queries: Queries, tape: Tape
) -> None:
    """Rule: times up to the end of the calendar are written and read wherever Postgres stands."""
    tape.sell(time_in_force="gtd", expires_us=YEAR_END)
    tape.sell(time_in_force="gtd", expires_us="1")
    with servers.connect() as connection:
        connection.execute(f"ALTER DATABASE {DATABASE} SET TimeZone = 'Asia/Tokyo'")
    try:
        drain(servers.persister())
        with open_pool(servers.postgres.url) as pool:
            persisted_once(servers, Queries(pool), tape)
    finally:
        with servers.connect() as connection:
            connection.execute(f"ALTER DATABASE {DATABASE} RESET TimeZone")


YEAR_END = "253402300799999999"  # the last microsecond of 9999: the last that a calendar has


def test_events_without_orders_are_written_down(
    servers: Servers, queries: Queries, tape: Tape
) -> None:
    """Rule: rules, kill switches and timers are events like others; they may be a batch's only
    ones, and the last that a restart finds.
    """
    tape.sell()
    tape.note("kill_switch", "alice|1")
    tape.note("cancel_after", "alice|1700000000000000")
    drain(servers.persister())
    persisted_once(servers, queries, tape)
    tape.note("kill_switch", "alice|")
    tape.change_rules(max_open_orders=2)
    tape.note("cancel_after", "alice|")
    drain(servers.persister())
    persisted_once(servers, queries, tape)
    found = queries.event(tape.market, 2)
    assert found is not None
    assert (found.type, found.detail, found.orders) == ("kill_switch", "alice|1", ())


def test_changed_detail_is_divergence(servers: Servers, tape: Tape) -> None:
    """Rule: an event that differs in nothing but its detail is another event."""
    tape.note("kill_switch", "alice|1")
    drain(servers.persister())
    raw: Any = tape.client.xrange(tape.keys.events)
    tape.client.delete(tape.keys.events)
    tape.client.xadd(tape.keys.events, raw[0][1] | {"detail": "bob|1"}, id="1-0")
    one = servers.persister()
    drain(one)
    halted_with(one, tape, "diverged", 1)


@pytest.mark.parametrize("batch_entries", [1, 2, 3, 100])
def test_fees_are_those_in_force(
    servers: Servers, queries: Queries, tape: Tape, other: Tape, batch_entries: int
) -> None:
    """Rule: a trade is charged by the rules of its sequence, wherever batches begin and end; and
    the table has the rules as of the position.
    """
    with servers.connect() as connection:
        store_instrument(connection, other.instrument, Rules(taker_fee_bps=Decimal(30)))
    other.rules = Rules(taker_fee_bps=Decimal(30))
    tape.sell(60)
    other.sell(60)
    for rate in ("5", "-1.5", "0.000000000000000001", "0"):
        tape.buy(7)
        other.buy(7)
        tape.change_rules(maker_fee_bps=Decimal(rate), max_order_lots=100)
        tape.buy(3, client_id="bob")
        tape.change_rules(taker_fee_bps=Decimal(rate) * 2, status="cancel_only")
    drain(servers.persister(batch_entries=batch_entries))
    tape.buy(1)
    drain(servers.persister(batch_entries=batch_entries))
    assert len(set(tape.fees)) > 5
    persisted_once(servers, queries, tape)
    persisted_once(servers, queries, other)
    with servers.connect() as connection:
        assert [each.rules for each in stored_instruments(connection)] == [tape.rules, other.rules]


def test_first_rules_are_kept(servers: Servers, tape: Tape) -> None:
    """Rule: what an instrument was listed with is not forgotten when it changes: the events alone
    do not tell it.
    """
    with servers.connect() as connection:
        store_instrument(connection, tape.instrument, EVERY_RULE)
    tape.change_rules(taker_fee_bps=Decimal(7))
    drain(servers.persister())
    ((first, now),) = rows(servers, "SELECT first_rules, taker_fee_bps FROM instruments")
    assert (parse_rules_detail(first), now) == (EVERY_RULE, 7)


def test_refused_batch_charges_what_it_should(
    servers: Servers, queries: Queries, tape: Tape
) -> None:
    """Rule: rules in a batch that was refused and is written in parts hold from where they are."""
    tape.sell(60)
    tape.buy(5)
    tape.change_rules(taker_fee_bps=Decimal(3))
    tape.buy(5)
    drain_until = tape.last
    tape.change_rules(taker_fee_bps=Decimal(4))
    tape.sell(client_id="a\0b")
    one = servers.persister()
    drain(one)
    halted_with(one, tape, "refused", drain_until + 2)
    charged = rows(servers, FEES, tape.symbol)
    assert [(Fraction(maker), Fraction(taker)) for maker, taker in charged] == tape.fees
    with servers.connect() as connection:
        assert [each.rules for each in stored_instruments(connection)] == [tape.rules]


def test_committed_sequence_is_told_to_the_book(servers: Servers, tape: Tape) -> None:
    """Rule: the book knows how far it is committed, also after a crash that left it in the dark; it
    never goes back; and a book that is gone is not made by it.
    """
    committed = partial(tape.client.hget, tape.keys.book, event_stream.COMMITTED)
    tape.play(random.Random(40), 20)
    drain(servers.persister(batch_entries=6))
    assert committed() == "20"
    event_stream.drop(tape.client, tape.symbol, range(3, 9), [], 0)
    assert committed() == "20"
    for lost in ((), (tape.keys.events,)):  # the latter as a rebuilt Redis would be
        tape.client.hdel(tape.keys.book, event_stream.COMMITTED)
        tape.client.delete(*lost, "nothing")
        drain(servers.persister())
        assert committed() == "20"
    tape.client.delete(tape.keys.book)
    event_stream.drop(tape.client, tape.symbol, range(3, 9), [], 0)
    event_stream.note_committed(tape.client, tape.symbol, 20)
    assert not tape.client.exists(tape.keys.book)


def test_batches_are_cut_by_rows(
    servers: Servers, queries: Queries, tape: Tape, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Rule: a transaction's size is bounded also where single commands change many orders."""
    tape.play(random.Random(5), 200)
    monkeypatch.setattr(persister, "transactions", partial(persister.transactions, rows_max=9))
    one = servers.persister()
    assert one.step(1) == 200
    persisted_once(servers, queries, tape)


def test_numbers_stay_exact(servers: Servers, queries: Queries, client: redis.Redis) -> None:
    """Rule: the greatest ticks and lots, 18 decimals and their exact products survive the way."""
    most = EXACT_LIMIT - 1
    step = Decimal("0.000000000000000001")
    extreme = Tape(client, list_instrument("AA-BB", step, step, step * most, step * most))
    extreme.sell(most, most, client_order_id="x", idempotency_key="y", post_only="1")
    extreme.sell(most, 1)
    extreme.buy(most, most)
    drain(servers.persister())
    persisted_once(servers, queries, extreme)
    found = rows(
        servers,
        "SELECT price::text, quantity::text, notional::text FROM orders WHERE order_id = %s",
        "AA-BB-00000000000001",
    )
    product = str(most * most).zfill(37)
    assert found == [
        ("0.009007199254740991", "0.009007199254740991", f"{product[:-36]}.{product[-36:]}")
    ]


def test_finished_orders_leave_redis(servers: Servers, tape: Tape) -> None:
    """Rule: an order that is over leaves Redis after its commit, an open one stays."""
    filled, cancelled, resting = tape.sell(), tape.sell(price=600), tape.sell(price=700)
    tape.cancel(cancelled)
    taker = tape.buy(10)
    assert set(orders_in_redis(tape)) == {filled, cancelled, resting, taker}
    drain(servers.persister())
    assert set(orders_in_redis(tape)) == {resting}


def test_trimming_keeps_the_window(servers: Servers, tape: Tape) -> None:
    """Rule: committed entries beyond the window leave the stream; the newest stay for feeds."""
    tape.play(random.Random(6), 1500)
    drain(servers.persister(window=300, batch_entries=100))
    first: Any = tape.client.xrange(tape.keys.events, count=1)
    length = tape.client.xlen(tape.keys.events)
    # Redis trims whole nodes of 100 entries.
    assert 300 <= length <= 400
    assert first[0][0] == f"{1500 - length + 1}-0"


def test_position_that_was_tampered_with_halts_its_instrument(
    servers: Servers, queries: Queries, tape: Tape, other: Tape
) -> None:
    """Rule: what a client holds is no whole number of lots and ticks: nothing is computed from it,
    the others go on, and so does it once that is repaired.
    """
    tape.sell()
    tape.buy()
    one = servers.persister()
    drain(one)
    tamper = "UPDATE positions SET cost = cost + %s WHERE instrument = %s RETURNING 1"
    rows(servers, tamper, Decimal("0.00000000001"), tape.symbol)
    tape.sell()
    tape.buy(client_id="bob")
    other.play(random.Random(43), 20)
    drain(one)
    halted_with(one, tape, "refused", 4)
    assert position(servers, other) == 20
    rows(servers, tamper, Decimal("-0.00000000001"), tape.symbol)
    one._recheck_at.clear()
    drain(one)
    assert one.halted == {}
    persisted_once(servers, queries, tape)
    persisted_once(servers, queries, other)


def test_trimming_never_passes_the_position(servers: Servers, tape: Tape) -> None:
    """Rule: what is not committed is never trimmed, however long the backlog is."""
    tape.play(random.Random(7), 1000)
    one = servers.persister(window=1, batch_entries=150)
    while one.step(1):
        first: Any = tape.client.xrange(tape.keys.events, count=1)
        assert int(first[0][0].split("-")[0]) <= position(servers, tape)
        assert tape.client.xlen(tape.keys.events) >= 1000 - position(servers, tape)


def test_new_instrument_is_learnt(
    servers: Servers, queries: Queries, tape: Tape, client: redis.Redis
) -> None:
    """Rule: an instrument listed while the persister runs is followed without a restart."""
    tape.sell()
    with in_background(servers.persister()):
        wait_until(lambda: position(servers, tape) == 1, "the first instrument is persisted")
        late = Tape(client, list_instrument("NEW-USD", Decimal(1), Decimal(1)))
        late.play(random.Random(8), 20)
        wait_until(lambda: position(servers, late) == 20, "the new instrument is persisted")
    persisted_once(servers, queries, late)


# --- exactly once -----------------------------------------------------------------------------


@pytest.mark.slow
def test_killed_at_random_moments(
    servers: Servers, queries: Queries, tape: Tape, other: Tape
) -> None:
    """Rule: kill -9 of the persister, whenever, neither loses an event nor writes one twice."""
    seed = random.randrange(2**32)
    print(f"seed {seed}")  # noqa: T201
    dice = random.Random(seed)
    playing = threading.Event()

    def trade_on() -> None:
        while not playing.is_set():
            tape.play(dice_of_tape, 5)
            tape.change_rules(taker_fee_bps=Decimal(dice_of_tape.randint(-9, 99)))
            other.play(dice_of_tape, 5)
            playing.wait(0.002)

    dice_of_tape = random.Random(seed + 1)
    producer = threading.Thread(target=trade_on)
    producer.start()
    try:
        for _ in range(12):
            goal = position(servers, tape) + dice.randint(1, 60)
            process = start_process(servers)
            wait_until(lambda goal=goal: position(servers, tape) >= goal, "it makes progress")
            playing.wait(dice.uniform(0, 0.05))  # no synchronisation: the moment is the random part
            process.kill()
            process.wait()
    finally:
        playing.set()
        producer.join()
    drain(servers.persister())
    persisted_once(servers, queries, tape)
    persisted_once(servers, queries, other)


@pytest.mark.parametrize("done", ["nothing", "forgetting", "everything but acknowledging"])
def test_crash_after_commit_is_made_good(
    servers: Servers, queries: Queries, tape: Tape, monkeypatch: pytest.MonkeyPatch, done: str
) -> None:
    """Rule: what a crash between commit and clean-up left undone is done at the next start."""
    tape.play(random.Random(9), 60)

    def crash(
        client: redis.Redis, symbol: str, sequences: range, over: list[int], keep_from: int
    ) -> None:
        if done != "nothing":
            half = len(over) // (2 if done == "forgetting" else 1)
            client.hdel(tape.keys.orders, *(f"{n:014d}" for n in over[:half]))
        raise SystemExit

    with monkeypatch.context() as patch:
        patch.setattr(event_stream, "drop", crash)
        with pytest.raises(SystemExit):
            servers.persister().step(1)
    assert position(servers, tape) == 60
    assert group(tape)["pending"] == 60
    drain(servers.persister())
    persisted_once(servers, queries, tape)


def test_pending_entry_that_is_gone_is_acknowledged(
    servers: Servers, queries: Queries, tape: Tape, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Rule: what is committed does not stay in the group's list, also if its entry was deleted."""
    tape.play(random.Random(32), 20)
    with monkeypatch.context() as patch:
        patch.setattr(event_stream, "drop", lambda *_: sys.exit())
        with pytest.raises(SystemExit):
            servers.persister().step(1)
    tape.client.xdel(tape.keys.events, "20-0")
    drain(servers.persister())
    assert group(tape)["pending"] == 0


def test_crash_before_commit_is_made_good(
    servers: Servers, queries: Queries, tape: Tape, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Rule: entries that were delivered and not committed are read again."""
    tape.play(random.Random(10), 60)
    with monkeypatch.context() as patch:
        patch.setattr(event_store, "write", lambda *_: sys.exit())
        with pytest.raises(SystemExit):
            servers.persister().step(1)
    assert group(tape)["pending"] == 60
    assert position(servers, tape) == 0
    drain(servers.persister())
    persisted_once(servers, queries, tape)


@pytest.mark.parametrize("group_is", ["rewound", "gone"])
def test_lost_group_is_no_harm(
    servers: Servers, queries: Queries, tape: Tape, group_is: str
) -> None:
    """Rule: it starts from Postgres's position, not from the group's; and Redis of a moment ago,
    with orders that had left already, is cleaned again.
    """
    tape.play(random.Random(11), 60)
    remembered = 0 if group_is == "gone" else 13
    drain(servers.persister())
    for number, order in tape.orders.items():
        if parse_record(number, _record(order)).sequence > remembered:
            tape.client.hset(tape.keys.orders, f"{number:014d}", _record(order))
    if group_is == "gone":
        tape.client.xgroup_destroy(tape.keys.events, PERSISTER_GROUP)
    else:
        tape.client.xgroup_setid(tape.keys.events, PERSISTER_GROUP, f"{remembered}-0")
    tape.sell()
    drain(servers.persister())
    persisted_once(servers, queries, tape)


def test_two_persisters_at_once(
    servers: Servers, queries: Queries, tape: Tape, other: Tape
) -> None:
    """Rule: two persisters run by mistake write everything once, at the right fees, and halt
    nothing.
    """
    for rate in range(30):
        tape.play(random.Random(rate), 50)
        tape.change_rules(taker_fee_bps=Decimal(rate), maker_fee_bps=Decimal(-rate))
    other.play(random.Random(13), 1500)
    pair = [servers.persister(batch_entries=20) for _ in range(2)]
    with in_background(pair[0]), in_background(pair[1]):
        more = random.Random(14)
        for _ in range(100):
            tape.play(more, 5)
        for each in (tape, other):
            wait_until(lambda each=each: position(servers, each) == each.last, "both are through")
    assert [each.halted for each in pair] == [{}, {}]
    drain(servers.persister())
    persisted_once(servers, queries, tape)
    persisted_once(servers, queries, other)


def test_second_persister_waits_for_the_position(
    servers: Servers, queries: Queries, tape: Tape
) -> None:
    """Rule: a transaction begins by locking its positions; who comes second sees them moved, and
    writes nothing.
    """
    first, second = servers.persister(), servers.persister()
    with servers.connect() as holder:
        first._connect_postgres = lambda: holder
        tape.sell()
        drain(first, second)
        tape.play(random.Random(33), 30)
        with holder.transaction():
            first.step(1)  # within our transaction: not committed yet
            event_stream.seek(tape.client, tape.symbol, 1)
            thread = threading.Thread(target=drain, args=(second,))
            thread.start()
            wait_until(lambda: _waiting_for_a_lock(servers), "the second waits for a lock")
            assert "FOR UPDATE" in _waiting_for_a_lock(servers)
        thread.join(PATIENCE_S)
    assert second.halted == {}
    drain(servers.persister())
    persisted_once(servers, queries, tape)


def _waiting_for_a_lock(servers: Servers) -> str:
    found = rows(servers, "SELECT query FROM pg_stat_activity WHERE wait_event_type = 'Lock'")
    return "".join(query for (query,) in found)


def test_second_persister_takes_over(servers: Servers, queries: Queries, tape: Tape) -> None:
    """Rule: entries in the hands of a persister that stands still are no gap for another."""
    tape.play(random.Random(15), 100)
    standing, working = servers.persister(batch_entries=30), servers.persister(batch_entries=30)
    standing.step(1)
    event_stream.read(servers.client(), [tape.symbol], 30, 1)  # delivered to nobody who works
    drain(working)
    assert working.halted == {}
    tape.sell()
    drain(standing)
    persisted_once(servers, queries, tape)


# --- outages ----------------------------------------------------------------------------------


@pytest.mark.slow
def test_postgres_stopped_under_load(
    servers: Servers, queries: Queries, tape: Tape, other: Tape
) -> None:
    """Rule: while Postgres is away the stream holds the backlog, and afterwards nothing is missing
    or twice.
    """
    dice = random.Random(16)
    with in_background(servers.persister()) as thread:
        tape.play(dice, 100)
        wait_until(lambda: position(servers, tape) > 0, "it persists")
        servers.postgres.stop()
        try:
            stopped_at = time.monotonic()
            while time.monotonic() < stopped_at + 3:  # load, not synchronisation
                tape.play(dice, 20)
                other.play(dice, 20)
            assert thread.is_alive()
        finally:
            servers.start(servers.postgres)
        for each in (tape, other):
            wait_until(lambda each=each: position(servers, each) == each.last, "it caught up")
    drain(servers.persister())
    persisted_once(servers, queries, tape)
    persisted_once(servers, queries, other)


def test_redis_restarted(servers: Servers, queries: Queries, tape: Tape) -> None:
    """Rule: while Redis is away the persister waits, and goes on when it is back."""
    with in_background(servers.persister()) as thread:
        tape.play(random.Random(17), 50)
        wait_until(lambda: position(servers, tape) == 50, "it persists")
        servers.redis.stop()
        servers.start(servers.redis)
        tape.client.connection_pool.disconnect()
        tape.play(random.Random(18), 50)
        wait_until(lambda: position(servers, tape) == 100, "it goes on")
        assert thread.is_alive()
    drain(servers.persister())
    persisted_once(servers, queries, tape)


def test_started_before_the_tables(servers: Servers, queries: Queries, tape: Tape) -> None:
    """Rule: a persister that is started before the migrations waits for them."""
    tape.sell()
    migrations.roll_back(servers.postgres.url)
    try:
        with in_background(servers.persister()) as thread:
            assert thread.is_alive()
            migrations.migrate(servers.postgres.url)
            wait_until(lambda: position(servers, tape) == 1, "it persists")
    finally:
        migrations.migrate(servers.postgres.url)
    persisted_once(servers, queries, tape)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_stops_when_asked(
    servers: Servers, queries: Queries, tape: Tape, number: signal.Signals
) -> None:
    """Rule: SIGTERM and SIGINT end the process with code 0 and leave nothing half done."""
    tape.play(random.Random(19), 200)
    process = start_process(servers)
    try:
        wait_until(lambda: position(servers, tape) > 0, "it persists")
        process.send_signal(number)
        assert process.wait(PATIENCE_S) == 0
    finally:
        process.kill()
    assert position(servers, tape) == 200
    persisted_once(servers, queries, tape)


# --- what must not be persisted ---------------------------------------------------------------


def halted_with(one: Persister, tape: Tape, code: str, sequence: int) -> None:
    """The persister, Redis and the group's position all say so."""
    halt = one.halted[tape.symbol]
    assert (halt.code, halt.sequence) == (code, sequence)
    published: Any = tape.client.hget(HALTED, tape.symbol)
    assert json.loads(published)["code"] == code


def goes_on_with(servers: Servers, queries: Queries, one: Persister, other: Tape) -> None:
    other.play(random.Random(20), 30)
    drain(one)
    assert set(one.halted) == {"BTC-USD"}
    persisted_once(servers, queries, other)


def rewrite_history(tape: Tape, client: redis.Redis, length: int) -> Tape:
    """A Redis that lost what came after some point and went on differently, `length` events."""
    client.delete(*tape.keys)
    again = Tape(client, tape.instrument)
    for _ in range(length):
        again.sell(quantity=99)
    return again


def test_diverged_history_is_recognised(
    servers: Servers, queries: Queries, tape: Tape, other: Tape, client: redis.Redis
) -> None:
    """Rule: an entry that differs from the row that is there halts its instrument, overwrites
    nothing and leaves the others alone.
    """
    tape.play(random.Random(21), 40)
    drain(servers.persister())
    before = rows(servers, "SELECT * FROM events ORDER BY sequence")
    rewrite_history(tape, client, 45)
    one = servers.persister()
    drain(one)
    halted_with(one, tape, "diverged", 1)
    assert rows(servers, "SELECT * FROM events ORDER BY sequence") == before
    goes_on_with(servers, queries, one, other)


def test_rewound_redis_is_recognised_while_running(
    servers: Servers, tape: Tape, client: redis.Redis
) -> None:
    """Rule: the same without a restart of the persister: after trouble it looks again."""
    tape.play(random.Random(22), 40)
    one = servers.persister()
    drain(one)
    rewrite_history(tape, client, 45)
    with pytest.raises(redis.ResponseError, match="NOGROUP") as trouble:
        one.step(1)
    assert one.recover(trouble.value, 1) > 0
    drain(one)
    halted_with(one, tape, "diverged", 1)


def test_redis_behind_is_recognised(
    servers: Servers, queries: Queries, tape: Tape, other: Tape, client: redis.Redis
) -> None:
    """Rule: a Redis that has fewer events than Postgres halts the instrument."""
    tape.play(random.Random(23), 40)
    drain(servers.persister())
    tape.client.xtrim(tape.keys.events, maxlen=0, approximate=False)
    rewrite_history(tape, client, 39)
    one = servers.persister()
    drain(one)
    halted_with(one, tape, "redis_behind", 40)
    goes_on_with(servers, queries, one, other)


def test_rebuilt_redis_is_no_divergence(
    servers: Servers, queries: Queries, tape: Tape, client: redis.Redis
) -> None:
    """Rule: an empty stream below a book at the committed sequence (a rebuilt one) is continued."""
    tape.play(random.Random(24), 40)
    drain(servers.persister())
    client.delete(tape.keys.events)
    tape.sell()
    drain(servers.persister())
    persisted_once(servers, queries, tape)


def test_gap_is_recognised(
    servers: Servers, queries: Queries, tape: Tape, other: Tape, caplog: pytest.LogCaptureFixture
) -> None:
    """Rule: where an entry is missing its instrument halts there, is reported once, and nothing
    behind the gap is written.
    """
    for _ in range(5):
        tape.sell()
    tape.client.xdel(tape.keys.events, "3-0")
    one = servers.persister()
    drain(one)
    halted_with(one, tape, "gap", 3)
    assert position(servers, tape) == 2
    assert rows(servers, "SELECT max(sequence) FROM events") == [(2,)]
    assert group(tape)["last-delivered-id"] == "2-0"
    goes_on_with(servers, queries, one, other)
    one._recheck_at.clear()
    drain(one)
    halted_with(one, tape, "gap", 3)
    assert sum(record.levelname == "ERROR" for record in caplog.records) == 1


POISON = {
    "no fields of ours": {"hello": "world"},
    "malformed UTF-8": {"client_id": "\udcff"},
    "NUL": {"client_id": "a\0b"},
    "more filled than ordered": {"filled_lots": "11"},
    "no such status": {"status": "asleep"},
    "filled but not": {"status": "filled"},
    "a field too many": {"idempotency_key": "a|b"},
    "client too long for an index": {"client_id": "x" * 3_000_000},
}


@pytest.mark.parametrize("name", POISON)
def test_poison_is_recognised(
    servers: Servers, queries: Queries, tape: Tape, other: Tape, name: str
) -> None:
    """Rule: an entry that cannot be read, or that Postgres refuses, halts its instrument exactly
    there: all before it is written, nothing behind it, and other instruments go on.
    """
    other.play(random.Random(25), 20)
    tape.play(random.Random(26), 20)
    if name == "no fields of ours":
        tape.client.xadd(tape.keys.events, POISON[name], id="21-0")  # type: ignore[arg-type]
        tape.events.append(POISON[name])
    else:
        tape.sell(**POISON[name])
    tape.sell()
    one = servers.persister()
    drain(one)
    halt = one.halted[tape.symbol]
    assert halt.code in {"poison", "refused"}
    assert halt.sequence == 21
    assert position(servers, tape) == 20
    halted_with(one, tape, halt.code, 21)
    goes_on_with(servers, queries, one, other)


def test_other_sizes_are_recognised(servers: Servers, tape: Tape) -> None:
    """Rule: an instrument whose sizes differ from the stored ones halts; other limits do not
    matter.
    """
    tape.sell()
    with servers.connect() as connection:
        other_limit = msgspec.structs.replace(tape.instrument, max_price=Decimal(1000))
        store_instrument(connection, other_limit, Rules(max_open_orders=7))
    one = servers.persister()
    drain(one)
    assert one.halted == {}
    changed = msgspec.structs.replace(tape.instrument, lot_size=Decimal("0.1"))
    tape.client.hset(INSTRUMENTS, tape.symbol, msgspec.json.encode(changed).decode())
    one = servers.persister()
    drain(one)
    halted_with(one, tape, "instrument_differs", 1)


def test_repaired_instrument_goes_on(servers: Servers, queries: Queries, tape: Tape) -> None:
    """Rule: a halt that has been repaired is withdrawn without a restart."""
    tape.play(random.Random(27), 10)
    good = msgspec.json.encode(tape.instrument).decode()
    tape.client.hset(INSTRUMENTS, tape.symbol, "{")
    one = servers.persister()
    drain(one)
    halted_with(one, tape, "instrument_unreadable", 1)
    tape.client.hset(INSTRUMENTS, tape.symbol, good)
    one._recheck_at.clear()
    one._learn_at = 0.0
    drain(one)
    assert one.halted == {}
    assert not tape.client.hexists(HALTED, tape.symbol)
    persisted_once(servers, queries, tape)


@pytest.mark.parametrize("code", ["gap", "instrument_differs"])
def test_halted_instrument_is_suspended(servers: Servers, tape: Tape, code: str) -> None:
    """Rule: nothing more is accepted in an instrument while it is not written down: its book says
    why, until the persister, or one started later, finds it in order.
    """
    suspended = partial(tape.client.hget, tape.keys.book, "suspended")
    tape.client.hset(tape.keys.book, "schema", "1")
    tape.sell()
    drain(servers.persister())
    assert suspended() is None
    tape.sell()
    good = msgspec.json.encode(tape.instrument).decode()
    if code == "gap":
        tape.sell()
        raw: Any = tape.client.xrange(tape.keys.events, "2-0")
        tape.client.xdel(tape.keys.events, "2-0")
    else:
        tape.client.hset(INSTRUMENTS, tape.symbol, good.replace("0.01", "0.02"))
    drain(servers.persister())
    assert suspended() == code
    drain(servers.persister())
    assert suspended() == code
    if code == "gap":  # as a newer backup of Postgres would
        second = servers.persister()
        with servers.connect() as connection:
            event_store.write(connection, _batch(tape, raw))
    else:
        tape.client.hset(INSTRUMENTS, tape.symbol, good)
        second = servers.persister()
    drain(second)
    assert position(servers, tape) == tape.last
    assert suspended() is None
    assert halts.announced(tape.client, tape.symbol) is None


def _batch(tape: Tape, raw: list[tuple[str, dict[str, str]]]) -> Batch:
    batch = Batch()
    texts = Texts(tape.instrument)
    for entry_id, fields in raw:
        batch.add(texts, Entry(int(entry_id.split("-")[0]), fields), texts.fees(Rules()))
    return batch


def test_halt_found_while_reading_outlives_a_restart(servers: Servers, tape: Tape) -> None:
    """Rule: a persister that has only looked where things stand, and not read yet, does not let
    trading go on in an instrument that another one halted while reading.
    """
    tape.client.hset(tape.keys.book, "schema", "1")
    for _ in range(3):
        tape.sell()
    tape.client.xdel(tape.keys.events, "2-0")
    drain(servers.persister())
    restarted = servers.persister()
    restarted._learn()
    restarted._start(restarted._ready_connection(), tape.instrument)
    assert tape.client.hget(tape.keys.book, "suspended") == "gap"
    drain(restarted)
    halted_with(restarted, tape, "gap", 2)


def test_lost_book_is_not_made_by_a_halt(servers: Servers, tape: Tape) -> None:
    """Rule: an instrument without a book is halted without a trace of one: it would pass for it."""
    tape.sell()
    drain(servers.persister())
    tape.client.delete(*tape.keys)
    one = servers.persister()
    drain(one)
    halted_with(one, tape, "redis_behind", 1)
    assert not tape.client.exists(tape.keys.book)


@pytest.mark.parametrize("code", ["redis_behind", "diverged"])
def test_book_that_went_back_is_fenced(servers: Servers, tape: Tape, code: str) -> None:
    """Rule: what Redis accepted on top of a lost history would be lost when it is rebuilt, so the
    book takes nothing at all; until its history is there again.
    """
    tape.client.hset(tape.keys.book, mapping={"schema": "1", "rebuilt": "7"})
    for _ in range(3):
        tape.sell()
    drain(servers.persister())
    raw: Any = tape.client.xrange(tape.keys.events)
    tape.client.delete(tape.keys.events)
    tape.client.hset(tape.keys.book, "sequence", "2" if code == "redis_behind" else "3")
    entries = raw[:2] if code == "redis_behind" else [*raw[:2], ("3-0", raw[2][1] | {"time": "9"})]
    for entry_id, fields in entries:
        tape.client.xadd(tape.keys.events, fields, entry_id)
    drain(servers.persister())
    fields = ("suspended", "fenced", "rebuilt")
    assert tape.client.hmget(tape.keys.book, fields) == [code, code, "fenced"]
    tape.client.delete(tape.keys.events)
    for entry_id, fields_of_entry in raw:
        tape.client.xadd(tape.keys.events, fields_of_entry, entry_id)
    tape.client.hset(tape.keys.book, "sequence", "3")
    drain(servers.persister())
    *marks, rebuilt = tape.client.hmget(tape.keys.book, fields)
    assert marks == [None, None]
    assert int(str(rebuilt)) > 7, "whoever knew the book looks at it anew"


def test_what_the_api_found_lost_stays_lost(servers: Servers, tape: Tape) -> None:
    """Rule: Redis and Postgres agree, and clients were told of more: no persister can know better.
    What there is, it writes down.
    """
    tape.client.hset(tape.keys.book, mapping={"schema": "1", "sequence": "2", "rebuilt": "7"})
    tape.sell()
    tape.sell()
    lost = halts.announce_lost(tape.client, tape.symbol, Standing(rebuilt=7, floor=5))
    one = servers.persister()
    drain(one)
    drain(servers.persister())
    assert position(servers, tape) == 2
    assert halts.announced(tape.client, tape.symbol) == lost == one.halted[tape.symbol]
    assert tape.client.hget(tape.keys.book, "rebuilt") == "fenced"


def test_what_the_api_found_lost_outlives_a_halt_found_before(servers: Servers, tape: Tape) -> None:
    """Rule: a newer copy of Redis took the place of one that was behind; it agrees with Postgres,
    and still lacks what clients were told of.
    """
    tape.client.hset(tape.keys.book, mapping={"schema": "1", "sequence": "2", "rebuilt": "7"})
    tape.sell()
    tape.sell()
    drain(servers.persister())
    tape.client.hset(tape.keys.book, "sequence", "1")
    entry: Any = tape.client.xrange(tape.keys.events, "2-0")
    tape.client.xdel(tape.keys.events, "2-0")
    one = servers.persister()
    drain(one)
    halted_with(one, tape, "redis_behind", 2)
    tape.client.delete(tape.keys.events, HALTED)
    tape.client.hset(tape.keys.book, mapping={"sequence": "2", "rebuilt": "7"})
    tape.client.hdel(tape.keys.book, "fenced", "suspended")
    tape.client.xadd(tape.keys.events, entry[0][1], "2-0")
    lost = halts.announce_lost(tape.client, tape.symbol, Standing(rebuilt=7, floor=5))
    one._recheck_at.clear()
    drain(one)
    assert tape.client.hget(tape.keys.book, "fenced") == "acknowledged_lost"
    assert halts.announced(tape.client, tape.symbol) == lost


def test_full_memory_does_not_keep_the_backlog_from_being_written(
    servers: Servers, queries: Queries, tape: Tape
) -> None:
    """Rule: what makes room must not need room."""
    tape.client.hset(tape.keys.book, "schema", "1")
    tape.play(random.Random(38), 100)
    drain(servers.persister())
    tape.play(random.Random(39), 100)
    tape.client.config_set("maxmemory", "1")
    try:
        drain(servers.persister())
    finally:
        tape.client.config_set("maxmemory", "0")
    assert position(servers, tape) == 200
    drain(servers.persister())  # the book hears of it now
    persisted_once(servers, queries, tape)


def forget(servers: Servers, symbol: str, after: int) -> None:
    """Postgres as it was when that event was the last; as if it never knew the book with 0."""
    with servers.connect() as connection:
        for table in ("events", "trades", "orders"):
            connection.execute(
                f"DELETE FROM {table} WHERE instrument = %s AND sequence > %s", (symbol, after)
            )
        for table in ("positions", "candles"):
            connection.execute(f"DELETE FROM {table} WHERE instrument = %s", (symbol,))
        connection.execute(
            "UPDATE stream_positions SET sequence = %s WHERE instrument = %s", (after, symbol)
        )
        if not after:
            connection.execute("DELETE FROM stream_positions WHERE instrument = %s", (symbol,))
            connection.execute("DELETE FROM instruments WHERE symbol = %s", (symbol,))


@pytest.mark.parametrize("known", ["nothing", "too little"])
def test_other_database_is_recognised(servers: Servers, tape: Tape, known: str) -> None:
    """Rule: a Postgres that lacks what was written down before (another one, an old backup) gets
    nothing, and Redis drops nothing for its sake.
    """
    tape.client.hset(tape.keys.book, "schema", "1")
    for _ in range(6):
        tape.sell()
    drain(servers.persister(window=1))
    tape.client.xtrim(tape.keys.events, minid="5-0", approximate=False)
    forget(servers, tape.symbol, 0 if known == "nothing" else 3)
    before: Any = tape.client.hgetall(tape.keys.book), tape.client.xrange(tape.keys.events)
    one = servers.persister(window=1)
    drain(one)
    halted_with(one, tape, "postgres_behind", 1 if known == "nothing" else 4)
    after: Any = tape.client.hgetall(tape.keys.book), tape.client.xrange(tape.keys.events)
    assert after[0].pop("suspended") == "postgres_behind"
    assert after == before
    with servers.connect() as connection:
        listed = connection.execute("SELECT FROM instruments WHERE symbol = %s", (tape.symbol,))
        assert listed.rowcount == (0 if known == "nothing" else 1), "nothing is written to it"


def test_batch_that_postgres_is_too_slow_for_is_written_in_pieces(
    servers: Servers, queries: Queries, tape: Tape, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Rule: a slow Postgres delays what is written down, and never stops it."""
    monkeypatch.setattr(event_store, "_SESSION", ("SET statement_timeout = 1000",))
    tape.play(random.Random(36), 40)
    with servers.connect() as connection:
        connection.execute(
            "CREATE FUNCTION slow() RETURNS trigger LANGUAGE plpgsql AS"
            " 'BEGIN PERFORM pg_sleep(0.05); RETURN NEW; END'"
        )
        connection.execute(
            "CREATE TRIGGER slow BEFORE INSERT ON events FOR EACH ROW EXECUTE FUNCTION slow()"
        )
        try:
            drain(servers.persister())
        finally:
            connection.execute("DROP FUNCTION slow CASCADE")
    persisted_once(servers, queries, tape)


def test_backup_is_filled_up_from_the_stream(servers: Servers, tape: Tape) -> None:
    """Rule: a Postgres restored from a backup of late gets what the stream still holds."""
    tape.client.hset(tape.keys.book, "schema", "1")
    for _ in range(6):
        tape.sell()
    drain(servers.persister())
    forget(servers, tape.symbol, 4)
    one = servers.persister()
    drain(one)
    assert not one.halted
    assert position(servers, tape) == 6


def test_stranger_in_the_halts_is_no_halt(servers: Servers, tape: Tape) -> None:
    """Rule: what is not one of our halts does not stop a persister from starting."""
    tape.sell()
    tape.client.hset(HALTED, tape.symbol, "?")
    drain(servers.persister())
    assert position(servers, tape) == 1
    assert not tape.client.hexists(HALTED, tape.symbol)


def test_instrument_can_begin_again(servers: Servers, queries: Queries, tape: Tape) -> None:
    """Rule: db/README.md's way out for an instrument whose Redis is lost leads out."""
    tape.play(random.Random(35), 20)
    one = servers.persister()
    drain(one)
    tape.client.delete(*tape.keys)
    again = servers.persister()
    drain(again)
    halted_with(again, tape, "redis_behind", 1)
    with servers.connect() as connection:
        for table in ("events", "orders", "trades", "positions", "candles", "stream_positions"):
            connection.execute(f"DELETE FROM {table} WHERE instrument = %s", (tape.symbol,))  # type: ignore[arg-type]
    tape.client.delete(*tape.keys)
    reborn = Tape(tape.client, tape.instrument)
    reborn.play(random.Random(36), 20)
    again._recheck_at.clear()
    drain(again)
    assert again.halted == {}
    persisted_once(servers, queries, reborn)


# --- migrations and instruments ---------------------------------------------------------------


def tables(servers: Servers) -> set[str]:
    found = rows(servers, "SELECT tablename FROM pg_tables WHERE schemaname = 'public'")
    return {name for (name,) in found if "yoyo" not in name}


def test_migrations_go_up_and_down(servers: Servers) -> None:
    """Rule: migrating twice changes nothing, rolling back leaves no table, and up again works."""
    expected = {"instruments", "events", "orders", "trades", "positions", "stream_positions"}
    expected |= {"book_snapshots", "book_snapshot_parts", "candles"}
    expected |= {"settlements", "settlement_ranges", "settlement_obligations"}
    migrations.migrate(servers.postgres.url)
    assert tables(servers) == expected
    try:
        migrations.roll_back(servers.postgres.url)
        assert tables(servers) == set()
    finally:
        migrations.migrate(servers.postgres.url)
    assert tables(servers) == expected


def test_newest_migrations_can_be_repeated(servers: Servers, queries: Queries, tape: Tape) -> None:
    """Rule: a migration whose process was killed before the tool noted it is applied again, and
    changes nothing.
    """
    tape.change_rules(taker_fee_bps=Decimal(7))
    tape.play(random.Random(42), 50)
    drain(servers.persister())
    known = sorted(p for p in migrations.MIGRATIONS.glob("*.sql") if "rollback" not in p.name)
    with servers.connect() as connection:
        for newest in known[-2:]:
            connection.execute(newest.read_bytes())
    persisted_once(servers, queries, tape)


def test_two_processes_migrate_at_once(servers: Servers) -> None:
    """Rule: processes that migrate at the same time take turns, also when one was killed before and
    left the tool's own lock behind.
    """
    migrations.roll_back(servers.postgres.url)
    rows(servers, "INSERT INTO yoyo_lock (locked, ctime, pid) VALUES (1, now(), 1) RETURNING 1")
    with servers.connect() as connection:
        connection.execute("DROP TABLE _yoyo_log, _yoyo_version, _yoyo_migration")
    code = "import sys; from app.persistence.migrations import migrate; migrate(sys.argv[1])"
    command = [sys.executable, "-c", code, servers.postgres.url]
    try:
        together = [subprocess.Popen(command, cwd=ROOT) for _ in range(3)]
        assert [process.wait(PATIENCE_S) for process in together] == [0, 0, 0]
    finally:
        migrations.migrate(servers.postgres.url)
    assert "trades" in tables(servers)


def test_migrating_waits_for_postgres(servers: Servers) -> None:
    """Rule: migrating waits for a Postgres that is starting."""
    servers.postgres.stop()
    thread = threading.Thread(target=migrations.migrate, args=(servers.postgres.url,))
    try:
        thread.start()
        assert thread.is_alive()
    finally:
        servers.start(servers.postgres)
    thread.join(PATIENCE_S)
    assert not thread.is_alive()


def test_migrating_gives_up_in_the_end(monkeypatch: pytest.MonkeyPatch) -> None:
    """Rule: no Postgres there ends in an error, not in waiting for ever."""
    monkeypatch.setattr(migrations, "STARTUP_PATIENCE_S", 0.1)
    with pytest.raises(psycopg.OperationalError):
        migrations.migrate(f"postgresql://{LOOPBACK}:{free_port()}/nothing")


def test_instruments_are_stored_once(servers: Servers, tape: Tape, other: Tape) -> None:
    """Rule: an instrument is stored once; one with other values is refused and changes nothing."""
    with servers.connect() as connection:
        assert store_instrument(connection, tape.instrument, Rules())
        assert not store_instrument(connection, tape.instrument, Rules())
        assert store_instrument(connection, other.instrument, EVERY_RULE)
        assert not store_instrument(connection, other.instrument, EVERY_RULE)
        finer = msgspec.structs.replace(other.instrument, lot_size=Decimal("25.000"))
        assert not store_instrument(connection, finer, EVERY_RULE), "equal, written otherwise"
        stored = [Listed(tape.instrument, Rules()), Listed(other.instrument, EVERY_RULE)]
        more = msgspec.structs.replace(other.instrument, max_quantity=Decimal(75))
        for changed in (Listed(more, EVERY_RULE), Listed(other.instrument, Rules())):
            with pytest.raises(InstrumentDiffers) as difference:
                store_instrument(connection, *changed)
            assert difference.value.stored == stored[1]
        assert stored_instruments(connection) == stored


EVERY_RULE = Rules(
    status="cancel_only",
    price_band_bps=500,
    max_order_lots=2**53 - 1,
    max_order_notional=2**70 + 1,
    max_open_orders=200,
    maker_fee_bps=Decimal("-0.250"),
    taker_fee_bps=Decimal("10.000000000000000001"),
)


@pytest.mark.parametrize("rate", ["10000.1", "-10000.1", "0.0000000000000000001"])
def test_absurd_fee_cannot_be_stored(servers: Servers, tape: Tape, rate: str) -> None:
    """Rule: an instrument whose fees could not be computed exactly is not listed."""
    with servers.connect() as connection, pytest.raises(psycopg.errors.CheckViolation):
        store_instrument(connection, tape.instrument, Rules(taker_fee_bps=Decimal(rate)))


def test_older_trades_become_positions(servers: Servers, queries: Queries, tape: Tape) -> None:
    """Rule: a database of a version before learns the clients of its trades, what each client
    holds at what cost, and candles, from what it has.
    """
    tape.play(random.Random(39), 100)
    tape.buy(client_id="alice")
    tape.deal(random.Random(45), 150)
    drain(servers.persister())
    before = rows(servers, POSITIONS, tape.symbol)
    with migrations._backend(servers.postgres.url) as backend:
        known = migrations.read_migrations(str(migrations.MIGRATIONS))
        newest = known.filter(lambda step: step.id.startswith(("0004", "0006")))
        backend.rollback_migrations(backend.to_rollback(newest))
    assert "positions" not in tables(servers)
    migrations.migrate(servers.postgres.url)
    assert rows(servers, POSITIONS, tape.symbol) == before
    persisted_once(servers, queries, tape)


def test_a_batch_that_is_being_written_is_in_the_first_candles(
    servers: Servers, queries: Queries, tape: Tape
) -> None:
    """Rule: candles are made once nobody is in the middle of writing trades."""
    tape.deal(random.Random(46), 50)
    drain(servers.persister())
    with migrations._backend(servers.postgres.url) as backend:
        known = migrations.read_migrations(str(migrations.MIGRATIONS))
        newest = known.filter(lambda step: step.id.startswith("0006"))
        backend.rollback_migrations(backend.to_rollback(newest))
    with servers.connect() as older, ThreadPoolExecutor() as pool:
        older.execute(
            "CREATE TEMP TABLE late AS SELECT * FROM trades"
            " WHERE sequence = (SELECT max(sequence) FROM trades)"
        )
        older.execute("DELETE FROM trades WHERE trade_id IN (SELECT trade_id FROM late)")
        with older.transaction():
            older.execute("UPDATE stream_positions SET updated_at = now()")
            migrating = pool.submit(migrations.migrate, servers.postgres.url)
            waiting = "SELECT FROM pg_stat_activity WHERE wait_event_type = 'Lock'"
            wait_until(lambda: rows(servers, waiting), "the migration waits")
            older.execute("INSERT INTO trades SELECT * FROM late")
        migrating.result(PATIENCE_S)
    persisted_once(servers, queries, tape)


@pytest.mark.parametrize(
    "change",
    [
        "filled_quantity = filled_quantity + 1",
        "quantity = -quantity, remaining_quantity = -remaining_quantity",
        "status = 'filled'",
        "status = 'partially_filled'",
        "notional = 1",
        "price = NULL",
        "price = 0",
        "side = 'hold'",
        "updated_at = created_at - interval '1 second'",
        "type = 'stop'",
        "stop_price = 1",
        "stop_price = 0, type = 'stop_limit'",
        "status = 'pending'",
        "time_in_force = 'gtd'",
        "self_trade_prevention = 'all'",
        "display_quantity = 0",
    ],
)
def test_tables_state_the_invariants(servers: Servers, tape: Tape, change: str) -> None:
    """Rule: Postgres itself refuses an order that does not add up."""
    tape.sell()
    drain(servers.persister())
    with pytest.raises(psycopg.errors.CheckViolation):
        rows(servers, f"UPDATE orders SET {change} RETURNING 1")


# --- queries ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "wanted",
    [
        OrderFilter(),
        OrderFilter(client_id="c1"),
        OrderFilter(client_id="c1", instrument="XRP-USD"),
        OrderFilter(instrument="BTC-USD"),
        OrderFilter(statuses=("cancelled", "open")),
        OrderFilter(client_id="c2", statuses=("filled",)),
        OrderFilter(instrument="BTC-USD", client_order_id="mine"),
        OrderFilter(client_id="nobody"),
    ],
)
def test_orders_come_in_pages(
    servers: Servers, queries: Queries, tape: Tape, other: Tape, wanted: OrderFilter
) -> None:
    """Rule: pages of orders, newest first, join to exactly those wanted; each names the positions
    that it stands for.
    """
    for each, seed in ((tape, 28), (other, 29)):  # both run on the same clock: times are equal
        each.play(random.Random(seed), 60)
        each.sell(client_order_id="mine")
    drain(servers.persister())
    expected = sorted(
        (record.created_us, each.symbol, number, record)
        for each in (tape, other)
        for number, order in each.orders.items()
        if _matches(wanted, each.symbol, record := parse_record(number, _record(order)))
    )[::-1]
    listed, cursor = [], None
    while True:
        page, at = queries.orders(wanted, 7, cursor)
        assert at == {tape.symbol: tape.last, other.symbol: other.last}
        if not page:
            break
        listed += [(*entry.cursor, entry.order) for entry in page]
        cursor = page[-1].cursor
    assert listed == expected


def _matches(wanted: OrderFilter, symbol: str, order: OrderRecord) -> bool:
    return (
        wanted.client_id in {None, order.client_id}
        and wanted.instrument in {None, symbol}
        and wanted.client_order_id in {None, order.client_order_id}
        and (not wanted.statuses or order.status in wanted.statuses)
    )


def test_trades_come_in_pages(servers: Servers, queries: Queries, tape: Tape) -> None:
    """Rule: pages of trades, newest first, join to all of them; also within one event."""
    for _ in range(9):
        tape.sell(1)
    tape.buy(9)
    tape.play(random.Random(30), 50)
    drain(servers.persister())
    listed: list[Trade] = []
    cursor = None
    while True:
        page, at = queries.trades(tape.market, 4, cursor)
        assert at == tape.last
        if not page:
            break
        listed += page
        cursor = TradeCursor(page[-1].sequence, page[-1].index)
    assert listed == tape.trades[::-1]


def test_nothing_is_an_answer(servers: Servers, queries: Queries, tape: Tape) -> None:
    """Rule: what was never persisted is None or empty, at position 0."""
    assert queries.order(tape.market, 1) is None
    assert queries.event(tape.market, 1) is None
    assert queries.trades(tape.market, 10) == ([], 0)
    assert queries.orders(OrderFilter(), 10) == ([], {})
    drain(servers.persister())
    assert queries.orders(OrderFilter(client_id="x"), 10) == ([], {tape.symbol: 0})


@pytest.mark.parametrize(
    ("wanted", "index"),
    [
        (OrderFilter(client_id="c1"), "orders_of_client"),
        (OrderFilter(instrument="BTC-USD"), "orders_of_instrument"),
        (OrderFilter(), "orders_of_instrument"),
        (OrderFilter(statuses=("open",)), "orders_open_of_instrument"),
        (
            OrderFilter(instrument="BTC-USD", statuses=("partially_filled", "open")),
            "orders_open_of_instrument",
        ),
        (OrderFilter(statuses=("pending",)), "orders_open_of_instrument"),
        (OrderFilter(statuses=("expired",)), "orders_expired_of_instrument"),
        (OrderFilter(client_id="c1", client_order_id="o17"), "orders_of_client_order_id"),
        (OrderFilter(client_order_id="o17"), "orders_of_client_order_id"),
        (OrderFilter(statuses=("rejected",)), None),
    ],
    ids=str,
)
@pytest.mark.parametrize("before", [None, OrderCursor(1_700_000_000_000_000, "BTC-USD", 9)])
def test_reads_use_the_indexes(
    servers: Servers, tape: Tape, wanted: OrderFilter, index: str | None, before: OrderCursor | None
) -> None:
    """Rule: no list of orders looks at more rows than it may return, however many there are; a
    state that no order can have is not searched for at all.
    """
    drain(servers.persister())
    with servers.connect() as connection:
        connection.execute(MANY_ORDERS)
        connection.execute("ANALYZE orders")
        connection.execute("SET plan_cache_mode = force_generic_plan")
        statement = sql.SQL("EXPLAIN ") + _orders_statement(wanted, before)
        values = {"limit": 100, **_named(wanted, before)}
        plan = connection.execute(statement, values, prepare=True).fetchall()
    scans = re.findall(r"Scan (?:using (\w+) )?on orders", str(plan))
    assert scans == ([index] if index else []), plan


MANY_ORDERS = """
    INSERT INTO orders
    SELECT 'BTC-USD-' || lpad(i::text, 14, '0'), 'BTC-USD', 'c' || i % 100, 'buy', 'limit', 'gtc',
        false, CASE WHEN i % 3 = 0 THEN 'o' || i END, NULL, 100, 10,
        CASE WHEN i % 100 = 0 THEN 0 ELSE 10 END, CASE WHEN i % 100 = 0 THEN 10 ELSE 0 END,
        CASE WHEN i % 100 = 0 THEN 0 ELSE 1000 END,
        CASE WHEN i % 100 = 0 THEN 'open' ELSE 'filled' END, NULL, i, t, t
    FROM (
        SELECT i, timestamptz '2023-11-01' + i * interval '1 minute' AS t
        FROM generate_series(1, 20000) AS i
    ) AS numbered
"""


def test_impossible_state_is_an_empty_page(servers: Servers, queries: Queries, tape: Tape) -> None:
    """Rule: a state that no order can have is an answer, not an error, and names the positions."""
    tape.sell()
    drain(servers.persister())
    for status in ("rejected", "'"):
        assert queries.orders(OrderFilter(statuses=(status,)), 10) == ([], {tape.symbol: 1})
    mixed = OrderFilter(statuses=("rejected", "open"))
    assert len(queries.orders(mixed, 10)[0]) == 1


def test_reader_survives_a_restart_of_postgres(
    servers: Servers, queries: Queries, tape: Tape
) -> None:
    """Rule: with Postgres away a read says so in bounded time, and reads work again when it is
    back; a restart between two reads goes unnoticed, though it broke the pool's connections.
    """
    assert queries.order(tape.market, 1) is None
    servers.postgres.stop()
    servers.start(servers.postgres)
    assert queries.order(tape.market, 1) is None
    servers.postgres.stop()
    try:
        with pytest.raises(DatabaseUnavailable):
            queries.order(tape.market, 1)
    finally:
        servers.start(servers.postgres)
    wait_until(lambda: _answers(queries), "reads work again")


def test_ping_is_fast_while_postgres_is_away(servers: Servers, queries: Queries) -> None:
    """Rule: who asks for health is told within a second that Postgres is away."""
    wait_until(lambda: _answers(queries), "the pool has a connection")
    servers.postgres.stop()
    try:
        assert fastest_s(lambda: _is_refused(queries), 1) < 1
    finally:
        servers.start(servers.postgres)
    wait_until(lambda: _answers(queries), "reads work again")


def test_failure_is_told_in_fixed_words(
    servers: Servers, queries: Queries, tape: Tape, caplog: pytest.LogCaptureFixture
) -> None:
    """Rule: clients are told that Postgres does not answer, never where it is or as whom it is
    asked; the log has the cause, once, and says when it is over.
    """
    caplog.set_level(logging.INFO, "crossbook.queries")
    wait_until(lambda: _answers(queries), "the pool has a connection")
    caplog.clear()
    servers.postgres.stop()
    try:
        for _ in range(2):
            with pytest.raises(DatabaseUnavailable) as failure:
                queries.order(tape.market, 1)
            assert str(failure.value) == "Postgres does not answer"
            assert isinstance(failure.value.__cause__, psycopg.Error)
    finally:
        servers.start(servers.postgres)
    wait_until(lambda: _answers(queries), "reads work again")
    ours = [record for record in caplog.records if record.name == "crossbook.queries"]
    assert [record.levelname for record in ours] == ["WARNING", "INFO"]
    assert "PoolTimeout" in ours[0].why  # type: ignore[attr-defined]


def test_full_pool_is_no_outage(servers: Servers, queries: Queries, tape: Tape) -> None:
    """Rule: a read that finds every connection in use fails alone; it does not make the others
    believe that Postgres is away.
    """
    with contextlib.ExitStack() as held:
        for _ in range(POOL_CONNECTIONS):
            held.enter_context(queries._connection())
        with pytest.raises(DatabaseUnavailable) as failure:
            queries.order(tape.market, 1)
        assert "in use" in str(failure.value.__cause__)
        assert not queries._is_away
    assert queries.order(tape.market, 1) is None


@contextlib.contextmanager
def frozen(server: EmbeddedPostgres) -> Iterator[None]:
    """Every process of Postgres stands still: its sockets stay open, and nobody answers."""
    assert server.process is not None
    with standing_still(server.process.pid):
        yield


def test_frozen_postgres_is_given_up(servers: Servers, queries: Queries, tape: Tape) -> None:
    """Rule: a Postgres that stands still, in whatever phase of a read, holds nobody up for ever;
    it is used again as soon as it goes on.
    """
    wait_until(lambda: _answers(queries), "the pool has a connection")
    limit_s = READ_PATIENCE_S + 1
    took_s = fastest_s(lambda: _freeze_during_a_read(servers, queries), limit_s)
    assert READ_PATIENCE_S <= took_s < limit_s
    with frozen(servers.postgres):
        assert fastest_s(lambda: _is_refused(queries), 1) < 1
        limit_s = POOL_WAIT_S + 1
        assert fastest_s(lambda: _reads_in_vain(queries, tape), limit_s) < limit_s
    wait_until(lambda: _answers(queries), "reads work again")
    assert queries.order(tape.market, 1) is None


def _freeze_during_a_read(servers: Servers, queries: Queries) -> None:
    wait_until(lambda: _answers(queries), "the pool has a connection")
    with (
        pytest.raises(DatabaseUnavailable) as failure,
        queries._connection() as connection,
        frozen(servers.postgres),
    ):
        connection.execute("SELECT 1")
    assert "no answer within" in str(failure.value.__cause__)


def _reads_in_vain(queries: Queries, tape: Tape) -> None:
    with pytest.raises(DatabaseUnavailable):
        queries.order(tape.market, 1)


def _is_refused(queries: Queries) -> None:
    assert not _answers(queries)


@pytest.mark.slow
def test_persister_ends_though_postgres_is_frozen(
    servers: Servers, queries: Queries, tape: Tape
) -> None:
    """Rule: SIGTERM ends a persister whose Postgres stands still before anybody kills it, and
    nothing is lost.
    """
    tape.sell()
    process = start_process(servers)
    try:
        wait_until(lambda: position(servers, tape) == 1, "it persists")
        with frozen(servers.postgres):
            tape.play(random.Random(37), 50)
            wait_until(lambda: group(tape)["pending"], "it has read what it cannot write")
            process.send_signal(signal.SIGTERM)
            assert process.wait(PERSIST_STOP_TIMEOUT_S) == 0
    finally:
        process.kill()
    drain(servers.persister())
    persisted_once(servers, queries, tape)


GREENLETS = """
from gevent import monkey, spawn
monkey.patch_all()
import sys, time
import psycopg
from app.persistence.connections import BoundedConnection, at_most

other = spawn(time.sleep, 0.1)
with BoundedConnection.connect(sys.argv[1]) as connection:
    try:
        with at_most(0.5):
            connection.execute("SELECT pg_sleep(30)")
    except psycopg.OperationalError as error:
        print(error, connection.closed, other.ready())
"""


def test_patience_ends_among_greenlets(servers: Servers) -> None:
    """Rule: the limit on waiting holds in the API's workers, too, and delays no other greenlet."""
    command = [sys.executable, "-c", GREENLETS, servers.postgres.url]
    done = subprocess.run(
        command, cwd=ROOT, capture_output=True, text=True, timeout=PATIENCE_S, check=True
    )
    assert done.stdout == "no answer within 0.5 s True True\n"


def test_patience_is_for_one_answer(servers: Servers) -> None:
    """Rule: a connection that answered late is closed, as its answer may yet come; an error that
    came in time leaves it open.
    """
    with servers.connect() as connection:
        connection.patience_s = 2
        connection.execute("SELECT pg_sleep(1.1)")
        connection.execute("SELECT pg_sleep(1.1)")
        connection.execute("SET statement_timeout = 50")
        with pytest.raises(psycopg.errors.QueryCanceled):
            connection.execute("SELECT pg_sleep(5)")
        assert not connection.closed
        connection.execute("SET statement_timeout = 0")
        with pytest.raises(psycopg.OperationalError, match="no answer within"):
            connection.execute("SELECT pg_sleep(5)")
        assert connection.closed


def test_reads_do_not_queue_up_behind_an_outage(
    servers: Servers, queries: Queries, tape: Tape
) -> None:
    """Rule: while Postgres is away one call at a time finds out, the others are told at once; and
    however many calls were made meanwhile, reads work when it is back.
    """
    servers.postgres.stop()
    try:
        with pytest.raises(DatabaseUnavailable):
            queries.order(tape.market, 1)
        callers: list[threading.Thread] = []
        took_s = fastest_s(lambda: _start_reads(callers, queries, tape), POOL_WAIT_S)
        assert took_s < POOL_WAIT_S
        for caller in callers:
            caller.join(PATIENCE_S)
    finally:
        servers.start(servers.postgres)
    wait_until(lambda: _answers(queries), "reads work again")
    with queries._connection():
        assert _reads(queries, tape), "several at a time again"


def _reads(queries: Queries, tape: Tape) -> bool:
    try:
        queries.order(tape.market, 1)
    except DatabaseUnavailable:
        return False
    return True


def _start_reads(callers: list[threading.Thread], queries: Queries, tape: Tape) -> None:
    """Many more of them at once; returns when one at most still tries."""
    more = [threading.Thread(target=_reads, args=(queries, tape)) for _ in range(300)]
    callers += more
    for caller in more:
        caller.start()
    wait_until(lambda: sum(caller.is_alive() for caller in callers) <= 1, "all but one are told")


def _answers(queries: Queries) -> bool:
    try:
        queries.ping()
    except DatabaseUnavailable:
        return False
    return True


def test_slow_read_is_cut_off(servers: Servers, queries: Queries, tape: Tape) -> None:
    """Rule: every read has a time-out."""
    with servers.connect() as connection, connection.transaction():
        connection.execute("LOCK TABLE orders")
        with pytest.raises(DatabaseUnavailable) as failure:
            queries.order(tape.market, 1)
        assert "statement timeout" in str(failure.value.__cause__)
