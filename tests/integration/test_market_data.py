"""Candles, tickers, VWAP and aggregates by REST: always what plain SQL over the trades says, in
pages that fit together. Books get trades of several days by setting their clocks ahead.
"""

import random
import re
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from decimal import ROUND_HALF_EVEN, Decimal
from typing import Any, Final, TypeVar

import pytest
from psycopg import sql

from app.persistence import market_data
from app.persistence.queries import Queries, open_pool
from tests import sql_truth
from tests.conftest import ListInstrument
from tests.rest import Api, Json, check_problem, codes_by_field
from tests.system import System

MINUTE: Final = timedelta(minutes=1)
DAY: Final = timedelta(days=1)
INTERVALS: Final = {"1m": 1, "5m": 5, "15m": 15, "1h": 60, "4h": 240, "1d": 1440}
TICK, LOT, NOTIONAL = Decimal("0.01"), Decimal("0.001"), Decimal("0.00001")
PRICE = "100.00"
T = TypeVar("T")
TRADES: Final = 60
OVER_DAYS: Final = 3


class Traded:
    """One instrument with trades at chosen times."""

    def __init__(self, system: System, symbol: str) -> None:
        self.system = system
        self.symbol = symbol
        self.api = system.api

    def trade(
        self, price: str = PRICE, quantity: str = "1", side: str = "buy", at: datetime | None = None
    ) -> Json:
        """One trade; from `at` on the book's clock is not earlier."""
        if at is not None:
            time_us = (at - datetime(1970, 1, 1, tzinfo=UTC)) // timedelta(microseconds=1)
            self.system.redis.hset(f"{{{self.symbol}}}:book", "time", time_us)
        body = {"instrument": self.symbol, "price": price, "quantity": quantity}
        resting, taking = ("sell", "buy") if side == "buy" else ("buy", "sell")
        self.api.placed(body | {"client_id": "maker", "side": resting})
        taken = self.api.placed(body | {"client_id": "taker", "side": taking})
        (trade,) = taken["trades"]
        found: Json = trade
        return found

    def found(self, path: str, **query: object) -> Json:
        return self.api.found(path, instrument=self.symbol, **query)

    def candles(self, interval: str = "1m", **query: object) -> list[Json]:
        candles: list[Json] = self.found("/candles", interval=interval, **query)["candles"]
        return candles

    def truth(self, minutes: int) -> list[tuple[Any, ...]]:
        """Candles by plain SQL, from the start on."""
        with self.system.postgres() as connection:
            found = sql_truth.candles(connection, minutes * 60)
        return [row[1:] for row in found if row[0] == self.symbol]


@pytest.fixture
def traded(system: System, list_instrument: ListInstrument) -> Traded:
    """An instrument of its own, without trades."""
    return Traded(system, list_instrument(str(TICK), str(LOT), taker_fee_bps="2"))


@pytest.fixture(scope="module")
def busy(system: System) -> Traded:
    """An instrument with random trades over three days, all written down."""
    traded = Traded(system, system.list_instrument(str(TICK), str(LOT)))
    dice = random.Random(7)
    begin = (datetime.now(UTC) + 2 * DAY).replace(hour=0, minute=0, second=0, microsecond=0)
    minutes = sorted(dice.randrange(OVER_DAYS * 1440) for _ in range(TRADES - 10))
    minutes += [minutes[-1] + late for late in range(10)]
    for minute in minutes:
        at = begin + minute * MINUTE + timedelta(microseconds=dice.randrange(60_000_000))
        price = str(100 + TICK * dice.randrange(-500, 500))
        traded.trade(price, str(LOT * dice.randrange(1, 9_000)), dice.choice(["buy", "sell"]), at)
    system.settled()
    return traded


def moment(text: str) -> datetime:
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{6}Z", text), text
    return datetime.fromisoformat(text)


def rounded(value: Decimal, step: Decimal) -> str:
    return str(value.quantize(step, ROUND_HALF_EVEN))


# Candles


@pytest.mark.parametrize("interval", INTERVALS)
def test_candles_equal_plain_sql_over_the_trades(busy: Traded, interval: str) -> None:
    """Of every interval; and between them there is a flat candle for each without a trade."""
    span = timedelta(minutes=INTERVALS[interval])
    truth = {row[0]: row[1:] for row in busy.truth(INTERVALS[interval])}
    candles = busy.candles(interval, start=min(truth).isoformat(), limit=1000)
    close = None
    for before, candle in zip([None, *candles], candles, strict=False):
        start = moment(candle["start"])
        assert before is None or start == moment(before["start"]) + span, "no gap, no repeat"
        assert (start - datetime(1970, 1, 1, tzinfo=UTC)) % span == timedelta(0), "aligned"
        if start in truth:
            assert candle == shown(start, truth.pop(start))
        else:
            assert candle == flat(start, close)
        close = candle["close"]
    assert not truth or len(candles) == 1000, "all of them are there"


