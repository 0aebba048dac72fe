"""One connection under ordinary threads: a real simple-websocket server on one end of a socket
pair, a bare client on the other."""

import socket
import threading
import time
from collections.abc import Callable, Iterator

import pytest
from simple_websocket import Server
from wsproto import ConnectionType, WSConnection
from wsproto.events import CloseConnection, Event, Ping, Pong, Request, TextMessage

from app.feed import connection as connection_module
from app.feed import transport
from app.feed.connection import INBOX_MESSAGES_MAX, Connection
from app.feed.messages import Frames, frame
from app.feed.subscribers import Closing, Subscriber
from app.feed.transport import GuardedSocket

LIMIT_S = 20.0
SMALLEST_FRAME = 7
"""Bytes of a masked frame with one byte in it."""
READ_BYTES = 4096
"""What simple-websocket reads at once."""


def until(condition: Callable[[], object]) -> None:
    """Wait until `condition` gives something true."""
    deadline = time.monotonic() + LIMIT_S
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.005)


class Peer:
    """The client's end: sends frames, reads events."""

    def __init__(self, sock: socket.socket) -> None:
        self.sock = sock
        self.ws = WSConnection(ConnectionType.CLIENT)
        self._events: list[Event] = []

    def greet(self) -> dict[str, str]:
        """The handshake as a WSGI server would hand it on."""
        request = self.ws.send(Request(host="localhost", target="/ws")).decode()
        pairs = (line.split(": ", 1) for line in request.splitlines()[1:] if line)
        return {"HTTP_" + name.upper().replace("-", "_"): value for name, value in pairs}

    def send(self, event: Event) -> None:
        self.sock.sendall(self.ws.send(event))

    def send_for_ever(self, event: Event) -> None:
        while True:
            self.send(event)

    def next(self) -> Event | None:
        """The next event, or None at the end of the connection."""
        while not self._events:
            data = self.sock.recv(65_536)
            if not data:
                return None
            self.ws.receive_data(data)
            self._events += self.ws.events()
        return self._events.pop(0)


class Line:
    """A connection that runs, its peer, and what was handled so far."""

    def __init__(
        self,
        handle: Callable[[str | bytes], None] | None = None,
        ended: Callable[[], None] = lambda: None,
    ) -> None:
        ours, theirs = socket.socketpair()
        theirs.settimeout(LIMIT_S)
        self.sock = ours
        self.peer = Peer(theirs)
        self.handled: list[str | bytes] = []
        self.subscriber = Subscriber(bytes_max=10**9)
        self.guard = GuardedSocket(ours)
        self.ws = Server({"werkzeug.socket": self.guard, **self.peer.greet()})
        self.peer.next()
        connection = Connection(self.ws, self.guard, self.subscriber)
        self.thread = threading.Thread(
            target=connection.run, args=(handle or self.handled.append, ended), daemon=True
        )
        self.thread.start()

    @property
    def is_over(self) -> bool:
        return not self.thread.is_alive()

    def close(self) -> None:
        self.peer.sock.close()
        self.thread.join(LIMIT_S)
        self.sock.close()


@pytest.fixture
def line() -> Iterator[Line]:
    opened = Line()
    yield opened
    opened.close()


def text(value: str) -> Frames:
    """A text message."""
    return frame({"v": value})


def test_messages_go_both_ways_and_pings_are_answered(line: Line) -> None:
    """What arrives is handled, what is queued is sent, a ping gets its pong."""
    line.peer.send(TextMessage("a"))
    line.peer.send(Ping(b"p"))
    line.subscriber.offer(text("x"))
    found = {type(line.peer.next()) for _ in range(2)}
    assert found == {TextMessage, Pong}
    until(lambda: line.handled == ["a"])


def test_a_close_by_the_client_ends_the_connection(line: Line) -> None:
    """Answered with a close frame; nothing is left running."""
    line.peer.send(CloseConnection(1000))
    assert isinstance(line.peer.next(), CloseConnection)
    assert line.peer.next() is None
    line.peer.sock.close()
    until(lambda: line.is_over)


def test_the_end_is_told_before_the_leave_taking(monkeypatch: pytest.MonkeyPatch) -> None:
    """A peer that says goodbye slowly must not keep orders alive that its end is to cancel."""
    told: list[str] = []
    monkeypatch.setattr(GuardedSocket, "drain", lambda _guard: told.append("drained"))
    line = Line(ended=lambda: told.append("ended"))
    line.peer.send(CloseConnection(1000))
    until(lambda: len(told) == 2)
    line.close()
    assert told == ["ended", "drained"]


