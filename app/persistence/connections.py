"""Connections to Postgres on which no wait for an answer lasts for ever. A server that is frozen,
not dead, keeps its sockets open: no time-out of its own fires, and TCP sees nothing wrong. Must not
know what is asked.
"""

import math
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Final

import psycopg
from psycopg.abc import RV, PQGen
from psycopg.pq import TransactionStatus
from psycopg.rows import Row

PATIENCE_S: Final = 10.0
LOOK_EVERY_S: Final = 0.1
"""How often a waiting call looks whether its socket is still there and a signal has come."""

_at_most_s: ContextVar[float] = ContextVar("at_most_s", default=math.inf)


class BoundedConnection(psycopg.Connection[Row]):
    """Waits at most `patience_s` for each answer; then it is closed and the call ends as
    OperationalError. Let the server's own time-outs be shorter: they keep the connection.
    """

    patience_s: float = PATIENCE_S

    def wait(
        self, gen: PQGen[RV], interval: float = LOOK_EVERY_S, timeout: float | None = None
    ) -> RV:
        """What psycopg calls to wait for anything from the server, once connected."""
        limit_s = min(self.patience_s, _at_most_s.get(), math.inf if timeout is None else timeout)
        try:
            return super().wait(gen, interval, limit_s)
        except psycopg.OperationalError as error:
            if self.pgconn.transaction_status != TransactionStatus.ACTIVE:
                raise
            # The answer may still come, and would be taken for that to the next statement.
            self.close()
            raise psycopg.OperationalError(f"no answer within {limit_s:g} s") from error


@contextmanager
def at_most(seconds: float) -> Iterator[None]:
    """Less patience for what the caller asks within: of this thread or greenlet, no other."""
    token = _at_most_s.set(min(seconds, _at_most_s.get()))
    try:
        yield
    finally:
        _at_most_s.reset(token)
