"""From the bytes of an order to a checked order in ticks and lots.

Decodes straight into a typed struct; prices and quantities stay text until they are exact integers.
Collects every wrong field. Knows the instruments, not the book.
"""

import re
from base64 import b64encode
from hashlib import blake2b
from typing import Literal

import msgspec

from app.api.http import MAX_BODY_BYTES
from app.api.problems import FieldError, Problem, body_problem, invalid
from app.domain.instruments import InvalidNumber, Market, Scale, parse_decimal
from app.domain.orders import OrderType, TimeInForce
from app.engine.book import NewOrder

MAX_ID_CHARACTERS = 64
MAX_KEY_CHARACTERS = 128
ANONYMOUS = "anonymous"

_TEXT = re.compile(r"[!-{}~](?:[ -{}~]*[!-{}~])?")
"""Printable ASCII without `|`, which separates the fields of a record."""
_NOT_YET = "not available yet"


class OrderBody(msgspec.Struct, forbid_unknown_fields=True):
    """An order as clients send it."""

    instrument: str
    side: Literal["buy", "sell"]
    quantity: msgspec.Raw
    type: Literal["limit", "market", "stop", "stop_limit"] = "limit"
    client_id: str | None = None
    price: msgspec.Raw = msgspec.Raw(b"null")
    stop_price: msgspec.Raw = msgspec.Raw(b"null")
    time_in_force: Literal["gtc", "ioc", "fok", "gtd"] | None = None
    expires_at: str | None = None
    post_only: bool = False
    display_quantity: msgspec.Raw = msgspec.Raw(b"null")
    self_trade_prevention: Literal[
        "none", "cancel_newest", "cancel_oldest", "cancel_both", "decrement"
    ] = "none"
    client_order_id: str | None = None
    idempotency_key: str | None = None


_DECODER = msgspec.json.Decoder(OrderBody)


def decode_order(body: bytes) -> OrderBody:
    """Read an order's JSON.

    Raises:
        Problem: 400 `malformed_json` or `validation_failed`, 413 `body_too_large`.
    """
    if len(body) > MAX_BODY_BYTES:
        raise Problem(413, "body_too_large", f"an order has at most {MAX_BODY_BYTES} bytes")
    try:
        return _DECODER.decode(body)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise body_problem(error) from error


def check_order(body: OrderBody, market: Market, header_key: str | None) -> NewOrder:
    """Check an order against its instrument and turn it into ticks and lots.

    `header_key` is the Idempotency-Key header, if there was one.

    Raises:
        Problem: 400 `validation_failed` naming every wrong field.
    """
    errors: list[FieldError] = []
    kind = OrderType.MARKET if body.type == "market" else OrderType.LIMIT
    tif = body.time_in_force or ("ioc" if kind == OrderType.MARKET else "gtc")
    _check_combination(body, tif, errors)
    quantity = _units(body.quantity, market.quantity, "quantity", "lot", errors)
    price = _limit_price(body, market, errors)
    key = _idempotency_key(body.idempotency_key, header_key, errors)
    client = _text("client_id", body.client_id, MAX_ID_CHARACTERS, errors) or ANONYMOUS
    client_order_id = _text("client_order_id", body.client_order_id, MAX_ID_CHARACTERS, errors)
    if errors or quantity is None:
        raise invalid(errors)
    order = NewOrder(
        side=body.side,
        type=kind,
        time_in_force=tif,
        price_ticks=price,
        quantity_lots=quantity,
        post_only=body.post_only,
        client_id=client,
        client_order_id=client_order_id,
        idempotency_key=key,
    )
    return msgspec.structs.replace(order, fingerprint=_fingerprint(order)) if key else order


def _check_combination(body: OrderBody, tif: str, errors: list[FieldError]) -> None:
    if body.type in ("stop", "stop_limit"):
        errors.append(FieldError("type", "not_supported", _NOT_YET))
    if tif == "gtd":
        errors.append(FieldError("time_in_force", "not_supported", _NOT_YET))
    if body.self_trade_prevention != "none":
        errors.append(FieldError("self_trade_prevention", "not_supported", _NOT_YET))
    errors.extend(
        FieldError(field, "not_supported", _NOT_YET)
        for field in ("stop_price", "display_quantity")
        if bytes(getattr(body, field)) != b"null"
    )
    if body.expires_at is not None:
        errors.append(FieldError("expires_at", "not_supported", _NOT_YET))
    if body.type == "market" and tif == TimeInForce.GTC:
        errors.append(FieldError("time_in_force", "invalid_value", "a market order cannot rest"))
    if body.post_only and (body.type == "market" or tif in ("ioc", "fok")):
        errors.append(FieldError("post_only", "invalid_value", "only for an order that may rest"))


def _limit_price(body: OrderBody, market: Market, errors: list[FieldError]) -> int | None:
    given = bytes(body.price) != b"null"
    if body.type == "market":
        if given:
            errors.append(FieldError("price", "not_allowed", "a market order has no price"))
        return None
    if not given:
        errors.append(FieldError("price", "required", "a limit order has a price"))
        return None
    return _units(body.price, market.price, "price", "tick", errors)


def _units(
    raw: msgspec.Raw, scale: Scale, field: str, step: str, errors: list[FieldError]
) -> int | None:
    try:
        return scale.to_units(parse_decimal(decimal_text(raw)), step)
    except InvalidNumber as error:
        errors.append(FieldError(field, error.code, error.detail))
        return None


def decimal_text(raw: msgspec.Raw) -> str:
    """The digits of a JSON string or number, as they were sent.

    Raises:
        InvalidNumber: `invalid_type`: it is neither.
    """
    text = bytes(raw).decode(errors="replace")  # what is no UTF-8 is no number either
    if len(text) > 1 and text[0] == text[-1] == '"':
        return text[1:-1]
    if text[:1] not in "-0123456789":
        raise InvalidNumber("invalid_type", "a decimal, as string or number")
    return text


def _text(field: str, value: str | None, most: int, errors: list[FieldError]) -> str:
    if value is None:
        return ""
    if len(value) > most or not _TEXT.fullmatch(value):
        detail = f"1 to {most} printable ASCII characters without `|` and outer spaces"
        errors.append(FieldError(field, "invalid_text", detail))
    return value


def _idempotency_key(in_body: str | None, in_header: str | None, errors: list[FieldError]) -> str:
    if in_body is not None and in_header is not None and in_body != in_header:
        errors.append(FieldError("idempotency_key", "conflict", "differs from Idempotency-Key"))
    value = in_header if in_body is None else in_body
    return _text("idempotency_key", value, MAX_KEY_CHARACTERS, errors)


def _fingerprint(order: NewOrder) -> str:
    """64 bits of what the order asks for, so that `0.10` and `0.1` are the same payload. Fields at
    their defaults are left out, so a field that comes later does not change earlier payloads.
    """
    digest = blake2b(msgspec.msgpack.encode(order), digest_size=8).digest()
    return b64encode(digest)[:11].decode()
