"""What the feed says: each message shaped and encoded here, once, whoever is going to get it.

Shapes of Trade and Order come from `app.domain.views`. Must not know who has subscribed.
"""

from collections.abc import Callable, Iterable
from enum import StrEnum
from typing import NamedTuple

import msgspec

from app.domain.events import Event, LevelChange
from app.domain.instruments import Market
from app.domain.views import View, order_view, trade_view
from app.feed.frames import compressed_frame, text_frame

GONE = "0"
"""The quantity of a level that is no more, whatever the instrument's number of decimals."""

Level = tuple[int, int]
"""Price in ticks, total in lots."""

_encode = msgspec.json.Encoder().encode


class Channel(StrEnum):
    """All channels that can be subscribed to, in the order in which one event's messages leave.
    Of events a ticker is no message."""

    TRADES = "trades"
    ORDERS = "orders"
    BOOK = "book"
    TICKER = "ticker"


Channels = frozenset[Channel]

NO_CHANNELS: Channels = frozenset()
EVENT_CHANNELS: Channels = frozenset(Channel) - {Channel.TICKER}
"""What is told of each event; of these a client can ask for what it missed."""


class Frames(NamedTuple):
    """Complete frames on their way to a socket, and how many messages they are."""

    data: bytes
    messages: int


NOTHING = Frames(b"", 0)


class Form(NamedTuple):
    """How a subscriber's messages are written: those of the book with its checksum or without, and
    for a client that agreed on compression or not."""

    checksum: bool = False
    compressed: bool = False


PLAIN = Form()


class Look(NamedTuple):
    """Which messages of an event a subscriber is sent, and how: those alike get the same bytes."""

    channels: Channels
    form: Form = PLAIN


def frame(message: View, form: Form = PLAIN) -> Frames:
    """One message, ready for any socket of that form; a plain one for all."""
    return Frames(_framing(form)(_encode(message)), 1)


def _framing(form: Form) -> Callable[[bytes], bytes]:
    return compressed_frame if form.compressed else text_frame


def error(code: str, detail: str, **more: object) -> Frames:
    """Something went wrong, in the words of the contract."""
    return frame({"type": "error", "code": code, "detail": detail, **more})


def heartbeat(symbol: str, sequence: int) -> Frames:
    """Nothing happened since `sequence`, and the connection is alive."""
    return frame({"type": "heartbeat", "instrument": symbol, "sequence": sequence})


def gap(symbol: str, sequence: int) -> Frames:
    """Events right after `sequence` were not seen and never will be on this connection."""
    detail = f"events after sequence {sequence} were missed; ask REST for what happened"
    return error("gap", detail, instrument=symbol, sequence=sequence)


def book_snapshot(
    market: Market, sequence: int, bids: Iterable[Level], asks: Iterable[Level]
) -> View:
    """All levels of a book, each side best first as given."""
    return {
        "type": "book_snapshot",
        "instrument": market.symbol,
        "sequence": sequence,
        "bids": [_level(market, *level) for level in bids],
        "asks": [_level(market, *level) for level in asks],
    }


def book_delta(
    market: Market, previous: int, sequence: int, changes: Iterable[LevelChange]
) -> View:
    """What changed after the event `previous` up to `sequence`."""
    sides: dict[str, list[tuple[str, str]]] = {"bid": [], "ask": []}
    for change in changes:
        sides[change.side].append(_level(market, change.price_ticks, change.total_lots))
    return {
        "type": "book_delta",
        "instrument": market.symbol,
        "sequence": sequence,
        "previous_sequence": previous,
        "bids": sides["bid"],
        "asks": sides["ask"],
    }


def _level(market: Market, price_ticks: int, total_lots: int) -> tuple[str, str]:
    quantity = market.quantity.format(total_lots) if total_lots else GONE
    return market.price.format(price_ticks), quantity


def with_checksum(view: View, checksum: int | None) -> View:
    """A message of the book for those who asked for its checksum; without where it is not known."""
    return view if checksum is None else view | {"checksum": checksum}


def ticker(view: View) -> View:
    """A Ticker as REST gives it, as a message."""
    return {"type": "ticker", **view}


def _book_deltas(market: Market, event: Event) -> list[View]:
    """Exactly one for each event, also where no level changed: the chain has every sequence."""
    return [book_delta(market, event.sequence - 1, event.sequence, event.levels)]


def _trades(market: Market, event: Event) -> list[View]:
    return [{"type": "trade", **trade_view(market, trade)} for trade in event.trades]


def _orders(market: Market, event: Event) -> list[View]:
    return [_order(order_view(market, order)) for order in event.orders]


def _order(view: View) -> View:
    """An Order has a `type` too; a message's `type` says what message it is, so beside the others
    the order's own goes by `order_type`, as on Coinbase Exchange's full channel. Whoever wants the
    Order exactly as REST gives it finds it whole under `order`."""
    return {**view, "type": "order", "order_type": view["type"], "order": view}


_VIEWS: dict[Channel, Callable[[Market, Event], list[View]]] = {
    Channel.TRADES: _trades,
    Channel.ORDERS: _orders,
    Channel.BOOK: _book_deltas,
}


class EventMessages:
    """One event's messages, channel by channel; encoded when the first subscriber needs them.

    `checksum` is of the book after the event, where somebody asked for it.
    """

    __slots__ = ("_checksum", "_frames", "_market", "_payloads", "event")

    def __init__(self, market: Market, event: Event, checksum: int | None = None) -> None:
        self.event = event
        self._market = market
        self._checksum = checksum
        self._payloads: dict[tuple[Channel, bool], list[bytes]] = {}
        self._frames: dict[tuple[Channel, Form], list[bytes]] = {}

    def of(self, channel: Channel, form: Form) -> list[bytes]:
        """The frames of one channel; none where the event has nothing for it."""
        key = channel, form
        frames = self._frames.get(key)
        if frames is None:
            frames = self._frames[key] = [*map(_framing(form), self._encoded(channel, form))]
        return frames

    def _encoded(self, channel: Channel, form: Form) -> list[bytes]:
        key = channel, form.checksum
        payloads = self._payloads.get(key)
        if payloads is None:
            views = _VIEWS[channel](self._market, self.event)
            if form.checksum and channel is Channel.BOOK:
                views = [with_checksum(view, self._checksum) for view in views]
            payloads = self._payloads[key] = [*map(_encode, views)]
        return payloads


def joined(events: Iterable[EventMessages], look: Look) -> Frames:
    """What `look` shows of `events`: event by event, within one in Channel's order."""
    wanted = [channel for channel in Channel if channel in look.channels]
    form = look.form
    frames = [data for event in events for channel in wanted for data in event.of(channel, form)]
    return Frames(b"".join(frames), len(frames))
