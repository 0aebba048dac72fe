"""The contract's REST page, as far as it exists: what a client sends, what it is answered, and from
when on. One running system with two workers; every test trades an instrument of its own.
"""

import re
import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from app.api.application import REDIS_TIMEOUT_S
from app.engine.floors import LATE_AFTER_US
from tests.conftest import ListInstrument
from tests.rest import (
    Api,
    Json,
    a_market_order,
    an_order,
    check_problem,
    codes_by_field,
    order_id,
    raw_request,
    volley,
)
from tests.system import WORKERS, System
from tests.waiting import wait_for

ORDER_FIELDS = {
    *("instrument", "client_id", "side", "type", "quantity", "price", "stop_price"),
    *("time_in_force", "expires_at", "post_only", "display_quantity", "self_trade_prevention"),
    *("client_order_id", "idempotency_key", "order_id", "status", "filled_quantity"),
    *("remaining_quantity", "average_price", "reason", "sequence", "created_at", "updated_at"),
}
TRADE_FIELDS = {
    *("trade_id", "instrument", "price", "quantity", "side", "buy_order_id", "sell_order_id"),
    *("maker_order_id", "taker_order_id", "sequence", "timestamp"),
}
RFC_3339_US = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{6}Z")
EXACT_LIMIT = 2**53
MAX_PAGE = 1000
MAX_BODY_BYTES = 16 * 1024
CLOCKS_APART_S = 1.0
"""What a worker may think wrongly of Redis's time, and more."""
TEN_PAIRS = ("BTC", "ETH", "SOL", "BNB", "XRP", "ADA", "DOGE", "AVAX", "MATIC", "DOT")


def moment(text: str) -> datetime:
    assert RFC_3339_US.fullmatch(text), text
    return datetime.fromisoformat(text)


