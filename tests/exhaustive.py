"""Every sequence of a few commands over a small alphabet, held against the reference: what goes
wrong, mostly goes wrong small. The tree of prefixes is walked, so that a prefix is executed once:
Redis copies its book for each command that follows.

What is counted once:
- A command that changes nothing (refused, nothing to do) is not followed by another: the sequence
  without it is in the tree, and that it changed nothing is what is compared.
- Client `b` sends plain limits alone, and `a` all that is special: with the two swapped it is the
  same sequence, since rules ask whether clients are equal, never who they are.
Buys and sells are both there: STP-4 lets buy stops go first, and bands and notionals are no
mirror images.
"""

import os
import zlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from typing import NamedTuple, TypeAlias

from redis import Redis

from app.engine.book import Scripts
from app.engine.executor import Call
from app.engine.keys import book_keys
from tests.commands import (
    Amend,
    ArmTimer,
    Cancel,
    Command,
    KillSwitch,
    MassCancel,
    Place,
    Sweep,
    Tick,
    iceberg,
    limit,
    market,
    stop,
    stop_limit,
)
from tests.differential import EVENTS_AFTER, PipelinedVenue, expected_events
from tests.reference import START_US, Answer, Order, ReferenceBook
from tests.scripting import script
from tests.venue import comparable_answer

USUAL_SHARE = 300
SHARE = int(os.environ.get("CROSSBOOK_TEST_SHARE") or USUAL_SHARE)
"""One in so many of the sequences of four and five commands is tried; 1 in `make soak`: all, which
are millions. Shorter ones are tried in every run.
"""
SEQUENCES_MIN = 50_000
"""So many there are with that share, or with a larger part."""
MAX_LENGTH = 5
TICK_US = 1000
ROOT_LENGTH = 3
"""Prefixes whose followers are walked together, as one or two round trips."""
BOOK_EVERY = 100
"""Of longer sequences, how many have one whole book compared; events and answers all have."""

# KEYS of one book, then of the other, which must not be there.
FORK = script("""
for i = 1, #KEYS / 2 do redis.call('COPY', KEYS[i], KEYS[i + #KEYS / 2]) end
return {}
""")

Letter: TypeAlias = Callable[[ReferenceBook], Command]


def _fixed(command: Command) -> Letter:
    return lambda book: command


def _open(book: ReferenceBook) -> list[Order]:
    return [order for order in book.orders.values() if order.is_open]


def _oldest(book: ReferenceBook) -> int:
    """Number of the oldest open order; of one that is not open where there is none."""
    return next((order.number for order in _open(book)), 1)


def _newest(book: ReferenceBook) -> Order | None:
    found = _open(book)
    return found[-1] if found else None


def _amend(book: ReferenceBook, lots: int = 0, *, moves: bool = False) -> Command:
    """Of the newest open order: `lots` more or less, or price and stop price to the other one."""
    order = _newest(book)
    if order is None:
        return Amend(1, quantity_lots=1)
    other = {10: 11, 11: 10}
    return Amend(
        order.number,
        quantity_lots=order.quantity_lots + lots if lots and order.quantity_lots + lots else None,
        price_ticks=other[order.price_ticks] if moves and order.price_ticks else None,
        stop_price_ticks=(
            other[order.trigger_ticks] if moves and order.status == "pending" else None
        ),
    )


def _dated(order: Place) -> Place:
    return replace(order, time_in_force="gtd", expires_us=START_US + TICK_US)


PLAIN = tuple(
    _fixed(limit(client, side, price, lots))
    for client, side, price, lots in (
        ("a", "buy", 10, 2),
        ("a", "sell", 10, 2),
        ("a", "sell", 11, 1),
        ("b", "buy", 10, 1),
        ("b", "buy", 11, 2),
        ("b", "sell", 10, 1),
        ("b", "sell", 11, 2),
    )
)
SPECIAL = tuple(
    _fixed(place)
    for place in (
        replace(limit("a", "buy", 11, 2), time_in_force="ioc"),
        replace(limit("a", "sell", 10, 2), time_in_force="fok"),
        replace(limit("a", "sell", 11, 1), post_only=True),
        _dated(limit("a", "buy", 11, 1)),
        iceberg("a", "sell", 10, 2, 1),
        market("a", "buy", 2),
        replace(market("a", "sell", 2), time_in_force="fok"),
        stop("a", "buy", 11, 1),
        stop_limit("a", "sell", 10, 10, 2),
        replace(limit("a", "sell", 10, 2), self_trade_prevention="cancel_newest"),
        replace(limit("a", "buy", 11, 2), self_trade_prevention="cancel_oldest"),
        replace(limit("a", "sell", 10, 1), self_trade_prevention="cancel_both"),
        replace(limit("a", "buy", 11, 2), self_trade_prevention="decrement"),
    )
)
CHANGES: tuple[Letter, ...] = (
    lambda book: Cancel(_oldest(book)),
    lambda book: _amend(book, 1),
    lambda book: _amend(book, -1),
    lambda book: _amend(book, moves=True),
    _fixed(MassCancel("a")),
    _fixed(ArmTimer("a", TICK_US)),
    _fixed(KillSwitch("a", engaged=True)),
    _fixed(Tick(TICK_US)),
    _fixed(Sweep()),
)
ALPHABET: tuple[Letter, ...] = PLAIN + SPECIAL + CHANGES


