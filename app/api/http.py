"""HTTP's small change: bodies and query strings within limits, JSON answers, request ids."""

import re
from collections.abc import Callable, Mapping
from os import urandom

import msgspec
from flask import Flask, Response, g, request

from app.api.problems import FieldError, Problem, invalid

MAX_BODY_BYTES = 16 * 1024
MAX_QUERY_VALUE = 128
REQUEST_ID = "X-Request-Id"

_REQUEST_ID = re.compile(r"[A-Za-z0-9._:/+=-]{1,128}")
_WHOLE_NUMBER = re.compile(r"[0-9]{1,18}")

encode: Callable[[object], bytes] = msgspec.json.Encoder().encode


def json_response(document: object, status: int = 200) -> Response:
    """An answer in JSON."""
    return encoded_response(encode(document), status)


def encoded_response(body: bytes, status: int) -> Response:
    """An answer that is JSON already."""
    return Response(body, status, mimetype="application/json")


def read_body() -> bytes:
    """The request's body.

    Raises:
        Problem: 413 `body_too_large`, 411 `length_required`.
    """
    length = request.content_length
    if length is None:
        if "Transfer-Encoding" in request.headers:
            raise Problem(411, "length_required", "a body comes with its Content-Length")
        return b""
    if length > MAX_BODY_BYTES:
        raise Problem(413, "body_too_large", f"a body has at most {MAX_BODY_BYTES} bytes")
    return request.get_data(cache=False)


def read_query(known: Mapping[str, bool]) -> dict[str, str]:
    """The query's parameters; `known` says of each whether it must be given.

    Raises:
        Problem: 400 `validation_failed`: unknown, repeated, missing, empty or too long.
    """
    errors = [
        FieldError(name, "required", "must be given")
        for name, needed in known.items()
        if needed and name not in request.args
    ]
    for name, values in request.args.lists():
        if name not in known:
            errors.append(FieldError(name[:MAX_QUERY_VALUE], "unknown_field", "no such parameter"))
        elif len(values) > 1:
            errors.append(FieldError(name, "invalid_value", "given more than once"))
        elif not 0 < len(values[0]) <= MAX_QUERY_VALUE:
            errors.append(FieldError(name, "invalid_value", f"1 to {MAX_QUERY_VALUE} characters"))
    if errors:
        raise invalid(errors)
    return request.args.to_dict()


def whole_number(query: Mapping[str, str], name: str, default: int, most: int) -> int:
    """A parameter from 1 to `most`.

    Raises:
        Problem: 400 `validation_failed`.
    """
    text = query.get(name)
    if text is None:
        return default
    if not _WHOLE_NUMBER.fullmatch(text) or not 1 <= int(text) <= most:
        raise invalid([FieldError(name, "invalid_value", f"a whole number from 1 to {most}")])
    return int(text)


def register_request_ids(app: Flask) -> None:
    """Give every answer an X-Request-Id: the client's own where it is a sane one."""

    @app.after_request
    def mark(response: Response) -> Response:
        response.headers[REQUEST_ID] = request_id()
        return response


def request_id() -> str:
    """The id of the current request; the same for its log lines and its answer."""
    known: str | None = g.get("request_id")
    if known is None:
        offered = request.headers.get(REQUEST_ID, "")
        known = offered if _REQUEST_ID.fullmatch(offered) else urandom(8).hex()
        g.request_id = known
    return known
