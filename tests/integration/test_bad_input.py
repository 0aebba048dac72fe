"""Bad input of every kind: answered with 4xx and a stable code, and nothing has changed. The book
is looked at key by key after each request, also after those that hypothesis makes up.
"""

import json
import re
import socket
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from decimal import Decimal
from fractions import Fraction
from http import HTTPStatus
from typing import Any, Final, TypeAlias
from urllib.parse import quote, urlencode

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from tests.rest import HOST, TIMEOUT_S, Answer, Json, raw_request, read_answer
from tests.system import System

PROBLEM_JSON: Final = "application/problem+json"
CODE: Final = re.compile(r"[a-z]+(_[a-z]+)*")
TICK: Final = Decimal("0.01")
LOT: Final = Decimal("0.001")
MAX_PRICE: Final = Decimal(1_000_000)
MAX_QUANTITY: Final = Decimal(1_000)
MAX_BODY_BYTES: Final = 16 * 1024
MAX_DETAIL: Final = 200
EXAMPLES: Final = settings(max_examples=150)

POSTS: Final = (
    *("/orders", "/orders/batch", "/orders/cancel-after"),
    *("/admin/instruments", "/admin/kill-switch"),
)

JsonValue: TypeAlias = Any


@dataclass(frozen=True)
class Standing:
    """A book with something of everything in it, that nobody trades on any more."""

    system: System
    symbol: str
    order_id: str

    @contextmanager
    def unchanged(self) -> Iterator[None]:
        """Whatever happens in the block leaves every key of the book as it was."""
        before = self.system.contents(self.symbol)
        yield
        assert self.system.contents(self.symbol) == before

    def order(self, **fields: JsonValue) -> Json:
        """A good order, changed."""
        return {
            "instrument": self.symbol,
            "side": "buy",
            "price": "10.00",
            "quantity": "1.000",
        } | fields

    def bodies(self) -> list[tuple[str, str]]:
        """Method and path of each request that has a body."""
        return [
            *(("POST", path) for path in POSTS),
            ("PATCH", f"/orders/{self.order_id}"),
            ("PATCH", f"/admin/instruments/{self.symbol}"),
        ]

    def refused(
        self, method: str, path: str, body: object = b"", headers: dict[str, str] | None = None
    ) -> Answer:
        """The request must be answered by a problem of the client's, and change nothing."""
        with self.unchanged():
            return check_refused(self.system.api.request(method, path, body, headers))


def check_refused(answer: Answer) -> Answer:
    assert 400 <= answer.status < 500, answer
    assert answer.headers["Content-Type"] == PROBLEM_JSON, answer
    problem = answer.json()
    assert problem["status"] == answer.status
    assert CODE.fullmatch(problem["code"]), problem
    for error in problem.get("errors", []):
        assert error.keys() == {"field", "code", "detail"}
        assert CODE.fullmatch(error["code"]), problem
    assert answer.headers["X-Request-Id"]
    return answer


def codes_by_field(answer: Answer) -> dict[str, str]:
    return {error["field"]: error["code"] for error in answer.json()["errors"]}


@pytest.fixture(scope="module")
def standing(system: System) -> Standing:
    limits = {"max_price": str(MAX_PRICE), "max_quantity": str(MAX_QUANTITY)}
    symbol = system.list_instrument(str(TICK), str(LOT), **limits)
    book = Standing(system, symbol, "")
    api = system.api
    api.placed(book.order(client_id="ann", client_order_id="taken", price="9.00"), key="used")
    api.placed(book.order(side="sell", price="11.00", quantity="5"))
    resting = api.placed(book.order(price="11.00"))["order"]
    assert resting["status"] == "filled"
    system.settled()
    return Standing(system, symbol, resting["order_id"])


@pytest.fixture(scope="module")
def elsewhere(system: System) -> str:
    """An instrument like that of `standing`, for tests whose orders may also be good."""
    limits = {"max_price": str(MAX_PRICE), "max_quantity": str(MAX_QUANTITY)}
    return system.list_instrument(str(TICK), str(LOT), **limits)


@pytest.fixture(autouse=True)
def no_other_book_moves(system: System, elsewhere: str) -> Iterator[None]:
    """Whatever a bad request does, it does nothing to a book that it was not meant for either."""
    before = system.sequences()
    yield
    after = system.sequences()
    assert {name for name in after if after[name] != before.get(name)} <= {elsewhere}


# One kind after the other

