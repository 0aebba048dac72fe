"""What befalls Redis and its helpers short of death: a full disk, full memory, two persisters, a
clock that was put back, an entry in a stream that is none of ours.
"""

import os
import random
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Final

import pytest

from tests.audit import audit, await_quiet
from tests.commands import limit
from tests.flow import Crowd
from tests.processes import is_running
from tests.rest import Answer, Json, order_body, order_id
from tests.system import ROOT, System, running_system
from tests.waiting import wait_for

TRADERS: Final = 6
PROGRESS: Final = 150
"""Requests that count as the traders' going on."""
DISK_BYTES: Final = 24 * 1024 * 1024
SPARE_BYTES: Final = 4096
"""What a filled disk has left at most."""
HOUR_US: Final = 3_600_000_000
IMPATIENT: Final = "tests.faults.impatient_up"

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def system() -> Iterator[System]:
    """One of our own: here it suffers."""
    expected = ("instrument is not persisted", "instrument takes nothing", "request failed")
    with running_system(module=IMPATIENT, expected=expected) as running:
        yield running


@pytest.fixture
def crowd(system: System, symbol: str, rng: random.Random) -> Crowd:
    """Traders on a fresh instrument."""
    return Crowd(system.api, symbol, rng, TRADERS)


def await_progress(crowd: Crowd, requests: int = PROGRESS) -> None:
    """Returns once the traders have carried through so many more requests."""
    goal = crowd.count + requests
    wait_for(lambda: crowd.count >= goal)


def place(system: System, symbol: str) -> Answer:
    """An order that rests far away."""
    return system.api.place(order_body(symbol, limit("ann", "buy", 1, 1)))


def check_story(system: System, crowd: Crowd) -> None:
    """All that was told is so, and nothing else."""
    for one in crowd.untold:
        assert getattr(one.command, "idempotency_key", "") is None, f"never resolved: {one}"
    audit(system, crowd.symbol, crowd.outcomes)


def check_refused_for_now(system: System, symbol: str, number: int) -> None:
    """Orders, cancels and batches get 503 with Retry-After, and nothing of them is done."""
    api = system.api
    order = order_body(symbol, limit("ann", "buy", 1, 1))
    refused = [api.place(order), api.place(order, key="k"), api.cancel(order_id(symbol, number))]
    for answer in refused:
        assert answer.status == 503, answer
        assert answer.headers["Retry-After"], answer
    for result in api.batch([{"op": "place", **order}, {"op": "place", **order}]):
        assert result["status"] == 503, result


class TestFullMemory:
    """CONFIG SET maxmemory: Redis refuses what needs more."""

    def test_it_refuses_with_503_changes_nothing_and_goes_on_when_there_is_room(
        self, system: System, symbol: str
    ) -> None:
        number = int(place(system, symbol).json()["order"]["sequence"])
        await_quiet(system, symbol)
        before = system.contents(symbol)
        system.redis.config_set("maxmemory", "1mb")
        try:
            check_refused_for_now(system, symbol, number)
            assert system.contents(symbol) == before
        finally:
            system.redis.config_set("maxmemory", "0")
        assert place(system, symbol).json()["order"]["sequence"] == number + 1
        audit(system, symbol)

    def test_it_comes_and_goes_under_load(self, system: System, crowd: Crowd) -> None:
        with crowd.trading():
            for _ in range(5):
                await_progress(crowd)
                system.redis.config_set("maxmemory", "1mb")
                wait_for(lambda: place(system, crowd.symbol).status == 503)
                wait_for(lambda: crowd.untold or crowd.repeats)  # they have met it, too
                system.redis.config_set("maxmemory", "0")
            await_progress(crowd)
        assert crowd.untold or any(one.attempts > 1 for one in crowd.told)
        check_story(system, crowd)


@contextmanager
def small_disk(folder: Path) -> Iterator[None]:
    """A file system of DISK_BYTES at `folder`; where that is not allowed, the test is skipped."""
    folder.mkdir(parents=True)
    mount = ["mount", "-t", "tmpfs", "-o", f"size={DISK_BYTES}", "crossbook-test", str(folder)]
    try:
        done = subprocess.run(mount, capture_output=True, text=True, check=False)
    except FileNotFoundError:
        pytest.skip("there is no mount")
    if done.returncode:
        pytest.skip(f"a file system cannot be mounted here: {done.stderr.strip()}")
    try:
        yield
    finally:
        subprocess.run(["umount", "--lazy", str(folder)], check=True)


def fill(filler: Path) -> None:
    """Until nothing more fits, also what others have freed meanwhile."""
    size = 1024 * 1024
    with filler.open("ab", buffering=0) as file:
        while size >= SPARE_BYTES:
            try:
                if file.write(bytes(size)) < size:
                    size //= 2
            except OSError:
                size //= 2


