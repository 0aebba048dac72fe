"""The seeds' dialects beyond what their documents print: every path under /api/orders, queries in
their words, and errors. What they print is in test_seed_….
"""

import json

import pytest
import websocket

from tests.rest import (
    HOST,
    TIMEOUT_S,
    Answer,
    Api,
    Json,
    check_problem,
    codes_by_field,
    plain,
)
from tests.seeds import check_names, check_placed
from tests.system import System

PATH = "/api/orders"


def place(api: Api, symbol: str, **fields: object) -> Answer:
    order = {"tradingPair": symbol, "type": "BUY", "price": 100, "quantity": 5, "userId": 7}
    return api.request("POST", "/orders", order | fields)


def test_every_route_of_orders_is_under_api_too(api: Api, symbol: str) -> None:
    order_id = place(api, symbol).json()["orderId"]
    amended = api.request("PATCH", f"{PATH}/{order_id}", {"quantity": "3"})
    assert amended.status == 200, amended
    check_names(amended.json()["order"])
    cancelled = api.request("POST", f"{PATH}/{order_id}/cancel")
    check_names(cancelled.json()["order"])
    items = [{"op": "place", "instrument": symbol, "side": "buy", "price": "1", "quantity": "1"}]
    (result,) = api.request("POST", f"{PATH}/batch", {"items": items}).json()["results"]
    check_names(result["body"]["order"])
    swept = api.request("DELETE", f"{PATH}?instrument={symbol}")
    assert swept.json()["cancelled"] == [result["body"]["order"]["order_id"]]


def test_items_of_a_batch_may_be_in_their_words(api: Api, symbol: str) -> None:
    """Rule: an item is answered as it would be alone."""
    order = {"asset": symbol, "type": "SELL", "price": 100, "quantity": 5, "userId": 7}
    bare = {"instrument": symbol, "side": "sell", "price": "101", "quantity": "1"}
    items = [{"op": "place", **each} for each in (order, bare, order | {"side": "sell"})]
    found = api.request("POST", "/orders/batch", {"items": items}).json()["results"]
    assert [each["status"] for each in found] == [201, 201, 400]
    answer = Answer(201, {}, json.dumps(found[0]["body"]).encode())
    check_placed(answer, instrument=symbol, side="sell", client_id="7")
    assert "orderId" not in found[1]["body"]["order"]
    assert found[2]["body"]["errors"][0]["code"] == "conflict"


def test_a_plain_order_on_their_path_is_answered_in_their_words(api: Api, symbol: str) -> None:
    body = {"instrument": symbol, "side": "sell", "price": "100", "quantity": "5"}
    check_placed(api.request("POST", PATH, body), side="sell", instrument=symbol)


def test_an_order_over_the_websocket_may_be_in_their_words(api: Api, symbol: str) -> None:
    order = {"asset": symbol, "type": "SELL", "price": 100, "quantity": 5, "userId": "ann"}
    line = websocket.create_connection(f"ws://{HOST}:{api.port}/stream", timeout=TIMEOUT_S)
    try:
        line.send(json.dumps({"op": "place", "request_id": 1, "order": order}))
        told = json.loads(line.recv())
    finally:
        line.close()
    answer = Answer(told["status"], {}, json.dumps(told["body"]).encode())
    check_placed(answer, instrument=symbol, side="sell", client_id="ann")


def test_a_plain_answer_has_no_names_of_theirs(api: Api, symbol: str) -> None:
    body = {"instrument": symbol, "side": "sell", "price": "100", "quantity": "5"}
    placed = api.placed(body)
    assert placed.keys() == {"order", "trades"}
    assert placed["order"] == plain(placed["order"])


def test_queries_may_be_in_their_words(api: Api, symbol: str) -> None:
    mine = check_placed(place(api, symbol))
    place(api, symbol, userId="other")
    assert api.found(PATH, userId=7, asset=symbol)["orders"] == [mine]
    book = api.found("/orderbook", instrument=symbol)
    assert api.found("/api/orderbook", tradingPair=symbol) == book
    assert api.found("/api/orderbook/depth", instrument=symbol, levels=1) == book
    twice = f"/market/orderbook/{symbol}?instrument={symbol}"
    problem = check_problem(
        api.request("GET", twice), 400, "validation_failed", twice.partition("?")[0]
    )
    assert codes_by_field(problem) == {"instrument": "invalid_value"}


def test_an_unknown_pair_is_not_found(api: Api) -> None:
    for path in ("/market/orderbook/NO-USD", "/market/trades/NO-USD"):
        check_problem(api.request("GET", path), 404, "instrument_not_found", path)
    check_problem(place(api, "NO-USD"), 404, "instrument_not_found", "/orders")


def test_a_repeated_order_gets_the_first_answer_in_their_words(api: Api, symbol: str) -> None:
    first = place(api, symbol, idempotency_key="k")
    again = place(api, symbol, idempotency_key="k")
    assert (again.status, again.body, again.is_replayed) == (201, first.body, True)
    same = {"instrument": symbol, "side": "buy", "price": "100", "quantity": "5"}
    in_our_words = api.place(same | {"client_id": "7", "idempotency_key": "k"})
    assert in_our_words.is_replayed, "it is the same order"
    assert in_our_words.json()["order"] == plain(first.json()["order"])


@pytest.mark.parametrize(
    ("fields", "errors"),
    [
        ({"side": "sell"}, {"type": "conflict"}),
        ({"price": 100.5}, {"price": "off_tick"}),
        ({"userId": "a|b"}, {"client_id": "invalid_text"}),
        ({"quantity": None}, {"quantity": "invalid_type"}),
        ({"post_only": None}, {"post_only": "invalid_value"}),
        ({"note": None}, {"note": "unknown_field"}),
    ],
)
def test_what_is_wrong_is_refused_and_changes_nothing(
    system: System, symbol: str, fields: Json, errors: dict[str, str]
) -> None:
    before = system.contents(symbol)
    answer = place(system.api, symbol, **fields)
    assert codes_by_field(check_problem(answer, 400, "validation_failed", "/orders")) == errors
    assert system.contents(symbol) == before


def test_methods_that_are_not_theirs_are_refused(api: Api) -> None:
    for method, path in (("POST", "/market/trades/BTC-USD"), ("PUT", PATH), ("DELETE", "/health")):
        check_problem(api.request(method, path), 405, "method_not_allowed", path)
