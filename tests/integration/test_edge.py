"""What stands around the application: gunicorn's own answers to what is hardly HTTP, the guard
against foreign pages, and the probes that decide whether the API counts as ready.
"""

import json
import os
import re
import select
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Final

import pytest
import yaml

from app.embedded.part import missing_at
from tests.rest import HOST, TIMEOUT_S, Answer, read_answer
from tests.system import ROOT, System
from tests.waiting import TRIES_MAX

PROBLEM_JSON: Final = "application/problem+json"
FOREIGN_PAGE: Final = "https://evil.example"

Probe = list[str]


# What is hardly HTTP


def exchange(system: System, request: bytes) -> Answer:
    """One request, byte by byte as given, on a connection of its own."""
    with socket.create_connection((HOST, system.api.port), TIMEOUT_S) as connection:
        connection.sendall(request)
        return read_answer(connection)


def check_problem(answer: Answer, status: int, code: str) -> None:
    """An error as every error is."""
    assert answer.status == status
    assert answer.headers["Content-Type"] == PROBLEM_JSON
    assert re.fullmatch(r"[0-9a-f]{16}", answer.headers["X-Request-Id"])
    problem = answer.json()
    assert problem.keys() == {"type", "title", "status", "detail", "instance", "code"}
    assert problem["type"] == f"urn:crossbook:problem:{code}"
    assert (problem["status"], problem["code"]) == (status, code)
    assert problem["detail"]