BAD_NUMBERS: Final[list[tuple[JsonValue, str]]] = [
    ("NaN", "malformed_number"),
    ("nan", "malformed_number"),
    ("Infinity", "malformed_number"),
    ("-Infinity", "malformed_number"),
    ("inf", "malformed_number"),
    ("sNaN", "malformed_number"),
    (-1, "not_positive"),
    ("-0.01", "not_positive"),
    (0, "not_positive"),
    ("0.00", "not_positive"),
    ("-0", "not_positive"),
    ("0e5", "not_positive"),
    ("1e30", "out_of_range"),
    ("1e999", "out_of_range"),
    ("1000000.01", "out_of_range"),
    ("1" * 41, "too_many_digits"),
    ("0." + "0" * 39 + "1", "too_many_digits"),
    ("1e1000", "malformed_number"),
    ("1e99999999999999999999", "malformed_number"),
    ("1_000", "malformed_number"),
    ("1,5", "malformed_number"),
    (" 1", "malformed_number"),
    ("1 ", "malformed_number"),
    ("1\n", "malformed_number"),
    ("+1", "malformed_number"),
    (".5", "malformed_number"),
    ("5.", "malformed_number"),
    ("01", "malformed_number"),
    ("0x10", "malformed_number"),
    ("1e", "malformed_number"),
    ("1.2.3", "malformed_number"),
    ("", "malformed_number"),
    ("ten", "malformed_number"),
    ("\N{ARABIC-INDIC DIGIT ONE}", "malformed_number"),
    ("\N{FULLWIDTH DIGIT ONE}", "malformed_number"),
    ("1\0", "malformed_number"),
    (True, "invalid_type"),
    ([], "invalid_type"),
    ([1], "invalid_type"),
    ({}, "invalid_type"),
    ({"value": 1}, "invalid_type"),
]


@pytest.mark.parametrize(("value", "code"), BAD_NUMBERS, ids=lambda value: repr(value)[:30])
@pytest.mark.parametrize("field", ["price", "quantity"])
def test_a_bad_number_is_refused_never_rounded(
    standing: Standing, field: str, value: JsonValue, code: str
) -> None:
    answer = standing.refused("POST", "/orders", standing.order(**{field: value}))
    assert (answer.status, answer.code) == (400, "validation_failed")
    assert codes_by_field(answer) == {field: code}


@pytest.mark.parametrize(
    ("field", "value", "code"),
    [
        ("price", "10.005", "off_tick"),
        ("price", 10.001, "off_tick"),
        ("price", "1e-3", "off_tick"),
        ("price", "1e-40", "off_tick"),
        ("price", "1e-999", "out_of_range"),
        ("quantity", "0.0005", "off_lot"),
        ("quantity", 1.0001, "off_lot"),
        ("quantity", "1000.001", "out_of_range"),
        ("side", "hold", "invalid_value"),
        ("side", 1, "invalid_value"),
        ("side", None, "invalid_value"),
        ("type", "iceberg", "invalid_value"),
        ("type", ["limit"], "invalid_value"),
        ("time_in_force", "day", "invalid_value"),
        ("self_trade_prevention", "perhaps", "invalid_value"),
        ("post_only", "yes", "invalid_value"),
        ("post_only", 1, "invalid_value"),
        ("instrument", 7, "invalid_value"),
        ("instrument", None, "invalid_value"),
        ("stop_price", "9", "not_allowed"),
        ("display_quantity", "1.001", "out_of_range"),
        ("display_quantity", "0.0005", "off_lot"),
        ("display_quantity", "0", "not_positive"),
        ("expires_at", "2030-01-01T00:00:00Z", "not_allowed"),
        ("expires_at", 1893456000, "invalid_value"),
        ("self_trade_prevention", None, "invalid_value"),
        ("client_id", "", "invalid_text"),
        ("client_id", "a|b", "invalid_text"),
        ("client_id", " a", "invalid_text"),
        ("client_id", "a\n", "invalid_text"),
        ("client_id", "\0", "invalid_text"),
        ("client_id", "é", "invalid_text"),
        ("client_id", "x" * 65, "invalid_text"),
        ("client_id", 5, "invalid_value"),
        ("client_order_id", "a\tb", "invalid_text"),
        ("client_order_id", "x" * 65, "invalid_text"),
        ("client_order_id", {}, "invalid_value"),
        ("idempotency_key", "", "invalid_text"),
        ("idempotency_key", "x" * 129, "invalid_text"),
        ("idempotency_key", 1.5, "invalid_value"),
        ("note", "hello", "unknown_field"),
        ("order_id", "X-00000000000001", "unknown_field"),
        ("Side", "buy", "unknown_field"),
        ("", "", "unknown_field"),
    ],
)
def test_a_bad_field_is_named(standing: Standing, field: str, value: JsonValue, code: str) -> None:
    answer = standing.refused("POST", "/orders", standing.order(**{field: value}))
    assert (answer.status, answer.code) == (400, "validation_failed")
    assert codes_by_field(answer) == {field: code}


