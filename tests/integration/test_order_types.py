"""Stops, icebergs, good-till-date and self-trade prevention as a client of REST meets them: what is
sent, what is answered, what the lists and the market data show and what they never show.
"""

import time

import pytest

from tests.rest import Api, Json, a_market_order, an_order, check_problem, moment
from tests.system import System
from tests.waiting import wait_for

US = 1_000_000
SOON_S = 3.0
"""Longer than an order is on its way, also where the machine is busy."""
PAST = (
    "2020-01-01T00:00:00Z",
    "2001-01-01T00:00:00Z",
    "1969-01-01T00:00:00Z",
    "0001-01-01T00:00:00Z",
)
"""Also times that have fewer digits than today's."""


def in_seconds(seconds: float) -> str:
    """A time from now on, as RFC 3339."""
    return moment(int((time.time() + seconds) * US))


def trade_at(api: Api, symbol: str, price: str, quantity: str = "1") -> None:
    """A trade of two strangers, so that the last price is this one."""
    api.placed(an_order(symbol, client_id="maker", side="sell", price=price, quantity=quantity))
    taker = an_order(symbol, client_id="taker", price=price, quantity=quantity)
    assert api.placed(taker)["order"]["status"] == "filled"


def a_stop(symbol: str, side: str, stop_price: str, **fields: object) -> Json:
    return an_order(symbol, side=side, type="stop", price=None, stop_price=stop_price, **fields)


def levels(api: Api, symbol: str) -> list[tuple[str, str, str, int]]:
    book = api.found("/orderbook", instrument=symbol)
    return [
        (side, level["price"], level["quantity"], level["orders"])
        for side in ("bids", "asks")
        for level in book[side]
    ]


class TestStops:
    """`stop` and `stop_limit`."""

    def test_a_stop_is_pending_listed_and_in_no_book(self, api: Api, symbol: str) -> None:
        client = f"ann {symbol}"
        trade_at(api, symbol, "100")
        order = api.placed(a_stop(symbol, "buy", "110", client_id=client))["order"]
        assert (order["status"], order["type"]) == ("pending", "stop")
        assert (order["price"], order["stop_price"]) == (None, "110")
        assert (order["time_in_force"], order["reason"]) == ("gtc", None)
        assert api.order(order["order_id"]) == order
        assert api.all_orders(client_id=client, status="pending") == [order]
        assert api.all_orders(client_id=client, status="open") == []
        assert levels(api, symbol) == []

    def test_a_trade_at_its_stop_price_makes_it_a_market_order(
        self, system: System, symbol: str
    ) -> None:
        api = system.api
        trade_at(api, symbol, "100")
        stop = api.placed(a_stop(symbol, "buy", "110", quantity="3"))["order"]
        maker = api.placed(an_order(symbol, side="sell", price="115", quantity="9"))["order"]
        trade_at(api, symbol, "109")
        assert api.order(stop["order_id"])["status"] == "pending"
        trade_at(api, symbol, "110")
        filled = api.order(stop["order_id"])
        assert (filled["status"], filled["average_price"]) == ("filled", "115")
        trades = api.found("/trades", instrument=symbol, limit=1)["trades"]
        assert (trades[0]["taker_order_id"], trades[0]["maker_order_id"]) == (
            stop["order_id"],
            maker["order_id"],
        )
        assert trades[0]["sequence"] == filled["sequence"]
        system.settled()
        assert api.order(stop["order_id"]) == filled
        assert api.found("/trades", instrument=symbol, limit=1)["trades"] == trades

    def test_a_triggered_stop_limit_trades_and_rests_as_a_limit_order(
        self, api: Api, symbol: str
    ) -> None:
        trade_at(api, symbol, "100")
        order = an_order(symbol, side="sell", type="stop_limit", stop_price="90", price="85")
        stop = api.placed(order)["order"]
        bid = api.placed(an_order(symbol, price="86", quantity="2"))["order"]
        assert (stop["status"], stop["price"], stop["stop_price"]) == ("pending", "85", "90")
        trade_at(api, symbol, "90")
        resting = api.order(stop["order_id"])
        assert (resting["status"], resting["filled_quantity"]) == ("partially_filled", "2")
        assert api.order(bid["order_id"])["status"] == "filled"
        assert levels(api, symbol) == [("asks", "85", "3", 1)]

    def test_one_that_would_trigger_at_once_is_refused(self, api: Api, symbol: str) -> None:
        trade_at(api, symbol, "100")
        for side in ("buy", "sell"):
            answer = api.place(a_stop(symbol, side, "100"))
            check_problem(answer, 422, "stop_would_trigger", "/orders")

    def test_a_pending_stop_is_cancelled_as_any_open_order(self, api: Api, symbol: str) -> None:
        stop = api.placed(a_stop(symbol, "buy", "110"))["order"]
        cancelled = api.cancelled(stop["order_id"])
        assert (cancelled["status"], cancelled["reason"]) == ("cancelled", "cancelled_by_client")
        trade_at(api, symbol, "111")
        assert api.order(stop["order_id"]) == cancelled


