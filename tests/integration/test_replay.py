"""`python -m app replay`: read models computed once more from the event store. What is damaged is
named, row by row, and repaired while traders trade; what is not is left alone.
"""

import os
import random
import re
import subprocess
import sys
import threading
from collections.abc import Iterator
from itertools import islice

import psycopg
import pytest

from app.persistence import read_models
from app.persistence.replay import LOCK_ID, Report, replay
from tests import tapes
from tests.differential import COMMANDS_AT_ONCE, PipelinedVenue
from tests.flow import Crowd
from tests.reference import START_US
from tests.rest import Json
from tests.system import ROOT, System, running_system
from tests.waiting import fastest_s, wait_for

Tables = dict[str, list[tuple[object, ...]]]

COMMANDS = 1_500
ENOUGH_COMMANDS = 300
NOTHING_THERE = "postgresql://nobody@127.0.0.1:1/none"
RULES = {"maker_fee_bps": "-1.5", "taker_fee_bps": "2.25", "max_open_orders": 40}


@pytest.fixture(scope="module")
def traded() -> Iterator[tuple[System, str]]:
    """A system of its own, since a replay is of all instruments, and one instrument with generated
    orders of every kind and fees that change.
    """
    with running_system() as system:
        symbol = system.list_instrument(taker_fee_bps="3")
        venue = PipelinedVenue(system.redis, symbol=symbol)
        system.redis.hset(venue.keys.book, "time", str(START_US))
        tape = tapes.commands(20_264, COMMANDS)
        while commands := list(islice(tape, COMMANDS_AT_ONCE)):
            venue.apply_all(commands)
        change_rules(system, symbol, RULES)
        Crowd(system.api, symbol, random.Random(5), 3).trade(40)
        change_rules(system, symbol, {"status": "halted"})  # or the sweeper would go on
        system.settled()
        yield system, symbol


def change_rules(system: System, symbol: str, rules: Json) -> None:
    answer = system.api.request("PATCH", f"/admin/instruments/{symbol}", rules)
    assert answer.status == 200, answer


def run(system: System, *options: str) -> subprocess.CompletedProcess[str]:
    """The command, as a person runs it beside a running system."""
    return subprocess.run(
        [sys.executable, "-m", "app", "replay", *options],
        cwd=ROOT,
        env={"PATH": os.environ["PATH"], "DATA_DIR": str(system.data_dir)},
        capture_output=True,
        text=True,
        check=False,
    )


def database_url(system: System) -> str:
    return system._stores().database_url


def tables(system: System) -> Tables:
    """Every read model, row by row."""
    return {
        model.table: system.rows(f"SELECT * FROM {model.table} ORDER BY {', '.join(model.key)}")
        for model in read_models.READ_MODELS
    }


def differing(before: Tables, after: Tables) -> list[str]:
    """Their names alone: the rows would fill a failing test's screen many times."""
    return [name for name in before if before[name] != after[name]]


def damage(system: System, statement: str) -> None:
    with system.postgres() as connection:
        # As the persister begins: each waits for the other's end, never halfway for its rows.
        connection.execute("SELECT FROM stream_positions ORDER BY instrument FOR UPDATE")
        assert connection.execute(statement).rowcount > 0, "it changes something"


def no_trace(system: System) -> bool:
    return not system.rows(
        "SELECT FROM information_schema.schemata WHERE schema_name = %s", read_models.SCHEMA
    )


@pytest.mark.slow
def test_a_replay_finds_nothing_where_nothing_is_wrong(traded: tuple[System, str]) -> None:
    system, symbol = traded
    kinds = system.rows("SELECT DISTINCT type FROM events WHERE instrument = %s", symbol)
    assert len(kinds) >= 8, kinds
    before = tables(system)
    events = sum(system.sequences().values())
    told = run(system)
    verdict = f"11 instruments, {events} events: the read models are equal to the event store\n"
    assert (told.returncode, told.stdout, told.stderr) == (0, verdict, "")
    assert not differing(tables(system), before)
    assert no_trace(system)


SOURCES = {"events", "stream_positions", "book_snapshots", "book_snapshot_parts"} | {
    *("settlements", "settlement_ranges", "settlement_obligations"),
}
"""Tables that no replay computes."""
NOT_COMPUTED = {
    *("quantity", "realised_pnl"),
    *("symbol", "tick_size", "lot_size", "max_price", "max_quantity"),
    *("created_at", "first_rules"),
}
"""Columns of `positions` and `instruments` that are generated, or that no event tells."""


