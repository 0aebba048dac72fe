"""What leaves on a WebSocket: frames, and the shapes of the contract."""

from typing import Any

import msgspec
import pytest
from wsproto.connection import Connection, ConnectionType
from wsproto.events import TextMessage

from app.domain.events import parse_event
from app.domain.views import order_view, trade_views
from app.feed.frames import text_frame
from app.feed.messages import (
    EVENT_CHANNELS,
    Channel,
    EventMessages,
    Look,
    book_snapshot,
    frame,
    joined,
)
from tests.feed_events import MARKETS, entry, event, order_line

MARKET = MARKETS["BTC-USD"]
BOOK = frozenset({Channel.BOOK})
ORDERS = order_line(8) + "\n" + order_line(3, side="sell", status="filled", filled_lots="7")


def read(data: bytes) -> list[dict[str, Any]]:
    """The messages in frames, read by an independent implementation (wsproto's client)."""
    client = Connection(ConnectionType.CLIENT)
    client.receive_data(data)
    found, text = [], ""
    for received in client.events():
        assert isinstance(received, TextMessage)
        text += received.data
        if received.message_finished:
            found.append(msgspec.json.decode(text))
            text = ""
    return found


@pytest.mark.parametrize("size", [0, 1, 125, 126, 127, 65_535, 65_536, 70_000])
def test_a_frame_of_any_size_is_read_as_its_payload(size: int) -> None:
    """RFC 6455 has three ways to write a length; each is taken where it must be."""
    client = Connection(ConnectionType.CLIENT)
    client.receive_data(text_frame(b"x" * size))
    text = "".join(event.data for event in client.events())
    assert text == "x" * size


def test_an_event_becomes_trades_then_orders_then_one_delta() -> None:
    """Shapes are the contract's: Trade and Order as REST shows them, changed levels as pairs."""
    item = entry(8, "bid:123=0 ask:5001=250", "3,5000,7 3,5001,2", ORDERS)
    event = parse_event("BTC-USD", *item)
    messages = read(joined([EventMessages(MARKET, event)], Look(EVENT_CHANNELS)).data)
    trades = trade_views(MARKET, event.order, 8, event.time_us, event.fills)
    orders = [order_view(MARKET, order) for order in event.orders]
    assert messages == [
        *[trade | {"type": "trade"} for trade in trades],
        *[order | {"type": "order", "order_type": "limit", "order": order} for order in orders],
        {
            "type": "book_delta",
            "instrument": "BTC-USD",
            "sequence": 8,
            "previous_sequence": 7,
            "bids": [["1.23", "0"]],
            "asks": [["50.01", "0.00000250"]],
        },
    ]
    assert [message["type"] for message in messages] == ["trade"] * 2 + ["order"] * 2 + [
        "book_delta"
    ]


def test_an_event_without_a_change_of_level_is_a_delta_all_the_same() -> None:
    """Exactly one delta for each event, so that sequences have no hole."""
    event = parse_event("BTC-USD", *entry(5))
    (delta,) = read(joined([EventMessages(MARKET, event)], Look(BOOK)).data)
    assert (delta["sequence"], delta["previous_sequence"]) == (5, 4)
    assert delta["bids"] == delta["asks"] == []


def told(channel: Channel, item: tuple[str, dict[str, str]]) -> list[dict[str, Any]]:
    """The messages of one stream entry on one channel."""
    messages = EventMessages(MARKET, parse_event("BTC-USD", *item))
    return read(joined([messages], Look(frozenset({channel}))).data)


@pytest.mark.parametrize(
    ("type_", "detail"),
    [
        ("rules", "status=halted maker_fee_bps=1 taker_fee_bps=2"),
        ("kill_switch", "alice|1"),
        ("cancel_after", "alice|1700000000000000"),
        ("cancel_after", "alice|"),
    ],
)
def test_an_event_that_changes_no_order_is_a_delta_and_nothing_else(
    type_: str, detail: str
) -> None:
    """The book's chain goes on through it, and no other channel hears of it."""
    item = event(type_, 5, detail=detail)
    assert told(Channel.TRADES, item) == []
    assert told(Channel.ORDERS, item) == []
    (delta,) = told(Channel.BOOK, item)
    assert (delta["sequence"], delta["previous_sequence"]) == (5, 4)
    assert delta["bids"] == delta["asks"] == []


@pytest.mark.parametrize("type_", ["amend", "trigger"])
def test_trades_of_amended_orders_and_triggered_stops_are_told(type_: str) -> None:
    """Their taker is the event's first order, which is older than the event."""
    orders = order_line(2, sequence="8") + "\n" + order_line(3, side="sell", sequence="8")
    trade, second = told(Channel.TRADES, event(type_, 8, orders, "", "3,5000,7 3,5001,2"))
    assert trade["taker_order_id"] == trade["buy_order_id"] == "BTC-USD-00000000000002"
    assert trade["maker_order_id"] == "BTC-USD-00000000000003"
    assert (trade["trade_id"], second["trade_id"]) == (
        "BTC-USD-00000000000008-1",
        "BTC-USD-00000000000008-2",
    )


@pytest.mark.parametrize("type_", ["mass_cancel", "expire", "cancel_after", "amend"])
def test_every_order_that_an_event_changed_is_told(type_: str) -> None:
    """In the event's order."""
    orders = "\n".join(order_line(number, sequence="8", status="cancelled") for number in (3, 5, 7))
    messages = told(Channel.ORDERS, event(type_, 8, orders, "bid:5000=0", detail="alice|"))
    ids = [message["order_id"] for message in messages]
    assert ids == [f"BTC-USD-{number:014}" for number in (3, 5, 7)]
    assert {message["sequence"] for message in messages} == {8}


def test_a_level_shows_what_an_iceberg_shows_and_no_more() -> None:
    """The levels are the event's; what orders hide is in none of them, and in no trade."""
    orders = order_line(8, display_lots="10", displayed_lots="10", quantity_lots="100")
    item = event("place", 8, orders, "bid:5000=10", "3,5000,7")
    (delta,), (trade,) = told(Channel.BOOK, item), told(Channel.TRADES, item)
    assert delta["bids"] == [["50.00", "0.00000010"]]
    assert "display_quantity" not in trade
    assert trade["quantity"] == "0.00000007"


def test_a_snapshot_has_its_levels_as_given() -> None:
    """Prices and quantities have the instrument's own decimals."""
    snapshot = book_snapshot(MARKETS["DOGE-USD"], 9, [(12, 3), (11, 20)], [])
    assert read(frame(snapshot).data) == [
        {
            "type": "book_snapshot",
            "instrument": "DOGE-USD",
            "sequence": 9,
            "bids": [["0.00012", "0.3"], ["0.00011", "2.0"]],
            "asks": [],
        }
    ]


def test_only_the_channels_asked_for_are_made() -> None:
    """Frames are counted in messages, and an event without fills has no trades."""
    event = EventMessages(MARKET, parse_event("BTC-USD", *entry(5)))
    assert joined([event], Look(frozenset({Channel.TRADES}))).messages == 0
    assert joined([event, event], Look(BOOK)).messages == 2


def test_a_frame_holds_utf_8() -> None:
    """Text beyond ASCII arrives as it was."""
    assert read(frame({"detail": "№ ⚖"}).data) == [{"detail": "№ ⚖"}]
