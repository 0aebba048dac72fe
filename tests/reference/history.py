"""Reads a book's events one after the other, as a client would, and checks each against what was
before it: that every change of an order is explained, and allowed. Knows no queues.
"""

from collections import defaultdict
from dataclasses import replace
from itertools import pairwise

from tests.commands import Amend, Command, KillSwitch, Place, SetRules, Side, opposite
from tests.reference.orders import Event, Order, Trade

MATCHING = ("place", "amend", "trigger")
# Which commands may lead to which events; None is what a command or the sweep sets off.
CAUSES: dict[str, set[str | None]] = {
    "place": {"Place"},
    "amend": {"Amend"},
    "cancel": {"Cancel"},
    "mass_cancel": {"MassCancel"},
    "expire": {None},
    "trigger": {None},
    "cancel_after": {"ArmTimer", None},
    "rules": {"SetRules"},
    "kill_switch": {"KillSwitch"},
}


class History:
    """What the events up to now tell."""

    def __init__(self, max_fills: int) -> None:
        self.max_fills = max_fills
        self.orders: dict[int, Order] = {}
        self.totals: dict[tuple[Side, int], int] = defaultdict(int)  # shown lots of each level
        self.rules = SetRules()
        self.last_price_ticks: int | None = None
        self.timers: dict[str, int] = {}
        self.killed: set[str] = set()
        self.reached: set[int] = set()  # pending stops that a trade has reached
        self._pending: dict[int, Order] = {}
        self._sequence = 0
        self._now_us = 0

    def add(self, event: Event, now_us: int, command: Command | None) -> None:
        """The next event. AssertionError where it cannot be."""
        assert event.sequence == self._sequence + 1
        assert now_us >= self._now_us
        assert (None if command is None else type(command).__name__) in CAUSES[event.type]
        self._sequence, self._now_us = event.sequence, now_us
        self._check_allowed(event)
        self._check_orders(event)
        self._check_trades(event)
        if event.type in MATCHING:
            self._check_taker(event, command)
        if event.type == "trigger":
            self._check_trigger(event)
        self._check_levels(event)
        self._follow(event, command)

    # What may happen

    def _check_allowed(self, event: Event) -> None:
        """STA."""
        if self.rules.status != "open":
            assert event.type not in MATCHING
        if self.rules.status == "halted":
            assert event.type in ("rules", "kill_switch", "cancel_after")
            assert not event.orders
        if event.type in ("rules", "kill_switch"):
            assert not event.orders
        if event.type in ("place", "amend"):
            assert event.orders[0].client not in self.killed

    def _check_orders(self, event: Event) -> None:
        assert len({order.number for order in event.orders}) == len(event.orders)
        for position, order in enumerate(event.orders):
            assert order.sequence == event.sequence
            before = self.orders.get(order.number)
            if event.type == "place" and position == 0:
                assert before is None
                assert order.number == event.sequence
                continue
            assert before is not None
            assert before.is_open
            is_own = event.type == "amend" and position == 0
            self._check_change(event, before, order, is_own_amend=is_own)

    def _check_change(
        self, event: Event, before: Order, after: Order, *, is_own_amend: bool
    ) -> None:
        """What can change at all, and that only trades fill."""
        same = replace(
            before,
            quantity_lots=after.quantity_lots,
            filled_lots=after.filled_lots,
            notional=after.notional,
            status=after.status,
            reason=after.reason,
            sequence=after.sequence,
            shown_lots=after.shown_lots,
            place=after.place,
        )
        if is_own_amend:
            prices = after.price_ticks, after.stop_price_ticks
            same = replace(same, price_ticks=prices[0], stop_price_ticks=prices[1])
        assert same == after
        mine = [t for t in event.trades if after.number in (t.maker, t.taker)]
        assert after.filled_lots - before.filled_lots == sum(t.quantity_lots for t in mine)
        assert after.notional - before.notional == sum(
            t.price_ticks * t.quantity_lots for t in mine
        )
        assert before.place <= after.place
        assert not event.type.startswith(("cancel", "mass")) or after.status == "cancelled"
        if after.status == "expired":
            assert after.is_past_expiry(self._now_us)

    def _check_trades(self, event: Event) -> None:
        assert [trade.index for trade in event.trades] == list(range(1, len(event.trades) + 1))
        if event.type in MATCHING:  # MAT-4
            idle = {order.number for order in event.orders[1:]} - {t.maker for t in event.trades}
            assert len(event.trades) + len(idle) <= self.max_fills
        for trade in event.trades:
            assert event.type in MATCHING
            self._check_trade(event, trade)
        sign = 1 if event.trades and event.trades[0].side == "buy" else -1
        prices = [sign * trade.price_ticks for trade in event.trades]
        assert all(before <= after for before, after in pairwise(prices)), "not best price first"

    def _check_trade(self, event: Event, trade: Trade) -> None:
        taker, maker = event.orders[0], self.orders[trade.maker]
        assert trade.quantity_lots > 0
        assert (trade.taker, trade.sequence) == (taker.number, event.sequence)
        assert trade.maker in {order.number for order in event.orders[1:]}
        assert taker.side == trade.side == opposite(maker.side)
        assert trade.price_ticks == maker.price_ticks
        assert maker.rests
        assert not maker.is_past_expiry(self._now_us), "EXP-2"
        assert not taker.post_only, "MAT-7"
        assert maker.client != taker.client or taker.self_trade_prevention == "none", "SLF"
        worst = self._worst_ticks(taker)
        sign = 1 if taker.side == "buy" else -1
        assert worst is None or sign * trade.price_ticks <= sign * worst

    def _worst_ticks(self, taker: Order) -> int | None:
        if taker.price_ticks is not None:
            return taker.price_ticks
        last, bps = self.last_price_ticks, self.rules.price_band_bps
        if last is None or bps is None:
            return None
        width = last * bps // 10_000
        return last + width if taker.side == "buy" else last - width

    def _check_taker(self, event: Event, command: Command | None) -> None:
        taker, makers = event.orders[0], event.orders[1:]
        for maker in makers:
            assert maker.status != "cancelled" or maker.reason == "self_trade_prevented"
        traded = sum(trade.quantity_lots for trade in event.trades)
        if taker.time_in_force == "fok" and taker.status != "pending":
            assert traded in (0, taker.quantity_lots), "MAT-6"
            assert traded or not makers, "MAT-6"
        asked = self._asked_lots(taker, command)
        prevented = sum(self._prevented(taker, maker) for maker in makers)
        if taker.self_trade_prevention != "decrement" or not prevented:
            assert taker.quantity_lots == asked
            return
        # SLF-5: what the taker lost, some maker had; what is left of the taker ended with it.
        last = next(m for m in reversed(makers) if self._prevented(taker, m))
        if taker.reason == "self_trade_prevented":
            prevented -= self._prevented(taker, last)
            assert taker.remaining_lots == self._prevented(taker, last)
        assert taker.quantity_lots == asked - prevented

    def _asked_lots(self, taker: Order, command: Command | None) -> int:
        """The taker's quantity before it met anybody."""
        if isinstance(command, Place):
            return command.quantity_lots
        if isinstance(command, Amend) and command.quantity_lots is not None:
            return command.quantity_lots
        return self.orders[taker.number].quantity_lots

    def _prevented(self, taker: Order, maker: Order) -> int:
        """How many lots of a maker self-trade prevention took away."""
        if maker.reason == "self_trade_prevented":
            assert maker.client == taker.client
            return maker.remaining_lots
        lots = self.orders[maker.number].quantity_lots - maker.quantity_lots
        assert lots == 0 or maker.client == taker.client
        return lots

    def _check_trigger(self, event: Event) -> None:
        """STP-2, and the order of STP-4."""
        stop = self.orders[event.orders[0].number]
        assert stop.number in self.reached

        def urgency(number: int) -> tuple[object, ...]:
            one = self._pending[number]
            sign = 1 if one.side == "buy" else -1
            return one.side == "sell", sign * one.trigger_ticks, one.place

        assert min(self.reached, key=urgency) == stop.number, "STP-4"

    def _check_levels(self, event: Event) -> None:
        """The totals told are those of the orders told, of every level that changed."""
        touched: set[tuple[Side, int]] = set()
        for order in event.orders:
            before = self.orders.get(order.number)
            was, now = _shown_at(before), _shown_at(order)
            if was == now:
                continue
            for shown, sign in ((was, -1), (now, 1)):
                if shown is not None:
                    level, lots, _ = shown
                    self.totals[level] += sign * lots
                    touched.add(level)
        told = [((c.side, c.price_ticks), c.total_lots) for c in event.levels]
        assert told == [(level, self.totals[level]) for level in sorted(touched)]

    # What is so from now on

    def _follow(self, event: Event, command: Command | None) -> None:
        for order in event.orders:
            self.orders[order.number] = order
            self._pending.pop(order.number, None)
            if order.status == "pending":
                self._pending[order.number] = order
        if event.trades:
            self.last_price_ticks = event.trades[-1].price_ticks
            prices = [trade.price_ticks for trade in event.trades]
            for stop in self._pending.values():
                rises = stop.side == "buy"
                ticks = stop.trigger_ticks
                if max(prices) >= ticks if rises else min(prices) <= ticks:
                    self.reached.add(stop.number)
        self.reached &= self._pending.keys()
        if isinstance(command, SetRules):
            self.rules = command
        if isinstance(command, KillSwitch):
            (self.killed.add if command.engaged else self.killed.discard)(command.client)
            assert event.detail == f"{command.client}|{'1' if command.engaged else ''}"
        if event.type == "cancel_after":
            self._follow_timer(event, command)

    def _follow_timer(self, event: Event, command: Command | None) -> None:
        client, due = event.detail.split("|")
        if command is None:  # it was due, and ends only with the client's last order
            assert self.timers[client] <= self._now_us
            assert not due or int(due) == self.timers[client]
            has_more = any(o.is_open for o in self.orders.values() if o.client == client)
            assert has_more == bool(due)
        else:
            assert not event.orders
        self.timers.pop(client, None)
        if due:
            self.timers[client] = int(due)


def _shown_at(order: Order | None) -> tuple[tuple[Side, int], int, tuple[int, int]] | None:
    """Level, lots and place of an order that rests."""
    if order is None or not order.rests:
        return None
    return (order.side, order.limit_ticks), order.visible_lots, order.place
