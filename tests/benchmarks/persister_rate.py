"""How fast the persister writes events down, against how fast they come in over HTTP."""

from time import monotonic
from typing import NamedTuple

from redis import Redis

from tests.benchmarks.engine import Mix
from tests.benchmarks.load import run_k6
from tests.benchmarks.order_flow import Orders
from tests.benchmarks.sizes import Sizes
from tests.benchmarks.standing_book import StandingBook
from tests.benchmarks.system import SYMBOL, System, new_system
from tests.benchmarks.tables import Bound, Table
from tests.waiting import wait_for

SEED = 4
CHUNK = 5_000
CANCEL_SHARE = 0.2
DRAIN_TIMEOUT_S = 180.0
RATIO_MIN = 1.0
"""Below it the stream grows for as long as the load lasts."""


class UntrimmedBook(StandingBook):
    """Nobody has persisted anything yet."""

    def drop(self, over: list[int], last: int) -> None:
        """Nothing may be dropped."""


class Drain(NamedTuple):
    """One backlog written down."""

    events: int
    seconds: float
    cpu_s: dict[str, float]

    def cpu_us(self, part: str) -> float:
        """CPU of one event."""
        return self.cpu_s[part] * 1e6 / self.events


def run(sizes: Sizes) -> Table:
    """Drains a stream that was filled before, then lets k6 produce."""
    with new_system() as system:
        drain = _drain(system, sizes.events)
        url = system.start_api()
        load = run_k6("orders", url, sizes, CANCEL_SHARE)
        lag = system.lag_events()
    rate, produced = drain.events / drain.seconds, load.requests_per_s
    used = {part: f"{drain.cpu_us(part):.0f}" for part in ("persister", "postgres", "redis")}
    return Table(
        f"persister: a backlog of {sizes.events:,} events against {sizes.seconds} s of k6",
        ("events/s", "drained", "over HTTP", "ratio"),
        [
            ("", f"{rate:,.0f}", f"{produced:,.0f}", f"{rate / produced:.2f}"),
            *((f"CPU µs an event: {part}", us, "", "") for part, us in used.items()),
            ("events behind when the load ends", "", f"{lag:,}", ""),
        ],
        [Bound("drained / produced", rate / produced, RATIO_MIN, is_floor=True)],
    )


def _drain(system: System, events: int) -> Drain:
    """From the persister's first commit to its last."""
    _fill(system.client, events)
    system.start_persister()
    wait_for(lambda: system.lag_events() < events, DRAIN_TIMEOUT_S)
    started, first, before = monotonic(), system.lag_events(), system.cpu_s()
    wait_for(lambda: system.lag_events() == 0, DRAIN_TIMEOUT_S)
    seconds, after = monotonic() - started, system.cpu_s()
    return Drain(first, seconds, {part: after[part] - before[part] for part in after})


def _fill(client: "Redis", events: int) -> None:
    """The standard mix, after the orders that it begins with."""
    book = UntrimmedBook(client, SYMBOL, Orders(SEED), events // 5)
    mix, left = Mix(book), events - events // 5
    while left > 0:
        mix.measure(min(CHUNK, left))
        left -= CHUNK
