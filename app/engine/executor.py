"""How a script call travels to Redis and its answer back.

`PipelinedExecutor` lets concurrent callers of one process share one connection: whoever comes first
sends everything that waits, in one write, and reads the answers for all. Under load a batch is one
turn of Redis's event loop and so one fsync of the append-only file, which is what makes
`appendfsync always` cheap. A caller's own calls stay together and in order. A call whose answer did
not come is never sent again by itself: nobody can know whether it happened. New orders and cancels
of different callers for one book go into one run of their script, which saves Redis a quarter of
what they cost; they keep the order in which they came. Only where an order of a run meets very many
makers does the script leave the rest of that run (lua/run_orders.lua), which then goes with the
next write.
"""

import re
from collections import deque
from collections.abc import Iterable, Sequence
from itertools import groupby
from threading import Lock
from time import monotonic
from typing import Any, NamedTuple, Protocol, cast

from hiredis import pack_command
from redis import Redis
from redis.connection import AbstractConnection
from redis.exceptions import (
    BusyLoadingError,
    ConnectionError,
    NoScriptError,
    OutOfMemoryError,
    ReadOnlyError,
    RedisError,
    ResponseError,
    TimeoutError,
)

from app.engine.floors import Floors
from app.engine.scripts import Script

MAX_WAITING_CALLS = 4096
"""Calls that may wait for a turn in one process; beyond it callers are refused at once."""
MAX_BATCH_CALLS = 256
"""Calls sent in one write: bounds how long the first of them waits for the last. A caller's own
calls are never divided, so a turn that is larger is a write by itself.
"""
MAX_GROUPED_CALLS = 32
"""Calls of one script run: what a script costs before it looks at an order is shared well by so
many, and they hold Redis for less than a millisecond unless they trade much.
"""
NOT_NOW = re.compile(
    r"(?:^|-)(BUSY|LOADING|READONLY|OOM|MISCONF|NOREPLICAS|MASTERDOWN|CLUSTERDOWN|TRYAGAIN)\b"
)
"""Replies by which Redis says that it takes no commands or no writes at present; scripts have
written nothing before them. Redis 6.2 puts a script's into a sentence, after a dash.
"""
NOT_NOW_ERRORS = (BusyLoadingError, NoScriptError, OutOfMemoryError, ReadOnlyError)
"""The same where redis-py has taken the word off the message; and a script that Redis forgot in the
middle of a caller's calls.
"""
IDLE_CHECK_AFTER_S = 0.01
"""A connection unused for this long is looked at before use: Redis may have gone meanwhile."""

Reply = list[Any]


class EngineUnavailable(Exception):
    """Redis cannot be reached or takes no writes; the command was not carried out."""


class OutcomeUnknown(EngineUnavailable):
    """The connection was lost after the command was sent; it may or may not have happened."""


class EngineFault(Exception):
    """A script failed where none may: a defect, or a Redis that is set up wrongly."""


class Call(NamedTuple):
    """A script to run: its keys, all of one instrument, and its arguments.

    `shared` is for scripts that take several calls at once and reply with a list, one answer for
    each: arguments that come once, before those of the calls. None: it is no such script. `floors`,
    where they are given, are what the first arguments come from, as they are when the call is sent:
    the first key is the book's.
    """

    script: Script
    keys: tuple[str, ...]
    args: Sequence[str | int]
    shared: tuple[str | int, ...] | None = None
    floors: Floors | None = None

    @property
    def head(self) -> "Command":
        """The command up to the call's own arguments."""
        standing = self.floors.arguments(self.keys[0]) if self.floors else ()
        shared = self.shared or ()
        return ("EVALSHA", self.script.sha, len(self.keys), *self.keys, *standing, *shared)

    @property
    def head_with_source(self) -> "Command":
        """As `head`, for a Redis that may not know the script."""
        return ("EVAL", self.script.source, *self.head[2:])

    def answer(self, reply: Reply) -> Reply:
        """The call's own answer in the reply to `command`."""
        return reply if self.shared is None else cast(Reply, reply[0])


