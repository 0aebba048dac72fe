"""Each request printed in the seed document of this name, as it is printed there. It prints no
body: an order is sent with the fields of its data model that a client can know.
"""

from collections.abc import Iterator

import pytest

from tests.rest import Api, Json, check_problem, plain
from tests.seeds import Seed, check_names, check_placed, hears, send

SEED = Seed("004_060d7235b265ad35")
ORDER = b'{"type": "BUY", "price": 45000, "quantity": 2}'


@pytest.fixture
def order(api: Api) -> Iterator[Json]:
    """Placed by the printed request."""
    placed = check_placed(
        send(api, *SEED.bullet("POST /api/orders"), ORDER),
        instrument="BTC-USD",
        client_id="anonymous",
        side="buy",
        type="limit",
        price="45000.00",
        quantity="2.00000000",
    )
    yield placed
    api.cancel(placed["order_id"])


def test_post_api_orders(api: Api, order: Json) -> None:
    assert api.order(order["order_id"]) == plain(order)


def test_get_api_orders(api: Api, order: Json) -> None:
    answer = send(api, *SEED.bullet("GET /api/orders"))
    assert answer.status == 200, answer
    assert answer.json()["orders"]
    for each in answer.json()["orders"]:
        check_names(each)
    # The newest of all may be of another test, whose book has a clock that is ahead.
    assert order in api.found("/api/orders", asset="BTC-USD")["orders"]


def test_get_api_orders_id(api: Api, order: Json) -> None:
    method, path = SEED.bullet("GET /api/orders/:id")
    answer = send(api, method, path.replace(":id", order["orderId"]))
    assert (answer.status, answer.json()) == (200, order)


def test_delete_api_orders_id(api: Api, order: Json) -> None:
    method, path = SEED.bullet("DELETE /api/orders/:id")
    path = path.replace(":id", order["orderId"])
    answer = send(api, method, path)
    assert answer.status == 200, answer
    cancelled = answer.json()["order"]
    assert (cancelled["orderId"], cancelled["status"]) == (order["orderId"], "cancelled")
    check_names(cancelled)
    check_problem(send(api, method, path), 409, "order_not_open", path)


@pytest.mark.parametrize("request_line", ["GET /api/orderbook", "GET /api/orderbook/depth"])
def test_get_api_orderbook(api: Api, order: Json, request_line: str) -> None:
    answer = send(api, *SEED.bullet(request_line))
    assert answer.status == 200, answer
    assert answer.json() == api.found("/orderbook", instrument="BTC-USD")
    assert order["price"] in [level["price"] for level in answer.json()["bids"]]


@pytest.mark.parametrize("request_line", ["GET /api/trades", "GET /api/trades/latest"])
def test_get_api_trades(api: Api, order: Json, request_line: str) -> None:
    send(api, *SEED.bullet("POST /api/orders"), ORDER.replace(b"BUY", b"SELL"))
    answer = send(api, *SEED.bullet(request_line))
    assert answer.status == 200, answer
    (ours,) = api.found("/trades", instrument="BTC-USD", limit=1)["trades"]
    theirs = answer.json()["trades"][0]
    assert theirs.items() >= ours.items()
    assert theirs["buyOrderId"] == ours["buy_order_id"]
    assert theirs["sellOrderId"] == ours["sell_order_id"]


@pytest.mark.parametrize(
    ("event", "channel", "kind"),
    [
        ("orderbook", "book", "book_snapshot"),
        ("trade", "trades", "trade"),
        ("order_status", "orders", "order"),
    ],
)
def test_websocket_events(api: Api, order: Json, event: str, channel: str, kind: str) -> None:
    assert SEED.mentions(f"- `{event}`: ")
    taker = ORDER.replace(b"BUY", b"SELL")
    act = lambda: send(api, *SEED.bullet("POST /api/orders"), taker)  # noqa: E731
    heard = hears(api, channel, "BTC-USD", act)
    assert (heard["type"], heard["instrument"]) == (kind, "BTC-USD")
