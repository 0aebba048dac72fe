"""Plays generated commands to the product, many in one round trip, and holds every answer, every
event and the whole book against the reference. As a program: one tape again, `--help`.
"""

import argparse
import copy
import itertools
import math
import os
import random
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import NamedTuple, Self

import fakeredis
from redis import Redis

from app.domain.events import parse_event
from app.engine.book import Books, Scripts
from app.engine.executor import (
    Call,
    DirectExecutor,
    EngineFault,
    Executor,
    PipelinedExecutor,
    Reply,
)
from app.engine.keys import book_keys
from tests import reference, tapes
from tests.commands import Command
from tests.reference import Answer, ReferenceBook
from tests.scripting import script, scripts_for
from tests.venue import (
    SYMBOL,
    TTL_S,
    EngineVenue,
    comparable_answer,
    comparable_event,
    event_of,
    play,
)

COMMANDS = int(os.environ.get("CROSSBOOK_TEST_COMMANDS") or 130_000)
"""Generated commands of one run of the suite over all servers; the soak takes more."""
TAPE_LENGTH = 2_500
"""Longer runs take more tapes: a book that grows old meets less."""
KINDS = 4
"""Of tapes, by the seed's remainder: every second sends several orders in one call, every fourth
has no stops.
"""
COMMANDS_AT_ONCE = 200
BOOK_EVERY = 2  # round trips; in between answers and events alone are compared

TICK = script("return {redis.call('HINCRBY', KEYS[1], 'time', ARGV[1])}")
EVENTS_AFTER = script("return redis.call('XRANGE', KEYS[8], '(' .. ARGV[1] .. '-0', '+')")


class _Asked(Exception):
    """What a command would ask of Redis."""

    def __init__(self, call: Call) -> None:
        super().__init__()
        self.call = call


class _Rehearsal:
    """An executor that finds out what would be asked, and later hands over what was answered."""

    def __init__(self, executor: Executor) -> None:
        self.executor = executor
        self.rehearses = False
        self.reply: Reply | Exception | None = None

    def run(self, call: Call) -> Reply:
        """The reply at hand, if there is one."""
        if self.rehearses:
            raise _Asked(call)
        reply, self.reply = self.reply, None
        if reply is None:
            return self.executor.run(call)
        if isinstance(reply, Exception):
            raise reply
        return reply

    def run_all(self, calls: Sequence[Call]) -> list[Reply | Exception]:
        """As the executor behind it."""
        return self.executor.run_all(calls)


