"""What protects a market from its traders, and traders from themselves: bands, limits, status, kill
switches; and the rules of an instrument, which are changed with effect on the very next command.
"""

from concurrent.futures import ThreadPoolExecutor

import pytest

from tests.conftest import ListInstrument
from tests.rest import Answer, Api, Json, a_market_order, an_order, check_problem, codes_by_field
from tests.system import System

UNSET: Json = {
    "status": "open",
    "price_band_bps": None,
    "max_order_quantity": None,
    "max_order_notional": None,
    "max_open_orders": None,
    "maker_fee_bps": "0",
    "taker_fee_bps": "0",
}
SET: Json = {
    "status": "cancel_only",
    "price_band_bps": 500,
    "max_order_quantity": "10.0",
    "max_order_notional": "5000.00",
    "max_open_orders": 7,
    "maker_fee_bps": "-0.5",
    "taker_fee_bps": "7.25",
}


def rules_of(instrument: Json) -> Json:
    return {name: instrument[name] for name in UNSET}


def trade_at(api: Api, symbol: str, price: str) -> None:
    api.placed(an_order(symbol, client_id="maker", side="sell", price=price, quantity="1"))
    api.placed(a_market_order(symbol, "buy", "1", client_id="taker"))


def refused(answer: Answer, code: str) -> None:
    check_problem(answer, 422, code, "/orders")


class TestRules:
    """Rules of POST /admin/instruments and PATCH /admin/instruments/{symbol}."""

    def test_an_instrument_begins_without_rules(self, api: Api, symbol: str) -> None:
        assert rules_of(api.found(f"/instruments/{symbol}")) == UNSET

    def test_an_instrument_is_listed_with_rules(
        self, api: Api, list_instrument: ListInstrument
    ) -> None:
        symbol = list_instrument("0.1", "0.1", **SET)
        instrument = api.found(f"/instruments/{symbol}")
        assert rules_of(instrument) == SET
        assert instrument["fees"] == {"maker_bps": "-0.5", "taker_bps": "7.25"}
        assert instrument in api.found("/instruments")["instruments"]
        refused(api.place(an_order(symbol)), "cancel_only")

    def test_what_is_given_changes_what_is_not_stays_and_null_unsets(
        self, api: Api, list_instrument: ListInstrument
    ) -> None:
        symbol = list_instrument("0.1", "0.1")
        expected = dict(UNSET)
        for name, value in SET.items():
            expected[name] = value
            assert rules_of(api.changed_rules(symbol, **{name: value})) == expected
            assert rules_of(api.found(f"/instruments/{symbol}")) == expected
        for name in ("price_band_bps", "max_order_quantity", "max_open_orders"):
            expected[name] = None
            assert rules_of(api.changed_rules(symbol, **{name: None})) == expected
        sizes = {"tick_size": "0.1", "lot_size": "0.1"}
        instrument = api.found(f"/instruments/{symbol}")
        assert {name: instrument[name] for name in sizes} == sizes

    def test_a_change_is_an_event_and_no_change_is_none(self, system: System, symbol: str) -> None:
        system.api.changed_rules(symbol, price_band_bps=5, taker_fee_bps="1.50")
        assert system.sequences()[symbol] == 1
        told = system.api.changed_rules(symbol, price_band_bps="5", taker_fee_bps=1.5)
        assert (told["price_band_bps"], told["taker_fee_bps"]) == (5, "1.5")
        assert system.sequences()[symbol] == 1

    def test_rules_outlive_a_settled_persister_and_listing_again_is_harmless(
        self, system: System
    ) -> None:
        symbol = system.list_instrument("0.1", "0.1", **SET)
        system.settled()
        body = {"symbol": symbol, "tick_size": "0.10", "lot_size": 0.1} | SET
        again = system.api.request("POST", "/admin/instruments", body)
        assert (again.status, rules_of(again.json())) == (200, SET)
        other = system.api.request("POST", "/admin/instruments", body | {"price_band_bps": 1})
        check_problem(other, 409, "instrument_exists", "/admin/instruments")
        assert rules_of(system.api.found(f"/instruments/{symbol}")) == SET

    def test_listing_again_in_another_spelling_changes_nothing(
        self, system: System, symbol: str
    ) -> None:
        """What is stored is announced, not what was sent: 1.0 is 1, and views go on saying 1."""
        api = system.api
        order = api.placed(an_order(symbol))["order"]
        announced = system.redis.hget("instruments", symbol)
        body = {"symbol": symbol, "tick_size": "1.0", "lot_size": "1e0"}
        again = api.request("POST", "/admin/instruments", body)
        assert again.status == 200
        assert (again.json()["tick_size"], again.json()["lot_size"]) == ("1", "1")
        assert again.json() == api.found(f"/instruments/{symbol}")
        assert system.redis.hget("instruments", symbol) == announced
        assert api.order(order["order_id"]) == order

    def test_changes_at_the_same_time_are_all_kept(self, api: Api, symbol: str) -> None:
        """Two workers, each with an operator: neither takes back what the other did."""
        changes: list[Json] = [
            {"price_band_bps": 1},
            {"max_open_orders": 2},
            {"max_order_quantity": "3"},
            {"max_order_notional": "4"},
            {"maker_fee_bps": "5"},
            {"taker_fee_bps": "6"},
        ]
        for _ in range(5):
            with ThreadPoolExecutor(len(changes)) as pool:
                list(pool.map(lambda change: api.changed_rules(symbol, **change), changes))
            wanted = dict(item for change in changes for item in change.items())
            assert rules_of(api.found(f"/instruments/{symbol}")) == UNSET | wanted
            api.changed_rules(symbol, **UNSET)

    @pytest.mark.parametrize(
        ("body", "field"),
        [
            ({}, "body"),
            ({"status": "closed"}, "status"),
            ({"status": None}, "status"),
            ({"price_band_bps": 0}, "price_band_bps"),
            ({"price_band_bps": 10_001}, "price_band_bps"),
            ({"price_band_bps": 1.5}, "price_band_bps"),
            ({"price_band_bps": True}, "price_band_bps"),
            ({"max_order_quantity": "0.5"}, "max_order_quantity"),
            ({"max_order_quantity": "1e30"}, "max_order_quantity"),
            ({"max_order_notional": "0.5"}, "max_order_notional"),
            ({"max_order_notional": -1}, "max_order_notional"),
            ({"max_open_orders": 0}, "max_open_orders"),
            ({"max_open_orders": 1_000_001}, "max_open_orders"),
            ({"maker_fee_bps": None}, "maker_fee_bps"),
            ({"maker_fee_bps": "10000.0001"}, "maker_fee_bps"),
            ({"taker_fee_bps": "-10001"}, "taker_fee_bps"),
            ({"taker_fee_bps": "0.00001"}, "taker_fee_bps"),
            ({"taker_fee_bps": "1e-99"}, "taker_fee_bps"),
            ({"taker_fee_bps": "NaN"}, "taker_fee_bps"),
            ({"taker_fee_bps": []}, "taker_fee_bps"),
            ({"tick_size": "0.1"}, "tick_size"),
            ({"symbol": "A-B"}, "symbol"),
        ],
        ids=str,
    )
    def test_a_bad_rule_is_named_and_nothing_changes(
        self, system: System, symbol: str, body: Json, field: str
    ) -> None:
        before = system.contents(symbol)
        path = f"/admin/instruments/{symbol}"
        answer = system.api.request("PATCH", path, body)
        problem = check_problem(answer, 400, "validation_failed", path)
        assert codes_by_field(problem).keys() == {field}
        assert system.contents(symbol) == before

    def test_an_unknown_instrument_has_no_rules(self, api: Api) -> None:
        path = "/admin/instruments/NO-USD"
        answer = api.request("PATCH", path, {"status": "halted"})
        check_problem(answer, 404, "instrument_not_found", path)