class Executor(Protocol):
    """Runs a script with an instrument's keys; returns Redis's reply, strings as bytes."""

    def run(self, call: Call) -> Reply:
        """Run a script once.

        Raises:
            EngineUnavailable: nothing was done; OutcomeUnknown: nobody knows; EngineFault: a bug.
        """
        ...

    def run_all(self, calls: Sequence[Call]) -> list[Reply | Exception]:
        """Run each call once, in their order, sent together; of each its reply, or the exception
        that `run` would raise. One that fails does not keep the next from running.
        """
        ...


def _as_ours(error: RedisError) -> Exception:
    """The error of this module that says the same as Redis's."""
    if isinstance(error, NOT_NOW_ERRORS) or NOT_NOW.search(str(error)):
        return EngineUnavailable(str(error))
    if isinstance(error, (ConnectionError, TimeoutError)):
        return OutcomeUnknown(str(error))
    return EngineFault(str(error))


class DirectExecutor:
    """One call, one round trip: for commands, tools and tests."""

    def __init__(self, client: "Redis") -> None:
        self._client = client

    def run(self, call: Call) -> Reply:
        """See `Executor.run`."""
        try:
            return call.answer(self._evalsha(call))
        except RedisError as error:
            raise _as_ours(error) from error

    def _evalsha(self, call: Call) -> Reply:
        try:
            return cast(Reply, self._client.execute_command(*call.head, *call.args))
        except NoScriptError:
            return cast(Reply, self._client.execute_command(*call.head_with_source, *call.args))

    def run_all(self, calls: Sequence[Call]) -> list[Reply | Exception]:
        """See `Executor.run_all`."""
        pipeline = self._client.pipeline(transaction=False)
        for call, head in zip(calls, _self_loading_heads(calls), strict=True):
            pipeline.execute_command(*head, *call.args)
        try:
            replies = pipeline.execute(raise_on_error=False)
        except RedisError as error:
            return [_as_ours(error)] * len(calls)
        return [
            _as_ours(each) if isinstance(each, RedisError) else call.answer(each)
            for call, each in zip(calls, replies, strict=True)
        ]


Command = tuple[str | int, ...]


def _self_loading_heads(calls: Sequence[Call]) -> list[Command]:
    """Heads of calls whose order counts, so that they need nothing of Redis's script cache: a call
    that had to be repeated would come after those that followed it. The first of each script brings
    its source along, which leaves it in the cache for the others.
    """
    brought: set[str] = set()
    heads = []
    for call in calls:
        heads.append(call.head if call.script.sha in brought else call.head_with_source)
        brought.add(call.script.sha)
    return heads


def _bulk(texts: Sequence[str | int]) -> bytes:
    """Texts as a command on the wire has them, after the line that counts them."""
    # Its stub means tuples of one.
    packed = cast(bytes, pack_command(tuple(texts)))  # type: ignore[arg-type]
    return packed[packed.index(b"\r\n") + 2 :]


class Sent:
    """One call on its way, and what became of it. Packed by its caller, whose fault it is if it
    cannot be.
    """

    __slots__ = ("call", "outcome", "packed_args")

    def __init__(self, call: Call) -> None:
        self.call = call
        self.packed_args = _bulk(call.args)
        self.outcome: Reply | Exception | None = None


class Packet:
    """One command on the wire and the calls that it carries: one, or a group of the same script."""

    __slots__ = ("may_repeat", "packed", "sent")

    def __init__(self, sent: list[Sent], head: Command, *, may_repeat: bool) -> None:
        self.sent = sent
        self.may_repeat = may_repeat
        """Whether it may go again, by itself, where Redis did not know its script."""
        count = len(head) + sum(len(each.call.args) for each in sent)
        args = [each.packed_args for each in sent]
        self.packed = b"".join((b"*%d\r\n" % count, _bulk(head), *args))

    def take(self, reply: Reply) -> list[Sent]:
        """Hand the reply out; returns calls that the script left to the next time."""
        if self.sent[0].call.shared is None:
            self.sent[0].outcome = reply
            return []
        assert reply, "a script answers one call at least"
        for each, outcome in zip(self.sent, reply, strict=False):
            each.outcome = outcome
        return self.sent[len(reply) :]

    def fail(self, error: Exception) -> None:
        """No call was answered. Of a group whose script failed nobody knows which were carried out
        before.
        """
        if isinstance(error, EngineFault) and len(self.sent) > 1:
            error = OutcomeUnknown(str(error))
        for each in self.sent:
            each.outcome = error


