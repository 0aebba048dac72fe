"""Settlements: every trade is settled once and exactly, whoever asks, dies or asks twice; a report
that is over never changes.
"""

import csv
import io
import json
import random
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from decimal import Decimal
from itertools import count
from typing import Any
from urllib.parse import unquote

import psycopg
import pytest
from flask import Flask

from app.api import problems
from app.api import settlements as api_settlements
from app.api.application import connect_redis
from app.api.http import RequestIds
from app.api.markets import Markets
from app.api.settlements import REQUESTS_MAX, Settlements, settlements_blueprint
from app.clearing import settlement
from app.clearing.settlement import Settled, Wanted
from app.engine.reads import BookReads
from app.persistence.event_store import Connection
from tests.conftest import ListInstrument
from tests.flow import Crowd
from tests.integration.test_rebuild import command, stores_of
from tests.rest import (
    Answer,
    Api,
    Json,
    a_market_order,
    an_order,
    check_problem,
    codes_by_field,
    raw_request,
    volley,
)
from tests.settlements import check_settlements
from tests.system import ROOT, WORKERS, System, running_system
from tests.waiting import wait_for

PATH = "/admin/settlements"
AWAY = "postgresql://nobody@127.0.0.1:1/nothing"
CRASHES_MAX = 200
AT_ONCE = 8
KILLS = 4


@pytest.fixture
def connection(system: System) -> Iterator[Connection]:
    with settlement.connect(stores_of(system).database_url) as connection:
        yield connection


def trade(api: Api, symbol: str, seller: str, buyer: str, price: str, quantity: str) -> None:
    """The buyer takes what the seller has offered."""
    api.placed(an_order(symbol, side="sell", client_id=seller, price=price, quantity=quantity))
    api.placed(a_market_order(symbol, "buy", quantity, client_id=buyer))


def trade_often(system: System, symbol: str, rng: random.Random, trades: int = 30) -> None:
    """All of it is in Postgres afterwards."""
    for _ in range(trades):
        seller, buyer = rng.choices("abcd", k=2)
        price, quantity = rng.randrange(1, 200), rng.randrange(1, 20)
        trade(system.api, symbol, seller, buyer, str(price), str(quantity))
    system.settled()


def settle(api: Api, **body: object) -> Answer:
    return api.request("POST", PATH, body)


def settled(api: Api, **body: object) -> Json:
    """The report of a new run, which is done at once."""
    answer = settle(api, **body)
    assert answer.status == 201, answer
    report = answer.json()
    assert report["status"] == "done"
    return report


def amounts(report: Json) -> dict[tuple[str, str], str]:
    return {(each["client_id"], each["asset"]): each["amount"] for each in report["obligations"]}


def ranges(report: Json) -> list[tuple[object, ...]]:
    return [tuple(each.values()) for each in report["instruments"]]


def check_zero(report: Json) -> None:
    """Per asset: what clients receive, they and their fees pay."""
    sums: dict[str, Decimal] = {}
    for each in [*report["obligations"], *report["fees"]]:
        sums[each["asset"]] = sums.get(each["asset"], Decimal(0)) + Decimal(each["amount"])
    assert not any(sums.values()), sums


