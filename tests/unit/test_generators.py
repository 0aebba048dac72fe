"""Proves that the generators produce what they promise: every kind of command and every value of
its fields, and flow in which these meet. A command, field or value that joins tests/commands.py,
and a refusal, reason or event that joins the reference, fails here until the tapes reach it.
"""

import json
import subprocess
import sys
import types
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable
from dataclasses import dataclass, fields, is_dataclass, replace
from functools import cache
from itertools import pairwise
from pathlib import Path
from typing import Literal, Union, get_args, get_origin, get_type_hints

import pytest
from hypothesis import HealthCheck, Phase, given, settings

import tests
from tests import commands, strategies, tapes
from tests.commands import SELF_TRADE_PREVENTIONS, Command, Place
from tests.reference import (
    LEVEL_TOTAL_LIMIT_LOTS,
    Event,
    EventType,
    MassCancelled,
    Placed,
    ReferenceBook,
    Refused,
    Status,
    Swept,
)
from tests.unit.test_reference import accepted

SEEDS = (1, 2, 3)
COUNT = 20_000


@cache
def seeded() -> list[Command]:
    """The adversarial tape, with limits that it meets."""
    return list(tapes.commands(SEEDS[0], COUNT, book=tapes.low_limits()))


@cache
def made_up() -> list[Command]:
    """What hypothesis draws, the same each time."""
    drawn: list[Command] = []

    @settings(
        max_examples=400,
        derandomize=True,
        database=None,
        phases=[Phase.generate],
        suppress_health_check=list(HealthCheck),
    )
    @given(strategies.tapes())
    def draw(tape: list[Command]) -> None:
        drawn.extend(tape)

    draw()
    return drawn


GENERATORS = pytest.mark.parametrize("generator", [seeded, made_up], ids=["tapes", "strategies"])


# Every command, every field, every value


def wanted(hint: object) -> list[Callable[[object], bool]]:
    """What must be seen of a field with this type; fails at a type that it does not know."""
    if get_origin(hint) is Literal:
        return [lambda value, one=one: value == one for one in get_args(hint)]
    if get_origin(hint) in (Union, types.UnionType):
        return [check for part in get_args(hint) for check in wanted(part)]
    if hint is types.NoneType:
        return [lambda value: value is None]
    if hint is bool:
        return [lambda value: value is True, lambda value: value is False]
    assert hint in (int, str), f"no check for {hint}"
    return [lambda value: isinstance(value, hint)]


def missing(made: Iterable[Command], kinds: Iterable[type]) -> set[str]:
    """Kinds, fields and values that were not made; of ints and texts at least two values."""
    values: dict[tuple[type, str], set[object]] = defaultdict(set)
    seen = set()
    for command in made:
        seen.add(type(command))
        for field in fields(command):
            values[type(command), field.name].add(getattr(command, field.name))
    lacking = {kind.__name__ for kind in kinds if kind not in seen}
    for kind in seen.intersection(kinds):
        for name, hint in get_type_hints(kind).items():
            found = values[kind, name]
            if not all(any(check(value) for value in found) for check in wanted(hint)):
                lacking.add(f"{kind.__name__}.{name}: {hint}, only {found}")
            if len(found) < 2:
                lacking.add(f"{kind.__name__}.{name}: always {found}")
    return lacking


def test_every_class_of_commands_is_a_command() -> None:
    classes = {
        one
        for one in vars(commands).values()
        if isinstance(one, type) and is_dataclass(one) and one.__module__ == commands.__name__
    }
    assert classes == set(get_args(Command))


@GENERATORS
def test_every_command_field_and_value_is_made(generator: Callable[[], list[Command]]) -> None:
    assert missing(generator(), get_args(Command)) == set()


@dataclass(frozen=True, slots=True)
class Unknown:
    """A command that no generator makes."""

    number: int


@dataclass(frozen=True, slots=True)
class Poor:
    """A command of which a generator makes too little."""

    mode: Literal["a", "b"]
    client: str
    engaged: bool
    limit: int | None = None


