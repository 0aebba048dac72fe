"""The supervisor's rules, proved with children that are a line of Python."""

from __future__ import annotations

import os
import signal
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from app.config import ConfigurationError
from app.embedded.lock import DataDirLock, is_held
from app.embedded.process import ChildProcess, EmbeddedServerError
from app.embedded.supervisor import (
    RESTART_DELAY_MAX_S,
    RESTART_DELAY_MIN_S,
    StopRequested,
    Supervisor,
)

TIMEOUT_S = 10.0


class Child(ChildProcess):
    """Runs `code`; ready once the file `ready` exists (or at once without one)."""

    def __init__(self, name: str, code: str, ready: Path | None = None) -> None:
        super().__init__()
        self.name = name
        self.code = code
        self.ready = ready
        self.stopped_at = 0.0

    def command(self) -> list[str]:
        return [sys.executable, "-S", "-c", self.code]

    def probe(self) -> bool:
        return self.exit_code() is None and (self.ready is None or self.ready.exists())

    def stop(self) -> None:
        super().stop()
        self.stopped_at = time.monotonic()


FOREVER = "import signal; signal.pause()"


def is_running(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


@pytest.fixture
def supervisor() -> Iterator[Supervisor]:
    with Supervisor() as supervisor:
        yield supervisor


def test_a_dead_child_comes_back(supervisor: Supervisor) -> None:
    child = Child("child", FOREVER)
    supervisor.start(child)
    first = child.pid
    assert first is not None
    os.kill(first, signal.SIGKILL)
    assert supervisor.wait_for(lambda: child.pid != first and child.probe(), TIMEOUT_S)


def test_a_child_that_keeps_dying_is_restarted_ever_more_slowly(
    supervisor: Supervisor, tmp_path: Path
) -> None:
    starts = tmp_path / "starts"
    child = Child("child", f"open({str(starts)!r}, 'a').write('x')", tmp_path / "never")
    child.start_attempts = 1_000
    with pytest.raises(EmbeddedServerError, match=r"child was not ready after 2 s"):
        supervisor.start(child, timeout_s=2.0)
    delays = [RESTART_DELAY_MIN_S * 2**number for number in range(10)]
    most = 2 + sum(sum(delays[:count]) < 2.0 for count in range(1, 10))
    assert 2 <= len(starts.read_text()) <= most
    assert RESTART_DELAY_MAX_S > RESTART_DELAY_MIN_S


def test_a_child_that_ends_while_starting_is_given_up_with_its_last_words(
    supervisor: Supervisor, tmp_path: Path
) -> None:
    child = Child("child", "import sys; sys.exit('no such thing')", tmp_path / "never")
    child.log_file = tmp_path / "log"
    with pytest.raises(EmbeddedServerError) as caught:
        supervisor.start(child)
    first, *rest = str(caught.value).splitlines()
    assert first == "child ended with exit code 1 while starting"
    assert [line.strip() for line in rest] == ["no such thing"]


def test_a_program_that_does_not_exist_is_one_line(supervisor: Supervisor) -> None:
    child = Child("child", FOREVER)
    child.command = lambda: ["/does/not/exist"]  # type: ignore[method-assign]
    with pytest.raises(EmbeddedServerError, match=r"^child cannot be started: .*exist[^\n]*$"):
        supervisor.start(child)


def test_children_stop_in_reverse_order_and_are_gone() -> None:
    children = [Child(name, FOREVER) for name in ("redis", "postgres", "api")]
    with Supervisor() as supervisor:
        for child in children:
            supervisor.start(child)
        pids = [child.pid for child in children]
    stopped = sorted(children, key=lambda child: child.stopped_at)
    assert [child.name for child in stopped] == ["api", "postgres", "redis"]
    assert [pid for pid in pids if pid is not None and is_running(pid)] == []


def test_a_child_that_ignores_the_polite_signal_is_killed_with_its_workers(tmp_path: Path) -> None:
    note = tmp_path / "pid"
    code = (
        "import os, signal, pathlib\n"
        "signal.signal(signal.SIGTERM, signal.SIG_IGN)\n"
        "pid = os.fork()\n"
        f"pid and pathlib.Path({str(note)!r}).write_text(str(pid))\n"
        "while True: signal.pause()"
    )
    child = Child("stubborn", code, note)
    child.stop_steps = ((signal.SIGTERM, 0.1), (signal.SIGKILL, 5.0))
    with Supervisor() as supervisor:
        supervisor.start(child)
        assert supervisor.wait_for(lambda: note.read_text() != "", TIMEOUT_S)
        worker = int(note.read_text())
    deadline = time.monotonic() + TIMEOUT_S
    while Path(f"/proc/{worker}/cmdline").exists() and Path(f"/proc/{worker}/cmdline").read_text():
        assert time.monotonic() < deadline, "the worker lives on"


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_ends_the_watch(supervisor: Supervisor, number: signal.Signals) -> None:
    supervisor.start(Child("child", FOREVER))
    os.kill(os.getpid(), number)
    with pytest.raises(StopRequested):
        supervisor.watch()


def test_the_signal_handlers_of_before_come_back() -> None:
    before = [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)]
    with Supervisor():
        pass
    assert [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)] == before


def test_a_data_folder_has_one_supervisor(tmp_path: Path) -> None:
    folder = tmp_path / "data"
    assert not is_held(folder)
    with DataDirLock(folder):
        assert is_held(folder)
        with pytest.raises(ConfigurationError, match=rf"in use by another .*pid {os.getpid()}"):
            DataDirLock(folder).__enter__()
    assert not is_held(folder)
    with DataDirLock(folder):
        assert is_held(folder)


def test_a_data_folder_that_cannot_be_made_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(ConfigurationError, match=r"^DATA_DIR=.* cannot be used: [^\n]+$"):
        DataDirLock(tmp_path / "file" / "data").__enter__()
