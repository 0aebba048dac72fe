"""Crossbook: a limit order book that lives in Redis, behind Flask."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from flask import Flask


def create_app() -> Flask:
    """The WSGI application, set up from the environment.

    Raises:
        ConfigurationError: see `app.config`.
    """
    # Not above: gunicorn's master imports this package before gevent has patched anything.
    from app.api.application import create_application  # noqa: PLC0415

    return create_application()