class TestPlacing:
    """POST /orders."""

    def test_an_order_that_rests_is_told_with_every_field(
        self, api: Api, list_instrument: ListInstrument
    ) -> None:
        symbol = list_instrument("0.01", "0.0001")
        answer = api.place(
            an_order(symbol, client_id="ann", client_order_id="mine-1", price="100.5", quantity=2),
            key="key 1",
        )
        assert answer.status == 201
        assert answer.headers["Content-Type"] == "application/json"
        assert answer.json().keys() == {"order", "trades"}
        order = answer.json()["order"]
        assert order.keys() == ORDER_FIELDS
        assert order == {
            "order_id": order_id(symbol, 1),
            "instrument": symbol,
            "client_id": "ann",
            "side": "buy",
            "type": "limit",
            "quantity": "2.0000",
            "price": "100.50",
            "stop_price": None,
            "time_in_force": "gtc",
            "expires_at": None,
            "post_only": False,
            "display_quantity": None,
            "self_trade_prevention": "none",
            "client_order_id": "mine-1",
            "idempotency_key": "key 1",
            "status": "open",
            "filled_quantity": "0.0000",
            "remaining_quantity": "2.0000",
            "average_price": None,
            "reason": None,
            "sequence": 1,
            "created_at": order["created_at"],
            "updated_at": order["created_at"],
        }
        assert abs(datetime.now(UTC) - moment(order["created_at"])) < timedelta(seconds=10)
        assert answer.json()["trades"] == []

    def test_a_trade_is_told_with_every_field_in_the_answer_of_its_taker(
        self, api: Api, list_instrument: ListInstrument
    ) -> None:
        symbol = list_instrument("0.05", "0.001")
        maker = api.placed(an_order(symbol, price="10.05", quantity="1.5"))["order"]
        document = api.placed(an_order(symbol, side="sell", price="10", quantity="0.5"))
        taker, (trade,) = document["order"], document["trades"]
        assert trade.keys() == TRADE_FIELDS
        assert trade == {
            "trade_id": trade["trade_id"],
            "instrument": symbol,
            "price": "10.05",
            "quantity": "0.500",
            "side": "sell",
            "buy_order_id": maker["order_id"],
            "sell_order_id": taker["order_id"],
            "maker_order_id": maker["order_id"],
            "taker_order_id": taker["order_id"],
            "sequence": 2,
            "timestamp": taker["created_at"],
        }
        assert trade["trade_id"]
        assert (taker["status"], taker["filled_quantity"]) == ("filled", "0.500")
        assert (taker["remaining_quantity"], taker["average_price"]) == ("0.000", "10.05")
        maker = api.order(maker["order_id"])
        assert (maker["status"], maker["remaining_quantity"]) == ("partially_filled", "1.000")
        assert (maker["sequence"], maker["updated_at"]) == (2, trade["timestamp"])

    def test_what_is_left_out_gets_its_default(self, api: Api, symbol: str) -> None:
        limit = api.placed(an_order(symbol))["order"]
        market = api.placed(a_market_order(symbol, "buy", "1"))["order"]
        for order in (limit, market):
            assert order["client_id"] == "anonymous"
            assert order["self_trade_prevention"] == "none"
            assert order["post_only"] is False
        assert (limit["type"], limit["time_in_force"]) == ("limit", "gtc")
        assert (market["time_in_force"], market["price"]) == ("ioc", None)

    @pytest.mark.parametrize("price", ["10.1", 10.1, "10.10", "1.01e1", "101E-1", "10.100000"])
    def test_decimals_come_as_strings_or_numbers_and_leave_in_the_instruments_decimals(
        self, api: Api, list_instrument: ListInstrument, price: str | float
    ) -> None:
        symbol = list_instrument("0.01", "0.1")
        order = api.placed(an_order(symbol, price=price, quantity=3))["order"]
        assert (order["price"], order["quantity"]) == ("10.10", "3.0")

    @pytest.mark.parametrize("quote", ['"', ""], ids=["string", "number"])
    def test_a_number_that_no_float_holds_passes_unchanged(
        self, api: Api, list_instrument: ListInstrument, quote: str
    ) -> None:
        price, quantity = "90071992547409.91", "90071992.54740991"
        assert price != repr(float(price))
        assert quantity != repr(float(quantity))
        symbol = list_instrument("0.01", "0.00000001", max_price=price, max_quantity=quantity)
        body = (
            f'{{"instrument":"{symbol}","side":"sell",'
            f'"price":{quote}{price}{quote},"quantity":{quote}{quantity}{quote}}}'
        )
        order = api.request("POST", "/orders", body.encode()).json()["order"]
        assert (order["price"], order["quantity"]) == (price, quantity)
        taker = api.placed(a_market_order(symbol, "buy", quantity))["order"]
        assert (taker["average_price"], taker["filled_quantity"]) == (price, quantity)
        assert api.order(order["order_id"])["average_price"] == price

    def test_the_average_price_is_exact_to_the_tick_over_several_fills(
        self, api: Api, list_instrument: ListInstrument
    ) -> None:
        symbol = list_instrument("0.01", "1")
        for price, quantity in (("1.00", "2"), ("1.01", "1"), ("1.05", "1")):
            api.placed(an_order(symbol, side="sell", price=price, quantity=quantity))
        taker = api.placed(a_market_order(symbol, "buy", "4"))["order"]
        assert taker["average_price"] == "1.02", "4.06 / 4 = 1.015, half to even"

    def test_each_time_in_force_ends_as_the_contract_says(self, api: Api, symbol: str) -> None:
        sell = an_order(symbol, side="sell", quantity="10")
        api.placed(an_order(symbol, quantity="4"))
        outcomes = {
            "fok_unfilled": api.placed(sell | {"time_in_force": "fok"}),
            "ioc_remainder": api.placed(sell | {"time_in_force": "ioc"}),
            "no_liquidity": api.placed(a_market_order(symbol, "sell", "1")),
        }
        for reason, document in outcomes.items():
            order = document["order"]
            assert (order["status"], order["reason"]) == ("cancelled", reason)
        filled = [document["order"]["filled_quantity"] for document in outcomes.values()]
        assert filled == ["0", "4", "0"]

    def test_post_only_rests_or_is_refused(self, api: Api, symbol: str) -> None:
        resting = api.placed(an_order(symbol, post_only=True))["order"]
        assert (resting["status"], resting["post_only"]) == ("open", True)
        crossing = api.place(an_order(symbol, side="sell", post_only=True))
        check_problem(crossing, 422, "post_only_would_cross", "/orders")
        assert api.order(resting["order_id"]) == resting

    def test_an_open_orders_client_order_id_is_taken_only_for_its_client(
        self, api: Api, symbol: str
    ) -> None:
        mine = an_order(symbol, client_id="ann", client_order_id="a")
        first = api.placed(mine)["order"]
        check_problem(api.place(mine), 409, "duplicate_client_order_id", "/orders")
        api.placed(mine | {"client_id": "bob"})
        api.cancelled(first["order_id"])
        assert api.placed(mine)["order"]["client_order_id"] == "a", "free again"

    def test_a_level_never_exceeds_what_is_exact(
        self, api: Api, list_instrument: ListInstrument
    ) -> None:
        most = str(EXACT_LIMIT - 1)
        symbol = list_instrument(max_quantity=most, max_price=most)
        order = api.placed(an_order(symbol, quantity=most, price=most))["order"]
        assert (order["quantity"], order["price"]) == (most, most)
        one_more = api.place(an_order(symbol, quantity="1", price=most))
        check_problem(one_more, 422, "level_quantity_overflow", "/orders")
        level = {"price": most, "quantity": most, "cumulative": most, "orders": 1}
        assert api.found("/orderbook", instrument=symbol)["bids"] == [level]

    def test_an_unknown_instrument_is_not_found(self, api: Api) -> None:
        check_problem(api.place(an_order("NO-USD")), 404, "instrument_not_found", "/orders")

    def test_a_sequence_goes_up_by_one_per_accepted_command_only(
        self, api: Api, symbol: str
    ) -> None:
        first = api.placed(an_order(symbol))["order"]
        assert api.place(an_order(symbol, side="sell", post_only=True)).status == 422
        assert api.place(an_order(symbol, price="0")).status == 400
        second = api.placed(an_order(symbol))["order"]
        cancelled = api.cancelled(first["order_id"])
        assert [first["sequence"], second["sequence"], cancelled["sequence"]] == [1, 2, 3]


