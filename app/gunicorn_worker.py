"""gunicorn's gevent worker, answering in one piece: gunicorn sends an answer's headers and body by
two calls, and on loopback a send is the dearest thing that a request does (two fifths of the
worker's time). It must know no more of us than gunicorn_config.py may.
"""

from __future__ import annotations

from functools import partial
from typing import Any

from gunicorn.http import wsgi
from gunicorn.util import write
from gunicorn.workers.ggevent import GeventWorker


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
            self.sock.sendall(head + data)

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


class Worker(GeventWorker):  # type: ignore[misc]
    """The worker that gunicorn_config.py names."""

    def init_process(self) -> None:
        """In the worker, after the fork: gunicorn asks `create` for the class by this argument."""
        wsgi.create = partial(wsgi.create, response_class=WholeResponse)
        super().init_process()
