"""Each request printed in the seed document of this name, as it is printed there."""

from tests.rest import Api
from tests.seeds import Seed, run_curl

SEED = Seed("002_6fc2794ed5eccf7d")


def test_curl_post_orders(api: Api) -> None:
    """Twice: it has an idempotency key."""
    command = SEED.curl("curl -X POST http://localhost:3000/orders")
    answer = run_curl(api, command)
    assert answer.status == 201, answer
    order = answer.json()["order"]
    expected = {
        "instrument": "BTC-USD",
        "client_id": "client-A",
        "side": "buy",
        "type": "limit",
        "price": "50000.00",
        "quantity": "0.50000000",
        "idempotency_key": "a-unique-uuid-12345",
    }
    assert {name: order[name] for name in expected} == expected
    assert run_curl(api, command) == answer
    api.cancelled(order["order_id"])