class TestReports:
    """What a settlement says."""

    def test_trades_are_netted_into_what_each_client_is_owed_of_each_asset(
        self, system: System, list_instrument: ListInstrument
    ) -> None:
        symbol = list_instrument("0.01", "0.001", maker_fee_bps="-0.5", taker_fee_bps="2.5")
        base = symbol.split("-")[0]
        trade(system.api, symbol, "alice", "bob", "100.10", "5")
        trade(system.api, symbol, "bob", "alice", "110.30", "2.125")
        system.settled()
        report = settled(system.api, instrument=symbol)
        # 500.50 and 234.3875; the maker is paid 0.005 % of it, the taker pays 0.025 %.
        first, second = Decimal("500.50"), Decimal("234.3875")
        maker, taker = Decimal("-0.00005"), Decimal("0.00025")
        alice = first - second - first * maker - second * taker
        bob = second - first - first * taker - second * maker
        assert {key: Decimal(text) for key, text in amounts(report).items()} == {
            ("alice", base): Decimal("-2.875"),
            ("alice", "USD"): alice,
            ("bob", base): Decimal("2.875"),
            ("bob", "USD"): bob,
        }
        assert amounts(report)["alice", base] == "-2.875", "no zeros at the end"
        assert report["fees"] == [{"asset": "USD", "amount": "0.1469775"}]
        assert report["obligations"][1] == {
            "client_id": "alice",
            "asset": "USD",
            "received": "500.5",
            "delivered": "234.3875",
            "fees": "0.033571875",
            "amount": str(alice.normalize()),
        }
        assert (report["instrument"], report["trades"]) == (symbol, 2)
        assert ranges(report) == [(symbol, 0, 4, 4, 2)]
        check_zero(report)

    def test_the_next_run_begins_where_the_last_has_ended(
        self, system: System, symbol: str
    ) -> None:
        trade(system.api, symbol, "alice", "bob", "100", "5")
        system.settled()
        first = settled(system.api, instrument=symbol)
        nothing = settled(system.api, instrument=symbol)
        trade(system.api, symbol, "alice", "bob", "7", "1")
        system.settled()
        last = settled(system.api, instrument=symbol)
        assert ranges(first) == [(symbol, 0, 2, 2, 1)]
        assert (nothing["instruments"], nothing["obligations"], nothing["trades"]) == ([], [], 0)
        assert ranges(last) == [(symbol, 2, 4, 4, 1)]
        assert amounts(last)["alice", "USD"] == "7"

    def test_without_an_instrument_all_are_settled_and_assets_are_netted_over_them(
        self, system: System, list_instrument: ListInstrument
    ) -> None:
        system.settled()
        settled(system.api)
        symbols = [list_instrument(), list_instrument()]
        for symbol, price in zip(symbols, ("100", "30"), strict=True):
            trade(system.api, symbol, "alice", "bob", price, "1")
        system.settled()
        answer = system.api.request("POST", PATH)
        assert answer.status == 201, answer
        report = answer.json()
        assert [each["instrument"] for each in report["instruments"]] == symbols
        assert report["instrument"] is None
        assert amounts(report)["alice", "USD"] == "130"

    def test_a_trade_with_oneself_costs_fees_alone(
        self, system: System, list_instrument: ListInstrument
    ) -> None:
        symbol = list_instrument(maker_fee_bps="1", taker_fee_bps="2")
        trade(system.api, symbol, "alice", "alice", "100", "50")
        system.settled()
        report = settled(system.api, instrument=symbol)
        base = symbol.split("-")[0]
        assert amounts(report) == {("alice", base): "0", ("alice", "USD"): "-1.5"}
        assert report["fees"] == [{"asset": "USD", "amount": "1.5"}]

    def test_what_is_not_written_down_yet_is_for_the_next_run(
        self, system: System, symbol: str
    ) -> None:
        """The position at the start counts; trading waits for nothing."""
        with system.paused("persist"):
            trade(system.api, symbol, "alice", "bob", "100", "5")
            assert settled(system.api, instrument=symbol)["trades"] == 0
        system.settled()
        assert settled(system.api, instrument=symbol)["trades"] == 1

    def test_csv_says_what_json_says(self, system: System, list_instrument: ListInstrument) -> None:
        symbol = list_instrument(taker_fee_bps="2")
        trade(system.api, symbol, 'a,"b', "bob", "100", "5")
        system.settled()
        by_format = system.api.request(
            "POST", f"{PATH}?format=csv", {"run_id": f"csv-{symbol}", "instrument": symbol}
        )
        assert by_format.status == 201, by_format
        path = f"{PATH}/csv-{symbol}"
        by_accept = system.api.request("GET", path, headers={"Accept": "text/csv"})
        assert by_accept.headers["Content-Type"] == "text/csv; charset=utf-8"
        assert by_accept.body == by_format.body
        lines = list(csv.DictReader(io.StringIO(by_accept.body.decode())))
        report = system.api.found(path)
        assert {line.pop("run_id") for line in lines} == {f"csv-{symbol}"}
        venue = [line for line in lines if line["account"] == "venue"]
        assert [(each["asset"], each["amount"]) for each in venue] == [("USD", "0.1")]
        clients = [line for line in lines if line.pop("account") == "client"]
        assert clients == report["obligations"]
        for _ in range(2 * REQUESTS_MAX * WORKERS):  # what is not read to its end is given back
            assert system.api.request("HEAD", path, headers={"Accept": "text/csv"}).status == 200

    def test_reports_and_lists_come_in_pages(self, system: System, symbol: str) -> None:
        api = system.api
        for name in ("alice", "bob", "carol"):
            trade(api, symbol, name, "dave", "100", "5")
        system.settled()
        ids = [f"{name}-{symbol}" for name in ("first", "second", "third")]
        whole, *_ = [settled(api, run_id=run_id, instrument=symbol) for run_id in ids]
        pages = list(api.pages(f"{PATH}/{ids[0]}", "cursor", "next_cursor", limit=3))
        assert [len(page["obligations"]) for page in pages] == [3, 3, 2]
        assert [each for page in pages for each in page["obligations"]] == whole["obligations"]
        runs = [
            run["run_id"]
            for page in api.pages(PATH, "before", "next_before", limit=2)
            for run in page["settlements"]
        ]
        assert runs[:3] == ids[::-1], "newest first"
        lines = api.request("GET", f"{PATH}?format=csv&limit=3").body.decode().splitlines()
        assert [line.split(",")[0] for line in lines] == ["run_id", *ids[::-1]]


