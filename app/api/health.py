"""Whether the process lives, whether it can take orders, and its metrics."""

from typing import Any

from flask import Blueprint, Response

from app.api import metrics
from app.api.http import json_response
from app.engine.executor import EngineUnavailable
from app.engine.reads import BookReads
from app.logs import logger
from app.persistence.queries import DatabaseUnavailable, Queries

MAX_LAG_EVENTS = 1_000_000
"""Events that Postgres may be behind; beyond it the books take no orders (lua/lib/intake.lua)."""
METRICS_TYPE = "text/plain; version=0.0.4; charset=utf-8"

Check = dict[str, Any]


def health_blueprint(reads: BookReads, queries: Queries) -> Blueprint:
    """Routes `/healthz`, `/readyz` and `/metrics`."""
    blueprint = Blueprint("health", __name__)

    @blueprint.get("/healthz")
    def alive() -> Response:
        return json_response({"status": "alive"})

    @blueprint.get("/readyz")
    def ready() -> Response:
        checks = _redis_checks(reads) | {"postgres": _postgres_check(queries)}
        # Orders are taken while Postgres is away: the stream keeps them, up to the bound on lag.
        ready = all(checks[name]["ok"] for name in ("redis", "books", "persister"))
        persister = checks["persister"]
        whole = all(check["ok"] for check in checks.values())
        whole = whole and not persister["halted"] and not persister["crowded"]
        status = "not_ready" if not ready else "ready" if whole else "degraded"
        document = {"status": status, "checks": checks}
        return json_response(document, 200 if ready else 503)

    @blueprint.get("/metrics")
    def scrape() -> Response:
        return Response(metrics.page(reads, queries), content_type=METRICS_TYPE)

    return blueprint


def _redis_checks(reads: BookReads) -> dict[str, Check]:
    """Redis itself; a book for every instrument; whether what is due by the clock is done; how far
    the persister is behind.
    """
    try:
        symbols = [instrument.symbol for instrument in reads.instruments()]
        missing = reads.without_book(symbols)
        lag = max(reads.lags(symbols).values(), default=0)
        crowded = reads.crowded(symbols)
        halted, is_swept = reads.halted(), reads.is_swept()
        read_only = reads.why_read_only()
    except EngineUnavailable as error:
        logger.warning("Redis is away", extra={"error": repr(error)})
        away: Check = {"ok": False, "detail": "Redis does not answer now"}
        return {
            "redis": away,
            "books": away,
            "sweeper": away,
            "persister": {**away, "halted": {}, "crowded": []},
        }
    return {
        "redis": _redis_check(read_only),
        "books": {"ok": bool(symbols) and not missing, "listed": len(symbols), "missing": missing},
        "sweeper": {"ok": is_swept},
        "persister": {
            "ok": lag <= MAX_LAG_EVENTS and len(crowded) < max(1, len(symbols)),
            "lag_events": lag,
            "halted": halted,
            "crowded": crowded,
        },
    }


def _redis_check(read_only: str | None) -> Check:
    if read_only is None:
        return {"ok": True}
    return {"ok": False, "detail": f"Redis takes no writes now: {read_only}"}


def _postgres_check(queries: Queries) -> Check:
    try:
        queries.ping()
    except DatabaseUnavailable:
        detail = "Postgres does not answer now; orders are taken and stored later"
        return {"ok": False, "detail": detail}
    return {"ok": True}
