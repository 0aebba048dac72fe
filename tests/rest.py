"""Crossbook's REST spoken by tests: a small keep-alive client on http.client, many requests at one
instant, and how commands and orders of the tests' own model look in JSON. Knows the contract, not
the product.
"""

import http.client
import json
import select
import socket
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any, TypeAlias
from urllib.parse import quote, urlencode

from tests import reference
from tests.commands import Place, Side
from tests.truth import Fill, Standing, Taken

Json: TypeAlias = dict[str, Any]

HOST = "127.0.0.1"
TIMEOUT_S = 30.0
"""Longer than any answer may take: past it a request hangs, and the test fails."""
NUMBER_DIGITS = 14
SEED_NAMES = {
    "orderId": "order_id",
    "userId": "client_id",
    "asset": "instrument",
    "tradingPair": "instrument",
    "createdAt": "created_at",
    "updatedAt": "updated_at",
}
"""The names that the seed documents' clients look for in an order, beside those of the contract."""
PROBLEM_FIELDS = {"type", "title", "status", "detail", "instance", "code"}


@dataclass(frozen=True, slots=True)
class Answer:
    """One HTTP answer."""

    status: int
    headers: Mapping[str, str]
    body: bytes

    def json(self) -> Json:
        """The body, which must be an object."""
        document = json.loads(self.body)
        assert isinstance(document, dict), self.body
        return document

    @property
    def code(self) -> str:
        """The `code` of a problem."""
        return str(self.json()["code"])

    @property
    def is_replayed(self) -> bool:
        """Whether it says that it repeats an earlier answer."""
        return self.headers.get("Idempotent-Replayed") == "true"


def _answer(response: http.client.HTTPResponse) -> Answer:
    return Answer(response.status, response.headers, response.read())  # type: ignore[arg-type]


