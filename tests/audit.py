"""Holds what clients were told against what the system kept: the event store, the read models, the
book in Redis and the reference matcher must all tell the same story, each order exactly once.
"""

from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from decimal import Decimal
from typing import Any

from app.domain.events import parse_event
from app.domain.rules import parse_rules_detail
from tests import reference
from tests.commands import (
    Amend,
    ArmTimer,
    Cancel,
    Command,
    KillSwitch,
    MassCancel,
    Place,
    SetRules,
    Sweep,
    Tick,
)
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
from tests.venue import EngineVenue, comparable, comparable_event, event_of

RULES = ("status", "price_band_bps", "max_order_lots", "max_order_notional", "max_open_orders")
FEES = ("maker_fee_bps", "taker_fee_bps")


@dataclass(frozen=True, slots=True)
class Stored:
    """A row of the event store: when it happened, what, and what is in force after it."""

    time_us: int
    event: reference.Event
    rules: SetRules
    fees_bps: tuple[Decimal, Decimal]
    """Maker's and taker's."""


def audit(system: System, symbol: str, told: Sequence[Told] = ()) -> ReferenceBook:
    """Waits until all is persisted, then checks everything about one instrument (tick 1, lot 1)
    that was listed without rules and has no orders that decrement. Returns the reference's book at
    the end.
    """
    system.settled()
    events = stored_events(system, symbol)
    book = replayed(events)
    check_redis(system, symbol, book)
    check_read_models(system, symbol, book)
    check_clearing(system, symbol, events)
    check_told(symbol, book, told)
    return book


def stored_events(system: System, symbol: str) -> list[Stored]:
    """The event store, gapless from 1."""
    rows = system.rows(
        "SELECT sequence, type, (extract(epoch FROM occurred_at) * 1000000)::bigint AS time,"
        " orders, fills, levels, detail FROM events WHERE instrument = %s ORDER BY sequence",
        symbol,
    )
    assert [row[0] for row in rows] == list(range(1, len(rows) + 1)), "gapless, nothing twice"
    names = ("type", "time", "orders", "fills", "levels", "detail")
    rules, fees = SetRules(), (Decimal(0), Decimal(0))
    stored = []
    for sequence, *fields in rows:
        event = parse_event(
            symbol, f"{sequence}-0", dict(zip(names, map(str, fields), strict=True))
        )
        if event.type == "rules":
            said = parse_rules_detail(event.detail)
            rules = SetRules(**{name: getattr(said, name) for name in RULES})
            fees = said.maker_fee_bps, said.taker_fee_bps
        stored.append(Stored(event.time_us, event_of(event), rules, fees))
    return stored


def replayed(stored: list[Stored]) -> ReferenceBook:
    """The book to which the commands of these events lead; they must have had these effects."""
    book = ReferenceBook(now_us=stored[0].time_us if stored else 0)
    for one in stored:
        if one.event.sequence > book.sequence:  # else a command before it has set it off
            book.apply(Tick(one.time_us - book.now_us))
            book.apply(_command_of(one, book))
        assert comparable_event(book.events[one.event.sequence - 1]) == one.event
    book.check_invariants()
    return book


def _command_of(one: Stored, book: ReferenceBook) -> Command:
    """As `command_of`, with what only the book and the store can tell: a timer that fired and found
    no order looks like one that was disarmed, which one that is due cannot be.
    """
    if one.event.type == "rules":
        return one.rules
    if one.event.type == "cancel_after":
        client = one.event.detail.rpartition("|")[0]
        if book.timers.get(client, book.now_us + 1) <= book.now_us:
            return Sweep()
    return command_of(one.event, one.time_us)


def command_of(event: reference.Event, time_us: int = 0) -> Command:
    """What led to an event that begins a story: what a client asked for, but for the idempotency
    key; or the sweep.
    """
    match event.type:
        case "place":
            return _place_of(event.orders[0])
        case "amend":
            return _amend_of(event.orders[0])
        case "cancel":
            return Cancel(event.orders[0].number)
        case "mass_cancel":
            return _mass_cancel_of(event.orders)
        case "kill_switch" | "cancel_after" if not event.orders:
            return _setting_of(event, time_us)
        case _:
            return Sweep()


def _setting_of(event: reference.Event, time_us: int) -> Command:
    client, _, set_to = event.detail.rpartition("|")
    if event.type == "kill_switch":
        return KillSwitch(client, engaged=set_to == "1")
    return ArmTimer(client, int(set_to) - time_us if set_to else 0)


def _mass_cancel_of(orders: tuple[reference.Order, ...]) -> MassCancel:
    sides = {order.side for order in orders}
    side = sides.pop() if len(sides) == 1 else None
    return MassCancel(orders[0].client, side, after=orders[0].number - 1)


