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
    """Seconds that `action` took; where it is beyond `limit_s` it is tried again, and the best of
    some tries counts: what is slow by itself is slow each time, a busy machine hardly is.
    """
    times: list[float] = []
    while not times or (min(times) >= limit_s and len(times) < TRIES_MAX):
        began = time.monotonic()
        action()
        times.append(time.monotonic() - began)
    return min(times)