def grouped(sent: Iterable[Sent]) -> list[Packet]:
    """Calls of different callers as packets. What is for one book keeps its order: a call joins the
    book's last packet, where that is a group of its script and not full, or begins one.
    """
    groups: list[list[Sent]] = []
    last: dict[tuple[str, ...], list[Sent]] = {}
    for each in sent:
        group = last.get(each.call.keys)
        if group is None or not _may_join(each.call, group):
            group = last[each.call.keys] = []
            groups.append(group)
        group.append(each)
    return [Packet(group, group[0].call.head, may_repeat=True) for group in groups]


def _may_join(call: Call, group: list[Sent]) -> bool:
    head = group[0].call
    return (
        call.shared is not None
        and (call.script.sha, call.shared) == (head.script.sha, head.shared)
        and len(group) < MAX_GROUPED_CALLS
    )


class _Turn:
    """One caller's commands, which are sent together, and whom to wake when they are over."""

    __slots__ = ("answered", "leads", "sent")

    def __init__(self, sent: list[Sent]) -> None:
        self.sent = sent
        self.leads = False
        self.answered = Lock()
        self.answered.acquire()

    def fail(self, error: Exception) -> None:
        """Whatever has no outcome yet has `error`."""
        for each in self.sent:
            if each.outcome is None:
                each.outcome = error

    def outcomes(self) -> list[Reply | Exception]:
        """One for each command, when the turn is over."""
        return [cast("Reply | Exception", each.outcome) for each in self.sent]


def _packets(batch: list[_Turn]) -> list[Packet]:
    """Turns as packets, first come first: those of single calls between two others together."""
    packets: list[Packet] = []
    for is_alone, turns in groupby(batch, lambda turn: len(turn.sent) == 1):
        if is_alone:
            packets += grouped(turn.sent[0] for turn in turns)
        else:
            packets += (packet for turn in turns for packet in _in_order(turn))
    return packets


def _in_order(turn: _Turn) -> list[Packet]:
    """A caller's several calls, each by itself: a group might leave some to a later time."""
    heads = _self_loading_heads([each.call for each in turn.sent])
    return [
        Packet([each], head, may_repeat=False) for each, head in zip(turn.sent, heads, strict=True)
    ]


