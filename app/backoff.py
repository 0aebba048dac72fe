"""How long whoever lost a connection waits before the next attempt: ever longer up to a limit, and
by chance, so that those who lost it at the same moment do not come back at the same moment.
"""

from typing import Final

from redis.backoff import EqualJitterBackoff

DOUBLINGS_MAX: Final = 16
"""Beyond any limit in use; an outage of days counts millions of failures."""


def delay_s(failures: int, first_s: float, max_s: float) -> float:
    """Seconds to wait after the `failures`-th failure in a row, counted from 1: about `first_s`,
    doubled with each further one, at most `max_s`; between half of that and all of it.
    """
    doublings = min(failures - 1, DOUBLINGS_MAX)
    return float(EqualJitterBackoff(cap=max_s, base=first_s).compute(doublings))