class TestStatus:
    """`open`, `cancel_only`, `halted`."""

    def test_cancel_only_takes_cancels_and_nothing_else(self, api: Api, symbol: str) -> None:
        order = api.placed(an_order(symbol))["order"]["order_id"]
        api.changed_rules(symbol, status="cancel_only")
        refused(api.place(an_order(symbol)), "cancel_only")
        answer = api.amend(order, quantity="1")
        check_problem(answer, 422, "cancel_only", f"/orders/{order}")
        assert api.cancelled(order)["status"] == "cancelled"

    def test_halted_takes_nothing_until_it_is_open_again(self, api: Api, symbol: str) -> None:
        order = api.placed(an_order(symbol))["order"]["order_id"]
        api.changed_rules(symbol, status="halted")
        refused(api.place(an_order(symbol)), "instrument_halted")
        for answer in (api.cancel(order), api.amend(order, quantity="1")):
            check_problem(answer, 422, "instrument_halted", f"/orders/{order}")
        api.changed_rules(symbol, status="open")
        api.placed(an_order(symbol))
        api.cancelled(order)


class TestLimits:
    """Bands, quantities, notionals, numbers of open orders."""

    def test_prices_outside_the_band_are_refused(self, api: Api, symbol: str) -> None:
        api.changed_rules(symbol, price_band_bps=500)
        trade_at(api, symbol, "1000")
        for price, is_inside in (("949", False), ("950", True), ("1050", True), ("1051", False)):
            answer = api.place(an_order(symbol, price=price, quantity="1", client_id=f"at {price}"))
            if is_inside:
                assert answer.status == 201, price
                api.cancelled(answer.json()["order"]["order_id"])
            else:
                refused(answer, "price_band")

    def test_a_market_order_goes_no_further_than_the_band(self, api: Api, symbol: str) -> None:
        trade_at(api, symbol, "1000")
        for price in ("1050", "1051"):
            api.placed(an_order(symbol, side="sell", price=price, quantity="1"))
        api.changed_rules(symbol, price_band_bps=500)
        order = api.placed(a_market_order(symbol, "buy", "2"))["order"]
        assert (order["filled_quantity"], order["status"], order["reason"]) == (
            "1",
            "cancelled",
            "price_band",
        )

    def test_an_order_above_a_limit_is_refused(self, api: Api, symbol: str) -> None:
        api.changed_rules(symbol, max_order_quantity="5", max_order_notional="400")
        refused(api.place(an_order(symbol, quantity="6", price="10")), "risk_limit")
        refused(api.place(an_order(symbol, quantity="5", price="81")), "risk_limit")
        order = api.placed(an_order(symbol, quantity="5", price="80"))["order"]["order_id"]
        answer = api.amend(order, price="81")
        check_problem(answer, 422, "risk_limit", f"/orders/{order}")

    def test_open_orders_of_a_client_are_limited_on_each_instrument(
        self, api: Api, symbol: str
    ) -> None:
        api.changed_rules(symbol, max_open_orders=2)
        orders = [api.placed(an_order(symbol, client_id="ann"))["order"] for _ in range(2)]
        refused(api.place(an_order(symbol, client_id="ann")), "risk_limit")
        api.placed(an_order(symbol, client_id="bob"))
        api.cancelled(orders[0]["order_id"])
        api.placed(an_order(symbol, client_id="ann"))