def test_the_guard_sees_what_is_missing() -> None:
    """Also where only a value is."""
    assert missing(seeded(), [Unknown]) == {"Unknown"}
    full = [Poor("a", "x", True, 1), Poor("b", "y", False, None)]
    assert missing(full, [Poor]) == set()  # type: ignore[arg-type]
    for change in ({"mode": "a"}, {"client": "x"}, {"engaged": True}, {"limit": 1}):
        poor = [replace(one, **change) for one in full]  # type: ignore[arg-type]
        assert missing(poor, [Poor]) != set(), change  # type: ignore[arg-type]


SHAPES = {
    *(("limit", tif) for tif in ("gtc", "gtd", "ioc", "fok")),
    *(("market", tif) for tif in ("ioc", "fok")),
    *(("stop", tif) for tif in ("gtc", "gtd", "ioc", "fok")),
    *(("stop_limit", tif) for tif in ("gtc", "gtd", "ioc", "fok")),
}


@GENERATORS
def test_orders_have_every_shape_and_no_other(generator: Callable[[], list[Command]]) -> None:
    places = [command for command in generator() if isinstance(command, Place)]
    assert {(place.type, place.time_in_force) for place in places} == SHAPES
    resting = {("limit", "gtc"), ("limit", "gtd")}
    icebergs = {*resting, ("stop_limit", "gtc"), ("stop_limit", "gtd")}
    assert {(p.type, p.time_in_force) for p in places if p.post_only} == resting
    assert {(p.type, p.time_in_force) for p in places if p.display_lots} == icebergs
    assert {(p.type, p.self_trade_prevention) for p in places} == {
        (kind, mode) for kind, _ in SHAPES for mode in SELF_TRADE_PREVENTIONS
    }
    for place in places:
        assert place.quantity_lots > 0
        assert (place.price_ticks is None) == (place.type in ("market", "stop"))
        assert (place.stop_price_ticks is not None) == (place.type in ("stop", "stop_limit"))
        assert (place.expires_us is not None) == (place.time_in_force == "gtd")
        assert place.display_lots is None or 1 <= place.display_lots <= place.quantity_lots


# Every outcome


REFUSALS = {
    "Place": {
        *("idempotency_key_reused", "instrument_halted", "cancel_only", "kill_switch"),
        *("expires_in_past", "duplicate_client_order_id", "risk_limit", "price_band"),
        *("triggers_outstanding", "stop_would_trigger", "post_only_would_cross"),
        "level_quantity_overflow",
    },
    "Amend": {
        *("order_not_found", "order_not_open", "instrument_halted", "cancel_only", "kill_switch"),
        *("not_amendable", "amend_below_filled", "risk_limit", "price_band"),
        *("triggers_outstanding", "stop_would_trigger", "post_only_would_cross"),
        "level_quantity_overflow",
    },
    "Cancel": {"order_not_found", "order_not_open", "instrument_halted"},
    "MassCancel": {"instrument_halted"},
    "ArmTimer": {"timer_due"},
}

End = tuple[Status, str | None]
OPEN: set[End] = {("open", None), ("partially_filled", None)}
FILLED: End = ("filled", None)
LIMITED: End = ("cancelled", "fill_limit")
PREVENTED: End = ("cancelled", "self_trade_prevented")
UNFILLED: End = ("cancelled", "fok_unfilled")
REMAINDER: End = ("cancelled", "ioc_remainder")
DRY: set[End] = {("cancelled", "no_liquidity"), ("cancelled", "price_band")}
OUTSIDE: End = ("cancelled", "price_band")
OVERFLOW: End = ("cancelled", "level_quantity_overflow")
EXPIRED: End = ("expired", "expired")
PENDING: End = ("pending", None)
WHOLE = {*OPEN, FILLED, LIMITED, PREVENTED}
CLIENT: End = ("cancelled", "cancelled_by_client")

