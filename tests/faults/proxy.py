"""A proxy that cuts connections in the middle of what it carries, after the idea of psycopg's
tests/fix_proxy.py. It knows bytes only.
"""

import random
import select
import socket
import struct
import threading
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Final, Self

CHUNK_BYTES: Final = 64 * 1024
ACCEPT_TIMEOUT_S: Final = 0.1
"""How soon the proxy notices that it is to end."""
RESET: Final = struct.pack("ii", 1, 0)
"""SO_LINGER so that a close is a reset: what was not delivered is lost, as with a cut cable."""


@dataclass
class Cut:
    """What is to happen next: on the next connection on which something goes that way, so many of
    its bytes pass, then the connection is gone.
    """

    answers: bool
    keep_bytes: int


@dataclass
class Proxy:
    """Listens on a free port of loopback and carries everything to `target`. Use as a context."""

    target: tuple[str, int]
    cuts: int = 0
    """How many connections were cut."""
    delay_s: float = 0.0
    """What each piece of an answer waits: a slow server."""
    _next: Cut | None = None
    _guard: threading.Lock = field(default_factory=threading.Lock)
    _stop: threading.Event = field(default_factory=threading.Event)
    _threads: list[threading.Thread] = field(default_factory=list)

    def __enter__(self) -> Self:
        self._listener = socket.create_server(("127.0.0.1", 0))
        self._listener.settimeout(ACCEPT_TIMEOUT_S)
        self._start(self._accept)
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        for thread in self._threads:
            thread.join()
        self._listener.close()

    @property
    def port(self) -> int:
        """Where clients connect."""
        port: int = self._listener.getsockname()[1]
        return port

    def cut(self, rng: random.Random, bytes_max: int) -> None:
        """Cut the next connection that carries something: request or answer, after a few bytes."""
        with self._guard:
            self._next = Cut(rng.random() < 0.5, rng.randrange(bytes_max))

    @property
    def is_cut(self) -> bool:
        """Whether the last `cut` has happened."""
        return self._next is None

    def _start(self, run: object, *arguments: object) -> None:
        thread = threading.Thread(target=run, args=arguments, daemon=True)  # type: ignore[arg-type]
        self._threads.append(thread)
        thread.start()

    def _accept(self) -> None:
        while not self._stop.is_set():
            with suppress(TimeoutError):
                client, _ = self._listener.accept()
                self._start(self._carry, client)

    def _carry(self, client: socket.socket) -> None:
        """One connection to its end."""
        try:
            server = socket.create_connection(self.target, timeout=5)
        except OSError:
            _reset(client)
            return
        try:
            while not self._stop.is_set():
                ready, _, _ = select.select([client, server], [], [], ACCEPT_TIMEOUT_S)
                for end in ready:
                    if not self._pass_on(end, client, server):
                        return
        except OSError:
            pass
        finally:
            _reset(client)
            _reset(server)

    def _pass_on(self, end: socket.socket, client: socket.socket, server: socket.socket) -> bool:
        """What waits at one end; False when the connection is over."""
        data = end.recv(CHUNK_BYTES)
        if not data:
            return False
        answers = end is server
        if answers and self.delay_s:
            self._stop.wait(self.delay_s)
        cut = self._take(answers=answers)
        other = client if answers else server
        other.sendall(data if cut is None else data[: cut.keep_bytes])
        return cut is None

    def _take(self, *, answers: bool) -> Cut | None:
        with self._guard:
            if self._next is None or self._next.answers != answers:
                return None
            cut, self._next = self._next, None
            self.cuts += 1
            return cut


def _reset(end: socket.socket) -> None:
    with suppress(OSError):
        end.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET)
    end.close()