class TestReading:
    """GET /orders/{order_id}."""

    def test_an_order_is_there_the_moment_it_is_acknowledged_and_for_ever(
        self, system: System, symbol: str
    ) -> None:
        """Open, filled and cancelled alike: while the persister stands still and after it."""
        api = system.api
        with system.paused("persist"):
            orders = [api.placed(an_order(symbol, quantity=str(n)))["order"] for n in range(1, 4)]
            orders.append(api.placed(a_market_order(symbol, "sell", "1"))["order"])
            orders[0] = api.order(orders[0]["order_id"])
            assert orders[0]["status"] == "filled"
            orders[1] = api.cancelled(orders[1]["order_id"])
            assert [api.order(order["order_id"]) for order in orders] == orders
        system.settled()
        kept = [name for name in system.redis.hkeys(f"{{{symbol}}}:book") if name.isdigit()]
        assert kept == [b"%014d" % 3], "what is over has left Redis"
        assert [api.order(order["order_id"]) for order in orders] == orders

    @pytest.mark.parametrize(
        "unknown",
        ["{symbol}-00000000000002", "{symbol}-2", "NO-USD-00000000000001", "x", "{symbol}-", "-1"],
    )
    def test_an_unknown_order_is_not_found(self, api: Api, symbol: str, unknown: str) -> None:
        api.placed(an_order(symbol))
        path = f"/orders/{unknown.format(symbol=symbol)}"
        check_problem(api.get(path), 404, "order_not_found", path)


class TestCancelling:
    """DELETE /orders/{order_id} and POST /orders/{order_id}/cancel."""

    @pytest.mark.parametrize(("method", "ending"), [("DELETE", ""), ("POST", "/cancel")])
    def test_a_cancel_answers_with_the_final_order(
        self, system: System, symbol: str, method: str, ending: str
    ) -> None:
        api = system.api
        placed = api.placed(an_order(symbol, quantity="5"))["order"]
        api.placed(a_market_order(symbol, "sell", "2"))
        api.placed(an_order(symbol, quantity="7"))
        path = f"/orders/{placed['order_id']}{ending}"
        answer = api.request(method, path)
        assert answer.status == 200
        order = answer.json()["order"]
        assert answer.json().keys() == {"order"}
        changed = {
            "status": "cancelled",
            "reason": "cancelled_by_client",
            "filled_quantity": "2",
            "remaining_quantity": "3",
            "average_price": "100",
            "sequence": 4,
            "updated_at": order["updated_at"],
        }
        assert order == placed | changed
        assert order["updated_at"] > placed["created_at"]
        left = {"price": "100", "quantity": "7", "cumulative": "7", "orders": 1}
        assert api.found("/orderbook", instrument=symbol)["bids"] == [left]
        check_problem(api.request(method, path), 409, "order_not_open", path)
        system.settled()
        check_problem(api.request(method, path), 409, "order_not_open", path)
        assert api.order(placed["order_id"]) == order

    def test_an_order_that_ended_by_itself_is_not_open(self, system: System, symbol: str) -> None:
        api = system.api
        maker = api.placed(an_order(symbol))["order"]["order_id"]
        taker = api.placed(a_market_order(symbol, "sell", "9"))["order"]["order_id"]
        for _ in ("in Redis", "in Postgres"):
            for over in (maker, taker):
                check_problem(api.cancel(over), 409, "order_not_open", f"/orders/{over}")
            system.settled()

    def test_an_unknown_order_is_not_found(self, api: Api, symbol: str) -> None:
        for unknown in (order_id(symbol, 1), "NO-USD-00000000000001", "x"):
            check_problem(api.cancel(unknown), 404, "order_not_found", f"/orders/{unknown}")
            path = f"/orders/{unknown}/cancel"
            check_problem(api.request("POST", path), 404, "order_not_found", path)


