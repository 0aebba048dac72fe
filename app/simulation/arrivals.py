"""When traders act: moments that come in clusters, as they do on a market, where one order brings
about the next. A Hawkes process with an exponential kernel, sampled by Ogata's thinning
(Y. Ogata, "On Lewis' simulation method for point processes", 1981).
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from random import Random

CHILDREN_PER_EVENT: Final = 0.6
"""Below 1, or it would explode. The long-run rate is the base rate / (1 - this)."""
DECAY_PER_S: Final = 1.5
"""How fast the excitement of one event fades."""
BURST_MAX: Final = 6.0
"""Times the average rate: no burst is wilder."""


class Arrivals:
    """Moments of events, `rate_per_s` of them on average in the long run."""

    def __init__(self, rate_per_s: float, rng: Random) -> None:
        self._rng = rng
        self._base = rate_per_s * (1 - CHILDREN_PER_EVENT)
        self._excitement = rate_per_s - self._base  # as in the long run
        self._excitement_max = rate_per_s * BURST_MAX - self._base
        self._now_s = 0.0

    def until(self, time_s: float) -> list[float]:
        """The events after those that were told before, up to `time_s`."""
        found: list[float] = []
        while True:
            # The intensity only falls until the next event: now it is as high as it can be.
            bound = self._base + self._excitement
            moment = self._now_s + self._rng.expovariate(bound)
            if moment > time_s:
                self._pass(time_s)
                return found
            self._pass(moment)
            if self._rng.random() * bound <= self._base + self._excitement:
                found.append(moment)
                excited = self._excitement + CHILDREN_PER_EVENT * DECAY_PER_S
                self._excitement = min(excited, self._excitement_max)

    def _pass(self, time_s: float) -> None:
        self._excitement *= math.exp(-DECAY_PER_S * (time_s - self._now_s))
        self._now_s = time_s
