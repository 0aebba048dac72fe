"""Holds what clients were told against what the system kept: the event store, the read models, the
book in Redis and the reference matcher must all tell the same story, each order exactly once.
"""

import time
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from decimal import Decimal
from typing import Any

from redis.exceptions import RedisError

from app.domain.events import parse_event
from app.domain.rules import parse_rules_detail
from tests import reference, sql_truth
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
from tests.flow import MICROSECONDS, RETRY_LATER, Outcome, ReadBook, ReadOrder, Told, Untold
from tests.linear import Watch, is_accepted, sequence_of
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
from tests.waiting import wait_for

RULES = ("status", "price_band_bps", "max_order_lots", "max_order_notional", "max_open_orders")
FEES = ("maker_fee_bps", "taker_fee_bps")
PROBLEM_JSON = "application/problem+json"
NOTHING_DONE = frozenset(
    {
        *("engine_unavailable", "backlog_full", "book_missing", "book_behind", "book_changed"),
        *("schema_mismatch",),
    }
)
"""Codes of a 503 that promise that nothing was done; the others leave it open."""
QUIET_S = 60.0
"""Longer than an audit takes; what is due in less is waited for."""
ATTEMPTS_MAX = 10_000
"""More often than a trader repeats."""


@dataclass(frozen=True, slots=True)
class Stored:
    """A row of the event store: when it happened, what, and what is in force after it."""

    time_us: int
    event: reference.Event
    rules: SetRules
    fees_bps: tuple[Decimal, Decimal]
    """Maker's and taker's."""


@dataclass
class Sent:
    """What clients asked for, told or not: what an event cannot tell of its command is found here.
    Their orders have client_order_ids, each a different one.
    """

    places: dict[str, Place] = field(default_factory=dict)
    amends: dict[int, list[Amend]] = field(default_factory=lambda: defaultdict(list))

    @classmethod
    def by(cls, outcomes: Iterable[Outcome]) -> "Sent":
        """Of these."""
        sent = cls()
        for outcome in outcomes:
            command = outcome.command
            if isinstance(command, Place) and command.client_order_id is not None:
                sent.places[command.client_order_id] = command.payload()
            elif isinstance(command, Amend) and command not in sent.amends[command.number]:
                sent.amends[command.number].append(command)
        return sent


def audit(system: System, symbol: str, outcomes: Sequence[Outcome] = ()) -> ReferenceBook:
    """Waits until all is persisted, then checks everything about one instrument (tick 1, lot 1)
    that was listed without rules, and what its clients were told, each client's outcomes in order.
    Orders that decrement must be theirs. Returns the reference's book at the end.
    """
    await_quiet(system, symbol)
    stored = stored_events(system, symbol)
    told = [outcome for outcome in outcomes if isinstance(outcome, Told)]
    watch = Watch(symbol, told, [one.event for one in stored])
    book = replayed(stored, Sent.by(outcomes), watch.state)
    watch.check_real_time()
    check_redis(system, symbol, book)
    check_read_models(system, symbol, book)
    check_clearing(system, symbol, stored)
    with system.postgres() as connection:
        sql_truth.check(connection, symbol)
    check_told(symbol, book, outcomes)
    return book


def await_quiet(system: System, symbol: str) -> None:
    """Returns once all is persisted and nothing is due soon, while nobody trades."""
    wait_for(lambda: not _soon_due(system, symbol))
    system.settled()


def _soon_due(system: System, symbol: str) -> int:
    """Expiries and timers that might come while we look."""
    until_us = int((time.time() + QUIET_S) * MICROSECONDS)
    names = (f"{{{symbol}}}:{kind}" for kind in ("expiries", "timers"))
    try:
        return sum(int(system.redis.zcount(name, "-inf", until_us)) for name in names)
    except RedisError:
        return 1


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


def replayed(
    stored: list[Stored],
    sent: Sent | None = None,
    state: Callable[[ReferenceBook, int | None], None] = lambda book, until_us: None,
) -> ReferenceBook:
    """The book to which the commands of these events lead; they must have had these effects.
    `state` is shown each state between two scripts, with the time until which it lasted.
    """
    book = ReferenceBook(now_us=stored[0].time_us if stored else 0)
    for one in stored:
        if one.event.sequence > book.sequence:  # else a command before it has set it off
            state(book, one.time_us)
            book.apply(Tick(one.time_us - book.now_us))
            book.apply(_command_of(one, book, sent or Sent()))
        expected = comparable_event(book.events[one.event.sequence - 1])
        assert expected == one.event, f"reference: {expected}\n  stored: {one.event}"
    state(book, None)
    book.check_invariants()
    return book


def _command_of(one: Stored, book: ReferenceBook, sent: Sent) -> Command:
    """As `command_of`, with what only others can tell. The book: a timer that fired and found no
    order looks like one that was disarmed, which one that is due cannot be. The clients: how much
    an order wanted before it was decremented.
    """
    if one.event.type == "rules":
        return one.rules
    if one.event.type == "place":
        return sent.places.get(one.event.orders[0].client_order_id or "", command_of(one.event))
    if one.event.type == "amend":
        return _amend_sent(one, book, sent)
    if one.event.type == "cancel_after":
        client = one.event.detail.rpartition("|")[0]
        if book.timers.get(client, book.now_us + 1) <= book.now_us:
            return Sweep()
    return command_of(one.event, one.time_us)


