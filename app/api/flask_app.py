"""Flask, without what no route of ours uses: sessions, subdomains and host names. Together they
cost an order more time than its checks do. Must not know the routes.
"""

from typing import Any

from flask import Flask, Request
from flask.sessions import NullSession, SessionInterface
from werkzeug.routing import MapAdapter

HOST = "crossbook"
"""Stands for every host name: none is in any route, and no answer redirects."""


class NoSessions(SessionInterface):
    """The same empty session for every request; there is nothing in it, and nothing is kept."""

    _session = NullSession()

    def open_session(self, app: Flask, request: Request) -> NullSession:  # noqa: ARG002
        """See Flask."""
        return self._session

    def save_session(self, *_what: Any) -> None:  # noqa: ANN401
        """There is none."""


class LeanFlask(Flask):
    """The application's class."""

    session_interface = NoSessions()

    def __init__(self, *args: Any, **options: Any) -> None:  # noqa: ANN401
        super().__init__(*args, **options)
        self.url_map.merge_slashes = False  # or `/api//orders` would be sent to HOST

    def create_url_adapter(self, request: Request | None) -> MapAdapter | None:
        """Binds the routes to a request without checking and splitting its host name."""
        if request is None or "HTTP_UPGRADE" in request.environ:
            return super().create_url_adapter(request)
        return self.url_map.bind(
            HOST,
            "/",
            None,
            "http",
            request.method,
            request.path,
            request.environ.get("QUERY_STRING", ""),
        )