def shown(start: datetime, row: tuple[Any, ...]) -> Json:
    first, high, low, last, volume, quote_volume, trades = row[:7]
    return {
        "start": start.strftime("%Y-%m-%dT%H:%M:%S.000000Z"),
        "open": rounded(first, TICK),
        "high": rounded(high, TICK),
        "low": rounded(low, TICK),
        "close": rounded(last, TICK),
        "volume": rounded(volume, LOT),
        "quote_volume": rounded(quote_volume, NOTIONAL),
        "vwap": rounded(quote_volume / volume, TICK),
        "trades": trades,
    }


def flat(start: datetime, close: str | None) -> Json:
    return {
        "start": start.strftime("%Y-%m-%dT%H:%M:%S.000000Z"),
        **dict.fromkeys(("open", "high", "low", "close"), close),
        "volume": "0.000",
        "quote_volume": "0.00000",
        "vwap": None,
        "trades": 0,
    }


def test_pages_of_candles_fit_together(busy: Traded) -> None:
    """Forwards from a start, backwards from an end, and the last ones without either."""
    whole = busy.candles("1h", limit=1000)
    assert moment(whole[-1]["start"]) + timedelta(hours=1) > datetime.now(UTC), "up to now"
    forwards: list[Json] = []
    while page := busy.candles("1h", limit=7, start=after(forwards or [], whole)):
        forwards += page
    assert forwards == whole
    backwards: list[Json] = []
    end: str | None = None
    while page := busy.candles("1h", limit=9, end=end):
        backwards = page + backwards
        end = page[0]["start"]
    assert backwards == whole
    assert busy.candles("1h", limit=3) == whole[-3:]
    middle = busy.candles("1h", start=whole[5]["start"], end=whole[8]["start"])
    assert middle == whole[5:8]


def after(page: list[Json], whole: list[Json]) -> str:
    """Where the next page begins; the first one long before there was any candle."""
    if not page:
        return "1969-01-01T00:00:00Z"
    return (moment(page[-1]["start"]) + timedelta(seconds=1)).isoformat()


def test_much_is_read_in_parts(busy: Traded, monkeypatch: pytest.MonkeyPatch) -> None:
    """And is the same: long stretches of time, and windows of many instruments."""
    with open_pool(busy.system._stores().database_url) as pool:
        queries = Queries(pool)
        data = market_data.MarketData(queries)
        market = queries.market(busy.symbol)
        span = data.span(market)
        assert span is not None
        hour_us = 60 * market_data.MINUTE_US
        starts = range(span.first_us - span.first_us % hour_us, span.current_us, hour_us)
        symbols = [row[0] for row in busy.system.rows("SELECT symbol FROM instruments")]
        markets = [queries.market(symbol) for symbol in symbols]

        def whole_and_in_parts() -> tuple[Any, Any]:
            whole = data.candles(market, starts), data.windows(markets, 3000)
            with monkeypatch.context() as patch:
                patch.setattr(market_data, "MINUTES_AT_ONCE", 180)
                patch.setattr(market_data, "INSTRUMENTS_AT_ONCE", 3)
                return whole, (data.candles(market, starts), data.windows(markets, 3000))

        whole, in_parts = within_a_minute(whole_and_in_parts)
        assert in_parts == whole
        assert len(whole[0]) > 10
        assert whole[1].keys() == set(symbols)
        assert whole[1][busy.symbol].traded is not None


def within_a_minute(read: Callable[[], T]) -> T:
    """What is read while no minute ends: windows move with the minute of now."""
    while True:
        began = minute_of_now()
        found = read()
        if minute_of_now() == began:
            return found


def minute_of_now() -> datetime:
    return datetime.now(UTC).replace(second=0, microsecond=0)


def test_there_is_no_candle_before_the_first_trade(traded: Traded) -> None:
    assert traded.candles() == []
    assert traded.found("/analytics/trades", interval="1d")["buckets"] == []
    traded.trade()
    traded.system.settled()
    assert [candle["trades"] for candle in traded.candles()][:1] == [1]
    assert traded.candles(end="2020-01-01T00:00:00Z") == []