@pytest.mark.parametrize(
    ("request_", "status", "code"),
    [
        (b"HELLO\r\n\r\n", 400, "bad_request"),
        (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\r\n\r\n", 400, "bad_request"),
        (b"GET /orders HTTP/9.9\r\nHost: x\r\n\r\n", 400, "bad_request"),
        (b"GET /" + b"a" * 9_000 + b" HTTP/1.1\r\nHost: x\r\n\r\n", 400, "bad_request"),
        (b"GET /orders HTTP/1.1\r\nHost: x\r\nX : a\r\n\r\n", 400, "bad_request"),
        (b"POST /orders HTTP/1.1\r\nHost: x\r\nContent-Length: many\r\n\r\n", 400, "bad_request"),
        (b"POST /orders HTTP/1.1\r\nHost: x\r\nContent-Length: -1\r\n\r\n", 400, "bad_request"),
        (
            b"POST /orders HTTP/1.1\r\nHost: x\r\nExpect: miracles\r\nContent-Length: 0\r\n\r\n",
            417,
            "expectation_failed",
        ),
        (
            b"GET /orders HTTP/1.1\r\nHost: x\r\nX: " + b"a" * 9_000 + b"\r\n\r\n",
            431,
            "request_header_fields_too_large",
        ),
        (
            b"GET /orders HTTP/1.1\r\nHost: x\r\n" + b"X: a\r\n" * 100 + b"\r\n",
            431,
            "request_header_fields_too_large",
        ),
    ],
    ids=lambda value: repr(value)[:40],
)
def test_what_is_not_http_is_answered_like_every_error(
    system: System, request_: bytes, status: int, code: str
) -> None:
    check_problem(exchange(system, request_), status, code)


def test_a_client_that_is_still_sending_gets_its_answer(system: System) -> None:
    """Were the connection closed at once, what the client sends next would be answered by a reset,
    and most clients would then report that instead of the answer.
    """
    head = b"POST /orders HTTP/1.1\r\nHost: x\r\nContent-Length: many\r\n\r\n"
    with socket.create_connection((HOST, system.api.port), TIMEOUT_S) as connection:
        connection.sendall(head)
        assert select.select([connection], [], [], TIMEOUT_S)[0], "it is refused already"
        for _ in range(10):
            connection.sendall(b" " * 2_000)
        check_problem(read_answer(connection), 400, "bad_request")


def test_an_error_ends_the_connection(system: System) -> None:
    with socket.create_connection((HOST, system.api.port), TIMEOUT_S) as connection:
        connection.sendall(b"HELLO\r\n\r\nGET /healthz HTTP/1.1\r\nHost: x\r\n\r\n")
        whole = b"".join(iter(lambda: connection.recv(4096), b""))
    assert whole.count(b"HTTP/1.1 ") == 1, "what follows is not taken for a request"


# Foreign pages


def test_a_foreign_page_cannot_trade(system: System, symbol: str) -> None:
    order = {"instrument": symbol, "side": "buy", "quantity": "1", "price": "1"}
    api = system.api
    before = system.contents(symbol)
    for headers in ({"Origin": FOREIGN_PAGE}, {"Sec-Fetch-Site": "cross-site"}, {"Origin": "null"}):
        answer = api.request("POST", "/orders", order, headers)
        check_problem(answer, 403, "cross_origin")
    rebound = {"Origin": "http://evil.example", "Host": "evil.example"}
    check_problem(api.request("POST", "/orders", order, rebound), 403, "cross_origin")
    assert system.contents(symbol) == before
    ours = {"Origin": f"http://{HOST}:{api.port}", "Sec-Fetch-Site": "same-origin"}
    assert api.request("POST", "/orders", order, ours).status == 201
    assert api.request("POST", "/orders", order).status == 201


@pytest.mark.parametrize("path", ["/ws", "/stream"])
def test_a_foreign_page_opens_no_websocket(system: System, path: str) -> None:
    handshake = (
        f"GET {path} HTTP/1.1\r\nHost: {HOST}:{system.api.port}\r\nUpgrade: websocket\r\n"
        "Connection: Upgrade\r\nSec-WebSocket-Version: 13\r\n"
        "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n"
    )
    foreign = f"{handshake}Origin: {FOREIGN_PAGE}\r\n\r\n"
    check_problem(exchange(system, foreign.encode()), 403, "cross_origin")
    assert exchange(system, f"{handshake}\r\n".encode()).status == 101


# Probes


@contextmanager
def answering(status: int, delay_s: float = 0.0) -> Iterator[tuple[int, list[str]]]:
    """A server that answers /readyz so, and everything else with 200; its port, and the paths that
    it was asked for.
    """
    asked: list[str] = []

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            asked.append(self.path)
            time.sleep(delay_s)  # a server that is slow
            self.send_response(status if self.path == "/readyz" else 200)
            self.send_header("Location", "/elsewhere")
            self.send_header("Content-Length", "0")
            self.end_headers()

        def log_message(self, *_about_the_request: object) -> None:
            pass

    with ThreadingHTTPServer((HOST, 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, args=[0.02])
        thread.start()
        try:
            yield server.server_port, asked
        finally:
            server.shutdown()
            thread.join()


def compose_probe() -> Probe:
    """docker-compose.yml's health check of the API."""
    compose = yaml.safe_load((ROOT / "docker-compose.yml").read_text())
    test: list[str] = compose["services"]["api"]["healthcheck"]["test"]
    assert test[0] == "CMD"
    return test[1:]


def image_probe() -> Probe:
    """The Dockerfile's."""
    found = re.search(
        r"^HEALTHCHECK .*\\\n +CMD (\[.*\])$", (ROOT / "Dockerfile").read_text(), re.MULTILINE
    )
    assert found is not None
    probe: Probe = json.loads(found[1])
    return probe


def verdict(probe: Probe, port: int) -> int:
    """The exit code of a health check, where the environment names a proxy that does not exist."""
    assert probe[0] == "python"
    environ = os.environ | {"PORT": str(port), "http_proxy": "http://127.0.0.1:9"}
    command = [sys.executable, *probe[1:]]
    done = subprocess.run(command, env=environ, timeout=TIMEOUT_S, capture_output=True, check=False)
    return done.returncode


def test_image_and_compose_ask_the_same() -> None:
    assert image_probe() == compose_probe()


@pytest.mark.parametrize("status", [200, 503, 404, 204, 302])
def test_a_container_is_healthy_if_readyz_says_200_and_only_then(status: int) -> None:
    with answering(status) as (port, asked):
        assert (verdict(compose_probe(), port) == 0) == (status == 200)
    assert asked == ["/readyz"]


def test_a_container_whose_api_does_not_answer_is_unhealthy() -> None:
    with socket.create_server((HOST, 0)) as silent:
        assert verdict(compose_probe(), silent.getsockname()[1]) != 0


def test_a_running_system_passes_the_probe_of_its_container(system: System) -> None:
    assert verdict(image_probe(), system.api.port) == 0


def test_up_waits_for_an_answer_that_a_store_delays() -> None:
    """/readyz takes up to 0.5 s to say that a store is away, on a busy machine longer."""
    with answering(200, delay_s=1.5) as (port, _):
        url = f"http://{HOST}:{port}/readyz"
        # One may meet a moment in which the machine is busy.
        assert any(missing_at(url) is None for _ in range(TRIES_MAX))