class Api:
    """A client of one server; every thread that uses it has a connection of its own."""

    def __init__(self, port: int) -> None:
        self.port = port
        self._of_thread = threading.local()

    def request(
        self,
        method: str,
        path: str,
        body: object = None,
        headers: Mapping[str, str] | None = None,
    ) -> Answer:
        """One request; a body that is not bytes is sent as JSON. Never repeated by itself.

        Raises:
            OSError, http.client.HTTPException: no answer came, nobody knows what happened.
        """
        content = body if isinstance(body, bytes) or body is None else json.dumps(body).encode()
        connection = self._connection()
        try:
            connection.request(method, path, content, dict(headers or {}))
            return _answer(connection.getresponse())
        except BaseException:
            connection.close()
            raise

    def _connection(self) -> http.client.HTTPConnection:
        """This thread's; closed first if the server has closed it meanwhile."""
        connection: http.client.HTTPConnection | None = getattr(self._of_thread, "open", None)
        if connection is None:
            connection = http.client.HTTPConnection(HOST, self.port, timeout=TIMEOUT_S)
            self._of_thread.open = connection
        elif connection.sock is not None and select.select([connection.sock], [], [], 0)[0]:
            connection.close()
        return connection

    def get(self, path: str, /, **query: object) -> Answer:
        """GET with a query; parameters that are None are left out."""
        given = {name: value for name, value in query.items() if value is not None}
        return self.request("GET", f"{path}?{urlencode(given)}" if given else path)

    def found(self, path: str, /, **query: object) -> Json:
        """The document of a GET that must succeed."""
        answer = self.get(path, **query)
        assert answer.status == 200, answer
        return answer.json()

    def place(self, order: Json, key: str | None = None) -> Answer:
        """POST /orders, with an Idempotency-Key header if `key` is given."""
        return self.request("POST", "/orders", order, {"Idempotency-Key": key} if key else None)

    def placed(self, order: Json, key: str | None = None) -> Json:
        """The document of an order that must be accepted."""
        answer = self.place(order, key)
        assert answer.status == 201, answer
        return answer.json()

    def cancel(self, order_id: str) -> Answer:
        """DELETE /orders/{order_id}."""
        return self.request("DELETE", f"/orders/{quote(order_id, safe='')}")

    def cancelled(self, order_id: str) -> Json:
        """The order of a cancel that must succeed."""
        answer = self.cancel(order_id)
        assert answer.status == 200, answer
        order: Json = answer.json()["order"]
        return order

    def amend(self, order_id: str, **changes: object) -> Answer:
        """PATCH /orders/{order_id}."""
        return self.request("PATCH", f"/orders/{quote(order_id, safe='')}", changes)

    def amended(self, order_id: str, **changes: object) -> Json:
        """The document of an amendment that must succeed."""
        answer = self.amend(order_id, **changes)
        assert answer.status == 200, answer
        return answer.json()

    def cancel_all(self, **query: object) -> Answer:
        """DELETE /orders with a query."""
        return self.request("DELETE", f"/orders?{urlencode(query)}")

    def cancelled_all(self, **query: object) -> list[str]:
        """The order ids of a mass cancel that must succeed and leave nothing."""
        answer = self.cancel_all(**query)
        assert answer.status == 200, answer
        document = answer.json()
        assert document["complete"] is True
        assert document["halted"] == []
        ids: list[str] = document["cancelled"]
        return ids

    def batch(self, items: Sequence[object]) -> list[Json]:
        """The results of a POST /orders/batch that must be taken."""
        answer = self.request("POST", "/orders/batch", {"items": items})
        assert answer.status == 200, answer
        results: list[Json] = answer.json()["results"]
        assert len(results) == len(items)
        return results

    def changed_rules(self, symbol: str, **rules: object) -> Json:
        """The instrument after a PATCH of its rules that must succeed."""
        answer = self.request("PATCH", f"/admin/instruments/{symbol}", rules)
        assert answer.status == 200, answer
        return answer.json()

    def order(self, order_id: str) -> Json:
        """GET /orders/{order_id} of an order that must be there, in the contract's names."""
        found = self.found(f"/orders/{order_id}")
        assert found.keys() >= SEED_NAMES.keys()
        return plain(found)

    def pages(self, path: str, cursor: str, following: str, /, **query: object) -> Iterator[Json]:
        """Every page: `cursor` names the parameter that takes what `following` says."""
        places: list[str | None] = [None]
        while True:
            page = self.found(path, **query, **{cursor: places[-1]})
            yield page
            if page[following] is None:
                return
            assert page[following] not in places, "it leads in a circle"
            places.append(page[following])

    def all_orders(self, **query: object) -> list[Json]:
        """GET /orders, page after page."""
        pages = self.pages("/orders", "cursor", "next_cursor", **query)
        return [order for page in pages for order in page["orders"]]

    def all_trades(self, instrument: str, **query: object) -> list[Json]:
        """GET /trades, page after page."""
        pages = self.pages("/trades", "before", "next_before", instrument=instrument, **query)
        return [trade for page in pages for trade in page["trades"]]


# Orders and problems in short


def plain(order: Json) -> Json:
    """The order without the seeds' names."""
    return {name: value for name, value in order.items() if name not in SEED_NAMES}


def an_order(symbol: str, **fields: object) -> Json:
    """A buy of 5 at 100 unless told otherwise; None leaves a field out."""
    order = {"instrument": symbol, "side": "buy", "quantity": "5", "price": "100"} | fields
    return {name: value for name, value in order.items() if value is not None}


def a_market_order(symbol: str, side: str, quantity: str, **fields: object) -> Json:
    """Of this quantity; other fields as given."""
    return an_order(symbol, side=side, type="market", quantity=quantity, price=None, **fields)


