"""REST for operators: listing an instrument, live at once in every process."""

from decimal import Decimal

import msgspec
from flask import Blueprint, Response, request

from app.api.bodies import decimal_text
from app.api.http import json_response, read_body
from app.api.listing import MAX_INSTRUMENTS, Listing, TooManyInstruments
from app.api.market import instrument_view
from app.api.problems import FieldError, Problem, body_problem, invalid
from app.domain.instruments import (
    Instrument,
    InvalidInstrument,
    InvalidNumber,
    list_instrument,
    parse_decimal,
)
from app.logs import logger
from app.persistence.instruments import InstrumentDiffers

NUMBERS = ("tick_size", "lot_size", "max_price", "max_quantity")


class InstrumentBody(msgspec.Struct, forbid_unknown_fields=True):
    """An instrument as operators send it."""

    symbol: str
    tick_size: msgspec.Raw
    lot_size: msgspec.Raw
    max_price: msgspec.Raw = msgspec.Raw(b"null")
    max_quantity: msgspec.Raw = msgspec.Raw(b"null")


_DECODER = msgspec.json.Decoder(InstrumentBody)


def admin_blueprint(listing: Listing) -> Blueprint:
    """Routes under `/admin`."""
    blueprint = Blueprint("admin", __name__)

    @blueprint.post("/admin/instruments")
    def list_new() -> Response:
        instrument = _read_instrument(read_body(request.environ))
        try:
            is_new = listing.add(instrument)
        except InstrumentDiffers as error:
            detail = f"{instrument.symbol} is listed with other values"
            raise Problem(409, "instrument_exists", detail) from error
        except TooManyInstruments as error:
            detail = f"at most {MAX_INSTRUMENTS} instruments are listed"
            raise Problem(422, "too_many_instruments", detail) from error
        logger.info("instrument listed", extra={"symbol": instrument.symbol, "new": is_new})
        return json_response(instrument_view(instrument), 201 if is_new else 200)

    return blueprint


def _read_instrument(body: bytes) -> Instrument:
    try:
        wanted = _DECODER.decode(body)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise body_problem(error) from error
    errors: list[FieldError] = []
    sizes = {name: _number(name, getattr(wanted, name), errors) for name in NUMBERS}
    tick_size, lot_size = sizes["tick_size"], sizes["lot_size"]
    wrong = {error.field for error in errors}
    errors += [
        FieldError(name, "required", "must be given")
        for name in ("tick_size", "lot_size")
        if sizes[name] is None and name not in wrong
    ]
    if errors or tick_size is None or lot_size is None:
        raise invalid(errors)
    try:
        return list_instrument(
            wanted.symbol, tick_size, lot_size, sizes["max_price"], sizes["max_quantity"]
        )
    except InvalidInstrument as error:
        raise invalid([FieldError(error.field, "invalid_value", error.detail)]) from error


def _number(name: str, raw: msgspec.Raw, errors: list[FieldError]) -> Decimal | None:
    if bytes(raw) == b"null":
        return None
    try:
        return parse_decimal(decimal_text(raw))
    except InvalidNumber as error:
        errors.append(FieldError(name, error.code, error.detail))
        return None