class PipelinedExecutor:
    """Many callers, one connection, one write for all that wait. Thread- and greenlet-safe."""

    def __init__(self, client: "Redis") -> None:
        connection = client.connection_pool.make_connection()
        assert isinstance(connection, AbstractConnection)
        self._connection = connection
        self._waiting: deque[_Turn] = deque()
        self._waiting_calls = 0
        self._guard = Lock()
        self._led = False
        self._used_at = 0.0

    def run(self, call: Call) -> Reply:
        """See `Executor.run`."""
        (outcome,) = self.run_all([call])
        if isinstance(outcome, Exception):
            raise outcome
        return outcome

    def run_all(self, calls: Sequence[Call]) -> list[Reply | Exception]:
        """See `Executor.run_all`. Takes the place of one caller, however many calls there are."""
        if not calls:
            return []
        turn = _Turn([Sent(call) for call in calls])
        if not self._queue(turn):
            turn.fail(EngineUnavailable("too many commands are waiting for Redis"))
            return turn.outcomes()
        if not turn.leads:
            self._await(turn)
        if turn.leads:
            self._lead()
        return turn.outcomes()

    def _queue(self, turn: _Turn) -> bool:
        """Let `turn` wait, or lead if nobody does; False where too many wait already."""
        with self._guard:
            if self._waiting_calls + len(turn.sent) > MAX_WAITING_CALLS:
                return False
            self._waiting.append(turn)
            self._waiting_calls += len(turn.sent)
            turn.leads = not self._led
            self._led = True
        return True

    def _await(self, turn: _Turn) -> None:
        """Wait for the answers or the lead; a caller that is interrupted leaves no gap behind."""
        try:
            turn.answered.acquire()
        except BaseException:
            with self._guard:
                if turn in self._waiting:
                    self._waiting.remove(turn)
                    self._waiting_calls -= len(turn.sent)
            if turn.leads:
                self._pass_on([])
            raise

    def _lead(self) -> None:
        """Carry out one batch, the caller's own turn first, then pass the lead on."""
        with self._guard:
            batch = self._next_batch()
        try:
            self._exchange(batch)
        finally:
            self._pass_on(batch)

    def _next_batch(self) -> list[_Turn]:
        """Turns off the queue: as many as make MAX_BATCH_CALLS, and one in any case."""
        batch: list[_Turn] = []
        size = 0
        while self._waiting:
            size += len(self._waiting[0].sent)
            if batch and size > MAX_BATCH_CALLS:
                break
            batch.append(self._waiting.popleft())
            self._waiting_calls -= len(batch[-1].sent)
        return batch

    def _pass_on(self, batch: list[_Turn]) -> None:
        """Wake everyone whose turn is over, and the caller that leads next, if any."""
        with self._guard:
            successor = self._waiting[0] if self._waiting else None
            self._led = successor is not None
            if successor is not None:
                successor.leads = True
        if successor is not None:
            successor.answered.release()
        for turn in batch:
            turn.fail(OutcomeUnknown("interrupted while waiting for Redis"))
            turn.answered.release()

    def _exchange(self, batch: list[_Turn]) -> None:
        try:
            self._make_ready()
        except (RedisError, OSError) as error:
            self._connection.disconnect()
            self._refuse_waiting(batch, error)
            return
        try:
            self._send_and_receive(batch)
            self._used_at = monotonic()
        except (ConnectionError, TimeoutError) as error:
            self._connection.disconnect()
            for turn in batch:
                turn.fail(OutcomeUnknown(str(error)))
            self._refuse_waiting(batch, error)
        except BaseException:
            # An interrupted conversation leaves answers on the wire that belong to nobody.
            self._connection.disconnect()
            raise

    def _send_and_receive(self, batch: list[_Turn]) -> None:
        packets = _packets(batch)
        while packets:
            everything = b"".join([packet.packed for packet in packets])
            self._connection.send_packed_command([everything], check_health=False)
            left: list[Sent] = []
            unknown = [packet for packet in packets if not self._receive(packet, left)]
            if unknown:
                self._repeat(unknown, left)
            packets = grouped(left)

    def _make_ready(self) -> None:
        """Connect; and do not trust a connection that has been idle while Redis may have gone."""
        connection = self._connection
        if connection.is_connected and monotonic() - self._used_at > IDLE_CHECK_AFTER_S:
            try:
                stale = connection.can_read(0)
            except ConnectionError:
                stale = True
            if stale:
                connection.disconnect()
        if not connection.is_connected:
            connection.connect()

    def _receive(self, packet: Packet, left: list[Sent]) -> bool:
        """Take one reply; False where Redis does not know the script, and so did nothing. Calls
        that it does not answer come to `left`.
        """
        try:
            left += packet.take(self._connection.read_response(disconnect_on_error=False))
        except NoScriptError:
            return False
        except (ResponseError, BusyLoadingError) as error:
            packet.fail(_as_ours(error))
        return True

    def _repeat(self, unknown: list[Packet], left: list[Sent]) -> None:
        """After a restart Redis has no scripts: calls go again with their source. Not a caller's
        several calls: what came after the unknown one has happened already.
        """
        for packet in unknown:
            if not packet.may_repeat:
                packet.fail(EngineUnavailable("Redis forgets scripts"))
                continue
            again = Packet(packet.sent, packet.sent[0].call.head_with_source, may_repeat=False)
            self._connection.send_packed_command([again.packed], check_health=False)
            self._receive(again, left)

    def _refuse_waiting(self, batch: list[_Turn], error: Exception) -> None:
        """Whoever waits joins the batch and fails with it: nothing of theirs was sent, so it is
        certainly not done, and to send it to a Redis that does not answer would put it in doubt.
        """
        with self._guard:
            batch += self._waiting
            self._waiting.clear()
            self._waiting_calls = 0
        for turn in batch:
            turn.fail(EngineUnavailable(str(error)))
