"""gunicorn's gevent worker, with three things of our own. It does less for each request: headers
and body go out by one send and not by two, and settings are looked up once and not a hundred times.
Where gunicorn answers in the application's place, to what is hardly HTTP, it answers like the
application. And when it stops it takes leave: each answer says that it is the connection's last,
and connections on which nothing is asked are closed, which gunicorn would wait for. It must know no
more of us than gunicorn_config.py may, so it shares the shape of a problem with app.api.problems
only by tests.
"""

from __future__ import annotations

import json
import os
from functools import partial
from http import HTTPStatus
from time import monotonic
from typing import TYPE_CHECKING, Any, Final, Literal, Self

import gevent
from gunicorn import util
from gunicorn.http import wsgi
from gunicorn.util import write
from gunicorn.workers.ggevent import GeventWorker

if TYPE_CHECKING:
    import socket
    from collections.abc import Callable
    from types import TracebackType

DETAIL_CHARACTERS_MAX: Final = 300
# How long, and for how much, we read on before a close: see _let_go.
LINGER_S: Final = 1.0
LINGER_BYTES_MAX: Final = 32 * 1024 * 1024
# How often a worker that stops looks for connections on which nothing is asked; and for how long
# nothing came: what is on its way arrives sooner.
LOOK_EVERY_S: Final = 0.1
IDLE_S: Final = 0.5


class WholeResponse(wsgi.Response):  # type: ignore[misc]  # gunicorn has no types
    """Keeps the headers back until the first bytes of the body, or the end, take them along."""

    headers_sent: bool
    is_last: Callable[[], bool] = staticmethod(lambda: False)
    """Whether the connection is to be closed after this answer, since the worker stops."""

    def should_close(self) -> bool:
        """Also what the header `Connection` says."""
        return self.is_last() or bool(super().should_close())

    def __init__(self, *args: Any) -> None:  # noqa: ANN401
        super().__init__(*args)
        self._head = b""

    def send_headers(self) -> None:
        """Make the headers ready; from here on gunicorn takes them for sent."""
        if self.headers_sent:
            return
        lines = [*self.default_headers(), *(f"{name}: {text}\r\n" for name, text in self.headers)]
        self._head = "".join([*lines, "\r\n"]).encode("latin-1")
        self.headers_sent = True

    def _emit_body(self, data: bytes) -> None:
        if self.chunked:
            self._flush()
            write(self.sock, data, chunked=True)
        else:
            head, self._head = self._head, b""
            whole = head + data
            # Nearly always all of it goes; sendall would look up the socket's time-out first.
            sent = self.sock.send(whole)
            if sent < len(whole):
                self.sock.sendall(whole[sent:])

    def close(self) -> None:
        """The end of an answer, also of one without a body."""
        if not self.headers_sent:
            self.send_headers()
        self._flush()
        super().close()

    def _flush(self) -> None:
        if self._head:
            head, self._head = self._head, b""
            self.sock.sendall(head)


def write_problem(sock: socket.socket, status: int, _reason: str, message: str) -> None:
    """Takes the place of gunicorn.util.write_error, which sends HTML: a problem document (RFC 9457)
    and a request id. gunicorn's reason is not always that of its status.
    """
    # Fresh: of a request that cannot be read, its own id cannot be, either.
    request_id = os.urandom(8).hex()
    body = _problem(HTTPStatus(status), message, request_id)
    head = (
        f"HTTP/1.1 {status} {HTTPStatus(status).phrase}\r\n"
        "Connection: close\r\n"
        "Content-Type: application/problem+json\r\n"
        f"Content-Length: {len(body)}\r\n"
        f"X-Request-Id: {request_id}\r\n"
        "\r\n"
    )
    util.write_nonblock(sock, head.encode("latin-1") + body)


def _problem(status: HTTPStatus, message: str, request_id: str) -> bytes:
    code = status.phrase.lower().replace(" ", "_")
    if status == HTTPStatus.INTERNAL_SERVER_ERROR:
        code, message = "internal_error", "a defect of the server; it has been logged"
    document = {
        "type": f"urn:crossbook:problem:{code}",
        "title": status.phrase,
        "status": status,
        "detail": message[:DETAIL_CHARACTERS_MAX],
        # The path is not known: there may have been none.
        "instance": f"urn:crossbook:request:{request_id}",
        "code": code,
    }
    return json.dumps(document).encode()


class Waiting(gevent.Timeout):
    """A connection's wait for its next request, at most `seconds`. `among` are all such waits."""

    def __init__(self, seconds: float, among: set[Waiting]) -> None:
        super().__init__(seconds, False)  # type: ignore[arg-type]  # noqa: FBT003  # quietly
        self._among = among
        self._greenlet = gevent.getcurrent()
        self._since = monotonic()

    def __enter__(self) -> Self:
        self._among.add(self)
        super().__enter__()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> Literal[True] | None:
        self._among.discard(self)
        return super().__exit__(kind, error, trace)

    def end_if_idle(self) -> None:
        """End it as if its time were over, unless it is over or has just begun. To be called by
        gevent's hub, so that no request is begun between the look and the end. One that arrives at
        that very moment is not read, and so not carried out.
        """
        if self in self._among and monotonic() - self._since > IDLE_S:
            self._greenlet.throw(self)


class Worker(GeventWorker):  # type: ignore[misc]
    """The worker that gunicorn_config.py names."""

    def __init__(self, *args: Any, **settings: Any) -> None:  # noqa: ANN401
        super().__init__(*args, **settings)
        self._waiting: set[Waiting] = set()

    def timeout_ctx(self) -> Waiting:
        """What gunicorn puts around the wait for a request."""
        return Waiting(self.cfg.keepalive, self._waiting)

    def run(self) -> None:
        """Until told to stop, and then until what it took is answered."""
        gevent.spawn(self._take_leave)
        super().run()

    def _take_leave(self) -> None:
        loop = gevent.get_hub().loop
        while True:
            gevent.sleep(LOOK_EVERY_S)
            if not self.alive:
                for waiting in self._waiting:
                    loop.run_callback(waiting.end_if_idle)

    def init_process(self) -> None:
        """In the worker, after the fork: gunicorn asks `create` for the class by this argument, and
        looks up `write_error` whenever it needs it.
        """
        wsgi.create = partial(wsgi.create, response_class=WholeResponse)
        WholeResponse.is_last = staticmethod(lambda: not self.alive)
        util.write_error = write_problem
        # gunicorn asks its settings through Config.__getattr__, which costs a tenth of a request.
        # They do not change any more: as plain attributes they are found without it.
        self.cfg.__dict__.update({name: each.get() for name, each in self.cfg.settings.items()})
        super().init_process()

    def handle_request(
        self,
        listener_name: object,
        req: Any,  # noqa: ANN401
        client: socket.socket,
        addr: object,
    ) -> None:
        """Answers one request; StopIteration: it was the connection's last."""
        try:
            super().handle_request(listener_name, req, client, addr)
        except StopIteration:
            # gunicorn's reader of a chunked body does not say how much is left.
            if getattr(req.body.reader, "length", 1):
                _let_go(client)
            raise

    def handle_error(self, req: object, client: socket.socket, addr: object, exc: object) -> None:
        """Answers a request that cannot be read, or not be answered."""
        super().handle_error(req, client, addr, exc)
        _let_go(client)


def _let_go(client: socket.socket) -> None:
    """Close after reading on for a moment: the kernel resets a connection that is closed with bytes
    unread, and the client would lose the answer (RFC 9112, 9.6).
    """
    util.close_graceful(client, LINGER_S, LINGER_BYTES_MAX)
