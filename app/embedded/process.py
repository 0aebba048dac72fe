"""The life of one child process: start, ready, stop, and never outlive us.
Must not know which server it is: subclasses say what to run and how to tell that it is ready.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import signal
import subprocess
import sys
import time
from abc import ABC, abstractmethod
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

PROBE_INTERVAL_S: Final = 0.02
READY_TIMEOUT_S: Final = 60.0
LAST_LINES: Final = 5
LOG_BYTES_MAX: Final = 8 * 1024 * 1024
# How long a server whose parent was killed gets to finish its own shutdown before we give up.
PREDECESSOR_TIMEOUT_S: Final = 20.0
PR_SET_PDEATHSIG: Final = 1

# Loaded here, not in the child between fork and exec, where allocating could deadlock.
_LIBC: Final = ctypes.CDLL(None, use_errno=True) if sys.platform == "linux" else None

StopStep = tuple[signal.Signals, float]


class EmbeddedServerError(Exception):
    """A server could not be found, started or stopped. The first line of its text says it all, the
    server's own last log lines may follow.
    """


class ChildProcess(ABC):
    """A process that we started and that ends with us at the latest."""

    name: str
    # Signals in the order in which they are tried, each with the seconds that it gets.
    stop_steps: tuple[StopStep, ...] = ((signal.SIGTERM, 10.0), (signal.SIGKILL, 5.0))
    # How often the first start may fail before it counts as hopeless.
    start_attempts: int = 1

    def __init__(self) -> None:
        self.process: subprocess.Popen[bytes] | None = None
        self.log_file: Path | None = None

    @abstractmethod
    def command(self) -> Sequence[str | Path]:
        """The argument vector; called at each start."""

    @abstractmethod
    def probe(self) -> bool:
        """True once the process does its work; one quick attempt, no waiting."""

    def prepare(self) -> None:  # noqa: B027  # optional, unlike command and probe
        """Whatever must be in place before each start."""

    def environment(self) -> Mapping[str, str] | None:
        """The child's environment; None inherits ours."""
        return None

    def popen_options(self) -> dict[str, Any]:
        """More arguments for Popen."""
        return {}

    @property
    def pid(self) -> int | None:
        """Process id while there is one."""
        return self.process.pid if self.process else None

    def exit_code(self) -> int | None:
        """None while running or before the first start; negative for a signal."""
        return self.process.poll() if self.process else None

    def start(self) -> None:
        """Start and return at once. Call it from a thread that lives as long as the child should:
        the kernel ends the child with the thread that made it. Raises EmbeddedServerError.
        """
        assert self.exit_code() is not None or self.process is None, f"{self.name} is running"
        self._sweep_group()
        try:
            self.prepare()
            with contextlib.ExitStack() as files:
                log = files.enter_context(_open_log(self.log_file)) if self.log_file else None
                self.process = self._spawn([str(part) for part in self.command()], log)
        except (OSError, subprocess.SubprocessError) as error:
            raise EmbeddedServerError(f"{self.name} cannot be started: {error}") from error

    def _spawn(self, command: list[str], log: IO[bytes] | None) -> subprocess.Popen[bytes]:
        return subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            env=self.environment(),
            # Away from the terminal's process group: Ctrl-C is for the supervisor, which then
            # stops its children in the right order.
            start_new_session=True,
            # Nothing between fork and exec but two system calls, so threads of ours do no harm.
            preexec_fn=_ends_with_parent(self.stop_steps[0][0]),  # noqa: PLW1509
            **self.popen_options(),
        )

    def wait_ready(self, timeout_s: float = READY_TIMEOUT_S) -> None:
        """Return once `probe` succeeds. Raises EmbeddedServerError if the process ends first or
        the time is over.
        """
        deadline = time.monotonic() + timeout_s
        while not self.probe():
            if self.exit_code() is not None:
                raise self.failure(f"ended with {describe_exit(self.exit_code())} while starting")
            if time.monotonic() > deadline:
                raise self.failure(f"was not ready after {timeout_s:g} s")
            time.sleep(PROBE_INTERVAL_S)

    def failure(self, what: str) -> EmbeddedServerError:
        """The error that says `what` happened, with the last lines of the log."""
        return EmbeddedServerError("\n    ".join([f"{self.name} {what}", *self.last_lines()]))

    def last_lines(self) -> list[str]:
        """The end of the server's log, for people."""
        if self.log_file is None or not self.log_file.exists():
            return []
        text = self.log_file.read_text(encoding="utf-8", errors="replace")
        return [line for line in text.splitlines() if line.strip()][-LAST_LINES:]

    def stop(self) -> None:
        """Ask politely, then less so, and wait until it is gone. Does nothing when not running."""
        for number, timeout_s in self.stop_steps:
            if self.exit_code() is not None or self.process is None:
                break
            self.process.send_signal(number)
            with contextlib.suppress(subprocess.TimeoutExpired):
                self.process.wait(timeout_s)
        self._sweep_group()
        self.process = None

    def _sweep_group(self) -> None:
        # Workers of a killed master and forks of a killed server must not meet their successors.
        if self.process is not None and self.exit_code() is not None:
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.killpg(self.process.pid, signal.SIGKILL)


def describe_exit(code: int | None) -> str:
    """`exit code 3` or `SIGKILL`."""
    if code is not None and code < 0:
        with contextlib.suppress(ValueError):
            return signal.Signals(-code).name
    return f"exit code {code}"


def await_predecessors(folder: Path, program_names: tuple[str, ...], timeout_s: float) -> None:
    """Wait for servers of an earlier run that still shut down in `folder`. Two servers on the same
    files would ruin them, and neither Redis nor a reused process id would notice.
    Raises EmbeddedServerError naming the one that does not go.
    """
    deadline = time.monotonic() + timeout_s
    while working := _working_in(folder, program_names):
        if time.monotonic() > deadline:
            raise EmbeddedServerError(
                f"{program_names[0]} with pid {working[0]} is still running on {folder}; end it"
            )
        time.sleep(PROBE_INTERVAL_S)


def _working_in(folder: Path, program_names: tuple[str, ...]) -> list[int]:
    # Servers make their data folder the working directory, on Linux a process id tells which.
    target = folder.resolve()
    return [
        int(entry.name)
        for entry in Path("/proc").glob("[0-9]*")
        if _works_in(entry, target, program_names)
    ]


def _works_in(entry: Path, folder: Path, program_names: tuple[str, ...]) -> bool:
    try:
        name = (entry / "comm").read_text(encoding="utf-8", errors="replace").strip()
        return name.startswith(program_names) and (entry / "cwd").readlink() == folder
    except OSError:  # ended meanwhile, or somebody else's
        return False


def _ends_with_parent(number: signal.Signals) -> Callable[[], None] | None:
    # Why not a launcher or a pipe to watch: PR_SET_PDEATHSIG needs no cooperation from the server,
    # works through exec and kill -9, and costs nothing while all is well. It is set in the child
    # after the change of user, which would clear it. Elsewhere than on Linux a kill -9 of us leaks.
    if _LIBC is None:
        return None
    prctl, parent = _LIBC.prctl, os.getpid()

    def in_child() -> None:
        prctl(PR_SET_PDEATHSIG, int(number))
        if os.getppid() != parent:  # killed between fork and prctl
            os._exit(1)

    return in_child


def _open_log(path: Path) -> IO[bytes]:
    if path.exists() and path.stat().st_size > LOG_BYTES_MAX:
        path.replace(path.with_name(path.name + ".1"))
    return path.open("ab")