@pytest.mark.slow
def test_every_table_and_column_is_computed_or_said_not_to_be(traded: tuple[System, str]) -> None:
    system, _ = traded
    found = system.rows(
        "SELECT table_name, column_name FROM information_schema.columns"
        " WHERE table_schema = 'public' AND table_name NOT LIKE '%%yoyo%%'"
    )
    models = {model.table: set(model.columns) for model in read_models.READ_MODELS}
    assert {table for table, _ in found} == models.keys() | SOURCES
    left = {(table, column) for table, column in found if table in models}
    left -= {(table, column) for table, columns in models.items() for column in columns}
    assert {table for table, _ in left} == {"positions", "instruments"}
    assert {column for _, column in left} == NOT_COMPUTED


DAMAGE = {
    "a deleted order": "DELETE FROM orders WHERE order_id = '{first}'",
    "an altered order": "UPDATE orders SET client_id = 'mallory' WHERE order_id = '{first}'",
    "a lost reason": "UPDATE orders SET reason = NULL WHERE order_id = (SELECT order_id FROM"
    " orders WHERE instrument = '{symbol}' AND reason IS NOT NULL LIMIT 1)",
    "an order too many": "INSERT INTO orders (order_id, instrument, client_id, side, type,"
    " time_in_force, post_only, price, quantity, filled_quantity, remaining_quantity, notional,"
    " status, sequence, created_at, updated_at) VALUES ('{symbol}-99999999999999', '{symbol}',"
    " 'mallory', 'buy', 'limit', 'gtc', false, 1, 1, 0, 1, 0, 'open', 1, now(), now())",
    "a deleted trade": "DELETE FROM trades WHERE trade_id = (SELECT max(trade_id) FROM trades)",
    "an altered fee": "UPDATE trades SET taker_fee = taker_fee + 0.000001"
    " WHERE trade_id = (SELECT min(trade_id) FROM trades)",
    "an altered position": "UPDATE positions SET bought_quantity = bought_quantity + 1"
    " WHERE client_id = 'trader-0'",
    "a deleted position": "DELETE FROM positions WHERE client_id = 'trader-1'",
    "an altered cost": "UPDATE positions SET cost = cost + 1 WHERE client_id = 'trader-1'",
    "an altered candle": "UPDATE candles SET trades = trades + 1"
    " WHERE start = (SELECT min(start) FROM candles)",
    "a deleted candle": "DELETE FROM candles WHERE start = (SELECT min(start) FROM candles)",
    "a candle too many": "INSERT INTO candles SELECT instrument, '2000-01-01T00:00Z', open, high,"
    " low, close, volume, quote_volume, trades, buy_volume, largest_quantity, first_sequence,"
    " last_sequence FROM candles ORDER BY start LIMIT 1",
    "all trades": "DELETE FROM trades",
    "an altered rule": "UPDATE instruments SET maker_fee_bps = 4 WHERE symbol = '{symbol}'",
}


@pytest.mark.slow
@pytest.mark.parametrize("kind", DAMAGE)
def test_what_is_damaged_is_named_and_repaired(traded: tuple[System, str], kind: str) -> None:
    system, symbol = traded
    whole = tables(system)
    first = system.rows("SELECT min(order_id) FROM orders WHERE instrument = %s", symbol)[0][0]
    damage(system, DAMAGE[kind].format(symbol=symbol, first=first))
    found = run(system)
    assert found.returncode == 1, found
    (named, verdict) = found.stdout.splitlines()
    rows = len(whole["trades"]) if kind == "all trades" else 1
    assert re.fullmatch(rf"{symbol} \w+: {rows} rows differ: .+", named), named
    assert verdict.endswith("NOT equal to the event store")
    repaired = run(system, "--repair")
    assert repaired.returncode == 0, repaired
    assert f"repaired {rows} rows" in repaired.stdout
    assert not differing(tables(system), whole)
    assert no_trace(system)


@pytest.mark.slow
def test_an_event_that_was_tampered_with_fails_its_instrument_alone(
    traded: tuple[System, str],
) -> None:
    system, symbol = traded
    other = system.list_instrument()
    Crowd(system.api, other, random.Random(6), 2).trade(10)
    change_rules(system, other, {"status": "halted"})
    system.settled()
    with system.postgres() as connection:
        connection.execute(
            "CREATE TABLE kept AS SELECT * FROM events"
            " WHERE instrument = %s AND sequence IN (7, 9)",
            (symbol,),
        )
        connection.execute(
            "UPDATE events SET orders = 'x' WHERE instrument = %s AND sequence = 7", (symbol,)
        )
    try:
        found = run(system, "--repair")
        assert found.returncode == 1
        assert found.stdout.startswith(f"{symbol} cannot be replayed: event 7 cannot be read")
        assert len(found.stdout.splitlines()) == 2, "the other instruments are equal"
        damage(system, f"DELETE FROM events WHERE instrument = '{symbol}' AND sequence IN (7, 9)")
        found = run(system)
        assert f"{symbol} cannot be replayed: event 7 is missing" in found.stdout
    finally:
        with system.postgres() as connection:
            connection.execute(
                "DELETE FROM events WHERE instrument = %s AND sequence = 7", (symbol,)
            )
            connection.execute("INSERT INTO events SELECT * FROM kept")
            connection.execute("DROP TABLE kept")
    assert run(system).returncode == 0


