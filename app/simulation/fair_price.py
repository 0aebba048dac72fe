"""What an instrument is worth, as only the simulation knows: wanders with every event, is pulled
back to where it began, and follows a little whoever buys or sells.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from random import Random

BPS: Final = 10_000
USUAL_DISTANCE_BPS: Final = 150.0
"""Standard deviation of the price around its anchor in the long run."""
DISTANCE_BPS_MAX: Final = 1_500.0
"""Of the price from its anchor, whoever pushes."""


class FairPrice:
    """A mean-reverting walk (Ornstein and Uhlenbeck) of the price's logarithm. It moves with the
    events rather than with the clock, so that busy times are also wild ones.
    """

    def __init__(self, anchor_ticks: int, step_bps: float, rng: Random) -> None:
        """`step_bps`: standard deviation of the move with one event."""
        self._rng = rng
        self._anchor_ticks = anchor_ticks
        self._step_bps = step_bps
        self._pull = step_bps**2 / (2 * USUAL_DISTANCE_BPS**2)
        self._distance_bps = 0.0

    @property
    def ticks(self) -> float:
        """Now."""
        return self._anchor_ticks * math.exp(self._distance_bps / BPS)

    def step(self) -> None:
        """One event has happened."""
        self.push(self._rng.gauss(0.0, self._step_bps) - self._pull * self._distance_bps)

    def push(self, bps: float) -> None:
        """Move by so much, within the bounds."""
        moved = self._distance_bps + bps
        self._distance_bps = max(-DISTANCE_BPS_MAX, min(DISTANCE_BPS_MAX, moved))

    def anchor(self, ticks: int) -> None:
        """Begin anew at `ticks`."""
        self._anchor_ticks, self._distance_bps = ticks, 0.0
