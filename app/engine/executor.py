"""How a script call travels to Redis and its answer back.

`PipelinedExecutor` lets concurrent callers of one process share one connection: whoever comes first
sends everything that waits, in one write, and reads the answers for all. Under load a batch is one
turn of Redis's event loop and so one fsync of the append-only file, which is what makes
`appendfsync always` cheap. A call whose answer did not come is never sent again by itself: nobody
can know whether it happened.
"""

import re
from collections import deque
from collections.abc import Sequence
from threading import Lock
from time import monotonic
from typing import Any, Protocol, cast

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

from app.engine.scripts import Script

MAX_WAITING_CALLS = 4096
"""Calls that may wait for a turn in one process; beyond it callers are refused at once."""
MAX_BATCH_CALLS = 256
"""Calls sent in one write: bounds how long the first of them waits for the last."""
NOT_NOW = re.compile(
    r"(?:^|-)(BUSY|LOADING|READONLY|OOM|MISCONF|NOREPLICAS|MASTERDOWN|CLUSTERDOWN|TRYAGAIN)\b"
)
"""Replies by which Redis says that it takes no commands or no writes at present; scripts have
written nothing before them. Redis 6.2 puts a script's into a sentence, after a dash.
"""
NOT_NOW_ERRORS = (BusyLoadingError, OutOfMemoryError, ReadOnlyError)
"""The same where redis-py has taken the word off the message."""
IDLE_CHECK_AFTER_S = 0.01
"""A connection unused for this long is looked at before use: Redis may have gone meanwhile."""

Reply = list[Any]


class EngineUnavailable(Exception):
    """Redis cannot be reached or takes no writes; the command was not carried out."""


class OutcomeUnknown(EngineUnavailable):
    """The connection was lost after the command was sent; it may or may not have happened."""


class EngineFault(Exception):
    """A script failed where none may: a defect, or a Redis that is set up wrongly."""


class Executor(Protocol):
    """Runs a script with an instrument's keys; returns Redis's reply, strings as bytes."""

    def run(self, script: Script, keys: Sequence[str], args: Sequence[str | int]) -> Reply:
        """Run `script` once.

        Raises:
            EngineUnavailable: nothing was done; OutcomeUnknown: nobody knows; EngineFault: a bug.
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

    def run(self, script: Script, keys: Sequence[str], args: Sequence[str | int]) -> Reply:
        """See `Executor.run`."""
        try:
            return self._evalsha(script, keys, args)
        except RedisError as error:
            raise _as_ours(error) from error

    def _evalsha(self, script: Script, keys: Sequence[str], args: Sequence[str | int]) -> Reply:
        try:
            return cast(Reply, self._client.evalsha(script.sha, len(keys), *keys, *args))
        except NoScriptError:
            self._client.script_load(script.source)
            return cast(Reply, self._client.evalsha(script.sha, len(keys), *keys, *args))


def _pack(*command: str | int) -> bytes:
    # Its stub means tuples of one.
    return cast(bytes, pack_command(command))  # type: ignore[arg-type]


class _Call:
    """One caller's command on its way: packed, then answered or failed."""

    __slots__ = ("answered", "error", "leads", "packed", "reply", "script")

    def __init__(self, script: Script, packed: bytes) -> None:
        self.script = script
        self.packed = packed
        self.reply: Reply | None = None
        self.error: Exception | None = None
        self.leads = False
        self.answered = Lock()
        self.answered.acquire()

    def result(self) -> Reply:
        if self.error is not None:
            raise self.error
        assert self.reply is not None
        return self.reply


