"""The WebSocket: `/ws` and `/stream`. Reads clients' messages and answers them.

Market data comes from the feed's hub, commands go through the functions given; this module only
understands messages. It must not know how either is done.
"""

import logging
from collections.abc import Callable
from typing import Annotated, Any, NamedTuple, Protocol

import msgspec
from flask import Blueprint, Response, current_app, g, request
from flask.blueprints import BlueprintSetupState
from flask_sock import Sock
from msgspec import Meta
from werkzeug.exceptions import BadRequest
from werkzeug.routing import WebsocketMismatch
from wsproto.utilities import RemoteProtocolError

from app.api.bodies import Changes
from app.api.disconnects import Promises
from app.api.fields import ABSENT, MAX_ID_CHARACTERS, Errors, read_text
from app.api.problems import Problem
from app.domain.instruments import Market
from app.engine.executor import EngineUnavailable
from app.feed import compression
from app.feed.conflation import INTERVAL_MS_MAX, INTERVAL_MS_MIN
from app.feed.connection import Connection, WebSocket
from app.feed.hub import SUBSCRIPTIONS_MAX, Hub, HubFull, TooManySubscriptions
from app.feed.members import EVERY_EVENT, BookOptions
from app.feed.messages import Channel, Channels, error, frame
from app.feed.subscribers import Subscriber
from app.feed.transport import GuardedSocket

MESSAGE_BYTES_MAX = 64 * 1024
"""A longer message closes its connection with 1009, as RFC 6455 has it."""
INSTRUMENTS_MAX = 100
CHANNELS_MAX = 10
CLIENTS_MAX = 100
"""Whose orders may be cancelled when one connection ends."""
REQUEST_ID_CHARACTERS_MAX = 128
DETAIL_CHARACTERS_MAX = 300
INT64_MAX = 2**63 - 1
"""The greatest integer request id and sequence; beyond it JSON libraries disagree."""
RETRY_AFTER_S = 1

ROUTES = ("/ws", "/stream")
_SOCKET_NAMES = ("gunicorn.socket", "werkzeug.socket")
"""Where WSGI servers put a connection's socket."""
_EXTENSIONS = "HTTP_SEC_WEBSOCKET_EXTENSIONS"
_logger = logging.getLogger(__name__)

Sequence = Annotated[int, Meta(ge=0, le=INT64_MAX)]
RequestId = (
    Annotated[str, Meta(max_length=REQUEST_ID_CHARACTERS_MAX)]
    | Annotated[int, Meta(ge=-INT64_MAX, le=INT64_MAX)]
    | None
)


class Answer(Protocol):
    """What a command answers: HTTP status and JSON body, as REST would."""

    @property
    def status(self) -> int: ...
    @property
    def body(self) -> bytes: ...
    @property
    def replayed(self) -> bool: ...


class Commands(NamedTuple):
    """What can be asked for over the socket besides market data. All but `disconnected` answer as
    REST does and are called one at a time for each connection.
    """

    place: Callable[[bytes], Answer]
    """Takes an order's JSON."""
    amend: Callable[[str, Changes], Answer]
    """Takes an order id and what is to change."""
    cancel: Callable[[str], Answer]
    """Takes an order id."""
    disconnected: Callable[[Promises], None]
    """Takes what a connection that has ended was promised, if anything."""


MarketOf = Callable[[str], Market | None]


class _Message(msgspec.Struct, tag_field="op", forbid_unknown_fields=True, kw_only=True):
    request_id: RequestId = None


class _Selection(_Message, kw_only=True):
    channels: Annotated[list[str], Meta(min_length=1, max_length=CHANNELS_MAX)]
    instruments: Annotated[list[str], Meta(min_length=1, max_length=INSTRUMENTS_MAX)]


class _Subscribe(_Selection, tag="subscribe", kw_only=True):
    interval_ms: int = 0
    checksum: bool = False
    since: Annotated[dict[str, Sequence], Meta(max_length=INSTRUMENTS_MAX)] | Sequence | None = None


class _Unsubscribe(_Selection, tag="unsubscribe", kw_only=True):
    pass


