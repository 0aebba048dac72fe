"""Hypothesis strategies for the commands of tests/commands.py. Prices, clients, keys and numbers
come from pools so small that orders meet, stops trigger, keys repeat and cancels hit. Expiries are
near START_US, where a reference book's clock begins.
"""

from dataclasses import replace

from hypothesis import strategies as st

from tests.commands import (
    SELF_TRADE_PREVENTIONS,
    SIDES,
    Amend,
    ArmTimer,
    Cancel,
    Command,
    KillSwitch,
    MassCancel,
    Place,
    SetRules,
    Sweep,
    Tick,
)
from tests.reference import START_US, Order, ReferenceBook

CLIENTS = ("ann", "bob", "cyd")
PRICES_TICKS = st.integers(min_value=98, max_value=103)
QUANTITIES_LOTS = st.integers(min_value=1, max_value=12)
NUMBERS = st.integers(min_value=0, max_value=20)
STEP_US = 1000  # the tapes' unit of time


@st.composite
def places(draw: st.DrawFn) -> Place:
    """A valid new order of any shape; a third of them plain limit gtc, so that there is a book to
    work on.
    """
    plain = Place(
        draw(st.sampled_from(CLIENTS)),
        draw(st.sampled_from(SIDES)),
        "limit",
        "gtc",
        draw(QUANTITIES_LOTS),
        draw(PRICES_TICKS),
        client_order_id=draw(st.sampled_from((*[None] * 6, "x", "y"))),
        idempotency_key=draw(st.sampled_from((*[None] * 9, "k1", "k2", "k3"))),
        self_trade_prevention=draw(st.sampled_from(("none", "none", *SELF_TRADE_PREVENTIONS))),
    )
    return draw(
        st.sampled_from(
            (
                *[st.just(plain)] * 2,
                *[_resting(plain)] * 2,
                _immediate(plain),
                _stops(plain),
            )
        ).flatmap(lambda shaped: shaped)
    )


@st.composite
def _resting(draw: st.DrawFn, plain: Place) -> Place:
    """Post-only, with an expiry, an iceberg, or several of these."""
    order = replace(plain, post_only=draw(st.booleans()))
    if draw(st.booleans()):
        order = replace(order, display_lots=draw(st.integers(1, min(3, plain.quantity_lots))))
    return draw(_dated(order)) if draw(st.booleans()) else order


@st.composite
def _dated(draw: st.DrawFn, order: Place) -> Place:
    """With an expiry, seldom one that is over from the beginning."""
    steps = draw(st.sampled_from((8, 4, 2, 1, 16, 0)))
    return replace(order, time_in_force="gtd", expires_us=START_US + steps * STEP_US)


@st.composite
def _immediate(draw: st.DrawFn, plain: Place) -> Place:
    """Limit or market, ioc or fok."""
    order = replace(plain, time_in_force=draw(st.sampled_from(("ioc", "fok"))))
    return replace(order, type="market", price_ticks=None) if draw(st.booleans()) else order


@st.composite
def _stops(draw: st.DrawFn, plain: Place) -> Place:
    """A stop or stop-limit of any time in force; the latter may be an iceberg."""
    order = replace(plain, type="stop_limit", stop_price_ticks=draw(PRICES_TICKS))
    if draw(st.booleans()):
        order = replace(order, time_in_force=draw(st.sampled_from(("ioc", "fok"))))
    elif draw(st.booleans()):
        order = draw(_dated(order))
    if draw(st.booleans()):
        return replace(order, type="stop", price_ticks=None)
    may_rest = order.time_in_force in ("gtc", "gtd")
    return replace(order, display_lots=1) if may_rest and draw(st.booleans()) else order


def cancels() -> st.SearchStrategy[Cancel]:
    """Cancels of open, finished and unknown orders alike."""
    return NUMBERS.map(Cancel)


@st.composite
def amends(draw: st.DrawFn) -> Amend:
    """At least one new term for an order, whether or not the order has such a term."""
    terms = (PRICES_TICKS, QUANTITIES_LOTS, PRICES_TICKS)
    given = draw(st.integers(1, 7))
    return Amend(draw(NUMBERS), *(draw(t) if given >> n & 1 else None for n, t in enumerate(terms)))


@st.composite
def rules(draw: st.DrawFn) -> SetRules:
    """Mostly open, each limit now and then."""
    return SetRules(
        draw(st.sampled_from((*["open"] * 6, "cancel_only", "halted"))),
        price_band_bps=draw(st.sampled_from((None, None, None, 0, 100, 250))),
        max_order_lots=draw(st.sampled_from((*[None] * 6, 4, 10))),
        max_order_notional=draw(st.sampled_from((*[None] * 6, 500, 1000))),
        max_open_orders=draw(st.sampled_from((*[None] * 6, 2, 4))),
    )


_CLIENT = st.sampled_from(CLIENTS)
# By kind of command, how often; hypothesis itself would choose each kind equally often.
_WEIGHTS: tuple[tuple[int, st.SearchStrategy[Command]], ...] = (
    (24, places()),
    (3, cancels()),
    (6, amends()),
    (3, st.just(Sweep())),
    (2, st.integers(1, 3).map(lambda steps: Tick(steps * STEP_US))),
    (
        1,
        st.builds(MassCancel, _CLIENT, st.sampled_from((None, *SIDES)), st.sampled_from((0, 0, 4))),
    ),
    (1, st.builds(ArmTimer, _CLIENT, st.integers(0, 3).map(lambda steps: steps * STEP_US))),
    (1, st.builds(KillSwitch, _CLIENT, st.sampled_from((*[False] * 4, True)))),
    (1, rules()),
)


@st.composite
def commands(draw: st.DrawFn) -> Command:
    """Any one command, mostly an order."""
    kinds = [kind for weight, kind in _WEIGHTS for _ in range(weight)]
    return draw(draw(st.sampled_from(kinds)))


@st.composite
def tapes(draw: st.DrawFn, max_size: int = 40) -> list[Command]:
    """Commands in order, some of them exact repeats of an earlier one."""
    tape: list[Command] = []
    book = ReferenceBook()
    least = draw(st.integers(0, max_size * 3 // 4))  # or few would be long enough to meet much
    for command in draw(st.lists(commands(), min_size=least, max_size=max_size)):
        repeat = bool(tape) and draw(st.integers(0, 9)) == 9
        tape.append(draw(st.sampled_from(tape)) if repeat else _aimed(command, book))
        book.apply(tape[-1])
    return tape


def _aimed(command: Command, book: ReferenceBook) -> Command:
    """Most cancels and amends hit an open order, and amends give it what it can take."""
    if not isinstance(command, Cancel | Amend) or command.number < 4:
        return command
    open_orders = [order for client in CLIENTS for order in book.open_orders(client)]
    if not open_orders:
        return command
    order = open_orders[command.number % len(open_orders)]
    command = replace(command, number=order.number)
    return _fitted(command, order) if isinstance(command, Amend) else command


def _fitted(amend: Amend, order: Order) -> Amend:
    """Only terms that the order has."""
    if order.type == "stop":
        amend = replace(amend, price_ticks=None)
    if order.status != "pending":
        amend = replace(amend, stop_price_ticks=None)
    return amend if amend != Amend(order.number) else replace(amend, quantity_lots=6)