class TestOnceOnly:
    """Runs and their ids."""

    def test_the_same_id_again_answers_the_same_report(self, system: System, symbol: str) -> None:
        api, wanted = system.api, {"run_id": f"same-{symbol}", "instrument": symbol}
        trade(api, symbol, "alice", "bob", "100", "5")
        system.settled()
        first = settle(api, **wanted)
        trade(api, symbol, "alice", "bob", "100", "5")
        system.settled()
        again = settle(api, **wanted)
        assert (first.status, again.status) == (201, 200)
        assert again.body == first.body
        assert api.request("GET", f"{PATH}/same-{symbol}").body == first.body

    def test_the_same_id_with_another_body_is_refused(self, system: System, symbol: str) -> None:
        run_id = f"taken-{symbol}"
        settled(system.api, run_id=run_id, instrument=symbol)
        check_problem(settle(system.api, run_id=run_id), 422, "run_id_reused", PATH)
        other = settle(system.api, run_id=run_id, instrument="BTC-USD")
        check_problem(other, 422, "run_id_reused", PATH)

    def test_many_at_once_settle_each_trade_once(
        self, system: System, symbol: str, rng: random.Random
    ) -> None:
        """Half of them with one id, half with ids of their own: they take turns, or are told to."""
        trade_often(system, symbol, rng)
        bodies: list[Json] = [{"run_id": f"one-{symbol}"}] * AT_ONCE
        bodies += [{"run_id": f"{n}-{symbol}"} for n in range(AT_ONCE)]
        requests = [raw_request("POST", PATH, body | {"instrument": symbol}) for body in bodies]
        for answer in volley(system.api.port, requests):
            if answer.status not in (200, 201):
                check_problem(answer, 503, "settlement_busy", PATH)
                assert answer.headers["Retry-After"] == "1"
        reports = [settle(system.api, **body, instrument=symbol).json() for body in bodies]
        assert len({json.dumps(report) for report in reports[:AT_ONCE]}) == 1
        different = {report["run_id"]: report["trades"] for report in reports}
        assert sorted(different.values()) == [0] * AT_ONCE + [30]
        with system.postgres() as connection:
            check_settlements(connection)

    def test_several_who_settle_step_by_step_take_turns(
        self, system: System, symbol: str, rng: random.Random
    ) -> None:
        """Half of them work on one run; each trade is a step of its own."""
        trade_often(system, symbol, rng)
        database_url = stores_of(system).database_url

        def work(number: int) -> None:
            wanted = Wanted(f"step-{symbol}-{max(0, number - AT_ONCE // 2)}", symbol)
            with settlement.connect(database_url) as connection:
                connection.execute("SET lock_timeout = 0")
                assert settlement.settle(connection, wanted, trades_per_step=1).is_done

        with ThreadPoolExecutor(AT_ONCE) as pool:
            list(pool.map(work, range(AT_ONCE)))
        with system.postgres() as connection:
            check_settlements(connection)

    @pytest.mark.parametrize(
        ("body", "field", "code"),
        [
            ({"run_id": ""}, "run_id", "invalid_text"),
            ({"run_id": "a/b"}, "run_id", "invalid_text"),
            ({"run_id": "x" * 65}, "run_id", "invalid_text"),
            ({"run_id": 7}, "run_id", "invalid_value"),
            ({"instruments": ["BTC-USD"]}, "instruments", "unknown_field"),
        ],
    )
    def test_a_malformed_request_begins_nothing(
        self, system: System, body: Json, field: str, code: str
    ) -> None:
        before = system.rows("SELECT count(*) FROM settlements")
        problem = check_problem(settle(system.api, **body), 400, "validation_failed", PATH)
        assert codes_by_field(problem) == {field: code}
        assert system.rows("SELECT count(*) FROM settlements") == before

    def test_what_is_unknown_is_not_found(self, api: Api) -> None:
        check_problem(settle(api, instrument="NO-USD"), 404, "instrument_not_found", PATH)
        for name in ("none", "x" * 65, "a%00b", "%FF"):
            path = f"{PATH}/{name}"
            answers = (api.request("GET", path), api.request("GET", f"{path}?format=csv"))
            for answer in answers:
                check_problem(answer, 404, "settlement_not_found", unquote(path))
        for query in ("format=xml", "limit=0", "before=x"):
            check_problem(api.request("GET", f"{PATH}?{query}"), 400, "validation_failed", PATH)
        check_problem(
            api.request("GET", f"{PATH}/x?cursor=none"), 400, "validation_failed", f"{PATH}/x"
        )


