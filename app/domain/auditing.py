"""Whether an event can follow on a book's state: what must hold of any event, whoever matched it.
Independent of the scripts: it decides no match, it only asks whether the one that is told adds up.
Pure; `lua/RULES.md` has the rules that are named here.
"""

from collections import defaultdict
from collections.abc import Sequence
from itertools import pairwise
from typing import Final, NamedTuple, Protocol

from app.domain.events import Event, EventType, parse_levels
from app.domain.instruments import EXACT_LIMIT
from app.domain.orders import (
    NUMBER_DIGITS,
    OPEN,
    STOPS,
    OrderRecord,
    SelfTradePrevention,
    Side,
    Status,
    TimeInForce,
)
from app.domain.refusals import Reason
from app.domain.rules import InstrumentStatus, Rules, parse_rules_detail, rules_detail

MATCHING: Final = frozenset({EventType.PLACE, EventType.AMEND, EventType.TRIGGER})
"""Kinds of events whose first order may have traded."""
RESTS: Final = frozenset({Status.OPEN, Status.PARTIALLY_FILLED})
CHANGING_FIELDS: Final = 10
"""Fields at a record's start that change; the others stay, but for an amended stop price."""

_ENDS: Final = {
    EventType.CANCEL: Status.CANCELLED,
    EventType.MASS_CANCEL: Status.CANCELLED,
    EventType.CANCEL_AFTER: Status.CANCELLED,
    EventType.EXPIRE: Status.EXPIRED,
}
"""What an event of a kind that only ends orders makes of them."""
_SETTINGS: Final = frozenset({EventType.RULES, EventType.KILL_SWITCH})
_NEVER_RESTS: Final = frozenset({TimeInForce.IOC, TimeInForce.FOK})
_ENDS_MAKERS: Final = frozenset(
    {
        SelfTradePrevention.CANCEL_OLDEST,
        SelfTradePrevention.CANCEL_BOTH,
        SelfTradePrevention.DECREMENT,
    }
)
"""Modes of a taker by which makers are cancelled."""


class Inconsistent(ValueError):
    """An event that cannot follow, or a state that cannot be; the text says which and why."""


class Change(NamedTuple):
    """One order before and after an event, typed and as text; before it was placed: None, ''."""

    before: OrderRecord | None
    after: OrderRecord
    text_before: str
    text_after: str


def rests(order: OrderRecord | None) -> bool:
    """Whether the order is on one of the book's sides."""
    return order is not None and order.status in RESTS


def level_of(order: OrderRecord) -> str:
    """The level that a resting order is at, as events and the book's hash name it."""
    return f"{'bid' if order.side == Side.BUY else 'ask'}:{order.price_ticks}"


def shown_lots(order: OrderRecord) -> int:
    """What a resting order adds to its level (ICE-1)."""
    return order.remaining_lots if order.displayed_lots is None else order.displayed_lots


def check_status(order: OrderRecord) -> None:
    """Whether what an order says of itself fits together.

    Raises:
        Inconsistent: it does not.
    """
    filled, quantity, status = order.filled_lots, order.quantity_lots, order.status
    fits = {
        Status.OPEN: filled == 0,
        Status.PARTIALLY_FILLED: 0 < filled < quantity,
        Status.PENDING: filled == 0 and order.type in STOPS,
        Status.FILLED: filled == quantity,
        Status.CANCELLED: True,
        Status.EXPIRED: order.expires_us is not None,
    }
    if not fits[Status(status)] or not 0 <= filled <= quantity or quantity <= 0:
        raise Inconsistent(f"status {status} with {filled} of {quantity} filled")
    if bool(order.reason) != (status in {Status.CANCELLED, Status.EXPIRED}):
        raise Inconsistent(f"status {status} with reason {order.reason!r}")
    if (order.stop_price_ticks is not None) != (order.type in STOPS):
        raise Inconsistent(f"a {order.type} order with stop price {order.stop_price_ticks}")
    if (order.notional > 0) != (filled > 0):
        raise Inconsistent(f"notional {order.notional} with {filled} filled")
    _check_shown(order)


def _check_shown(order: OrderRecord) -> None:
    shown, display = order.displayed_lots, order.display_lots
    if (shown is None) != (display is None):
        raise Inconsistent(f"shows {shown} with display quantity {display}")
    if not rests(order):
        if shown:
            raise Inconsistent(f"shows {shown} and does not rest")
        return
    if order.price_ticks is None or order.time_in_force in _NEVER_RESTS:
        raise Inconsistent("rests and may not")
    if shown is not None and not 0 < shown <= min(display or 0, order.remaining_lots):
        raise Inconsistent(f"shows {shown} of {order.remaining_lots}, at most {display}")


