"""The reference client of the WebSocket's `book`: keeps one instrument's book from messages alone,
reconnects where it was, and refuses whatever the contract does not allow. Knows the contract, not
the product; docs/STREAMS.md says in words what is here in Python.
"""

from __future__ import annotations

import json
import zlib
from contextlib import suppress
from hashlib import sha256
from typing import TYPE_CHECKING, Any, Final

import websocket
from websocket import WebSocketException

from tests.rest import HOST, TIMEOUT_S, Json

if TYPE_CHECKING:
    from collections.abc import Callable

GONE: Final = "0"
CHECKSUM_LEVELS: Final = 10

Side = dict[str, str]
"""Price -> quantity, as they were written."""


class LostPlace(Exception):
    """A message that does not follow the one before: something was missed."""


class WrongBook(Exception):
    """The book is not the server's, by its checksum."""


def _digits(number: str) -> str:
    return number.replace(".", "").lstrip("0")


def _ticks(price: str) -> int:
    # All prices of an instrument have as many decimals.
    return int(price.replace(".", ""))


class LocalBook:
    """One book. `sequence` is None before the first snapshot, unless it begins empty at `start`."""

    def __init__(self, start: int | None = None) -> None:
        self.sequence = start
        self.sides: dict[str, Side] = {"bids": {}, "asks": {}}
        self.snapshots = self.deltas = self.proofs = 0

    def take(self, message: Json) -> bool:
        """Apply a message; whether the book is another one now, or stands at another sequence.

        Raises:
            LostPlace: something was missed.
            WrongBook: the checksum is not that of this book.
        """
        match message["type"]:
            case "book_snapshot":
                self.snapshots += 1
                self.sides = {name: dict(message[name]) for name in self.sides}
            case "book_delta":
                self._change(message)
            case "heartbeat":
                if self.sequence is not None and message["sequence"] > self.sequence:
                    raise LostPlace(message)
                return False
            case _:
                return False
        self.sequence = message["sequence"]
        if "checksum" in message:
            self.proofs += 1
            if message["checksum"] != self.checksum():
                raise WrongBook(message)
        return True

    def _change(self, delta: Json) -> None:
        if delta["previous_sequence"] != self.sequence or delta["sequence"] <= self.sequence:
            raise LostPlace(delta)
        self.deltas += 1
        for name, side in self.sides.items():
            for price, quantity in delta[name]:
                if quantity == GONE:
                    # With an interval, a level may have come and gone in between.
                    side.pop(price, None)
                else:
                    side[price] = quantity

    def best(self, name: str, count: int | None = None) -> list[tuple[str, str]]:
        """The best levels of `bids` or `asks`, best first."""
        levels = sorted(self.sides[name].items(), key=_level_ticks, reverse=name == "bids")
        return levels[:count]

    def checksum(self) -> int:
        """CRC32 of the ten best asks, then of the ten best bids, as Kraken's."""
        levels = [*self.best("asks", CHECKSUM_LEVELS), *self.best("bids", CHECKSUM_LEVELS)]
        text = "".join(_digits(price) + _digits(quantity) for price, quantity in levels)
        return zlib.crc32(text.encode())

    def fingerprint(self) -> int:
        """Equal for equal books, within one process."""
        return hash(tuple(frozenset(self.sides[name].items()) for name in ("bids", "asks")))

    def digest(self) -> str:
        """One line for all levels, best first."""
        return levels_digest(self.best("bids"), self.best("asks"))


def _level_ticks(level: tuple[str, str]) -> int:
    return _ticks(level[0])


def levels_digest(bids: list[tuple[str, str]], asks: list[tuple[str, str]]) -> str:
    """One line for the levels of a book, each side best first."""
    return sha256(json.dumps([bids, asks]).encode()).hexdigest()


class Follower:
    """Follows one book over as many connections as it takes. `options` go with each subscribe;
    with `resumes`, so does the sequence where it was."""

    def __init__(
        self, port: int, symbol: str, *, resumes: bool, start: int | None = None, **options: object
    ) -> None:
        self.book = LocalBook(start)
        self.connections = 0
        self._port = port
        self._symbol = symbol
        self._resumes = resumes
        self._options = options
        self._socket: websocket.WebSocket | None = None

    def follow(self, seen: Callable[[LocalBook], bool]) -> None:
        """Read until `seen`, told of each new state of the book, has had enough."""
        while True:
            with suppress(WebSocketException, OSError):
                if self._socket is None:
                    self.connect()
                if self.book.take(self._receive()) and not seen(self.book):
                    return

    def disconnect(self, *, politely: bool) -> None:
        """Leave, with a close frame or without a word; the next read comes back."""
        if self._socket is None:
            return
        with suppress(WebSocketException, OSError):
            if politely:
                self._socket.close(timeout=1)
            else:
                self._socket.shutdown()
        self._socket = None

    def connect(self) -> None:
        """By a new connection from here on; `follow` sees to it by itself."""
        self.connections += 1
        self._socket = websocket.create_connection(f"ws://{HOST}:{self._port}/ws", TIMEOUT_S)
        wanted: dict[str, Any] = {"op": "subscribe", "channels": ["book"], **self._options}
        if self._resumes and self.book.sequence is not None:
            wanted["since"] = self.book.sequence
        self._socket.send(json.dumps(wanted | {"instruments": [self._symbol]}))

    def _receive(self) -> Json:
        assert self._socket is not None
        try:
            text = self._socket.recv()
        except BaseException:
            self.disconnect(politely=False)
            raise
        if not text:
            self.disconnect(politely=False)
            raise WebSocketException("closed")
        message: Json = json.loads(text)
        assert message["type"] != "error", message
        return message