# All that may become of an order in an event of its own, by event, type and time in force.
OWN_ENDS: dict[tuple[str, str, str], set[End]] = {
    ("place", "limit", "gtc"): WHOLE,
    ("place", "limit", "gtd"): WHOLE,
    ("place", "limit", "ioc"): {FILLED, LIMITED, PREVENTED, REMAINDER},
    ("place", "limit", "fok"): {FILLED, LIMITED, UNFILLED},
    ("place", "market", "ioc"): {FILLED, LIMITED, PREVENTED, *DRY},
    ("place", "market", "fok"): {FILLED, LIMITED, UNFILLED},
    **{("place", kind, tif): {PENDING} for kind, tif in SHAPES if "stop" in kind},
    ("trigger", "stop", "gtc"): {FILLED, LIMITED, PREVENTED, *DRY},
    ("trigger", "stop", "gtd"): {FILLED, LIMITED, PREVENTED, *DRY, EXPIRED},
    ("trigger", "stop", "ioc"): {FILLED, LIMITED, PREVENTED, *DRY},
    ("trigger", "stop", "fok"): {FILLED, LIMITED, UNFILLED},
    ("trigger", "stop_limit", "gtc"): {*WHOLE, OUTSIDE, OVERFLOW},
    ("trigger", "stop_limit", "gtd"): {*WHOLE, OUTSIDE, OVERFLOW, EXPIRED},
    ("trigger", "stop_limit", "ioc"): {FILLED, LIMITED, PREVENTED, OUTSIDE, REMAINDER},
    ("trigger", "stop_limit", "fok"): {FILLED, LIMITED, UNFILLED, OUTSIDE},
    ("amend", "limit", "gtc"): WHOLE,
    ("amend", "limit", "gtd"): WHOLE,
    ("amend", "stop_limit", "gtc"): {*WHOLE, PENDING},
    ("amend", "stop_limit", "gtd"): {*WHOLE, PENDING},
    **{
        ("amend", *shape): {PENDING}
        for shape in SHAPES - {("stop_limit", "gtc"), ("stop_limit", "gtd")}
        if "stop" in shape[0]
    },
    **{
        (event, *shape): {("cancelled", "cancel_after") if event == "cancel_after" else CLIENT}
        for event in ("cancel", "mass_cancel", "cancel_after")
        for shape in SHAPES
        if "stop" in shape[0] or shape in (("limit", "gtc"), ("limit", "gtd"))
    },
    **{("expire", kind, tif): {EXPIRED} for kind, tif in SHAPES if tif == "gtd"},
}
# And of a maker, whoever met it; `open` is an iceberg of no fills that was decremented.
MAKER_ENDS = {*OPEN, FILLED, PREVENTED, EXPIRED}
MATCHING = ("place", "amend", "trigger")


@dataclass
class Played:
    """What came of adversarial tapes."""

    books: list[ReferenceBook]
    refusals: dict[str, set[str]]
    answers: Counter[str]

    def events(self) -> list[Event]:
        return [event for book in self.books for event in book.events]


@pytest.fixture(scope="module")
def played() -> Played:
    """A tape of each seed, played to its end."""
    refusals: dict[str, set[str]] = defaultdict(set)
    outcome = Played([], refusals, Counter())
    for seed in SEEDS:
        book = tapes.low_limits()
        for command in tapes.commands(seed, COUNT, book=tapes.low_limits()):
            answer = book.apply(command)
            if isinstance(answer, Refused):
                refusals[type(command).__name__].add(answer.code)
            outcome.answers[_word(answer)] += 1
        book.check_invariants()
        outcome.books.append(book)
    return outcome


def _word(answer: object) -> str:
    if isinstance(answer, Swept):
        return f"more is {answer.more}"
    if isinstance(answer, Placed) and answer.replayed:
        return "replayed"
    if isinstance(answer, MassCancelled):
        return "mass cancel of some" if answer.orders else "mass cancel of none"
    return type(answer).__name__


def test_every_refusal_is_met(played: Played) -> None:
    assert played.refusals == REFUSALS


def test_every_event_and_status_is_met(played: Played) -> None:
    assert {event.type for event in played.events()} == set(get_args(EventType))
    statuses = {order.status for event in played.events() for order in event.orders}
    assert statuses == set(get_args(Status))


