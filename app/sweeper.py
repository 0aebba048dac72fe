"""Carries out in every book what is due by the clock, or was left over: expiries, cancel-after
timers, triggered stops that wait; and looks after the memory that backlogs take. Lives beside the
persister, since the API may be gone when a timer runs out, and asks nothing of Postgres. Scripts
are atomic, so several sweepers do no harm.
"""

import logging
import threading
import time
from collections.abc import Iterator, Sequence
from typing import Any, Final

import redis
from redis.backoff import NoBackoff
from redis.retry import Retry

from app.backoff import delay_s
from app.domain.refusals import Refusal
from app.engine.book import Books
from app.engine.commands import Refused
from app.engine.crowding import Crowding
from app.engine.executor import EngineUnavailable
from app.engine.keys import INSTRUMENTS, SWEEPER_ALIVE

log: Final = logging.getLogger("crossbook.sweeper")

SWEEP_EVERY_S: Final = 0.2
"""Between two rounds. What is due happens within a second: this, a round and a short outage."""
LEARN_EVERY_S: Final = 1.0
"""How often new instruments are looked for, and memory is looked at; nothing can be due sooner that
matters.
"""
ALIVE_S: Final = 5
"""How long a round is taken as a sign of life: longer than one lasts, and a restart."""
BOOKS_PER_WRITE: Final = 128
"""Books that one write asks Redis to sweep: bounds what waits in its memory."""
MAX_STEPS: Final = 20
"""Steps of one book in one round; each does a bounded part of what is due there."""
CONNECT_TIMEOUT_S: Final = 2.0
ANSWER_TIMEOUT_S: Final = 5.0
SETTLE_S: Final = 1.0
"""For which nothing is swept after Redis was started anew. What the API has acknowledged is held
against it meanwhile: a book that went back in time must not grow before that is seen
(app/api/watch.py).
"""
BACKOFF_FIRST_S: Final = 0.05
BACKOFF_MAX_S: Final = 0.5
"""Short: when Redis is back, more may be due than at any other time."""

OUTAGES: Final = (EngineUnavailable, redis.RedisError, OSError)
"""Redis is away or takes no writes; it passes. A sweep that may or may not have happened is simply
done again."""


def connect(redis_url: str) -> redis.Redis:
    """A client of a sweeper's own, which repeats nothing by itself."""
    return redis.Redis.from_url(
        redis_url,
        protocol=2,
        socket_connect_timeout=CONNECT_TIMEOUT_S,
        socket_timeout=ANSWER_TIMEOUT_S,
        retry=Retry(NoBackoff(), 0),
    )


class Sweeper:
    """One sweeper; `step` does one round over all books."""

    def __init__(self, client: redis.Redis, books: Books) -> None:
        self._client = client
        self._books = books
        self._crowding = Crowding(client)
        self._symbols: list[str] = []
        self._learn_at = 0.0
        self._run_id = ""
        self._sweep_at = 0.0
        self._faults: dict[str, str] = {}
        """Symbol -> why its book cannot be swept, as told in the log."""

    def run(self, stop: threading.Event) -> None:
        """Sweep until `stop` is set."""
        failures = 0
        while not stop.is_set():
            try:
                is_done = self.step()
            except OUTAGES as error:
                failures += 1
                stop.wait(self._pause(error, failures))
                continue
            if failures:
                log.info("books are swept again", extra={"after_failures": failures})
                failures = 0
            if is_done:
                stop.wait(SWEEP_EVERY_S)

    def step(self) -> bool:
        """One round; False if more is due than was done.

        Raises:
            one of `OUTAGES`: the rest of the round was not done.
        """
        now = time.monotonic()
        if now >= self._learn_at:
            self._symbols = self._listed()
            self._crowding.look(self._symbols)
            self._learn_at = now + LEARN_EVERY_S
        self._look_who_answers(now)
        if now < self._sweep_at:
            left = []
        else:
            left = [some for some in _portions(self._symbols) if not self._sweep(some)]
        self._client.set(SWEEPER_ALIVE, "1", ex=ALIVE_S)
        return not left

    def _look_who_answers(self, now: float) -> None:
        found: Any = self._client.info("server")
        if self._run_id and found["run_id"] != self._run_id:
            self._sweep_at = now + SETTLE_S
        self._run_id = found["run_id"]

    def _listed(self) -> list[str]:
        names: Any = self._client.hkeys(INSTRUMENTS)
        return sorted(name.decode() for name in names)

    def _sweep(self, symbols: Sequence[str]) -> bool:
        waiting = symbols
        for _ in range(MAX_STEPS):
            outcomes = dict(zip(waiting, self._books.sweep_all(waiting), strict=True))
            for symbol, outcome in outcomes.items():
                self._tell(symbol, outcome if isinstance(outcome, Exception) else None)
            waiting = [symbol for symbol, outcome in outcomes.items() if outcome is False]
            if not waiting:
                return True
        return False

    def _tell(self, symbol: str, error: Exception | None) -> None:
        """Raise an outage; say once what is wrong with a single book, which stops no other."""
        if isinstance(error, EngineUnavailable):
            raise error
        if error is None or _is_usual(error):
            self._faults.pop(symbol, None)
            return
        why = f"{type(error).__name__}: {error}"
        if self._faults.get(symbol) != why:
            self._faults[symbol] = why
            log.error("a book cannot be swept", extra={"instrument": symbol, "why": why})

    def _pause(self, error: Exception, failures: int) -> float:
        """Seconds to wait after a failure; tells the first of an outage."""
        if failures == 1:
            why = f"{type(error).__name__}: {error}".strip()
            log.warning("books cannot be swept", extra={"why": why})
        return delay_s(failures, BACKOFF_FIRST_S, BACKOFF_MAX_S)


def _is_usual(error: Exception) -> bool:
    """An instrument just being listed has no book yet. One whose book is lost or has lost something
    is /readyz's to name, and what is halted waits.
    """
    usual = {Refusal.BOOK_MISSING, Refusal.BOOK_BEHIND, Refusal.INSTRUMENT_HALTED}
    return isinstance(error, Refused) and error.refusal in usual


def _portions(symbols: list[str]) -> Iterator[list[str]]:
    for start in range(0, len(symbols), BOOKS_PER_WRITE):
        yield symbols[start : start + BOOKS_PER_WRITE]