def test_a_close_by_the_server_comes_after_its_last_words(line: Line) -> None:
    """The farewell, then the close frame; the connection ends when the client has answered."""
    line.subscriber.close(Closing(4008, "slow"), text("bye"))
    farewell, close = line.peer.next(), line.peer.next()
    assert isinstance(farewell, TextMessage)
    assert isinstance(close, CloseConnection)
    assert (close.code, close.reason) == (4008, "slow")
    assert not line.is_over
    line.peer.send(close.response())
    assert line.peer.next() is None
    line.peer.sock.close()
    until(lambda: line.is_over)


def test_a_client_that_does_not_answer_a_close_is_cut_off(
    line: Line, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also one that goes on sending: it cannot keep the connection, nor fill memory."""
    monkeypatch.setattr(connection_module, "CLOSE_TIMEOUT_S", 0.2)
    monkeypatch.setattr(transport, "DRAIN_BYTES_MAX", 50_000)
    line.subscriber.close(Closing(1001, ""))
    with pytest.raises(OSError, match=r"Broken pipe|reset"):
        line.peer.send_for_ever(TextMessage("x" * 1_000))
    until(lambda: line.is_over)
    before = INBOX_MESSAGES_MAX * 1_000 + READ_BYTES
    assert sum(map(len, line.ws.input_buffer)) <= 50_000 + before


def test_reading_stops_while_messages_wait() -> None:
    """The inbox never holds more than its limit and what one read may add; nothing is lost."""
    go_on, handled = threading.Event(), []

    def handle(message: str | bytes) -> None:
        go_on.wait(LIMIT_S)
        handled.append(message)

    line = Line(handle)
    sender = threading.Thread(
        target=lambda: [line.peer.send(TextMessage("x")) for _ in range(20_000)], daemon=True
    )
    sender.start()
    until(lambda: line.guard.is_held)
    waiting = len(line.ws.input_buffer)
    assert INBOX_MESSAGES_MAX <= waiting <= INBOX_MESSAGES_MAX + READ_BYTES // SMALLEST_FRAME
    go_on.set()
    until(lambda: len(handled) == 20_000)
    line.close()


def test_a_silent_peer_is_found_dead(monkeypatch: pytest.MonkeyPatch) -> None:
    """Two pings without any sign of life end the connection; a peer that answers stays."""
    monkeypatch.setattr(connection_module, "PING_S", 0.5)
    dead, alive = Line(), Line()
    answered = 0
    while answered < 5 or not dead.is_over:
        ping = alive.peer.next()
        assert isinstance(ping, Ping)
        alive.peer.send(ping.response())
        answered += 1
    assert not alive.is_over
    dead.close()
    alive.close()


def test_a_client_that_takes_nothing_is_cut_off(monkeypatch: pytest.MonkeyPatch) -> None:
    """A write that does not end within its time-out ends the connection as a slow consumer."""
    monkeypatch.setattr(transport, "SEND_TIMEOUT_S", 0.2)
    line = Line()
    line.subscriber.offer(Frames(b"\x81\x00" * 10**7, 10**4))
    until(lambda: line.is_over)
    assert line.subscriber.closing is not None
    assert line.subscriber.closing.code == 4008
    line.close()


def test_writers_do_not_tear_each_others_frames() -> None:
    """A write is whole and alone, also where the kernel takes it in parts."""
    ours, theirs = socket.socketpair()
    guard = GuardedSocket(ours)
    letters = b"abcdefgh"
    size = 300_000
    writers = [
        threading.Thread(target=guard.send, args=(bytes([letter]) * size,)) for letter in letters
    ]
    for writer in writers:
        writer.start()
    got = b""
    while len(got) < size * len(letters):
        got += theirs.recv(65_536)
    runs = [got[at : at + size] for at in range(0, len(got), size)]
    assert sorted(run[:1] for run in runs) == [bytes([letter]) for letter in letters]
    assert all(len(set(run)) == 1 for run in runs)
    for writer in writers:
        writer.join()


def test_a_write_given_up_ends_the_connection() -> None:
    """Half a frame cannot be followed by anything."""
    ours, theirs = socket.socketpair()
    guard = GuardedSocket(ours)
    answers = iter([False, True])
    with pytest.raises(TimeoutError):
        guard.sendall(b"x" * (transport.SEND_CHUNK_BYTES + 1), lambda: next(answers))
    assert len(theirs.recv(10**6, socket.MSG_WAITALL)) == transport.SEND_CHUNK_BYTES
    with pytest.raises(OSError, match="Broken pipe"):
        guard.send(b"x")