class TestListing:
    """GET /orders."""

    def test_filters_pick_and_combine(
        self, system: System, symbol: str, list_instrument: ListInstrument
    ) -> None:
        api, other = system.api, list_instrument()
        orders = [
            api.placed(an_order(where, client_id=client, client_order_id=f"{where}{client}{n}"))
            for where in (symbol, other)
            for client in (f"ann {symbol}", f"bob {symbol}")
            for n in range(2)
        ]
        newest = [document["order"] for document in reversed(orders)]
        # The oldest of `symbol` is ann's first: filled; and bob's first is cancelled.
        api.placed(a_market_order(symbol, "sell", "5", client_id=f"cyd {symbol}"))
        api.cancelled(newest[5]["order_id"])
        system.settled()
        newest = [api.order(order["order_id"]) for order in newest]
        ann = f"ann {symbol}"

        def picked(**query: str) -> list[Json]:
            return list(api.found("/orders", **query)["orders"])

        def chosen(condition: Callable[[Json], bool]) -> list[Json]:
            return [order for order in newest if condition(order)]

        assert picked(client_id=ann) == chosen(lambda o: o["client_id"] == ann)
        assert picked(client_id=ann, instrument=symbol, status="filled") == newest[7:]
        assert picked(client_id=ann, instrument=symbol, status="open") == newest[6:7]
        assert picked(instrument=other) == chosen(lambda o: o["instrument"] == other)
        assert picked(instrument=symbol, status="cancelled") == newest[5:6]
        assert picked(instrument=symbol, status="open") == [newest[4], newest[6]]
        assert picked(client_order_id=newest[0]["client_order_id"]) == newest[:1]
        assert picked(client_id=ann, client_order_id=newest[0]["client_order_id"]) == []
        assert picked(client_id=ann, instrument=symbol, status="expired") == []

    @pytest.mark.parametrize("limit", [1, 7, 1000])
    def test_pages_show_every_order_once_newest_first(
        self, system: System, symbol: str, limit: int
    ) -> None:
        """By the client over two instruments, half in Postgres, half only in Redis, of all states;
        orders that come while one turns the pages change nothing.
        """
        api, client = system.api, f"walker {symbol}"
        symbols = (symbol, system.list_instrument())
        expected: list[str] = []

        def place(count: int) -> None:
            for n in range(count):
                order = an_order(symbols[n % 2], client_id=client, side="sell", price=str(100 + n))
                expected.insert(0, api.placed(order)["order"]["order_id"])
                if n % 5 == 0:
                    api.placed(a_market_order(symbols[n % 2], "buy", "1", client_id="taker"))
                if n % 7 == 0:
                    api.cancelled(expected[0])

        place(12)
        system.settled()
        with system.paused("persist"):
            place(12)
            seen: list[str] = []
            pages = api.pages("/orders", "cursor", "next_cursor", client_id=client, limit=limit)
            for page in pages:
                assert len(page["orders"]) <= limit
                seen += [order["order_id"] for order in page["orders"]]
                api.placed(an_order(symbol, client_id=client))
            assert seen == expected

    def test_open_orders_are_exact_at_once(self, system: System, symbol: str) -> None:
        """Whatever the persister does, with and without the client named, page after page."""
        api, client = system.api, f"open {symbol}"
        with system.paused("persist"):
            placed = [
                api.placed(an_order(symbol, client_id=client, price=str(100 + n)))["order"]
                for n in range(9)
            ]
            api.cancelled(placed[2]["order_id"])
            api.placed(a_market_order(symbol, "sell", "5"))  # fills the best bid, the last order
            open_now = [placed[n] for n in (7, 6, 5, 4, 3, 1, 0)]
            for query in ({"client_id": client}, {"instrument": symbol}):
                for limit in (2, 100):
                    assert api.all_orders(**query, status="open", limit=limit) == open_now
            api.placed(a_market_order(symbol, "sell", "1"))
            partial = api.all_orders(client_id=client, status="partially_filled")
            assert partial == [api.order(placed[7]["order_id"])]
            assert api.all_orders(client_id=client, status="open") == open_now[1:]