def test_a_minute_without_trades_has_the_price_before(traded: Traded) -> None:
    """Also where the page begins in the middle of nothing."""
    begin = datetime.now(UTC).replace(second=1, microsecond=0) + DAY
    traded.trade("100.00", at=begin)
    traded.trade("101.00", at=begin + 9 * MINUTE)
    traded.system.settled()
    page = traded.candles(start=(begin + 4 * MINUTE).isoformat(), limit=2)
    assert [(c["open"], c["close"], c["volume"], c["vwap"]) for c in page] == [
        ("100.00", "100.00", "0.000", None)
    ] * 2


# Tickers


def window_truth(traded: Traded, minutes: int = 1440) -> sql_truth.Vwap:
    ((newest,),) = traded.system.rows(
        "SELECT date_trunc('minute', greatest(max(executed_at), now())) FROM trades"
        " WHERE instrument = %s",
        traded.symbol,
    )
    with traded.system.postgres() as connection:
        start, end = newest - (minutes - 1) * MINUTE, newest + MINUTE
        return sql_truth.vwap(connection, traded.symbol, start, end)


def test_a_ticker_is_what_traded_in_the_last_day(busy: Traded) -> None:
    """The minute of now and the 1,439 before."""
    rows = busy.system.rows(
        "SELECT price, quantity, executed_at FROM trades WHERE instrument = %s"
        " AND executed_at >= date_trunc('minute', (SELECT max(executed_at) FROM trades"
        " WHERE instrument = %s)) - interval '1439 minutes' ORDER BY sequence, fill_index",
        busy.symbol,
        busy.symbol,
    )
    prices, last = [row[0] for row in rows], rows[-1]
    assert len(rows) < TRADES, "some are older"
    truth, ticker = window_truth(busy), busy.found("/ticker")
    assert len(rows) == truth.trades
    change = last[0] - prices[0]
    assert ticker == {
        "instrument": busy.symbol,
        "sequence": busy.system.sequences()[busy.symbol],
        "last": rounded(last[0], TICK),
        "last_quantity": rounded(last[1], LOT),
        **dict.fromkeys(("best_bid", "best_bid_quantity", "best_ask", "best_ask_quantity")),
        "open_24h": rounded(prices[0], TICK),
        "high_24h": rounded(max(prices), TICK),
        "low_24h": rounded(min(prices), TICK),
        "volume_24h": rounded(truth.volume, LOT),
        "quote_volume_24h": rounded(truth.quote_volume, NOTIONAL),
        "vwap_24h": rounded(truth.quote_volume / truth.volume, TICK),
        "change_24h": rounded(change, TICK),
        "change_24h_percent": rounded(100 * change / prices[0], Decimal("0.01")),
        "trades_24h": truth.trades,
        "timestamp": last[2].strftime("%Y-%m-%dT%H:%M:%S.%fZ"),
    }
    (listed,) = (t for t in busy.api.found("/ticker")["tickers"] if t["instrument"] == busy.symbol)
    assert listed == ticker


def test_a_ticker_has_what_was_answered_already(traded: Traded) -> None:
    """Whatever the persister does, which the candles follow."""
    nothing = traded.found("/ticker")
    assert nothing["sequence"] == 0
    assert {name for name, value in nothing.items() if value is not None} == {
        *("instrument", "sequence", "volume_24h", "quote_volume_24h", "trades_24h")
    }
    traded.trade("100.00", "2")
    traded.system.settled()
    with traded.system.paused("persist"):
        traded.trade("98.00", "1")
        trade = traded.trade("101.00", "3", "sell")
        body = {"instrument": traded.symbol, "client_id": "maker", "quantity": "0.500"}
        traded.api.placed(body | {"side": "buy", "price": "97.5"})
        traded.api.placed(body | {"side": "sell", "price": "103"})
        ticker = traded.found("/ticker")
        assert traded.candles(limit=1)[-1]["trades"] <= 1
    assert ticker == {
        "instrument": traded.symbol,
        "sequence": 8,
        "last": "101.00",
        "last_quantity": "3.000",
        "best_bid": "97.50",
        "best_bid_quantity": "0.500",
        "best_ask": "103.00",
        "best_ask_quantity": "0.500",
        "open_24h": "100.00",
        "high_24h": "101.00",
        "low_24h": "98.00",
        "volume_24h": "6.000",
        "quote_volume_24h": "601.00000",
        "vwap_24h": "100.17",
        "change_24h": "1.00",
        "change_24h_percent": "1.00",
        "trades_24h": 3,
        "timestamp": trade["timestamp"],
    }
    traded.system.settled()
    assert traded.found("/ticker") == ticker