@pytest.mark.parametrize(
    "value",
    [
        "x - at `$.price`",
        "at `$.price`",
        "field `price`",
        "unknown field `price`",
        "Object contains unknown field `price`",
        "x" * 15_000,
    ],
    ids=lambda value: value[:40],
)
def test_a_bad_value_is_not_taken_for_what_is_said_of_it(standing: Standing, value: str) -> None:
    """Rule: whatever a wrong value looks like, it is its own field that is named, in short."""
    item = json.dumps({"items": [{"op": value}]})
    results = standing.system.api.request("POST", "/orders/batch", item.encode()).json()["results"]
    problems = [
        ("op", results[0]["body"]),
        ("type", standing.refused("POST", "/orders", standing.order(type=value)).json()),
    ]
    for field, problem in problems:
        assert [(each["field"], each["code"]) for each in problem["errors"]] == [
            (field, "invalid_value")
        ]
        assert len(problem["errors"][0]["detail"]) <= MAX_DETAIL


@pytest.mark.parametrize(
    ("fields", "wrong"),
    [
        ({"type": "market"}, {"price": "not_allowed"}),
        ({"price": None}, {"price": "required"}),
        (
            {"type": "market", "price": None, "time_in_force": "gtc"},
            {"time_in_force": "invalid_value"},
        ),
        ({"type": "stop"}, {"price": "not_allowed", "stop_price": "required"}),
        ({"type": "stop_limit"}, {"stop_price": "required"}),
        (
            {"type": "stop", "price": None, "stop_price": "9.001", "display_quantity": "1"},
            {"stop_price": "off_tick", "display_quantity": "not_allowed"},
        ),
        ({"time_in_force": "gtd"}, {"expires_at": "required"}),
        (
            {"time_in_force": "gtd", "expires_at": "2030-01-01T00:00:00"},
            {"expires_at": "invalid_value"},
        ),
        (
            {"time_in_force": "gtd", "expires_at": "2300-01-01T00:00:00Z"},
            {"expires_at": "out_of_range"},
        ),
        ({"time_in_force": "ioc", "display_quantity": "1"}, {"display_quantity": "not_allowed"}),
        ({"type": "market", "price": None, "post_only": True}, {"post_only": "invalid_value"}),
        ({"time_in_force": "ioc", "post_only": True}, {"post_only": "invalid_value"}),
        ({"time_in_force": "fok", "post_only": True}, {"post_only": "invalid_value"}),
        (
            {"price": "0", "quantity": "NaN", "client_id": "|", "idempotency_key": "\n"},
            {
                "price": "not_positive",
                "quantity": "malformed_number",
                "client_id": "invalid_text",
                "idempotency_key": "invalid_text",
            },
        ),
    ],
)
def test_every_wrong_field_is_told_at_once(
    standing: Standing, fields: Json, wrong: dict[str, str]
) -> None:
    answer = standing.refused("POST", "/orders", standing.order(**fields))
    assert (answer.status, codes_by_field(answer)) == (400, wrong)


@pytest.mark.parametrize("field", ["instrument", "side", "quantity", "price"])
def test_a_missing_field_is_named(standing: Standing, field: str) -> None:
    body = standing.order()
    del body[field]
    answer = standing.refused("POST", "/orders", body)
    assert (answer.status, codes_by_field(answer)) == (400, {field: "required"})


@pytest.mark.parametrize(
    ("header", "in_body", "code"),
    [
        ("one", "two", "conflict"),
        ("used", "Used", "conflict"),
        ("", None, "invalid_text"),
        ("x" * 129, None, "invalid_text"),
        ("a|b", None, "invalid_text"),
        ("caf\xe9", None, "invalid_text"),
    ],
)
def test_a_bad_idempotency_key_is_refused(
    standing: Standing, header: str, in_body: str | None, code: str
) -> None:
    body = standing.order(idempotency_key=in_body)
    answer = standing.refused("POST", "/orders", body, {"Idempotency-Key": header})
    assert (answer.status, codes_by_field(answer)) == (400, {"idempotency_key": code})


GOOD: Final = b'{"instrument":"%s","side":"buy","price":"10.00","quantity":"1.000"%s}'


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b" ",
        b"{",
        b"}",
        b"{]}",
        b"{'side':'buy'}",
        b'{"side":}',
        b'{"side":"buy",}',
        b'{"price":NaN}',
        b'{"price":Infinity}',
        b'{"price":01}',
        b'{"price":+1}',
        b'{"price":1.}',
        b'{"price":0x10}',
        b'{"side":"buy"}{"side":"buy"}',
        b'{"side":"b\nuy"}',
        b'{"side":"\\ud800"}',
        b'{"side":"\\x41"}',
        b"\xef\xbb\xbf{}",
        b"\xff\xfe{\0}\0",
        b"\0",
        b'{"side":"\xff"}',
        b'{"\xff":1}',
        b"[" * 16_000,
        b'{"a":' * 3_000,
        b'{"price":' + b"[" * 16_000,
        b"side=buy&price=1",
        b"<order/>",
    ],
    ids=lambda body: repr(body[:24]),
)
def test_what_is_not_json_is_refused(standing: Standing, body: bytes) -> None:
    for method, path in standing.bodies():
        assert standing.refused(method, path, body).status == 400


