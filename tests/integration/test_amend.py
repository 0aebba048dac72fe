"""PATCH /orders/{order_id}: what may be changed, what that does to the order's place, and what is
refused and then changes nothing.
"""

import pytest

from tests.rest import Api, a_market_order, an_order, check_problem, codes_by_field, order_id
from tests.system import System


def path(of: str) -> str:
    return f"/orders/{of}"


def makers(api: Api, symbol: str, side: str, quantity: str) -> list[str]:
    """Whom a market order meets, in that order."""
    trades = api.placed(a_market_order(symbol, side, quantity))["trades"]
    return [trade["maker_order_id"] for trade in trades]


def test_a_smaller_quantity_keeps_the_place(api: Api, symbol: str) -> None:
    first = api.placed(an_order(symbol, quantity="5"))["order"]
    second = api.placed(an_order(symbol, quantity="5"))["order"]
    document = api.amended(first["order_id"], quantity="4")
    assert document["trades"] == []
    order = document["order"]
    changed = {
        "quantity": "4",
        "remaining_quantity": "4",
        "sequence": 3,
        "updated_at": order["updated_at"],
    }
    assert order == first | changed
    assert order["updated_at"] >= first["created_at"]
    assert api.order(first["order_id"]) == order
    assert makers(api, symbol, "sell", "5") == [first["order_id"], second["order_id"]]


@pytest.mark.parametrize("changes", [{"quantity": 6}, {"price": "100", "quantity": "7"}])
def test_a_larger_quantity_goes_to_the_back(
    api: Api, symbol: str, changes: dict[str, object]
) -> None:
    first = api.placed(an_order(symbol, quantity="5"))["order"]
    second = api.placed(an_order(symbol, quantity="5"))["order"]
    api.amended(first["order_id"], **changes)
    assert makers(api, symbol, "sell", "6") == [second["order_id"], first["order_id"]]


def test_a_new_price_may_trade_at_once(system: System, symbol: str) -> None:
    api = system.api
    maker = api.placed(an_order(symbol, side="sell", price="110", quantity="2"))["order"]
    order = api.placed(an_order(symbol, quantity="5"))["order"]
    document = api.amended(order["order_id"], price="110")
    (trade,) = document["trades"]
    assert (trade["maker_order_id"], trade["taker_order_id"]) == (
        maker["order_id"],
        order["order_id"],
    )
    assert (trade["price"], trade["quantity"], trade["side"]) == ("110", "2", "buy")
    amended = document["order"]
    assert (amended["status"], amended["price"]) == ("partially_filled", "110")
    assert (amended["filled_quantity"], amended["sequence"]) == ("2", 3)
    assert trade["sequence"] == 3
    assert api.found("/trades", instrument=symbol)["trades"] == [trade]
    bids = api.found("/orderbook", instrument=symbol)["bids"]
    assert [(bid["price"], bid["quantity"]) for bid in bids] == [("110", "3")]
    system.settled()
    assert api.order(order["order_id"]) == amended
    assert api.found("/trades", instrument=symbol)["trades"] == [trade]


def test_the_quantity_that_is_filled_already_ends_the_order(api: Api, symbol: str) -> None:
    order = api.placed(an_order(symbol, quantity="5"))["order"]
    api.placed(a_market_order(symbol, "sell", "2"))
    below = api.amend(order["order_id"], quantity="1")
    check_problem(below, 422, "amend_below_filled", path(order["order_id"]))
    ended = api.amended(order["order_id"], quantity="2")["order"]
    assert (ended["status"], ended["quantity"], ended["remaining_quantity"]) == ("filled", "2", "0")
    assert api.found("/orderbook", instrument=symbol)["bids"] == []


def test_a_pending_stop_gets_another_stop_price(api: Api, symbol: str) -> None:
    stop = an_order(symbol, type="stop", price=None, stop_price="110")
    order = api.placed(stop)["order"]
    amended = api.amended(order["order_id"], stop_price="120", quantity="4")["order"]
    assert (amended["status"], amended["stop_price"], amended["quantity"]) == (
        "pending",
        "120",
        "4",
    )
    answer = api.amend(order["order_id"], price="100")
    check_problem(answer, 422, "not_amendable", path(order["order_id"]))


def test_a_stop_price_is_none_of_a_limit_order_s(api: Api, symbol: str) -> None:
    order = api.placed(an_order(symbol))["order"]
    answer = api.amend(order["order_id"], stop_price="110")
    check_problem(answer, 422, "not_amendable", path(order["order_id"]))
    assert api.order(order["order_id"]) == order


def test_a_post_only_order_that_would_cross_stays_as_it_is(api: Api, symbol: str) -> None:
    api.placed(an_order(symbol, side="sell", price="110"))
    order = api.placed(an_order(symbol, post_only=True))["order"]
    answer = api.amend(order["order_id"], price="110")
    check_problem(answer, 422, "post_only_would_cross", path(order["order_id"]))
    assert api.order(order["order_id"]) == order


def test_what_is_over_or_was_never_there_is_not_amended(system: System, symbol: str) -> None:
    """Also once only Postgres knows of it."""
    api = system.api
    over = api.placed(an_order(symbol))["order"]["order_id"]
    api.cancelled(over)
    for _ in ("in Redis", "in Postgres"):
        answer = api.amend(over, price="101")
        check_problem(answer, 409, "order_not_open", path(over))
        system.settled()
    for unknown in (order_id(symbol, 99), "NO-USD-00000000000001", "x"):
        answer = api.amend(unknown, price="101")
        check_problem(answer, 404, "order_not_found", path(unknown))


@pytest.mark.parametrize(
    ("body", "wrong"),
    [
        ({}, {"body": "required"}),
        ({"price": None, "quantity": None}, {"body": "required"}),
        ({"price": "1.5", "quantity": "x"}, {"price": "off_tick", "quantity": "malformed_number"}),
        ({"quantity": 0}, {"quantity": "not_positive"}),
        ({"stop_price": "-1"}, {"stop_price": "not_positive"}),
        ({"side": "sell"}, {"side": "unknown_field"}),
        ([], {"body": "invalid_value"}),
    ],
)
def test_wrong_fields_are_named_and_change_nothing(
    system: System, symbol: str, body: object, wrong: dict[str, str]
) -> None:
    order = system.api.placed(an_order(symbol))["order"]["order_id"]
    before = system.contents(symbol)
    answer = system.api.request("PATCH", path(order), body)
    assert codes_by_field(check_problem(answer, 400, "validation_failed", path(order))) == wrong
    assert system.contents(symbol) == before
