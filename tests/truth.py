"""Plays order flow that others published, with the results that they gave, against any book that
can be wrapped as a Venue. Knows the files in tests/data/truth and nothing of how a book works.
"""

import csv
import gzip
import json
from collections.abc import Callable, Collection, Iterable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, NamedTuple, Protocol, TypeAlias, runtime_checkable

from tests.commands import SIDES, Place, SelfTradePrevention, Side, TimeInForce

DATA = Path(__file__).parent / "data" / "truth"
# The files' origin, where a checkout has it beside itself; the copies in DATA are complete.
SHARED = Path(__file__).parents[2] / "shared" / "truth"

# Binance's words for the modes of self-trade prevention.
PREVENTIONS: dict[str, SelfTradePrevention] = {
    "NONE": "none",
    "EXPIRE_TAKER": "cancel_newest",
    "EXPIRE_MAKER": "cancel_oldest",
    "EXPIRE_BOTH": "cancel_both",
    "DECREMENT": "decrement",
}
FEATURES = frozenset({"limit", "market", "ioc", "fok", "cancel", "replace", "amend"}) | {
    f"stp:{mode}" for mode in PREVENTIONS
}
CHECKS = frozenset({"trades", "found", "book", "resting", "best_changes", "expect"})
ABOUT = frozenset({"case", "source", "needs", "steps"})
TIMES_IN_FORCE: dict[str, TimeInForce] = {"GTC": "gtc", "IOC": "ioc", "FOK": "fok"}


class Fill(NamedTuple):
    """One fill of the order just placed, against the resting order `maker`."""

    maker: int
    price_ticks: int
    quantity_lots: int


class Taken(NamedTuple):
    """What a venue made of a new order: its number, and its fills in order."""

    number: int
    fills: list[Fill]


class Standing(NamedTuple):
    """An order as it stands."""

    quantity_lots: int
    filled_lots: int
    reason: str | None


class Venue(Protocol):
    """A fresh, empty book of one instrument with tick 1 and lot 1."""

    def place(self, place: Place) -> Taken:
        """Must accept the order."""

    def cancel(self, number: int) -> bool:
        """Whether the order was open, and so was cancelled."""

    def amend(self, number: int, quantity_lots: int) -> bool:
        """Gives the order a smaller quantity; whether it was open."""

    def standing(self, number: int) -> Standing:
        """Any order, also one that is over."""

    def queue(self, side: Side) -> list[tuple[int, int, int]]:
        """(price, remaining, number) best first, first come first."""


@runtime_checkable
class Replaces(Protocol):
    """A venue that can replace in one step; for the others, replace is cancel and place."""

    def replace(self, number: int, place: Place) -> Taken | None:
        """Gives the order a new price, and a quantity that is now to be left; it loses its
        priority. None where the order was not open.
        """


@dataclass(frozen=True, slots=True)
class Step:
    """One step of a case. A replace keeps the side and owner of the order."""

    op: str
    id: str
    side: Side | None = None
    type: str = "limit"
    tif: str | None = None
    px: int | None = None
    qty: int = 0
    user: str = "anonymous"
    stp: str = "NONE"
    note: str = ""

    def as_place(self) -> Place:
        """A new order that carries the step's id as its client_order_id."""
        assert self.op == "new"
        assert self.side is not None
        place = Place(
            self.user,
            self.side,
            "market",
            "ioc",
            self.qty,
            client_order_id=self.id,
            self_trade_prevention=PREVENTIONS[self.stp],
        )
        if self.type == "market":
            return place
        assert self.type == "limit"
        assert self.tif is not None
        tif = TIMES_IN_FORCE[self.tif]
        return replace(place, type="limit", time_in_force=tif, price_ticks=self.px)


@dataclass(frozen=True, slots=True)
class Case:
    """Steps, and by kind of check what must hold after them."""

    name: str
    source: str
    needs: frozenset[str]
    steps: tuple[Step, ...]
    expected: dict[str, Any]


@dataclass(frozen=True, slots=True)
class FlashRow:
    """One operation of the flash1 workload; `found` tells whether its order must be there."""

    op: str
    id: str
    side: Side
    price_ticks: int
    quantity_lots: int
    tif: str
    found: bool
    fills: tuple[tuple[str, int, int], ...]  # maker's id, price, quantity

    def as_place(self) -> Place:
        """The order that a limit or a replace asks for."""
        tif = TIMES_IN_FORCE[self.tif or "GTC"]  # a replace states none
        lots, ticks = self.quantity_lots, self.price_ticks
        return Place("flash1", self.side, "limit", tif, lots, ticks, client_order_id=self.id)