@pytest.mark.parametrize("body", [b"null", b"true", b"1", b'"order"', b"[]", b"[{}]", b"{}"])
def test_json_that_is_no_order_is_refused(standing: Standing, body: bytes) -> None:
    for method, path in standing.bodies():
        answer = standing.refused(method, path, body)
        assert (answer.status, answer.code) == (400, "validation_failed")


@pytest.mark.parametrize("text", [b"\xff", b"\xc3", b"\xed\xa0\x80", b"1\xfe"])
@pytest.mark.parametrize("field", ["price", "quantity", "client_id", "side", "stop_price"])
def test_invalid_utf_8_is_refused_wherever_it_stands(
    standing: Standing, field: str, text: bytes
) -> None:
    body = json.dumps(standing.order(**{field: "@"})).encode().replace(b"@", text)
    assert standing.refused("POST", "/orders", body).status == 400


@pytest.mark.parametrize("field", ["tick_size", "lot_size", "max_price", "symbol"])
def test_invalid_utf_8_lists_nothing(standing: Standing, field: str) -> None:
    listing = {"symbol": "NEVER-USD", "tick_size": "1", "lot_size": "1", field: "@"}
    body = json.dumps(listing).encode().replace(b"@", b"\xff")
    assert standing.refused("POST", "/admin/instruments", body).status == 400


@pytest.mark.parametrize("depth", [100, 5_000])
def test_deep_nesting_is_refused(standing: Standing, depth: int) -> None:
    nested = b"[" * depth + b"]" * depth
    for field in (b"price", b"quantity", b"stop_price", b"client_id", b"unknown"):
        extra = b',"%s":%s' % (field, nested)
        body = GOOD % (standing.symbol.encode(), extra)
        assert standing.refused("POST", "/orders", body).status == 400


def test_a_body_too_large_is_refused(standing: Standing) -> None:
    body = json.dumps(standing.order()).encode().ljust(MAX_BODY_BYTES + 1)
    answer = standing.refused("POST", "/orders", body)
    assert (answer.status, answer.code) == (413, "body_too_large")


def test_a_body_of_unsaid_length_is_refused(standing: Standing) -> None:
    body = json.dumps(standing.order()).encode()
    request = (
        b"POST /orders HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n"
        b"%x\r\n%s\r\n0\r\n\r\n" % (len(body), body)
    )
    with standing.unchanged():
        answer = check_refused(exchange(standing, request))
    assert (answer.status, answer.code) == (411, "length_required")


BAD_WHOLE_NUMBERS: Final = [
    *("0", "-1", "1001", "1.5", "1e2", "ten", "", " 1", "+1", "0x1", "9" * 30, "\N{THAI DIGIT ONE}")
]
BAD_QUERIES: Final = [
    *(("/orders", {"limit": value}) for value in BAD_WHOLE_NUMBERS),
    *(("/trades", {"limit": value}) for value in BAD_WHOLE_NUMBERS),
    *(("/orderbook", {"levels": value}) for value in BAD_WHOLE_NUMBERS),
    *(
        ("/orders", {"cursor": value})
        for value in (
            "",
            "x",
            "1",
            "1:2:3",
            "1:A-B:",
            ":A-B:1",
            "-1:AA-BB:1",
            "9" * 99,
            "1:AA-BB:1\n",
        )
    ),
    *(("/trades", {"before": value}) for value in ("", "x", "-1", "1-", "1.5", "9" * 99, "1\n")),
    *(("/orders", {"status": value}) for value in ("", "done", "OPEN", "open,filled")),
    *(("/orders", {name: "x" * 129}) for name in ("client_id", "client_order_id")),
    *(("/orders", {name: ""}) for name in ("client_id", "client_order_id", "instrument")),
    *(("/orders", {name: "a\0b"}) for name in ("client_id", "client_order_id")),
    ("/orders", {"side": "buy"}),
    ("/orders", {"limit ": "1"}),
    ("/orderbook", {"depth": "1"}),
    ("/instruments", {"symbol": "x"}),
]


@pytest.mark.parametrize(("path", "query"), BAD_QUERIES, ids=lambda value: str(value)[:40])
def test_a_bad_parameter_is_named(standing: Standing, path: str, query: dict[str, str]) -> None:
    given_too = {"instrument": standing.symbol} if path in ("/trades", "/orderbook") else {}
    answer = standing.refused("GET", f"{path}?{urlencode(query | given_too)}")
    assert (answer.status, answer.code) == (400, "validation_failed")
    assert codes_by_field(answer).keys() == query.keys()


