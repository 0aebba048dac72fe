"""What matching an order would do, worked out before anything is changed: who is met, in which
order, and what becomes of each (MAT, SLF, ICE, EXP-2). Reads the makers' side, changes nothing.
"""

from collections import deque
from collections.abc import Iterator
from dataclasses import replace

from tests.commands import Side
from tests.reference.orders import Order, Trade
from tests.reference.queues import BookSide

LEVEL_TOTAL_LIMIT_LOTS = 2**53  # first total that a double no longer counts exactly


class Match:
    """One taker's way along the makers."""

    def __init__(
        self,
        taker: Order,
        makers: BookSide,
        *,
        worst_ticks: int | None,
        max_met: int,
        now_us: int,
        sequence: int,
    ) -> None:
        """`taker` has its terms and fills up to now; `worst_ticks` is the last price that it may
        trade at (None: any), `max_met` how many makers it may meet.
        """
        self.taker = taker
        self.changed: dict[int, Order] = {}  # makers in the order of meeting, as they become
        self.trades: list[Trade] = []
        self.met = 0
        self.limit_met = False  # another maker would be met, but for max_met
        self.beyond = False  # another maker is there, past worst_ticks
        self.prevented = False  # the taker is cancelled by self-trade prevention
        self.would_cross = False  # it is post-only and meets a maker
        self._makers, self._worst_ticks = makers, worst_ticks
        self._max_met, self._now_us, self._sequence = max_met, now_us, sequence
        self._refills = 0
        self._refilled: deque[Order] = deque()  # behind the others of the present level
        self._level_total = 0  # shown at the present level
        self._run()
        if taker.time_in_force == "fok" and self.taker.remaining_lots:
            self._undo(taker)

    @property
    def notional(self) -> int:
        """Of its own trades alone."""
        return sum(trade.price_ticks * trade.quantity_lots for trade in self.trades)

    def settled(self) -> Order:
        """The taker after it: over, or at rest at its own price with the place of PLC-2."""
        taker = replace(self.taker, sequence=self._sequence)
        if not taker.remaining_lots:
            return replace(taker, status="filled", reason=None, shown_lots=hidden(taker))
        reason = self._reason()
        if reason is not None:
            return cancelled(taker, reason, self._sequence)
        return replace(
            taker,
            status="partially_filled" if taker.filled_lots else "open",
            shown_lots=_refill(taker, taker.remaining_lots),
            place=(self._sequence, 0),
        )

    def _reason(self) -> str | None:
        """Why what remains is cancelled (MAT-4, MAT-5, MAT-6, SLF-6); None where it rests."""
        if self.prevented:
            return "self_trade_prevented"
        if self.limit_met:
            return "fill_limit"
        if self.taker.time_in_force == "fok":
            return "fok_unfilled"
        if self.taker.price_ticks is None:
            return "price_band" if self.beyond else "no_liquidity"
        return "ioc_remainder" if self.taker.time_in_force == "ioc" else None

    def _undo(self, taker: Order) -> None:
        """MAT-6: nothing happens. What it met, it met."""
        self.taker, self.changed, self.trades, self.prevented = taker, {}, [], False

    def _run(self) -> None:
        for maker in self._queue():
            if not self.taker.remaining_lots:
                return
            if self._worst_ticks is not None and not crosses(
                self.taker.side, self._worst_ticks, maker.limit_ticks
            ):
                self.beyond = True
                return
            if self.met == self._max_met:
                self.limit_met = True
                return
            self.met += 1
            if not self._meet(maker):
                return

    def _queue(self) -> Iterator[Order]:
        """Makers in the order in which they must be met, refilled icebergs again."""
        for price in self._makers.best_first():
            self._level_total = self._makers.totals[price]
            yield from self._makers.levels[price].values()
            while self._refilled:
                yield self._refilled.popleft()

    def _meet(self, maker: Order) -> bool:
        """Whether the taker goes on."""
        if maker.is_past_expiry(self._now_us):
            self._change(maker, expired(maker, self._sequence))
            return True
        if self.taker.post_only:
            self.would_cross = True
            return False
        if maker.client == self.taker.client and self.taker.self_trade_prevention != "none":
            return self._prevent(maker)
        self._trade(maker)
        return True

    def _trade(self, maker: Order) -> None:
        lots, price = min(self.taker.remaining_lots, maker.visible_lots), maker.limit_ticks
        self.taker = replace(
            self.taker,
            filled_lots=self.taker.filled_lots + lots,
            notional=self.taker.notional + price * lots,
        )
        self.trades.append(
            Trade(
                maker.number,
                self.taker.number,
                price,
                lots,
                self.taker.side,
                self._sequence,
                len(self.trades) + 1,
            )
        )
        self._change(maker, self._given(maker, lots))

    def _given(self, maker: Order, lots: int) -> Order:
        """The maker after it has traded; MAT-1 and ICE-2 say where it stands then."""
        after = replace(
            maker,
            filled_lots=maker.filled_lots + lots,
            notional=maker.notional + maker.limit_ticks * lots,
            status="partially_filled",
            sequence=self._sequence,
        )
        if not after.remaining_lots:
            return replace(after, status="filled", shown_lots=hidden(after))
        if maker.shown_lots is None:
            return after
        if maker.shown_lots > lots:
            return replace(after, shown_lots=maker.shown_lots - lots)
        others = self._level_total - maker.shown_lots
        self._refills += 1
        after = replace(
            after,
            shown_lots=_refill(after, LEVEL_TOTAL_LIMIT_LOTS - 1 - others),
            place=(self._sequence, self._refills),
        )
        self._refilled.append(after)
        return after

    def _prevent(self, maker: Order) -> bool:
        """Both are of one client: SLF-2 to SLF-5, and SLF-7 for fill-or-kill."""
        mode = self.taker.self_trade_prevention
        if mode == "cancel_oldest":
            self._change(maker, cancelled(maker, "self_trade_prevented", self._sequence))
            return True
        if self.taker.time_in_force == "fok":
            return False
        if mode == "decrement":
            return self._decrement(maker)
        if mode == "cancel_both":
            self._change(maker, cancelled(maker, "self_trade_prevented", self._sequence))
        self.prevented = True
        return False

    def _decrement(self, maker: Order) -> bool:
        ours, theirs = self.taker.remaining_lots, maker.remaining_lots
        if theirs <= ours:
            self._change(maker, cancelled(maker, "self_trade_prevented", self._sequence))
        else:
            self._change(maker, reduced(maker, maker.quantity_lots - ours, self._sequence))
        if theirs < ours:
            less = self.taker.quantity_lots - theirs
            self.taker = replace(self.taker, quantity_lots=less)
            return True
        self.prevented = True
        return False

    def _change(self, before: Order, after: Order) -> None:
        self.changed[before.number] = after
        self._level_total -= before.visible_lots
        if after.rests:
            self._level_total += after.visible_lots


