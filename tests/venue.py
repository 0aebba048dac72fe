"""The product's engine behind the tests' own words: hands commands to the scripts, reads answers,
events and the whole book as they lie in Redis, and holds them against the reference matcher.
"""

from collections import Counter
from collections.abc import Iterable
from dataclasses import replace
from typing import Any, assert_never

from redis import Redis

from app.domain.events import Event as ProductEvent
from app.domain.events import parse_event
from app.domain.orders import OrderRecord, parse_record
from app.domain.refusals import Reason
from app.domain.rules import RULE_FIELDS, Rules, parse_rules
from app.engine.book import Books, Scripts
from app.engine.commands import Amendment, Executed, NewOrder, OrderNumber, Refused, Replayed
from app.engine.commands import Cancel as CancelOrder
from app.engine.executor import Call, DirectExecutor
from app.engine.floors import Floors
from app.engine.keys import book_keys
from tests import reference
from tests.commands import (
    SIDES,
    Amend,
    ArmTimer,
    Cancel,
    Command,
    KillSwitch,
    MassCancel,
    Place,
    SetRules,
    Side,
    Sweep,
    Tick,
)
from tests.truth import Fill, Standing, Taken

TTL_S = 86_400
SYMBOL = "BTC-USD"
SIDE_NAMES: dict[str, Side] = {"bid": "buy", "ask": "sell"}
MAX_LEVELS = 500


def new_order(place: Place) -> NewOrder:
    """A test's order as the API would hand it to the engine."""
    return NewOrder(
        side=place.side,
        type=place.type,
        time_in_force=place.time_in_force,
        price_ticks=place.price_ticks,
        quantity_lots=place.quantity_lots,
        post_only=place.post_only,
        client_id=place.client,
        client_order_id=place.client_order_id or "",
        idempotency_key=place.idempotency_key or "",
        fingerprint=str(abs(hash(place.payload()))) if place.idempotency_key else "",
        stop_price_ticks=place.stop_price_ticks,
        display_lots=place.display_lots,
        expires_us=place.expires_us,
        self_trade_prevention=place.self_trade_prevention,
    )


def amendment(amend: Amend) -> Amendment:
    """A test's amend as the API would hand it to the engine."""
    return Amendment(
        target=OrderNumber(amend.number),
        price_ticks=amend.price_ticks,
        quantity_lots=amend.quantity_lots,
        stop_price_ticks=amend.stop_price_ticks,
    )


def rules_of(command: SetRules) -> Rules:
    """A test's rules in the product's words."""
    return Rules(
        status=command.status,
        price_band_bps=command.price_band_bps,
        max_order_lots=command.max_order_lots,
        max_order_notional=command.max_order_notional,
        max_open_orders=command.max_open_orders,
    )


def _place_in_queue(record: OrderRecord) -> tuple[int, int]:
    """Sequence and index of the refill; see `place` of the reference's order."""
    sequence, _, index = record.priority.partition(".")
    return (int(sequence) if sequence else record.number, int(index or 0))


def order_of(record: OrderRecord) -> reference.Order:
    """The product's order in the reference's words."""
    return reference.Order(
        number=record.number,
        client=record.client_id,
        side=record.side,  # type: ignore[arg-type]
        type=record.type,  # type: ignore[arg-type]
        time_in_force=record.time_in_force,  # type: ignore[arg-type]
        post_only=record.post_only,
        price_ticks=record.price_ticks,
        quantity_lots=record.quantity_lots,
        client_order_id=record.client_order_id or None,
        filled_lots=record.filled_lots,
        notional=record.notional,
        status=record.status,  # type: ignore[arg-type]
        reason=record.reason or None,
        sequence=record.sequence,
        stop_price_ticks=record.stop_price_ticks,
        display_lots=record.display_lots,
        shown_lots=record.displayed_lots,
        expires_us=record.expires_us,
        self_trade_prevention=record.self_trade_prevention,  # type: ignore[arg-type]
        # Means nothing once an order is over.
        place=_place_in_queue(record) if record.is_open else (0, 0),
    )