def _amend_sent(one: Stored, book: ReferenceBook, sent: Sent) -> Command:
    """Of the amends that clients sent for this order, one that had this effect."""
    number, derived = one.event.orders[0].number, command_of(one.event)
    before = book.order(number)
    assert before is not None
    if before.self_trade_prevention != "decrement":
        return derived
    for amend in sent.amends.get(number, []):
        trial = book.copy()
        trial.apply(amend)
        events = trial.events[len(book.events) :]
        if events and comparable_event(events[0]) == one.event:
            return amend
    return derived


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


def check_told(symbol: str, book: ReferenceBook, outcomes: Sequence[Outcome]) -> None:
    """Every answer is what the event of its sequence says; what was accepted is there exactly once,
    what was refused not at all; and nothing happened that nobody asked for.
    """
    placed = Counter(
        event.orders[0].client_order_id for event in book.events if event.type == "place"
    )
    told = [outcome for outcome in outcomes if isinstance(outcome, Told)]
    accepted = {
        one.command.client_order_id
        for one in told
        if isinstance(one.command, Place) and one.answer.status == 201
    }
    if told:
        twice = {identity for identity, n in placed.items() if identity is not None and n > 1}
        asked = [one for one in outcomes if getattr(one.command, "client_order_id", 0) in twice]
        assert not twice, f"traders never use an id twice: {asked}"
    for one in told:
        if is_accepted(one):
            _check_accepted(symbol, book, one)
        else:
            assert 400 <= one.answer.status < 500 or one.answer.code == RETRY_LATER, one
            content_type = one.answer.headers.get("Content-Type", PROBLEM_JSON)
            assert content_type == PROBLEM_JSON
        if isinstance(one.command, Place) and one.command.client_order_id is not None:
            identity = one.command.client_order_id
            assert placed[identity] == (identity in accepted), f"{placed[identity]} times: {one}"
    _check_untold(placed, outcomes)
    if told:
        _check_asked_for(book, outcomes)


def _check_untold(placed: Counter[str | None], outcomes: Iterable[Outcome]) -> None:
    """Of an order that nobody knows of there is one or none; of one that was refused for now, as
    the answer said, none.
    """
    for outcome in outcomes:
        if isinstance(outcome, Untold) and isinstance(outcome.command, Place):
            count = placed[outcome.command.client_order_id]
            assert count <= (outcome.why not in NOTHING_DONE), f"{count} times: {outcome}"


def _check_asked_for(book: ReferenceBook, outcomes: Sequence[Outcome]) -> None:
    """Each change of an order by its client was asked for, and no more often than it was asked."""
    asked: Counter[tuple[str, int]] = Counter()
    answered: Counter[tuple[str, int]] = Counter()
    for outcome in outcomes:
        command = outcome.command
        if isinstance(command, Cancel | Amend):
            name = ("cancel" if isinstance(command, Cancel) else "amend", command.number)
            asked[name] += outcome.attempts if isinstance(outcome, Told) else ATTEMPTS_MAX
            answered[name] += isinstance(outcome, Told) and is_accepted(outcome)
    done = Counter(
        (event.type, event.orders[0].number)
        for event in book.events
        if event.type in ("cancel", "amend")
    )
    for name, count in done.items():
        assert answered[name] <= count <= asked[name], f"{name}: {count} times"
    identities = {o.command.client_order_id for o in outcomes if isinstance(o.command, Place)}
    named = {e.orders[0].client_order_id for e in book.events if e.type == "place"}
    assert not (named - {None}) - identities, "orders that nobody placed"


def _check_accepted(symbol: str, book: ReferenceBook, one: Told) -> None:
    match one.command:
        case Place() | Cancel() | Amend():
            document, words = one.answer.json(), _words(symbol, book, one)
            assert same_words(document, words) == words
        case MassCancel(client, side):
            for text in one.answer.json()["cancelled"]:
                order = book.order(number_of(text))
                assert order is not None
                assert (order.client, order.status) == (client, "cancelled")
                assert side in (None, order.side)
        case ReadOrder() | ReadBook() | ArmTimer():
            pass  # `Watch` has looked at it
        case _:
            raise AssertionError(f"not of a client: {one}")


def _words(symbol: str, book: ReferenceBook, one: Told) -> Json:
    """What the answer to an accepted place, cancel or amend must say, by the event."""
    event = book.events[sequence_of(one) - 1]
    order = event.orders[0]
    match one.command:
        case Cancel(number):
            assert (event.type, order.number) == ("cancel", number)
            return {"order": order_words(symbol, order)}
        case Amend(number):
            assert (event.type, order.number) == ("amend", number)
        case Place() as place:
            assert event.type == "place"
            decrements = place.self_trade_prevention == "decrement"
            assert decrements or command_of(event) == place.payload()
            document = one.answer.json()
            assert document["order"]["idempotency_key"] == place.idempotency_key
    return placed_words(symbol, reference.Placed(order, event.trades))