class PipelinedVenue(EngineVenue):
    """The engine's venue, for many commands at once."""

    def __init__(self, client: Redis, scripts: Scripts | None = None, symbol: str = SYMBOL) -> None:
        super().__init__(client, scripts, symbol)
        is_real = type(client) is Redis
        self.rehearsal = _Rehearsal(
            PipelinedExecutor(client) if is_real else DirectExecutor(client)
        )
        self.executor = self.rehearsal  # type: ignore[assignment]
        self.books = Books(self.rehearsal, TTL_S, self.books.scripts, self.floors)

    def begin(self) -> None:
        """Makes the book, in a Redis that was emptied meanwhile."""
        self.books.open(self.symbol)
        self.floors.begin(self.client, self.keys.book)

    def at(self, symbol: str) -> Self:
        """The venue of another book, which need not be there yet, by the same connection."""
        other = copy.copy(self)
        other.symbol, other.keys = symbol, book_keys(symbol)
        return other

    def call_of(self, command: Command) -> Call:
        """What the command asks of Redis."""
        self.rehearsal.rehearses = True
        try:
            self.apply(command)
        except _Asked as asked:
            return asked.call
        finally:
            self.rehearsal.rehearses = False
        raise AssertionError(f"asks nothing of Redis: {command}")

    def answer_of(self, command: Command, reply: Reply | Exception) -> Answer:
        """The answer to a command whose call was answered so."""
        self.rehearsal.reply = reply
        return self.apply(command)

    def apply_all(self, commands: Sequence[Command], *, together: bool = False) -> list[Answer]:
        """Each command's answer, as if it were alone; `together`: one call of a script for as many
        as it takes, as when they come from many callers at once.
        """
        calls = [self.call_of(command) for command in commands]
        groups = _grouped(calls) if together else [[call] for call in calls]
        replies = self.rehearsal.run_all([_as_one(group) for group in groups])
        each = [
            answer
            for group, reply in zip(groups, replies, strict=True)
            for answer in _answers(group, reply)
        ]
        return [self.answer_of(*pair) for pair in zip(commands, each, strict=True)]

    def _tick(self, us: int) -> reference.Ticked:
        """One call, unlike the other venue's."""
        return reference.Ticked(int(self.executor.run(Call(TICK, self.keys, (us,)))[0]))

    def timed_events(self, after: int) -> list[tuple[int, reference.Event]]:
        """Time and event of the stream's entries after a sequence."""
        return self.read(self.executor.run(Call(EVENTS_AFTER, self.keys, (after,))))

    def read(self, entries: Reply) -> list[tuple[int, reference.Event]]:
        """Entries as a script returns them, names and values in turn."""
        return [self._timed(*entry) for entry in entries]

    def _timed(self, entry_id: bytes, flat: Sequence[bytes]) -> tuple[int, reference.Event]:
        texts = [text.decode() for text in flat]
        fields = dict(zip(texts[::2], texts[1::2], strict=True))
        event = parse_event(self.symbol, entry_id.decode(), fields)
        return event.time_us, event_of(event)


def _grouped(calls: Sequence[Call]) -> list[list[Call]]:
    """Neighbours that one call of their script takes."""
    groups: list[list[Call]] = []
    for call in calls:
        if groups and call.shared is not None and groups[-1][0].script is call.script:
            groups[-1].append(call)
        else:
            groups.append([call])
    return groups


def _as_one(group: Sequence[Call]) -> Call:
    if len(group) == 1:
        return group[0]
    args = [arg for call in group for arg in call.args]
    first = group[0]
    return Call(first.script, first.keys, (*(first.shared or ()), *args), None, first.floors)


def _answers(group: Sequence[Call], reply: Reply | Exception) -> list[Reply | Exception]:
    if len(group) == 1:
        return [reply]
    if isinstance(reply, Exception):
        raise reply
    assert len(reply) == len(group), "every order of a call is answered"
    return reply


def expected_events(book: ReferenceBook, after: int) -> list[tuple[int, reference.Event]]:
    """What `timed_events` must say."""
    return [
        (time_us, comparable_event(event))
        for (time_us, _), event in zip(book.past[after:], book.events[after:], strict=True)
    ]


class Heard(NamedTuple):
    """A command, and what the reference answered."""

    command: Command
    answer: Answer


class Recorder(ReferenceBook):
    """The reference, which keeps its answers: the generator's own book tells what is right."""

    def __init__(self, *limits: int) -> None:
        super().__init__(*limits)
        self.heard: list[Heard] = []

    def apply(self, command: Command) -> Answer:
        """As the reference does."""
        answer = super().apply(command)
        self.heard.append(Heard(command, answer))
        return answer

    @classmethod
    def like(cls, book: ReferenceBook) -> Self:
        """One with the limits of another."""
        return cls(book.max_fills, book.max_triggers, book.max_cancels, book.max_expiries)