def low_limits() -> ReferenceBook:
    """A fresh book whose limits five commands meet."""
    return ReferenceBook(max_fills=2, max_triggers=1, max_cancels=1, max_expiries=1)


class _Node(NamedTuple):
    """A sequence that may go on, and its book in Redis."""

    letters: tuple[int, ...]
    book: ReferenceBook
    symbol: str


class _Next(NamedTuple):
    """A command after a node, and what the reference makes of it."""

    node: _Node
    letter: int
    command: Command
    answer: Answer
    book: ReferenceBook
    symbol: str

    @property
    def changes(self) -> bool:
        """Whether the book is another than before."""
        return self.symbol != self.node.symbol


class Walk:
    """Walks the tree, or a part of it, on a Redis that it empties."""

    def __init__(self, client: Redis, scripts: Scripts | None, start: ReferenceBook) -> None:
        self.client = client
        self.start = start
        self.venue = PipelinedVenue(client, scripts)
        self.sequences = 0
        self._symbols = 0

    def run(self, *, share: int = 1, length: int = MAX_LENGTH) -> int:
        """All sequences of at most `length` that go on from every `share`th prefix of ROOT_LENGTH,
        and all that are shorter; how many there were.
        """
        self.sequences = 0
        for node in self._roots(min(ROOT_LENGTH, length)):
            if length > ROOT_LENGTH and zlib.crc32(bytes(node.letters)) % share == 0:
                self._walk_from(node, length)
        return self.sequences

    def _roots(self, length: int) -> Iterator[_Node]:
        """Prefixes of ROOT_LENGTH, each without its book."""
        nodes = [_Node((), self.start, "")]
        for _ in range(length):
            following = []
            for node in nodes:
                self._forget()
                following += self._step([self._again(node)])
            nodes = following
        yield from nodes

    def _forget(self) -> None:
        self.client.flushall()
        self._symbols = 0

    def _walk_from(self, node: _Node, length: int) -> None:
        self._forget()
        nodes = [self._again(node)]
        for _ in range(length - len(node.letters)):
            nodes = self._step(nodes)

    def _again(self, node: _Node) -> _Node:
        """The node with its book in Redis, made from the beginning."""
        symbol = self._symbol()
        venue = self.venue.at(symbol)
        venue.begin()
        book = self.start.copy()
        for letter in node.letters:
            command = ALPHABET[letter](book)
            book.apply(command)
            venue.apply(command)
        return node._replace(symbol=symbol)

    def _step(self, nodes: Sequence[_Node]) -> list[_Node]:
        """Every command after each of the nodes; those that may go on."""
        following = [step for node in nodes for step in self._following(node)]
        calls = [call for step in following for call in self._calls(step)]
        replies = iter(self.venue.rehearsal.run_all(calls))
        for step in following:
            if step.changes:
                next(replies)
            self._check(step, next(replies), next(replies))
        self.sequences += len(following)
        return [
            _Node((*step.node.letters, step.letter), step.book, step.symbol)
            for step in following
            if step.changes
        ]

    def _following(self, node: _Node) -> list[_Next]:
        """Those that change nothing first, on the node's own book."""
        found = []
        for letter, make in enumerate(ALPHABET):
            book = node.book.copy()
            command = make(book)
            answer = book.apply(command)
            changes = book.sequence > node.book.sequence or isinstance(command, Tick)
            symbol = self._symbol() if changes else node.symbol
            found.append(_Next(node, letter, command, answer, book, symbol))
        return sorted(found, key=lambda step: step.changes)

    def _calls(self, step: _Next) -> list[Call]:
        """Copy the book where it will change; the command; its events."""
        venue = self.venue.at(step.symbol)
        after = step.node.book.sequence
        calls = [venue.call_of(step.command), Call(EVENTS_AFTER, venue.keys, (after,))]
        if step.changes:
            keys = (*book_keys(step.node.symbol), *venue.keys)
            calls.insert(0, Call(FORK, keys, ()))
        return calls

    def _check(self, step: _Next, reply: object, events: object) -> None:
        venue = self.venue.at(step.symbol)
        try:
            answer = venue.answer_of(step.command, reply)  # type: ignore[arg-type]
            expected = comparable_answer(step.answer)
            assert answer == expected, f"reference: {expected}\n  product:   {answer}"
            told = venue.read(events)  # type: ignore[arg-type]
            wanted = expected_events(step.book, step.node.book.sequence)
            assert told == wanted, f"reference: {wanted}\n  product:   {told}"
            letters = (*step.node.letters, step.letter)
            if len(letters) < ROOT_LENGTH or zlib.crc32(bytes(letters)) % BOOK_EVERY == 0:
                venue.check_against(step.book)
        except AssertionError as error:
            raise AssertionError(f"{self._story(step)}\n  {error}") from error

    def _story(self, step: _Next) -> str:
        """The shortest way to see it again: the commands."""
        book, told = self.start.copy(), []
        for letter in step.node.letters:
            command = ALPHABET[letter](book)
            book.apply(command)
            told.append(command)
        return "\n".join(map(str, [*told, step.command]))

    def _symbol(self) -> str:
        self._symbols += 1
        return f"S{self._symbols}"
