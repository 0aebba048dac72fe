"""Single fields of requests: from what was sent to a checked value, or an entry in the list of
wrong fields. Must not know which request they are of.
"""

import re
from datetime import UTC, datetime, timedelta
from decimal import Decimal

import msgspec

from app.api.problems import FieldError
from app.domain.instruments import EXACT_LIMIT, InvalidNumber, Scale, parse_decimal

MAX_ID_CHARACTERS = 64
MAX_KEY_CHARACTERS = 128
ABSENT = msgspec.Raw(b"null")
"""What a field that was left out is taken for: the same as null."""

Errors = list[FieldError]

_TEXT = re.compile(r"[!-{}~](?:[ -{}~]*[!-{}~])?")
"""Printable ASCII without `|`, which separates the fields of a record."""
_WHOLE = re.compile(r"0|[1-9][0-9]{0,17}")
_RFC_3339 = re.compile(
    r"[0-9]{4}-[0-9]{2}-[0-9]{2}[Tt][0-9]{2}:[0-9]{2}:[0-9]{2}(?:\.[0-9]{1,6})?"
    r"(?:[Zz]|[+-][0-9]{2}:[0-9]{2})"
)
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND = timedelta(microseconds=1)


def is_given(raw: msgspec.Raw) -> bool:
    """Whether a field was there and not null."""
    return bytes(raw) != b"null"


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


def read_decimal(field: str, raw: msgspec.Raw, errors: Errors) -> Decimal | None:
    """A decimal, exactly; None where it was left out, or is wrong."""
    if not is_given(raw):
        return None
    try:
        return parse_decimal(decimal_text(raw))
    except InvalidNumber as error:
        errors.append(FieldError(field, error.code, error.detail))
        return None


def read_units(field: str, raw: msgspec.Raw, scale: Scale, step: str, errors: Errors) -> int | None:
    """How many steps of `scale` were sent; None where it is wrong. `step`: what they are called."""
    try:
        return scale.to_units(parse_decimal(decimal_text(raw)), step)
    except InvalidNumber as error:
        errors.append(FieldError(field, error.code, error.detail))
        return None


def read_whole(field: str, raw: msgspec.Raw, most: int, errors: Errors) -> int | None:
    """A whole number from 1 to `most`, as string or number; None where it is wrong."""
    try:
        text = decimal_text(raw)
    except InvalidNumber:
        text = ""
    if _WHOLE.fullmatch(text) and 1 <= int(text) <= most:
        return int(text)
    errors.append(FieldError(field, "invalid_value", f"a whole number from 1 to {most}"))
    return None


def read_text(field: str, value: str | None, most: int, errors: Errors) -> str:
    """An id of at most `most` characters; empty where it was left out."""
    if value is None:
        return ""
    if len(value) > most or not _TEXT.fullmatch(value):
        detail = f"1 to {most} printable ASCII characters without `|` and outer spaces"
        errors.append(FieldError(field, "invalid_text", detail))
    return value


def read_time(field: str, value: str, errors: Errors) -> int | None:
    """RFC 3339 with an offset and at most six decimals, as microseconds since 1970; None where it
    is wrong.
    """
    try:
        if not _RFC_3339.fullmatch(value):
            raise ValueError(value)  # noqa: TRY301  # one place for all that is wrong
        time_us = (datetime.fromisoformat(value.upper()) - _EPOCH) // _MICROSECOND
    except ValueError:
        detail = "RFC 3339 with an offset and at most six decimals, as 2030-01-31T12:00:00Z"
        errors.append(FieldError(field, "invalid_value", detail))
        return None
    if time_us >= EXACT_LIMIT:
        errors.append(FieldError(field, "out_of_range", "must be before the year 2255"))
        return None
    return time_us
