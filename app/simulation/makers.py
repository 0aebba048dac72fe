"""Market makers: each quotes several levels on both sides of what it takes for the fair price, asks
less for what it has too much of, and replaces first the quote that is furthest from its place.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from app.simulation.characters import ORDER_NOTIONAL
from app.simulation.fair_price import BPS
from app.simulation.orders import Intent, WorkingOrder, cancelling, placing, repricing

if TYPE_CHECKING:
    from collections.abc import Iterator
    from random import Random

    from app.simulation.floor import Floor

LEVELS: Final = 10
"""Quotes of one maker on one side."""
GRIDS: Final = (12, 5, 2)
"""Steps of a maker's own price grid in the half spread, maker by maker: some like round prices."""
MAKERS: Final = len(GRIDS)
WIDTHS: Final = (1.0, 1.3, 1.8)
"""Of each maker's spread."""
INNER_LEVELS: Final = 2
"""Which are post-only at first."""
AMENDED_SHARE: Final = 0.3
"""Of the replacements that amend the order rather than cancel it and place another."""
INVENTORY_NOTIONAL: Final = 20 * ORDER_NOTIONAL
"""With so much of it a maker moves its quotes by its half spread."""
MISSING: Final = 4.0
"""How badly a quote that is not there is missed, in steps off its place."""


@dataclass(slots=True, eq=False)
class Quote:
    """A maker's place in the book, with the order that keeps it."""

    side: str
    level: int
    order: WorkingOrder | None = None

    @property
    def is_missing(self) -> bool:
        """There never was one, or it is over."""
        return self.order is None or self.order.is_over


class Maker:
    """One market maker of one instrument."""

    def __init__(self, floor: Floor, number: int, client_id: str, rng: Random) -> None:
        self._floor = floor
        self._rng = rng
        self.client_id = client_id
        self._half_spread_bps = floor.character.half_spread_bps * WIDTHS[number]
        self._grids = GRIDS[number]
        self.quotes = [Quote(side, level) for level in range(LEVELS) for side in ("buy", "sell")]

    def act(self) -> list[Intent]:
        """Replace the quote that needs it most; where all is well, any one, as makers do."""
        quote = max(self.quotes, key=self._need)
        if self._need(quote) < 1.0:
            quote = self._rng.choice(self.quotes)
        return list(self._replace(quote))

    def fill(self) -> list[Intent]:
        """Place every quote that is missing."""
        missing = [quote for quote in self.quotes if quote.is_missing]
        return [intent for quote in missing for intent in self._replace(quote)]

    def _replace(self, quote: Quote) -> Iterator[Intent]:
        target = self._target_ticks(quote)
        order, market = quote.order, self._floor.market
        if order is not None and not order.is_over:
            may_amend = order.is_untouched and target not in (None, order.price_ticks)
            if may_amend and self._rng.random() < AMENDED_SHARE:
                assert target is not None, "not None, see may_amend"
                yield repricing(market, order, target)
                return
            yield cancelling(market, order)
        if target is None:
            return
        # Once refused, it is some other's quote that is in the wrong place: take it.
        is_passive = quote.level < INNER_LEVELS and not (order and order.was_refused)
        lots = self._floor.lots(self._notional(quote.level))
        quote.order = self._floor.order(self.client_id, quote.side, lots, target)
        if is_passive:
            yield placing(market, quote.order, "limit", post_only=True)
        else:
            yield placing(market, quote.order, "limit", self_trade_prevention="cancel_oldest")

    def _need(self, quote: Quote) -> float:
        """How far a quote is from where it should be, in what its level may be off."""
        order, center = quote.order, self._center_ticks(quote)
        if order is None or order.is_over:
            limit = self._floor.market.price.limit
            is_possible = center >= 1 if quote.side == "buy" else center <= limit
            return MISSING - quote.level / LEVELS if is_possible else 0.0
        assert order.price_ticks is not None, "quotes have a price"
        off_bps = abs(order.price_ticks / center - 1) * BPS
        return off_bps / (self._half_spread_bps * (1 + quote.level / 2))

    def _center_ticks(self, quote: Quote) -> float:
        """Where a quote should be, between ticks."""
        sign = 1 if quote.side == "sell" else -1
        distance_bps = self._half_spread_bps * (1.0 + math.pow(quote.level, 1.3) / 2)
        skew_bps = self._half_spread_bps * self._lean()
        return self._floor.fair.ticks * (1 + (sign * distance_bps - skew_bps) / BPS)

    def _target_ticks(self, quote: Quote) -> int | None:
        """Where to put it: on the maker's grid, away from the middle. None: no such price."""
        half_spread_ticks = self._floor.fair.ticks * self._half_spread_bps / BPS
        grid = _round_step(half_spread_ticks / self._grids)
        jitter = self._rng.uniform(-0.3, 0.3) * half_spread_ticks * (1 + quote.level / 3)
        steps = (self._center_ticks(quote) + jitter) / grid
        whole = math.ceil(steps) if quote.side == "sell" else math.floor(steps)
        ticks = int(whole) * grid
        return ticks if 1 <= ticks <= self._floor.market.price.limit else None

    def _notional(self, level: int) -> float:
        """More further out, and never twice the same."""
        return ORDER_NOTIONAL * (0.4 + level / 3) * self._rng.lognormvariate(0.0, 0.5)

    def _lean(self) -> float:
        """How much more it has than it likes, from -1 to 1."""
        held = self._floor.held_notional(self.client_id) / INVENTORY_NOTIONAL
        return max(-1.0, min(1.0, held))


def _round_step(ticks: float) -> int:
    """The greatest of 1, 2, 5, 10, 20, … that is not above `ticks`; at least 1."""
    if ticks < 1:
        return 1
    power = 10 ** int(math.log10(ticks))
    return int(max(step * power for step in (1, 2, 5) if step * power <= max(ticks, power)))