@pytest.mark.parametrize("path", ["/orderbook", "/trades"])
def test_a_missing_or_repeated_parameter_is_named(standing: Standing, path: str) -> None:
    for query in ("", "?instrument=", f"?instrument={standing.symbol}&instrument=BTC-USD"):
        answer = standing.refused("GET", path + query)
        assert (answer.status, answer.code) == (400, "validation_failed")
        assert codes_by_field(answer).keys() == {"instrument"}


@pytest.mark.parametrize(
    "unknown", ["NO-USD", "no", "btc-usd", "{BTC-USD}", "BTC-USD ", "*", "..", "é", "\1", "x" * 128]
)
def test_an_unknown_instrument_is_not_found(standing: Standing, unknown: str) -> None:
    for path in ("/orderbook", "/trades", "/orders"):
        answer = standing.refused("GET", f"{path}?{urlencode({'instrument': unknown})}")
        assert (answer.status, answer.code) == (404, "instrument_not_found")
    assert standing.refused("GET", f"/instruments/{quote(unknown, safe='')}").status == 404
    answer = standing.refused("POST", "/orders", standing.order(instrument=unknown))
    assert (answer.status, answer.code) == (404, "instrument_not_found")


@pytest.mark.parametrize(
    "ending",
    [
        *("", "1", "-1", "00000000000000", "99999999999999", "000000000000001", "0000000000000x"),
        *("0000000000001.", "\N{ARABIC-INDIC DIGIT ONE}" * 14, "00000000000001\n", "\0", "x" * 500),
    ],
)
def test_a_bad_order_id_is_not_found(standing: Standing, ending: str) -> None:
    path = f"/orders/{quote(f'{standing.symbol}-{ending}', safe='')}"
    for method, target, body in (
        *(("GET", path, b""), ("DELETE", path, b""), ("POST", f"{path}/cancel", b"")),
        ("PATCH", path, b'{"price":"10.00"}'),
    ):
        answer = standing.refused(method, target, body)
        assert (answer.status, answer.code) == (404, "order_not_found")


def test_a_rule_of_business_is_422_or_409_and_changes_nothing(standing: Standing) -> None:
    for order, key, status, code in (
        (standing.order(price="12", post_only=True), "new", 422, "post_only_would_cross"),
        (standing.order(client_id="ann"), "used", 422, "idempotency_key_reused"),
        (
            standing.order(client_id="ann", client_order_id="taken"),
            "new",
            409,
            "duplicate_client_order_id",
        ),
    ):
        answer = standing.refused("POST", "/orders", order, {"Idempotency-Key": key})
        assert (answer.status, answer.code) == (status, code)
    answer = standing.refused("DELETE", f"/orders/{standing.order_id}")
    assert (answer.status, answer.code) == (409, "order_not_open")


# Below the application: what is hardly HTTP


def exchange(standing: Standing, request: bytes) -> Answer:
    """One request, byte by byte as given, on a connection of its own."""
    with socket.create_connection((HOST, standing.system.api.port), TIMEOUT_S) as connection:
        connection.sendall(request)
        return read_answer(connection)


@pytest.mark.parametrize(
    "request_",
    [
        b"HELLO\r\n\r\n",
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\r\n\r\n",
        b"GET /\0 HTTP/1.1\r\nHost: x\r\n\r\n",
        b"GET /orders HTTP/9.9\r\nHost: x\r\n\r\n",
        b"GET /" + b"a" * 9_000 + b" HTTP/1.1\r\nHost: x\r\n\r\n",
        b"GET /healthz HTTP/1.1\r\nHost: x\r\nX: " + b"a" * 9_000 + b"\r\n\r\n",
        b"GET /healthz HTTP/1.1\r\nHost: x\r\n" + b"X: a\r\n" * 100 + b"\r\n",
        b"GET /healthz HTTP/1.1\r\nHost: x\r\nX: \0\r\n\r\n",
        b"GET /healthz HTTP/1.1\r\nHost: x\r\nX : a\r\n\r\n",
        b"POST /orders HTTP/1.1\r\nHost: x\r\nContent-Length: -1\r\n\r\n",
        b"POST /orders HTTP/1.1\r\nHost: x\r\nContent-Length: many\r\n\r\n",
        b"POST /orders HTTP/1.1\r\nHost: x\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\n{}",
        b"POST /orders HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n",
        b"POST /orders HTTP/1.1\r\nHost: x\r\nExpect: miracles\r\nContent-Length: 0\r\n\r\n",
    ],
    ids=lambda request: repr(request[:30]),
)
def test_what_is_not_http_is_refused(standing: Standing, request_: bytes) -> None:
    with standing.unchanged():
        check_refused(exchange(standing, request_))


@pytest.mark.parametrize("cut", [10, 60, -1], ids=["line", "headers", "body"])
def test_a_request_that_ends_early_places_nothing(standing: Standing, cut: int) -> None:
    """Also where what came of the body is an order by itself."""
    body = json.dumps(standing.order()).encode() + b" "
    with (
        standing.unchanged(),
        socket.create_connection((HOST, standing.system.api.port), TIMEOUT_S) as connection,
    ):
        connection.sendall(raw_request("POST", "/orders", body)[:cut])
        connection.shutdown(socket.SHUT_WR)
        answered = b"".join(iter(lambda: connection.recv(4096), b""))
        assert answered == b"" or answered.startswith(b"HTTP/1.1 4")


