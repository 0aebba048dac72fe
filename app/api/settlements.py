"""REST for settlements: start one or go on with it, read its report, list all; as JSON or CSV. Must
not know how one is computed.
"""

import re
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from threading import BoundedSemaphore
from time import monotonic
from typing import Final

import msgspec
import psycopg
from flask import Blueprint, Response, request

from app.api.http import REQUEST_ID_KEY, json_response, read_body, read_query, whole_number
from app.api.markets import Markets
from app.api.outcomes import log
from app.api.problems import FieldError, Problem, body_problem, invalid
from app.clearing import reports, settlement
from app.clearing.reports import FIRST_PLACE, Place
from app.clearing.settlement import (
    RUN_ID,
    RUN_ID_RULE,
    RunIdReused,
    Settled,
    UnknownInstrument,
    Wanted,
)
from app.domain.views import View
from app.logs import logger
from app.persistence.event_store import Connection
from app.persistence.queries import DatabaseUnavailable

PATIENCE_S: Final = 20.0
"""For the steps of one request; the same request again goes on with those that are left."""
REQUESTS_MAX: Final = 4
"""At a time in each process: each has a connection to Postgres of its own."""
RETRY_AFTER_S: Final = 1
DEFAULT_RUNS, MAX_RUNS = 100, 1_000
DEFAULT_OBLIGATIONS, MAX_OBLIGATIONS = 1_000, 10_000
LAST_NUMBER: Final = 10**18 - 1
CSV_TYPE: Final = "text/csv; charset=utf-8"

_CURSOR = re.compile(r"([!-{}~](?:[ -{}~]{0,62}[!-{}~])?)\|([A-Z0-9]{2,12})")


class SettlementBody(msgspec.Struct, forbid_unknown_fields=True):
    """What is to be settled, as operators send it; without instrument all there are."""

    run_id: str | None = None
    instrument: str | None = None


_DECODER = msgspec.json.Decoder(SettlementBody)


class Settlements:
    """Answers requests about settlements. One per process."""

    def __init__(self, database_url: str, markets: Markets) -> None:
        self._database_url = database_url
        self._markets = markets
        self._slots = BoundedSemaphore(REQUESTS_MAX)

    def settle(self, wanted: Wanted) -> Settled:
        """Go on with a run, or begin it, for PATIENCE_S.

        Raises:
            Problem: 404 `instrument_not_found`, 422 `run_id_reused`, 503 `settlement_busy`, 500
                `settlement_failed`. DatabaseUnavailable.
        """
        if wanted.instrument is not None:
            self._markets.require(wanted.instrument)
        until = monotonic() + PATIENCE_S
        with self.connection() as connection:
            settled = settlement.settle(connection, wanted, lambda: monotonic() < until)
            # All the time may have gone into finishing another run, before this one could begin.
            if not settled.is_done and reports.is_done(connection, wanted.run_id) is None:
                raise _busy()
        return settled

    def report(self, run_id: str, limit: int, after: Place) -> View:
        """A run with a page of its obligations.

        Raises:
            Problem: 404 `settlement_not_found`, 503 `settlement_busy`. DatabaseUnavailable.
        """
        with self.connection() as connection:
            found = reports.report(connection, run_id, limit, after)
        if found is None:
            raise _not_found(run_id)
        view, following = found
        return view | {"next_cursor": following and f"{following.client_id}|{following.asset}"}

    def runs(self, limit: int, before: int | None) -> tuple[list[View], int | None]:
        """A page of runs, newest first, and where the next one begins.

        Raises:
            Problem: 503 `settlement_busy`. DatabaseUnavailable.
        """
        with self.connection() as connection:
            found = reports.runs(connection, limit + 1, before)
        following = found[limit - 1][0] if len(found) > limit else None
        return [view for _, view in found[:limit]], following

    def csv(self, run_id: str) -> Response:
        """All of a report, read while it is sent.

        Raises:
            Problem: 404 `settlement_not_found`, 409 `settlement_unfinished`, 503 `settlement_busy`.
            DatabaseUnavailable.
        """
        with ExitStack() as opened:
            connection = opened.enter_context(self.connection())
            is_done = reports.is_done(connection, run_id)
            if is_done is None:
                raise _not_found(run_id)
            if not is_done:
                detail = "its report is there when it is done"
                raise Problem(409, "settlement_unfinished", detail, retry_after_s=RETRY_AFTER_S)
            response = Response(reports.csv_report(connection, run_id), content_type=CSV_TYPE)
            response.call_on_close(opened.pop_all().close)
        return response

    @contextmanager
    def connection(self) -> Iterator[Connection]:
        """One of the few to Postgres, with its errors as those of the API."""
        if not self._slots.acquire(blocking=False):
            raise _busy()
        try:
            with settlement.connect(self._database_url) as connection:
                yield connection
        except settlement.BUSY as error:
            raise _busy() from error
        except psycopg.OperationalError as error:
            raise DatabaseUnavailable(str(error)) from error
        except psycopg.IntegrityError as error:
            logger.exception("a settlement cannot be finished")
            detail = "the trades do not settle; nothing was made final, see the log"
            raise Problem(500, "settlement_failed", detail) from error
        except RunIdReused as error:
            raise Problem(422, "run_id_reused", str(error)) from error
        except UnknownInstrument as error:
            raise Problem(404, "instrument_not_found", str(error)) from error
        finally:
            self._slots.release()