class TestOrderBook:
    """GET /orderbook."""

    def test_levels_are_best_first_with_totals_cumulated_quantity_and_order_counts(
        self, api: Api, list_instrument: ListInstrument
    ) -> None:
        symbol = list_instrument("0.5", "0.1")
        for side, price, quantity in (
            *(("buy", "99.5", "1"), ("buy", "100", "2"), ("buy", "99.5", "0.5"), ("buy", "9", "1")),
            *(("sell", "101", "3"), ("sell", "100.5", "0.2"), ("sell", "101", "0.1")),
        ):
            api.placed(an_order(symbol, side=side, price=price, quantity=quantity))
        book = api.found("/orderbook", instrument=symbol)
        assert book == {
            "instrument": symbol,
            "sequence": 7,
            "bids": [
                {"price": "100.0", "quantity": "2.0", "cumulative": "2.0", "orders": 1},
                {"price": "99.5", "quantity": "1.5", "cumulative": "3.5", "orders": 2},
                {"price": "9.0", "quantity": "1.0", "cumulative": "4.5", "orders": 1},
            ],
            "asks": [
                {"price": "100.5", "quantity": "0.2", "cumulative": "0.2", "orders": 1},
                {"price": "101.0", "quantity": "3.1", "cumulative": "3.3", "orders": 2},
            ],
        }
        best = api.found("/orderbook", instrument=symbol, levels=1)
        assert best == book | {"bids": book["bids"][:1], "asks": book["asks"][:1]}

    def test_an_empty_book_is_empty_and_an_unknown_one_is_not_found(
        self, api: Api, symbol: str
    ) -> None:
        empty = {"instrument": symbol, "sequence": 0, "bids": [], "asks": []}
        assert api.found("/orderbook", instrument=symbol) == empty
        answer = api.get("/orderbook", instrument="NO-USD")
        check_problem(answer, 404, "instrument_not_found", "/orderbook")


class TestTrades:
    """GET /trades."""

    def test_a_trade_is_there_as_soon_as_its_order_was_acknowledged_newest_first(
        self, system: System, symbol: str
    ) -> None:
        api, told = system.api, list[Json]()

        def trade(count: int) -> None:
            for _ in range(count):
                api.placed(an_order(symbol, side="sell", quantity="1"))
                api.placed(an_order(symbol, side="sell", quantity="1", price="101"))
                told[:0] = reversed(api.placed(a_market_order(symbol, "buy", "2"))["trades"])
                assert api.found("/trades", instrument=symbol)["trades"] == told

        trade(3)
        system.settled()
        with system.paused("persist"):
            trade(3)
        assert len({trade["trade_id"] for trade in told}) == 12

    @pytest.mark.parametrize("limit", [1, 4, 1000])
    def test_pages_show_every_trade_once_also_while_the_market_goes_on(
        self, system: System, symbol: str, limit: int
    ) -> None:
        """Half of them in Postgres, half only in Redis; page borders cut through an event."""
        api, told = system.api, list[Json]()

        def trade() -> None:
            for n in range(3):
                api.placed(an_order(symbol, side="sell", quantity="1", price=str(100 + n)))
            told[:0] = reversed(api.placed(a_market_order(symbol, "buy", "3"))["trades"])

        for _ in range(4):
            trade()
        system.settled()
        with system.paused("persist"):
            for _ in range(4):
                trade()
            expected, seen = list(told), []
            pages = api.pages("/trades", "before", "next_before", instrument=symbol, limit=limit)
            for page in pages:
                assert len(page["trades"]) <= limit
                seen += page["trades"]
                trade()
            assert seen == expected

    def test_before_takes_a_sequence_too(self, api: Api, symbol: str) -> None:
        api.placed(an_order(symbol))
        first = api.placed(a_market_order(symbol, "sell", "1"))["trades"]
        second = api.placed(a_market_order(symbol, "sell", "1"))["trades"]
        assert api.found("/trades", instrument=symbol, before=3)["trades"] == first
        assert api.found("/trades", instrument=symbol, before=4)["trades"] == second + first

    def test_an_unknown_instrument_is_not_found(self, api: Api) -> None:
        answer = api.get("/trades", instrument="NO-USD")
        check_problem(answer, 404, "instrument_not_found", "/trades")