class _Place(_Message, tag="place", kw_only=True):
    order: msgspec.Raw


class _Cancel(_Message, tag="cancel", kw_only=True):
    order_id: str


class _Amend(_Message, tag="amend", kw_only=True):
    order_id: str
    price: msgspec.Raw = ABSENT
    quantity: msgspec.Raw = ABSENT
    stop_price: msgspec.Raw = ABSENT


class _CancelOnDisconnect(_Message, tag="cancel_on_disconnect", kw_only=True):
    client_id: str
    instruments: Annotated[list[str], Meta(max_length=INSTRUMENTS_MAX)] | None = None


class _Ping(_Message, tag="ping", kw_only=True):
    pass


_Known = _Subscribe | _Unsubscribe | _Place | _Amend | _Cancel | _CancelOnDisconnect | _Ping
_OPS = frozenset(
    ("subscribe", "unsubscribe", "place", "amend", "cancel", "cancel_on_disconnect", "ping")
)
_decoder: msgspec.json.Decoder[_Known] = msgspec.json.Decoder(_Known)
_loose_decoder = msgspec.json.Decoder(dict[str, msgspec.Raw])
_text_decoder = msgspec.json.Decoder(str)
_request_id_decoder: msgspec.json.Decoder[RequestId] = msgspec.json.Decoder(RequestId)


class _Refused(Exception):
    """A message that gets an `error` for its answer."""

    def __init__(self, code: str, detail: str) -> None:
        super().__init__(detail)
        self.code = code
        self.detail = detail


class _Conversation:
    """Answers the messages of one connection, one after the other."""

    def __init__(
        self, hub: Hub, subscriber: Subscriber, commands: Commands, market_of: MarketOf
    ) -> None:
        self._hub = hub
        self._subscriber = subscriber
        self._commands = commands
        self._market_of = market_of
        self._promises: dict[str, list[str] | None] = {}

    def answer(self, message: str | bytes) -> None:
        """Answer one message, whatever it is. Never raises."""
        request_id: RequestId = None
        try:
            known = _read(message)
            request_id = known.request_id
            self._carry_out(known)
        except _Refused as refusal:
            self._refuse(refusal.code, refusal.detail, request_id or _request_id_of(message))
        except EngineUnavailable as error:
            # The driver's own words name files and hosts.
            _logger.warning("a store is away", extra={"error": repr(error)})
            self._refuse("unavailable", "Redis does not answer now; ask again", request_id)
        except Exception:
            _logger.exception("a message on a WebSocket failed")
            self._refuse("internal_error", "a defect of the server; it was logged", request_id)

    def end(self) -> None:
        """The connection is over."""
        if self._promises:
            self._commands.disconnected(self._promises)

    def _refuse(self, code: str, detail: str, request_id: RequestId) -> None:
        short = detail[:DETAIL_CHARACTERS_MAX]
        self._subscriber.offer(error(code, short, **_echo(request_id)))

    def _reply(self, kind: str, request_id: RequestId, **fields: object) -> None:
        self._subscriber.offer(frame({"type": kind, **_echo(request_id), **fields}))

    def _carry_out(self, message: _Known) -> None:
        match message:
            case _Subscribe():
                self._subscribe(message)
            case _Unsubscribe():
                self._unsubscribe(message)
            case _Place():
                self._respond(message.request_id, self._commands.place(bytes(message.order)))
            case _Amend():
                changes = Changes(message.price, message.quantity, message.stop_price)
                answer = self._commands.amend(message.order_id, changes)
                self._respond(message.request_id, answer)
            case _Cancel():
                self._respond(message.request_id, self._commands.cancel(message.order_id))
            case _CancelOnDisconnect():
                self._promise(message)
            case _Ping():
                self._reply("pong", message.request_id)

    def _respond(self, request_id: RequestId, answer: Answer) -> None:
        fields = {"request_id": request_id, "status": answer.status}
        if answer.replayed:
            fields["replayed"] = True
        body = msgspec.Raw(answer.body or b"null")
        self._subscriber.offer(frame({"type": "response", **fields, "body": body}))

    def _promise(self, message: _CancelOnDisconnect) -> None:
        """Note what is to be cancelled at the end; it replaces what was said of this client before,
        and an empty list of instruments takes it back.
        """
        client_id, instruments = message.client_id, message.instruments
        errors: Errors = []
        read_text("client_id", client_id, MAX_ID_CHARACTERS, errors)
        if errors:
            raise _Refused("invalid_message", f"client_id: {errors[0].detail}")
        if instruments is not None:
            instruments = [self._market(each).symbol for each in dict.fromkeys(instruments)]
        if len(self._promises.keys() | {client_id}) > CLIENTS_MAX:
            detail = f"at most {CLIENTS_MAX} clients on one connection"
            raise _Refused("too_many_clients", detail)
        self._promises[client_id] = instruments
        if instruments == []:
            del self._promises[client_id]
        body = {"client_id": client_id, "instruments": instruments}
        self._reply("response", message.request_id, status=200, body=body)

    def _subscribe(self, message: _Subscribe) -> None:
        channels = _channels(message)
        options = _book_options(message, channels)
        since = _since(message)
        markets = [self._market(symbol) for symbol in dict.fromkeys(message.instruments)]
        # What was not asked for is not spoken of, either.
        said = {name: value for name, value in options._asdict().items() if value}
        acknowledgement = frame(_acknowledgement("subscribed", message) | said)
        try:
            self._hub.subscribe(
                self._subscriber, channels, markets, acknowledgement, options, since
            )
        except TooManySubscriptions:
            detail = f"at most {SUBSCRIPTIONS_MAX} channels of instruments on one connection"
            raise _Refused("too_many_subscriptions", detail) from None

    def _market(self, symbol: str) -> Market:
        market = self._market_of(symbol)
        if market is None:
            raise _Refused("instrument_not_found", f"no instrument {symbol[:32]!r}")
        return market

    def _unsubscribe(self, message: _Unsubscribe) -> None:
        self._hub.unsubscribe(
            self._subscriber,
            _channels(message),
            message.instruments,
            frame(_acknowledgement("unsubscribed", message)),
        )


