"""An hour of load with two thousand kills: as the storm, and afterwards nothing has grown. Part of
`make soak`, left out otherwise.
"""

import os
import random
import time
from collections.abc import Callable
from contextlib import ExitStack
from typing import Final

import pytest

from tests.faults.growth import Sample, compare, grown_between, sample
from tests.faults.storm import Storm, deck, table
from tests.faults.test_storm import IMPATIENT, check_stories, crowds_of, pulses_of
from tests.streams import Listener
from tests.system import running_system

KILLS: Final = int(os.environ.get("CROSSBOOK_TEST_SOAK_KILLS", "0"))
SECONDS: Final = float(os.environ.get("CROSSBOOK_TEST_SOAK_S", "3600"))
ROUNDS: Final = int(os.environ.get("CROSSBOOK_TEST_SOAK_ROUNDS", "12"))
CALM_SHARE: Final = 0.3
"""Of each round there is load and no fault: what lives on then must not grow."""
SETTLING_SHARE: Final = 0.4
"""Of the calm: processes that have just begun take what they need."""
TRADER_PAUSE_S: Final = 0.15
"""Some 80 requests a second: an hour of them is looked at in minutes."""
PULSE_PAUSE_S: Final = 0.1
IDEMPOTENCY_TTL_S: Final = "120"
"""Short, so that records come and go as they do over days; longer than anybody repeats a request.
"""

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not KILLS, reason="an hour; `make soak` runs it"),
]


def test_soak_nothing_is_lost_and_nothing_grows(
    rng: random.Random, summary: Callable[[str], None]
) -> None:
    """Redis memory, open files, connections of Postgres and resident memory are flat, from round to
    round and within each calm.
    """
    with running_system(module=IMPATIENT, IDEMPOTENCY_TTL_S=IDEMPOTENCY_TTL_S) as system:
        crowds = crowds_of(system, rng, TRADER_PAUSE_S)
        pulses = pulses_of(crowds)
        for pulse in pulses:
            pulse.pause_s = PULSE_PAUSE_S
        kinds = deck(rng, KILLS)
        round_s = SECONDS / ROUNDS
        every_s = round_s * (1 - CALM_SHARE) / (len(kinds) / ROUNDS)
        storm = Storm(
            system, rng, lambda at: all(one.has_accepted_since(at) for one in pulses), every_s
        )
        listener = Listener(system.api.port, [crowd.symbol for crowd in crowds])
        samples: list[Sample] = []
        grown: list[str] = []
        with listener.listening(), ExitStack() as trading:
            for crowd in crowds:
                trading.enter_context(crowd.trading())
            for n in range(ROUNDS):
                storm.deal(kinds[n * len(kinds) // ROUNDS : (n + 1) * len(kinds) // ROUNDS])
                time.sleep(round_s * CALM_SHARE * SETTLING_SHARE)
                before = sample(system)
                time.sleep(round_s * CALM_SHARE * (1 - SETTLING_SHARE))
                samples.append(sample(system))
                grown += grown_between(before, samples[-1])
        check_stories(storm, crowds, listener, summary)
    assert storm.kills == KILLS
    rows, grown_over_all = compare(samples)
    summary(table(storm.faults, pulses, lost=0))
    summary("\n".join(["| figure | first rounds | last rounds |", "|---|---|---|", *rows]))
    assert not grown + grown_over_all
