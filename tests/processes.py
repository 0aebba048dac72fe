"""Processes of this machine, by their ids, as /proc tells."""

import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from tests.waiting import wait_for


def is_running(pid: int) -> bool:
    """True for a live process; one that has ended and waits for its parent does not count."""
    return _state(pid) not in ("Z", "")


def children_of(pid: int) -> list[int]:
    """Processes whose parent is `pid`, whichever of its threads made them."""
    tasks = Path(f"/proc/{pid}/task").glob("*/children")
    return [int(child) for task in tasks for child in _text(task).split()]


def stand_still(pid: int) -> None:
    """Returns once the process does nothing more, until it gets a SIGCONT."""
    os.kill(pid, signal.SIGSTOP)
    wait_for(lambda: _state(pid) in ("T", "Z", ""))


@contextmanager
def standing_still(pid: int) -> Iterator[None]:
    """Neither `pid` nor its children do anything, as on a machine that hangs; their sockets stay
    open. Those that end meanwhile are let go.
    """
    stopped: list[int] = []
    try:
        # The parent first: it has no further children then.
        _stop(pid, stopped)
        for child in children_of(pid):
            _stop(child, stopped)
        yield
    finally:
        for one in stopped:
            if is_running(one):
                os.kill(one, signal.SIGCONT)


def _stop(pid: int, stopped: list[int]) -> None:
    with suppress(ProcessLookupError):  # it has just ended by itself
        stopped.append(pid)
        stand_still(pid)


def _state(pid: int) -> str:
    """The letter that ps shows; empty for a process that is no more."""
    _, _, told = _text(Path(f"/proc/{pid}/stat")).rpartition(")")
    return told.split()[0] if told else ""


def _text(path: Path) -> str:
    try:
        return path.read_text()
    except (FileNotFoundError, ProcessLookupError):
        return ""
