"""Conditions that are waited for, and times that have an upper bound, on machines that are busy now
and then.
"""

import time
from collections.abc import Callable
from typing import Final

PATIENCE_S: Final = 60.0
POLL_INTERVAL_S: Final = 0.02
TRIES_MAX: Final = 3


def wait_for(condition: Callable[[], object], timeout_s: float = PATIENCE_S) -> None:
    """Returns once `condition` holds; fails the test if it does not in time."""
    deadline = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < deadline, "the condition did not come true in time"
        time.sleep(POLL_INTERVAL_S)


def fastest_s(action: Callable[[], object], limit_s: float) -> float:
    """Seconds that `action` took; as `least`."""

    def measure() -> float:
        began = time.monotonic()
        action()
        return time.monotonic() - began

    return least(measure, limit_s)


def least(measure: Callable[[], float], limit: float) -> float:
    """What `measure` tells; where that is not below `limit` it is asked again, and the best of some
    tries counts: what is slow by itself is slow each time, a busy machine hardly is.
    """
    told: list[float] = []
    while not told or (min(told) >= limit and len(told) < TRIES_MAX):
        told.append(measure())
    return min(told)
