"""Each request printed in the seed document of this name, as it is printed there."""

from tests.rest import Api
from tests.seeds import Seed, check_placed, send

SEED = Seed("000_b3e8a60a747e8009")


def test_post_orders(api: Api) -> None:
    method, path, _, body = SEED.row("POST", "/orders")
    order = check_placed(
        send(api, method, path, body.encode()),
        instrument="BTC-USD",
        client_id="1",
        side="buy",
        type="limit",
        time_in_force="gtc",
        price="100.00",
        quantity="10.00000000",
        status="open",
    )
    api.cancelled(order["order_id"])


def test_get_health(api: Api) -> None:
    method, path, *_ = SEED.row("GET", "/health")
    answer = send(api, method, path)
    assert (answer.status, answer.json()) == (200, {"status": "alive"})
