"""Every error that leaves the API, in one shape: `application/problem+json` (RFC 9457).

Each has a stable `code`; a validation error also has `errors`, one entry for each wrong field.
"""

import re
from http import HTTPStatus
from math import ceil

import msgspec
from flask import Flask, Response, request
from werkzeug.exceptions import HTTPException

from app.domain.refusals import Refusal
from app.engine.commands import Refused
from app.engine.executor import EngineUnavailable, OutcomeUnknown
from app.engine.floors import LATE_AFTER_US
from app.logs import logger
from app.persistence.queries import DatabaseBusy, DatabaseUnavailable

PROBLEM_JSON = "application/problem+json"
DATABASE_UNAVAILABLE = "database_unavailable"
MAX_FIELD_NAME = 64
"""Characters of a client's own field name that an answer and a log line repeat."""
MAX_REPEATED = 200
"""Characters of what is said of a wrong value, which may hold the value itself."""
RETRY_AFTER_S = 1
"""What a client is told to wait when a part of the system is away; they usually return sooner."""
LATE_S = LATE_AFTER_US / 1_000_000
DECIDED_AFTER_S = ceil(LATE_S) + 1
"""After which everybody can see what became of a command: to repeat it before might do it twice."""


# The decoder's messages. A value of the client's may stand in their middle and look like any of
# this, so these begin where a message begins, and a place is looked for only at its end.
_NAMED = re.compile(r"Object (?:contains (unknown)|missing required) field `([^`]*)`")
_AT = " - at "
_PLACE = re.compile(r"`\$\.?([A-Za-z_]*)")


class FieldError(msgspec.Struct, frozen=True):
    """One wrong field of a request."""

    field: str
    code: str
    detail: str


class Problem(Exception):
    """An answer other than success. `status` is the HTTP status, `code` the stable name."""

    def __init__(
        self,
        status: int,
        code: str,
        detail: str,
        errors: list[FieldError] | None = None,
        retry_after_s: int | None = None,
    ) -> None:
        super().__init__(detail)
        self.status = status
        self.code = code
        self.detail = detail
        self.errors = errors
        self.retry_after_s = retry_after_s

    def body(self, instance: str) -> bytes:
        """The problem document; `instance` is the path that was asked for."""
        document: dict[str, object] = {
            "type": f"urn:crossbook:problem:{self.code}",
            "title": HTTPStatus(self.status).phrase,
            "status": self.status,
            "detail": self.detail,
            "instance": instance,
            "code": self.code,
        }
        if self.errors:
            document["errors"] = self.errors
        return msgspec.json.encode(document)


REFUSALS: dict[Refusal, tuple[int, str]] = {
    Refusal.BOOK_MISSING: (503, "the instrument's book is not in Redis"),
    Refusal.SCHEMA_MISMATCH: (503, "the book was written by another version of Crossbook"),
    Refusal.BOOK_BEHIND: (503, "Redis has lost acknowledged orders; nothing is taken meanwhile"),
    Refusal.BOOK_CHANGED: (503, "the instrument's book was just rebuilt"),
    Refusal.TOO_LATE: (503, "Redis came to it too late; nothing was done"),
    Refusal.IDEMPOTENCY_KEY_REUSED: (422, "this idempotency key came with another payload before"),
    Refusal.BACKLOG_FULL: (503, "too much waits to be stored; cancels pass"),
    Refusal.INSTRUMENT_HALTED: (422, "trading in the instrument is halted"),
    Refusal.CANCEL_ONLY: (422, "the instrument takes cancels only"),
    Refusal.KILL_SWITCH: (422, "the client's kill switch is on; cancels pass"),
    Refusal.EXPIRES_IN_PAST: (400, "the order would have expired already"),
    Refusal.DUPLICATE_CLIENT_ORDER_ID: (409, "an open order of this client has this id already"),
    Refusal.RISK_LIMIT: (422, "above the instrument's limit of quantity, notional or open orders"),
    Refusal.PRICE_BAND: (422, "the price is too far from the last trade's"),
    Refusal.TIMER_DUE: (409, "the timer has run out; it can be set again when it has fired"),
    Refusal.TRIGGERS_OUTSTANDING: (503, "triggered stops are being carried out; ask again soon"),
    Refusal.STOP_WOULD_TRIGGER: (422, "the last trade has reached the stop price already"),
    Refusal.POST_ONLY_WOULD_CROSS: (422, "the order would trade at once"),
    Refusal.LEVEL_QUANTITY_OVERFLOW: (422, "no more quantity fits at this price"),
    Refusal.ORDER_NOT_FOUND: (404, "no such order"),
    Refusal.ORDER_NOT_OPEN: (409, "the order is over"),
    Refusal.NOT_AMENDABLE: (422, "the order has no such price to change"),
    Refusal.AMEND_BELOW_FILLED: (422, "more than that is filled already"),
}
"""What the book's refusals mean to a client: HTTP status and words."""