def event_of(event: ProductEvent) -> reference.Event:
    """The product's event in the reference's words."""
    trades = tuple(
        reference.Trade(
            trade.maker_number,
            trade.taker_number,
            trade.price_ticks,
            trade.quantity_lots,
            trade.side,  # type: ignore[arg-type]
            trade.sequence,
            trade.index,
        )
        for trade in event.trades
    )
    levels = sorted(
        reference.LevelChange(SIDE_NAMES[level.side], level.price_ticks, level.total_lots)
        for level in event.levels
    )
    return reference.Event(
        event.sequence,
        event.type,  # type: ignore[arg-type]
        tuple(map(order_of, event.orders)),
        trades,
        tuple(levels),
        # What rules say is compared where they lie, in the book; a new order's fingerprint is a
        # matter of idempotency keys.
        "" if event.type in ("rules", "place") else event.detail,
    )


class NoFloors(Floors):
    """For books that are copied, emptied and begun again as tests like it, which a Redis that went
    back in time looks like.
    """

    def raise_to(self, book: str, sequence: int) -> None:
        """Forgets it."""

    def arguments(self, book: str) -> tuple[str | int, ...]:
        """Nor is it ever too late: these books' clocks leap."""
        return *super().arguments(book)[:2], ""

    def begin(self, client: Redis, book: str) -> None:
        """Of a book that was just made: it is as one of a Redis that never knew when."""
        client.hset(book, "time", str(reference.START_US))
        client.hdel(book, "rebuilt")
        super().__init__()


def comparable(order: reference.Order) -> reference.Order:
    """A reference's order without what means nothing: the place of one that is over."""
    return order if order.is_open else replace(order, place=(0, 0))


def comparable_event(event: reference.Event) -> reference.Event:
    """As `comparable`, of all orders of an event."""
    return replace(event, orders=tuple(map(comparable, event.orders)))


def comparable_answer(answer: reference.Answer) -> reference.Answer:
    """As `comparable`, of all orders of an answer."""
    if isinstance(answer, reference.MassCancelled):
        return replace(answer, orders=tuple(map(comparable, answer.orders)))
    if isinstance(answer, reference.Placed | reference.Amended | reference.Cancelled):
        return replace(answer, order=comparable(answer.order))
    return answer