def test_a_client_that_stops_in_the_middle_keeps_nobody_waiting(standing: Standing) -> None:
    api = standing.system.api
    whole = raw_request("POST", "/orders", standing.order())
    with ExitStack() as stack, standing.unchanged():
        for length in range(1, len(whole), 3):
            address = (HOST, api.port)
            idle = stack.enter_context(socket.create_connection(address, TIMEOUT_S))
            idle.sendall(whole[:length])
        assert api.get("/healthz").status == 200
        assert api.order(standing.order_id)["status"] == "filled"


# What hypothesis makes up

TEXTS: Final = st.text(max_size=40)
JSON_VALUES: Final = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | TEXTS
    | st.sampled_from(["buy", "limit", "gtc", "10.00", "BTC-USD", "{}", "a|b"]),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(TEXTS, inner, max_size=4),
    max_leaves=12,
)
FIELDS: Final = (
    *("instrument", "client_id", "side", "type", "quantity", "price", "stop_price"),
    *("time_in_force", "expires_at", "post_only", "display_quantity", "self_trade_prevention"),
    *("client_order_id", "idempotency_key"),
)
PREVENTIONS: Final = ("none", "cancel_newest", "cancel_oldest", "cancel_both", "decrement")
NOT_TEXT: Final = JSON_VALUES.filter(lambda value: value is not None and not isinstance(value, str))
# For each field, values that no order may have there.
BAD_VALUES: Final[dict[str, st.SearchStrategy[JsonValue]]] = {
    "instrument": NOT_TEXT | st.none() | TEXTS,
    "side": JSON_VALUES.filter(lambda value: value not in ("buy", "sell")),
    "type": JSON_VALUES.filter(
        lambda value: value not in ("limit", "market", "stop", "stop_limit")
    ),
    "quantity": JSON_VALUES.filter(lambda value: not is_exact(value, LOT, MAX_QUANTITY)),
    "price": JSON_VALUES.filter(lambda value: not is_exact(value, TICK, MAX_PRICE)),
    "stop_price": JSON_VALUES.filter(
        lambda value: value is not None and not is_exact(value, TICK, MAX_PRICE)
    ),
    "time_in_force": JSON_VALUES.filter(
        lambda value: value not in ("gtc", "ioc", "fok", "gtd", None)
    ),
    "expires_at": JSON_VALUES.filter(lambda value: value is not None),
    "post_only": JSON_VALUES.filter(lambda value: not isinstance(value, bool)),
    "display_quantity": JSON_VALUES.filter(
        lambda value: value is not None and not is_exact(value, LOT, MAX_QUANTITY)
    ),
    "self_trade_prevention": JSON_VALUES.filter(lambda value: value not in PREVENTIONS),
    "client_id": NOT_TEXT,
    "client_order_id": NOT_TEXT,
    "idempotency_key": NOT_TEXT,
}
assert BAD_VALUES.keys() == set(FIELDS)

JSON_NUMBER: Final = re.compile(r"-?(0|[1-9][0-9]*)(\.[0-9]+)?([eE][+-]?[0-9]{1,3})?")


def is_exact(value: JsonValue, step: Decimal, most: Decimal) -> bool:
    """Whether this is a price or quantity: exact, positive, a multiple of its step, within its
    limit, of reasonable length and exponent.
    """
    text = value if isinstance(value, str) else json.dumps(value)
    if isinstance(value, bool) or len(text) > 40 or not JSON_NUMBER.fullmatch(text):
        return False
    number = Fraction(text)
    return 0 < number <= most and number % Fraction(step) == 0


@EXAMPLES
@given(body=st.binary(max_size=300) | st.text(max_size=300).map(str.encode))
def test_any_bytes_as_a_body_are_refused(standing: Standing, body: bytes) -> None:
    for method, path in standing.bodies():
        standing.refused(method, path, body)


@EXAMPLES
@given(value=JSON_VALUES)
def test_any_json_as_a_body_is_refused(standing: Standing, value: JsonValue) -> None:
    for method, path in standing.bodies():
        standing.refused(method, path, json.dumps(value).encode())


def is_json(value: JsonValue) -> bool:
    """Whether Python writes it as JSON, which has neither NaN nor infinities."""
    try:
        json.dumps(value, allow_nan=False)
    except ValueError:
        return False
    return True


@EXAMPLES
@given(items=st.lists(JSON_VALUES, min_size=1, max_size=5).filter(is_json))
def test_any_json_as_an_item_of_a_batch_is_a_problem_of_its_own(
    standing: Standing, items: list[JsonValue]
) -> None:
    with standing.unchanged():
        for result in standing.system.api.batch(items):
            assert 400 <= result["status"] < 500, result
            assert CODE.fullmatch(result["body"]["code"])