# Reading


def case_files() -> list[Path]:
    """Every file of cases; one from the shared folder only where its copy is missing or differs."""
    return _with_shared("*.jsonl")


def flash1_files() -> list[Path]:
    """Every file of the flash1 workload, chosen as case_files does."""
    return _with_shared("flash1*.csv.gz")


def load_cases(path: Path) -> list[Case]:
    """All cases of a .jsonl file. Raises ValueError at a key that no check here understands."""
    return [_case(json.loads(line)) for line in path.read_text().splitlines() if line.strip()]


def load_flash1(path: Path) -> list[FlashRow]:
    """All operations of a flash1 .csv.gz file."""
    with gzip.open(path, "rt", newline="") as lines:
        return [_flash_row(row) for row in csv.DictReader(lines)]


def needs_supported(case: Case, features: Collection[str] = FEATURES) -> bool:
    """Whether a book with these features can play the case. Self-trade prevention is `stp:<MODE>`
    in Binance's words.
    """
    return case.needs <= frozenset(features)


def _with_shared(pattern: str) -> list[Path]:
    ours = {path.name: path for path in DATA.glob(pattern)}
    theirs = [
        path
        for path in sorted(SHARED.glob(pattern))
        if path.name not in ours or path.read_bytes() != ours[path.name].read_bytes()
    ]
    return sorted(ours.values()) + theirs


def _case(raw: dict[str, Any]) -> Case:
    unknown = raw.keys() - ABOUT - CHECKS
    if unknown:
        raise ValueError(f"{raw.get('case')}: nothing here checks {sorted(unknown)}")
    expected = {key: raw[key] for key in raw.keys() & CHECKS}
    steps = tuple(Step(**step) for step in raw["steps"])
    return Case(raw["case"], raw["source"], frozenset(raw["needs"]), steps, expected)


def _flash_row(row: dict[str, str]) -> FlashRow:
    found = row["expect"] != "reject"
    fills = row["expect"].split("|") if found and row["expect"] else []
    price, quantity = int(row["px"] or 0), int(row["qty"] or 0)
    side: Side = "sell" if row["side"] == "sell" else "buy"
    return FlashRow(
        row["op"], row["id"], side, price, quantity, row["tif"], found, tuple(map(_fill, fills))
    )


def _fill(text: str) -> tuple[str, int, int]:
    maker, price, quantity = text.split(":")
    return maker, int(price), int(quantity)


# Playing

IdFill: TypeAlias = tuple[str, int, int]  # maker's id, price, quantity


class Session:
    """A venue spoken to in the files' own ids, and what it has said so far."""

    def __init__(self, venue: Venue) -> None:
        self.venue = venue
        self.placed: dict[str, Place] = {}  # last terms by id
        self.trades: list[tuple[str, str, int, int]] = []  # maker, taker, price, quantity
        self.found: list[bool] = []  # one per cancel and replace
        self.best_changes: list[tuple[Side, int | None, int | None]] = []
        self._best: dict[Side, tuple[int | None, int | None]] = {}
        self._numbers: dict[str, int] = {}
        self._ids: dict[int, str] = {}

    def place(self, place: Place) -> list[IdFill]:
        """The new order's fills."""
        return self._note(place, self.venue.place(place))

    def cancel(self, order_id: str) -> bool:
        """Whether the order was open."""
        number = self._numbers.get(order_id)
        self.found.append(number is not None and self.venue.cancel(number))
        return self.found[-1]

    def replace(self, place: Place) -> list[IdFill] | None:
        """The fills at the new terms; None where the order was not open."""
        order_id = _id_of(place)
        if not isinstance(self.venue, Replaces):
            return self.place(place) if self.cancel(order_id) else None
        number = self._numbers.get(order_id)
        taken = None if number is None else self.venue.replace(number, place)
        self.found.append(taken is not None)
        return None if taken is None else self._note(place, taken)

    def amend(self, order_id: str, quantity_lots: int) -> None:
        """To a smaller quantity."""
        number = self._numbers.get(order_id)
        self.found.append(number is not None and self.venue.amend(number, quantity_lots))
        if self.found[-1]:
            terms = self.placed[order_id]
            self.placed[order_id] = replace(terms, quantity_lots=quantity_lots)

    def prevented(self, order_id: str) -> int:
        """Lots that self-trade prevention took from the order: off its quantity, or its rest."""
        standing = self.venue.standing(self._numbers[order_id])
        taken_off = self.placed[order_id].quantity_lots - standing.quantity_lots
        if standing.reason == "self_trade_prevented":
            return taken_off + standing.quantity_lots - standing.filled_lots
        return taken_off

    def queue(self, side: Side) -> list[tuple[int, int, str]]:
        """(price, remaining, id) best first, first come first."""
        return [(price, lots, self._ids[number]) for price, lots, number in self.venue.queue(side)]

    def watch_best(self) -> None:
        """Adds to best_changes what differs from the last look; an unwatched book is empty."""
        for side in SIDES:
            best = self._best_of(side)
            if best != self._best.get(side, (None, None)):
                self._best[side] = best
                self.best_changes.append((side, *best))

    def _best_of(self, side: Side) -> tuple[int | None, int | None]:
        queue = self.venue.queue(side)
        if not queue:
            return None, None
        price = queue[0][0]
        return price, sum(lots for at, lots, _ in queue if at == price)

    def _note(self, place: Place, taken: Taken) -> list[IdFill]:
        order_id = _id_of(place)
        self.placed[order_id] = place
        self._numbers[order_id] = taken.number
        self._ids[taken.number] = order_id
        fills = [(self._ids[maker], price, lots) for maker, price, lots in taken.fills]
        self.trades += [(maker, order_id, price, lots) for maker, price, lots in fills]
        return fills


