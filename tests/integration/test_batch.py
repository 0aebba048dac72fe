"""POST /orders/batch: each item answered as it would be alone, in the order of the items."""

import json

import pytest

from tests.conftest import ListInstrument
from tests.integration.test_rest import metrics_of
from tests.rest import Api, Json, a_market_order, an_order, check_problem, codes_by_field, order_id
from tests.system import System

PATH = "/orders/batch"
MAX_ITEMS = 1_000
MAX_BYTES = 1024 * 1024


def placing(symbol: str, **fields: object) -> Json:
    return {"op": "place"} | an_order(symbol, **fields)


def statuses(results: list[Json]) -> list[int]:
    return [result["status"] for result in results]


def test_each_item_is_answered_as_it_would_be_alone(
    api: Api, list_instrument: ListInstrument
) -> None:
    """The same items one by one on another instrument: the same answers, but for time and names."""
    alone, together = list_instrument(), list_instrument()

    def items(symbol: str) -> list[Json]:
        return [
            placing(symbol, client_id="ann", side="sell", quantity="3"),
            placing(symbol, client_id="bob", quantity="1"),
            placing(symbol, client_id="bob", quantity="0"),
            placing(symbol, side="sell", price="100", post_only=True),
            {"op": "amend", "order_id": order_id(symbol, 1), "quantity": "2"},
            placing(symbol, price="100", post_only=True),
            {"op": "cancel", "order_id": order_id(symbol, 1)},
            {"op": "cancel", "order_id": order_id(symbol, 1)},
            {"op": "cancel", "order_id": order_id(symbol, 99)},
            {"op": "amend", "order_id": order_id(symbol, 2), "price": "100"},
        ]

    def ask(item: Json) -> Json:
        fields = {name: value for name, value in item.items() if name not in ("op", "order_id")}
        method, path = {
            "place": ("POST", "/orders"),
            "amend": ("PATCH", f"/orders/{item.get('order_id')}"),
            "cancel": ("DELETE", f"/orders/{item.get('order_id')}"),
        }[item["op"]]
        answer = api.request(method, path, None if item["op"] == "cancel" else fields)
        return {"status": answer.status, "body": answer.json()}

    def comparable(results: list[Json], symbol: str) -> object:
        return json.loads(
            json.dumps(results).replace(symbol, "X-USD"),
            object_hook=lambda told: {
                name: value
                for name, value in told.items()
                if name not in ("instance", "created_at", "updated_at", "timestamp")
            },
        )

    told = api.batch(items(together))
    assert statuses(told) == [201, 201, 400, 201, 200, 422, 200, 409, 404, 409]
    expected = [ask(item) for item in items(alone)]
    assert comparable(told, together) == comparable(expected, alone)
    problems = [result["body"] for result in told if result["status"] >= 400]
    assert {problem["instance"] for problem in problems} == {PATH}