def _place_of(order: reference.Order) -> Place:
    return Place(
        order.client,
        order.side,
        order.type,
        order.time_in_force,
        order.quantity_lots,
        order.price_ticks,
        post_only=order.post_only,
        client_order_id=order.client_order_id,
        stop_price_ticks=order.stop_price_ticks,
        display_lots=order.display_lots,
        expires_us=order.expires_us,
        self_trade_prevention=order.self_trade_prevention,
    )


def _amend_of(order: reference.Order) -> Amend:
    stop_price = order.stop_price_ticks if order.status == "pending" else None
    return Amend(order.number, order.price_ticks, order.quantity_lots, stop_price)


def check_redis(system: System, symbol: str, book: ReferenceBook) -> None:
    """Queue order, level totals, indexes; that only what is open is still there; and the part of
    the stream that is kept.
    """
    venue = EngineVenue(system.redis, symbol=symbol)
    venue.check_against(book)
    assert sorted(venue.orders()) == [o.number for o in all_orders(book) if o.is_open]
    kept = venue.events()
    assert kept == [comparable_event(e) for e in book.events[len(book.events) - len(kept) :]]


def check_read_models(system: System, symbol: str, book: ReferenceBook) -> None:
    """The tables orders and trades."""
    orders = system.rows(
        "SELECT order_id, client_id, side, type, time_in_force, post_only, price, quantity,"
        " client_order_id, filled_quantity, remaining_quantity, notional, status, reason, sequence,"
        " stop_price, display_quantity, displayed_quantity, self_trade_prevention,"
        " (extract(epoch FROM expires_at) * 1000000)::bigint"
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


def check_clearing(system: System, symbol: str, stored: Sequence[Stored]) -> None:
    """Fees by the rates in force at each trade, and positions as the trades add up."""
    held: dict[str, list[Any]] = defaultdict(lambda: [Decimal(0)] * 3 + [0])
    clients = {order.number: order.client for one in stored for order in one.event.orders}
    fees = []
    for one in stored:
        for trade in one.event.trades:
            notional = Decimal(trade.price_ticks * trade.quantity_lots)
            paid = [notional * rate / 10_000 for rate in one.fees_bps]
            fees.append(tuple(paid))
            maker_side = 1 if trade.side == "buy" else 0
            for number, side, fee in (
                (trade.maker, maker_side, paid[0]),
                (trade.taker, 1 - maker_side, paid[1]),
            ):
                position = held[clients[number]]
                position[side] += trade.quantity_lots
                position[2] += fee
                position[3] += 1
    charged = system.rows(
        "SELECT maker_fee, taker_fee FROM trades WHERE instrument = %s"
        " ORDER BY sequence, fill_index",
        symbol,
    )
    assert charged == fees
    positions = system.rows(
        "SELECT client_id, bought_quantity, sold_quantity, fees, trades FROM positions"
        " WHERE instrument = %s ORDER BY client_id",
        symbol,
    )
    assert positions == [(client, *position) for client, position in sorted(held.items())]


def all_orders(book: ReferenceBook) -> list[reference.Order]:
    """Every order ever placed, in its last state, oldest first."""
    numbers = (event.sequence for event in book.events if event.type == "place")
    return [order for number in numbers if (order := book.order(number))]


def _order_row(symbol: str, order: reference.Order) -> tuple[object, ...]:
    order = comparable(order)
    price = _decimal(order.price_ticks)
    return (
        *(order_id(symbol, order.number), order.client, order.side, order.type),
        *(order.time_in_force, order.post_only, price, Decimal(order.quantity_lots)),
        *(order.client_order_id, Decimal(order.filled_lots), Decimal(order.remaining_lots)),
        *(Decimal(order.notional), order.status, order.reason, order.sequence),
        *(_decimal(order.stop_price_ticks), _decimal(order.display_lots)),
        *(_decimal(order.shown_lots), order.self_trade_prevention, order.expires_us),
    )


def _decimal(units: int | None) -> Decimal | None:
    return None if units is None else Decimal(units)


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
    elif isinstance(one.command, Amend):
        assert (event.type, order.number) == ("amend", one.command.number)
        words = placed_words(symbol, reference.Placed(order, event.trades))
    else:
        assert isinstance(one.command, Place)
        assert command_of(event) == one.command.payload()
        assert document["order"]["idempotency_key"] == one.command.idempotency_key
        words = placed_words(symbol, reference.Placed(order, event.trades))
    assert same_words(document, words) == words


def sequence_of(one: Told) -> int:
    """The sequence that an accepted command took; of a replay, the first one's."""
    order = one.answer.json()["order"]
    return number_of(order["order_id"]) if isinstance(one.command, Place) else order["sequence"]