class PipelinedExecutor:
    """Many callers, one connection, one write for all that wait. Thread- and greenlet-safe."""

    def __init__(self, client: "Redis") -> None:
        connection = client.connection_pool.make_connection()
        assert isinstance(connection, AbstractConnection)
        self._connection = connection
        self._waiting: deque[_Call] = deque()
        self._guard = Lock()
        self._led = False
        self._used_at = 0.0

    def run(self, script: Script, keys: Sequence[str], args: Sequence[str | int]) -> Reply:
        """See `Executor.run`."""
        call = _Call(script, _pack("EVALSHA", script.sha, len(keys), *keys, *args))
        with self._guard:
            if len(self._waiting) >= MAX_WAITING_CALLS:
                raise EngineUnavailable("too many commands are waiting for Redis")
            self._waiting.append(call)
            call.leads = not self._led
            self._led = True
        if not call.leads:
            self._await(call)
        if call.leads:
            self._lead()
        return call.result()

    def _await(self, call: _Call) -> None:
        """Wait for the answer or the lead; a caller that is interrupted leaves no gap behind."""
        try:
            call.answered.acquire()
        except BaseException:
            with self._guard:
                if call in self._waiting:
                    self._waiting.remove(call)
            if call.leads:
                self._pass_on([])
            raise

    def _lead(self) -> None:
        """Carry out one batch, the caller's own among it, then pass the lead on."""
        with self._guard:
            size = min(len(self._waiting), MAX_BATCH_CALLS)
            batch = [self._waiting.popleft() for _ in range(size)]
        try:
            self._exchange(batch)
        finally:
            self._pass_on(batch)

    def _pass_on(self, batch: list[_Call]) -> None:
        """Wake everyone whose call is over, and the caller that leads next, if any."""
        with self._guard:
            successor = self._waiting[0] if self._waiting else None
            self._led = successor is not None
            if successor is not None:
                successor.leads = True
        if successor is not None:
            successor.answered.release()
        for call in batch:
            if call.reply is None and call.error is None:
                call.error = OutcomeUnknown("interrupted while waiting for Redis")
            call.answered.release()

    def _exchange(self, batch: list[_Call]) -> None:
        try:
            self._make_ready()
        except (RedisError, OSError) as error:
            self._connection.disconnect()
            self._refuse_waiting(batch, error)
            return
        try:
            self._connection.send_packed_command(
                [b"".join([call.packed for call in batch])], check_health=False
            )
            unknown = [call for call in batch if not self._receive(call)]
            if unknown:
                self._load_and_repeat(unknown)
            self._used_at = monotonic()
        except (ConnectionError, TimeoutError) as error:
            self._connection.disconnect()
            self._fail(batch, OutcomeUnknown(str(error)))
            self._refuse_waiting(batch, error)
        except BaseException:
            # An interrupted conversation leaves answers on the wire that belong to nobody.
            self._connection.disconnect()
            raise

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

    def _receive(self, call: _Call) -> bool:
        """Take one answer; False where Redis does not know the script, and so did nothing."""
        try:
            call.reply = self._connection.read_response(disconnect_on_error=False)
        except NoScriptError:
            return False
        except (ResponseError, BusyLoadingError) as error:
            call.error = _as_ours(error)
        return True

    def _load_and_repeat(self, calls: list[_Call]) -> None:
        """After a restart Redis has no scripts: load those needed, then run the calls for once."""
        for source in {call.script.source for call in calls}:
            self._connection.send_command("SCRIPT", "LOAD", source, check_health=False)
            self._connection.read_response()
        for call in calls:
            self._connection.send_packed_command([call.packed], check_health=False)
            if not self._receive(call):
                call.error = EngineUnavailable("Redis forgets scripts")

    def _refuse_waiting(self, batch: list[_Call], error: Exception) -> None:
        """Whoever waits joins the batch and fails with it: nothing of theirs was sent, so it is
        certainly not done, and to send it to a Redis that does not answer would put it in doubt.
        """
        with self._guard:
            batch += self._waiting
            self._waiting.clear()
        self._fail(batch, EngineUnavailable(str(error)))

    @staticmethod
    def _fail(calls: list[_Call], error: Exception) -> None:
        for call in calls:
            if call.reply is None and call.error is None:
                call.error = error