@EXAMPLES
@given(
    op=st.sampled_from(["cancel", "amend"]),
    fields=st.dictionaries(
        st.sampled_from(
            [
                *("order_id", "client_id", "instrument", "client_order_id"),
                *("price", "quantity", "stop_price"),
            ]
        ),
        JSON_VALUES,
        max_size=5,
    ).filter(is_json),
)
def test_any_fields_that_name_no_order_are_refused(
    standing: Standing, op: str, fields: Json
) -> None:
    with standing.unchanged():
        (result,) = standing.system.api.batch([{"op": op} | fields])
    assert 400 <= result["status"] < 500, result


TIMERS: Final = st.fixed_dictionaries(
    {
        "client_id": JSON_VALUES | st.just("ann"),
        "timeout_s": JSON_VALUES.filter(lambda value: not is_a_timeout(value)),
    },
    optional={"other": JSON_VALUES},
)


def is_a_timeout(value: JsonValue) -> bool:
    """Whether this is 0 to 86,400 s to the millisecond."""
    return value in (0, "0", "-0", -0.0) or is_exact(value, Decimal("0.001"), Decimal(86_400))


@EXAMPLES
@given(timer=TIMERS)
def test_a_timer_without_a_time_is_refused(standing: Standing, timer: Json) -> None:
    standing.refused("POST", "/orders/cancel-after", timer | {"instrument": standing.symbol})


RULE_NAMES: Final = (
    *("price_band_bps", "max_order_quantity", "max_order_notional", "max_open_orders"),
    *("maker_fee_bps", "taker_fee_bps", "status"),
)


@EXAMPLES
@given(
    others=st.dictionaries(st.sampled_from(RULE_NAMES), JSON_VALUES, max_size=3),
    bad=st.tuples(st.sampled_from(RULE_NAMES), TEXTS.map(lambda text: f"x{text}")),
)
def test_one_bad_rule_changes_none(standing: Standing, others: Json, bad: tuple[str, str]) -> None:
    standing.refused("PATCH", f"/admin/instruments/{standing.symbol}", others | dict([bad]))


@pytest.mark.parametrize("query", ["", "?side=buy", "?client_id=", "?client_id=a%7Cb&side=buy"])
def test_a_mass_cancel_of_nobody_in_particular_is_refused(standing: Standing, query: str) -> None:
    answer = standing.refused("DELETE", f"/orders{query}")
    assert (answer.status, answer.code) == (400, "validation_failed")


@EXAMPLES
@given(
    others=st.dictionaries(st.sampled_from(FIELDS), JSON_VALUES, max_size=3),
    bad=st.sampled_from(FIELDS).flatmap(lambda field: st.tuples(st.just(field), BAD_VALUES[field])),
)
def test_one_bad_field_spoils_an_order_whatever_the_others_say(
    standing: Standing, others: Json, bad: tuple[str, JsonValue]
) -> None:
    assume(bad[0] != "instrument" or bad[1] not in ("BTC-USD", standing.symbol))
    standing.refused("POST", "/orders", standing.order(**others | dict([bad])))


@EXAMPLES
@given(cut=st.data())
def test_a_bad_order_with_a_byte_changed_is_refused(standing: Standing, cut: st.DataObject) -> None:
    """A changed byte in an order that is off its tick never makes it a good one, nor a defect."""
    body = bytearray(json.dumps(standing.order(price="10.005", client_id="ann")).encode())
    price = body.index(b"10.005")
    places = [n for n in range(len(body)) if not price <= n < price + 6]
    body[cut.draw(st.sampled_from(places))] = cut.draw(st.integers(0, 255))
    standing.refused("POST", "/orders", bytes(body))


NUMBER_TEXTS: Final = (
    st.text("0123456789.eE+-", min_size=1, max_size=12)
    | st.decimals(min_value=0, max_value=2_000_000, places=3).map(str)
    | st.decimals(min_value=0, max_value=20, places=2).map(str)
    | st.tuples(st.integers(0, 99_999), st.integers(-6, 6)).map(lambda pair: f"{pair[0]}e{pair[1]}")
)


@EXAMPLES
@given(text=NUMBER_TEXTS, as_number=st.booleans())
def test_a_price_is_taken_exactly_or_refused(
    system: System, elsewhere: str, text: str, as_number: bool
) -> None:
    """As string and as JSON number: what the contract allows comes back as the same number with the
    instrument's decimals, everything else is a 400.
    """
    price = text if as_number else json.dumps(text)
    body = f'{{"instrument":"{elsewhere}","side":"buy","quantity":"1","price":{price}}}'
    answer = system.api.request("POST", "/orders", body.encode())
    if is_exact(text, TICK, MAX_PRICE):
        assert answer.status == 201, answer
        told = answer.json()["order"]["price"]
        assert Decimal(told) == Decimal(text)
        assert Decimal(told).as_tuple().exponent == TICK.as_tuple().exponent
    else:
        assert check_refused(answer).status == 400


