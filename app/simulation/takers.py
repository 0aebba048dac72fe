"""Takers: they come in runs of one side, mostly small, now and then very large; some are patient
and leave limit orders, icebergs and stops behind, of which the oldest are taken back.
"""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING, Final

from app.simulation.characters import ORDER_NOTIONAL
from app.simulation.fair_price import BPS
from app.simulation.orders import Intent, WorkingOrder, cancelling, placing

if TYPE_CHECKING:
    from random import Random

    from app.simulation.floor import Floor

TAKERS: Final = 8
KINDS: Final = {
    "market": 55, "sweep": 15, "fok": 4, "passive": 14, "iceberg": 5, "stop": 4, "stop_limit": 3,
}  # fmt: skip
"""What they do, in parts."""
PATIENT: Final = frozenset({"passive", "iceberg", "stop", "stop_limit"})
PATIENT_ORDERS_MAX: Final = 40
"""Orders that all takers of an instrument leave open together."""
TAKEN_BACK_SHARE: Final = 0.4
"""How often one of them is cancelled when another comes."""
SAME_SIDE_SHARE: Final = 0.7
"""How often a taker does what the one before did: large orders come in slices."""
TAIL: Final = 1.5
"""Pareto's exponent of sizes: mean there is, variance there is none."""
SMALLEST_NOTIONAL: Final = 0.15 * ORDER_NOTIONAL
LARGEST: Final = 80.0
"""Times the smallest."""
IMPACT_BPS: Final = 0.25
"""How far the smallest order moves what is thought fair; larger ones by the square root."""
ICEBERG_PARTS: Final = 8
PATIENT_BPS_MAX: Final = 150.0


class Takers:
    """All takers of one instrument."""

    def __init__(self, floor: Floor, client_ids: list[str], rng: Random) -> None:
        self._floor = floor
        self._rng = rng
        self._client_ids = client_ids
        self._side = "buy"
        self._patient: deque[WorkingOrder] = deque()

    def act(self) -> list[Intent]:
        """One order, and cancels of older ones."""
        if self._rng.random() > SAME_SIDE_SHARE:
            self._side = "sell" if self._side == "buy" else "buy"
        (kind,) = self._rng.choices(list(KINDS), list(KINDS.values()))
        size = min(self._rng.paretovariate(TAIL), LARGEST)
        lots = self._floor.lots(SMALLEST_NOTIONAL * size)
        if kind not in PATIENT:
            self._floor.fair.push(self._sign * IMPACT_BPS * size**0.5)
            return self._impatient(kind, lots)
        return [*self._taken_back(), *self._patient_order(kind, lots)]

    @property
    def _sign(self) -> int:
        return 1 if self._side == "buy" else -1

    def _impatient(self, kind: str, lots: int) -> list[Intent]:
        """At once or not at all."""
        market = self._floor.market
        if kind == "market":
            return [placing(market, self._order(lots), "market")]
        # As far as is fair now: takes what others have left at a better price.
        slack_bps = self._floor.character.half_spread_bps * self._rng.uniform(0.5, 2.5)
        price = self._price(self._sign * slack_bps)
        time_in_force = "fok" if kind == "fok" else "ioc"
        return [placing(market, self._order(lots, price), "limit", time_in_force=time_in_force)]

    def _patient_order(self, kind: str, lots: int) -> list[Intent]:
        """One that rests or waits."""
        market, half_spread_bps = self._floor.market, self._floor.character.half_spread_bps
        away_bps = min(half_spread_bps * 2 * self._rng.paretovariate(1.2), PATIENT_BPS_MAX)
        if kind in ("stop", "stop_limit"):
            return self._stop(kind, lots, away_bps * 3)
        if kind == "passive":
            order = self._order(lots, self._price(-self._sign * away_bps))
            intent = placing(market, order, "limit")
        else:
            order = self._order(lots * 4, self._price(-self._sign * half_spread_bps))
            shown = market.quantity.format(max(1, order.lots // ICEBERG_PARTS))
            intent = placing(market, order, "limit", display_quantity=shown)
        self._patient.append(order)
        return [intent]

    def _stop(self, kind: str, lots: int, away_bps: float) -> list[Intent]:
        market = self._floor.market
        trigger = market.price.format(self._price(self._sign * away_bps))
        worst = self._price(self._sign * away_bps * 1.5) if kind == "stop_limit" else None
        order = self._order(lots, worst)
        self._patient.append(order)
        return [placing(market, order, kind, stop_price=trigger)]

    def _taken_back(self) -> list[Intent]:
        """The oldest, when there are enough, or by chance; those that are over are forgotten."""
        while self._patient and self._patient[0].is_over:
            self._patient.popleft()
        is_full = len(self._patient) >= PATIENT_ORDERS_MAX
        if not self._patient or not (is_full or self._rng.random() < TAKEN_BACK_SHARE):
            return []
        return [cancelling(self._floor.market, self._patient.popleft())]

    def _order(self, lots: int, price_ticks: int | None = None) -> WorkingOrder:
        client_id = self._rng.choice(self._client_ids)
        return self._floor.order(client_id, self._side, lots, price_ticks)

    def _price(self, bps: float) -> int:
        """So far from what is fair, in whole ticks."""
        ticks = round(self._floor.fair.ticks * (1 + bps / BPS))
        return max(1, min(ticks, self._floor.market.price.limit))