class TestIcebergs:
    """`display_quantity`."""

    def test_only_the_display_is_in_the_depth_and_refills_go_to_the_back(
        self, api: Api, symbol: str
    ) -> None:
        iceberg = api.placed(an_order(symbol, side="sell", quantity="10", display_quantity="3"))
        order = iceberg["order"]
        assert (order["quantity"], order["display_quantity"]) == ("10", "3")
        behind = api.placed(an_order(symbol, side="sell", quantity="2"))["order"]
        assert levels(api, symbol) == [("asks", "100", "5", 2)]
        taken = api.placed(a_market_order(symbol, "buy", "4"))["trades"]
        assert [(trade["maker_order_id"], trade["quantity"]) for trade in taken] == [
            (order["order_id"], "3"),
            (behind["order_id"], "1"),
        ]
        assert levels(api, symbol) == [("asks", "100", "4", 2)]
        assert api.order(order["order_id"])["remaining_quantity"] == "7"

    def test_as_a_taker_it_trades_its_whole_quantity(self, api: Api, symbol: str) -> None:
        api.placed(an_order(symbol, quantity="8"))
        order = an_order(symbol, side="sell", quantity="10", display_quantity="1")
        taker = api.placed(order)["order"]
        assert (taker["filled_quantity"], taker["status"]) == ("8", "partially_filled")
        assert levels(api, symbol) == [("asks", "100", "1", 1)]


class TestGoodTillDate:
    """`gtd` with `expires_at`."""

    def test_it_expires_by_itself_within_a_second(self, system: System, symbol: str) -> None:
        api = system.api
        expires_at = in_seconds(SOON_S)
        order = an_order(symbol, time_in_force="gtd", expires_at=expires_at)
        resting = api.placed(order)["order"]
        assert (resting["status"], resting["expires_at"]) == ("open", expires_at)
        wait_for(lambda: api.order(resting["order_id"])["status"] == "expired", 10)
        expired = api.order(resting["order_id"])
        assert expired["reason"] == "expired"
        assert expired["updated_at"] >= expires_at, "never before its time"
        assert levels(api, symbol) == []
        check_problem(
            api.cancel(expired["order_id"]), 409, "order_not_open", f"/orders/{expired['order_id']}"
        )
        system.settled()
        assert api.order(resting["order_id"]) == expired
        assert api.all_orders(instrument=symbol, status="expired") == [expired]

    def test_one_that_is_past_already_is_malformed_input(self, api: Api, symbol: str) -> None:
        for expires_at in (in_seconds(-1), *PAST):
            order = an_order(symbol, time_in_force="gtd", expires_at=expires_at)
            check_problem(api.place(order), 400, "expires_in_past", "/orders")
        assert api.found("/orderbook", instrument=symbol)["sequence"] == 0

    def test_times_of_any_offset_leave_in_utc(self, api: Api, symbol: str) -> None:
        order = an_order(symbol, time_in_force="gtd", expires_at="2200-01-01T01:30:00.5+01:30")
        assert api.placed(order)["order"]["expires_at"] == "2200-01-01T00:00:00.500000Z"

    def test_a_repeated_key_is_answered_also_after_the_order_has_expired(
        self, api: Api, symbol: str
    ) -> None:
        order = an_order(symbol, time_in_force="gtd", expires_at=in_seconds(SOON_S))
        first = api.place(order, key="k")
        assert first.status == 201
        order_id = first.json()["order"]["order_id"]
        wait_for(lambda: api.order(order_id)["status"] == "expired", 10)
        again = api.place(order, key="k")
        assert (again.status, again.is_replayed, again.body) == (201, True, first.body)


class TestSelfTradePrevention:
    """`self_trade_prevention`, which the taker decides."""

    @pytest.mark.parametrize(
        ("mode", "maker", "taker", "trades"),
        [
            ("none", ("filled", "0"), ("partially_filled", "2"), 1),
            ("cancel_newest", ("open", "3"), ("cancelled", "5"), 0),
            ("cancel_oldest", ("cancelled", "3"), ("open", "5"), 0),
            ("cancel_both", ("cancelled", "3"), ("cancelled", "5"), 0),
            ("decrement", ("cancelled", "3"), ("open", "2"), 0),
        ],
    )
    def test_each_mode_does_what_its_name_says(
        self,
        api: Api,
        symbol: str,
        mode: str,
        maker: tuple[str, str],
        taker: tuple[str, str],
        trades: int,
    ) -> None:
        resting = api.placed(an_order(symbol, client_id="ann", side="sell", quantity="3"))["order"]
        order = an_order(symbol, client_id="ann", quantity="5", self_trade_prevention=mode)
        document = api.placed(order)
        told = document["order"]
        assert told["self_trade_prevention"] == mode
        assert (told["status"], told["remaining_quantity"]) == taker
        assert len(document["trades"]) == trades
        met = api.order(resting["order_id"])
        assert (met["status"], met["remaining_quantity"]) == maker
        for each in (told, met):
            prevented = each["status"] == "cancelled"
            assert each["reason"] == ("self_trade_prevented" if prevented else None)

    def test_strangers_trade_in_every_mode(self, api: Api, symbol: str) -> None:
        for mode in ("cancel_newest", "cancel_oldest", "cancel_both", "decrement"):
            api.placed(an_order(symbol, client_id="ann", side="sell"))
            order = an_order(symbol, client_id="bob", self_trade_prevention=mode)
            assert api.placed(order)["order"]["status"] == "filled"
