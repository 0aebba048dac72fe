"""Generated commands of every kind, through engine and persister into Postgres: orders, trades and
positions there, and the book, are those of the reference.
"""

import random
from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from itertools import islice

import pytest

from tests import tapes
from tests.audit import audit, stored_events
from tests.commands import Command, Place
from tests.differential import COMMANDS_AT_ONCE, PipelinedVenue
from tests.reference import START_US
from tests.system import System

COMMANDS = 3_000
EVENT_TYPES = 9


def auditable(commands: Iterator[Command]) -> Iterator[Command]:
    """Without what an event does not tell: how large a taker was before it was decremented."""
    for command in commands:
        if isinstance(command, Place) and command.self_trade_prevention == "decrement":
            command = replace(command, self_trade_prevention="cancel_both")  # noqa: PLW2901
        yield command


@pytest.mark.slow
def test_rows_of_a_generated_tape_equal_the_reference(
    system: System, symbol: str, rng: random.Random
) -> None:
    """The sweeper of the system sweeps in between, whenever it likes."""
    client = system.redis
    venue = PipelinedVenue(client, symbol=symbol)
    client.hset(venue.keys.book, "time", str(START_US))
    tape = auditable(tapes.commands(rng.randrange(2**32), COMMANDS))
    while commands := list(islice(tape, COMMANDS_AT_ONCE)):
        venue.apply_all(commands)
    # What is still due is done now, and not between two looks of the audit.
    assert venue.books.sweep(symbol)
    audit(system, symbol)
    types = Counter(stored.event.type for stored in stored_events(system, symbol))
    assert len(types) == EVENT_TYPES, types
