"""Hypothesis strategies for the commands of tests/commands.py. Prices, clients, keys and numbers
come from pools so small that orders meet, keys repeat and cancels hit.
"""

from dataclasses import replace

from hypothesis import strategies as st

from tests.commands import SIDES, Cancel, Command, Place

CLIENTS = ("ann", "bob", "cyd")
PRICES_TICKS = st.integers(min_value=98, max_value=103)
QUANTITIES_LOTS = st.integers(min_value=1, max_value=12)
NUMBERS = st.integers(min_value=0, max_value=40)


@st.composite
def places(draw: st.DrawFn) -> Place:
    """A valid new order; half of them plain limit gtc, so that there is a book to work on."""
    price = draw(PRICES_TICKS)
    plain = Place(
        draw(st.sampled_from(CLIENTS)),
        draw(st.sampled_from(SIDES)),
        "limit",
        "gtc",
        draw(QUANTITIES_LOTS),
        price,
        client_order_id=draw(st.sampled_from((None, "x", "y"))),
        idempotency_key=draw(st.sampled_from((None, None, "k1", "k2", "k3"))),
    )
    return draw(
        st.sampled_from(
            (
                plain,
                plain,
                plain,
                replace(plain, post_only=True),
                replace(plain, time_in_force="ioc"),
                replace(plain, time_in_force="fok"),
                replace(plain, type="market", time_in_force="ioc", price_ticks=None),
                replace(plain, type="market", time_in_force="fok", price_ticks=None),
            )
        )
    )


def cancels() -> st.SearchStrategy[Cancel]:
    """Cancels of open, finished and unknown orders alike."""
    return NUMBERS.map(Cancel)


def commands() -> st.SearchStrategy[Command]:
    """Any one command."""
    return st.one_of(places(), places(), places(), cancels())


@st.composite
def tapes(draw: st.DrawFn, max_size: int = 40) -> list[Command]:
    """Commands in order, some of them exact repeats of an earlier one."""
    tape: list[Command] = []
    for command in draw(st.lists(commands(), max_size=max_size)):
        repeat = bool(tape) and draw(st.integers(0, 9)) == 9
        tape.append(draw(st.sampled_from(tape)) if repeat else command)
    return tape
