"""Faults in random order under load: a shuffled deck of kills and hangs, dealt to a running system
while traders trade, and the time that each took from them.
"""

import os
import random
import signal
import threading
import time
from bisect import bisect_left
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from statistics import median
from typing import Final

import psycopg
import redis

from tests.commands import limit
from tests.flow import Told, Trader
from tests.linear import is_accepted
from tests.processes import children_of, is_running
from tests.system import System
from tests.waiting import wait_for

KILLS: Final = {
    "kill -9 a worker": 30,
    "kill -9 Redis": 22,
    "kill -9 Redis while it rewrites its file": 8,
    "kill -9 the persister": 18,
    "kill -9 Postgres": 15,
    "kill -9 gunicorn's master": 7,
}
"""How many of a hundred kills are of which kind."""
HANGS: Final = {
    "SIGSTOP Redis": 5,
    "SIGSTOP a worker": 5,
    "SIGSTOP gunicorn, all of it": 3,
    "SIGSTOP the persister": 3,
    "SIGSTOP Postgres": 3,
    "a table locked in Postgres": 3,
}
"""What comes on top of a hundred kills, and passes by itself."""
VICTIMS: Final = {
    "Redis": "redis",
    "the persister": "persist",
    "Postgres": "postgres",
    "gunicorn's master": "serve",
    "gunicorn, all of it": "serve",
}
HANG_S: Final = (0.1, 1.5)
AT_ONCE_SHARE: Final = 0.2
"""How many faults do not wait until orders are accepted again after the one before."""
PAUSE_S_MAX: Final = 0.25
REWRITE_S_MAX: Final = 0.05
"""A rewrite of a small book takes about that long: the kill falls somewhere into it."""
PULSE_S: Final = 0.01
"""Between two orders of those that measure."""
PULSE_TICKS: Final = 1
"""Far below what anybody offers."""
ACCEPTED_WITHIN_S: Final = 30.0
"""After any fault; longer is a failure."""


@dataclass
class Fault:
    """What was done, and when; monotonic seconds."""

    kind: str
    at: float
    until: float = 0.0
    """When the next one came, or the last was over."""
    is_alone: bool = True


def deck(rng: random.Random, kills: int) -> list[str]:
    """So many kills, and the hangs that go with them, in random order."""
    kinds = [*_share(KILLS, kills)]
    kinds += _share(HANGS, round(kills * sum(HANGS.values()) / 100))
    rng.shuffle(kinds)
    return kinds


def _share(weights: dict[str, int], count: int) -> list[str]:
    """`count` of them, each as often as its weight says, rounded."""
    total, dealt = sum(weights.values()), 0
    kinds: list[str] = []
    for kind, weight in weights.items():
        dealt += weight
        kinds += [kind] * (round(count * dealt / total) - len(kinds))
    return kinds