def test_a_fall_is_shown_with_its_sign(traded: Traded) -> None:
    traded.trade("3.00")
    traded.trade("2.99")
    ticker = traded.found("/ticker")
    assert (ticker["change_24h"], ticker["change_24h_percent"]) == ("-0.01", "-0.33")


def test_a_last_price_of_long_ago_is_no_change(traded: Traded) -> None:
    """Nothing traded in the window: nothing is said of it but that."""
    traded.trade()
    traded.system.settled()
    with traded.system.postgres() as connection:
        for statement in (
            "UPDATE candles SET start = start - interval '2 days' WHERE instrument = %s",
            "UPDATE trades SET executed_at = executed_at - interval '2 days' WHERE instrument = %s",
        ):
            connection.execute(statement, (traded.symbol,))
    ticker = traded.found("/ticker")
    assert ticker["last"] == PRICE
    of_day = {name for name, value in ticker.items() if name.endswith("24h") and value is not None}
    assert of_day == {"volume_24h", "quote_volume_24h", "trades_24h"}
    assert traded.found("/analytics/vwap")["vwap"] is None


# Analytics


@pytest.mark.parametrize(
    ("window", "minutes"),
    [(None, 1440), ("1m", 1), ("9m", 9), ("90m", 90), ("36h", 2160), ("30d", 43_200)],
)
def test_vwap_equals_plain_sql_over_the_trades(
    busy: Traded, window: str | None, minutes: int
) -> None:
    answer = busy.found("/analytics/vwap", window=window)
    start, end = moment(answer["start"]), moment(answer["end"])
    assert (end - start, end.second, end.microsecond) == (minutes * MINUTE, 0, 0)
    with busy.system.postgres() as connection:
        truth = sql_truth.vwap(connection, busy.symbol, start, end)
    assert truth == window_truth(busy, minutes)
    assert answer == {
        "instrument": busy.symbol,
        "window": window or "24h",
        "start": answer["start"],
        "end": answer["end"],
        "vwap": rounded(truth.quote_volume / truth.volume, TICK) if truth.volume else None,
        "volume": rounded(truth.volume, LOT),
        "quote_volume": rounded(truth.quote_volume, NOTIONAL),
        "trades": truth.trades,
    }


@pytest.mark.parametrize("interval", ["5m", "4h", "1d"])
def test_aggregates_equal_plain_sql_over_the_trades(busy: Traded, interval: str) -> None:
    """Of the intervals with trades; the others are left out."""
    first = busy.truth(INTERVALS[interval])[0][0].isoformat()
    page = {"interval": interval, "start": first, "limit": 1000}
    buckets = busy.found("/analytics/trades", **page)["buckets"]
    end = moment(busy.candles(**page)[-1]["start"])
    assert buckets == [
        {
            "start": start.strftime("%Y-%m-%dT%H:%M:%S.000000Z"),
            "trades": trades,
            "volume": rounded(volume, LOT),
            "quote_volume": rounded(quote_volume, NOTIONAL),
            "vwap": rounded(quote_volume / volume, TICK),
            "buy_volume": rounded(bought, LOT),
            "sell_volume": rounded(volume - bought, LOT),
            "average_quantity": rounded(volume / trades, LOT),
            "largest_quantity": rounded(largest, LOT),
        }
        for start, *_, volume, quote_volume, trades, bought, largest, _first, _last in busy.truth(
            INTERVALS[interval]
        )
        if start <= end
    ]
    assert buckets


# Bad input


@pytest.mark.parametrize(
    ("path", "query", "errors"),
    [
        ("/candles", {}, {"interval": "required"}),
        ("/candles", {"interval": "2m"}, {"interval": "invalid_value"}),
        ("/candles", {"interval": "1M"}, {"interval": "invalid_value"}),
        ("/candles", {"interval": "1m", "limit": 1001}, {"limit": "invalid_value"}),
        ("/candles", {"interval": "1m", "limit": 0}, {"limit": "invalid_value"}),
        ("/candles", {"interval": "1m", "limit": "ten"}, {"limit": "invalid_value"}),
        ("/candles", {"interval": "1m", "start": "yesterday"}, {"start": "invalid_value"}),
        ("/candles", {"interval": "1m", "end": "2030-01-01"}, {"end": "invalid_value"}),
        ("/candles", {"interval": "1m", "end": "2255-07-01T00:00:00Z"}, {"end": "out_of_range"}),
        (
            "/candles",
            {"interval": "1m", "start": "2030-01-01T00:00:00Z", "end": "2030-01-01T00:00:00Z"},
            {"end": "out_of_range"},
        ),
        ("/candles", {"interval": "1m", "depth": 1}, {"depth": "unknown_field"}),
        ("/ticker", {"window": "1h"}, {"window": "unknown_field"}),
        ("/analytics/vwap", {"window": "24"}, {"window": "invalid_value"}),
        ("/analytics/vwap", {"window": "0m"}, {"window": "invalid_value"}),
        ("/analytics/vwap", {"window": "31d"}, {"window": "invalid_value"}),
        ("/analytics/vwap", {"window": "1w"}, {"window": "invalid_value"}),
        ("/analytics/vwap", {"window": "-1h"}, {"window": "invalid_value"}),
        ("/analytics/trades", {"interval": "1s"}, {"interval": "invalid_value"}),
    ],
)
def test_what_is_asked_wrongly_is_named(
    busy: Traded, path: str, query: Json, errors: dict[str, str]
) -> None:
    answer = busy.api.get(path, instrument=busy.symbol, **query)
    assert codes_by_field(check_problem(answer, 400, "validation_failed", path)) == errors