def _echo(request_id: RequestId) -> dict[str, Any]:
    return {} if request_id is None else {"request_id": request_id}


def _acknowledgement(kind: str, message: _Selection) -> dict[str, Any]:
    return {
        "type": kind,
        "channels": list(dict.fromkeys(message.channels)),
        "instruments": list(dict.fromkeys(message.instruments)),
        **_echo(message.request_id),
    }


def _channels(message: _Selection) -> Channels:
    unknown = [name for name in message.channels if name not in set(Channel)]
    if unknown:
        raise _Refused("unknown_channel", f"no channel {unknown[0][:32]!r}")
    return frozenset(map(Channel, message.channels))


def _book_options(message: _Subscribe, channels: Channels) -> BookOptions:
    options = BookOptions(message.interval_ms, message.checksum)
    if options != EVERY_EVENT and Channel.BOOK not in channels:
        raise _Refused("invalid_message", "interval_ms and checksum are for the channel book")
    if options.interval_ms and not INTERVAL_MS_MIN <= options.interval_ms <= INTERVAL_MS_MAX:
        limits = f"{INTERVAL_MS_MIN} to {INTERVAL_MS_MAX}"
        raise _Refused("invalid_message", f"interval_ms: 0 for every event, else {limits}")
    return options


def _since(message: _Subscribe) -> dict[str, int]:
    """The sequence that each instrument is to go on from, of those that are to."""
    since = message.since
    if since is None:
        return {}
    if isinstance(since, int):
        return dict.fromkeys(message.instruments, since)
    unknown = since.keys() - set(message.instruments)
    if unknown:
        raise _Refused("invalid_message", f"since: {min(unknown)[:32]!r} is not in instruments")
    return since


def _read(message: str | bytes) -> _Known:
    """Read a message.

    Raises:
        _Refused: it is not JSON, names no op there is, or has not the fields of its op.
    """
    if isinstance(message, bytes):
        raise _Refused("malformed_message", "a message is JSON in a text frame, not a binary one")
    try:
        return _decoder.decode(message)
    except msgspec.ValidationError as problem:
        raise _invalid(message, str(problem)) from None
    except msgspec.DecodeError as problem:
        raise _Refused("malformed_message", str(problem)) from None
    except RecursionError:
        raise _Refused("malformed_message", "nested too deeply") from None