class TestInstruments:
    """GET /instruments[/{symbol}] and POST /admin/instruments."""

    def test_the_ten_pairs_of_a_new_installation_are_listed(self, api: Api) -> None:
        listed = {i["symbol"]: i for i in api.found("/instruments")["instruments"]}
        for base in TEN_PAIRS:
            instrument = listed[f"{base}-USD"]
            assert (instrument["base"], instrument["quote"]) == (base, "USD")
            assert instrument["status"] == "open"
            for field in ("tick_size", "lot_size", "max_price", "max_quantity", "fees"):
                assert instrument[field]
            assert api.found(f"/instruments/{base}-USD") == instrument

    def test_a_new_one_is_live_in_every_worker_at_once(self, system: System) -> None:
        for _ in range(5):
            symbol = system.list_instrument()
            requests = [raw_request("POST", "/orders", an_order(symbol)) for _ in range(20)]
            requests += [raw_request("GET", f"/instruments/{symbol}") for _ in range(20)]
            statuses = [answer.status for answer in volley(system.api.port, requests)]
            assert statuses == [201] * 20 + [200] * 20

    def test_listing_the_same_again_is_harmless_and_other_values_conflict(
        self, api: Api, symbol: str
    ) -> None:
        body = {"symbol": symbol, "tick_size": "1", "lot_size": "1"}
        first = api.found(f"/instruments/{symbol}")
        order = api.placed(an_order(symbol))["order"]
        again = api.request("POST", "/admin/instruments", body | {"tick_size": 1})
        assert (again.status, again.json()) == (200, first)
        for other in ({"tick_size": "0.1"}, {"lot_size": 2}, {"max_price": 7}):
            answer = api.request("POST", "/admin/instruments", body | other)
            check_problem(answer, 409, "instrument_exists", "/admin/instruments")
        assert api.found(f"/instruments/{symbol}") == first
        assert api.order(order["order_id"]) == order

    @pytest.mark.parametrize(
        ("tick_size", "limits"),
        [
            ("1", {"max_price": EXACT_LIMIT - 1, "max_quantity": EXACT_LIMIT - 1}),
            ("0.01", {"max_price": "90071992547409.91"}),
        ],
    )
    def test_limits_just_below_2_to_the_53_steps_are_listed(
        self, api: Api, list_instrument: ListInstrument, tick_size: str, limits: Json
    ) -> None:
        symbol = list_instrument(tick_size, **limits)
        instrument = api.found(f"/instruments/{symbol}")
        assert {name: instrument[name] for name in limits} == {
            name: str(value) for name, value in limits.items()
        }

    @pytest.mark.parametrize(
        ("wrong", "field"),
        [
            ({"max_price": EXACT_LIMIT}, "max_price"),
            ({"max_quantity": str(EXACT_LIMIT)}, "max_quantity"),
            ({"tick_size": "0.01", "max_price": "90071992547409.92"}, "max_price"),
            ({"tick_size": "0.5", "max_price": "7.25"}, "max_price"),
            ({"tick_size": "0"}, "tick_size"),
            ({"tick_size": "-1"}, "tick_size"),
            ({"tick_size": "1e-19"}, "tick_size"),
            ({"lot_size": "1e19"}, "lot_size"),
            ({"lot_size": "NaN"}, "lot_size"),
            ({"lot_size": None}, "lot_size"),
            ({"symbol": "btc-usd"}, "symbol"),
            ({"symbol": "BTCUSD"}, "symbol"),
            ({"symbol": "{BTC}-USD"}, "symbol"),
            ({"maker_fee": "1"}, "maker_fee"),
        ],
    )
    def test_what_could_not_be_exact_is_not_listed(
        self, api: Api, wrong: dict[str, Any], field: str
    ) -> None:
        body = {"symbol": "NEVER-USD", "tick_size": "1", "lot_size": "1"} | wrong
        answer = api.request("POST", "/admin/instruments", body)
        problem = check_problem(answer, 400, "validation_failed", "/admin/instruments")
        assert field in codes_by_field(problem)
        check_problem(
            api.get("/instruments/NEVER-USD"),
            404,
            "instrument_not_found",
            "/instruments/NEVER-USD",
        )