@pytest.mark.slow
def test_read_models_are_repaired_while_traders_trade(
    traded: tuple[System, str], rng: random.Random
) -> None:
    """Whatever moment the comparison is of, the persister being in the middle of its work is no
    difference, and what a repair writes is not what was right a moment before.
    """
    system, _ = traded
    symbol = system.list_instrument(maker_fee_bps="1", taker_fee_bps="2")
    crowd = Crowd(system.api, symbol, rng, 6)
    with crowd.trading():
        of_symbol = f"WHERE instrument = '{symbol}'"
        # Written down, too: the persister comes to a new instrument a moment after its traders.
        orders = f"SELECT FROM orders {of_symbol}"
        wait_for(lambda: len(system.rows(orders)) > ENOUGH_COMMANDS)
        for _ in range(3):
            assert replay(database_url(system)) == equal()
        damage(system, f"UPDATE positions SET bought_quantity = bought_quantity + 5 {of_symbol}")
        damage(system, f"DELETE FROM trades {of_symbol} AND fill_index = 1")
        damage(system, f"UPDATE orders SET time_in_force = 'fok' {of_symbol}")
        report = replay(database_url(system), repair=True)
        assert report == equal()
        assert report.repaired_rows > ENOUGH_COMMANDS
        assert replay(database_url(system)) == equal()
    change_rules(system, symbol, {"status": "halted"})
    system.settled()
    assert run(system).returncode == 0


def equal() -> "Equal":
    """What a report without a difference is equal to."""
    return Equal()


class Equal:
    def __eq__(self, report: object) -> bool:
        return isinstance(report, Report) and report.is_equal

    def __hash__(self) -> int:
        return 0


@pytest.mark.slow
def test_a_second_replay_is_told_that_one_is_running(traded: tuple[System, str]) -> None:
    system, _ = traded
    with psycopg.connect(database_url(system)) as first:
        first.execute("SELECT pg_advisory_lock(%s)", (LOCK_ID,))
        told = run(system)
    assert (told.returncode, told.stdout) == (1, "")
    assert told.stderr == "crossbook: another replay is running on this database\n"
    assert run(system).returncode == 0


@pytest.mark.slow
def test_a_replay_that_is_killed_leaves_nothing_wrong(
    traded: tuple[System, str], rng: random.Random
) -> None:
    """Killed at random moments of a repair: rows are as before or as they should be, and the next
    run, which finds what the killed one left behind, repairs the rest.
    """
    system, _ = traded
    whole = tables(system)
    for _ in range(4):
        damage(system, "DELETE FROM trades")
        damage(system, "UPDATE positions SET fees = fees + 1, cost = cost + 1")
        damage(system, "DELETE FROM candles")
        child = subprocess.Popen(
            [sys.executable, "-m", "app", "replay", "--repair"],
            cwd=ROOT,
            env={"PATH": os.environ["PATH"], "DATA_DIR": str(system.data_dir)},
            stdout=subprocess.DEVNULL,
        )
        killer = threading.Timer(rng.uniform(0.3, 1.5), child.kill)
        killer.start()
        child.wait()
        killer.cancel()
        # Postgres may be in the middle of the killed one's last statement.
        wait_for(lambda: "another replay" not in run(system, "--repair").stderr)
        assert run(system).returncode == 0
        assert no_trace(system)
        assert not differing(tables(system), whole)


@pytest.mark.slow
def test_a_stopped_system_is_replayed_too(traded: tuple[System, str]) -> None:
    system, _ = traded
    before = run(system).stdout
    assert system.stop() == 0
    try:
        found = run(system)
        assert (found.returncode, found.stdout) == (0, before), found
    finally:
        system.start()


@pytest.mark.slow
def test_without_postgres_a_replay_says_so_in_one_line() -> None:

    def ask() -> None:
        told = subprocess.run(
            [sys.executable, "-m", "app", "replay"],
            cwd=ROOT,
            env={"PATH": os.environ["PATH"], "DATABASE_URL": NOTHING_THERE},
            capture_output=True,
            text=True,
            check=False,
        )
        assert (told.returncode, told.stdout) == (1, "")
        assert told.stderr.startswith("crossbook: ")
        assert len(told.stderr.splitlines()) == 1, told.stderr

    assert fastest_s(ask, 10) < 10
