"""The WebSocket on a real gunicorn with gevent workers, fed by a real Redis.

Events are written into Redis by hand (see `tests.feed_events`), clients are `websocket-client`.
Nothing here waits for a time to pass; what is waited for is a condition, with a limit.
"""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
from typing import TYPE_CHECKING, Any

import msgspec
import pytest
import websocket
from redis import Redis
from redis.exceptions import RedisError
from wsproto import ConnectionType, WSConnection
from wsproto.events import AcceptConnection, CloseConnection, Message, Request, TextMessage
from wsproto.extensions import PerMessageDeflate

from tests.feed_events import BookView, TapeBook
from tests.free_ports import free_port
from tests.local_book import LocalBook
from tests.processes import standing_still
from tests.waiting import fastest_s, least

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

LIMIT_S = 30.0
"""How long a condition may take before a test gives up."""
CONFIG = """
control_socket_disable = True

def post_worker_init(worker):
    worker.wsgi.extensions["hub"].stop_when(lambda: not worker.alive)
"""
BINARY, TEXT = websocket.ABNF.OPCODE_BINARY, websocket.ABNF.OPCODE_TEXT


def until(condition: Callable[[], object], limit_s: float = LIMIT_S) -> None:
    """Wait until `condition` gives something true."""
    deadline = time.monotonic() + limit_s
    while time.monotonic() < deadline:
        if condition():
            return
        time.sleep(0.01)
    raise AssertionError(f"not within {limit_s} s")


class RedisServer:
    """A redis-server with its files in `folder`, which can be killed and started again."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._port = free_port()
        self.url = f"redis://127.0.0.1:{self._port}/0"
        self.client = Redis.from_url(self.url, decode_responses=True)
        self.start()

    def start(self) -> None:
        options = {"port": self._port, "dir": self._folder, "appendonly": "yes", "save": ""}
        # A killed process leaves to the kernel what it wrote; only a dead machine would not.
        options |= {"appendfsync": "no", "bind": "127.0.0.1"}
        words = [word for name, value in options.items() for word in (f"--{name}", str(value))]
        self._process = subprocess.Popen(["redis-server", *words], stdout=subprocess.DEVNULL)
        until(self._is_up)

    def _is_up(self) -> bool:
        with contextlib.suppress(RedisError):
            return bool(self.client.ping())
        return False

    def kill(self) -> None:
        self._process.kill()
        self._process.wait()


class Client:
    """One WebSocket client."""

    def __init__(self, url: str, **options: object) -> None:
        self.ws = websocket.create_connection(url, timeout=LIMIT_S, **options)

    def send(self, message: object) -> None:
        self.ws.send(msgspec.json.encode(message).decode())

    def subscribe(self, symbol: str, *channels: str) -> None:
        self.send({"op": "subscribe", "channels": channels, "instruments": [symbol]})

    def receive(self) -> dict[str, Any]:
        """The next message that is no heartbeat."""
        while True:
            message: dict[str, Any] = msgspec.json.decode(self.ws.recv())
            if message["type"] != "heartbeat":
                return message

    def ask(self, message: object) -> dict[str, Any]:
        self.send(message)
        return self.receive()

    def close_code(self) -> int | None:
        """Read up to the close frame (its code) or the end of the connection (None)."""
        code = None
        with contextlib.suppress(websocket.WebSocketException, OSError):
            while code is None:
                opcode, data = self.ws.recv_data(control_frame=True)
                if opcode == websocket.ABNF.OPCODE_CLOSE:
                    code = int.from_bytes(data[:2], "big")
        self.ws.shutdown()
        return code

    def follow(self, target: int, view: BookView | None = None) -> BookView:
        """Rebuild the book from its messages up to sequence `target`, going on where it was."""
        view = view or BookView()
        while view.sequence is None or view.sequence < target:
            message = self.receive()
            if message["type"] != "subscribed":
                view.see(message)
        return view


class Server:
    """A gunicorn with the stream's blueprint."""

    def __init__(self, redis: RedisServer, log: Path, workers: int = 1, **env: str) -> None:
        self.redis = redis
        self.log = log
        port = free_port()
        self._clients: list[Client] = []
        self.http = f"http://127.0.0.1:{port}"
        self.address = ("127.0.0.1", port)
        config = log.with_name("gunicorn.conf.py")
        config.write_text(CONFIG)
        command = [sys.executable, "-m", "gunicorn", "-c", str(config), "-k", "gevent"]
        command += ["-w", str(workers), "-b", f"127.0.0.1:{port}", "--graceful-timeout", "20"]
        command += ["--worker-connections", "2000", "tests.integration.stream_server:server_app()"]
        with log.open("w") as stream:
            self.process = subprocess.Popen(
                command, stderr=stream, env=os.environ | {"REDIS_URL": redis.url} | env
            )
        until(lambda: log.read_text().count("Booting worker") == workers and self.metrics())

    def connect(self, path: str = "/ws", **options: object) -> Client:
        self._clients.append(Client(f"ws://127.0.0.1:{self.address[1]}{path}", **options))
        return self._clients[-1]

    def metrics(self) -> dict[str, float]:
        try:
            with urllib.request.urlopen(self.http + "/metrics") as page:
                lines = page.read().decode().splitlines()
        except OSError:
            return {}
        pairs = (line.rsplit(" ", 1) for line in lines if not line.startswith("#"))
        return {name: float(value) for name, value in pairs}

    def connections(self) -> int:
        return int(self.metrics()["crossbook_websocket_connections"])

    def hang_up(self) -> None:
        """Cut every client's connection."""
        while self._clients:
            self._clients.pop().ws.shutdown()

    def stop(self) -> None:
        self.hang_up()
        self.process.terminate()
        self.process.wait(LIMIT_S)


