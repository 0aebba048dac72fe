"""Order entry over HTTP against a Flask endpoint that does nothing, under the same gunicorn
settings and the same load, run by turns.
"""

from statistics import median
from typing import NamedTuple

from tests.benchmarks.load import Load, run_k6
from tests.benchmarks.sizes import Sizes
from tests.benchmarks.system import System, new_system
from tests.benchmarks.tables import Table
from tests.waiting import wait_for

TURNS = 3
DRAIN_TIMEOUT_S = 60.0


class Run(NamedTuple):
    """One run of the load, and the CPU time that each part took meanwhile."""

    load: Load
    cpu_s: dict[str, float]

    def cpu_us(self, part: str) -> float:
        """Of one request."""
        return self.cpu_s[part] * 1e6 / self.load.requests


def run(sizes: Sizes) -> Table:
    """Requests per second and CPU of POST /orders and of the endpoint that does nothing."""
    with new_system() as system:
        system.start_persister()
        api, noop = system.start_api(), system.start_noop()
        runs: dict[str, list[Run]] = {"orders": [], "noop": []}
        for _ in range(TURNS):
            runs["orders"].append(_run(system, "orders", api, sizes))
            runs["noop"].append(_run(system, "noop", noop, sizes))
    return Table(
        f"http: POST /orders against a no-op, {TURNS} x {sizes.seconds} s of {sizes.users} users",
        ("", "POST /orders", "no-op", "ratio"),
        _rates(runs) + _cpu(runs),
    )


def _run(system: System, script: str, url: str, sizes: Sizes) -> Run:
    before = system.cpu_s()
    load = run_k6(script, url, sizes)
    wait_for(lambda: system.lag_events() == 0, DRAIN_TIMEOUT_S)
    after = system.cpu_s()
    cpu_s = {part: after[part] - before[part] for part in after}
    return Run(load, cpu_s | {"k6": load.k6_cpu_s})


def _rates(runs: dict[str, list[Run]]) -> list[tuple[str, ...]]:
    loads = {script: [one.load for one in done] for script, done in runs.items()}
    return [
        _row("requests/s", *([one.requests_per_s for one in done] for done in loads.values())),
        _row("median ms", *([one.median_ms for one in done] for done in loads.values())),
        _row("p95 ms", *([one.p95_ms for one in done] for done in loads.values())),
    ]


def _cpu(runs: dict[str, list[Run]]) -> list[tuple[str, ...]]:
    """CPU tells the ratio even where others use the machine meanwhile."""

    def us(script: str, part: str) -> list[float]:
        return [one.cpu_us(part) for one in runs[script]]

    beside = ("redis", "persister", "postgres")
    return [
        _row("CPU µs a request: gunicorn", us("orders", "api"), us("noop", "noop")),
        *(
            (f"CPU µs a request: {part}", f"{median(us('orders', part)):.0f}", "", "")
            for part in beside
        ),
        _row("CPU µs a request: k6", us("orders", "k6"), us("noop", "k6")),
    ]


def _row(label: str, orders: list[float], noop: list[float]) -> tuple[str, ...]:
    """Medians, and the median of the ratios turn by turn."""
    ratio = median(a / b for a, b in zip(orders, noop, strict=True))
    return label, f"{median(orders):,.0f}", f"{median(noop):,.0f}", f"{ratio:.2f}"
