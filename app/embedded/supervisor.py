"""Starts children in order, each when the one before is ready, restarts those that die, and stops
all in reverse. Must not know what the children are, beyond what ChildProcess says.
"""

from __future__ import annotations

import logging
import select
import signal
import socket
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final, NoReturn, Self

from app.embedded.process import (
    READY_TIMEOUT_S,
    ChildProcess,
    EmbeddedServerError,
    describe_exit,
)

if TYPE_CHECKING:
    from collections.abc import Callable

log: Final = logging.getLogger(__name__)

# The first restart comes almost at once: most deaths are accidents. Then ever slower, so that a
# child that cannot live does not keep the machine busy, yet comes back soon after its cause ends.
RESTART_DELAY_MIN_S: Final = 0.1
RESTART_DELAY_MAX_S: Final = 5.0
# Ready for this long, a child has earned a quick restart again.
STABLE_AFTER_S: Final = 10.0
# How often children that start are asked; nothing is asked while all are ready.
PROBE_INTERVAL_S: Final = 0.05
IDLE_INTERVAL_S: Final = 1.0
STOP_SIGNALS: Final = (signal.SIGINT, signal.SIGTERM)


class StopRequested(Exception):
    """Somebody asked us to end while we waited for something."""


@dataclass(slots=True)
class _Charge:
    """A child and what we remember of it. Times are monotonic seconds."""

    child: ChildProcess
    is_ready: bool = False
    was_ready: bool = False
    ready_at: float = 0.0
    failed_starts: int = 0
    delay_s: float = RESTART_DELAY_MIN_S
    restart_at: float | None = None


@dataclass(slots=True)
class Supervisor:
    """Use as a context manager, in the main thread: it takes the signals SIGINT, SIGTERM, SIGCHLD,
    and leaving it stops every child, last started first.
    """

    _charges: list[_Charge] = field(default_factory=list)
    _stop_requested: bool = False
    _wakeup: tuple[socket.socket, socket.socket] = field(default_factory=socket.socketpair)
    _handlers: dict[signal.Signals, Any] = field(default_factory=dict)

    def __enter__(self) -> Self:
        """From here on, signals are requests to this object."""
        for end in self._wakeup:
            end.settimeout(0)
        signal.set_wakeup_fd(self._wakeup[1].fileno(), warn_on_full_buffer=False)
        for number in STOP_SIGNALS:
            self._handlers[number] = signal.signal(number, lambda *_: self.request_stop())
        # Python writes to the wake-up socket only for signals that have a handler.
        self._handlers[signal.SIGCHLD] = signal.signal(signal.SIGCHLD, lambda *_: None)
        return self

    def __exit__(self, *_: object) -> None:
        """An orderly stop. Further signals are taken and ignored: every wait here has its end."""
        self.stop()
        signal.set_wakeup_fd(-1)
        for number, handler in self._handlers.items():
            signal.signal(number, handler)
        for end in self._wakeup:
            end.close()

    def start(self, child: ChildProcess, timeout_s: float = READY_TIMEOUT_S) -> None:
        """Start `child` and return when it is ready, looking after the others meanwhile.
        Raises EmbeddedServerError if it never is, StopRequested if we are told to end first.
        """
        charge = _Charge(child)
        self._charges.append(charge)
        child.start()
        deadline = time.monotonic() + timeout_s
        while not charge.is_ready:
            self._tick()
            if time.monotonic() > deadline:
                raise child.failure(f"was not ready after {timeout_s:g} s")

    def watch(self) -> NoReturn:
        """Look after the children until told to end, which raises StopRequested."""
        while True:
            self._tick()

    def wait_for(self, condition: Callable[[], bool], timeout_s: float) -> bool:
        """Look after the children until `condition` holds; False if the time is over first."""
        deadline = time.monotonic() + timeout_s
        while not condition():
            if time.monotonic() > deadline:
                return False
            self._tick(PROBE_INTERVAL_S)
        return True

    def request_stop(self) -> None:
        """What SIGINT and SIGTERM do."""
        self._stop_requested = True

    def stop(self) -> None:
        """Stop all children, last started first."""
        for charge in reversed(self._charges):
            if charge.child.process is not None:
                log.info("stopping %s", charge.child.name)
                charge.child.stop()
        self._charges.clear()

    def _tick(self, wait_max_s: float = IDLE_INTERVAL_S) -> None:
        all_ready = all(charge.is_ready for charge in self._charges)
        self._sleep(wait_max_s if all_ready else PROBE_INTERVAL_S)
        if self._stop_requested:
            raise StopRequested
        for charge in self._charges:
            self._look_after(charge)

    def _sleep(self, timeout_s: float) -> None:
        # A signal, also that of a child's death, ends the wait at once.
        readable, _, _ = select.select([self._wakeup[0]], [], [], timeout_s)
        if readable:
            self._wakeup[0].recv(4096)

    def _look_after(self, charge: _Charge) -> None:
        if charge.restart_at is not None:
            if time.monotonic() >= charge.restart_at:
                self._restart(charge)
        elif charge.child.exit_code() is not None:
            self._on_death(charge, describe_exit(charge.child.exit_code()))
        elif not charge.is_ready:
            self._ask(charge)
        elif time.monotonic() - charge.ready_at > STABLE_AFTER_S:
            charge.delay_s = RESTART_DELAY_MIN_S

    def _ask(self, charge: _Charge) -> None:
        if charge.child.probe():
            log.info("%s is ready (pid %s)", charge.child.name, charge.child.pid)
            charge.is_ready = charge.was_ready = True
            charge.ready_at = time.monotonic()

    def _on_death(self, charge: _Charge, how: str) -> None:
        charge.failed_starts += 1
        if not charge.was_ready and charge.failed_starts >= charge.child.start_attempts:
            raise charge.child.failure(f"ended with {how} while starting")
        log.warning("%s ended with %s, restart in %g s", charge.child.name, how, charge.delay_s)
        charge.is_ready = False
        charge.restart_at = time.monotonic() + charge.delay_s
        charge.delay_s = min(charge.delay_s * 2, RESTART_DELAY_MAX_S)

    def _restart(self, charge: _Charge) -> None:
        charge.restart_at = None
        try:
            charge.child.start()
        except EmbeddedServerError as error:
            self._on_death(charge, str(error))
