"""The dialects of the seed documents: their orders and paths in this API's words, and this API's
answers with their field names added. Must not know what an order is or what a path does; costs
nothing where nobody speaks one.
"""

from collections.abc import Callable, Iterator, Mapping
from typing import Any, Final, TypeAlias

import msgspec
from flask import Flask, Response, request
from werkzeug.datastructures import ImmutableMultiDict, MultiDict

from app.api.http import encode
from app.api.problems import FieldError, invalid
from app.domain.views import View as Document

ViewFunction: TypeAlias = Callable[..., Response]

DEFAULT_INSTRUMENT: Final = "BTC-USD"
"""Of a document that has only one market, and so does not name it."""
FIELDS: Final = {"userId": "client_id", "tradingPair": "instrument", "asset": "instrument"}
"""Theirs -> ours: of orders, and of queries on their paths."""
SIDES: Final = {b'"BUY"': b'"buy"', b'"SELL"': b'"sell"'}
"""Their `type` is our `side`."""
ORDER_NAMES: Final = {
    "orderId": "order_id",
    "userId": "client_id",
    "asset": "instrument",
    "tradingPair": "instrument",
    "createdAt": "created_at",
    "updatedAt": "updated_at",
}
TRADE_NAMES: Final = {
    "asset": "instrument",
    "tradingPair": "instrument",
    "buyOrderId": "buy_order_id",
    "sellOrderId": "sell_order_id",
}
"""Theirs -> ours, of what is answered."""
PATHS: Final = {
    "/health": "/healthz",
    "/api/orderbook": "/orderbook",
    "/api/orderbook/depth": "/orderbook",
    "/api/trades": "/trades",
    "/api/trades/latest": "/trades",
    "/market/orderbook/<pair>": "/orderbook",
    "/market/trades/<pair>": "/trades",
    "/charts/candlesticks/<pair>": "/candles",
}
"""Theirs -> ours. Whatever is under ORDERS_PATH is under API_PREFIX + ORDERS_PATH, too."""
API_PREFIX, ORDERS_PATH = "/api", "/orders"
OF_ONE_INSTRUMENT: Final = frozenset({"/orderbook", "/trades", "/candles"})

_DECODER: Final = msgspec.json.Decoder(dict[str, msgspec.Raw])
_ABSENT: Final = b"null"
_MAY_BE_NULL: Final = frozenset({*FIELDS, *FIELDS.values(), "side"})
"""Null is as if they were left out: another name may say it. All other fields stay as they came."""


def in_plain_words(body: bytes) -> bytes | None:
    """The JSON of an order in a dialect, as this API's own; None where it is in none.

    Raises:
        Problem: 400 `validation_failed`: it says one thing twice, or a user is none.
        MsgspecError, UnicodeDecodeError, RecursionError: it is no JSON at all.
    """
    try:
        order = _DECODER.decode(body)
    except msgspec.ValidationError:
        return None
    given = {
        name: raw
        for name, raw in order.items()
        if bytes(raw) != _ABSENT or name not in _MAY_BE_NULL
    }
    is_side = bytes(given.get("type", b"")) in SIDES
    if not is_side and not any(name in given for name in FIELDS):
        return None
    errors = list(_conflicts(given, is_side=is_side))
    plain = {
        FIELDS.get(name, name): _text(name, raw, errors) if name in FIELDS else raw
        for name, raw in given.items()
    }
    if errors:
        raise invalid(errors)
    if is_side:
        plain["side"] = msgspec.Raw(SIDES[bytes(plain.pop("type"))])
    plain.setdefault("instrument", msgspec.Raw(f'"{DEFAULT_INSTRUMENT}"'.encode()))
    return encode(plain)


def _conflicts(given: Mapping[str, object], *, is_side: bool) -> Iterator[FieldError]:
    if is_side and "side" in given:
        yield FieldError("type", "conflict", "BUY and SELL are a side, which side says already")
    said: dict[str, str] = {ours: ours for ours in FIELDS.values() if ours in given}
    for theirs, ours in FIELDS.items():
        if theirs in given and ours in said:
            yield FieldError(theirs, "conflict", f"{said[ours]} says it already")
        elif theirs in given:
            said[ours] = theirs


def _text(name: str, raw: msgspec.Raw, errors: list[FieldError]) -> msgspec.Raw:
    """A name as JSON's text; that of a user may be a number, and is its digits."""
    digits = bytes(raw)
    if digits.isdigit() and name == "userId":
        return msgspec.Raw(b'"' + digits + b'"')
    if not digits.startswith(b'"'):
        kind = "a string or a whole number" if name == "userId" else "a string"
        errors.append(FieldError(name, "invalid_value", kind))
    return raw


def with_order_names(order: Document) -> Document:
    """An Order with the seeds' names beside its own."""
    return order | {theirs: order[ours] for theirs, ours in ORDER_NAMES.items()}


def with_seed_names(body: bytes) -> bytes:
    """An answer with the seeds' names beside its own; where it is about one order, also beside
    `order`, since their documents are the order itself.
    """
    document = msgspec.json.decode(body)
    _add_names(document)
    order = document.get("order") if isinstance(document, dict) else None
    if order is not None:
        document |= {theirs: order[theirs] for theirs in ORDER_NAMES}
    return encode(document)


def _add_names(value: Any) -> None:  # noqa: ANN401  # whatever JSON is
    """Walks answers of this API, which are nested a few levels deep."""
    if isinstance(value, list):
        for each in value:
            _add_names(each)
    elif isinstance(value, dict):
        for each in value.values():
            _add_names(each)
        names = ORDER_NAMES if "order_id" in value else TRADE_NAMES if "trade_id" in value else {}
        value |= {theirs: value[ours] for theirs, ours in names.items() if ours in value}


def register(app: Flask) -> None:
    """Add the seeds' paths to those that `app` has so far."""
    views: dict[str, ViewFunction] = {}
    for rule in list(app.url_map.iter_rules()):
        path = rule.rule
        theirs = [each for each, ours in PATHS.items() if ours == path]
        if path == ORDERS_PATH or path.startswith(f"{ORDERS_PATH}/"):
            theirs.append(API_PREFIX + path)
        if not theirs:
            continue
        of_one = path in OF_ONE_INSTRUMENT
        view = views.setdefault(
            rule.endpoint, _translating(app.view_functions[rule.endpoint], of_one=of_one)
        )
        for each in theirs:
            app.add_url_rule(each, f"dialects.{rule.endpoint}", view, methods=rule.methods)


def _translating(view: Callable[..., Any], *, of_one: bool) -> ViewFunction:
    """`view`, asked and answering in a dialect. `of_one`: it wants an instrument in its query."""

    def answer(pair: str | None = None, **captured: str) -> Response:
        request.args = _plain_query(request.args, pair, of_one=of_one)
        response: Response = view(**captured)
        if response.mimetype == "application/json":
            response.set_data(with_seed_names(response.get_data()))
        return response

    return answer


def _plain_query(
    given: MultiDict[str, str], pair: str | None, *, of_one: bool
) -> ImmutableMultiDict[str, str]:
    plain = [(FIELDS.get(name, name), text) for name, text in given.items(multi=True)]
    if pair is not None:
        plain.append(("instrument", pair))
    elif of_one and all(name != "instrument" for name, _ in plain):
        plain.append(("instrument", DEFAULT_INSTRUMENT))
    return ImmutableMultiDict(plain)
