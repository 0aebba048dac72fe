"""A connection's socket, made safe for several writers: what simple-websocket gets as its socket.

simple-websocket calls `send` and trusts that all was written, which neither a plain nor a gevent
socket promises, and reads on whatever waits to be handled. Here a write is whole and alone, or the
connection is over; and reading stops while the inbox is full. Must not know frames or messages.
"""

import socket
from collections.abc import Callable, Sized
from threading import Event, Lock

SEND_TIMEOUT_S = 5.0
"""A client that takes nothing for this long, while SEND_CHUNK_BYTES wait for it, is cut off."""
SEND_CHUNK_BYTES = 64 * 1024
SEND_BUFFER_BYTES = 256 * 1024
"""What the kernel may hold for one client, so that a slow one is noticed here and not after the
megabytes that it would grow to."""
DRAIN_BYTES_MAX = 1024 * 1024
"""What is still read from a client that was told goodbye, while waiting for its answer."""


def _never() -> bool:
    return False


def _nothing() -> None:
    return


class GuardedSocket:
    """Wraps a connected `sock`, whose descriptor stays the server's to close.

    Reading waits while `inbox` holds `inbox_max` items; see `watch` and `made_room`.
    """

    def __init__(self, sock: socket.socket) -> None:
        self._sock = sock
        self._write_lock = Lock()
        self._room = Event()
        self._inbox: Sized = ()
        self._inbox_max = 1
        self._stuck: Callable[[], None] = _nothing
        self._drain_bytes: int | None = None
        self.reads = 0
        """How often something was read: whoever sees it grow knows that the peer is alive."""
        self.is_held = False
        """Whether reading waits for room, so that silence says nothing about the peer."""

    def fileno(self) -> int:
        """The descriptor, for selectors."""
        return self._sock.fileno()

    def watch(self, inbox: Sized, inbox_max: int, stuck: Callable[[], None]) -> None:
        """From now on do not read while `inbox` is full, and do not wait for ever to write: call
        `stuck` before the connection of a client that takes nothing is cut."""
        self._inbox, self._inbox_max, self._stuck = inbox, inbox_max, stuck
        self._sock.settimeout(SEND_TIMEOUT_S)
        self._sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, SEND_BUFFER_BYTES)

    def made_room(self) -> None:
        """Something was taken out of the inbox."""
        self._room.set()

    def drain(self) -> None:
        """Nobody empties the inbox any more: read on, but at most DRAIN_BYTES_MAX."""
        self._drain_bytes = DRAIN_BYTES_MAX
        self._room.set()

    def recv(self, size: int) -> bytes:
        """Read as `socket.recv`, without its time-out and not before there is room."""
        self._wait_for_room()
        while True:
            try:
                data = self._sock.recv(size)
            except TimeoutError:
                continue
            self.reads += 1
            return self._unless_drained(data)

    def _is_full(self) -> bool:
        return self._drain_bytes is None and len(self._inbox) >= self._inbox_max

    def _wait_for_room(self) -> None:
        while self._is_full():
            self.is_held = True
            self._room.clear()
            if self._is_full():
                self._room.wait()
        self.is_held = False

    def _unless_drained(self, data: bytes) -> bytes:
        if self._drain_bytes is None:
            return data
        self._drain_bytes -= len(data)
        return data if self._drain_bytes > 0 else b""

    def send(self, data: bytes) -> int:
        """Write all of `data`; what simple-websocket calls."""
        self.sendall(data)
        return len(data)

    def sendall(self, data: bytes, give_up: Callable[[], bool] = _never) -> None:
        """Write all of `data` with nothing of anybody else's in between.

        Raises:
            OSError: it could not be written whole, or `give_up` said so on the way; the connection
                is over.
        """
        with self._write_lock:
            try:
                self._write(memoryview(data), give_up)
            except TimeoutError:
                self._stuck()
                self.cut()
                raise
            except OSError:
                self.cut()
                raise

    def _write(self, data: memoryview, give_up: Callable[[], bool]) -> None:
        for start in range(0, len(data), SEND_CHUNK_BYTES):
            if give_up():
                raise TimeoutError("the client took too long")
            self._sock.sendall(data[start : start + SEND_CHUNK_BYTES])

    def close(self) -> None:
        """Write no more; what was written arrives. What simple-websocket calls when it is done."""
        self._shut(socket.SHUT_WR)

    def cut(self) -> None:
        """End the connection both ways. Whoever reads or writes finds out at once."""
        self._drain_bytes = 0
        self._room.set()
        self._shut(socket.SHUT_RDWR)

    def linger(self) -> None:
        """Read until the peer has closed its side, at most DRAIN_BYTES_MAX and SEND_TIMEOUT_S
        between two reads: a socket closed with input unread takes back (RST) what was written."""
        left = DRAIN_BYTES_MAX
        try:
            while left > 0 and (data := self._sock.recv(SEND_CHUNK_BYTES)):
                left -= len(data)
        except OSError:
            return

    def _shut(self, how: int) -> None:
        try:
            self._sock.shutdown(how)
        except OSError:
            return