@dataclass(frozen=True)
class Tape:
    """A generated tape: the same seed is the same tape."""

    seed: int
    count: int
    low_limits: bool

    def book(self) -> Recorder:
        """The reference at its beginning."""
        return Recorder.like(tapes.low_limits() if self.low_limits else ReferenceBook())

    def scripts(self) -> Scripts:
        """The scripts with its limits."""
        return scripts_for(self.book())

    @property
    def together(self) -> bool:
        """Whether several orders go into one call."""
        return self.seed % 2 == 1

    @property
    def stops(self) -> bool:
        """Whether there are stops."""
        return self.seed % KINDS != 1

    def commands(self, book: ReferenceBook) -> Iterator[Command]:
        """What is played, while `book`, at its beginning, follows."""
        return tapes.commands(self.seed, self.count, stops=self.stops, book=book)

    def again(self, count: int) -> str:
        """How to see it go wrong."""
        low = " --low-limits" if self.low_limits else ""
        return f"python -m tests.differential --seed {self.seed} --count {count}{low}"


def run_tape(venue: PipelinedVenue, tape: Tape) -> ReferenceBook:
    """All of the tape; AssertionError says how to repeat the first difference."""
    book, done = tape.book(), 0
    commands = tape.commands(book)
    for trip in itertools.count(1):
        before = book.sequence
        if not list(islice(commands, COMMANDS_AT_ONCE)):
            break
        try:
            _check_heard(venue, book, before, together=tape.together)
            if trip % BOOK_EVERY == 0:
                venue.check_against(book)
        except (AssertionError, EngineFault) as error:
            raise AssertionError(f"{tape.again(done + len(book.heard))}\n{error}") from error
        done += len(book.heard)
        book.heard.clear()
    venue.check_against(book)
    book.check_invariants()
    return book


def run_tapes(client: Redis, count: int, rng: random.Random, *, low_limits: bool) -> None:
    """At least `count` commands on a Redis that it empties, the kinds of tapes in turn."""
    venue = PipelinedVenue(client, Tape(0, 0, low_limits).scripts())
    for number in range(math.ceil(count / TAPE_LENGTH)):
        seed = KINDS * rng.randrange(2**32) + number % KINDS
        client.flushall()
        venue.begin()
        run_tape(venue, Tape(seed, min(count, TAPE_LENGTH), low_limits))


def _check_heard(venue: PipelinedVenue, book: Recorder, before: int, *, together: bool) -> None:
    """The commands heard since sequence `before`, by the product."""
    answers = venue.apply_all([heard.command for heard in book.heard], together=together)
    for heard, answer in zip(book.heard, answers, strict=True):
        expected = comparable_answer(heard.answer)
        assert answer == expected, (
            f"{heard.command}\n  reference: {expected}\n  product:   {answer}"
        )
    told, expected_told = venue.timed_events(before), expected_events(book, before)
    for event, wanted in zip(told, expected_told, strict=False):
        assert event == wanted, f"event differs\n  reference: {wanted}\n  product:   {event}"
    assert len(told) == len(expected_told), "as many events"


def main() -> None:
    """Plays one tape command by command and shows the first that product and reference differ in;
    where there is none, many commands at once. Empties the Redis at --url.
    """
    parser = argparse.ArgumentParser(prog="python -m tests.differential", description=main.__doc__)
    parser.add_argument("--seed", type=int, required=True)
    parser.add_argument("--count", type=int, required=True)
    parser.add_argument("--low-limits", action="store_true")
    parser.add_argument("--url", help="of a Redis to be emptied; fakeredis if not given")
    chosen = parser.parse_args()
    tape = Tape(chosen.seed, chosen.count, chosen.low_limits)
    client = Redis.from_url(chosen.url) if chosen.url else fakeredis.FakeRedis()
    client.flushall()
    venue, book = EngineVenue(client, tape.scripts()), tape.book()
    for position, command in enumerate(tape.commands(tape.book()), 1):
        sys.stdout.write(f"{position} {command}\n")
        play(venue, book, command)
        venue.check_against(book)
    sys.stdout.write("no difference one by one\n")
    client.flushall()
    run_tape(PipelinedVenue(client, tape.scripts()), tape)
    sys.stdout.write("nor many at once\n")


if __name__ == "__main__":
    main()
