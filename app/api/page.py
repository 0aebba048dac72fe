"""The trading page: `/`, and its files under `/assets`. Sent with headers under which a browser
runs only what comes from here and talks to nobody else. Must not know what the page does.
"""

from typing import Final

from flask import Blueprint, Response, request

from app.api.problems import Problem
from app.web import assets
from app.web.assets import Asset

# connect-src: the WebSocket of the same host included.
CONTENT_SECURITY_POLICY: Final = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'; "
    "require-trusted-types-for 'script'; trusted-types 'none'"
)
HEADERS: Final = {
    "Content-Security-Policy": CONTENT_SECURITY_POLICY,
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    # Kept, and asked for again each time: a page never runs with files of two versions.
    "Cache-Control": "no-cache",
}


def page_blueprint() -> Blueprint:
    """Routes `/` and `/assets/<name>`."""
    blueprint = Blueprint("page", __name__)
    files = assets.load()

    @blueprint.get("/")
    def index() -> Response:
        return _answer(files[assets.INDEX])

    @blueprint.get("/assets/<name>")
    def asset(name: str) -> Response:
        found = files.get(name)
        if found is None:
            raise Problem(404, "not_found", "the page has no such file")
        return _answer(found)

    return blueprint


def _answer(asset: Asset) -> Response:
    response = Response(asset.content, content_type=asset.content_type, headers=HEADERS)
    response.set_etag(asset.etag)
    response.make_conditional(request)
    return response