class TestFullDisk:
    """No room for the append-only file: `always` ends Redis, `everysec` makes it refuse writes."""

    @pytest.mark.parametrize("policy", ["always", "everysec"])
    def test_orders_are_refused_and_taken_again_by_itself_when_there_is_room(
        self, policy: str, rng: random.Random
    ) -> None:
        with TemporaryDirectory(prefix="crossbook-", ignore_cleanup_errors=True) as name:
            folder = Path(name) / "redis"
            with small_disk(folder):
                system = System(Path(name), module=IMPATIENT)
                system.start()
                try:
                    self._check(system, folder / "filler", policy, rng)
                finally:
                    system.stop()

    def _check(self, system: System, filler: Path, policy: str, rng: random.Random) -> None:
        crowd = Crowd(system.api, system.list_instrument(), rng, TRADERS)
        system.redis.config_set("appendfsync", policy)
        with crowd.trading():
            await_progress(crowd)
            fill(filler)
            wait_for(lambda: self._is_refused(system, crowd.symbol, filler))
            filler.unlink()
            wait_for(lambda: place(system, crowd.symbol).status == 201)
            await_progress(crowd)
        check_story(system, crowd)

    def _is_refused(self, system: System, symbol: str, filler: Path) -> bool:
        """Redis may first use up what is left of its last block."""
        fill(filler)
        answer = place(system, symbol)
        assert answer.status in (201, 503), answer
        return answer.status == 503


class TestTwoPersisters:
    """Somebody starts a second one by mistake."""

    def test_everything_is_written_down_once_whichever_of_them_dies(
        self, system: System, crowd: Crowd
    ) -> None:
        with crowd.trading():
            for _ in range(3):
                with second_persister(system) as second:
                    await_progress(crowd)
                    system.kill("persist")
                    await_progress(crowd)
                    assert is_running(second.pid)
            await_progress(crowd)
        assert not [one for one in crowd.untold if one.why == "outcome_unknown"]
        check_story(system, crowd)


@contextmanager
def second_persister(system: System) -> Iterator["subprocess.Popen[bytes]"]:
    """Ends by kill -9."""
    stores = system._stores()
    environ = {"PATH": os.environ["PATH"], "DATA_DIR": str(system.data_dir)}
    environ |= {"REDIS_URL": stores.redis_url, "DATABASE_URL": stores.database_url}
    command = [sys.executable, "-m", "app", "persist"]
    with (system.data_dir / "second.log").open("ab") as log:
        process = subprocess.Popen(command, env=environ, cwd=ROOT, stdout=log, stderr=log)
    try:
        yield process
    finally:
        process.kill()
        process.wait()


class TestClock:
    """The clock of Redis's machine."""

    def test_put_back_by_an_hour_time_stands_still_and_nothing_else(
        self, system: System, crowd: Crowd
    ) -> None:
        """The book's time never goes back: events keep their order in time, too."""
        book = f"{{{crowd.symbol}}}:book"
        with crowd.trading():
            await_progress(crowd)
            ahead: Any = system.redis.time()
            system.redis.hset(book, "time", str(int(ahead[0]) * 1_000_000 + HOUR_US))
            await_progress(crowd, 3 * PROGRESS)
        check_story(system, crowd)
        times = [
            row[0]
            for row in system.rows(
                "SELECT occurred_at FROM events WHERE instrument = %s ORDER BY sequence",
                crowd.symbol,
            )
        ]
        assert times == sorted(times)


class TestPoison:
    """Somebody else writes to a stream."""

    def test_a_foreign_entry_is_reported_never_skipped_and_harms_no_other_book(
        self, system: System, symbol: str, crowd: Crowd
    ) -> None:
        other = system.list_instrument()
        sequence = int(place(system, other).json()["order"]["sequence"])
        await_quiet(system, other)
        system.redis.xadd(f"{{{other}}}:events", {"who": "me"}, id=f"{sequence + 1}-0")
        wait_for(lambda: other in halted(system))
        assert halted(system)[other]["code"] == "poison"
        with crowd.trading():
            await_progress(crowd)
        refused = place(system, other)
        assert refused.status in (422, 503), refused
        kept = system.rows("SELECT max(sequence) FROM events WHERE instrument = %s", other)
        assert kept == [(sequence,)], "nothing was skipped"
        wait_for(lambda: not is_behind(system, crowd.symbol))


def halted(system: System) -> Json:
    """What /readyz says of halted instruments."""
    answer = system.api.get("/readyz")
    told: Json = answer.json()["checks"]["persister"]["halted"]
    return told


def is_behind(system: System, symbol: str) -> bool:
    """Whether Postgres lacks events of a book."""
    rows = system.rows("SELECT sequence FROM stream_positions WHERE instrument = %s", symbol)
    return rows != [(system.sequences()[symbol],)]
