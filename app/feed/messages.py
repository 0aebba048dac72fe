"""What the feed says: each message shaped and encoded here, once, whoever is going to get it.

Shapes of Trade and Order come from `app.domain.views`. Must not know who has subscribed.
"""

from collections.abc import Callable, Iterable
from enum import StrEnum
from typing import NamedTuple

import msgspec

from app.domain.events import Event
from app.domain.instruments import Market
from app.domain.views import View, order_view, trade_view
from app.feed.frames import text_frame

GONE = "0"
"""The quantity of a level that is no more, whatever the instrument's number of decimals."""

Level = tuple[int, int]
"""Price in ticks, total in lots."""

_encode = msgspec.json.Encoder().encode


class Channel(StrEnum):
    """All channels that can be subscribed to, in the order in which one event's messages leave."""

    TRADES = "trades"
    ORDERS = "orders"
    BOOK = "book"


Channels = frozenset[Channel]


class Frames(NamedTuple):
    """Complete frames on their way to a socket, and how many messages they are."""

    data: bytes
    messages: int


NOTHING = Frames(b"", 0)


def frame(message: View) -> Frames:
    """One message, ready for any socket."""
    return Frames(text_frame(_encode(message)), 1)


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
) -> Frames:
    """All levels of a book, each side best first as given."""
    return frame(
        {
            "type": "book_snapshot",
            "instrument": market.symbol,
            "sequence": sequence,
            "bids": [_level(market, *level) for level in bids],
            "asks": [_level(market, *level) for level in asks],
        }
    )


def _level(market: Market, price_ticks: int, total_lots: int) -> tuple[str, str]:
    quantity = market.quantity.format(total_lots) if total_lots else GONE
    return market.price.format(price_ticks), quantity


def _book_delta(market: Market, event: Event) -> list[View]:
    """Exactly one for each event, also where no level changed: the chain has every sequence."""
    sides: dict[str, list[tuple[str, str]]] = {"bid": [], "ask": []}
    for change in event.levels:
        sides[change.side].append(_level(market, change.price_ticks, change.total_lots))
    return [
        {
            "type": "book_delta",
            "instrument": market.symbol,
            "sequence": event.sequence,
            "previous_sequence": event.sequence - 1,
            "bids": sides["bid"],
            "asks": sides["ask"],
        }
    ]


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
    Channel.BOOK: _book_delta,
}


class EventMessages:
    """One event's messages, channel by channel; encoded when the first subscriber needs them."""

    __slots__ = ("_event", "_made", "_market")

    def __init__(self, market: Market, event: Event) -> None:
        self._market = market
        self._event = event
        self._made: dict[Channel, list[bytes]] = {}

    def of(self, channel: Channel) -> list[bytes]:
        """The frames of one channel; none where the event has nothing for it."""
        made = self._made.get(channel)
        if made is None:
            views = _VIEWS[channel](self._market, self._event)
            made = self._made[channel] = [text_frame(_encode(view)) for view in views]
        return made


def joined(events: Iterable[EventMessages], channels: Channels) -> Frames:
    """All messages of `events` on `channels`: event by event, within one in Channel's order."""
    wanted = [channel for channel in Channel if channel in channels]
    frames = [data for event in events for channel in wanted for data in event.of(channel)]
    return Frames(b"".join(frames), len(frames))