def throw(api: Api, **fields: object) -> Answer:
    return api.request("POST", "/admin/kill-switch", fields)


class TestKillSwitch:
    """POST /admin/kill-switch."""

    def test_a_client_is_refused_everything_but_cancels(self, api: Api, symbol: str) -> None:
        order = api.placed(an_order(symbol, client_id="ann"))["order"]["order_id"]
        answer = throw(api, client_id="ann", engaged=True, instrument=symbol)
        assert (answer.status, answer.json()) == (
            200,
            {
                "client_id": "ann",
                "engaged": True,
                "instruments": [symbol],
                "cancelled": [],
                "complete": True,
                "halted": [],
            },
        )
        refused(api.place(an_order(symbol, client_id="ann")), "kill_switch")
        amended = api.amend(order, quantity="1")
        check_problem(amended, 422, "kill_switch", f"/orders/{order}")
        api.placed(an_order(symbol, client_id="bob"))
        api.cancelled(order)
        assert throw(api, client_id="ann", engaged=False, instrument=symbol).status == 200
        api.placed(an_order(symbol, client_id="ann"))

    def test_it_cancels_what_is_open_where_asked_to(self, api: Api, symbol: str) -> None:
        orders = [api.placed(an_order(symbol, client_id="ann"))["order"] for _ in range(3)]
        ids = [order["order_id"] for order in orders]
        other = api.placed(an_order(symbol, client_id="bob"))["order"]["order_id"]
        body = {"client_id": "ann", "engaged": True, "instrument": symbol}
        answer = throw(api, cancel_open_orders=True, **body)
        assert answer.json()["cancelled"] == ids
        assert {api.order(each)["reason"] for each in ids} == {"kill_switch"}
        assert api.order(other)["status"] == "open"

    def test_without_an_instrument_it_holds_on_all(
        self, api: Api, list_instrument: ListInstrument
    ) -> None:
        symbols = [list_instrument(), list_instrument()]
        client = f"killed {symbols[0]}"
        listed = [instrument["symbol"] for instrument in api.found("/instruments")["instruments"]]
        answer = throw(api, client_id=client, engaged=True)
        assert answer.json()["instruments"] == listed
        for symbol in symbols:
            refused(api.place(an_order(symbol, client_id=client)), "kill_switch")
        assert throw(api, client_id=client, engaged=False).status == 200
        for symbol in symbols:
            api.placed(an_order(symbol, client_id=client))

    @pytest.mark.parametrize(
        ("changed", "field"),
        [
            ({"client_id": "a|b"}, "client_id"),
            ({"client_id": None}, "client_id"),
            ({"engaged": "yes"}, "engaged"),
            ({"engaged": None}, "engaged"),
            ({"cancel_open_orders": 1}, "cancel_open_orders"),
            ({"more": 1}, "more"),
        ],
        ids=str,
    )
    def test_a_bad_switch_is_not_thrown(
        self, system: System, symbol: str, changed: Json, field: str
    ) -> None:
        before = system.contents(symbol)
        answer = throw(system.api, **{"client_id": "ann", "engaged": True} | changed)
        problem = check_problem(answer, 400, "validation_failed", "/admin/kill-switch")
        assert codes_by_field(problem).keys() == {field}
        assert system.contents(symbol) == before
        unknown = throw(system.api, client_id="ann", engaged=True, instrument="NO-USD")
        check_problem(unknown, 404, "instrument_not_found", "/admin/kill-switch")
