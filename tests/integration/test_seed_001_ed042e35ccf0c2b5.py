"""Each request printed in the seed document of this name, as it is printed there. It speaks
Socket.IO; what it listens for is on the WebSocket's channels.
"""

from collections.abc import Iterator

import pytest

from tests.rest import Api, Json, plain
from tests.seeds import Seed, check_placed, hears, send
from tests.system import System

SEED = Seed("001_ed042e35ccf0c2b5")


@pytest.fixture
def order(api: Api) -> Iterator[Json]:
    """The printed order, placed."""
    method, path = SEED.line("POST /orders").split()
    placed = check_placed(
        send(api, method, path, SEED.body_below("POST /orders")),
        instrument="BTC-USD",
        client_id="1",
        side="buy",
        type="limit",
        price="50000.00",
        quantity="0.10000000",
    )
    yield placed
    api.cancel(placed["order_id"])


def test_post_orders(api: Api, order: Json) -> None:
    assert api.order(order["order_id"]) == plain(order)


def test_get_market_orderbook(api: Api, order: Json) -> None:
    method, path = SEED.line("GET /market/orderbook").split()
    answer = send(api, method, path)
    assert answer.status == 200, answer
    assert answer.json() == api.found("/orderbook", instrument="BTC-USD")
    assert order["price"] in [level["price"] for level in answer.json()["bids"]]


def test_get_market_trades(api: Api, order: Json) -> None:
    taker = {"type": "SELL", "userId": "taker", "price": 50000, "quantity": 0.05}
    assert len(api.placed(taker)["trades"]) == 1
    method, path = SEED.line("GET /market/trades").split()
    answer = send(api, method, path)
    assert answer.status == 200, answer
    (ours,) = api.found("/trades", instrument="BTC-USD", limit=1)["trades"]
    theirs = answer.json()["trades"][0]
    assert theirs.items() >= ours.items()
    assert (theirs["tradingPair"], theirs["buyOrderId"]) == ("BTC-USD", order["order_id"])


def test_get_charts_candlesticks(system: System, order: Json) -> None:
    taker = {"type": "SELL", "userId": "taker", "price": 50000, "quantity": 0.05}
    system.api.placed(taker)
    system.settled()
    method, path = SEED.line("GET /charts/candlesticks").split()
    answer = send(system.api, method, path)
    assert answer.status == 200, answer
    # An hour may have begun since.
    (*_, newest) = (candle for candle in answer.json()["candles"] if candle["trades"])
    assert newest["close"] == order["price"]
    ours = system.api.found("/candles", instrument="BTC-USD", interval="1h", limit=100)
    assert answer.json() == ours


@pytest.mark.parametrize(
    ("event", "channel", "kind"),
    [("new_trade", "trades", "trade"), ("order_update", "orders", "order")],
)
def test_socket_events(api: Api, order: Json, event: str, channel: str, kind: str) -> None:
    assert SEED.mentions("socket.emit('subscribe', { room: 'BTC-USD' });")
    assert SEED.mentions(f"socket.on('{event}'")
    taker = {"type": "SELL", "userId": "taker", "price": 50000, "quantity": 0.01}
    heard = hears(api, channel, "BTC-USD", lambda: api.placed(taker))
    assert (heard["type"], heard["instrument"]) == (kind, "BTC-USD")
