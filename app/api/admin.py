"""REST for operators: listing an instrument, changing its rules, kill switches, snapshots. What
changes is live at once in every process.
"""

import msgspec
from flask import Blueprint, Response, request

from app.api.admin_snapshots import Snapshots
from app.api.http import REQUEST_ID_KEY, json_response, read_body
from app.api.instrument_bodies import (
    KillSwitchBody,
    NewInstrument,
    read_instrument,
    read_kill_switch,
    read_rule_changes,
    read_snapshot,
)
from app.api.listing import MAX_INSTRUMENTS, Added, BookMissing, Listing, TooManyInstruments
from app.api.market import instrument_view
from app.api.markets import Markets
from app.api.mass_cancels import MassCancel, MassCancels, Swept
from app.api.outcomes import log
from app.api.problems import Problem, refused, safe_to_repeat
from app.domain.instruments import Market
from app.domain.refusals import Reason, Refusal
from app.engine.book import Books
from app.engine.commands import Refused
from app.engine.executor import OutcomeUnknown
from app.engine.reads import BookReads
from app.logs import logger
from app.persistence.instruments import InstrumentDiffers


def admin_blueprint(
    listing: Listing,
    books: Books,
    reads: BookReads,
    markets: Markets,
    cancels: MassCancels,
    snapshots: Snapshots,
) -> Blueprint:
    """Routes under `/admin`."""
    blueprint = Blueprint("admin", __name__)

    @blueprint.post("/admin/instruments")
    def list_new() -> Response:
        instrument, rules = wanted = read_instrument(read_body(request.environ))
        (stored, _), is_new = _add(listing, wanted)
        logger.info("instrument listed", extra={"symbol": instrument.symbol, "new": is_new})
        # Rules that changed since it was listed may still be on their way to Postgres.
        current = reads.rules([stored.symbol]).get(stored.symbol, rules)
        return json_response(instrument_view(Market(stored), current), 201 if is_new else 200)

    @blueprint.patch("/admin/instruments/<symbol>")
    def change_rules(symbol: str) -> Response:
        market = markets.require(symbol)
        changes = read_rule_changes(read_body(request.environ), market)
        try:
            rules = listing.change_rules(symbol, changes)
        except BookMissing as error:
            raise refused(Refusal.BOOK_MISSING) from error
        except OutcomeUnknown as error:
            raise safe_to_repeat(error) from error
        view = instrument_view(market, rules)
        logger.info("rules changed", extra={"symbol": symbol, "rules": view})
        return json_response(view)

    @blueprint.post("/admin/kill-switch")
    def throw_kill_switch() -> Response:
        wanted = read_kill_switch(read_body(request.environ))
        try:
            if wanted.instrument is None:
                symbols = _throw_everywhere(books, reads, wanted)
            else:
                symbols = [markets.require(wanted.instrument).symbol]
                books.set_kill_switch(symbols[0], wanted.client_id, engaged=wanted.engaged)
            swept = _cancel_open_orders(wanted, cancels)
        except OutcomeUnknown as error:
            raise safe_to_repeat(error) from error
        told = {"client_id": wanted.client_id, "engaged": wanted.engaged, "instruments": symbols}
        log("kill switch thrown", request.environ[REQUEST_ID_KEY], **told)
        return json_response(told | msgspec.structs.asdict(swept))

    @blueprint.post("/admin/snapshots")
    def take_snapshots() -> Response:
        symbol = read_snapshot(read_body(request.environ)).instrument
        symbols = [] if symbol is None else [markets.require(symbol).symbol]
        taken = snapshots.take(symbols)
        log("snapshots taken", request.environ[REQUEST_ID_KEY], snapshots=taken)
        return json_response({"snapshots": taken}, 201)

    return blueprint


def _add(listing: Listing, wanted: NewInstrument) -> Added:
    try:
        return listing.add(wanted)
    except InstrumentDiffers as error:
        detail = f"{wanted.instrument.symbol} is listed with other values"
        raise Problem(409, "instrument_exists", detail) from error
    except TooManyInstruments as error:
        detail = f"at most {MAX_INSTRUMENTS} instruments are listed"
        raise Problem(422, "too_many_instruments", detail) from error


def _throw_everywhere(books: Books, reads: BookReads, wanted: KillSwitchBody) -> list[str]:
    """On every instrument that has a book, without which nobody trades it anyway; their symbols."""
    thrown = []
    for instrument in reads.instruments():
        try:
            books.set_kill_switch(instrument.symbol, wanted.client_id, engaged=wanted.engaged)
        except Refused as error:
            logger.warning("no kill switch", extra={"symbol": instrument.symbol, "why": str(error)})
        else:
            thrown.append(instrument.symbol)
    return thrown


def _cancel_open_orders(wanted: KillSwitchBody, cancels: MassCancels) -> Swept:
    """Where that was wished: after the switch, so that no order slips in between."""
    if not wanted.cancel_open_orders:
        return Swept([], complete=True, halted=[])
    request_id = request.environ[REQUEST_ID_KEY]
    return cancels.run(
        MassCancel(wanted.client_id, wanted.instrument, None, Reason.KILL_SWITCH, request_id)
    )
