"""Redis restarted on an old copy of its files: it lacks what was acknowledged since. That is
recognised before one more command is taken for the instruments concerned, and an operator's
`rebuild` opens them again with everything that was ever acknowledged.
"""

import random
import shutil
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Final

import pytest
import redis

from tests.audit import audit, await_quiet
from tests.commands import ArmTimer, Cancel, MassCancel, limit
from tests.faults.test_stores import halted
from tests.flow import NO_ANSWER, Crowd, HttpLine, Request, Told
from tests.processes import is_running
from tests.rest import Answer, Api, order_body, order_id
from tests.system import System, running_system
from tests.waiting import wait_for

TRADERS: Final = 6
STEPS: Final = 40
ASKING: Final = 6
"""Clients that ask on and on while Redis comes back, each over connections of its own."""
SURE_ANSWERS: Final = 200
"""After so many refusals nobody believes that the next order is taken."""
CODES: Final = ("redis_behind", "acknowledged_lost", "diverged")
EXPECTED: Final = ("instrument is not persisted", "instrument takes nothing", "no book that can")

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def system() -> Iterator[System]:
    """One of our own: here it suffers."""
    with running_system(expected=EXPECTED) as running:
        yield running


def files_of(system: System) -> Path:
    """Redis's own folder."""
    return system.data_dir / "redis"


def copy(system: System, to: Path) -> None:
    """What a backup of the files has."""
    names = shutil.ignore_patterns("redis.sock", "*.pid", "redis.log*")
    shutil.copytree(files_of(system), to, ignore=names)


def put_back(system: System, backup: Path) -> None:
    """The files are those of the backup, and no others; Redis must not run."""
    for name in ("appendonlydir", "appendonly.aof", "dump.rdb"):
        path = files_of(system) / name
        shutil.rmtree(path) if path.is_dir() else path.unlink(missing_ok=True)
    shutil.copytree(backup, files_of(system), dirs_exist_ok=True)


def restart_redis_alone(system: System, backup: Path, ask: Callable[[], object]) -> None:
    """The API goes on: it remembers what it has acknowledged."""
    with system.stopped_supervisor():
        pid = system.kill("redis")
        ask()
        put_back(system, backup)
    wait_for(lambda: system.pid("redis") != pid)


def restart_all(system: System, backup: Path, ask: Callable[[], object]) -> None:
    """Nobody remembers anything but Postgres."""
    assert system.stop() == 0
    ask()
    put_back(system, backup)
    system.start()


def restart_redis_and_api(system: System, backup: Path, ask: Callable[[], object]) -> None:
    """As with Redis alone, and all workers are new ones, while the persister goes on."""
    with system.stopped_supervisor():
        master = system.kill("serve")
        pid = system.kill("redis")
        ask()
        put_back(system, backup)
    wait_for(lambda: system.pid("redis") != pid and system.pid("serve") != master)


class Askers:
    """Clients that ask for everything that is a command, on and on, over ever new connections so
    that every worker is asked.
    """

    def __init__(self, system: System, symbol: str, number: int) -> None:
        self.answers: list[Answer] = []
        self._port = system.api.port
        self._symbol = symbol
        self._requests: tuple[Request, ...] = (
            limit("asker", "buy", 1, 1),
            Cancel(number),
            MassCancel("asker"),
            ArmTimer("asker", 1_000_000),
        )
        self._stop = threading.Event()

    @contextmanager
    def asking(self) -> Iterator[None]:
        """They ask until the block ends."""
        threads = [threading.Thread(target=self._run) for _ in range(ASKING)]
        for thread in threads:
            thread.start()
        try:
            yield
        finally:
            self._stop.set()
            for thread in threads:
                thread.join()

    def _run(self) -> None:
        while not self._stop.is_set():
            line = HttpLine(Api(self._port))
            for request in self._requests:
                try:
                    self.answers.append(line.send(self._symbol, request))
                except NO_ANSWER:
                    break

    def check_nothing_was_taken(self) -> None:
        """Every answer is a refusal; what a mass cancel of nobody's orders says is no command."""
        for answer in self.answers:
            nothing = answer.status == 200 and answer.json().get("cancelled") == []
            assert answer.status >= 400 or nothing, answer


@pytest.mark.parametrize("restart", [restart_redis_alone, restart_all, restart_redis_and_api])
def test_an_old_redis_takes_nothing_until_it_is_rebuilt(
    system: System,
    rng: random.Random,
    tmp_path: Path,
    restart: Callable[[System, Path, Callable[[], object]], None],
) -> None:
    """Not one command by any worker; /readyz names it; the persister stands. Other instruments,
    which lost nothing, are traded all the while. After the rebuild all that was ever told is so.
    """
    api, symbol, other = system.api, system.list_instrument(), system.list_instrument()
    crowd = Crowd(api, symbol, rng, TRADERS)
    quiet = api.placed(order_body(other, limit("eve", "buy", 5, 1)))["order"]
    crowd.trade(STEPS)
    # So much that nobody's market orders take it all.
    resting = api.placed(order_body(symbol, limit("rest", "buy", 2, 1_000_000)))["order"]
    await_quiet(system, symbol)
    copy(system, tmp_path / "backup")
    crowd.trade(STEPS)
    await_quiet(system, symbol)
    sequence = system.sequences()[symbol]
    askers = Askers(system, symbol, resting["sequence"])
    with ExitStack() as asking:
        restart(system, tmp_path / "backup", lambda: asking.enter_context(askers.asking()))
        wait_for(lambda: is_named(system, symbol))
        wait_for(lambda: enough(askers))
    check_refused(system, symbol, resting["sequence"])
    askers.check_nothing_was_taken()
    assert halted(system)[symbol]["code"] in CODES
    order = api.placed(order_body(other, limit("eve", "buy", 5, 1)))["order"]
    assert order["sequence"] == quiet["sequence"] + 1

    done = system.run("rebuild")
    assert done.returncode == 0, done.stdout + done.stderr
    wait_for(lambda: symbol not in halted(system))
    order = api.placed(order_body(symbol, limit("late", "buy", 1, 1)))["order"]
    assert order["sequence"] == sequence + 1
    at = time.monotonic()
    cancel = api.cancel(order_id(symbol, resting["sequence"]))
    assert cancel.status == 200, cancel
    told = Told(Cancel(resting["sequence"]), cancel, at, time.monotonic(), 1, at)
    crowd.trade(STEPS)
    audit(system, symbol, [*crowd.outcomes, told])
    audit(system, other)


def enough(askers: Askers) -> bool:
    """Whether they have heard of the new Redis often enough."""
    return sum(answer.status >= 400 for answer in askers.answers) >= SURE_ANSWERS


def is_named(system: System, symbol: str) -> bool:
    """Whether /readyz says that the instrument is halted."""
    try:
        return symbol in halted(system)
    except (*NO_ANSWER, redis.RedisError):
        return False


def check_refused(system: System, symbol: str, number: int) -> None:
    """Each kind of command, also within a batch."""
    api, order = system.api, order_body(symbol, limit("ann", "buy", 1, 1))
    told = [
        api.place(order),
        api.place(order, key="k"),
        api.cancel(order_id(symbol, number)),
        api.amend(order_id(symbol, number), quantity="2"),
        api.cancel_all(client_id="rest", instrument=symbol),
        HttpLine(api).send(symbol, ArmTimer("ann", 1_000_000)),
    ]
    assert [answer.status >= 400 for answer in told] == [True] * len(told), told
    for result in api.batch([{"op": "place", **order}]):
        assert result["status"] >= 400, result
    assert is_running(system.pid("persist"))