def test_results_come_in_the_items_order_over_several_instruments(
    system: System, list_instrument: ListInstrument
) -> None:
    symbols = [list_instrument() for _ in range(3)]
    items = [placing(symbols[n % 3], price=str(100 + n)) for n in range(30)]
    results = system.api.batch(items)
    told = [result["body"]["order"] for result in results]
    assert [order["price"] for order in told] == [item["price"] for item in items]
    assert [order["order_id"] for order in told] == [
        order_id(symbols[n % 3], 1 + n // 3) for n in range(30)
    ]


def test_an_order_is_named_by_what_its_client_calls_it_also_in_its_own_batch(
    api: Api, symbol: str
) -> None:
    named = {"client_id": "ann", "instrument": symbol, "client_order_id": "mine"}
    results = api.batch(
        [
            placing(symbol, client_id="ann", client_order_id="mine"),
            {"op": "amend", "quantity": "2"} | named,
            {"op": "cancel"} | named,
            {"op": "cancel"} | named,
            placing(symbol, client_id="ann", client_order_id="mine"),
        ]
    )
    assert statuses(results) == [201, 200, 200, 404, 201]
    ids = [results[n]["body"]["order"]["order_id"] for n in (0, 1, 2, 4)]
    assert ids == [order_id(symbol, n) for n in (1, 1, 1, 4)]
    assert results[1]["body"]["order"]["quantity"] == "2"


def test_a_bad_item_does_not_spoil_the_others(api: Api, symbol: str) -> None:
    bad: list[tuple[object, int, str]] = [
        (placing(symbol, price="1.5"), 400, "validation_failed"),
        (placing("NO-USD"), 404, "instrument_not_found"),
        ({"op": "dance"}, 400, "validation_failed"),
        ({}, 400, "validation_failed"),
        (None, 400, "validation_failed"),
        ([1], 400, "validation_failed"),
        ("place", 400, "validation_failed"),
        ({"op": "cancel"}, 400, "validation_failed"),
        ({"op": "cancel", "order_id": "x"}, 404, "order_not_found"),
        ({"op": "cancel", "order_id": 7}, 400, "validation_failed"),
        ({"op": "amend", "order_id": order_id(symbol, 1)}, 400, "validation_failed"),
        (placing(symbol, unknown=1), 400, "validation_failed"),
    ]
    items: list[object] = [placing(symbol)]
    for item, _, _ in bad:
        items += [item, placing(symbol)]
    results = api.batch(items)
    assert statuses(results[::2]) == [201] * (len(bad) + 1)
    told = [(result["status"], result["body"]["code"]) for result in results[1::2]]
    assert told == [(status, code) for _, status, code in bad]
    assert api.found("/orderbook", instrument=symbol)["sequence"] == len(bad) + 1


@pytest.mark.parametrize(
    ("fields", "wrong"),
    [
        ({"client_id": "ann", "instrument": "BTC-USD"}, {"client_order_id": "required"}),
        (
            {},
            {"client_id": "required", "instrument": "required", "client_order_id": "required"},
        ),
        (
            {"order_id": "BTC-USD-00000000000001", "client_id": "ann"},
            {"client_id": "not_allowed"},
        ),
        (
            {"client_id": "a|b", "instrument": "BTC-USD", "client_order_id": "c"},
            {"client_id": "invalid_text"},
        ),
        (
            {"client_id": "a", "instrument": "BTC-USD", "client_order_id": "c|d"},
            {"client_order_id": "invalid_text"},
        ),
    ],
)
def test_an_item_names_its_order_in_one_way(api: Api, fields: Json, wrong: dict[str, str]) -> None:
    for op in ({"op": "cancel"}, {"op": "amend", "price": "1"}):
        (result,) = api.batch([op | fields])
        assert (result["status"], codes_by_field(result["body"])) == (400, wrong)


def test_a_repeated_key_is_replayed_in_and_over_batches(api: Api, symbol: str) -> None:
    item = placing(symbol, idempotency_key="k")
    first, again, other = api.batch([item, item, item | {"quantity": "6"}])
    assert "replayed" not in first
    assert again == first | {"replayed": True}
    assert (other["status"], other["body"]["code"]) == (422, "idempotency_key_reused")
    alone = api.place(an_order(symbol), key="k")
    assert (alone.is_replayed, alone.json()) == (True, first["body"])
    assert api.batch([item]) == [again]


def test_trades_within_a_batch_are_told_with_their_taker(api: Api, symbol: str) -> None:
    items = [placing(symbol, side="sell"), {"op": "place"} | a_market_order(symbol, "buy", "2")]
    maker, taker = (result["body"] for result in api.batch(items))
    (trade,) = taker["trades"]
    assert maker["trades"] == []
    assert trade["maker_order_id"] == maker["order"]["order_id"]
    assert maker["order"]["status"] == "open", "as it was right after it was placed"


@pytest.mark.slow
def test_a_thousand_items_are_one_batch_and_keep_their_order(system: System, symbol: str) -> None:
    results = system.api.batch([placing(symbol, quantity=str(n + 1)) for n in range(MAX_ITEMS)])
    assert statuses(results) == [201] * MAX_ITEMS
    assert [r["body"]["order"]["quantity"] for r in results] == [
        str(n + 1) for n in range(MAX_ITEMS)
    ]
    assert system.sequences()[symbol] == MAX_ITEMS


@pytest.mark.parametrize(
    ("body", "field", "code"),
    [
        ({"items": []}, "items", "invalid_value"),
        ({"items": [{}] * (MAX_ITEMS + 1)}, "items", "invalid_value"),
        ({"items": {}}, "items", "invalid_value"),
        ({"items": None}, "items", "invalid_value"),
        ({}, "items", "required"),
        ([], "body", "invalid_value"),
        ({"items": [{}], "mode": "all"}, "mode", "unknown_field"),
    ],
    ids=lambda value: str(value)[:30],
)
def test_what_is_no_batch_is_refused_whole(api: Api, body: object, field: str, code: str) -> None:
    answer = api.request("POST", PATH, body)
    problem = check_problem(answer, 400, "validation_failed", PATH)
    assert codes_by_field(problem) == {field: code}


@pytest.mark.parametrize(
    "body", [b"", b"{", b'{"items":[{]}', b'{"items":[' + b"[" * 50_000, b'{"items":[\xff]}']
)
def test_what_is_not_json_is_refused_whole(api: Api, body: bytes) -> None:
    check_problem(api.request("POST", PATH, body), 400, "malformed_json", PATH)


def test_a_body_has_a_bound_of_its_own(api: Api, symbol: str) -> None:
    padded = json.dumps({"items": [placing(symbol)]}).encode()
    assert api.request("POST", PATH, padded.ljust(MAX_BYTES)).status == 200
    answer = api.request("POST", PATH, padded.ljust(MAX_BYTES + 1))
    check_problem(answer, 413, "body_too_large", PATH)


def test_a_key_for_the_whole_batch_is_refused(api: Api, symbol: str) -> None:
    """Each item has its own: to ignore the header would promise what is not kept."""
    body = {"items": [placing(symbol)]}
    answer = api.request("POST", PATH, body, {"Idempotency-Key": "k"})
    problem = check_problem(answer, 400, "validation_failed", PATH)
    assert codes_by_field(problem) == {"Idempotency-Key": "not_allowed"}
    assert api.found("/orderbook", instrument=symbol)["sequence"] == 0


def test_items_are_counted_and_logged_as_single_orders(system: System, symbol: str) -> None:
    before = metrics_of(system.api)
    results = system.api.batch(
        [
            placing(symbol, side="sell"),
            placing(symbol),
            placing(symbol, price="0"),
            {"op": "place"},
            {"op": "cancel", "order_id": "x"},
        ]
    )
    assert statuses(results) == [201, 201, 400, 400, 404]
    after = metrics_of(system.api)
    counted = {
        "orders_received_total": 4,
        "orders_matched_total": 1,
        'orders_rejected_total{code="validation_failed"}': 2,
        "order_latency_seconds_count": 2,
    }
    assert {name: after[name] - before.get(name, 0) for name in counted} == counted
    lines = [line for line in system.log().splitlines() if symbol in line]
    assert sum('"message":"order placed"' in line for line in lines) == 2
    assert sum('"message":"trade"' in line for line in lines) == 1
