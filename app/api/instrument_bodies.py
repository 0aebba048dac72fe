"""From the bytes that operators send to a checked instrument and its rules. Collects every wrong
field. Must not know what is listed.
"""

from collections.abc import Mapping
from decimal import Decimal
from typing import Any, NamedTuple

import msgspec

from app.api.fields import (
    ABSENT,
    MAX_ID_CHARACTERS,
    Errors,
    is_given,
    read_decimal,
    read_text,
    read_units,
    read_whole,
)
from app.api.problems import FieldError, body_problem, invalid
from app.domain.instruments import Instrument, InvalidInstrument, Market, list_instrument
from app.domain.rules import InstrumentStatus, Rules

MAX_PRICE_BAND_BPS = 10_000
MAX_OPEN_ORDERS = 1_000_000
MAX_FEE_BPS = 10_000
MAX_FEE_DECIMALS = 4
UNCHANGED = msgspec.Raw()
"""A rule that was not sent, which is something else than null: that unsets it."""

SIZES = ("tick_size", "lot_size", "max_price", "max_quantity")
LIMITS = ("price_band_bps", "max_order_quantity", "max_order_notional", "max_open_orders")
"""Rules that null unsets."""
FEES = ("maker_fee_bps", "taker_fee_bps")


class RulesBody(msgspec.Struct, forbid_unknown_fields=True):
    """Rules of an instrument as operators send them."""

    status: InstrumentStatus | msgspec.UnsetType = msgspec.UNSET
    price_band_bps: msgspec.Raw = UNCHANGED
    max_order_quantity: msgspec.Raw = UNCHANGED
    max_order_notional: msgspec.Raw = UNCHANGED
    max_open_orders: msgspec.Raw = UNCHANGED
    maker_fee_bps: msgspec.Raw = UNCHANGED
    taker_fee_bps: msgspec.Raw = UNCHANGED


class InstrumentBody(RulesBody, kw_only=True):
    """An instrument as operators send it."""

    symbol: str
    tick_size: msgspec.Raw
    lot_size: msgspec.Raw
    max_price: msgspec.Raw = ABSENT
    max_quantity: msgspec.Raw = ABSENT


class KillSwitchBody(msgspec.Struct, forbid_unknown_fields=True):
    """A kill switch to be thrown, as operators send it; without instrument on all there are."""

    client_id: str
    engaged: bool
    instrument: str | None = None
    cancel_open_orders: bool = False


class SnapshotBody(msgspec.Struct, forbid_unknown_fields=True):
    """Which book is to be written down; without instrument all there are."""

    instrument: str | None = None


class NewInstrument(NamedTuple):
    """An instrument to be listed, and the rules that it begins with."""

    instrument: Instrument
    rules: Rules


RuleChanges = Mapping[str, Any]
"""Fields of `Rules` with their new values."""

_INSTRUMENT_DECODER = msgspec.json.Decoder(InstrumentBody)
_RULES_DECODER = msgspec.json.Decoder(RulesBody)
_KILL_SWITCH_DECODER = msgspec.json.Decoder(KillSwitchBody)
_SNAPSHOT_DECODER = msgspec.json.Decoder(SnapshotBody)
_NOT_READABLE = (msgspec.MsgspecError, UnicodeDecodeError, RecursionError)


def read_instrument(body: bytes) -> NewInstrument:
    """An instrument and its rules.

    Raises:
        Problem: 400 `malformed_json` or `validation_failed`.
    """
    try:
        wanted = _INSTRUMENT_DECODER.decode(body)
    except _NOT_READABLE as error:
        raise body_problem(error) from error
    instrument = _instrument(wanted)
    errors: Errors = []
    changes = _changes(wanted, Market(instrument), errors)
    if errors:
        raise invalid(errors)
    return NewInstrument(instrument, msgspec.structs.replace(Rules(), **changes))


def read_rule_changes(body: bytes, market: Market) -> RuleChanges:
    """What is to change of an instrument's rules.

    Raises:
        Problem: 400 `malformed_json` or `validation_failed`; also where nothing is to change.
    """
    try:
        wanted = _RULES_DECODER.decode(body)
    except _NOT_READABLE as error:
        raise body_problem(error) from error
    errors: Errors = []
    changes = _changes(wanted, market, errors)
    if not changes and not errors:
        errors.append(FieldError("body", "required", "at least one rule must be given"))
    if errors:
        raise invalid(errors)
    return changes


def read_kill_switch(body: bytes) -> KillSwitchBody:
    """A kill switch.

    Raises:
        Problem: 400 `malformed_json` or `validation_failed`.
    """
    try:
        wanted = _KILL_SWITCH_DECODER.decode(body)
    except _NOT_READABLE as error:
        raise body_problem(error) from error
    errors: Errors = []
    read_text("client_id", wanted.client_id, MAX_ID_CHARACTERS, errors)
    if errors:
        raise invalid(errors)
    return wanted


def read_snapshot(body: bytes) -> SnapshotBody:
    """A snapshot; no body at all is one of every book.

    Raises:
        Problem: 400 `malformed_json` or `validation_failed`.
    """
    try:
        return _SNAPSHOT_DECODER.decode(body or b"{}")
    except _NOT_READABLE as error:
        raise body_problem(error) from error


def _instrument(wanted: InstrumentBody) -> Instrument:
    errors: Errors = []
    sizes = {name: read_decimal(name, getattr(wanted, name), errors) for name in SIZES}
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


def _changes(wanted: RulesBody, market: Market, errors: Errors) -> dict[str, Any]:
    """The rules that were sent, in the book's units."""
    changes: dict[str, Any] = {}
    if wanted.status is not msgspec.UNSET:
        changes["status"] = wanted.status
    for name in LIMITS:
        raw = getattr(wanted, name)
        if raw != UNCHANGED:
            field = _RULE_OF.get(name, name)
            changes[field] = _limit(name, raw, market, errors) if is_given(raw) else None
    for name in FEES:
        raw = getattr(wanted, name)
        if raw != UNCHANGED:
            changes[name] = _fee(name, raw, errors)
    return changes


_RULE_OF = {"max_order_quantity": "max_order_lots"}
"""Where a rule goes by another name outside than in the book."""


def _limit(name: str, raw: msgspec.Raw, market: Market, errors: Errors) -> int | None:
    match name:
        case "price_band_bps":
            return read_whole(name, raw, MAX_PRICE_BAND_BPS, errors)
        case "max_order_quantity":
            return read_units(name, raw, market.quantity, "lot", errors)
        case "max_order_notional":
            return read_units(name, raw, market.notional, "step", errors)
        case _:
            return read_whole(name, raw, MAX_OPEN_ORDERS, errors)


def _fee(name: str, raw: msgspec.Raw, errors: Errors) -> Decimal | None:
    """Basis points; without zeros at the end, so that equal fees look equal."""
    if not is_given(raw):
        errors.append(FieldError(name, "invalid_value", "a fee is never unset; send 0"))
        return None
    fee = read_decimal(name, raw, errors)
    if fee is None:
        return None
    if abs(fee) > MAX_FEE_BPS or fee != fee.quantize(Decimal(1).scaleb(-MAX_FEE_DECIMALS)):
        detail = f"-{MAX_FEE_BPS} to {MAX_FEE_BPS} with at most {MAX_FEE_DECIMALS} decimals"
        errors.append(FieldError(name, "out_of_range", detail))
        return None
    return fee.normalize() + 0  # no negative zero