@dataclass
class Storm:
    """Deals faults to a system. `has_accepted_since` tells whether an order that was sent after a
    moment has been accepted, on every instrument.
    """

    system: System
    rng: random.Random
    has_accepted_since: Callable[[float], bool]
    every_s: float = 0.0
    """At most one fault in so long."""
    faults: list[Fault] = field(default_factory=list)
    _passing: list[threading.Thread] = field(default_factory=list)
    _awaited: Callable[[], bool] = lambda: True
    """Whether who was killed last has a successor."""

    def deal(self, kinds: Iterable[str]) -> None:
        """One after the other, some before the one before is over."""
        is_over = True
        for kind in kinds:
            is_alone, is_over = is_over, self.rng.random() >= AT_ONCE_SHARE
            self.strike(kind)
            self.faults[-1].is_alone = is_alone and is_over
            if is_over:
                self._await_passing()
                self._await_orders()
            pause_s = self.rng.uniform(0, PAUSE_S_MAX)
            left_s = self.faults[-1].at + self.every_s * self.rng.uniform(0.5, 1.5)
            time.sleep(max(pause_s, left_s - time.monotonic()))
            self.faults[-1].until = time.monotonic()
        self._await_passing()
        self._await_orders()

    @property
    def kills(self) -> int:
        """How many processes were killed."""
        return sum(fault.kind.startswith("kill") for fault in self.faults)

    def around(self, at: float) -> str:
        """What was done about that time, for messages."""
        near = [each for each in self.faults if at - 2 < each.at < at + ACCEPTED_WITHIN_S]
        return "\n".join(f"{each.at - at:+.2f} s {each.kind}" for each in near)

    def strike(self, kind: str) -> None:
        """One fault, as soon as its victim is there. The same choices whatever the timing."""
        moment = self.rng.random()
        if kind == "kill -9 Redis while it rewrites its file":
            self._rewrite()
            time.sleep(moment * REWRITE_S_MAX)
            self._kill(kind, lambda: self.system.pid("redis"))
        elif kind == "a table locked in Postgres":
            self._begin(kind, self._locked, moment)
        elif kind.startswith("kill -9"):
            self._kill(kind, lambda: self._victim(kind.removeprefix("kill -9 "), moment))
        else:
            self._begin(kind, self._hanging, moment)

    def _victim(self, name: str, moment: float) -> int:
        if name != "a worker":
            return self.system.pid(VICTIMS[name])
        workers: list[int] = []

        def are_there() -> bool:
            workers[:] = sorted(children_of(self.system.pid("serve")))
            return bool(workers)

        wait_for(are_there)
        return workers[int(moment * len(workers))]

    def _kill(self, kind: str, victim: Callable[[], int]) -> None:
        while True:
            pid = victim()
            at = time.monotonic()
            with suppress(ProcessLookupError):  # it has just ended of another fault
                os.kill(pid, signal.SIGKILL)
                break
        self.faults.append(Fault(kind, at))
        wait_for(lambda: not is_running(pid))
        self._awaited = lambda: victim() != pid

    def _rewrite(self) -> None:
        """Where Redis is back; else its file is simply not rewritten this time."""
        with suppress(redis.RedisError):
            self.system.redis.bgrewriteaof()

    def _begin(self, kind: str, fault: Callable[[str, float], object], moment: float) -> None:
        thread = threading.Thread(target=fault, args=(kind, moment))
        self.faults.append(Fault(kind, time.monotonic()))
        thread.start()
        self._awaited = lambda: True
        self._passing.append(thread)

    def _hanging(self, kind: str, moment: float) -> None:
        name = kind.removeprefix("SIGSTOP ")
        pid = self._victim(name, moment)
        pids = [pid] if name == "a worker" else [pid, *children_of(pid)]
        _signal(pids, signal.SIGSTOP)
        time.sleep(_between(HANG_S, moment))
        _signal(pids, signal.SIGCONT)

    def _locked(self, kind: str, moment: float) -> None:
        """Whoever writes or reads events waits; if Postgres is away, so is the lock."""
        with suppress(psycopg.Error), self.system.postgres() as connection:
            connection.execute("LOCK TABLE events IN ACCESS EXCLUSIVE MODE")
            time.sleep(_between(HANG_S, moment))

    def _await_passing(self) -> None:
        """Returns when nothing hangs any more."""
        while self._passing:
            self._passing.pop().join()

    def _await_orders(self) -> None:
        """Returns once who was killed is replaced, and orders that are sent then are accepted."""
        wait_for(self._awaited, ACCEPTED_WITHIN_S)
        at = time.monotonic()
        wait_for(lambda: self.has_accepted_since(at), ACCEPTED_WITHIN_S)


def _signal(pids: Iterable[int], number: signal.Signals) -> None:
    for pid in pids:
        with suppress(ProcessLookupError):
            os.kill(pid, number)


def _between(bounds: tuple[float, float], share: float) -> float:
    return bounds[0] + share * (bounds[1] - bounds[0])


# What it took


class Pulse(Trader):
    """Asks without a pause for an order that neither trades nor rests: what tells whether orders
    are accepted.
    """

    def step(self) -> None:
        """See `Trader`."""
        self._count += 1
        name = f"{self.name}-{self._count}"
        order = replace(limit(self.name, "buy", PULSE_TICKS, 1), time_in_force="ioc")
        order = replace(order, client_order_id=name, idempotency_key=name)
        self._note(self._carry_through(order))
        time.sleep(max(PULSE_S, self.pause_s))

    def accepted(self) -> list[Told]:
        """Its orders that were accepted, in order."""
        return [one for one in self.outcomes if isinstance(one, Told) and is_accepted(one)]


def without_orders(fault: Fault, accepted: Sequence[Told]) -> float:
    """The longest time in seconds without an accepted order from the fault to the next, and beyond
    it where it lasts longer. Orders that were sent before the fault do not count.
    """
    last, longest = fault.at, 0.0
    for n in range(
        bisect_left(accepted, fault.at, key=lambda one: one.last_sent_at), len(accepted)
    ):
        longest = max(longest, accepted[n].received_at - last)
        last = accepted[n].received_at
        if last > fault.until:
            return longest
    raise AssertionError(f"no order was accepted after {fault}")


def table(faults: Sequence[Fault], pulses: Sequence[Pulse], lost: int) -> str:
    """As Markdown: how often what was done, and what it took. Of faults that came together with
    others only the last line tells.
    """
    took: dict[str, list[float]] = defaultdict(list)
    together: list[float] = []
    accepted = [pulse.accepted() for pulse in pulses]
    for fault in faults:
        seconds = max(without_orders(fault, each) for each in accepted)
        (took[fault.kind] if fault.is_alone else together).append(seconds)
    counts = Counter(fault.kind for fault in faults)
    lines = [
        "| fault | times | acknowledged, then lost | no order accepted for: median | worst |",
        "|---|---|---|---|---|",
    ]
    for kind in (*KILLS, *HANGS):
        if seconds_of := took[kind]:
            figures = f"{median(seconds_of):.2f} s | {max(seconds_of):.2f} s"
            lines.append(f"| {kind} | {counts[kind]} | {lost} | {figures} |")
    if together:
        figures = f"{median(together):.2f} s | {max(together):.2f} s"
        lines.append(f"| of these, several at once | {len(together)} | {lost} | {figures} |")
    return "\n".join(lines)