class TestEveryAnswer:
    """What all routes share: problem documents and request ids."""

    @pytest.mark.parametrize(
        ("method", "path", "status", "code"),
        [
            ("GET", "/no/such/page", 404, "not_found"),
            ("GET", "/orders/", 404, "not_found"),
            ("GET", "/api//orders", 404, "not_found"),
            ("POST", "/orders//batch", 404, "not_found"),
            ("GET", "/instruments/NO-USD", 404, "instrument_not_found"),
            ("PUT", "/orders", 405, "method_not_allowed"),
            ("DELETE", "/trades", 405, "method_not_allowed"),
            ("GET", "/admin/instruments", 405, "method_not_allowed"),
            ("POST", "/healthz", 405, "method_not_allowed"),
            ("GET", "/orderbook", 400, "validation_failed"),
            ("GET", "/orders?limit=0", 400, "validation_failed"),
            ("GET", "/instruments?x=1", 400, "validation_failed"),
            ("DELETE", "/orders", 400, "validation_failed"),
            ("PATCH", "/orders", 405, "method_not_allowed"),
            ("GET", "/orders/batch", 404, "order_not_found"),
            ("PUT", "/orders/batch", 405, "method_not_allowed"),
            ("DELETE", "/admin/kill-switch", 405, "method_not_allowed"),
        ],
    )
    def test_errors_are_problem_documents(
        self, api: Api, method: str, path: str, status: int, code: str
    ) -> None:
        answer = api.request(method, path)
        check_problem(answer, status, code, path.partition("?")[0])
        assert (status == 405) == ("Allow" in answer.headers)

    @pytest.mark.parametrize(
        "path", ["/orders", "/orders/cancel-after", "/admin/instruments", "/admin/kill-switch"]
    )
    def test_a_body_too_large_is_refused_and_the_connection_goes_on(
        self, api: Api, path: str
    ) -> None:
        for size in (MAX_BODY_BYTES + 1, 1_000_000):
            answer = api.request("POST", path, b" " * size)
            check_problem(answer, 413, "body_too_large", path)
            assert api.get("/healthz").json() == {"status": "alive"}

    def test_who_sends_far_too_much_and_asks_for_the_end_hears_the_answer(
        self, system: System
    ) -> None:
        """Closed with bytes unread, the connection would be reset, and the answer lost."""
        for _ in range(5):
            api = Api(system.api.port)
            answer = api.request("POST", "/orders", b" " * 20_000_000, {"Connection": "close"})
            check_problem(answer, 413, "body_too_large", "/orders")

    def test_a_request_id_is_echoed_or_made_on_every_answer(self, api: Api, symbol: str) -> None:
        requests: list[tuple[str, str, object]] = [
            ("POST", "/orders", an_order(symbol)),
            ("POST", "/orders", an_order(symbol, price="0.5")),
            ("DELETE", f"/orders/{order_id(symbol, 9)}", None),
            ("GET", f"/orderbook?instrument={symbol}", None),
            ("GET", "/no/such/page", None),
            ("PUT", "/orders", None),
            ("POST", "/orders", b"{" * (MAX_BODY_BYTES + 1)),
            *(("GET", path, None) for path in ("/healthz", "/readyz", "/metrics")),
        ]
        made = set()
        for n, (method, path, body) in enumerate(requests):
            given = f"trace-{n}/a.b:c=d+e_F"
            echoed = api.request(method, path, body, {"X-Request-Id": given})
            assert echoed.headers["X-Request-Id"] == given
            for sent in ({}, {"X-Request-Id": "two words"}, {"X-Request-Id": "x" * 129}):
                made.add(api.request(method, path, body, sent).headers["X-Request-Id"])
        assert len(made) == 3 * len(requests), "each its own"
        assert not made & {"two words", "x" * 129, "", None}


class TestHealth:
    """GET /healthz and /readyz."""

    def test_a_whole_system_is_alive_and_ready_and_names_its_parts(self, api: Api) -> None:
        assert api.found("/healthz") == {"status": "alive"}
        ready = api.found("/readyz")
        assert ready["status"] == "ready"
        assert ready["checks"].keys() >= {"redis", "postgres", "persister"}
        assert all(check["ok"] for check in ready["checks"].values())


def metrics_of(api: Api) -> dict[str, float]:
    """Sample -> value, samples as Prometheus's text names them."""
    answer = api.get("/metrics")
    assert answer.status == 200
    assert answer.headers["Content-Type"].startswith("text/plain; version=0.0.4")
    lines = [line for line in answer.body.decode().splitlines() if not line.startswith("#")]
    return {name: float(value) for name, value in (line.rsplit(" ", 1) for line in lines)}


class TestMetrics:
    """GET /metrics."""

    def test_counts_add_up_exactly_whichever_worker_counted_and_whichever_answers(
        self, system: System, symbol: str
    ) -> None:
        before = metrics_of(system.api)
        requests = [raw_request("POST", "/orders", an_order(symbol)) for _ in range(60)]
        requests += [raw_request("POST", "/orders", an_order(symbol, price="0"))] * 20
        post_only = an_order(symbol, side="sell", post_only=True)
        volley(system.api.port, requests)
        volley(system.api.port, [raw_request("POST", "/orders", post_only)] * 10)
        takers = [raw_request("POST", "/orders", a_market_order(symbol, "sell", "5"))] * 30
        volley(system.api.port, takers)
        counted = {
            "orders_received_total": 120,
            "orders_matched_total": 30,
            'orders_rejected_total{code="validation_failed"}': 20,
            'orders_rejected_total{code="post_only_would_cross"}': 10,
            "order_latency_seconds_count": 90,
            'order_latency_seconds_bucket{le="+Inf"}': 90,
        }
        told = [metrics_of(Api(system.api.port)) for _ in range(8)]
        for after in told:
            grown = {name: after[name] - before.get(name, 0) for name in counted}
            assert grown == counted
            depth = 'current_orderbook_depth{instrument="%s",side="%s"}'
            assert after[depth % (symbol, "bid")] == 30
            assert after[depth % (symbol, "ask")] == 0
        wrote = list((system.data_dir / "metrics").rglob("counter_*.db"))
        assert len(wrote) >= 2, "more than one worker has counted"

    def test_the_persisters_lag_is_told_for_each_instrument(
        self, system: System, symbol: str
    ) -> None:
        lag = f'crossbook_persister_lag_events{{instrument="{symbol}"}}'
        with system.paused("persist"):
            for _ in range(7):
                system.api.placed(an_order(symbol))
            assert metrics_of(system.api)[lag] == 7
            persister = system.api.found("/readyz")["checks"]["persister"]
            assert persister["lag_events"] >= 7
        system.settled()
        wait_for(lambda: metrics_of(system.api)[lag] == 0)


