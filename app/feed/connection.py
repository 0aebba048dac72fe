"""One WebSocket as the feed sees it: a writer for what is queued, pings, and a clean end.

simple-websocket does the protocol's receiving side, frames of the feed are written past it. Must
not know what messages mean.
"""

import time
from collections.abc import Callable, Iterator
from threading import Event, Thread
from typing import Protocol

from simple_websocket import ConnectionClosed  # type: ignore[import-untyped]
from wsproto.utilities import LocalProtocolError

from app.feed import metrics
from app.feed.frames import PING
from app.feed.messages import NOTHING
from app.feed.subscribers import CLOSE_INTERNAL_ERROR, CLOSE_NORMAL, Closing, Subscriber
from app.feed.transport import GuardedSocket

INBOX_MESSAGES_MAX = 32
"""Messages of one client that wait to be handled; more are left in the network."""
PING_S = 20.0
"""A ping leaves this often; a client from which nothing came between two of them is gone."""
CLOSE_TIMEOUT_S = 5.0
"""For writing what is under way when the server ends a connection, looked at after each piece of
SEND_CHUNK_BYTES, and then again for the client to answer the close frame. After that the TCP
connection is shut down."""

_FAULT = Closing(CLOSE_INTERNAL_ERROR, "internal error")
_OVER = Closing(CLOSE_NORMAL, "")


class WebSocket(Protocol):
    """What is used of `simple_websocket.Server`."""

    connected: bool
    input_buffer: list[str | bytes]
    event: Event
    thread: Thread

    def receive(self, timeout: float) -> str | bytes | None: ...
    def close(self, reason: int, message: str) -> None: ...


class Connection:
    """Runs one connection. `guard` is the socket that `ws` was given."""

    def __init__(
        self,
        ws: WebSocket,
        guard: GuardedSocket,
        subscriber: Subscriber,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._ws = ws
        self._guard = guard
        self._subscriber = subscriber
        self._clock = clock
        self._closing_since: float | None = None
        self._ping_at = clock() + PING_S
        self._reads_at_ping = -1
        self._writer = Thread(target=self._write, name="feed-writer", daemon=True)

    def run(
        self, handle: Callable[[str | bytes], None], ended: Callable[[], None] = lambda: None
    ) -> None:
        """Write what is queued and hand each message to `handle`, until either side ends it. Then
        `ended` is called, before anything else: to take leave of a client may take seconds.
        """
        stuck = self._subscriber.fall_behind
        self._guard.watch(self._ws.input_buffer, INBOX_MESSAGES_MAX, stuck)
        self._writer.start()
        try:
            for message in self._messages():
                try:
                    handle(message)
                finally:
                    self._subscriber.end()
        except Exception:
            self._subscriber.close(_FAULT)
            raise
        finally:
            try:
                ended()
            finally:
                self._finish()

    def _messages(self) -> Iterator[str | bytes]:
        while self._subscriber.closing is None:
            try:
                # Not for ever: a pong just after the close frame makes simple-websocket wait on.
                message = self._ws.receive(timeout=PING_S)
            except ConnectionClosed:
                return
            self._guard.made_room()
            if message is not None and self._subscriber.begin():
                yield message

    def _finish(self) -> None:
        """End what runs for this connection. Where the server began it, the client has
        CLOSE_TIMEOUT_S to answer."""
        self._subscriber.close(_OVER)
        self._guard.drain()
        self._writer.join()
        self._ws.thread.join(CLOSE_TIMEOUT_S)
        if not self._ws.thread.is_alive():
            self._guard.close()
            self._guard.linger()
        self._guard.cut()

    def _write(self) -> None:
        try:
            while self._write_next():
                pass
        except OSError:
            self._subscriber.close(_OVER)
        finally:
            # Wakes the receiving side, which otherwise sleeps until its client says something.
            self._ws.event.set()

    def _write_next(self) -> bool:
        """Write what waits; False when the connection is over."""
        frames = self._subscriber.take(max(0.0, self._ping_at - self._clock()))
        if frames is not NOTHING:
            self._guard.sendall(frames.data, self._is_late)
            metrics.MESSAGES_SENT.inc(frames.messages)
        elif self._subscriber.is_over:
            assert self._subscriber.closing is not None
            self._say_goodbye(self._subscriber.closing)
            return False
        return self._ping()

    def _is_late(self) -> bool:
        """Whether the connection is ending and the client has had its time to take the rest."""
        if self._subscriber.closing is None:
            return False
        now = self._clock()
        self._closing_since = self._closing_since or now
        return now - self._closing_since > CLOSE_TIMEOUT_S

    def _say_goodbye(self, closing: Closing) -> None:
        try:
            self._ws.close(closing.code, closing.reason)
        except (ConnectionClosed, LocalProtocolError):
            return

    def _ping(self) -> bool:
        """Send a ping if it is time for one; False where the last one found nobody."""
        if self._clock() < self._ping_at:
            return True
        if self._guard.reads == self._reads_at_ping and not self._guard.is_held:
            self._subscriber.close(_OVER)
            self._guard.cut()
            return False
        # Before it is sent: the pong may be here before the send returns.
        self._reads_at_ping = self._guard.reads
        self._guard.sendall(PING)
        self._ping_at = self._clock() + PING_S
        return True
