"""Holds what clients were told against what the system kept: the event store, the read models, the
book in Redis and the reference matcher must all tell the same story, each order exactly once.
"""

from collections import Counter
from collections.abc import Sequence
from decimal import Decimal

from app.domain.events import parse_event
from tests import reference
from tests.commands import Cancel, Command, Place
from tests.flow import Told
from tests.reference import ReferenceBook
from tests.rest import (
    Json,
    number_of,
    order_id,
    order_words,
    placed_words,
    same_words,
    trade_words,
)
from tests.system import System
from tests.venue import EngineVenue
from tests.venue import _event as reference_event


def audit(system: System, symbol: str, told: Sequence[Told] = ()) -> ReferenceBook:
    """Waits until all is persisted, then checks everything about one instrument (tick 1, lot 1).
    Returns the reference's book at the end.
    """
    system.settled()
    events = stored_events(system, symbol)
    book = replayed(events)
    check_redis(system, symbol, book)
    check_read_models(system, symbol, book)
    check_told(symbol, book, told)
    return book


def stored_events(system: System, symbol: str) -> list[reference.Event]:
    """The event store, gapless from 1."""
    rows = system.rows(
        "SELECT sequence, type, (extract(epoch FROM occurred_at) * 1000000)::bigint AS time,"
        " orders, fills, levels FROM events WHERE instrument = %s ORDER BY sequence",
        symbol,
    )
    assert [row[0] for row in rows] == list(range(1, len(rows) + 1)), "gapless, nothing twice"
    names = ("type", "time", "orders", "fills", "levels")
    return [
        reference_event(
            parse_event(symbol, f"{sequence}-0", dict(zip(names, map(str, fields), strict=True)))
        )
        for sequence, *fields in rows
    ]


def replayed(events: list[reference.Event]) -> ReferenceBook:
    """The book to which the commands of these events lead; they must have had these effects."""
    book = ReferenceBook()
    for event in events:
        book.apply(command_of(event))
        assert book.events[-1] == event
    book.check_invariants()
    return book


def command_of(event: reference.Event) -> Command:
    """What a client asked for, but for the idempotency key."""
    order = event.orders[0]
    if event.type == "cancel":
        return Cancel(order.number)
    return Place(
        order.client,
        order.side,
        order.type,
        order.time_in_force,
        order.quantity_lots,
        order.price_ticks,
        post_only=order.post_only,
        client_order_id=order.client_order_id,
    )


def check_redis(system: System, symbol: str, book: ReferenceBook) -> None:
    """Queue order, level totals, indexes; that only what is open is still there; and the part of
    the stream that is kept.
    """
    venue = EngineVenue(system.redis, symbol=symbol)
    venue.check_against(book)
    assert sorted(venue.orders()) == [o.number for o in all_orders(book) if o.is_open]
    kept = venue.events()
    assert kept == book.events[len(book.events) - len(kept) :]


def check_read_models(system: System, symbol: str, book: ReferenceBook) -> None:
    """The tables orders and trades."""
    orders = system.rows(
        "SELECT order_id, client_id, side, type, time_in_force, post_only, price, quantity,"
        " client_order_id, filled_quantity, remaining_quantity, notional, status, reason, sequence"
        " FROM orders WHERE instrument = %s ORDER BY order_id",
        symbol,
    )
    assert orders == [_order_row(symbol, order) for order in all_orders(book)]
    trades = system.rows(
        "SELECT instrument, price, quantity, side, buy_order_id, sell_order_id, maker_order_id,"
        " taker_order_id, sequence, fill_index FROM trades WHERE instrument = %s"
        " ORDER BY sequence, fill_index",
        symbol,
    )
    assert trades == [_trade_row(symbol, trade) for event in book.events for trade in event.trades]


def all_orders(book: ReferenceBook) -> list[reference.Order]:
    """Every order ever placed, in its last state, oldest first."""
    numbers = (event.sequence for event in book.events if event.type == "place")
    return [order for number in numbers if (order := book.order(number))]


def _order_row(symbol: str, order: reference.Order) -> tuple[object, ...]:
    price = None if order.price_ticks is None else Decimal(order.price_ticks)
    return (
        *(order_id(symbol, order.number), order.client, order.side, order.type),
        *(order.time_in_force, order.post_only, price, Decimal(order.quantity_lots)),
        *(order.client_order_id, Decimal(order.filled_lots), Decimal(order.remaining_lots)),
        *(Decimal(order.notional), order.status, order.reason, order.sequence),
    )


def _trade_row(symbol: str, trade: reference.Trade) -> tuple[object, ...]:
    words = trade_words(symbol, trade)
    words |= {"price": Decimal(trade.price_ticks), "quantity": Decimal(trade.quantity_lots)}
    return (*words.values(), trade.index)


def check_told(symbol: str, book: ReferenceBook, told: Sequence[Told]) -> None:
    """Every answer is what the event of its sequence says; what was accepted is there exactly once,
    what was refused not at all.
    """
    placed = Counter(
        event.orders[0].client_order_id for event in book.events if event.type == "place"
    )
    accepted = {
        one.command.client_order_id
        for one in told
        if isinstance(one.command, Place) and one.answer.status == 201
    }
    if told:
        named = [count for identity, count in placed.items() if identity is not None]
        assert max(named, default=0) <= 1, "traders never use an id twice"
    for one in told:
        if one.answer.status in (200, 201):
            _check_accepted(symbol, book, one)
        else:
            assert 400 <= one.answer.status < 500, one
            assert one.answer.headers["Content-Type"] == "application/problem+json"
        if isinstance(one.command, Place) and one.command.client_order_id is not None:
            identity = one.command.client_order_id
            assert placed[identity] == (identity in accepted), f"{placed[identity]} times: {one}"


def _check_accepted(symbol: str, book: ReferenceBook, one: Told) -> None:
    document = one.answer.json()
    event = book.events[sequence_of(one) - 1]
    order = event.orders[0]
    if isinstance(one.command, Cancel):
        assert (event.type, order.number) == ("cancel", one.command.number)
        words: Json = {"order": order_words(symbol, order)}
    else:
        assert command_of(event) == one.command.payload()
        assert document["order"]["idempotency_key"] == one.command.idempotency_key
        words = placed_words(symbol, reference.Placed(order, event.trades))
    assert same_words(document, words) == words


def sequence_of(one: Told) -> int:
    """The sequence that an accepted command took; of a replay, the first one's."""
    order = one.answer.json()["order"]
    return number_of(order["order_id"]) if isinstance(one.command, Place) else order["sequence"]
