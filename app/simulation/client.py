"""A client of the REST API, of one server over one connection. Repeats nothing by itself."""

from __future__ import annotations

import http.client
import time
from http import HTTPStatus
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import urlencode, urlsplit

import msgspec

if TYPE_CHECKING:
    from collections.abc import Sequence

    from app.simulation.orders import Item

TIMEOUT_S: Final = 10.0
IDLE_S_MAX: Final = 30.0
"""A connection that was silent for longer is not trusted: the server may just be closing it."""
ANSWER_BYTES_MAX: Final = 64 * 1024 * 1024
LATER: Final = frozenset({HTTPStatus.REQUEST_TIMEOUT, HTTPStatus.TOO_MANY_REQUESTS})

Document = dict[str, Any]


class ServerAway(Exception):
    """No answer, or none that helps: it may go well later. The text says why."""


class ServerRefuses(Exception):
    """The server will not answer such a request, now or later. The text says why."""


class ApiClient:
    """Speaks to the server at `url`, which is `http://host:port` or https."""

    def __init__(self, url: str) -> None:
        parts = urlsplit(url)
        is_tls = parts.scheme == "https"
        kind = http.client.HTTPSConnection if is_tls else http.client.HTTPConnection
        assert parts.hostname is not None, "the arguments are checked"
        self._connection = kind(parts.hostname, parts.port, timeout=TIMEOUT_S)
        self._prefix = parts.path.rstrip("/")
        self._used_s = time.monotonic()

    def get(self, path: str, **query: object) -> Document:
        """The document at `path`.

        Raises:
            ServerAway, ServerRefuses.
        """
        return self._request("GET", f"{path}?{urlencode(query)}" if query else path)

    def delete(self, path: str, **query: object) -> Document:
        """What was deleted. Raises as `get` does."""
        return self._request("DELETE", f"{path}?{urlencode(query)}")

    def batch(self, items: Sequence[Item]) -> list[tuple[int, Document]]:
        """Status and body of each item of a POST /orders/batch. Raises as `get` does."""
        body = msgspec.json.encode({"items": items})
        results = self._request("POST", "/orders/batch", body).get("results")
        try:
            told = [(int(one["status"]), dict(one["body"])) for one in results or ()]
        except (KeyError, TypeError, ValueError) as error:
            raise ServerAway(f"its answer to a batch cannot be read: {error!r}") from error
        if len(told) != len(items):
            raise ServerAway(f"it answered {len(told)} of {len(items)} items")
        return told

    def close(self) -> None:
        """Ends the connection; the next request makes a new one."""
        self._connection.close()

    def _request(self, method: str, path: str, body: bytes | None = None) -> Document:
        if time.monotonic() - self._used_s > IDLE_S_MAX:
            self.close()
        headers = {"Content-Type": "application/json"} if body else {}
        try:
            self._connection.request(method, self._prefix + path, body, headers)
            response = self._connection.getresponse()
            content = response.read(ANSWER_BYTES_MAX)
            document = msgspec.json.decode(content, type=dict[str, Any])
        except (OSError, http.client.HTTPException, msgspec.DecodeError) as error:
            self.close()
            raise ServerAway(str(error) or type(error).__name__) from error
        except BaseException:
            self.close()  # half an answer may be left in it
            raise
        self._used_s = time.monotonic()
        if response.status == HTTPStatus.OK:
            return document
        told = f"{response.status} {document.get('code')}: {document.get('detail')}"
        if response.status >= HTTPStatus.INTERNAL_SERVER_ERROR or response.status in LATER:
            raise ServerAway(told)
        raise ServerRefuses(f"{method} {path}: {told}")
