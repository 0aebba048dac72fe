"""gunicorn's gevent worker, with two things of our own. It does less for each request: headers and
body go out by one send and not by two, and settings are looked up once and not a hundred times. And
where gunicorn answers in the application's place, to what is hardly HTTP, it answers like the
application. It must know no more of us than gunicorn_config.py may, so it shares the shape of a
problem with app.api.problems only by tests.
"""

from __future__ import annotations

import json
import os
from functools import partial
from http import HTTPStatus
from typing import TYPE_CHECKING, Any, Final

from gunicorn import util
from gunicorn.http import wsgi
from gunicorn.util import write
from gunicorn.workers.ggevent import GeventWorker

if TYPE_CHECKING:
    import socket

DETAIL_CHARACTERS_MAX: Final = 300
# How long, and for how much, we read on after an error: see Worker.handle_error.
LINGER_S: Final = 1.0
LINGER_BYTES_MAX: Final = 64 * 1024


class WholeResponse(wsgi.Response):  # type: ignore[misc]  # gunicorn has no types
    """Keeps the headers back until the first bytes of the body, or the end, take them along."""

    headers_sent: bool

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


class Worker(GeventWorker):  # type: ignore[misc]
    """The worker that gunicorn_config.py names."""

    def init_process(self) -> None:
        """In the worker, after the fork: gunicorn asks `create` for the class by this argument, and
        looks up `write_error` whenever it needs it.
        """
        wsgi.create = partial(wsgi.create, response_class=WholeResponse)
        util.write_error = write_problem
        # gunicorn asks its settings through Config.__getattr__, which costs a tenth of a request.
        # They do not change any more: as plain attributes they are found without it.
        self.cfg.__dict__.update({name: each.get() for name, each in self.cfg.settings.items()})
        super().init_process()

    def handle_error(self, req: object, client: socket.socket, addr: object, exc: object) -> None:
        """Answers, then reads on for a moment: the kernel resets a connection that is closed with
        bytes unread, and the client would lose the answer (RFC 9112, 9.6).
        """
        super().handle_error(req, client, addr, exc)
        util.close_graceful(client, LINGER_S, LINGER_BYTES_MAX)