QUERIES: Final = st.dictionaries(
    st.sampled_from(
        [
            *("instrument", "client_id", "status", "client_order_id", "limit", "cursor", "before"),
            *("levels", "other"),
        ]
    ),
    TEXTS
    | st.sampled_from(["BTC-USD", "open", "1", "1000", "1:BTC-USD:1", "\0", "%", "anonymous"]),
    max_size=4,
)


def check_any(answer: Answer) -> None:
    """Whatever was sent: an answer, or a problem of the client's."""
    if answer.status >= 400:
        check_refused(answer)


@EXAMPLES
@given(path=st.sampled_from(["/orders", "/trades", "/orderbook", "/instruments"]), query=QUERIES)
def test_any_query_is_answered_or_refused(
    standing: Standing, path: str, query: dict[str, str]
) -> None:
    with standing.unchanged():
        check_any(standing.system.api.request("GET", f"{path}?{urlencode(query)}"))


@EXAMPLES
@given(query=st.text(st.characters(min_codepoint=33, max_codepoint=126), max_size=40))
def test_any_raw_query_is_answered_or_refused(standing: Standing, query: str) -> None:
    with standing.unchanged():
        for path in ("/orders", "/trades"):
            check_any(standing.system.api.request("GET", f"{path}?{query.replace('#', '')}"))


METHODS: Final = ("GET", "POST", "DELETE", "PUT", "PATCH", "HEAD", "OPTIONS", "TRACE", "BREW")


@EXAMPLES
@given(
    method=st.sampled_from(METHODS),
    start=st.sampled_from(["/", "/orders/", "/instruments/", "/orders/{symbol}-", "/admin/"]),
    path=TEXTS,
    ending=st.sampled_from(["", "/", "/cancel"]),
)
def test_any_path_is_answered_or_refused(
    standing: Standing, method: str, start: str, path: str, ending: str
) -> None:
    target = start.format(symbol=standing.symbol) + quote(path, safe="/") + ending
    with standing.unchanged():
        answer = standing.system.api.request(method, "/" + target.lstrip("/"), b"{}")
        if method != "HEAD":
            check_any(answer)
        assert answer.status < 500


HEADER_VALUES: Final = st.text(
    st.characters(min_codepoint=32, max_codepoint=255, exclude_characters="\x7f"), max_size=60
)


@EXAMPLES
@given(
    headers=st.dictionaries(
        st.sampled_from(
            [
                *("Idempotency-Key", "X-Request-Id", "Content-Type", "Accept", "Content-Encoding"),
                *("Cookie", "Authorization", "Accept-Encoding", "If-Match", "Range", "X-Other"),
                *("X-Forwarded-For", "X-Http-Method-Override", "Origin", "Referer", "User-Agent"),
            ]
        ),
        HEADER_VALUES,
        max_size=4,
    )
)
def test_any_headers_around_a_bad_order_are_refused(
    standing: Standing, headers: dict[str, str]
) -> None:
    lines = "".join(f"{name}: {value}\r\n" for name, value in headers.items()).encode("latin-1")
    body = json.dumps(standing.order(price="12", post_only=True)).encode()
    request = b"POST /orders HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n%s\r\n%s"
    with standing.unchanged():
        answer = exchange(standing, request % (len(body), lines, body))
    if "Origin" in headers and answer.status == HTTPStatus.FORBIDDEN:
        assert answer.code == "cross_origin"
    else:
        check_refused(answer)


@EXAMPLES
@given(junk=st.binary(min_size=1, max_size=80))
def test_any_bytes_in_place_of_headers_are_refused(standing: Standing, junk: bytes) -> None:
    with standing.unchanged():
        check_refused(exchange(standing, b"POST /orders HTTP/1.1\r\n" + junk + b"\r\n" * 4))


LISTINGS: Final = st.fixed_dictionaries(
    {
        "symbol": TEXTS | JSON_VALUES | st.just("NEVER-USD"),
        "tick_size": JSON_VALUES | st.just("0.01"),
        "lot_size": NOT_TEXT.filter(lambda value: type(value) not in (int, float)) | st.none(),
    },
    optional={"max_price": JSON_VALUES, "max_quantity": JSON_VALUES, "other": JSON_VALUES},
)


@EXAMPLES
@given(listing=LISTINGS)
def test_a_listing_whose_lot_size_is_no_number_is_refused(
    standing: Standing, listing: Json
) -> None:
    before = standing.system.redis.hgetall("instruments")
    standing.refused("POST", "/admin/instruments", json.dumps(listing).encode())
    assert standing.system.redis.hgetall("instruments") == before