class TestTheDatabaseItself:
    """Whatever a program does, these tables keep their word."""

    @pytest.mark.parametrize(
        "statement",
        [
            "UPDATE settlement_obligations SET received = received + 1 WHERE run_id = %s",
            "DELETE FROM settlement_obligations WHERE run_id = %s",
            "INSERT INTO settlement_obligations VALUES (%s, 'eve', 'USD', 0, 0, 0)",
            "UPDATE settlement_ranges SET trades = 9 WHERE run_id = %s",
            "DELETE FROM settlement_ranges WHERE run_id = %s",
            "UPDATE settlements SET status = 'running', finished_at = NULL WHERE run_id = %s",
            "DELETE FROM settlements WHERE run_id = %s",
        ],
    )
    def test_a_settlement_that_is_done_never_changes(
        self, system: System, connection: Connection, symbol: str, statement: str
    ) -> None:
        trade(system.api, symbol, "alice", "bob", "100", "5")
        system.settled()
        run_id = settled(system.api, instrument=symbol)["run_id"]
        with pytest.raises(psycopg.IntegrityError, match="never changes"):
            connection.execute(statement, (run_id,))  # type: ignore[arg-type]

    @pytest.mark.parametrize(
        "table", ["settlements", "settlement_ranges", "settlement_obligations"]
    )
    def test_settlements_cannot_be_emptied(
        self, system: System, connection: Connection, symbol: str, table: str
    ) -> None:
        trade(system.api, symbol, "alice", "bob", "100", "5")
        system.settled()
        settled(system.api, instrument=symbol)
        with pytest.raises(psycopg.IntegrityError, match="never change"):
            connection.execute(f"TRUNCATE {table} CASCADE")

    def test_a_settlement_cannot_be_made_up(self, connection: Connection) -> None:
        with pytest.raises(psycopg.IntegrityError, match="begins before it is done"):
            connection.execute(
                "INSERT INTO settlements (run_id, status, finished_at) VALUES ('x', 'done', now())"
            )

    @pytest.mark.parametrize(
        ("damage", "says"),
        [
            (
                "settlement_obligations SET received = received + 1 WHERE client_id = 'bob'",
                "does not sum to zero in T[0-9]+, USD",
            ),
            (
                "settlement_obligations SET fees = fees + 0.1 WHERE client_id = ''",
                "does not sum to zero in USD",
            ),
            ("settlement_ranges SET netted_sequence = 0 WHERE true", "trades that are not netted"),
        ],
    )
    def test_one_that_does_not_balance_is_never_done(
        self, system: System, connection: Connection, symbol: str, damage: str, says: str
    ) -> None:
        trade(system.api, symbol, "alice", "bob", "100", "5")
        system.settled()
        wanted = Wanted(f"wrong-{symbol}", symbol)
        assert settlement.settle(connection, wanted, lambda: False) == Settled(False, True)
        finish = "UPDATE settlements SET status = 'done', finished_at = now() WHERE run_id = %s"
        with connection.transaction(force_rollback=True):
            connection.execute(f"UPDATE {damage} AND run_id = %s", (wanted.run_id,))
            with pytest.raises(psycopg.IntegrityError, match=says):
                connection.execute(finish, (wanted.run_id,))
        assert settlement.settle(connection, wanted) == Settled(True, False)