class EngineVenue:
    """One book of the product in `client`'s Redis (bytes answers), fresh unless it is there."""

    def __init__(self, client: Redis, scripts: Scripts | None = None, symbol: str = SYMBOL) -> None:
        self.client = client
        self.symbol = symbol
        self.keys = book_keys(symbol)
        self.executor = DirectExecutor(client)
        self.floors = NoFloors()
        self.books = Books(self.executor, TTL_S, scripts, self.floors)
        if self.books.open(symbol):
            self.floors.begin(client, self.keys.book)

    def apply(self, command: Command) -> reference.Answer:
        """Execute any command; the answer in the reference's words."""
        try:
            return self._apply(command)
        except Refused as refused:
            return reference.Refused(refused.refusal.value)

    def _apply(self, command: Command) -> reference.Answer:
        books, symbol = self.books, self.symbol
        match command:
            case Place():
                return self._placed(books.place(symbol, new_order(command)))
            case Cancel():
                cancel = CancelOrder(OrderNumber(command.number))
                return reference.Cancelled(order_of(books.cancel(symbol, cancel).order))
            case Amend():
                told = self._told("amend", books.amend(symbol, amendment(command)))
                return reference.Amended(told.orders[0], told.trades)
            case MassCancel():
                reason = Reason.CANCELLED_BY_CLIENT
                step = books.mass_cancel(
                    symbol, command.client, command.side or "", reason, command.after
                )
                return reference.MassCancelled(tuple(map(order_of, step.orders)))
            case _:
                return self._apply_to_no_order(command)

    def _apply_to_no_order(
        self, command: ArmTimer | Sweep | SetRules | KillSwitch | Tick
    ) -> reference.Answer:
        books, symbol = self.books, self.symbol
        match command:
            case ArmTimer():
                timer = books.set_timer(symbol, command.client, command.timeout_us)
                return reference.Done(timer.sequence)
            case Sweep():
                return reference.Swept(more=self._sweep_once())
            case SetRules():
                return reference.Done(books.set_rules(symbol, rules_of(command)).sequence)
            case KillSwitch():
                changed = books.set_kill_switch(symbol, command.client, engaged=command.engaged)
                return reference.Done(changed.sequence)
            case Tick():
                return self._tick(command.us)
            case _:
                assert_never(command)

    def _tick(self, us: int) -> reference.Ticked:
        """The book's clock is never earlier than its last command, so that says what time it is."""
        now_us = int(self.client.hget(self.keys.book, "time") or 0) + us  # type: ignore[arg-type]
        self.client.hset(self.keys.book, "time", str(now_us))
        return reference.Ticked(now_us)

    def _sweep_once(self) -> bool:
        script = self.books.scripts.sweep_book
        reply = self.executor.run(Call(script, self.keys, (TTL_S,), floors=self.floors))
        return bool(reply[1] == b"1")

    def _placed(self, outcome: Executed | Replayed) -> reference.Placed:
        if isinstance(outcome, Replayed):
            first = self.event(outcome.sequence)
            return reference.Placed(first.orders[0], first.trades, replayed=True)
        told = self._told("place", outcome)
        return reference.Placed(told.orders[0], told.trades)

    def _told(self, kind: str, outcome: Executed) -> reference.Event:
        return event_of(
            ProductEvent(
                symbol=self.symbol,
                sequence=outcome.sequence,
                type=kind,
                time_us=outcome.time_us,
                orders=(outcome.order,),
                fills=outcome.fills,
                levels=(),
            )
        )

    def event(self, sequence: int) -> reference.Event:
        """One entry of the stream."""
        entry = f"{sequence}-0"
        return self._read_events(self.client.xrange(self.keys.events, entry, entry))[0]

    def events(self, after: int = 0) -> list[reference.Event]:
        """The stream's entries after a sequence, oldest first."""
        return self._read_events(self.client.xrange(self.keys.events, f"({after}-0", "+"))

    def _read_events(self, entries: Iterable[Any]) -> list[reference.Event]:
        return [
            event_of(
                parse_event(
                    self.symbol,
                    entry_id.decode(),
                    {name.decode(): value.decode() for name, value in fields.items()},
                )
            )
            for entry_id, fields in entries
        ]

    # The truth runner's venue

    def place(self, place: Place) -> Taken:
        """See `tests.truth.Venue`."""
        answer = self.apply(place)
        assert isinstance(answer, reference.Placed), answer
        fills = [Fill(t.maker, t.price_ticks, t.quantity_lots) for t in answer.trades]
        return Taken(answer.order.number, fills)

    def cancel(self, number: int) -> bool:
        """See `tests.truth.Venue`."""
        return isinstance(self.apply(Cancel(number)), reference.Cancelled)

    def amend(self, number: int, quantity_lots: int) -> bool:
        """See `tests.truth.Venue`."""
        amended = self.apply(Amend(number, quantity_lots=quantity_lots))
        return isinstance(amended, reference.Amended)

    def standing(self, number: int) -> Standing:
        """See `tests.truth.Venue`."""
        order = self.orders()[number]
        return Standing(order.quantity_lots, order.filled_lots, order.reason)

    def queue(self, side: Side) -> list[tuple[int, int, int]]:
        """(price, remaining, number) as the sorted set and the orders' records tell them."""
        return [
            (order.limit_ticks, order.remaining_lots, order.number) for order in self.resting(side)
        ]

    def resting(self, side: Side) -> list[reference.Order]:
        """The orders of a side in their order."""
        key = self.keys.bids if side == "buy" else self.keys.asks
        orders = self._members(key)
        for order, score in orders:
            assert order.rests
            assert order.side == side
            assert abs(score) == order.price_ticks
        return [order for order, _ in orders]

    def pending(self, side: Side) -> list[reference.Order]:
        """The stops of a side in the order in which they would trigger."""
        key = self.keys.buy_stops if side == "buy" else self.keys.sell_stops
        orders = self._members(key)
        for order, score in orders:
            assert order.status == "pending"
            assert order.side == side
            assert abs(score) == order.stop_price_ticks
        return [order for order, _ in orders]

    def _members(self, key: str) -> list[tuple[reference.Order, int]]:
        entries: Any = self.client.zrange(key, 0, -1, withscores=True)
        records = self.records()
        found = []
        for member, score in entries:
            record = records[int(member[-14:])]
            place = f"{record.priority}:" if record.priority else ""
            assert member.decode() == f"{place}{record.number:014d}"
            found.append((order_of(record), int(score)))
        return found

    def records(self) -> dict[int, OrderRecord]:
        """The orders that Redis holds."""
        return {
            int(field): parse_record(int(field), text)
            for field, text in self.state().items()
            if field.isdigit()
        }

    def orders(self) -> dict[int, reference.Order]:
        """The orders that Redis holds, in the reference's words."""
        return {number: order_of(record) for number, record in self.records().items()}

    def state(self) -> dict[str, str]:
        """The book's hash."""
        fields: Any = self.client.hgetall(self.keys.book)
        return {name.decode(): value.decode() for name, value in fields.items()}

    # Against the reference

    def check_against(self, book: reference.ReferenceBook) -> None:
        """Everything in Redis says what the reference says, and nothing else is there."""
        state = self.state()
        assert int(state["sequence"]) == book.sequence
        assert int(state["time"]) == book.now_us
        last = state.get("last")
        assert (None if last is None else int(last)) == book.last_price_ticks
        self._check_levels(book, state)
        self._check_depth(book)
        self._check_orders(book)
        self._check_indexes(book, state)
        self._check_protection(book, state)

    def _check_levels(self, book: reference.ReferenceBook, state: dict[str, str]) -> None:
        for side, prefix in (("buy", "bid:"), ("sell", "ask:")):
            totals = {
                int(name.removeprefix(prefix)): int(total)
                for name, total in state.items()
                if name.startswith(prefix)
            }
            assert totals == {price: total for price, total, _ in book.levels(side)}  # type: ignore[arg-type]

    def _check_depth(self, book: reference.ReferenceBook) -> None:
        depth = self.books.depth(self.symbol, MAX_LEVELS)
        assert depth.sequence == book.sequence
        for levels, side in ((depth.bids, "buy"), (depth.asks, "sell")):
            told = [(level.price_ticks, level.quantity_lots, level.orders) for level in levels]
            assert told == book.levels(side)[:MAX_LEVELS]  # type: ignore[arg-type]

    def _check_orders(self, book: reference.ReferenceBook) -> None:
        for number, order in self.orders().items():
            expected = book.order(number)
            assert expected is not None
            assert order == comparable(expected)
        for side in SIDES:
            assert self.resting(side) == list(book.resting(side))
            assert self.pending(side) == list(book.pending(side))

    def _check_indexes(self, book: reference.ReferenceBook, state: dict[str, str]) -> None:
        still_open = [order for order in self.orders().values() if order.is_open]
        owners: Any = self.client.zrange(self.keys.owners, 0, -1)
        assert sorted(owner.decode() for owner in owners) == sorted(
            f"{order.client}|{order.number:014d}" for order in still_open
        )
        ids: Any = self.client.hgetall(self.keys.client_order_ids)
        assert {name.decode(): int(number) for name, number in ids.items()} == {
            f"{order.client}|{order.client_order_id}": order.number
            for order in still_open
            if order.client_order_id
        }
        expiries: Any = self.client.zrange(self.keys.expiries, 0, -1, withscores=True)
        assert {int(number): int(due) for number, due in expiries} == {
            order.number: order.expires_us for order in still_open if order.expires_us
        }
        counts = Counter(f"open:{order.client}" for order in still_open)
        counts["pending"] = sum(order.status == "pending" for order in still_open)
        told = {
            name: n for name, n in state.items() if name.startswith("open:") or name == "pending"
        }
        assert {name: int(n) for name, n in told.items()} == {n: c for n, c in counts.items() if c}

    def _check_protection(self, book: reference.ReferenceBook, state: dict[str, str]) -> None:
        timers: Any = self.client.zrange(self.keys.timers, 0, -1, withscores=True)
        assert {client.decode(): int(due) for client, due in timers} == book.timers
        killed = {name.removeprefix("killed:") for name in state if name.startswith("killed:")}
        assert killed == book.killed
        assert parse_rules({name: state.get(name) for name in RULE_FIELDS}) == rules_of(book.rules)
        assert self._waiting_range(state) == book.reached()

    def _waiting_range(self, state: dict[str, str]) -> tuple[int, int] | None:
        """What the triggered stops that wait have reached; the fields may outlast the stops."""
        if "trigger_low" not in state:
            return None
        low, high = int(state["trigger_low"]), int(state["trigger_high"])
        waits = any(order.trigger_ticks <= high for order in self.pending("buy"))
        waits |= any(order.trigger_ticks >= low for order in self.pending("sell"))
        return (low, high) if waits else None


def play(venue: EngineVenue, book: reference.ReferenceBook, command: Command) -> None:
    """One command to both: answers and events must be equal, and refusals must change nothing."""
    before = book.sequence
    expected, answer = comparable_answer(book.apply(command)), venue.apply(command)
    assert answer == expected, f"{command}\n  reference: {expected}\n  product:   {answer}"
    told = venue.events(after=before)
    expected_events = [comparable_event(event) for event in book.events[before:]]
    assert told == expected_events, (
        f"{command}: events differ\n  reference: {expected_events}\n  product:   {told}"
    )