@pytest.mark.parametrize(
    ("path", "query"),
    [
        ("/candles", {"interval": "1m"}),
        ("/ticker", {}),
        ("/analytics/vwap", {}),
        ("/analytics/trades", {"interval": "1h"}),
    ],
)
def test_an_unknown_instrument_is_not_found(api: Api, path: str, query: Json) -> None:
    answer = api.get(path, instrument="NIL-USD", **query)
    check_problem(answer, 404, "instrument_not_found", path)


def test_an_offset_may_be_sent_as_it_is(busy: Traded) -> None:
    """A plus sign means a space in a query; nobody means that here."""
    page = busy.candles("1h", limit=2)
    answer = busy.api.request(
        "GET",
        f"/candles?instrument={busy.symbol}&interval=1h&start="
        + moment(page[0]["start"]).strftime("%Y-%m-%dT%H:%M:%S+00:00"),
    )
    assert answer.json()["candles"] == page


# What Postgres looks at


NOW: Final = datetime.now(UTC)
MANY: Final = """
    INSERT INTO candles
    SELECT i.symbol, date_trunc('minute', now()) - n * interval '1 minute', 5, 7, 4, 6, 10, 55, 3,
        4, 5, 30000 - n, 30000 - n
    FROM generate_series(0, 20000) AS n,
        (VALUES ('ONE-USD'), ('TWO-USD'), ('SIX-USD')) AS i (symbol)
"""
PLANS: Final[dict[str, tuple[sql.Composed | sql.SQL, Json]]] = {
    "span": (market_data._SPAN, {"instrument": "TWO-USD"}),
    "close": (market_data._CLOSE, {"instrument": "TWO-USD", "time": NOW - 9 * DAY}),
    "candles": (
        market_data._CANDLES,
        {
            "instrument": "TWO-USD",
            "interval": 5 * MINUTE,
            "start": NOW - 3 * DAY,
            "stop": NOW - 2 * DAY,
        },
    ),
    "windows": (market_data._WINDOWS, {"instruments": ["ONE-USD", "SIX-USD"], "minutes": 1440}),
}


@pytest.fixture(scope="module")
def plan_of(system: System) -> Iterator[Callable[[str], str]]:
    """What Postgres does for a statement, with many candles of instruments that nobody listed."""
    with system.postgres() as connection:
        connection.execute(MANY)
        connection.execute("ANALYZE candles")
        connection.execute("SET LOCAL plan_cache_mode = force_generic_plan")

        def explain(name: str) -> str:
            statement, values = PLANS[name]
            explained = sql.SQL("EXPLAIN (ANALYZE, TIMING OFF, COSTS OFF) ") + statement
            found = connection.execute(explained, values, prepare=True).fetchall()
            return "\n".join(line for (line,) in found)

        yield explain
        connection.rollback()


@pytest.mark.parametrize(
    ("name", "rows_max"), [("span", 2), ("close", 1), ("candles", 1440), ("windows", 2 * 1441)]
)
def test_reads_look_only_at_the_minutes_that_they_tell_of(
    plan_of: Callable[[str], str], name: str, rows_max: int
) -> None:
    """However many there are; a window's newest is looked up first."""
    plan = plan_of(name)
    assert "Seq Scan on candles" not in plan
    scans = re.findall(r"Scan.* on candles(?: \w+)? \(actual rows=(\d+)\S* loops=(\d+)\)", plan)
    assert 0 < sum(int(rows) * int(loops) for rows, loops in scans) <= rows_max, plan