def settlements_blueprint(settlements: Settlements) -> Blueprint:
    """Routes under `/admin/settlements`."""
    blueprint = Blueprint("settlements", __name__)

    @blueprint.post("/admin/settlements")
    def settle() -> Response:
        as_csv = _wants_csv(read_query({"format": False}))
        wanted = _read_wanted(read_body(request.environ))
        settled = settlements.settle(wanted)
        log(
            "settlement", request.environ[REQUEST_ID_KEY], run_id=wanted.run_id, **settled._asdict()
        )
        status = 202 if not settled.is_done else 201 if settled.is_new else 200
        if as_csv and settled.is_done:
            response = settlements.csv(wanted.run_id)
            response.status_code = status
            return response
        report = settlements.report(wanted.run_id, DEFAULT_OBLIGATIONS, FIRST_PLACE)
        response = json_response(report, status)
        if not settled.is_done:
            response.headers["Retry-After"] = str(RETRY_AFTER_S)
        return response

    @blueprint.get("/admin/settlements")
    def page() -> Response:
        query = read_query({"limit": False, "before": False, "format": False})
        limit = whole_number(query, "limit", DEFAULT_RUNS, MAX_RUNS)
        before = whole_number(query, "before", LAST_NUMBER, LAST_NUMBER)
        runs, following = settlements.runs(limit, before)
        if _wants_csv(query):
            return Response(reports.csv_runs(runs), content_type=CSV_TYPE)
        return json_response({"settlements": runs, "next_before": following})

    @blueprint.get("/admin/settlements/<run_id>")
    def read(run_id: str) -> Response:
        query = read_query({"limit": False, "cursor": False, "format": False})
        if not RUN_ID.fullmatch(run_id):
            raise _not_found(run_id)
        if _wants_csv(query):
            return settlements.csv(run_id)
        limit = whole_number(query, "limit", DEFAULT_OBLIGATIONS, MAX_OBLIGATIONS)
        return json_response(settlements.report(run_id, limit, _place(query.get("cursor"))))

    return blueprint


def _read_wanted(body: bytes) -> Wanted:
    """A run; no body at all is a new one of every instrument."""
    try:
        wanted = _DECODER.decode(body or b"{}")
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise body_problem(error) from error
    if wanted.run_id is not None and not RUN_ID.fullmatch(wanted.run_id):
        raise invalid([FieldError("run_id", "invalid_text", RUN_ID_RULE)])
    return Wanted(wanted.run_id or settlement.new_run_id(), wanted.instrument)


def _wants_csv(query: dict[str, str]) -> bool:
    """`format` says it; else the header `Accept`, if it names CSV at all."""
    form = query.get("format")
    if form not in (None, "json", "csv"):
        raise invalid([FieldError("format", "invalid_value", "json or csv")])
    if form is None:
        return "text/csv" in request.environ.get("HTTP_ACCEPT", "")
    return form == "csv"


def _place(cursor: str | None) -> Place:
    if cursor is None:
        return FIRST_PLACE
    match = _CURSOR.fullmatch(cursor)
    if match is None:
        raise invalid([FieldError("cursor", "invalid_value", "not a cursor of this server")])
    return Place(match[1], match[2])


def _not_found(run_id: str) -> Problem:
    return Problem(404, "settlement_not_found", f"no settlement {run_id[:64]!r}")


def _busy() -> Problem:
    detail = "others are settling now; the same call again goes on"
    return Problem(503, "settlement_busy", detail, retry_after_s=RETRY_AFTER_S)
