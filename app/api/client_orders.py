"""REST for all of a client's orders at once: mass cancel and the cancel-after timer."""

import msgspec
from flask import Blueprint, Response, request

from app.api.fields import MAX_ID_CHARACTERS, Errors, decimal_text, read_text
from app.api.http import REQUEST_ID_KEY, json_response, read_body, read_query
from app.api.markets import Markets
from app.api.mass_cancels import MassCancel, MassCancels
from app.api.outcomes import log
from app.api.problems import FieldError, body_problem, invalid, refused, safe_to_repeat
from app.domain.instruments import InvalidNumber, parse_decimal
from app.domain.orders import Side
from app.domain.refusals import Reason, Refusal
from app.domain.views import View, timestamp
from app.engine.book import Books
from app.engine.executor import OutcomeUnknown

MAX_TIMEOUT_S = 86_400
MILLISECOND_US = 1_000
SECOND_MS = 1_000


class CancelAfterBody(msgspec.Struct, forbid_unknown_fields=True):
    """A cancel-after timer as clients send it."""

    client_id: str
    instrument: str
    timeout_s: msgspec.Raw


_DECODER = msgspec.json.Decoder(CancelAfterBody)


def client_orders_blueprint(books: Books, markets: Markets, cancels: MassCancels) -> Blueprint:
    """Routes `DELETE /orders` and `/orders/cancel-after`."""
    blueprint = Blueprint("client_orders", __name__)

    @blueprint.delete("/orders")
    def cancel_all() -> Response:
        wanted = _mass_cancel(read_query(dict.fromkeys(("client_id", "instrument", "side"), False)))
        if wanted.instrument is not None:
            markets.require(wanted.instrument)
        try:
            swept = cancels.run(wanted)
        except OutcomeUnknown as error:
            raise safe_to_repeat(error) from error
        if wanted.instrument in swept.halted:
            raise refused(Refusal.INSTRUMENT_HALTED)
        return json_response(msgspec.structs.asdict(swept))

    @blueprint.post("/orders/cancel-after")
    def cancel_after() -> Response:
        wanted, timeout_ms = _read_timer(read_body(request.environ))
        symbol = markets.require(wanted.instrument).symbol
        try:
            timer = books.set_timer(symbol, wanted.client_id, timeout_ms * MILLISECOND_US)
        except OutcomeUnknown as error:
            raise safe_to_repeat(error) from error
        view = _timer_view(wanted, timeout_ms, timer.due_us)
        log("cancel-after timer set", request.environ[REQUEST_ID_KEY], timer=view)
        return json_response(view)

    return blueprint


def _mass_cancel(query: dict[str, str]) -> MassCancel:
    errors: Errors = []
    client_id, instrument, side = (query.get(name) for name in ("client_id", "instrument", "side"))
    if client_id is None and instrument is None:
        errors.append(FieldError("client_id", "required", "client_id or instrument must be given"))
    read_text("client_id", client_id, MAX_ID_CHARACTERS, errors)
    if side is not None and side not in set(Side):
        errors.append(FieldError("side", "invalid_value", "buy or sell"))
    if errors:
        raise invalid(errors)
    request_id = request.environ[REQUEST_ID_KEY]
    return MassCancel(client_id, instrument, side, Reason.CANCELLED_BY_CLIENT, request_id)


def _read_timer(body: bytes) -> tuple[CancelAfterBody, int]:
    """A timer and its time in milliseconds."""
    try:
        wanted = _DECODER.decode(body)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise body_problem(error) from error
    errors: Errors = []
    read_text("client_id", wanted.client_id, MAX_ID_CHARACTERS, errors)
    timeout_ms = _timeout_ms(wanted.timeout_s, errors)
    if errors:
        raise invalid(errors)
    return wanted, timeout_ms


def _timeout_ms(raw: msgspec.Raw, errors: Errors) -> int:
    try:
        timeout_s = parse_decimal(decimal_text(raw))
    except InvalidNumber as error:
        errors.append(FieldError("timeout_s", error.code, error.detail))
        return 0
    numerator, denominator = timeout_s.as_integer_ratio()
    timeout_ms, rest = divmod(numerator * SECOND_MS, denominator)
    if rest or not 0 <= timeout_ms <= MAX_TIMEOUT_S * SECOND_MS:
        detail = f"0 to {MAX_TIMEOUT_S} seconds, with at most three decimals"
        errors.append(FieldError("timeout_s", "out_of_range", detail))
        return 0
    return timeout_ms


def _timer_view(wanted: CancelAfterBody, timeout_ms: int, due_us: int | None) -> View:
    seconds, rest_ms = divmod(timeout_ms, SECOND_MS)
    return {
        "client_id": wanted.client_id,
        "instrument": wanted.instrument,
        "timeout_s": timeout_ms / SECOND_MS if rest_ms else seconds,
        "cancel_at": None if due_us is None else timestamp(due_us),
    }