def invalid(errors: list[FieldError]) -> Problem:
    """400 for fields that are wrong in themselves."""
    names = ", ".join(error.field for error in errors)
    return Problem(400, "validation_failed", f"invalid: {names}", errors)


def body_problem(error: Exception) -> Problem:
    """The problem of a body that could not be decoded: not JSON, or not the right fields."""
    if not isinstance(error, msgspec.ValidationError):
        return Problem(400, "malformed_json", str(error) or "nested too deep")
    message = str(error)
    named = _NAMED.match(message)
    if named and named[1]:
        return invalid([FieldError(named[2][:MAX_FIELD_NAME], "unknown_field", "no such field")])
    if named:
        return invalid([FieldError(named[2], "required", "must be given")])
    said, _, place = message.rpartition(_AT)
    found = _PLACE.match(place)
    field = found[1] if found and found[1] else "body"
    return invalid([FieldError(field, "invalid_value", (said or message)[:MAX_REPEATED])])


def refused(refusal: Refusal) -> Problem:
    """The problem that a refusal of the book is."""
    status, detail = REFUSALS[refusal]
    away = status == HTTPStatus.SERVICE_UNAVAILABLE
    return Problem(status, refusal.value, detail, retry_after_s=RETRY_AFTER_S if away else None)


def problem_of(error: Exception) -> Problem:
    """The problem that any exception of a request is; unknown ones are logged and are a 500."""
    match error:
        case Problem():
            return error
        case Refused():
            return refused(error.refusal)
        case HTTPException():
            return _http_problem(error)
        case EngineUnavailable() | DatabaseUnavailable():
            return _away_problem(error)
        case DatabaseBusy():
            detail = "too many long charts are read at once"
            return Problem(503, "database_busy", detail, retry_after_s=RETRY_AFTER_S)
    logger.error("request failed", exc_info=error)
    return Problem(500, "internal_error", "a defect of the server; it has been logged")


def _away_problem(error: EngineUnavailable | DatabaseUnavailable) -> Problem:
    """Drivers' own words name hosts and files, so they go to the log and not to the client."""
    logger.warning("a store is away", extra={"error": repr(error)})
    if isinstance(error, OutcomeUnknown):
        advice = "look whether it was before you send it again"
        return _unknown_outcome(advice, retry_after_s=DECIDED_AFTER_S)
    if isinstance(error, DatabaseUnavailable):
        code, detail = DATABASE_UNAVAILABLE, "Postgres does not answer now"
    else:
        code, detail = "engine_unavailable", "Redis takes no commands now; nothing was done"
    return Problem(503, code, detail, retry_after_s=RETRY_AFTER_S)


def safe_to_repeat(error: OutcomeUnknown) -> Problem:
    """As an unknown outcome, of a command that may be repeated without doing it twice."""
    logger.warning("a store is away", extra={"error": repr(error)})
    return _unknown_outcome("it is safe to ask again", retry_after_s=RETRY_AFTER_S)


def _unknown_outcome(advice: str, retry_after_s: int) -> Problem:
    said = f"Redis stopped answering; the command is carried out within {LATE_S:g} s or never"
    return Problem(503, "outcome_unknown", f"{said}; {advice}", retry_after_s=retry_after_s)


def _http_problem(error: HTTPException) -> Problem:
    status = error.code or 500
    code = error.name.lower().replace(" ", "_")
    return Problem(status, code, error.description or error.name)


def response_of(problem: Problem, instance: str) -> Response:
    """The HTTP answer that carries `problem`."""
    response = Response(problem.body(instance), problem.status, mimetype=PROBLEM_JSON)
    if problem.retry_after_s is not None:
        response.headers["Retry-After"] = str(problem.retry_after_s)
    return response


def register(app: Flask) -> None:
    """Make every error of `app` answer as a problem document."""

    def handle(error: Exception) -> Response:
        response = response_of(problem_of(error), request.path)
        if isinstance(error, HTTPException) and error.code == HTTPStatus.METHOD_NOT_ALLOWED:
            response.headers.extend(
                (name, value) for name, value in error.get_headers() if name == "Allow"
            )
        return response

    app.register_error_handler(Exception, handle)
