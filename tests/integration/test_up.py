"""`python -m app up` as a person runs it: one line for what is wrong, ready when it says so, every
part back after kill -9, everything gone after Ctrl-C, the data still there the next time.
"""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from tests.free_ports import free_port, remember_free_ports
from tests.processes import is_running
from tests.waiting import wait_for

ROOT = Path(__file__).resolve().parents[2]
TIMEOUT_S = 60.0
ANSWER_S = 20.0
"""How long an answer may take on a busy machine."""
PARTS = {
    "redis-server": "redis",
    "valkey-server": "redis",
    "/postgres": "postgres",
    "app persist": "persist",
    "gunicorn": "serve",
}


class Up:
    """A running `up` and what it printed so far."""

    def __init__(self, data_dir: Path, port: int) -> None:
        self.url = f"http://127.0.0.1:{port}"
        self.lines: list[str] = []
        self.process = subprocess.Popen(
            [sys.executable, "-m", "app", "up"],
            cwd=ROOT,
            env=environment(data_dir, port),
            stdout=subprocess.PIPE,
            text=True,
        )
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def _read(self) -> None:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            self.lines.append(line.rstrip("\n"))

    def await_ready(self) -> None:
        wait_for(lambda: "Crossbook is ready" in self.lines or self.process.poll() is not None)
        assert self.process.poll() is None, "it ended"

    def answers(self) -> bool:
        try:
            with urllib.request.urlopen(f"{self.url}/readyz", timeout=ANSWER_S) as response:
                return bool(response.status == 200)
        except OSError:
            return False

    def parts(self) -> dict[str, int]:
        """Pids of the children, by part."""
        pid = self.process.pid
        children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
        named = {part_of(int(child)): int(child) for child in children}
        return {name: child for name, child in named.items() if name}

    def end(self, number: signal.Signals) -> int:
        self.process.send_signal(number)
        code = self.process.wait(TIMEOUT_S)
        self._reader.join(TIMEOUT_S)
        return code


def environment(data_dir: Path, port: int) -> dict[str, str]:
    inherited = {name: os.environ[name] for name in ("PATH", "HOME") if name in os.environ}
    own = {"DATA_DIR": str(data_dir), "PORT": str(port), "WEB_CONCURRENCY": "1"}
    return inherited | own


def part_of(pid: int) -> str:
    try:
        command = Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode()
    except FileNotFoundError:
        return ""
    return next((part for text, part in PARTS.items() if text in command), "")


@pytest.fixture(scope="module")
def data_dir() -> Iterator[Path]:
    """Not below pytest's tmp_path, see test_embedded.py."""
    with tempfile.TemporaryDirectory(prefix="crossbook-") as folder:
        remember_free_ports(Path(folder))
        yield Path(folder)


@pytest.fixture
def start(data_dir: Path) -> Iterator[Callable[[], Up]]:
    started: list[Up] = []

    def start() -> Up:
        up = Up(data_dir, free_port())
        started.append(up)
        up.await_ready()
        return up

    yield start
    for up in started:
        if up.process.poll() is None:
            up.end(signal.SIGTERM)


def run_once(data_dir: Path, port: int, **environ: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "app", "up"],
        cwd=ROOT,
        env=environment(data_dir, port) | environ,
        capture_output=True,
        text=True,
        timeout=TIMEOUT_S,
        check=False,
    )


def test_it_says_where_everything_is_once_it_is_ready(start: Callable[[], Up]) -> None:
    up = start()
    assert up.answers()
    assert set(up.parts()) == {"redis", "postgres", "persist", "serve"}
    said = "\n".join(up.lines)
    for wanted in (f"{up.url}/orders", f"ws{up.url[4:]}/ws", "redis-cli", "psql", "postgresql://"):
        assert wanted in said


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_stop_is_clean_and_leaves_no_process(
    start: Callable[[], Up], number: signal.Signals
) -> None:
    up = start()
    pids = up.parts().values()
    assert up.end(number) == 0
    assert [pid for pid in pids if is_running(pid)] == []
    assert up.lines[-1] == "Crossbook has stopped, the data is kept"


def test_every_part_comes_back_after_kill_9(start: Callable[[], Up]) -> None:
    up = start()
    for part in ("serve", "persist", "postgres", "redis"):
        killed = up.parts()[part]
        os.kill(killed, signal.SIGKILL)
        wait_for(lambda part=part, killed=killed: up.parts().get(part, killed) != killed)
        wait_for(up.answers)


def test_kill_9_of_everything_at_once_is_no_obstacle_to_the_next_start(
    start: Callable[[], Up],
) -> None:
    up = start()
    pids = up.parts().values()
    for pid in (up.process.pid, *pids):
        with suppress(ProcessLookupError):  # it has just ended with `up`
            os.kill(pid, signal.SIGKILL)
    up.process.wait()
    assert start().answers()


def test_a_second_one_on_the_same_data_is_told_so(start: Callable[[], Up], data_dir: Path) -> None:
    up = start()
    second = run_once(data_dir, free_port())
    assert second.returncode == 2
    assert second.stderr.splitlines()[-1].startswith(f"crossbook: DATA_DIR={str(data_dir)!r} is in")
    assert str(up.process.pid) in second.stderr
    assert up.answers(), "the first does not notice"


def test_a_port_that_is_taken_is_told_before_anything_starts(
    tmp_path: Path,
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        answer = run_once(tmp_path, port)
    assert answer.returncode == 2
    assert len(answer.stderr.splitlines()) == 1
    assert f"PORT={port}" in answer.stderr
    assert sorted(path.name for path in tmp_path.iterdir()) == ["lock"]


@pytest.mark.parametrize(
    ("name", "value"), [("PORT", "http"), ("AUTH", "maybe"), ("HOST", "0.0.0.0")]
)
def test_a_setting_that_is_not_allowed_is_one_line(tmp_path: Path, name: str, value: str) -> None:
    answer = run_once(tmp_path, 1, **{name: value})
    assert answer.returncode == 2
    assert len(answer.stderr.splitlines()) == 1
    assert answer.stderr.startswith("crossbook: ")
    assert name in answer.stderr
    assert list(tmp_path.iterdir()) == []


def test_a_store_that_does_not_answer_is_named(tmp_path: Path) -> None:
    nowhere = f"redis://127.0.0.1:{free_port()}/0"
    answer = run_once(tmp_path, free_port(), REDIS_URL=nowhere)
    assert answer.returncode == 2
    assert answer.stderr.splitlines()[-1].startswith("crossbook: nothing answers at REDIS_URL")