@pytest.fixture(scope="module")
def redis(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RedisServer]:
    server = RedisServer(tmp_path_factory.mktemp("redis"))
    yield server
    server.kill()


@pytest.fixture(scope="module")
def shared(redis: RedisServer, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    server = Server(redis, tmp_path_factory.mktemp("gunicorn") / "log")
    yield server
    server.stop()
    log = server.log.read_text()
    assert log.count("Traceback") == log.count("RuntimeError: a defect"), log


@pytest.fixture
def server(shared: Server) -> Server:
    """A server that nobody is connected to, on an empty Redis."""
    shared.hang_up()
    until(lambda: shared.connections() == 0)
    shared.redis.client.flushall()
    return shared


@pytest.fixture
def start(redis: RedisServer, tmp_path: Path) -> Iterator[Callable[..., Server]]:
    """Starts servers of a test's own."""
    started: list[Server] = []

    def start_one(workers: int = 1, **env: str) -> Server:
        redis.client.flushall()
        started.append(Server(redis, tmp_path / "log", workers, **env))
        return started[-1]

    yield start_one
    for each in started:
        each.stop()
        assert "Traceback" not in each.log.read_text()


def in_thread(work: Callable[[], object]) -> threading.Thread:
    """Run `work` beside the test."""
    thread = threading.Thread(target=work, daemon=True)
    thread.start()
    return thread


def connect_to_all(server: Server, workers: int, count: int) -> tuple[list[Client], set[int]]:
    """`count` clients over all workers: a worker that took the first half is held for a while."""
    clients: list[Client] = []
    pids: set[int] = set()
    with contextlib.ExitStack() as held:
        for index in range(count):
            clients.append(server.connect())
            pids.add(clients[-1].ask({"op": "place", "order": {}})["body"]["pid"])
            if index == count // 2 and len(pids) < workers:
                for pid in pids:
                    held.enter_context(standing_still(pid))
    return clients, pids


def follow_all(clients: list[Client], target: int) -> list[BookView]:
    """Let every client rebuild the book, all at the same time."""
    views: list[BookView] = []
    threads = [in_thread(lambda c=client: views.append(c.follow(target))) for client in clients]
    for thread in threads:
        thread.join(LIMIT_S)
    assert len(views) == len(clients)
    return views


# --- market data


@pytest.mark.parametrize("workers", [1, 2])
def test_deltas_rebuild_the_book_exactly_for_everyone(
    start: Callable[..., Server], workers: int
) -> None:
    """Whoever subscribes, before or in the middle of the flow and on whichever worker, gets one
    snapshot and then every delta once: together they are the book."""
    server = start(workers)
    book, events = TapeBook(), 2_000
    book.write(server.redis.client, 100)
    clients, pids = connect_to_all(server, workers, 40)
    writer = in_thread(lambda: book.write(server.redis.client, events))
    for at, client in enumerate(clients):
        until(lambda at=at: book.sequence >= 100 + at * 10)
        client.subscribe("BTC-USD", "book")
    views = follow_all(clients, 100 + events)
    writer.join()
    assert len(pids) == workers
    for view in views:
        assert (view.snapshots, view.bids, view.asks) == (1, *book.sides())


def test_pongs_do_not_tear_frames(server: Server) -> None:
    """Several write to one socket: the feed, the answers and simple-websocket's pongs; each frame
    stays whole."""
    book, client = TapeBook(), server.connect()
    client.subscribe("BTC-USD", "book", "trades", "orders")
    writer = in_thread(lambda: book.write(server.redis.client, 500))
    pongs = 0
    view = BookView()
    while view.sequence is None or view.sequence < 500 or pongs < 200:
        if pongs < 200:
            client.ws.ping("x" * 125)
            client.send({"op": "ping"})
        message = client.receive()
        pongs += message["type"] == "pong"
        if message["type"].startswith("book"):
            view.see(message)
    writer.join()


def test_trades_and_orders_are_told_as_they_happen(server: Server) -> None:
    """After `subscribed` each event gives its trades and then its orders; nothing of before."""
    book, client = TapeBook(), server.connect("/stream")
    book.write(server.redis.client, 5)
    channels, symbols = ["trades", "orders"], ["BTC-USD"]
    asked = {"op": "subscribe", "channels": channels, "instruments": symbols, "request_id": "a"}
    assert client.ask(asked) == {
        "type": "subscribed",
        "channels": channels,
        "instruments": symbols,
        "request_id": "a",
    }
    book.write(server.redis.client, 50)
    trades, takers = [], []
    while takers[-1:] != [55]:
        message = client.receive()
        if message["type"] == "trade":
            trades.append(message)
        elif message["side"] == "buy":
            takers.append(message["sequence"])
    assert takers == [*range(6, 56)]
    assert {trade["instrument"] for trade in trades} == {"BTC-USD"}


def test_unsubscribing_ends_a_channel(server: Server) -> None:
    """Nothing of a channel comes after its `unsubscribed`; the others go on."""
    book, client = TapeBook(), server.connect()
    client.subscribe("BTC-USD", "book", "orders")
    assert [client.receive()["type"] for _ in range(2)] == ["subscribed", "book_snapshot"]
    asked = {"op": "unsubscribe", "channels": ["book"], "instruments": ["BTC-USD"]}
    assert client.ask(asked)["type"] == "unsubscribed"
    book.write(server.redis.client, 10)
    sequences: list[int] = []
    while sequences[-1:] != [10]:
        message = client.receive()
        assert message["type"] == "order"
        if message["side"] == "buy":
            sequences.append(message["sequence"])


def test_another_instrument_joins_at_once(server: Server) -> None:
    """A subscription to an instrument that nobody followed takes effect while others are quiet."""
    client = server.connect()
    client.subscribe("BTC-USD", "book")
    assert [client.receive()["type"] for _ in range(2)] == ["subscribed", "book_snapshot"]
    others = iter(("ETH-USD", "SOL-USD", "ADA-USD"))

    def join() -> None:
        client.subscribe(next(others), "book")
        assert [client.receive()["type"] for _ in range(2)] == ["subscribed", "book_snapshot"]

    assert fastest_s(join, 0.5) < 0.5


def test_a_quiet_instrument_beats(server: Server) -> None:
    """Without traffic a heartbeat with the last sequence comes, about each second."""
    book, client = TapeBook(), server.connect()
    book.write(server.redis.client, 7)
    client.subscribe("BTC-USD", "trades")
    messages = [msgspec.json.decode(client.ws.recv()) for _ in range(3)]
    beat = {"type": "heartbeat", "instrument": "BTC-USD", "sequence": 7}
    assert messages[1:] == [beat, beat]


def test_the_feed_survives_redis(server: Server) -> None:
    """Redis is killed and comes back: books and orders go on after the last event, nothing lost."""
    book, client, other = TapeBook(), server.connect(), server.connect()
    other.subscribe("BTC-USD", "orders")
    assert other.receive()["type"] == "subscribed"
    book.write(server.redis.client, 100)
    server.redis.kill()
    until(lambda: "cannot read from Redis" in server.log.read_text())
    asked = {"op": "subscribe", "channels": ["book"], "instruments": ["ETH-USD"]}
    refused = client.ask(asked)
    assert refused["code"] == "unavailable"
    assert refused["detail"] == "Redis does not answer now; ask again", "no path, no address"
    server.redis.start()
    book.write(server.redis.client, 100)
    sequences = [0]
    while sequences[-1] != 200:
        message = other.receive()
        assert message["type"] == "order"
        if message["side"] == "buy":
            sequences.append(message["sequence"])
    assert sequences == [*range(201)]


def test_a_book_goes_on_over_a_restart_of_redis(server: Server) -> None:
    """One snapshot at the beginning and then only deltas, before and after the restart."""
    book, client = TapeBook(), server.connect()
    client.subscribe("BTC-USD", "book")
    view = client.follow(0)
    book.write(server.redis.client, 50)
    server.redis.kill()
    server.redis.start()
    book.write(server.redis.client, 50)
    client.follow(100, view)
    assert (view.snapshots, view.bids, view.asks) == (1, *book.sides())


def test_a_client_resumes_on_whichever_worker_it_comes_to(start: Callable[..., Server]) -> None:
    """Cut off again and again, and back with `since`: one snapshot, then every delta once."""
    server = start(2)
    book, view, connections = TapeBook(), BookView(), 0
    writer = threading.Thread(target=lambda: book.write(server.redis.client, 400), daemon=True)
    while view.sequence != 400:
        client = server.connect()
        connections += 1
        asked = {"op": "subscribe", "channels": ["book"], "instruments": ["BTC-USD"]}
        client.send(asked if view.sequence is None else asked | {"since": view.sequence})
        assert client.receive()["type"] == "subscribed"
        if view.sequence is None:
            view.see(client.receive())
            writer.start()
        for _ in range(50):
            view.see(client.receive())
        client.ws.shutdown()
    writer.join()
    assert connections == 8
    assert (view.snapshots, view.bids, view.asks) == (1, *book.sides())


def test_each_instrument_has_its_own_since(server: Server) -> None:
    """One that is not named begins with a snapshot."""
    books = [TapeBook("BTC-USD"), TapeBook("ETH-USD", seed=2)]
    for book in books:
        book.write(server.redis.client, 10)
    client = server.connect()
    symbols = [book.symbol for book in books]
    asked = {"op": "subscribe", "channels": ["book"], "instruments": symbols}
    client.send(asked | {"since": {"ETH-USD": 7}})
    assert client.receive()["type"] == "subscribed"
    told = [client.receive() for _ in range(4)]
    found = {(m["instrument"], m["type"], m["sequence"]) for m in told}
    deltas = {("ETH-USD", "book_delta", sequence) for sequence in (8, 9, 10)}
    assert found == deltas | {("BTC-USD", "book_snapshot", 10)}


def test_a_conflated_book_is_told_once_in_its_interval(server: Server) -> None:
    """Whatever happens meanwhile; together with the snapshot the deltas are the book, each proved
    by its checksum."""
    book, client, began = TapeBook(), server.connect(), time.monotonic()
    asked = {"op": "subscribe", "channels": ["book"], "instruments": ["BTC-USD"]}
    options = {"interval_ms": 200, "checksum": True}
    answer = client.ask(asked | options)
    assert answer == {"type": "subscribed", **options, **without(asked, "op")}
    writer = in_thread(lambda: book.write(server.redis.client, 1_000))
    local = LocalBook()
    while local.sequence != 1_000:
        local.take(client.receive())
    writer.join()
    bids, asks = book.sides()
    assert local.sides == {"bids": bids, "asks": asks}
    assert local.deltas <= (time.monotonic() - began) / 0.2
    assert (local.snapshots, local.proofs) == (1, local.deltas + 1)


def without(message: dict[str, Any], name: str) -> dict[str, Any]:
    """The message but for one field."""
    return {key: value for key, value in message.items() if key != name}


def test_a_ticker_is_told_at_once_and_when_it_changes(server: Server) -> None:
    """Each socket is told; not more than once a second."""
    redis = server.redis.client
    ticker = {"instrument": "BTC-USD", "sequence": 1, "last": "5.00", "timestamp": "a"}
    redis.set("ticker:BTC-USD", msgspec.json.encode(ticker))
    clients = [server.connect() for _ in range(3)]
    for client in clients:
        began = time.monotonic()
        client.subscribe("BTC-USD", "ticker")
        assert client.receive()["type"] == "subscribed"
        assert client.receive() == {"type": "ticker", **ticker}
    redis.set("ticker:BTC-USD", msgspec.json.encode(ticker | {"last": "6.00"}))
    for client in clients:
        assert client.receive() == {"type": "ticker", **ticker, "last": "6.00"}
    assert time.monotonic() - began > 0.5
    assert server.connections() == 3


# --- clients that read slowly


def small_window() -> dict[str, Any]:
    """Options of a client whose kernel buffers little."""
    return {"sockopt": [(socket.SOL_SOCKET, socket.SO_RCVBUF, 8192)]}


def test_a_slow_reader_is_told_and_closed_and_others_notice_nothing(
    start: Callable[..., Server],
) -> None:
    """The slow one reads `slow_consumer` and the close code 4008; the others get every event."""
    server = start(QUEUE_BYTES_MAX="500000")
    book, slow = TapeBook(), server.connect(**small_window())
    others = [server.connect() for _ in range(5)]
    slow.subscribe("BTC-USD", "book", "orders", "trades")
    for other in others:
        other.subscribe("BTC-USD", "book")
    views: list[BookView] = []
    threads = [in_thread(lambda c=other: views.append(c.follow(book.sequence))) for other in others]
    slow_consumers = "crossbook_websocket_slow_consumers_total"
    while not server.metrics()[slow_consumers]:
        book.write(server.redis.client, 50)
    book.write(server.redis.client, 1)
    last: dict[str, Any] = {}
    while last.get("code") != "slow_consumer":
        last = slow.receive()
    assert last["type"] == "error"
    assert slow.close_code() == 4008
    for thread in threads:
        thread.join(LIMIT_S)
    assert server.metrics()[slow_consumers] == 1
    assert len(views) == len(others)


def test_a_reader_that_never_reads_is_cut_off(start: Callable[..., Server]) -> None:
    """A client that takes nothing cannot be told; its connection is ended all the same."""
    server = start(QUEUE_BYTES_MAX="500000")
    book, stuck = TapeBook(), server.connect(**small_window())
    stuck.subscribe("BTC-USD", "book", "orders", "trades")
    while not server.metrics()["crossbook_websocket_slow_consumers_total"]:
        book.write(server.redis.client, 50)
    until(lambda: server.connections() == 0)


# --- messages


MALFORMED = [
    ("", "malformed_message"),
    ("{", "malformed_message"),
    ("nonsense", "malformed_message"),
    ('{"op":"ping"} x', "malformed_message"),
    ('{"op":"\\ud800"}', "malformed_message"),
    ('{"op":NaN}', "malformed_message"),
    ('{"op":"place","order":' + "[" * 60_000, "malformed_message"),
    ('{"op":"place","order":' + '{"a":' * 10_000 + "1" + "}" * 10_001, "malformed_message"),
    ("[" * 60_000, "invalid_message"),
    ('{"op":"ping","x":' + "[" * 60_000, "invalid_message"),
    ("[]", "invalid_message"),
    ("1", "invalid_message"),
    ("null", "invalid_message"),
    ('"ping"', "invalid_message"),
    ("1e999999", "invalid_message"),
    ("9" * 60_000, "invalid_message"),
    ("{}", "invalid_message"),
    ('{"op":null}', "invalid_message"),
    ('{"op":["ping"]}', "invalid_message"),
    ('{"op":' + "9" * 400 + "}", "invalid_message"),
    ('{"op":"ping","x":1}', "invalid_message"),
    ('{"op":"ping","request_id":{}}', "invalid_message"),
    ('{"op":"ping","request_id":1.5}', "invalid_message"),
    ('{"op":"ping","request_id":' + "9" * 400 + "}", "invalid_message"),
    ('{"op":"ping","request_id":"' + "x" * 129 + '"}', "invalid_message"),
    ('{"op":"place"}', "invalid_message"),
    ('{"op":"cancel"}', "invalid_message"),
    ('{"op":"cancel","order_id":1}', "invalid_message"),
    ('{"op":"subscribe"}', "invalid_message"),
    ('{"op":"subscribe","channels":[],"instruments":["BTC-USD"]}', "invalid_message"),
    ('{"op":"subscribe","channels":["book"],"instruments":[]}', "invalid_message"),
    ('{"op":"subscribe","channels":"book","instruments":["BTC-USD"]}', "invalid_message"),
    ('{"op":"subscribe","channels":[1],"instruments":["BTC-USD"]}', "invalid_message"),
    (
        '{"op":"subscribe","channels":["book"],"instruments":[' + '"A",' * 100 + '"A"]}',
        "invalid_message",
    ),
    ('{"op":"subscribe","channels":["level3"],"instruments":["BTC-USD"]}', "unknown_channel"),
    ('{"op":"subscribe","channels":["book","x"],"instruments":["BTC-USD"]}', "unknown_channel"),
    ('{"op":"unsubscribe","channels":["x"],"instruments":["BTC-USD"]}', "unknown_channel"),
    ('{"op":"subscribe","channels":["book"],"instruments":["XXX-USD"]}', "instrument_not_found"),
    ('{"op":"subscribe","channels":["book"],"instruments":["\\u0000"]}', "instrument_not_found"),
    ('{"op":"dance"}', "unknown_op"),
    ('{"op":""}', "unknown_op"),
    ('{"op":"amend","price":"1"}', "invalid_message"),
    ('{"op":"amend","order_id":"x","side":"buy"}', "invalid_message"),
    ('{"op":"cancel_on_disconnect"}', "invalid_message"),
    ('{"op":"cancel_on_disconnect","client_id":"a|b"}', "invalid_message"),
    ('{"op":"cancel_on_disconnect","client_id":""}', "invalid_message"),
    ('{"op":"cancel_on_disconnect","client_id":"x","instruments":"BTC-USD"}', "invalid_message"),
    (
        '{"op":"cancel_on_disconnect","client_id":"x","instruments":["XXX-USD"]}',
        "instrument_not_found",
    ),
    ('{"op":"place","order":{"fail":true}}', "internal_error"),
]


OPTIONS = (
    '"interval_ms":99',
    '"interval_ms":10001',
    '"interval_ms":-100',
    '"interval_ms":100.5',
    '"interval_ms":"100"',
    '"interval_ms":null',
    '"checksum":1',
    '"since":-1',
    '"since":1.5',
    '"since":"1"',
    '"since":true',
    '"since":9223372036854775808',
    '"since":{"BTC-USD":-1}',
    '"since":{"BTC-USD":null}',
    '"since":{"ETH-USD":1}',
    '"channels":["trades"],"interval_ms":100',
    '"channels":["ticker"],"checksum":true',
)
"""How a subscription to a book cannot be; the last channels count."""
MALFORMED += [
    (
        f'{{"op":"subscribe","channels":["book"],"instruments":["BTC-USD"],{more}}}',
        "invalid_message",
    )
    for more in OPTIONS
]


@pytest.mark.parametrize(("text", "code"), MALFORMED, ids=lambda value: str(value)[:60])
def test_malformed_input_gets_an_error_and_leaves_the_connection_open(
    server: Server, text: str, code: str
) -> None:
    """Whatever is sent as text, the answer is an `error`, and the next message is answered."""
    client = server.connect()
    client.ws.send(text)
    answer = client.receive()
    assert (answer["type"], answer["code"]) == ("error", code)
    assert answer["detail"]
    assert len(answer["detail"]) <= 300
    assert client.ask({"op": "ping"}) == {"type": "pong"}


@pytest.mark.parametrize("data", [b"", b"\xff\xfe", b'{"op":"ping"}', b"\x00" * 60_000])
def test_a_binary_message_gets_an_error(server: Server, data: bytes) -> None:
    """Messages are text; a binary one is refused and leaves the connection open."""
    client = server.connect()
    client.ws.send(data, BINARY)
    assert client.receive()["code"] == "malformed_message"
    assert client.ask({"op": "ping"}) == {"type": "pong"}


@pytest.mark.parametrize(
    "message",
    [
        {"op": "dance", "request_id": "r-1"},
        {"op": "subscribe", "channels": ["x"], "instruments": ["A"], "request_id": "r-1"},
        {"op": "place", "request_id": "r-1"},
        {"op": "ping", "more": 1, "request_id": "r-1"},
        {"op": "place", "order": {"fail": True}, "request_id": "r-1"},
    ],
)
def test_an_error_carries_the_request_id(server: Server, message: dict[str, Any]) -> None:
    """A client finds out which of its messages was wrong."""
    client = server.connect()
    assert client.ask(message)["request_id"] == "r-1"


@pytest.mark.parametrize(
    ("data", "code"),
    [
        (b"\x81\x82\0\0\0\0\xff\xfe", 1007),
        (b"\x81\xff" + (70_000).to_bytes(8, "big") + bytes(70_004), 1009),
        (b"\x83\x81\0\0\0\0x", 1002),
        (b"\x81\x01x", 1002),
    ],
    ids=["invalid UTF-8", "too long", "unknown opcode", "not masked"],
)
def test_what_rfc_6455_forbids_ends_the_connection_with_its_code(
    server: Server, data: bytes, code: int
) -> None:
    """Only that connection ends, and the client is told why."""
    client = server.connect()
    client.ws.sock.sendall(data)
    assert client.close_code() == code
    until(lambda: server.connections() == 0)


def test_a_message_in_fragments_is_one_message(server: Server) -> None:
    """Fragmented text is put together."""
    client = server.connect()
    for piece, opcode, final in (('{"op":', TEXT, 0), ('"pi', 0, 0), ('ng"}', 0, 1)):
        client.ws.send_frame(websocket.ABNF.create_frame(piece, opcode, final))
    assert client.receive() == {"type": "pong"}


# --- commands


def test_commands_are_answered_as_rest_would_in_their_order(server: Server) -> None:
    """Status and body of each command, with its request id, one after the other."""
    client = server.connect()
    for number in range(50):
        client.send({"op": "place", "request_id": number, "order": {"n": number}})
        client.send({"op": "cancel", "request_id": f"c{number}", "order_id": "x"})
    answers = [client.receive() for _ in range(100)]
    assert {answer["type"] for answer in answers} == {"response"}
    expected = [each for number in range(50) for each in (number, f"c{number}")]
    assert [answer["request_id"] for answer in answers] == expected
    assert [answer["status"] for answer in answers] == [201, 404] * 50
    assert [a["body"]["order"]["n"] for a in answers[::2]] == [*range(50)]
    assert answers[1]["body"] == {"code": "order_not_found", "id": "x"}


def test_an_amendment_is_answered_as_rest_would(server: Server) -> None:
    """The order's id and what is to change are handed on as they were sent."""
    asked = {"op": "amend", "request_id": 7, "order_id": "o", "price": "1.50", "quantity": 2}
    answer = server.connect().ask(asked)
    assert (answer["type"], answer["request_id"], answer["status"]) == ("response", 7, 200)
    changes = {"price": "1.50", "quantity": 2, "stop_price": None}
    assert answer["body"] == {"id": "o", "changes": changes}


def test_a_busy_place_does_not_stop_market_data(server: Server) -> None:
    """While a place waits, the same connection gets its deltas; the answer comes when it is there,
    and the command behind it after it."""
    book, client = TapeBook(), server.connect()
    client.subscribe("BTC-USD", "book")
    assert [client.receive()["type"] for _ in range(2)] == ["subscribed", "book_snapshot"]
    server.redis.client.set("hold", "1")
    client.send({"op": "place", "request_id": 1, "order": {"hold": True}})
    client.send({"op": "place", "request_id": 2, "order": {}})
    book.write(server.redis.client, 20)
    deltas = [client.receive() for _ in range(20)]
    assert {message["type"] for message in deltas} == {"book_delta"}
    server.redis.client.delete("hold")
    assert [client.receive()["request_id"] for _ in range(2)] == [1, 2]


def test_a_flood_of_commands_is_left_in_the_network(server: Server) -> None:
    """While a place waits, a client can only send so much: the server does not read on."""
    client = server.connect(sockopt=[(socket.SOL_SOCKET, socket.SO_SNDBUF, 16_384)])
    server.redis.client.set("hold", "1")
    client.send({"op": "place", "request_id": 1, "order": {"hold": True}})
    client.ws.settimeout(1.0)
    padding, sent = "x" * 50_000, 0
    with contextlib.suppress(websocket.WebSocketTimeoutException):
        while sent < 1_000:
            client.send({"op": "place", "request_id": 2, "order": padding})
            sent += 1
    assert sent < 1_000
    server.redis.client.delete("hold")
    client.ws.settimeout(LIMIT_S)
    assert client.receive()["request_id"] == 1


# --- cancel on disconnect


def promise(client: Client, client_id: str, **more: object) -> dict[str, Any]:
    """Ask for a cancel on disconnect."""
    return client.ask({"op": "cancel_on_disconnect", "client_id": client_id, **more})


def disconnected(server: Server) -> list[object]:
    """What the commands were told of connections that ended, in order."""
    texts: Any = server.redis.client.lrange("disconnected", 0, -1)
    return [msgspec.json.decode(text) for text in texts]


def test_a_cancel_on_disconnect_is_acknowledged(server: Server) -> None:
    """With what it covers; later ones about the same client replace it."""
    client = server.connect()
    for instruments in (None, ["BTC-USD", "ETH-USD"]):
        answer = promise(client, "ann", request_id="r", instruments=instruments)
        body = {"client_id": "ann", "instruments": instruments}
        assert answer == {"type": "response", "request_id": "r", "status": 200, "body": body}
    promise(client, "bob")
    assert disconnected(server) == []
    client.ws.close()
    until(lambda: disconnected(server) == [{"ann": ["BTC-USD", "ETH-USD"], "bob": None}])


@pytest.mark.parametrize("how", ["close frame", "cut", "not WebSocket"])
def test_a_promise_is_kept_however_the_client_goes(server: Server, how: str) -> None:
    """Politely, without a word, or by breaking the protocol."""
    client = server.connect()
    promise(client, "ann")
    if how == "close frame":
        client.ws.close()
    elif how == "cut":
        client.ws.shutdown()
    else:
        client.ws.sock.sendall(b"\xff" * 100)
    until(lambda: disconnected(server) == [{"ann": None}])


def test_a_promise_is_kept_when_the_server_ends_the_connection(
    start: Callable[..., Server],
) -> None:
    """Of a reader that is too slow, and of all when the server stops."""
    server = start(QUEUE_BYTES_MAX="500000")
    book, slow, other = TapeBook(), server.connect(**small_window()), server.connect()
    promise(slow, "slow")
    promise(other, "other")
    slow.subscribe("BTC-USD", "book", "orders", "trades")
    while not disconnected(server):
        book.write(server.redis.client, 50)
    assert disconnected(server) == [{"slow": None}]
    server.process.send_signal(signal.SIGTERM)
    server.process.wait(LIMIT_S)
    assert disconnected(server) == [{"slow": None}, {"other": None}]


def test_a_promise_that_was_taken_back_is_none(server: Server) -> None:
    """By an empty list of instruments; and a connection without promises cancels nothing."""
    client, without = server.connect(), server.connect()
    promise(client, "ann")
    promise(client, "ann", instruments=[])
    without.ws.close()
    client.ws.close()
    until(lambda: server.connections() == 0)
    assert disconnected(server) == []


def test_a_connection_has_promises_for_so_many_clients_only(server: Server) -> None:
    """One more is refused; those there are can still be changed."""
    client = server.connect()
    for number in range(100):
        assert promise(client, f"c{number}")["type"] == "response"
    assert promise(client, "one more")["code"] == "too_many_clients"
    assert promise(client, "c7", instruments=["BTC-USD"])["type"] == "response"


# --- connections


def test_sockets_beyond_the_limit_are_refused_before_the_upgrade(
    start: Callable[..., Server],
) -> None:
    """503 with Retry-After; a place is free again when a socket is closed."""
    server = start(SOCKETS_MAX="2")
    clients = [server.connect() for _ in range(2)]
    with pytest.raises(websocket.WebSocketBadStatusException) as refused:
        server.connect()
    assert refused.value.status_code == 503
    assert refused.value.resp_headers["retry-after"] == "1"
    assert msgspec.json.decode(refused.value.resp_body)["code"] == "too_many_connections"
    clients[0].ws.close()
    until(lambda: server.connections() == 1)
    assert server.connect().ask({"op": "ping"}) == {"type": "pong"}


HANDSHAKE = {
    "Host": "localhost",
    "Upgrade": "websocket",
    "Connection": "Upgrade",
    "Sec-WebSocket-Version": "13",
    "Sec-WebSocket-Key": "dGhlIHNhbXBsZSBub25jZQ==",
}
DEFLATE = "permessage-deflate; client_max_window_bits"


def shake_hands(server: Server, headers: dict[str, str]) -> int:
    """Ask for an upgrade; the status of the answer."""
    lines = [f"{name}: {value}" for name, value in headers.items() if value]
    with socket.create_connection(server.address, LIMIT_S) as connection:
        connection.sendall("\r\n".join(["GET /ws HTTP/1.1", *lines, "", ""]).encode())
        return int(connection.makefile("rb").readline().split()[1])


@pytest.mark.parametrize(
    ("header", "value", "status"),
    [
        ("Sec-WebSocket-Version", "8", 400),
        ("Sec-WebSocket-Version", "", 400),
        ("Sec-WebSocket-Key", "", 400),
        ("Connection", "close", 400),
        ("Upgrade", "", 400),
        ("Host", "a..b", 400),
        ("Sec-WebSocket-Extensions", DEFLATE, 101),
        ("Sec-WebSocket-Extensions", DEFLATE + "; server_max_window_bits=9", 101),
        ("Sec-WebSocket-Extensions", DEFLATE + "=x", 101),
        ("Sec-WebSocket-Extensions", DEFLATE + "=99", 101),
        ("Sec-WebSocket-Extensions", ";;=;,", 101),
        ("Sec-WebSocket-Protocol", "some, thing", 101),
    ],
)
def test_a_handshake_is_taken_or_refused_never_a_fault(
    server: Server, header: str, value: str, status: int
) -> None:
    """What is wrong is a 400; extensions that make no sense are not agreed on."""
    assert shake_hands(server, HANDSHAKE | {header: value}) == status
    until(lambda: server.connections() == 0)


def test_a_request_without_an_upgrade_is_told_why_it_is_refused(server: Server) -> None:
    host, port = server.address
    with pytest.raises(urllib.error.HTTPError) as refused:
        urllib.request.urlopen(f"http://{host}:{port}/ws", timeout=LIMIT_S)
    assert refused.value.code == 400
    told = msgspec.json.decode(refused.value.read())
    assert (told["code"], told["detail"].partition(",")[0]) == ("bad_request", "/ws is a WebSocket")
    until(lambda: server.connections() == 0)


class CompressingClient:
    """A client that offers permessage-deflate; wsproto frames and compresses by itself."""

    def __init__(self, server: Server, deflate: PerMessageDeflate) -> None:
        self.ws = WSConnection(ConnectionType.CLIENT)
        self.socket = socket.create_connection(server.address, LIMIT_S)
        self.received = 0
        self._events: list[Any] = []
        request = Request(host="localhost", target="/ws", extensions=[deflate])
        self.socket.sendall(self.ws.send(request))
        assert isinstance(self.next(), AcceptConnection)
        assert deflate.enabled()

    def next(self) -> Any:  # noqa: ANN401
        while not self._events:
            data = self.socket.recv(65_536)
            self.received += len(data)
            self.ws.receive_data(data)
            self._events += self.ws.events()
        return self._events.pop(0)

    def send(self, text: str) -> None:
        self.socket.sendall(self.ws.send(Message(text)))

    def text(self) -> str:
        """The next message, whole."""
        text, finished = "", False
        while not finished:
            event = self.next()
            assert isinstance(event, TextMessage)
            text, finished = text + event.data, event.message_finished
        return text


@pytest.mark.parametrize(
    "deflate", [PerMessageDeflate(), PerMessageDeflate(server_max_window_bits=12)]
)
def test_a_client_with_compression_is_served_compressed(
    server: Server, deflate: PerMessageDeflate
) -> None:
    """Where permessage-deflate is offered it is agreed on, without a context that would need memory
    for each socket; messages are compressed both ways and mean the same."""
    book, client = TapeBook(prices=300), CompressingClient(server, deflate)
    book.write(server.redis.client, 300)
    assert deflate.server_no_context_takeover
    assert deflate.client_no_context_takeover
    channels = ["book", "orders", "trades"]
    asked = {"op": "subscribe", "channels": channels, "instruments": ["BTC-USD"]}
    client.send(msgspec.json.encode(asked).decode())
    view, size = BookView(), 0
    while view.sequence != 400:
        text = client.text()
        size += len(text)
        message = msgspec.json.decode(text)
        if message["type"].startswith("book"):
            view.see(message)
        if message["type"] == "book_snapshot":
            book.write(server.redis.client, 100)
    assert (view.snapshots, view.bids, view.asks) == (1, *book.sides())
    assert client.received < size / 2
    client.socket.close()


def test_a_message_that_is_long_only_once_it_is_unpacked_is_too_long(server: Server) -> None:
    """A few hundred bytes that become a hundred thousand: 1009, as for any other."""
    client = CompressingClient(server, PerMessageDeflate())
    client.send('{"op":"ping"}' + " " * 100_000)
    closed = client.next()
    assert isinstance(closed, CloseConnection)
    assert closed.code == 1009
    client.socket.close()


def test_a_stop_of_the_server_closes_with_1001(start: Callable[..., Server]) -> None:
    """gunicorn's graceful stop ends every WebSocket politely and soon, traffic or not."""

    def takes_s() -> float:
        server = start(2)
        clients = [server.connect() for _ in range(10)]
        for client in clients[::2]:
            client.subscribe("BTC-USD", "book")
            client.receive()
        began = time.monotonic()
        server.process.send_signal(signal.SIGTERM)
        assert [client.close_code() for client in clients] == [1001] * 10
        server.process.wait(LIMIT_S)
        assert server.process.returncode == 0
        assert "graceful timeout" not in server.log.read_text()
        return time.monotonic() - began

    assert least(takes_s, 10) < 10


def test_connections_leave_nothing_behind(server: Server) -> None:
    """However a client goes, by a close frame or by a cut, its place is free again."""
    for index in range(20):
        client = server.connect()
        client.subscribe("BTC-USD", "book")
        client.receive()
        if index % 2:
            client.ws.close()
        else:
            client.ws.shutdown()
    until(lambda: server.connections() == 0)