def _invalid(message: str, detail: str) -> _Refused:
    """What is wrong with JSON that is no message."""
    op = _field(message, "op")
    if op is None:
        return _Refused("invalid_message", detail)
    try:
        name = _text_decoder.decode(op)
    except msgspec.MsgspecError:
        return _Refused("invalid_message", detail)
    if name not in _OPS:
        return _Refused("unknown_op", f"no op {name[:32]!r}")
    return _Refused("invalid_message", detail)


def _field(message: str | bytes, name: str) -> msgspec.Raw | None:
    try:
        return _loose_decoder.decode(message).get(name)
    except (msgspec.MsgspecError, RecursionError):
        return None


def _request_id_of(message: str | bytes) -> RequestId:
    """The request id of a message that is wrong otherwise, if one can be read."""
    found = None if isinstance(message, bytes) else _field(message, "request_id")
    try:
        return None if found is None else _request_id_decoder.decode(found)
    except msgspec.MsgspecError:
        return None


def stream_blueprint(hub: Hub, commands: Commands, market_of: MarketOf) -> Blueprint:
    """The routes of the WebSocket. `market_of` gives the market of a symbol that is listed."""
    blueprint = Blueprint("stream", __name__)
    sock = Sock()

    def serve(ws: WebSocket) -> None:
        conversation = _Conversation(hub, g.subscriber, commands, market_of)
        Connection(ws, g.guard, g.subscriber).run(conversation.answer, conversation.end)

    def admit() -> None:
        try:
            g.subscriber = hub.join()
        except HubFull:
            detail = "this process takes no more WebSockets now"
            raise Problem(
                503, "too_many_connections", detail, retry_after_s=RETRY_AFTER_S
            ) from None
        _prepare_handshake()

    def leave(_error: BaseException | None) -> None:
        subscriber = g.pop("subscriber", None)
        if subscriber is not None:
            hub.leave(subscriber)

    blueprint.before_request(admit)
    blueprint.teardown_request(leave)
    blueprint.record_once(_configure)
    for refused in (RemoteProtocolError, ValueError):
        blueprint.register_error_handler(refused, _bad_handshake)
    for route in ROUTES:
        sock.route(route, bp=blueprint, endpoint=route.strip("/"))(serve)
    return blueprint


def _configure(state: BlueprintSetupState) -> None:
    state.app.config.setdefault("SOCK_SERVER_OPTIONS", {"max_message_size": MESSAGE_BYTES_MAX})
    state.app.register_error_handler(WebsocketMismatch, _mismatch)


def _prepare_handshake() -> None:
    """Put the guarded socket where simple-websocket looks for the connection's own."""
    environ = request.environ
    for name in _SOCKET_NAMES:
        if name in environ:
            g.guard = environ[name] = GuardedSocket(environ[name])
    # wsproto takes any offer that it understands, and fails on parameters that are no numbers; so
    # what is left of the header is what it is to agree on.
    agreed = compression.agree(environ.pop(_EXTENSIONS, ""))
    if agreed is not None:
        environ[_EXTENSIONS] = agreed
    g.subscriber.compressed = agreed is not None


def _mismatch(_: Exception) -> Response:
    """A request without an upgrade for a route that needs one, or the other way round; in routing's
    own words the server could not understand it."""
    detail = f"{request.path} is no WebSocket"
    if request.path in ROUTES:
        detail = f"{request.path} is a WebSocket, for clients that ask for an upgrade (RFC 6455)"
    return current_app.make_response(current_app.handle_user_exception(BadRequest(detail)))


def _bad_handshake(reason: Exception) -> Response:
    """Errors before the upgrade; `Connection` lets none out after it."""
    answer = current_app.handle_user_exception(BadRequest(f"no WebSocket handshake: {reason}"))
    return current_app.make_response(answer)
