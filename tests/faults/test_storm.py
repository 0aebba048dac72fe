"""Hundreds of kills and hangs of every part, in random order, under load: afterwards every answer
that a client got, by HTTP or WebSocket, is held against the stores and the reference.
"""

import os
import random
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from typing import Final

import pytest

from tests.audit import audit
from tests.faults.storm import Pulse, Storm, deck, table
from tests.flow import Crowd, HttpLine, Line
from tests.rest import Api
from tests.settlements import check_settlements
from tests.streams import Listener, SocketLine, check_heard
from tests.system import System, running_system

KILLS: Final = int(os.environ.get("CROSSBOOK_TEST_KILLS", "200"))
INSTRUMENTS: Final = 2
TRADERS: Final = 8
"""For each instrument; every fourth of them by WebSocket."""
TRADER_PAUSE_S: Final = 0.03
"""Leaves room on two cores for what is being restarted."""
KEYED_SHARE: Final = 0.75
IMPATIENT: Final = "tests.faults.impatient_up"

pytestmark = pytest.mark.slow


@pytest.fixture
def system() -> Iterator[System]:
    """One of our own, which restarts at once what is killed."""
    with running_system(module=IMPATIENT) as running:
        yield running


def line(api: Api, n: int) -> Line:
    """The way of the n-th trader."""
    return SocketLine(api) if n % 4 == 3 else HttpLine(api)


def crowds_of(system: System, rng: random.Random, pause_s: float) -> list[Crowd]:
    """One for each of some fresh instruments."""
    crowds = []
    for _ in range(INSTRUMENTS):
        symbol = system.list_instrument()
        crowd = Crowd(system.api, symbol, rng, TRADERS, lambda n: line(system.api, n))
        for trader in crowd.traders:
            trader.pause_s, trader.keyed_share = pause_s, KEYED_SHARE
        pulse = Pulse("pulse", system.api, symbol, rng, HttpLine(system.api))
        crowd.traders.append(pulse)
        crowds.append(crowd)
    return crowds


def pulses_of(crowds: list[Crowd]) -> list[Pulse]:
    """Those that measure."""
    return [one for crowd in crowds for one in crowd.traders if isinstance(one, Pulse)]


def check_stories(
    storm: Storm,
    crowds: list[Crowd],
    listener: Listener,
    summary: Callable[[str], None],
) -> None:
    """Of every instrument: what clients were told and what was heard is what the stores tell."""
    for crowd in crowds:
        for one in crowd.untold:
            is_keyless = getattr(one.command, "idempotency_key", "") is None
            assert is_keyless, f"never resolved: {one}\n{storm.around(one.sent_at)}"
        book = audit(storm.system, crowd.symbol, crowd.outcomes)
        heard = check_heard(listener.stretches[crowd.symbol], book.events)
        unknown = sum(one.attempts > 1 for one in crowd.told)
        summary(
            f"{crowd.symbol}: {len(crowd.told)} answers, {unknown} after more than one attempt,"
            f" {len(crowd.untold)} without a key and an answer; {book.sequence} events, {heard}"
            f" heard over {listener.connections} WebSockets"
        )
        assert unknown, "there were answers that did not come"
        assert heard > book.sequence / 4, "the listener heard something"
    verified = storm.system.run("verify", "--full")
    assert verified.returncode == 0, verified.stdout + verified.stderr
    settled = storm.system.run("settle")
    assert settled.returncode == 0, settled.stdout + settled.stderr
    with storm.system.postgres() as connection:
        check_settlements(connection)


def test_kills_and_hangs_in_random_order_lose_nothing_and_do_nothing_twice(
    system: System, rng: random.Random, summary: Callable[[str], None]
) -> None:
    """Kills of workers, Redis, its file's rewrite, persister, Postgres, gunicorn; hangs of all."""
    crowds = crowds_of(system, rng, TRADER_PAUSE_S)
    listener = Listener(system.api.port, [crowd.symbol for crowd in crowds])
    kinds = deck(rng, KILLS)
    pulses = pulses_of(crowds)
    storm = Storm(system, rng, lambda at: all(pulse.has_accepted_since(at) for pulse in pulses))
    with listener.listening(), ExitStack() as trading:
        for crowd in crowds:
            trading.enter_context(crowd.trading())
        storm.deal(kinds)
    assert storm.kills == KILLS
    check_stories(storm, crowds, listener, summary)
    summary(table(storm.faults, pulses, lost=0))