class Crash(Exception):
    """Of the process that settles."""


class Dying:
    """A connection whose process dies when it has sent `statements` of them."""

    def __init__(self, connection: Connection, statements: int) -> None:
        self._connection = connection
        self._left = statements
        self.transaction = connection.transaction

    def execute(self, *given: Any) -> Any:  # noqa: ANN401
        if not self._left:
            raise Crash
        self._left -= 1
        return self._connection.execute(*given)


def app_of(system: System) -> Flask:
    """The routes of settlements in this process, on the system's stores."""
    stores = stores_of(system)
    markets = Markets(BookReads(connect_redis(stores.redis_url)))
    app = Flask("settlements")
    problems.register(app)
    app.register_blueprint(settlements_blueprint(Settlements(stores.database_url, markets)))
    app.wsgi_app = RequestIds(app.wsgi_app)  # type: ignore[method-assign]
    return app


class TestCrashes:
    """A run goes on where it was."""

    def test_a_run_that_died_at_any_statement_goes_on(
        self, system: System, connection: Connection, symbol: str, rng: random.Random
    ) -> None:
        """Each time one statement later, so that every statement is some run's last; each run is
        finished by its own id or, every other time, by whoever comes next.
        """
        runs = 0
        for statements in count():
            trade_often(system, symbol, rng, 3)
            wanted = Wanted(f"dying-{symbol}-{statements}", symbol)
            dying: Any = Dying(connection, statements)
            try:
                settlement.settle(dying, wanted, trades_per_step=1)
            except Crash:
                pass
            else:
                break
            if statements % 2:
                assert settlement.settle(connection, wanted, trades_per_step=1).is_done
            runs += 1
            assert runs < CRASHES_MAX
        assert runs > 15, "some steps were made"
        assert settlement.settle(connection, Wanted(f"last-{symbol}", symbol)).is_done
        check_settlements(connection)
        left = connection.execute(
            "SELECT (SELECT sum(trades) FROM settlement_ranges WHERE instrument = %(symbol)s)"
            " = (SELECT count(*) FROM trades WHERE instrument = %(symbol)s)",
            {"symbol": symbol},
        ).fetchone()
        assert left == (True,), "every trade is settled"

    def test_an_unfinished_run_is_finished_before_the_next(
        self, system: System, connection: Connection, symbol: str, rng: random.Random
    ) -> None:
        trade_often(system, symbol, rng, 5)
        wanted = Wanted(f"left-{symbol}", symbol)
        settlement.settle(connection, wanted, lambda: False, trades_per_step=1)
        path = f"{PATH}/{wanted.run_id}"
        unfinished = system.api.found(path)
        assert (unfinished["status"], unfinished["trades"]) == ("running", 1)
        assert unfinished["obligations"] == unfinished["fees"] == []
        as_csv = system.api.request("GET", f"{path}?format=csv")
        check_problem(as_csv, 409, "settlement_unfinished", path)
        assert settled(system.api, instrument=symbol)["trades"] == 0
        assert system.api.found(path)["trades"] == 5

    def test_a_run_that_outlasts_a_request_goes_on_with_the_next(
        self,
        system: System,
        connection: Connection,
        symbol: str,
        rng: random.Random,
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        trade_often(system, symbol, rng, 3)
        client = app_of(system).test_client()
        monkeypatch.setattr(api_settlements, "PATIENCE_S", -1)
        wanted = {"run_id": f"long-{symbol}", "instrument": symbol}
        first = client.post(PATH, json=wanted)
        assert (first.status_code, first.headers["Retry-After"]) == (202, "1")
        assert first.json is not None
        assert (first.json["status"], first.json["obligations"]) == ("running", [])
        assert client.post(PATH, json=wanted).status_code == 200
        left = Wanted(f"left-{symbol}", symbol)
        trade_often(system, symbol, rng, 3)
        settlement.settle(connection, left, lambda: False, trades_per_step=1)
        other = client.post(PATH, json={"instrument": symbol})
        assert other.status_code == 503, "it went on with the first, and could not begin itself"
        assert other.json is not None
        assert other.json["code"] == "settlement_busy"
        assert client.post(f"{PATH}?format=csv", json=left._asdict()).mimetype == "text/csv"

    def test_who_waits_too_long_for_a_turn_is_told(
        self, system: System, connection: Connection, symbol: str
    ) -> None:
        connection.execute("SET idle_in_transaction_session_timeout = 0")
        with connection.transaction():
            connection.execute("SELECT pg_advisory_xact_lock(%s)", (settlement.LOCK_ID,))
            check_problem(settle(system.api, instrument=symbol), 503, "settlement_busy", PATH)
        settled(system.api, instrument=symbol)

    @pytest.mark.slow
    def test_a_process_killed_in_the_middle_has_done_nothing_twice(
        self, system: System, connection: Connection, symbol: str, rng: random.Random
    ) -> None:
        """kill -9 as soon as it has come a little further, again and again."""
        trade_often(system, symbol, rng, 40)
        wanted = Wanted(f"killed-{symbol}", symbol)
        # Slowly, so that it is in the middle when it is killed.
        program = (
            "import sys, time; from app.clearing import settlement as s;"
            "url, run_id, symbol = sys.argv[1:]; connection = s.connect(url); take = s._take_turn;"
            "s._take_turn = lambda it: time.sleep(0.2) or take(it);"
            "s.settle(connection, s.Wanted(run_id, symbol), trades_per_step=1)"
        )
        netted = "SELECT coalesce(max(trades), 0) FROM settlement_ranges WHERE run_id = %s"

        def trades() -> int:
            ((found,),) = connection.execute(netted, (wanted.run_id,)).fetchall()
            return int(found)

        killed_at: list[int] = []
        for _ in range(KILLS):
            before = trades()
            process = subprocess.Popen(
                [sys.executable, "-c", program, stores_of(system).database_url, *wanted],
                cwd=ROOT,
            )
            wait_for(lambda: trades() > before or process.poll() is not None)  # noqa: B023
            process.send_signal(signal.SIGKILL)
            process.wait()
            killed_at.append(trades())
        assert 0 < killed_at[0] < 40, "it was in the middle"
        assert settlement.settle(connection, wanted).is_done
        check_settlements(connection)


class TestTheCommand:
    """`python -m app settle`."""

    def test_it_prints_the_report_in_each_format(self, system: System, symbol: str) -> None:
        trade(system.api, symbol, "alice", "bob", "100", "5")
        system.settled()
        run_id = f"cli-{symbol}"
        said = command(system, "settle", "--run-id", run_id, "--instrument", symbol)
        base = symbol.removesuffix("-USD")
        assert (said.code, said.err) == (0, ""), said
        assert said.out.splitlines() == [
            f"settlement {run_id} done: 1 trades",
            f"{symbol} sequences 1 to 2: 1 trades",
            "venue USD 0",
            f"client alice {base} -5",
            "client alice USD 500",
            f"client bob {base} 5",
            "client bob USD -500",
        ]
        again = ("settle", "--run-id", run_id, "--instrument", symbol, "--format")
        assert json.loads(command(system, *again, "json").out) == system.api.found(
            f"{PATH}/{run_id}"
        )
        as_csv = system.api.request("GET", f"{PATH}/{run_id}?format=csv").body
        assert command(system, *again, "csv").out.encode() == as_csv.replace(b"\r\n", b"\n")

    def test_it_says_what_is_wrong(self, system: System, symbol: str) -> None:
        settled(system.api, run_id=f"wrong-id-{symbol}", instrument=symbol)
        for arguments, code, says in (
            (("--run-id", f"wrong-id-{symbol}"), 1, f"was of {symbol}"),
            (("--instrument", "NO-USD"), 1, "no instrument NO-USD"),
            (("--run-id", "a b"), 2, "--run-id: 1 to 64 letters"),
            (("--run-id", ""), 2, "--run-id: 1 to 64 letters"),
        ):
            said = command(system, "settle", *arguments)
            assert (said.code, said.out) == (code, "")
            assert says in said.err

    def test_a_postgres_that_is_away_is_said_in_one_line(self, system: System) -> None:
        said = command(system, "settle", program=("-c", _WITH_POSTGRES_AWAY))
        assert (said.code, said.out) == (3, "")
        assert said.err.startswith("crossbook: ")


_WITH_POSTGRES_AWAY = (
    f"import os, sys; os.environ['DATABASE_URL'] = {AWAY!r};"
    "from app.cli import main; sys.exit(main(sys.argv[1:]))"
)


@pytest.mark.slow
def test_settlements_under_load_and_kills_equal_plain_sql_over_trades(rng: random.Random) -> None:
    """While Postgres and the persister are killed, each run is asked for until it is done."""
    with running_system() as system:
        symbol = system.list_instrument(maker_fee_bps="-0.5", taker_fee_bps="3")
        enough = threading.Event()
        done: list[Json] = []
        settling = threading.Thread(target=_settle_until, args=(system.api, enough, done))
        crowd = Crowd(system.api, symbol, rng, 4)
        with crowd.trading():
            settling.start()
            for part in ("postgres", "persist"):
                runs = len(done)
                system.kill(part)
                wait_for(lambda: any(report["trades"] for report in done[runs:]))  # noqa: B023
            enough.set()
            settling.join()
        system.settled()
        settled(system.api)
        with system.postgres() as connection:
            check_settlements(connection)
            unsettled = connection.execute(
                "SELECT count(*) FROM trades AS t WHERE sequence > (SELECT max(up_to_sequence)"
                " FROM settlement_ranges WHERE instrument = t.instrument)"
            ).fetchone()
        assert unsettled == (0,)


def _settle_until(api: Api, enough: threading.Event, done: list[Json]) -> None:
    """Runs of every instrument, one after the other, each asked for as often as it takes."""
    for number in count():
        if enough.is_set():
            return
        while (answer := _asked(api, f"storm-{number}")) is None or answer.status >= 202:
            assert answer is None or answer.status in (202, 503), answer
        done.append(answer.json())


def _asked(api: Api, run_id: str) -> Answer | None:
    try:
        return settle(api, run_id=run_id)
    except OSError:
        return None