class TestLogs:
    """What the system writes about itself."""

    def test_each_order_trade_cancel_and_refusal_is_a_line(
        self, system: System, symbol: str
    ) -> None:
        api = system.api
        maker = api.placed(an_order(symbol))["order"]
        document = api.placed(a_market_order(symbol, "sell", "1"))
        cancelled = api.cancelled(maker["order_id"])
        api.place(an_order(symbol, quantity="0.5"))
        log = system.log()
        for told in (maker, document["order"], cancelled, document["trades"][0]):
            identity = told.get("trade_id") or told["order_id"]
            assert any(identity in line for line in log.splitlines() if symbol in line)
        assert '"code":"validation_failed"' in log


class TestStandingStill:
    """A part that hangs costs nobody an answer for ever."""

    @pytest.mark.slow
    def test_orders_get_503_with_retry_after_while_redis_hangs(
        self, system: System, symbol: str
    ) -> None:
        api = system.api
        placed = api.placed(an_order(symbol))["order"]
        timer = {"client_id": "ann", "instrument": symbol, "timeout_s": 60}
        switch = {"client_id": "ann", "engaged": False, "instrument": symbol}
        item = {"op": "place"} | an_order(symbol, client_id="ann")
        # Let every worker know the instrument.
        system.ask_each_worker(raw_request("GET", f"/orderbook?instrument={symbol}"))
        requests = [
            raw_request("POST", "/orders", an_order(symbol), {"Idempotency-Key": "k"}),
            raw_request("DELETE", f"/orders/{placed['order_id']}"),
            raw_request("GET", f"/orders/{placed['order_id']}"),
            raw_request("GET", f"/orderbook?instrument={symbol}"),
            raw_request("PATCH", f"/orders/{placed['order_id']}", {"quantity": "1"}),
            raw_request("DELETE", f"/orders?client_id=ann&instrument={symbol}"),
            raw_request("DELETE", "/orders?client_id=ann"),
            raw_request("POST", "/orders/cancel-after", timer),
            raw_request("PATCH", f"/admin/instruments/{symbol}", {"price_band_bps": 1}),
            raw_request("POST", "/admin/kill-switch", switch),
            raw_request("GET", f"/instruments/{symbol}"),
        ]
        # By itself, and first: behind others it would not be sent at all, and be a 503 as a whole.
        together = raw_request("POST", "/orders/batch", {"items": [item, {"op": "dance"}, item]})
        with system.paused("redis"):
            (batch,) = volley(api.port, [together])
        with system.paused("redis"):
            answers = volley(api.port, requests)
        assert batch.status == 200, "each item is answered as it would be alone"
        codes = [result["body"]["code"] for result in batch.json()["results"]]
        assert codes[1] == "validation_failed"
        assert set(codes[::2]) <= {"engine_unavailable", "outcome_unknown"}
        for answer in answers:
            assert answer.status == 503
            assert answer.headers["Retry-After"] == "1", answer
            assert answer.headers["Content-Type"] == "application/problem+json"
        # Whether what was sent before Redis stood still happened, nobody was told.
        assert api.order(placed["order_id"])["status"] in ("open", "cancelled")

    @pytest.mark.slow
    def test_what_redis_comes_to_too_late_never_happens(self, system: System, symbol: str) -> None:
        """An order whose outcome is unknown is decided by the time that Redis wakes up."""
        api = system.api
        # Let every worker know the book, and what time it is there.
        answers = system.ask_each_worker(raw_request("POST", "/orders", an_order(symbol)))
        assert [answer.status for answer in answers] == [201] * WORKERS
        with system.paused("redis"):
            answers = volley(api.port, [raw_request("POST", "/orders", an_order(symbol))] * 4)
            # However late they were sent: their callers have waited for so long by now.
            left_s = LATE_AFTER_US / 1_000_000 - REDIS_TIMEOUT_S
            time.sleep(left_s + CLOCKS_APART_S)
        unknown = [answer for answer in answers if answer.code == "outcome_unknown"]
        assert unknown
        for answer in unknown:
            assert answer.headers["Retry-After"] == "7", "a repeat before might be a second order"
        system.settled()
        assert system.sequences()[symbol] == WORKERS
        assert api.placed(an_order(symbol))["order"]["sequence"] == WORKERS + 1