def crosses(side: Side, limit_ticks: int, other_ticks: int) -> bool:
    """Whether an order of this side and limit may trade at the other side's price."""
    return other_ticks <= limit_ticks if side == "buy" else other_ticks >= limit_ticks


def cancelled(order: Order, reason: str, sequence: int) -> Order:
    """The order after it was cancelled."""
    return replace(
        order, status="cancelled", reason=reason, sequence=sequence, shown_lots=hidden(order)
    )


def expired(order: Order, sequence: int) -> Order:
    """The order after its expiry (EXP-1)."""
    return replace(
        order, status="expired", reason="expired", sequence=sequence, shown_lots=hidden(order)
    )


def reduced(order: Order, quantity_lots: int, sequence: int) -> Order:
    """The order with a smaller quantity at its place; it shows no more than before (AMD-3)."""
    after = replace(order, quantity_lots=quantity_lots, sequence=sequence)
    if after.shown_lots is None:
        return after
    return replace(after, shown_lots=min(after.shown_lots, after.remaining_lots))


def hidden(order: Order) -> int | None:
    """What an order that does not rest shows: an iceberg nothing, others have no such figure."""
    return None if order.display_lots is None else 0


def _refill(order: Order, room_lots: int) -> int | None:
    """What an iceberg shows anew (ICE-1, ICE-2)."""
    if order.display_lots is None:
        return None
    return min(order.display_lots, order.remaining_lots, room_lots)
