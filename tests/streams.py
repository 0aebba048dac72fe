"""The WebSocket for tests: orders that go over it, and a listener that records what it hears of
every instrument over all reconnections, going on where it was, and holds it against the events.
Knows the contract, not the product.
"""

import json
import threading
import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from typing import Any, Final, TypeAlias

import msgspec
import websocket
from websocket import WebSocketException, WebSocketTimeoutException

from tests.commands import Amend, Cancel, Place
from tests.flow import HttpLine, Request, amend_body
from tests.reference import Event
from tests.rest import HOST, TIMEOUT_S, Answer, Api, Json, number_of, order_body, order_id

LISTEN_TIMEOUT_S: Final = 2.0
"""How long the listener waits before it looks whether it is to end; a heartbeat comes sooner."""
RECONNECT_PAUSE_S: Final = 0.05
CHANNELS: Final = ("trades", "orders", "book")
SIDES: Final = (("bids", "buy"), ("asks", "sell"))

Message: TypeAlias = dict[str, Any]
Levels: TypeAlias = dict[tuple[str, int], int]


def _connect(port: int, timeout_s: float) -> websocket.WebSocket:
    return websocket.create_connection(f"ws://{HOST}:{port}/ws", timeout=timeout_s)


class SocketLine:
    """Orders, amends and cancels over a WebSocket of its own; the rest by REST."""

    def __init__(self, api: Api) -> None:
        self._api = api
        self._http = HttpLine(api)
        self._socket: websocket.WebSocket | None = None
        self._count = 0

    def send(self, symbol: str, request: Request) -> Answer:
        """See `tests.flow.Line`."""
        message = _message(symbol, request)
        if message is None:
            return self._http.send(symbol, request)
        self._count += 1
        try:
            if self._socket is None:
                self._socket = _connect(self._api.port, TIMEOUT_S)
            self._socket.send(json.dumps(message | {"request_id": self._count}))
            return self._answer(self._socket)
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        """The next request connects anew."""
        if self._socket is not None:
            with suppress(OSError, WebSocketException):
                self._socket.close()
            self._socket = None

    def _answer(self, socket: websocket.WebSocket) -> Answer:
        told = json.loads(socket.recv() or "{}")
        if told.get("type") != "response":
            raise WebSocketException(f"no response: {told}")
        assert told["request_id"] == self._count, told
        headers = {"Idempotent-Replayed": "true"} if told.get("replayed") else {}
        return Answer(told["status"], headers, json.dumps(told["body"]).encode())


def _message(symbol: str, request: Request) -> Json | None:
    match request:
        case Place():
            return {"op": "place", "order": order_body(symbol, request)}
        case Cancel(number):
            return {"op": "cancel", "order_id": order_id(symbol, number)}
        case Amend(number):
            return {"op": "amend", "order_id": order_id(symbol, number), **amend_body(request)}
    return None


@dataclass
class Stretch:
    """What was heard of one instrument without interruption: after the event `start`, of each
    event a fingerprint of all its messages.
    """

    start: int
    snapshot: Levels
    heard: list[int] = field(default_factory=list)

    @property
    def end(self) -> int:
        """The last event heard."""
        return self.start + len(self.heard)


@dataclass
class _Ear:
    """One instrument: the stretch that goes on, and messages of the event under way."""

    stretch: Stretch | None = None
    trades: list[tuple[object, ...]] = field(default_factory=list)
    orders: list[tuple[object, ...]] = field(default_factory=list)


