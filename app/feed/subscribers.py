"""One socket's queue of outgoing frames, bounded in messages and in bytes.

Whoever offers never waits: what does not fit ends the subscription as a slow consumer, costs
nobody else anything, and is said to the client. Must not know sockets or instruments.
"""

from collections import deque
from threading import Event, Lock
from typing import NamedTuple

from app.feed import metrics
from app.feed.messages import NOTHING, Channel, Frames, error

QUEUE_MESSAGES_MAX = 65_536
QUEUE_BYTES_MAX = 8 * 1024 * 1024
"""Also the largest book that can be followed: a snapshot of about 250,000 levels."""
WRITE_BYTES = 64 * 1024
"""What a writer takes at once: enough to make a system call worth while, little enough that a
client that reads at all is done with it soon."""

CLOSE_NORMAL = 1000
CLOSE_GOING_AWAY = 1001
CLOSE_INTERNAL_ERROR = 1011
CLOSE_SLOW_CONSUMER = 4008


class Closing(NamedTuple):
    """Why and how the server ends a connection: the WebSocket close code and its text."""

    code: int
    reason: str


_SLOW = Closing(CLOSE_SLOW_CONSUMER, "slow consumer")
_TOLD_SLOW = error("slow_consumer", "messages came faster than this connection read them")


class Subscriber:
    """The feed's end of one connection. Thread-safe; one thread takes, any number offer."""

    def __init__(
        self, messages_max: int = QUEUE_MESSAGES_MAX, bytes_max: int = QUEUE_BYTES_MAX
    ) -> None:
        self.subscriptions: set[tuple[Channel, str]] = set()
        """Channel and symbol of each subscription; the hub's, changed under its lock only."""
        self.closing: Closing | None = None
        """Set once, when the server has decided to end the connection."""
        self.compressed = False
        """Whether its client agreed on compressed messages; set before it subscribes."""
        self._messages_max = messages_max
        self._bytes_max = bytes_max
        self._queue: deque[Frames] = deque()
        self._messages = 0
        self._bytes = 0
        self._retires = False
        self._handles = False
        self._lock = Lock()
        self._filled = Event()
        self._emptied = Event()

    def begin(self) -> bool:
        """A message of the client is about to be handled; False where the connection is ending and
        it must not be: its answer would not be sent."""
        with self._lock:
            self._handles = self.closing is None
            return self._handles

    def end(self) -> None:
        """The message is handled, and its answer offered."""
        with self._lock:
            self._handles = False
        self._filled.set()

    @property
    def is_over(self) -> bool:
        """Whether nothing is left to be sent but the goodbye."""
        with self._lock:
            return self.closing is not None and not self._queue and not self._still_answers()

    def _still_answers(self) -> bool:
        return self._retires and self._handles

    def offer(self, frames: Frames) -> bool:
        """Queue `frames`; False where the connection is ending and they will not be sent."""
        with self._lock:
            if self.closing is not None and not self._still_answers():
                return False
            self._messages += frames.messages
            self._bytes += len(frames.data)
            full = self._messages > self._messages_max or self._bytes > self._bytes_max
            if not full:
                self._queue.append(frames)
        if full:
            self.fall_behind()
            return False
        self._filled.set()
        return True

    def wait_for_room(self) -> None:
        """Wait until at most half of the queue is taken, or the connection is ending: for whoever
        has much to offer and need not offer it now."""
        while True:
            with self._lock:
                self._emptied.clear()
                is_half_empty = (
                    self._messages * 2 <= self._messages_max and self._bytes * 2 <= self._bytes_max
                )
                if is_half_empty or self.closing is not None:
                    return
            self._emptied.wait()

    def take(self, timeout_s: float) -> Frames:
        """What waits, in order, up to about WRITE_BYTES; NOTHING after `timeout_s` without any,
        and at once when the connection is ending and all was taken."""
        with self._lock:
            self._filled.clear()
            idle = not self._queue and (self.closing is None or self._still_answers())
        if idle:
            self._filled.wait(timeout_s)
        with self._lock:
            return self._pop()

    def _pop(self) -> Frames:
        taken: list[bytes] = []
        messages = size = 0
        while self._queue and size < WRITE_BYTES:
            frames = self._queue.popleft()
            taken.append(frames.data)
            messages += frames.messages
            size += len(frames.data)
        self._messages -= messages
        self._bytes -= size
        self._emptied.set()
        return Frames(b"".join(taken), messages) if taken else NOTHING

    def close(self, closing: Closing, farewell: Frames = NOTHING) -> bool:
        """End the connection: what waits is dropped, `farewell` is sent, then `closing`.
        False where it was ending already."""
        with self._lock:
            if self.closing is not None:
                return False
            self.closing = closing
            self._queue.clear()
            self._messages = self._bytes = 0
            if farewell.messages:
                self._queue.append(farewell)
                self._messages, self._bytes = farewell.messages, len(farewell.data)
        self._filled.set()
        self._emptied.set()
        return True

    def retire(self, closing: Closing) -> None:
        """End the connection once what waits is sent, and the answer to the message in hand: what
        that asked for may be done already."""
        with self._lock:
            if self.closing is not None:
                return
            self.closing, self._retires = closing, True
        self._filled.set()
        self._emptied.set()

    def fall_behind(self) -> None:
        """End the connection because its client reads too slowly, and tell it so."""
        if self.close(_SLOW, _TOLD_SLOW):
            metrics.SLOW_CONSUMERS.inc()