def by_event(ends: dict[tuple[str, str, str], set[End]]) -> dict[tuple[str, str], set[End]]:
    """Of all times in force together, and of amends for all types together: what else is too rare
    to be met by each.
    """
    together: dict[tuple[str, str], set[End]] = defaultdict(set)
    for (event, kind, _), some in ends.items():
        together[event, "any" if event == "amend" else kind] |= some
    return together


def test_every_end_of_an_order_is_met(played: Played) -> None:
    own: dict[tuple[str, str, str], set[End]] = defaultdict(set)
    makers: dict[str, set[End]] = defaultdict(set)
    for event in played.events():
        matches = event.type in MATCHING
        for order in event.orders[:1] if matches else event.orders:
            own[event.type, order.type, order.time_in_force].add((order.status, order.reason))
        for order in event.orders[1:] if matches else ():
            makers[event.type].add((order.status, order.reason))
    assert own.keys() == OWN_ENDS.keys()
    for kind, ends in own.items():
        assert ends <= OWN_ENDS[kind], kind
    assert by_event(own) == by_event(OWN_ENDS)
    assert makers == dict.fromkeys(MATCHING, MAKER_ENDS)


def test_every_answer_is_met_often(played: Played) -> None:
    words = {
        *("Placed", "Amended", "Cancelled", "Refused", "Done", "Ticked", "replayed"),
        *("more is True", "more is False", "mass cancel of some", "mass cancel of none"),
    }
    assert played.answers.keys() == words
    assert min(played.answers.values()) > 50


def refilled(event: Event) -> bool:
    """Whether an iceberg gave more than one part."""
    return max(Counter(trade.maker for trade in event.trades).values(), default=0) > 1


def squeezed(event: Event) -> bool:
    """Whether an iceberg found too little room for its refill, and so filled its level up."""
    full = {
        (change.side, change.price_ticks)
        for change in event.levels
        if change.total_lots == LEVEL_TOTAL_LIMIT_LOTS - 1
    }
    return any(
        order.rests
        and order.place[0] == event.sequence
        and order.place[1] > 0
        and (order.side, order.price_ticks) in full
        and order.visible_lots < min(order.display_lots or 0, order.remaining_lots)
        for order in event.orders
    )


def decremented(event: Event) -> bool:
    """Whether a maker was reduced by self-trade prevention."""
    traders = {trade.maker for trade in event.trades}
    return event.type in MATCHING and any(
        order.rests and order.number not in traders for order in event.orders[1:]
    )


INTERESTING: dict[str, tuple[Callable[[Event], bool], int]] = {
    "an iceberg is refilled several times": (refilled, 100),
    "an iceberg finds too little room": (squeezed, 2),
    "a maker is decremented": (decremented, 20),
    "a command trades at several prices": (
        lambda event: len({trade.price_ticks for trade in event.trades}) > 1,
        100,
    ),
    "an amend trades": (lambda event: event.type == "amend" and bool(event.trades), 20),
    "a trigger trades": (lambda event: event.type == "trigger" and bool(event.trades), 100),
    "a mass cancel takes several": (
        lambda event: event.type == "mass_cancel" and len(event.orders) > 1,
        20,
    ),
    "a timer is not yet done": (
        lambda event: bool(event.orders) and event.detail[-1:].isdigit(),
        20,
    ),
    "a timer finds nothing": (
        lambda event: event.type == "cancel_after" and event.detail.endswith("|"),
        20,
    ),
    "several expire at once": (
        lambda event: event.type == "expire" and len(event.orders) > 1,
        20,
    ),
}


@pytest.mark.parametrize("name", INTERESTING)
def test_what_is_rare_is_met_often_enough(played: Played, name: str) -> None:
    happens, least = INTERESTING[name]
    for book in played.books:
        assert sum(map(happens, book.events)) >= least


