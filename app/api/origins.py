"""Keeps foreign web pages from trading. With AUTH=off, loopback is the only protection, and a
browser on this machine reaches through it on behalf of every page that it shows:

- A page of any site may send a form, a `text/plain` POST or a WebSocket handshake here; that it may
  not read the answer does not undo the order. Browsers name the page's site in `Origin` with every
  handshake and every method but GET and HEAD, and pages can neither change nor drop that header.
- A page whose own name was made to point to 127.0.0.1 after it was loaded (DNS rebinding) is of the
  same origin as we are, as far as the browser knows: `Origin` and `Host` agree, on a name that is
  not one of loopback.

What is no browser (curl, REST clients, WebSocket libraries) sends no `Origin`, or our own, and is
never foreign. Must not know who is who: this is about pages, not about people.
"""

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any, Final, TypeAlias
from urllib.parse import urlsplit

from app.api.problems import PROBLEM_JSON, Problem
from app.config import is_loopback

if TYPE_CHECKING:
    from _typeshed.wsgi import StartResponse, WSGIApplication

Environ: TypeAlias = dict[str, Any]

SAFE_METHODS: Final = frozenset({"GET", "HEAD", "OPTIONS"})
"""They change nothing; what they answer, the browser keeps from foreign pages by itself."""
DEFAULT_PORTS: Final = {"http": 80, "https": 443}
"""Schemes of pages, and the port that `Origin` and `Host` leave out."""
STATUS: Final = "403 Forbidden"
FOREIGN: Final = Problem(403, "cross_origin", "a page of another site may not do this")


def foreign_origin(environ: Environ, loopback_only: bool) -> bool:  # noqa: FBT001  # a setting
    """Whether a page of another site made the browser send this request. With `loopback_only` (we
    listen on loopback), pages of every name that is not loopback's are of another site.
    """
    origin = environ.get("HTTP_ORIGIN")
    if environ.get("HTTP_SEC_FETCH_SITE") == "cross-site":
        return True
    if origin is None:
        return False
    try:
        return not _is_ours(origin, environ.get("HTTP_HOST", ""), loopback_only=loopback_only)
    except ValueError:  # no URL, or no port
        return True


def _is_ours(origin: str, host: str, *, loopback_only: bool) -> bool:
    page = urlsplit(origin)
    # "null" has no scheme: a sandboxed frame, a file, a redirect from elsewhere.
    if page.scheme not in DEFAULT_PORTS or page.hostname is None:
        return False
    # Behind a proxy that ends TLS, only `Origin` knows the scheme that the browser speaks.
    here = urlsplit(f"{page.scheme}://{host}")
    port = DEFAULT_PORTS[page.scheme]
    if (page.hostname, page.port or port) != (here.hostname, here.port or port):
        return False
    return not loopback_only or is_loopback(page.hostname)


class SameOrigin:
    """WSGI middleware: 403 `cross_origin` to whatever a foreign page sends that could change
    something or open a WebSocket. Stands inside RequestIds, which completes its answers.
    """

    def __init__(self, application: "WSGIApplication", loopback_only: bool) -> None:  # noqa: FBT001
        self._application = application
        self._loopback_only = loopback_only

    def __call__(self, environ: Environ, start_response: "StartResponse") -> Iterable[bytes]:
        """See PEP 3333. What every request costs comes first."""
        if "HTTP_ORIGIN" not in environ and "HTTP_SEC_FETCH_SITE" not in environ:
            return self._application(environ, start_response)
        if _can_do_harm(environ) and foreign_origin(environ, self._loopback_only):
            return _refuse(environ, start_response)
        return self._application(environ, start_response)


def _can_do_harm(environ: Environ) -> bool:
    # A handshake is a GET whose answer the browser lets every page read.
    is_handshake = "websocket" in environ.get("HTTP_UPGRADE", "").lower()
    return is_handshake or environ["REQUEST_METHOD"] not in SAFE_METHODS


def _refuse(environ: Environ, start_response: "StartResponse") -> Iterable[bytes]:
    # WSGI's paths are bytes in disguise.
    path = environ.get("PATH_INFO", "").encode("latin-1").decode("utf-8", "replace")
    body = FOREIGN.body(path)
    start_response(STATUS, [("Content-Type", PROBLEM_JSON), ("Content-Length", str(len(body)))])
    return [body]
