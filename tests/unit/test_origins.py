"""Which requests a foreign page made, and what the middleware does with them."""

import json
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any

import pytest
from flask import Flask

from app.api.origins import SameOrigin, foreign_origin
from app.api.problems import Problem

if TYPE_CHECKING:
    from _typeshed.wsgi import StartResponse

Environ = dict[str, Any]
Write = Callable[[bytes], object]

HERE = "127.0.0.1:3000"


def environ(method: str = "POST", host: str | None = HERE, **headers: str) -> Environ:
    """A WSGI environment; headers as `Origin=...`, `Sec_Fetch_Site=...`."""
    sent = {f"HTTP_{name.upper()}": value for name, value in headers.items()}
    named = {} if host is None else {"HTTP_HOST": host}
    return {"REQUEST_METHOD": method, "PATH_INFO": "/orders"} | named | sent


class Behind:
    """The application behind the middleware: counts, and answers 204."""

    def __init__(self) -> None:
        self.calls = 0

    def __call__(self, environ: Environ, start_response: "StartResponse") -> Iterable[bytes]:
        self.calls += 1
        start_response("204 No Content", [])
        return []


def call(environ: Environ, *, loopback_only: bool = True) -> tuple[str, dict[str, str], bytes, int]:
    """Status, headers, body, and how often the application behind was called."""
    behind = Behind()
    started: list[tuple[str, dict[str, str]]] = []

    def start(status: str, headers: list[tuple[str, str]], *_error: object) -> Write:
        started.append((status, dict(headers)))
        return bytearray().extend

    body = b"".join(SameOrigin(behind, loopback_only)(environ, start))
    ((status, headers),) = started
    return status, headers, body, behind.calls


@pytest.mark.parametrize("loopback_only", [True, False])
@pytest.mark.parametrize("host", [HERE, "evil.example", "evil.example:3000", None, ""])
def test_who_sends_no_origin_is_never_foreign(host: str | None, loopback_only: bool) -> None:
    assert not foreign_origin(environ(host=host), loopback_only)
    for site in ("same-origin", "none", "same-site"):
        assert not foreign_origin(environ(host=host, Sec_Fetch_Site=site), loopback_only)


@pytest.mark.parametrize(
    ("origin", "host"),
    [
        ("http://127.0.0.1:3000", "127.0.0.1:3000"),
        ("http://localhost:3000", "localhost:3000"),
        ("http://LOCALHOST:3000", "localhost:3000"),
        ("http://[::1]:3000", "[::1]:3000"),
        ("http://127.8.9.10:3000", "127.8.9.10:3000"),
        ("http://localhost", "localhost"),
        ("http://localhost", "localhost:80"),
        ("http://localhost:80", "localhost"),
        ("https://localhost", "localhost:443"),
        ("https://localhost", "localhost"),  # behind a proxy that ends TLS
    ],
)
@pytest.mark.parametrize("loopback_only", [True, False])
def test_our_own_pages_are_not_foreign(origin: str, host: str, loopback_only: bool) -> None:
    assert not foreign_origin(environ(host=host, Origin=origin), loopback_only)


@pytest.mark.parametrize(
    "origin",
    [
        "https://evil.example",
        "http://evil.example:3000",
        "http://127.0.0.1",
        "http://127.0.0.1:3001",  # another program of this machine, or a page that it serves
        "http://localhost:3000",  # the same place under another name is another origin
        "http://127.0.0.1.evil.example:3000",
        "http://127.0.0.1:3000@evil.example",
        "http://evil.example, http://127.0.0.1:3000",  # two headers, as WSGI joins them
        "http://evil.example http://127.0.0.1:3000",
        "https://127.0.0.1",
        "null",
        "",
        "127.0.0.1:3000",
        "//127.0.0.1:3000",
        "ftp://127.0.0.1:3000",
        "chrome-extension://127.0.0.1:3000",
        "http://",
        "http://[::1",
        "http://127.0.0.1:port",
        "http://127.0.0.1:99999",
    ],
)
@pytest.mark.parametrize("loopback_only", [True, False])
def test_every_other_origin_is_foreign(origin: str, loopback_only: bool) -> None:
    assert foreign_origin(environ(Origin=origin), loopback_only)