def test_stops_cascade_and_wait(played: Played) -> None:
    """Several triggers in a row after one command, and some only by the sweep."""
    for book in played.books:
        kinds = [event.type for event in book.events]
        runs = Counter((first, then) for first, then in pairwise(kinds) if then == "trigger")
        assert runs["place", "trigger"] > 50
        assert runs["trigger", "trigger"] > 50
        assert sum(runs.values()) - runs["place", "trigger"] - runs["trigger", "trigger"] > 20


def test_most_commands_do_something(played: Played) -> None:
    trades = sum(len(event.trades) for event in played.events())
    assert trades > COUNT * len(SEEDS) / 10
    assert played.answers["Refused"] < sum(played.answers.values()) / 2


def test_a_tape_needs_no_low_limits() -> None:
    """With the usual ones nothing waits, but all else is there."""
    book, seen = ReferenceBook(), set()
    for command in tapes.commands(4, 5000):
        answer = book.apply(command)
        seen.add(answer.code if isinstance(answer, Refused) else type(answer).__name__)
    book.check_invariants()
    assert "triggers_outstanding" not in seen
    assert len(seen) >= 20


# Seeds


def tape_and_book(seed: int, count: int) -> tuple[list[Command], ReferenceBook]:
    """An adversarial tape and the book that it leads to."""
    tape, book = list(tapes.commands(seed, count, book=tapes.low_limits())), tapes.low_limits()
    for command in tape:
        book.apply(command)
    return tape, book


def test_the_same_seed_gives_the_same_tape_and_book() -> None:
    (tape, book), (again, other) = tape_and_book(7, 2000), tape_and_book(7, 2000)
    assert tape == again
    assert book.digest() == other.digest()
    assert book.events == other.events
    assert tape_and_book(8, 2000)[0] != tape


def test_a_longer_tape_begins_with_the_shorter() -> None:
    assert tape_and_book(7, 500)[0] == tape_and_book(7, 1000)[0][:500]


# The realistic flow


def test_the_realistic_flow_has_the_orders_that_were_asked_for() -> None:
    flow = list(tapes.realistic_orders(seed=3, count=5000))
    limits = [place for place in flow if place.type == "limit"]
    assert len(limits) == 5000
    assert 20 < len(flow) - len(limits) < 250
    prices = [place.price_ticks for place in limits if place.price_ticks is not None]
    assert 5_700_000 <= min(prices) <= max(prices) <= 6_300_000
    assert list(tapes.realistic_orders(seed=3, count=5000)) == flow


def test_the_realistic_flow_can_do_without_bursts() -> None:
    flow = tapes.realistic_orders(seed=3, count=2000, market_share=0)
    assert {place.type for place in flow} == {"limit"}


def test_the_realistic_flow_is_densest_near_the_touch() -> None:
    book = ReferenceBook()
    behind = []  # ticks from the best price of its own side, of each order that comes to rest
    for place in tapes.realistic_orders(seed=4, count=5000):
        best = book.queue(place.side)[:1]
        if accepted(book, place).order.is_open and place.price_ticks is not None and best:
            behind.append(abs(place.price_ticks - best[0][0]))
    book.check_invariants()
    dollars = Counter(ticks // 100 for ticks in behind)
    assert dollars[0] > 2 * dollars[5] > 2 * dollars[20] > 0
    assert max(behind) > 10_000


@pytest.mark.parametrize(
    ("units", "decimals", "text"),
    [(123, 2, "1.23"), (5, 2, "0.05"), (1, 8, "0.00000001"), (10**15 + 1, 2, "10000000000000.01")],
)
def test_decimals_are_written_exactly(units: int, decimals: int, text: str) -> None:
    assert tapes.decimal_text(units, decimals) == text


def test_the_command_line_writes_rest_bodies() -> None:
    root = Path(tests.__file__).parents[1]
    line = [sys.executable, "-m", "tests.tapes", "--seed", "5", "--count", "20"]
    run = subprocess.run(line, cwd=root, capture_output=True, text=True, check=True)
    bodies = [json.loads(row) for row in run.stdout.splitlines()]
    flow = tapes.realistic_orders(seed=5, count=20)
    assert bodies == [tapes.rest_body(place) for place in flow]
    assert run.stderr == "seed 5\n"
