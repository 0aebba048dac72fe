"""What a system holds, sampled while it runs: memory and open files of its processes, connections
of Postgres, memory of Redis; and whether that has grown.
"""

import re
import time
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median
from typing import Any, Final

import psycopg
import redis

from tests.processes import children_of
from tests.system import System

MEGABYTE: Final = 1024 * 1024
NAMES: Final = {
    "persist": "persister",
    "gunicorn": "gunicorn",
    "redis-server": "Redis",
    "postgres": "Postgres",
}
"""What command lines contain, and who that is. Forks of Postgres are counted as one."""
GROWTH_MAX: Final = 1.15
"""How many times as much the last rounds may hold of anything as the first."""
SLACK: Final[Mapping[str, float]] = {
    "resident": 12.0,
    "open files": 8.0,
    "connections": 4.0,
    "Redis memory": 6.0,
}
"""What comes on top, in MB or pieces: a process of 30 MB may round its heap up."""


@dataclass(frozen=True, slots=True)
class Process:
    """One process at one moment."""

    role: str
    pid: int
    resident_mb: float
    files: int


@dataclass
class Sample:
    """Everything at one moment; what could not be asked just then is missing."""

    at: float
    processes: list[Process] = field(default_factory=list)
    figures: dict[str, float] = field(default_factory=dict)


def sample(system: System) -> Sample:
    """Now."""
    taken = Sample(time.monotonic())
    for pid in system.pids():
        with suppress(OSError, IndexError, AttributeError):
            taken.processes.append(_process(system, pid))
    with suppress(redis.RedisError):
        told: Any = system.redis.info("memory")
        taken.figures["Redis memory"] = told["used_memory"] / MEGABYTE
    with suppress(psycopg.Error):
        count = system.rows("SELECT count(*) FROM pg_stat_activity WHERE datname IS NOT NULL")
        taken.figures["connections of Postgres"] = count[0][0]
    by_role: dict[str, list[Process]] = defaultdict(list)
    for process in taken.processes:
        by_role[process.role].append(process)
    for role, processes in by_role.items():
        # The largest: how many forks there are just now says nothing of growth.
        taken.figures[f"resident MB of {role}"] = max(one.resident_mb for one in processes)
        taken.figures[f"open files of {role}"] = max(one.files for one in processes)
    return taken


def _process(system: System, pid: int) -> Process:
    command = Path(f"/proc/{pid}/cmdline").read_bytes().decode(errors="replace")
    role = next((name for text, name in NAMES.items() if text in command), "up")
    if role == "gunicorn":
        role = "a worker" if not children_of(pid) else "gunicorn's master"
    status = Path(f"/proc/{pid}/status").read_text()
    found = re.search(r"VmRSS:\s+(\d+) kB", status)
    assert found is not None
    files = len(list(Path(f"/proc/{pid}/fd").iterdir()))
    return Process(role, pid, int(found[1]) / 1024, files)


def limit_of(name: str, first: float) -> float:
    """What a figure that was `first` may have become."""
    slack = next(more for part, more in SLACK.items() if part in name)
    return first * GROWTH_MAX + slack


def compare(rounds: Sequence[Sample]) -> tuple[list[str], list[str]]:
    """Rows of a Markdown table, a third of the rounds at the beginning against one at the end; and
    what has grown beyond its limit. The very first round is for warming up.
    """
    share = max(1, (len(rounds) - 1) // 3)
    first, last = rounds[1 : 1 + share], rounds[-share:]
    rows, grown = [], []
    for name in sorted({name for one in rounds for name in one.figures}):
        before, after = _median(first, name), _median(last, name)
        if before is None or after is None:
            continue
        rows.append(f"| {name} | {before:.1f} | {after:.1f} |")
        if after > limit_of(name, before):
            grown.append(f"{name}: {before:.1f} became {after:.1f}")
    return rows, grown


def _median(samples: Iterable[Sample], name: str) -> float | None:
    told = [one.figures[name] for one in samples if name in one.figures]
    return median(told) if told else None


def grown_between(before: Sample, after: Sample) -> list[str]:
    """Processes that were there both times and have grown beyond the limit."""
    earlier = {process.pid: process for process in before.processes}
    grown = []
    for process in after.processes:
        first = earlier.get(process.pid)
        if first is None:
            continue
        if process.resident_mb > limit_of("resident", first.resident_mb):
            what = f"{first.resident_mb:.1f} MB became {process.resident_mb:.1f}"
            grown.append(f"{process.role} ({process.pid}): {what}")
        if process.files > limit_of("open files", first.files):
            grown.append(f"{process.role} ({process.pid}): {first.files} files, {process.files}")
    return grown