def check_problem(answer: Answer, status: int, code: str, instance: str) -> Json:
    """The answer is this problem, in the contract's shape; returns it."""
    assert (answer.status, answer.code) == (status, code), answer
    assert answer.headers["Content-Type"] == "application/problem+json"
    problem = answer.json()
    assert problem.keys() - {"errors"} == PROBLEM_FIELDS
    assert problem["status"] == status
    assert problem["instance"] == instance
    assert problem["title"]
    assert problem["detail"]
    for error in problem.get("errors", []):
        assert error.keys() == {"field", "code", "detail"}
    return problem


def codes_by_field(problem: Json) -> dict[str, str]:
    """Field -> code, of a validation error."""
    return {error["field"]: error["code"] for error in problem["errors"]}


# Many at one instant


def raw_request(
    method: str, path: str, body: object = b"", headers: Mapping[str, str] | None = None
) -> bytes:
    """A request as it goes over the wire."""
    content = body if isinstance(body, bytes) else json.dumps(body).encode()
    lines = [f"{method} {path} HTTP/1.1", "Host: localhost", f"Content-Length: {len(content)}"]
    lines += [f"{name}: {value}" for name, value in (headers or {}).items()]
    return "\r\n".join(lines).encode() + b"\r\n\r\n" + content


def volley(port: int, requests: Sequence[bytes]) -> list[Answer]:
    """Sends every request over a connection of its own, all connected before the first is sent and
    all sent before the first answer is read: on the server they meet.
    """
    with ExitStack() as stack:
        sockets = [
            stack.enter_context(socket.create_connection((HOST, port), TIMEOUT_S)) for _ in requests
        ]
        for connection, request in zip(sockets, requests, strict=True):
            connection.sendall(request)
        return [read_answer(connection) for connection in sockets]


def read_answer(connection: socket.socket) -> Answer:
    """The next answer of a connection to whose other end a request with a body was sent."""
    with http.client.HTTPResponse(connection) as response:
        response.begin()
        return _answer(response)


# The tests' own model in JSON, for an instrument with tick 1 and lot 1


def order_id(symbol: str, number: int) -> str:
    """The public id of an order."""
    return f"{symbol}-{number:0{NUMBER_DIGITS}}"


def number_of(order_id: str) -> int:
    """The number in an order's public id."""
    return int(order_id[-NUMBER_DIGITS:])


def _text(units: int | None) -> str | None:
    return None if units is None else str(units)


def moment(time_us: int) -> str:
    """RFC 3339 with microseconds."""
    instant = datetime(1970, 1, 1, tzinfo=UTC) + timedelta(microseconds=time_us)
    return instant.strftime("%Y-%m-%dT%H:%M:%S.%fZ")


def order_body(symbol: str, place: Place) -> Json:
    """The body of POST /orders; the idempotency key travels in it, too."""
    body: Json = {
        "instrument": symbol,
        "client_id": place.client,
        "side": place.side,
        "type": place.type,
        "time_in_force": place.time_in_force,
        "quantity": str(place.quantity_lots),
        "price": _text(place.price_ticks),
        "post_only": place.post_only,
        "client_order_id": place.client_order_id,
        "idempotency_key": place.idempotency_key,
        "stop_price": _text(place.stop_price_ticks),
        "display_quantity": _text(place.display_lots),
        "expires_at": None if place.expires_us is None else moment(place.expires_us),
        "self_trade_prevention": place.self_trade_prevention,
    }
    return {name: value for name, value in body.items() if value is not None}


def order_words(symbol: str, order: reference.Order) -> Json:
    """What an Order of REST must say of an order of the reference."""
    return {
        "order_id": order_id(symbol, order.number),
        "instrument": symbol,
        "client_id": order.client,
        "side": order.side,
        "type": order.type,
        "time_in_force": order.time_in_force,
        "post_only": order.post_only,
        "price": _text(order.price_ticks),
        "stop_price": _text(order.stop_price_ticks),
        "display_quantity": _text(order.display_lots),
        "expires_at": None if order.expires_us is None else moment(order.expires_us),
        "self_trade_prevention": order.self_trade_prevention,
        "quantity": str(order.quantity_lots),
        "filled_quantity": str(order.filled_lots),
        "remaining_quantity": str(order.remaining_lots),
        "average_price": _average(order.notional, order.filled_lots),
        "client_order_id": order.client_order_id,
        "status": order.status,
        "reason": order.reason,
        "sequence": order.sequence,
    }


def _average(notional: int, lots: int) -> str | None:
    """Rounded half to even, in whole ticks."""
    if not lots:
        return None
    whole, rest = divmod(notional, lots)
    return str(whole + (2 * rest > lots or (2 * rest == lots and whole % 2)))


def trade_words(symbol: str, trade: reference.Trade) -> Json:
    """What a Trade of REST must say of a trade of the reference."""
    maker, taker = order_id(symbol, trade.maker), order_id(symbol, trade.taker)
    buyer, seller = (taker, maker) if trade.side == "buy" else (maker, taker)
    return {
        "instrument": symbol,
        "price": str(trade.price_ticks),
        "quantity": str(trade.quantity_lots),
        "side": trade.side,
        "buy_order_id": buyer,
        "sell_order_id": seller,
        "maker_order_id": maker,
        "taker_order_id": taker,
        "sequence": trade.sequence,
    }


def placed_words(symbol: str, answer: reference.Placed) -> Json:
    """What the document of a 201 must say."""
    return {
        "order": order_words(symbol, answer.order),
        "trades": [trade_words(symbol, trade) for trade in answer.trades],
    }


def same_words(told: Json, words: Json) -> Json:
    """`told` with only those fields that `words` has, in depth: for asserts that show the rest."""
    picked: Json = {}
    for name, expected in words.items():
        value = told[name]
        if isinstance(expected, dict):
            value = same_words(value, expected)
        elif isinstance(expected, list) and len(expected) == len(value):
            value = [same_words(*pair) for pair in zip(value, expected, strict=True)]
        picked[name] = value
    return picked


class RestVenue:
    """The truth runner's venue: one instrument (tick 1, lot 1), spoken to over HTTP alone."""

    def __init__(self, api: Api, symbol: str) -> None:
        self.api = api
        self.symbol = symbol

    def place(self, place: Place) -> Taken:
        """See `tests.truth.Venue`."""
        document = self.api.placed(order_body(self.symbol, place))
        fills = [
            Fill(number_of(trade["maker_order_id"]), int(trade["price"]), int(trade["quantity"]))
            for trade in document["trades"]
        ]
        return Taken(number_of(document["order"]["order_id"]), fills)

    def cancel(self, number: int) -> bool:
        """See `tests.truth.Venue`."""
        answer = self.api.cancel(order_id(self.symbol, number))
        assert answer.status in (200, 404, 409), answer
        return answer.status == 200

    def amend(self, number: int, quantity_lots: int) -> bool:
        """See `tests.truth.Venue`."""
        answer = self.api.amend(order_id(self.symbol, number), quantity=str(quantity_lots))
        assert answer.status in (200, 404, 409), answer
        return answer.status == 200

    def standing(self, number: int) -> Standing:
        """See `tests.truth.Venue`."""
        order = self.api.order(order_id(self.symbol, number))
        return Standing(int(order["quantity"]), int(order["filled_quantity"]), order["reason"])

    def queue(self, side: Side) -> list[tuple[int, int, int]]:
        """(price, remaining, number), best first; the order numbers tell who came first."""
        sign = -1 if side == "buy" else 1
        resting = [
            (sign * int(order["price"]), number_of(order["order_id"]), order)
            for status in ("open", "partially_filled")
            for order in self.api.all_orders(instrument=self.symbol, status=status, limit=1000)
            if order["side"] == side
        ]
        return [
            (int(order["price"]), int(order["remaining_quantity"]), number)
            for _, number, order in sorted(resting, key=lambda entry: entry[:2])
        ]
