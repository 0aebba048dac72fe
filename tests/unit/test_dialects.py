"""Orders in the seeds' dialects: what is understood, what is refused, and what it costs others."""

import json

import pytest

from app.api import dialects
from app.api.bodies import OrderBody, SeedOrder, decode_order
from app.api.problems import Problem
from tests.rest import Json

PLAIN = {"instrument": "BTC-USD", "side": "buy", "price": "1", "quantity": "2"}


def decoded(**body: object) -> OrderBody:
    return decode_order(json.dumps(body).encode())


def refused(**body: object) -> dict[str, str]:
    """Field -> code."""
    with pytest.raises(Problem) as raised:
        decoded(**body)
    assert raised.value.status == 400
    return {error.field: error.code for error in raised.value.errors or []}


@pytest.mark.parametrize(
    ("body", "instrument", "side", "client_id"),
    [
        ({"type": "BUY"}, "BTC-USD", "buy", None),
        ({"type": "SELL", "userId": 7}, "BTC-USD", "sell", "7"),
        ({"type": "SELL", "userId": "ann"}, "BTC-USD", "sell", "ann"),
        ({"type": "SELL", "client_id": "ann"}, "BTC-USD", "sell", "ann"),
        ({"type": "BUY", "userId": None, "asset": None}, "BTC-USD", "buy", None),
        ({"type": "BUY", "instrument": None, "side": None}, "BTC-USD", "buy", None),
        ({"type": "BUY", "tradingPair": "ETH-USD"}, "ETH-USD", "buy", None),
        ({"type": "BUY", "asset": "ETH-USD"}, "ETH-USD", "buy", None),
        ({"type": "BUY", "instrument": "ETH-USD"}, "ETH-USD", "buy", None),
        ({"side": "sell", "asset": "ETH-USD"}, "ETH-USD", "sell", None),
        ({"side": "sell", "type": "limit", "userId": "ann"}, "BTC-USD", "sell", "ann"),
    ],
)
def test_a_dialect_is_understood(
    body: Json, instrument: str, side: str, client_id: str | None
) -> None:
    order = decoded(**body, price=1, quantity=2)
    assert isinstance(order, SeedOrder)
    assert (order.instrument, order.side, order.client_id) == (instrument, side, client_id)
    assert (order.type, order.time_in_force) == ("limit", None)


@pytest.mark.parametrize("wrong", ["NaN", "01", "1,", '"'])
def test_what_is_no_json_is_said_to_be_none(wrong: str) -> None:
    body = f'{{"type":"BUY","price":1,"quantity":2,"userId":{wrong}}}'
    with pytest.raises(Problem) as raised:
        decode_order(body.encode())
    assert (raised.value.status, raised.value.code) == (400, "malformed_json")


def test_numbers_stay_as_they_were_written() -> None:
    body = b'{"type":"BUY","price":0.1000000000000000055,"quantity":1e2,"userId":1}'
    order = decode_order(body)
    assert (bytes(order.price), bytes(order.quantity)) == (b"0.1000000000000000055", b"1e2")


def test_the_other_fields_of_an_order_may_be_in_it() -> None:
    order = decoded(type="BUY", price=1, quantity=2, time_in_force="ioc", idempotency_key="k")
    assert (order.time_in_force, order.idempotency_key) == ("ioc", "k")


@pytest.mark.parametrize(
    ("body", "errors"),
    [
        ({"type": "BUY", "side": "buy"}, {"type": "conflict"}),
        ({"type": "SELL", "side": "buy"}, {"type": "conflict"}),
        ({"type": "BUY", "userId": 1, "client_id": "1"}, {"userId": "conflict"}),
        ({"type": "BUY", "asset": "A-B", "tradingPair": "A-B"}, {"asset": "conflict"}),
        ({"type": "BUY", "asset": "A-B", "instrument": "A-B"}, {"asset": "conflict"}),
        (
            {"type": "BUY", "side": "buy", "tradingPair": "AA-BB", "instrument": "AA-BB"},
            {"type": "conflict", "tradingPair": "conflict"},
        ),
        ({"type": "BUY", "userId": 1.5}, {"userId": "invalid_value"}),
        ({"type": "BUY", "userId": -1}, {"userId": "invalid_value"}),
        ({"type": "BUY", "userId": True}, {"userId": "invalid_value"}),
        ({"type": "BUY", "asset": 1}, {"asset": "invalid_value"}),
        ({"type": "BUY", "price2": 1}, {"price2": "unknown_field"}),
        ({"type": "limit", "userId": 1}, {"side": "required"}),
        ({"type": "buy"}, {"type": "invalid_value"}),
        ({"type": ["BUY"]}, {"type": "invalid_value"}),
        ({**PLAIN, "instrument": None}, {"instrument": "invalid_value"}),
    ],
)
def test_what_says_one_thing_twice_or_nothing_is_refused(
    body: Json, errors: dict[str, str]
) -> None:
    assert refused(**{"price": 1, "quantity": 2} | body) == errors


@pytest.mark.parametrize("body", [b"[]", b'"BUY"', b"{}"])
def test_what_is_no_order_in_a_dialect_is_none(body: bytes) -> None:
    assert dialects.in_plain_words(body) is None


@pytest.mark.parametrize("body", [b"", b"{", b"[" * 5_000, b'{"\xff":1}'])
def test_what_cannot_be_read_is_no_order(body: bytes) -> None:
    with pytest.raises(Problem) as raised:
        decode_order(body)
    assert raised.value.status == 400


def test_plain_orders_are_not_looked_at(monkeypatch: pytest.MonkeyPatch) -> None:
    """They are decoded once, and answered without another look."""
    monkeypatch.delattr(dialects, "in_plain_words")
    assert type(decoded(**PLAIN)) is OrderBody
