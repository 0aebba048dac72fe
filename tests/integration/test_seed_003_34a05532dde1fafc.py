"""Each request printed in the seed document of this name, as it is printed there."""

import json

from tests.rest import Api, Json
from tests.seeds import Seed, check_placed, send

SEED = Seed("003_34a05532dde1fafc")


def place(api: Api) -> Json:
    comment = SEED.line("// POST /orders")
    _, method, path = comment.split()
    return check_placed(
        send(api, method, path, SEED.body_below(comment)),
        instrument="BTC-USD",
        client_id="user123",
        side="buy",
        type="limit",
        price="45000.00",
        quantity="1.50000000",
    )


def test_post_orders(api: Api) -> None:
    order = place(api)
    assert order["status"] == "open"
    api.cancelled(order["order_id"])


def test_get_orders_order_id(api: Api) -> None:
    order = place(api)
    _, method, path = SEED.line("// GET /orders/:orderId").split()
    answer = send(api, method, path.replace(":orderId", order["orderId"]))
    assert (answer.status, answer.json()) == (200, order)
    printed = SEED.body_below("Response Example:")
    assert answer.json().keys() >= json.loads(printed).keys()
    api.cancelled(order["order_id"])