def check_flash1(venue: Venue, rows: Iterable[FlashRow]) -> None:
    """Compares each operation's fills, and whether it found its order, as it happens."""
    session = Session(venue)
    for position, row in enumerate(rows, start=1):
        found, fills = _play_flash(session, row)
        assert (found, fills) == (row.found, list(row.fills)), f"operation {position}: {row}"


def check_case(venue: Venue, case: Case) -> None:
    """Plays the case and checks everything that it states."""
    session = Session(venue)
    for step in case.steps:
        _play(session, step)
        session.watch_best()
    for check in sorted(case.expected):
        seen, wanted = _SEEN[check](session), _wanted(case, check)
        assert seen == wanted, f"{case.name}: {check}: {seen} instead of {wanted}"


def _play_flash(session: Session, row: FlashRow) -> tuple[bool, list[IdFill]]:
    if row.op == "cancel":
        return session.cancel(row.id), []
    if row.op == "limit":
        return True, session.place(row.as_place())
    assert row.op == "replace", row
    fills = session.replace(row.as_place())
    return fills is not None, fills or []


def _play(session: Session, step: Step) -> None:
    if step.op == "new":
        session.place(step.as_place())
    elif step.op == "cancel":
        session.cancel(step.id)
    elif step.op == "replace":
        terms = session.placed[step.id]
        session.replace(replace(terms, price_ticks=step.px, quantity_lots=step.qty))
    elif step.op == "amend":
        session.amend(step.id, step.qty)
    else:
        raise ValueError(f"no venue can do this step: {step}")


def _id_of(place: Place) -> str:
    assert place.client_order_id is not None
    return place.client_order_id


# Checking


def _book(session: Session) -> dict[str, list[tuple[int, int, str]]]:
    return {"bids": session.queue("buy"), "asks": session.queue("sell")}


def _resting(session: Session) -> list[str]:
    return sorted(order_id for side in SIDES for _, _, order_id in session.queue(side))


def _expect(session: Session) -> dict[str, dict[str, object]]:
    resting = set(_resting(session))
    outcomes: dict[str, dict[str, object]] = {}
    for order_id, place in session.placed.items():
        executed = sum(lots for *both, _, lots in session.trades if order_id in both)
        over = "filled" if executed == place.quantity_lots else "gone"
        state = "resting" if order_id in resting else over
        prevented = session.prevented(order_id)
        outcomes[order_id] = {"executed": executed, "prevented": prevented, "state": state}
    return outcomes


_SEEN: dict[str, Callable[[Session], object]] = {
    "trades": lambda session: session.trades,
    "found": lambda session: session.found,
    "book": _book,
    "resting": _resting,
    "best_changes": lambda session: session.best_changes,
    "expect": _expect,
}
assert _SEEN.keys() == CHECKS


def _wanted(case: Case, check: str) -> object:
    """What a case states, in the shape in which it is seen."""
    stated = case.expected[check]
    if check in ("trades", "best_changes"):
        return [tuple(row) for row in stated]
    if check == "book":
        return {side: [tuple(row) for row in rows] for side, rows in stated.items()}
    if check == "resting":
        return sorted(stated)
    if check == "expect":
        # `status` is the same in Binance's own words.
        keys = ("executed", "prevented", "state")
        return {order: {key: outcome[key] for key in keys} for order, outcome in stated.items()}
    return stated
