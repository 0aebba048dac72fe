"""From the bytes of an order or an amendment to a checked one in ticks and lots.

Decodes straight into a typed struct; prices and quantities stay text until they are exact integers.
Collects every wrong field. Knows the instruments, not the book.
"""

from base64 import b64encode
from hashlib import blake2b
from typing import Literal, TypeVar

import msgspec

from app.api import dialects
from app.api.fields import (
    ABSENT,
    MAX_ID_CHARACTERS,
    MAX_KEY_CHARACTERS,
    Errors,
    is_given,
    read_text,
    read_time,
    read_units,
)
from app.api.http import MAX_BODY_BYTES
from app.api.problems import FieldError, Problem, body_problem, invalid
from app.domain.instruments import Market, Scale
from app.domain.orders import STOPS, OrderType, TimeInForce
from app.engine.commands import Amendment, NewOrder, Target

ANONYMOUS = "anonymous"
PRICED = frozenset({OrderType.LIMIT, OrderType.STOP_LIMIT})
"""Types with a limit price."""
RESTING = frozenset({TimeInForce.GTC, TimeInForce.GTD})
"""Times in force of orders that may rest."""


class OrderBody(msgspec.Struct, forbid_unknown_fields=True):
    """An order as clients send it."""

    instrument: str
    side: Literal["buy", "sell"]
    quantity: msgspec.Raw
    type: Literal["limit", "market", "stop", "stop_limit"] = "limit"
    client_id: str | None = None
    price: msgspec.Raw = ABSENT
    stop_price: msgspec.Raw = ABSENT
    time_in_force: Literal["gtc", "ioc", "fok", "gtd"] | None = None
    expires_at: str | None = None
    post_only: bool = False
    display_quantity: msgspec.Raw = ABSENT
    self_trade_prevention: Literal[
        "none", "cancel_newest", "cancel_oldest", "cancel_both", "decrement"
    ] = "none"
    client_order_id: str | None = None
    idempotency_key: str | None = None


class SeedOrder(OrderBody):
    """An order that was sent in a dialect of the seed documents."""


class Changes(msgspec.Struct, forbid_unknown_fields=True):
    """What is to become of an open order, as clients send it; what is left out stays."""

    price: msgspec.Raw = ABSENT
    quantity: msgspec.Raw = ABSENT
    stop_price: msgspec.Raw = ABSENT


_ORDER_DECODER = msgspec.json.Decoder(OrderBody)
_SEED_ORDER_DECODER = msgspec.json.Decoder(SeedOrder)
NOT_READABLE = (msgspec.MsgspecError, UnicodeDecodeError, RecursionError)
"""What decoding raises."""
Plain = TypeVar("Plain")
Seed = TypeVar("Seed")
_CHANGES_DECODER = msgspec.json.Decoder(Changes)


def decode_order(body: bytes) -> OrderBody:
    """Read an order's JSON.

    Raises:
        Problem: 400 `malformed_json` or `validation_failed`, 413 `body_too_large`.
    """
    if len(body) > MAX_BODY_BYTES:
        raise Problem(413, "body_too_large", f"an order has at most {MAX_BODY_BYTES} bytes")
    return decode_either(body, _ORDER_DECODER, _SEED_ORDER_DECODER)


def decode_either(
    body: bytes, plain: msgspec.json.Decoder[Plain], seed: msgspec.json.Decoder[Seed]
) -> Plain | Seed:
    """A body in this API's own words, by `plain`; or in a dialect, by `seed`.

    Raises:
        Problem: 400, it is neither.
    """
    try:
        return plain.decode(body)
    except NOT_READABLE as error:
        unread = error
    # Only now, so that what is plain is decoded once.
    try:
        translated = dialects.in_plain_words(body)
        if translated is not None:
            return seed.decode(translated)
    except NOT_READABLE as error:
        unread = error
    raise body_problem(unread) from unread


def decode_changes(body: bytes) -> Changes:
    """Read an amendment's JSON.

    Raises:
        Problem: 400 `malformed_json` or `validation_failed`.
    """
    try:
        return _CHANGES_DECODER.decode(body)
    except NOT_READABLE as error:
        raise body_problem(error) from error