class Listener:
    """Listens to all channels of some instruments until `listening` ends."""

    def __init__(self, port: int, symbols: Sequence[str]) -> None:
        self.stretches: dict[str, list[Stretch]] = {symbol: [] for symbol in symbols}
        self.connections = 0
        self._port = port
        self._ears = {symbol: _Ear() for symbol in symbols}
        self._stop = threading.Event()
        self._error: BaseException | None = None

    @contextmanager
    def listening(self) -> Iterator[None]:
        """It listens, in a thread."""
        thread = threading.Thread(target=self._run)
        thread.start()
        try:
            yield
        finally:
            self._stop.set()
            thread.join()
        if self._error is not None:
            raise self._error

    def _run(self) -> None:
        try:
            while not self._stop.is_set():
                with suppress(OSError, WebSocketException):
                    self._listen()
                time.sleep(RECONNECT_PAUSE_S)
        except BaseException as error:  # noqa: BLE001  # told to the test when it ends
            self._error = error

    def _listen(self) -> None:
        socket = _connect(self._port, LISTEN_TIMEOUT_S)
        self.connections += 1
        since = {}
        for symbol, ear in self._ears.items():
            ear.trades, ear.orders = [], []
            if ear.stretch is not None:
                since[symbol] = ear.stretch.end
        wanted = {"op": "subscribe", "channels": CHANNELS, "instruments": list(self.stretches)}
        try:
            socket.send(json.dumps(wanted | {"since": since}))
            while not self._stop.is_set():
                with suppress(WebSocketTimeoutException):
                    self._take(msgspec.json.decode(socket.recv() or b"{}"))
        finally:
            socket.close()

    def _take(self, message: Message) -> None:
        ear = self._ears.get(message.get("instrument", ""))
        match message.get("type"):
            case None | "subscribed" | "heartbeat":
                return
            case "error" if message["code"] == "gap" and ear is not None:
                ear.stretch = None
            case "error":  # Redis is away, or we are too slow: it begins again
                raise WebSocketException(message["code"])
            case "book_snapshot" if ear is not None:
                ear.stretch = Stretch(message["sequence"], dict(_levels(message)))
                self.stretches[message["instrument"]].append(ear.stretch)
                ear.trades, ear.orders = [], []
            case "trade" if ear is not None:
                ear.trades.append(_trade(message))
            case "order" if ear is not None:
                ear.orders.append(_order(message["order"]))
            case "book_delta" if ear is not None:
                _close_event(ear, message)
            case _:
                raise AssertionError(f"not expected: {message}")


def _close_event(ear: _Ear, delta: Message) -> None:
    """A delta is the last message of its event."""
    assert ear.stretch is not None, f"a delta without a snapshot: {delta}"
    before = ear.stretch.end
    assert (delta["previous_sequence"], delta["sequence"]) == (before, before + 1), delta
    told = (tuple(ear.trades), tuple(ear.orders), tuple(sorted(_levels(delta))))
    ear.stretch.heard.append(hash(told))
    ear.trades, ear.orders = [], []


def _levels(message: Message) -> Iterator[tuple[tuple[str, int], int]]:
    for name, side in SIDES:
        for price, quantity in message[name]:
            yield (side, int(price)), int(quantity)


def _trade(message: Message) -> tuple[object, ...]:
    numbers = number_of(message["maker_order_id"]), number_of(message["taker_order_id"])
    sizes = int(message["price"]), int(message["quantity"])
    return *numbers, *sizes, message["side"], message["sequence"]


def _order(order: Json) -> tuple[object, ...]:
    sizes = int(order["quantity"]), int(order["filled_quantity"])
    words = (order[name] for name in ("client_id", "status", "reason", "sequence"))
    return number_of(order["order_id"]), *sizes, *words


def _messages_of(event: Event) -> tuple[object, ...]:
    """What must be heard of an event, as `_close_event` notes it."""
    trades = (
        (t.maker, t.taker, t.price_ticks, t.quantity_lots, t.side, t.sequence) for t in event.trades
    )
    orders = (
        (o.number, o.quantity_lots, o.filled_lots, o.client, o.status, o.reason, o.sequence)
        for o in event.orders
    )
    levels = (((each.side, each.price_ticks), each.total_lots) for each in event.levels)
    return tuple(trades), tuple(orders), tuple(sorted(levels))


def check_heard(stretches: Iterable[Stretch], events: Sequence[Event]) -> int:
    """Each stretch begins with the book as it stood, and has each event once, with the same trades,
    orders and levels. Returns of how many events something was heard.
    """
    levels: Levels = {}
    position = heard = 0
    for stretch in sorted(stretches, key=lambda each: each.start):
        if stretch.start < position:
            levels, position = {}, 0
        for event in events[position : stretch.start]:
            for each in event.levels:
                levels[each.side, each.price_ticks] = each.total_lots
        position = stretch.start
        standing = {level: total for level, total in levels.items() if total}
        assert stretch.snapshot == standing, f"the snapshot of {stretch.start}"
        assert stretch.start + len(stretch.heard) <= len(events), "events that nobody stored"
        for event, noted in zip(events[stretch.start :], stretch.heard, strict=False):
            assert hash(_messages_of(event)) == noted, f"heard something else than {event}"
        heard += len(stretch.heard)
    return heard