@pytest.mark.parametrize("host", [None, "", "127.0.0.1:port", "[::1"])
def test_an_origin_without_a_host_to_agree_with_is_foreign(host: str | None) -> None:
    assert foreign_origin(environ(host=host, Origin="http://127.0.0.1:3000"), loopback_only=True)


def test_a_cross_site_request_is_foreign_whatever_else_it_says() -> None:
    assert foreign_origin(environ(Sec_Fetch_Site="cross-site"), loopback_only=True)
    told = environ(Origin=f"http://{HERE}", Sec_Fetch_Site="cross-site")
    assert foreign_origin(told, loopback_only=True)


@pytest.mark.parametrize(
    "name", ["evil.example", "localhost.evil.example", "192.168.1.5", "0.0.0.0", "[::]"]
)
def test_a_rebound_name_is_foreign_where_only_loopback_is_served(name: str) -> None:
    """DNS rebinding: the page's own name leads to us, so Origin and Host agree."""
    told = environ(host=f"{name}:3000", Origin=f"http://{name}:3000")
    assert foreign_origin(told, loopback_only=True)
    assert not foreign_origin(told, loopback_only=False)


@pytest.mark.parametrize("method", ["POST", "PUT", "PATCH", "DELETE", "TRACE", "post", "ODD"])
def test_a_foreign_page_changes_nothing(method: str) -> None:
    status, headers, body, calls = call(environ(method, Origin="https://evil.example"))
    assert status == "403 Forbidden"
    assert calls == 0
    assert headers == {
        "Content-Type": "application/problem+json",
        "Content-Length": str(len(body)),
    }
    problem = json.loads(body)
    assert problem["code"] == "cross_origin"
    assert problem["status"] == 403
    assert problem["instance"] == "/orders"


@pytest.mark.parametrize("method", ["GET", "HEAD", "OPTIONS"])
def test_reading_is_the_browsers_business(method: str) -> None:
    assert call(environ(method, Origin="https://evil.example"))[3] == 1


@pytest.mark.parametrize("upgrade", ["websocket", "WebSocket", "h2c, websocket"])
def test_a_foreign_page_opens_no_websocket(upgrade: str) -> None:
    told = environ("GET", Upgrade=upgrade, Origin="https://evil.example")
    assert call(told)[0] == "403 Forbidden"
    assert call(environ("GET", Upgrade=upgrade, Sec_Fetch_Site="cross-site"))[3] == 0
    assert call(environ("GET", Upgrade=upgrade))[3] == 1
    assert call(environ("GET", Upgrade=upgrade, Origin=f"http://{HERE}"))[3] == 1


@pytest.mark.parametrize("headers", [{}, {"Origin": f"http://{HERE}"}, {"Sec_Fetch_Site": "none"}])
def test_all_others_trade(headers: dict[str, str]) -> None:
    assert call(environ(**headers))[3] == 1


def test_the_setting_reaches_the_rule() -> None:
    rebound = environ(host="evil.example:3000", Origin="http://evil.example:3000")
    assert call(rebound, loopback_only=True)[3] == 0
    assert call(rebound, loopback_only=False)[3] == 1


def test_the_instance_is_the_path_as_flask_would_give_it() -> None:
    told = environ(Origin="null") | {"PATH_INFO": "/orders/ü€\xff".encode().decode("latin-1")}
    assert json.loads(call(told)[2])["instance"] == "/orders/ü€\xff"
    told["PATH_INFO"] = "/\xff"
    assert json.loads(call(told)[2])["instance"] == "/\N{REPLACEMENT CHARACTER}"


def test_it_stands_before_a_flask_application() -> None:
    app = Flask("test")
    app.add_url_rule("/orders", view_func=lambda: "placed", methods=["POST"])
    app.wsgi_app = SameOrigin(app.wsgi_app, loopback_only=True)  # type: ignore[method-assign]
    client = app.test_client()
    assert client.post("/orders").text == "placed"
    refused = client.post("/orders", headers={"Origin": "https://evil.example"})
    assert refused.status_code == 403
    expected = Problem(403, "cross_origin", "a page of another site may not do this")
    assert refused.data == expected.body("/orders")