def check_order(body: OrderBody, market: Market, header_key: str | None) -> NewOrder:
    """Check an order against its instrument and turn it into ticks and lots.

    `header_key` is the Idempotency-Key header, if there was one.

    Raises:
        Problem: 400 `validation_failed` naming every wrong field.
    """
    errors: Errors = []
    kind = OrderType(body.type)
    tif = TimeInForce(body.time_in_force or ("ioc" if kind == OrderType.MARKET else "gtc"))
    _check_combination(body, kind, tif, errors)
    quantity = read_units("quantity", body.quantity, market.quantity, "lot", errors)
    key = _idempotency_key(body.idempotency_key, header_key, errors)
    may_show_less = kind in PRICED and tif in RESTING
    order = NewOrder(
        side=body.side,
        type=kind,
        time_in_force=tif,
        price_ticks=_price("price", body.price, market.price, errors, needed=kind in PRICED),
        quantity_lots=quantity or 0,
        post_only=body.post_only,
        client_id=read_text("client_id", body.client_id, MAX_ID_CHARACTERS, errors) or ANONYMOUS,
        client_order_id=read_text(
            "client_order_id", body.client_order_id, MAX_ID_CHARACTERS, errors
        ),
        idempotency_key=key,
        stop_price_ticks=_price(
            "stop_price", body.stop_price, market.price, errors, needed=kind in STOPS
        ),
        display_lots=_display(
            body.display_quantity, market, quantity, errors, allowed=may_show_less
        ),
        expires_us=_expiry(body, tif, errors),
        self_trade_prevention=body.self_trade_prevention,
    )
    if errors:
        raise invalid(errors)
    return msgspec.structs.replace(order, fingerprint=_fingerprint(order)) if key else order


def check_changes(changes: Changes, target: Target, market: Market) -> Amendment:
    """Check an amendment against its instrument and turn it into ticks and lots.

    Raises:
        Problem: 400 `validation_failed` naming every wrong field, or that there is none.
    """
    errors: Errors = []
    amendment = Amendment(
        target=target,
        price_ticks=_change("price", changes.price, market.price, "tick", errors),
        quantity_lots=_change("quantity", changes.quantity, market.quantity, "lot", errors),
        stop_price_ticks=_change("stop_price", changes.stop_price, market.price, "tick", errors),
    )
    if not any(map(is_given, (changes.price, changes.quantity, changes.stop_price))):
        errors.append(FieldError("body", "required", "price, quantity or stop_price must be given"))
    if errors:
        raise invalid(errors)
    return amendment


def _change(field: str, raw: msgspec.Raw, scale: Scale, step: str, errors: Errors) -> int | None:
    return read_units(field, raw, scale, step, errors) if is_given(raw) else None


def _check_combination(body: OrderBody, kind: OrderType, tif: TimeInForce, errors: Errors) -> None:
    """Fields that are good in themselves, and not together."""
    if kind == OrderType.MARKET and tif in RESTING:
        errors.append(FieldError("time_in_force", "invalid_value", "a market order cannot rest"))
    if body.post_only and (kind != OrderType.LIMIT or tif not in RESTING):
        detail = "only for a limit order that may rest"
        errors.append(FieldError("post_only", "invalid_value", detail))


def _price(
    field: str, raw: msgspec.Raw, scale: Scale, errors: Errors, *, needed: bool
) -> int | None:
    """A price that the order's type either needs or cannot have."""
    if needed and is_given(raw):
        return read_units(field, raw, scale, "tick", errors)
    if needed:
        errors.append(FieldError(field, "required", "an order of this type has one"))
    elif is_given(raw):
        errors.append(FieldError(field, "not_allowed", "an order of this type has none"))
    return None


def _display(
    raw: msgspec.Raw, market: Market, quantity: int | None, errors: Errors, *, allowed: bool
) -> int | None:
    """What an iceberg shows; None of other orders."""
    if not is_given(raw):
        return None
    if not allowed:
        detail = "only for an order with a price that may rest"
        errors.append(FieldError("display_quantity", "not_allowed", detail))
        return None
    display = read_units("display_quantity", raw, market.quantity, "lot", errors)
    if display is not None and quantity is not None and display > quantity:
        detail = "must not exceed the quantity"
        errors.append(FieldError("display_quantity", "out_of_range", detail))
    return display


def _expiry(body: OrderBody, tif: TimeInForce, errors: Errors) -> int | None:
    needed = tif == TimeInForce.GTD
    if needed and body.expires_at is not None:
        return read_time("expires_at", body.expires_at, errors)
    if needed:
        errors.append(FieldError("expires_at", "required", "with time_in_force gtd"))
    elif body.expires_at is not None:
        errors.append(FieldError("expires_at", "not_allowed", "only with time_in_force gtd"))
    return None


def _idempotency_key(in_body: str | None, in_header: str | None, errors: Errors) -> str:
    if in_body is not None and in_header is not None and in_body != in_header:
        errors.append(FieldError("idempotency_key", "conflict", "differs from Idempotency-Key"))
    value = in_header if in_body is None else in_body
    return read_text("idempotency_key", value, MAX_KEY_CHARACTERS, errors)


def _fingerprint(order: NewOrder) -> str:
    """64 bits of what the order asks for, so that `0.10` and `0.1` are the same payload. Fields at
    their defaults are left out, so a field that comes later does not change earlier payloads.
    """
    digest = blake2b(msgspec.msgpack.encode(order), digest_size=8).digest()
    return b64encode(digest)[:11].decode()
