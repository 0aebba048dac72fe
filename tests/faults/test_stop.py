"""SIGTERM to gunicorn under load: it finishes what it took. Whoever's command was carried out is
told so; whoever is not told may be sure that nothing happened.
"""

import os
import random
import signal
from collections.abc import Callable, Iterator
from typing import Final

import pytest

from tests.audit import audit
from tests.commands import Amend, Cancel, Place
from tests.flow import Crowd, HttpLine, Outcome, Told
from tests.linear import is_accepted, sequence_of
from tests.processes import children_of
from tests.reference import ReferenceBook
from tests.streams import SocketLine
from tests.system import System, running_system
from tests.waiting import wait_for

TRADERS: Final = 10
STOPS: Final = 3
"""Of each kind; each takes what the sockets' goodbyes take, seconds."""
PROGRESS: Final = 200
IMPATIENT: Final = "tests.faults.impatient_up"

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def system() -> Iterator[System]:
    """One of our own."""
    with running_system(module=IMPATIENT) as running:
        yield running


def await_progress(crowd: Crowd) -> None:
    """Returns once the traders have carried through so many more requests."""
    goal = crowd.count + PROGRESS
    wait_for(lambda: crowd.count >= goal)


def stop_master(system: System) -> None:
    """SIGTERM; returns when its successor has workers."""
    pid = system.pid("serve")
    os.kill(pid, signal.SIGTERM)
    wait_for(lambda: system.pid("serve") != pid and children_of(system.pid("serve")))


def stop_worker(system: System) -> None:
    """SIGTERM to one worker, as gunicorn itself does it; returns when another is in its place."""
    workers = children_of(system.pid("serve"))
    os.kill(workers[0], signal.SIGTERM)
    wait_for(lambda: workers[0] not in children_of(system.pid("serve")))
    wait_for(lambda: len(children_of(system.pid("serve"))) == len(workers))


@pytest.mark.parametrize("stop", [stop_master, stop_worker])
def test_whoever_s_command_was_carried_out_is_told_so(
    system: System,
    rng: random.Random,
    stop: Callable[[System], None],
) -> None:
    """Half of them ask by REST, half by WebSocket."""
    ways, symbol = (HttpLine, SocketLine), system.list_instrument()
    crowd = Crowd(system.api, symbol, rng, TRADERS, lambda n: ways[n % 2](system.api))
    with crowd.trading():
        for _ in range(STOPS):
            await_progress(crowd)
            stop(system)
        await_progress(crowd)
    book = audit(system, crowd.symbol, crowd.outcomes)
    check_no_answer_was_lost(book, crowd.outcomes)


def check_no_answer_was_lost(book: ReferenceBook, outcomes: list[Outcome]) -> None:
    """Each order, cancel and amend in the book was answered when it was carried out, not later when
    it was asked for again.
    """
    answered = {
        sequence_of(one)
        for one in outcomes
        if isinstance(one, Told) and is_accepted(one) and not one.answer.is_replayed
        if isinstance(one.command, Place | Cancel | Amend)
    }
    done = {e.sequence for e in book.events if e.type in ("place", "cancel", "amend")}
    assert done == answered, f"carried out, and not told: {sorted(done - answered)}"