class Before(Protocol):
    """What an event is held against of the book's state before it, as BookState has it."""

    time_us: int
    last_ticks: int | None
    rules: Rules
    killed: set[str]
    timers: dict[str, int]
    levels: dict[str, int]
    open_counts: dict[str, int]
    client_order_ids: dict[str, int]

    def next_triggered(self) -> tuple[str, int] | None:
        """Side and stop price of the stop that is carried out next, where any waits."""
        ...


class EventAudit:
    """One event against the state before it. Every method raises Inconsistent."""

    __slots__ = ("changes", "event", "state", "taker")

    def __init__(self, state: Before, event: Event, changes: Sequence[Change]) -> None:
        self.state = state
        self.event = event
        self.changes = changes
        self.taker = changes[0].after if changes and event.type in MATCHING else None

    def new_totals(self, levels: str) -> dict[str, int]:
        """The event's levels with their new totals, once all is found in order; `levels` is the
        event's field.
        """
        if self.event.time_us < self.state.time_us:
            raise Inconsistent(f"its time is before {self.state.time_us}, the last event's")
        self._check_kind()
        if len({change.after.number for change in self.changes}) != len(self.changes):
            raise Inconsistent("it has an order twice")
        for position, change in enumerate(self.changes):
            try:
                self._check_change(position, change)
            except ValueError as error:
                raise Inconsistent(f"order {change.after.number}: {error}") from error
        self._check_fills()
        self._check_stops()
        return self._totals(levels)

    # The event as a whole

    def _check_kind(self) -> None:
        kind, status = EventType(self.event.type), self.state.rules.status
        most = 0 if kind in _SETTINGS else 1 if kind == EventType.CANCEL else len(self.changes)
        least = 0 if kind in _SETTINGS or kind == EventType.CANCEL_AFTER else 1
        if not least <= len(self.changes) <= most:
            raise Inconsistent(f"a {kind} event with {len(self.changes)} orders")
        if status != InstrumentStatus.OPEN and kind in MATCHING:
            raise Inconsistent(f"a {kind} event while the instrument is {status}")
        if status == InstrumentStatus.HALTED and self.changes:
            raise Inconsistent("it changes orders while the instrument is halted")
        if self.event.fills and kind not in MATCHING:
            raise Inconsistent(f"a {kind} event with fills")
        if kind in {EventType.PLACE, EventType.AMEND} and self._is_killed():
            raise Inconsistent(f"a {kind} event of a client whose kill switch is on")
        if kind == EventType.MASS_CANCEL and len({c.after.client_id for c in self.changes}) > 1:
            raise Inconsistent("a mass cancel of several clients")
        self._check_detail(kind)

    def _is_killed(self) -> bool:
        return self.taker is not None and self.taker.client_id in self.state.killed

    def _check_detail(self, kind: EventType) -> None:
        detail = self.event.detail
        if kind == EventType.RULES and rules_detail(parse_rules_detail(detail)) != detail:
            raise Inconsistent(f"rules {detail!r}")
        if kind == EventType.KILL_SWITCH and detail.rpartition("|")[2] not in {"", "1"}:
            raise Inconsistent(f"kill switch {detail!r}")
        if kind == EventType.CANCEL_AFTER:
            self._check_timer(detail)

    def _check_timer(self, detail: str) -> None:
        """CXL-4."""
        client, _, due = detail.rpartition("|")
        if not self.changes:
            if due and int(due) < self.event.time_us:
                raise Inconsistent(f"a timer that is armed for the past: {detail!r}")
            return
        was_due = self.state.timers.get(client)
        if was_due is None or was_due > self.event.time_us:
            raise Inconsistent(f"the timer of {client!r} was not due")
        if {change.after.client_id for change in self.changes} != {client}:
            raise Inconsistent(f"a timer of {client!r} cancels orders of others")
        has_more = self.state.open_counts.get(client, 0) > len(self.changes)
        if due != (str(was_due) if has_more else ""):
            raise Inconsistent(f"the timer of {client!r} is left as {due!r}")

    # Each order

    def _check_change(self, position: int, change: Change) -> None:
        check_status(change.after)
        self._check_identity(position, change)
        self._check_step(position, change)
        self._check_amounts(position, change)
        self._check_place_in_queue(position, change)

    def _check_identity(self, position: int, change: Change) -> None:
        event, before, after = self.event, change.before, change.after
        is_new = event.type == EventType.PLACE and position == 0
        if is_new:
            if (after.number, after.created_us) != (event.sequence, event.time_us):
                raise Inconsistent("its number or time is not that of its event")
            self._check_client_order_id(after)
        elif before is None:
            raise Inconsistent("it changes, and is not open")
        if (after.sequence, after.updated_us) != (event.sequence, event.time_us):
            raise Inconsistent("it was not changed by this event, says its record")
        if before is None:
            return
        may_change_terms = event.type == EventType.AMEND and position == 0
        if after.price_ticks != before.price_ticks and not may_change_terms:
            raise Inconsistent("its price changes")
        new_stop = may_change_terms and before.status == Status.PENDING
        if _terms(change.text_before, new_stop) != _terms(change.text_after, new_stop):
            raise Inconsistent("something changes that never does")

    def _check_client_order_id(self, order: OrderRecord) -> None:
        """CMD-5."""
        own_id = f"{order.client_id}|{order.client_order_id}"
        if order.client_order_id and own_id in self.state.client_order_ids:
            raise Inconsistent(f"its client has another open order {order.client_order_id!r}")

    def _check_step(self, position: int, change: Change) -> None:
        """From which status to which, by an event of this kind."""
        before, after, kind = change.before, change.after, self.event.type
        if after.status == Status.EXPIRED and (after.expires_us or 0) > self.event.time_us:
            raise Inconsistent("it expires too early")
        if self.taker is None:
            if after.status != _ENDS[EventType(kind)]:
                raise Inconsistent(f"a {kind} event leaves it {after.status}")
        elif position > 0:
            self._check_maker(change)
        else:
            pended = before is not None and before.status == Status.PENDING
            pends = after.status == Status.PENDING
            pends_as = {
                EventType.PLACE: pends == (after.type in STOPS),
                EventType.AMEND: pends == pended,
                EventType.TRIGGER: pended and not pends,
            }
            if not pends_as[EventType(kind)] or (pends and len(self.changes) > 1):
                raise Inconsistent(f"a {kind} event leaves it {after.status}")

    def _check_maker(self, change: Change) -> None:
        taker, before, after = self.taker, change.before, change.after
        if taker is None or not rests(before) or after.side == taker.side:
            raise Inconsistent("it is met and does not rest on the other side")
        if after.status == Status.CANCELLED:
            is_own = after.client_id == taker.client_id
            prevents = taker.self_trade_prevention in _ENDS_MAKERS
            if after.reason != Reason.SELF_TRADE_PREVENTED or not (is_own and prevents):
                raise Inconsistent(f"a taker cancels it: {after.reason}")

    def _check_amounts(self, position: int, change: Change) -> None:
        before, after = change.before, change.after
        lots, notional = self._traded(position, after.number)
        was_filled, had_paid = (before.filled_lots, before.notional) if before else (0, 0)
        if (after.filled_lots, after.notional) != (was_filled + lots, had_paid + notional):
            raise Inconsistent(
                f"filled {after.filled_lots} for {after.notional}, its fills say"
                f" {was_filled + lots} for {had_paid + notional}"
            )
        if before is not None and not (self.event.type == EventType.AMEND and position == 0):
            lost = before.quantity_lots - after.quantity_lots
            if lost and lost != self._prevented(position, after):
                raise Inconsistent(f"its quantity changes by {-lost}")

    def _traded(self, position: int, number: int) -> tuple[int, int]:
        """Lots and notional of an order's fills in this event."""
        fills = self.event.fills
        if position > 0:
            fills = tuple(fill for fill in fills if fill.maker_number == number)
        lots = sum(fill.quantity_lots for fill in fills)
        return lots, sum(fill.price_ticks * fill.quantity_lots for fill in fills)

    def _prevented(self, position: int, order: OrderRecord) -> int:
        """What self-trade prevention takes off an order's quantity, and leaves it open (SLF-5)."""
        taker = self.taker
        if taker is None or taker.self_trade_prevention != SelfTradePrevention.DECREMENT:
            return 0
        ended = taker.reason == Reason.SELF_TRADE_PREVENTED
        if position > 0:
            is_own = order.client_id == taker.client_id
            return taker.remaining_lots if is_own and ended and order.is_open else 0
        makers = [change.after for change in self.changes[1:]]
        lots = [m.remaining_lots for m in makers if m.reason == Reason.SELF_TRADE_PREVENTED]
        is_reduced = any(_is_reduced(change) for change in self.changes[1:])
        return sum(lots[:-1] if ended and not is_reduced else lots)

    def _check_place_in_queue(self, position: int, change: Change) -> None:
        """PLC."""
        before, after = change.before, change.after
        moved = f"{self.event.sequence:0{NUMBER_DIGITS}d}"
        if before is None:
            may_be = {""}
        elif position > 0:
            refilled = before.display_lots is not None and after.priority[:-4] == f"{moved}."
            may_be = {before.priority, after.priority if refilled else before.priority}
        elif after.status not in OPEN:
            may_be = {before.priority, "", moved}
        elif self.event.type == EventType.TRIGGER or _loses_place(before, after):
            may_be = {moved}
        else:  # AMD-3; a larger quantity may have been taken away again (SLF-5)
            may_be = {before.priority, moved}
        if after.priority not in may_be:
            raise Inconsistent(f"its place in the queue becomes {after.priority!r}")

    # Fills, stops, levels

    def _check_fills(self) -> None:
        taker, fills = self.taker, self.event.fills
        if taker is None or not fills:
            return
        makers = {change.after.number: change.before for change in self.changes[1:]}
        sign = 1 if taker.side == Side.BUY else -1
        for fill in fills:
            maker = makers.get(fill.maker_number)
            why = "not open" if maker is None else self._unfair(taker, maker, fill.price_ticks)
            if why or fill.quantity_lots <= 0:
                raise Inconsistent(f"a fill of order {fill.maker_number}: {why or 'no quantity'}")
        prices = [sign * fill.price_ticks for fill in fills]
        if any(better < worse for worse, better in pairwise(prices)):  # MAT-1
            raise Inconsistent("its fills are not best price first")
        if taker.post_only:  # MAT-7
            raise Inconsistent("a post-only order takes")
        if taker.time_in_force == TimeInForce.FOK and taker.remaining_lots:  # MAT-6
            raise Inconsistent("a fill-or-kill order is filled in part")

    def _unfair(self, taker: OrderRecord, maker: OrderRecord, price_ticks: int) -> str:
        """Why these two do not trade at this price; empty where they may."""
        if price_ticks != maker.price_ticks:  # MAT-2
            return f"at {price_ticks}, it rests at {maker.price_ticks}"
        sign = 1 if taker.side == Side.BUY else -1
        if taker.price_ticks is not None and sign * (price_ticks - taker.price_ticks) > 0:  # MAT-3
            return f"at {price_ticks}, the taker's limit is {taker.price_ticks}"
        if maker.expires_us is not None and maker.expires_us <= self.event.time_us:  # EXP-2
            return "past its expiry"
        is_own = maker.client_id == taker.client_id
        if is_own and taker.self_trade_prevention != SelfTradePrevention.NONE:  # SLF
            return "of the taker's own client"
        return ""

    def _check_stops(self) -> None:
        """STP-2 to STP-4, and STP-7."""
        if not self.changes:
            return
        before, after = self.changes[0].before, self.changes[0].after
        stop_ticks, last = after.stop_price_ticks, self.state.last_ticks
        if self.event.type == EventType.TRIGGER:
            if self.state.next_triggered() != (after.side, stop_ticks):
                raise Inconsistent(f"stop {after.number} is not the one that is triggered next")
        elif after.status == Status.PENDING and stop_ticks is not None:
            if before is not None and before.stop_price_ticks == stop_ticks:
                return
            sign = 1 if after.side == Side.BUY else -1
            if self.state.next_triggered() or (last and sign * stop_ticks <= sign * last):
                raise Inconsistent(f"stop {after.number} has been reached, or others wait")

    def _totals(self, levels: str) -> dict[str, int]:
        deltas: defaultdict[str, int] = defaultdict(int)
        for change in self.changes:
            for order, sign in ((change.before, -1), (change.after, 1)):
                if order is not None and order.status in RESTS:
                    deltas[level_of(order)] += sign * shown_lots(order)
        totals = {level: self.state.levels.get(level, 0) + deltas[level] for level in deltas}
        told = {f"{one.side}:{one.price_ticks}": one.total_lots for one in parse_levels(levels)}
        untold = {level: total for level, total in totals.items() if deltas[level]}
        # An iceberg's refill may leave a total as it was, which is told all the same.
        if told != {level: totals.get(level) for level in told} or untold.keys() - told.keys():
            raise Inconsistent(f"levels {levels!r}, its orders make {totals}")
        if any(not 0 <= total < EXACT_LIMIT for total in totals.values()):  # MAT-8
            raise Inconsistent(f"levels beyond their bounds: {totals}")
        return totals


def _terms(record: str, without_stop_price: bool) -> list[str]:  # noqa: FBT001  # one of two views
    """The fields of a record that stay as they are."""
    fields = record.split("|")[CHANGING_FIELDS:]
    if without_stop_price:
        fields[-2] = ""
    return fields


def _is_reduced(change: Change) -> bool:
    before = change.before
    return before is not None and before.quantity_lots > change.after.quantity_lots


def _loses_place(before: OrderRecord, after: OrderRecord) -> bool:
    """AMD-4, AMD-5, as far as both states show it."""
    return (
        before.stop_price_ticks != after.stop_price_ticks
        or before.quantity_lots < after.quantity_lots
        or (before.price_ticks != after.price_ticks and after.status != Status.PENDING)
    )
