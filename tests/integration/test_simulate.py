"""`python -m app simulate` against a running Crossbook: trades, outlives what is killed, and takes
its orders back when it is stopped.
"""

import re
import shlex
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

import pytest

from tests.free_ports import free_port
from tests.processes import children_of, is_running
from tests.rest import Json
from tests.system import ROOT, System, running_system
from tests.waiting import wait_for

SYMBOLS: Final = ("BTC-USD", "ETH-USD", "DOGE-USD")
END_TIMEOUT_S: Final = 40.0

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def system() -> Iterator[System]:
    """One of our own: parts of it are killed."""
    with running_system() as running:
        yield running


class Simulation:
    """A simulation that runs beside the test."""

    def __init__(self, process: "subprocess.Popen[bytes]", output: Path) -> None:
        self.process = process
        self._output = output

    def said(self) -> str:
        return self._output.read_text()

    def says_last(self, one: str, other: str) -> bool:
        """Whether it said `one` after whatever it said of `other`."""
        said = self.said()
        return said.rfind(one) > said.rfind(other)

    def end(self, by: signal.Signals = signal.SIGINT) -> int:
        """The exit code."""
        self.process.send_signal(by)
        return self.process.wait(END_TIMEOUT_S)


@contextmanager
def simulation(system: System, folder: Path, *arguments: str) -> Iterator[Simulation]:
    """Begun, and stopped at the end, whatever happens."""
    output = folder / "simulate.log"
    command = [sys.executable, "-m", "app", "simulate", *arguments]
    with output.open("wb") as file:
        process = subprocess.Popen(
            command, env=system.up.environment(), cwd=ROOT, stdout=file, stderr=file
        )
    try:
        yield Simulation(process, output)
    finally:
        process.kill()
        process.wait()


def open_orders(system: System) -> int:
    """Of everybody, on every instrument."""
    keys = system.redis.keys("*:owners")
    return sum(system.redis.zcard(key) for key in keys)  # type: ignore[union-attr,misc]


def newest_trade(system: System, symbol: str) -> int:
    """Its sequence; 0 where nothing has traded."""
    trades: list[Json] = system.api.found("/trades", instrument=symbol, limit=1)["trades"]
    return int(trades[0]["sequence"]) if trades else 0


def test_it_trades_on_several_instruments_and_leaves_nothing_behind(system: System) -> None:
    """Started as `up` says."""
    (line,) = re.findall(r"^ *traders  (.*)$", system.log(), re.MULTILINE)
    options = f" --seconds 3 --rate 200 --seed 7 --instruments {','.join(SYMBOLS)}"
    done = subprocess.run(
        shlex.split(line + options), cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert all(newest_trade(system, symbol) for symbol in SYMBOLS)
    assert newest_trade(system, "SOL-USD") == 0
    assert open_orders(system) == 0
    told = re.search(r"the end: ([\d,]+) orders, ([\d,]+) trades, ([\d,]+) refused", done.stdout)
    assert told, done
    orders, trades, refused = (int(number.replace(",", "")) for number in told.groups())
    assert 400 < orders < 1_500
    assert trades > 30
    assert refused < orders / 5
    system.settled()
    counts = system.rows(
        "SELECT count(DISTINCT client_id) FROM orders WHERE client_id LIKE 'sim7-%%'"
    )
    assert counts == [(11,)]


@pytest.mark.parametrize("by", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_ends_it_and_its_orders_are_taken_back(
    system: System, tmp_path: Path, by: signal.Signals
) -> None:
    mine = {"instrument": "BTC-USD", "client_id": "me", "side": "buy", "quantity": "1"}
    own = system.api.placed(mine | {"price": "1.00"})["order"]["order_id"]
    with simulation(system, tmp_path) as running:
        wait_for(lambda: open_orders(system) > 100)
        assert running.end(by) == 0
    assert open_orders(system) == 1
    assert system.api.cancelled(own)["status"] == "cancelled"


def test_it_outlives_the_api_and_redis(system: System, tmp_path: Path) -> None:
    with simulation(system, tmp_path, "--instruments", "BTC-USD", "--rate", "200") as running:
        wait_for(lambda: "simulating on" in running.said())
        for part, away, back in (
            ("serve", "the server is away", "the server is back"),
            ("redis", "no orders are taken", "orders are taken again"),
        ):
            processes = [system.pid(part), *children_of(system.pid(part))]
            with system.stopped_supervisor():
                system.kill(part)
                # Workers answer for a moment after their master is gone.
                wait_for(lambda gone=processes: not any(map(is_running, gone)))  # type: ignore[misc]
                wait_for(lambda last=away, first=back: running.says_last(last, first))  # type: ignore[misc]
            wait_for(lambda last=back, first=away: running.says_last(last, first))  # type: ignore[misc]
            before = newest_trade(system, "BTC-USD")
            wait_for(lambda before=before: newest_trade(system, "BTC-USD") > before)  # type: ignore[misc]
        assert running.end() == 0
    assert open_orders(system) == 0


def test_orders_of_a_run_that_was_killed_are_taken_back_by_the_next(
    system: System, tmp_path: Path
) -> None:
    with simulation(system, tmp_path, "--seed", "9", "--instruments", "ETH-USD") as running:
        wait_for(lambda: open_orders(system) > 20)
        running.end(signal.SIGKILL)
    assert open_orders(system) > 20
    with simulation(system, tmp_path, "--seed", "9", "--instruments", "BTC-USD") as running:
        wait_for(lambda: "simulating on" in running.said())
        wait_for(lambda: system.redis.zcard("{ETH-USD}:owners") == 0)
        assert running.end() == 0


def test_it_waits_where_an_instrument_is_halted(system: System, tmp_path: Path) -> None:
    with simulation(system, tmp_path, "--instruments", "BTC-USD,ETH-USD") as running:
        wait_for(lambda: open_orders(system) > 100)
        system.api.changed_rules("ETH-USD", status="halted")
        wait_for(lambda: "waiting: ETH-USD" in running.said())
        system.api.changed_rules("ETH-USD", status="open")
        wait_for(lambda: "taken again: ETH-USD" in running.said())
        assert "BTC-USD" not in running.said().partition("waiting:")[2]
        assert running.end() == 0


def test_an_instrument_that_is_not_listed_is_said_in_a_line(system: System) -> None:
    done = system.run("simulate", "--instruments", "BTC-USD,NO-SUCH")
    assert (done.returncode, done.stderr) == (1, "crossbook: not listed: NO-SUCH\n")


def test_it_can_be_stopped_while_no_server_answers(system: System, tmp_path: Path) -> None:
    nobody = f"http://127.0.0.1:{free_port()}"
    with simulation(system, tmp_path, "--url", nobody) as running:
        wait_for(lambda: "does not answer yet" in running.said())
        assert running.end() == 0
