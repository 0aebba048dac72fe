"""The reference's book: executes commands as lua/RULES.md says, and tells what came of them. Each
command is first decided, reading only, and then executed, which cannot fail any more.
"""

import hashlib
from bisect import bisect_left
from collections.abc import Callable
from dataclasses import replace
from typing import Any

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
    opposite,
)
from tests.reference import checks, proof, text
from tests.reference.matching import Match, cancelled, expired, hidden, reduced
from tests.reference.orders import (
    Amended,
    Answer,
    Cancelled,
    Done,
    EventType,
    MassCancelled,
    Order,
    Placed,
    Refused,
    Swept,
    Ticked,
)
from tests.reference.state import BookState


class ReferenceBook(BookState):
    """The book of one instrument. Its limits may be set low, so that they are met; `now_us` is
    where its clock begins.
    """

    # Commands

    def apply(self, command: Command) -> Answer:
        """Executes any command."""
        return _EXECUTED_BY[type(command)](self, command)

    def place(self, place: Place) -> Placed | Refused:
        """Refusals in the order in which they are checked: idempotency_key_reused (where an equal
        payload gets the first answer again), instrument_halted or cancel_only, kill_switch,
        expires_in_past, duplicate_client_order_id, risk_limit, price_band; of stops
        triggers_outstanding, stop_would_trigger; of others post_only_would_cross, risk_limit of a
        market order, level_quantity_overflow.
        """
        self.begin(place)
        earlier = checks.earlier_answer(self, place)
        if earlier is not None:
            return earlier
        code = checks.refuses_place(self, place)
        if code is not None:
            return Refused(code)
        order = self._new_order(place)
        answer = self._add_stop(order) if order.status == "pending" else self._take(order)
        if place.idempotency_key is not None and isinstance(answer, Placed):
            self.answers[place.client, place.idempotency_key] = (place.payload(), answer)
        return answer

    def amend(self, amend: Amend) -> Amended | Refused:
        """Refusals in the order in which they are checked: order_not_found, order_not_open,
        instrument_halted or cancel_only, kill_switch, not_amendable, amend_below_filled (and where
        the quantity is what is filled, no further check), risk_limit, price_band,
        triggers_outstanding, stop_would_trigger, post_only_would_cross, level_quantity_overflow.
        """
        self.begin(amend)
        order = self.orders.get(amend.number)
        if order is None:
            return Refused("order_not_found")
        code = checks.refuses_amend(self, order, amend)
        if code is not None:
            return Refused(code)
        if amend.quantity_lots == order.filled_lots:
            return self._end(order)
        return self._change_terms(order, _with_terms(order, amend))

    def cancel(self, cancel: Cancel) -> Cancelled | Refused:
        """Refusals: order_not_found, order_not_open, instrument_halted."""
        self.begin(cancel)
        order = self.orders.get(cancel.number)
        if order is None:
            return Refused("order_not_found")
        if not order.is_open:
            return Refused("order_not_open")
        if self.rules.status == "halted":
            return Refused("instrument_halted")
        (order,) = self._cancel_all("cancel", "cancelled_by_client", [order])
        return Cancelled(order)

    def mass_cancel(self, mass: MassCancel) -> MassCancelled | Refused:
        """CXL-3. Refused: instrument_halted."""
        self.begin(mass)
        if self.rules.status == "halted":
            return Refused("instrument_halted")
        ahead = [order for order in self.open_orders(mass.client) if order.number > mass.after]
        orders = [o for o in ahead[: self.max_cancels] if mass.side in (None, o.side)]
        if not orders:
            return MassCancelled(())
        return MassCancelled(self._cancel_all("mass_cancel", "cancelled_by_client", orders))

    def arm_timer(self, arm: ArmTimer) -> Done | Refused:
        """CXL-4: arms, arms anew or disarms. Refused: timer_due."""
        self.begin(arm)
        if self.timers.get(arm.client, self.now_us + 1) <= self.now_us:
            return Refused("timer_due")
        self.timers.pop(arm.client, None)
        if arm.timeout_us:
            self.timers[arm.client] = self.now_us + arm.timeout_us
        self.record("cancel_after", [], detail=self._timer_detail(arm.client))
        return Done(self.sequence)

    def set_rules(self, rules: SetRules) -> Done:
        """STA-4."""
        self.begin(rules)
        self.rules = rules
        self.record("rules", [])
        return Done(self.sequence)

    def set_kill_switch(self, switch: KillSwitch) -> Done:
        """RSK-4."""
        self.begin(switch)
        if switch.engaged:
            self.killed.add(switch.client)
        else:
            self.killed.discard(switch.client)
        self.record("kill_switch", [], detail=f"{switch.client}|{'1' if switch.engaged else ''}")
        return Done(self.sequence)

    def tick(self, tick: Tick) -> Ticked:
        """Time passes."""
        assert tick.us >= 0
        self.now_us += tick.us
        return Ticked(self.now_us)

    def sweep(self) -> Swept:
        """One step each of what waits: triggers, expiries, the most overdue timer (STA-3)."""
        self.begin(None)
        if self.rules.status == "halted":
            return Swept(more=False)
        if self.rules.status == "open":
            self._run_triggers(self.max_fills)
        self._expire_due()
        self._fire_timer()
        return Swept(more=checks.anything_due(self))

    # Telling

    def digest(self) -> str:
        """sha256 (hex) of `canonical_text` as UTF-8."""
        return hashlib.sha256(self.canonical_text().encode()).hexdigest()

    def canonical_text(self) -> str:
        """The book as text, see tests/reference/text.py; print it where two digests differ."""
        return text.canonical_text(self)

    def check_invariants(self) -> None:
        """Raises AssertionError unless the whole history and the present state agree. Slow."""
        proof.check(self)

    # Executing: cannot fail any more, but for what matching shows

    def _new_order(self, place: Place) -> Order:
        number = self.sequence + 1
        return Order(
            number=number,
            client=place.client,
            side=place.side,
            type=place.type,
            time_in_force=place.time_in_force,
            post_only=place.post_only,
            price_ticks=place.price_ticks,
            quantity_lots=place.quantity_lots,
            client_order_id=place.client_order_id,
            filled_lots=0,
            notional=0,
            status="open" if place.stop_price_ticks is None else "pending",
            reason=None,
            sequence=number,
            stop_price_ticks=place.stop_price_ticks,
            display_lots=place.display_lots,
            shown_lots=None if place.display_lots is None else 0,
            expires_us=place.expires_us,
            self_trade_prevention=place.self_trade_prevention,
            place=(number, 0),
        )

    def _take(self, order: Order) -> Placed | Refused:
        """A new order that is no stop."""
        match = self._match(order, self.max_fills)
        settled = match.settled()
        code = checks.refuses_match(self, match, settled)
        if code is not None:
            return Refused(code)
        self._execute("place", match, settled)
        return Placed(settled, tuple(match.trades))

    def _add_stop(self, stop: Order) -> Placed:
        self.store(stop)
        self.record("place", [stop])
        return Placed(stop, ())

    def _change_terms(self, order: Order, after: Order) -> Amended | Refused:
        code = checks.refuses_terms(self, order, after)
        if code is not None:
            return Refused(code)
        if order.status == "pending":
            return self._amend_stop(order, after)
        if after.price_ticks == order.price_ticks and after.quantity_lots <= order.quantity_lots:
            return self._amend_in_place(order, after)
        return self._enter_again(after)

    def _end(self, order: Order) -> Amended:
        """AMD-2: its quantity is what is filled."""
        order = replace(
            order,
            quantity_lots=order.filled_lots,
            status="filled",
            shown_lots=hidden(order),
            sequence=self.sequence + 1,
        )
        return self._amended(order)

    def _amend_in_place(self, order: Order, after: Order) -> Amended:
        """AMD-3."""
        return self._amended(reduced(order, after.quantity_lots, self.sequence + 1))

    def _amend_stop(self, order: Order, after: Order) -> Amended:
        """AMD-5."""
        keeps = (
            after.stop_price_ticks == order.stop_price_ticks
            and after.quantity_lots <= order.quantity_lots
        )
        place = order.place if keeps else (self.sequence + 1, 0)
        return self._amended(replace(after, sequence=self.sequence + 1, place=place))

    def _amended(self, order: Order) -> Amended:
        self.store(order)
        self.record("amend", [order])
        return Amended(order, ())

    def _enter_again(self, order: Order) -> Amended | Refused:
        """AMD-4."""
        match = self._match(order, self.max_fills)
        settled = match.settled()
        code = checks.refuses_match(self, match, settled)
        if code is not None:
            return Refused(code)
        self._execute("amend", match, settled)
        return Amended(settled, tuple(match.trades))

    def _execute(self, kind: EventType, match: Match, settled: Order) -> None:
        """A command that matched, and the stops that it triggers."""
        self._commit(kind, match, settled)
        if match.trades:
            self._run_triggers(self.max_fills - match.met)

    def _commit(self, kind: EventType, match: Match, settled: Order) -> None:
        # By place: icebergs join the queue in the order of their last refills (PLC-2).
        for maker in sorted(match.changed.values(), key=_place):
            self.store(maker)
        self.store(settled)
        self.record(kind, [settled, *match.changed.values()], match.trades)

    def _cancel_all(
        self, kind: EventType, reason: str, orders: list[Order], detail: str = ""
    ) -> tuple[Order, ...]:
        sequence = self.sequence + 1
        orders = [cancelled(order, reason, sequence) for order in orders]
        for order in orders:
            self.store(order)
        self.record(kind, orders, detail=detail)
        return tuple(orders)

    def _match(self, taker: Order, max_met: int) -> Match:
        return Match(
            taker,
            self.sides[opposite(taker.side)],
            worst_ticks=checks.worst_ticks(self, taker),
            max_met=max_met,
            now_us=self.now_us,
            sequence=self.sequence + 1,
        )

    # What a command sets off

    def _run_triggers(self, budget: int) -> None:
        """STP-4 and STP-6: `budget` is how many makers may still be met in this call."""
        for _ in range(self.max_triggers):
            stop = self.stops.next_triggered()
            if stop is None:
                return
            met = self._trigger(stop, budget)
            if met is None:
                return
            budget -= met

    def _trigger(self, stop: Order, budget: int) -> int | None:
        """How many makers the stop met; None, and nothing done, if it must wait for more budget."""
        sequence = self.sequence + 1
        if stop.is_past_expiry(self.now_us):
            return self._drop(expired(stop, sequence))
        if checks.is_outside_band(self, stop.price_ticks):
            return self._drop(cancelled(stop, "price_band", sequence))
        match = self._match(stop, budget)
        if match.limit_met and budget < self.max_fills:
            return None
        settled = match.settled()
        if checks.overflows(self, settled):
            settled = cancelled(settled, "level_quantity_overflow", sequence)
        self._commit("trigger", match, settled)
        return match.met

    def _drop(self, stop: Order) -> int:
        """STP-8: a triggered stop that does not come in."""
        self.store(stop)
        self.record("trigger", [stop])
        return 0

    def _expire_due(self) -> None:
        """EXP-3: one event."""
        end = bisect_left(self.expiries, (self.now_us + 1, 0))
        numbers = [number for _, number in self.expiries[: min(end, self.max_expiries)]]
        if not numbers:
            return
        orders = [expired(self.orders[number], self.sequence + 1) for number in numbers]
        for order in orders:
            self.store(order)
        self.record("expire", orders)

    def _fire_timer(self) -> None:
        """CXL-4: one event of the timer that is due longest."""
        due = min(((due_us, client) for client, due_us in self.timers.items()), default=None)
        if due is None or due[0] > self.now_us:
            return
        client = due[1]
        orders = self.open_orders(client)
        if len(orders) <= self.max_cancels:
            del self.timers[client]
        detail = self._timer_detail(client)
        self._cancel_all("cancel_after", "cancel_after", orders[: self.max_cancels], detail)

    def _timer_detail(self, client: str) -> str:
        return f"{client}|{self.timers.get(client, '')}"


def _place(order: Order) -> tuple[int, int]:
    return order.place


def _with_terms(order: Order, amend: Amend) -> Order:
    """The order with what the amend gives."""
    return replace(
        order,
        price_ticks=order.price_ticks if amend.price_ticks is None else amend.price_ticks,
        quantity_lots=order.quantity_lots if amend.quantity_lots is None else amend.quantity_lots,
        stop_price_ticks=(
            order.stop_price_ticks if amend.stop_price_ticks is None else amend.stop_price_ticks
        ),
    )


_EXECUTED_BY: dict[type[Command], Callable[[ReferenceBook, Any], Answer]] = {
    Place: ReferenceBook.place,
    Cancel: ReferenceBook.cancel,
    Amend: ReferenceBook.amend,
    MassCancel: ReferenceBook.mass_cancel,
    ArmTimer: ReferenceBook.arm_timer,
    Sweep: lambda book, _: book.sweep(),
    SetRules: ReferenceBook.set_rules,
    KillSwitch: ReferenceBook.set_kill_switch,
    Tick: ReferenceBook.tick,
}
