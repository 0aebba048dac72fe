"""One run of k6 as a benchmark sees it: figures of the load, and what CPU k6 itself took."""

import json
import os
import resource
import subprocess
import sys
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import NamedTuple

from tests.benchmarks.sizes import Sizes

K6 = Path(sys.executable).with_name("k6")
SCRIPTS = Path(__file__).resolve().parents[2] / "k6"
START_AND_STOP_S = 60
K6_ENVIRONMENT = {"K6_NO_USAGE_REPORT": "true", "GOMAXPROCS": "1", "GOGC": "400"}
"""k6 shares the machine with what it measures: on one thread it takes a third less CPU."""


class Load(NamedTuple):
    """What one run of a script did."""

    requests: int
    requests_per_s: float
    orders: int
    orders_per_s: float
    median_ms: float
    p95_ms: float
    failures: int
    k6_cpu_s: float


def run_k6(script: str, url: str, sizes: Sizes, cancel_share: float = 0.0) -> Load:
    """Run `k6/<script>.js` against `url`. Its thresholds do not count, but nothing may fail."""
    with TemporaryDirectory(prefix="crossbook-k6-") as folder:
        figures_file = Path(folder) / "figures.json"
        settings = {
            "BASE_URL": url,
            "USERS": str(sizes.users),
            "DURATION_S": str(sizes.seconds),
            "CANCEL_SHARE": str(cancel_share),
            "FIGURES_FILE": str(figures_file),
        } | K6_ENVIRONMENT
        before = _children_cpu_s()
        done = subprocess.run(
            [K6, "run", "--quiet", "--no-thresholds", SCRIPTS / f"{script}.js"],
            env=os.environ | settings,
            capture_output=True,
            text=True,
            timeout=sizes.seconds + START_AND_STOP_S,
            check=False,
        )
        assert done.returncode == 0, f"k6 failed: {done.stderr}"
        figures = json.loads(figures_file.read_text(encoding="utf-8"))
    figures["k6_cpu_s"] = _children_cpu_s() - before
    load = Load(**{name: figures[name] for name in Load._fields})
    assert load.failures == 0, f"{load.failures} requests failed: {done.stderr[:2000]}"
    return load


def _children_cpu_s() -> float:
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime
