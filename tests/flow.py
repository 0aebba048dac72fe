"""Traders for tests: threads that place and cancel at random over HTTP, on one instrument with tick
1 and lot 1, and remember what they were told, and when. What a key makes safe to repeat, they
repeat.
"""

import http.client
import random
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import Final, TypeAlias

from tests.commands import SIDES, Cancel, Command, Place
from tests.rest import Answer, Api, number_of, order_body, order_id

MID_TICKS: Final = 1000
BAND_TICKS: Final = 5
MAX_LOTS: Final = 12
ANSWER_WITHIN_S: Final = 30.0
"""How long a trader repeats a command before it is a failure."""
PAUSE_S: Final = 0.02
"""Between two attempts, as a polite client does."""
NO_ANSWER: Final = (OSError, http.client.HTTPException)


@dataclass(frozen=True, slots=True)
class Told:
    """A command, and its answer. Times are monotonic seconds: before the first attempt was sent,
    after the answer was read. `attempts` counts how often it was sent.
    """

    command: Command
    answer: Answer
    sent_at: float
    received_at: float
    attempts: int


@dataclass(frozen=True, slots=True)
class Untold:
    """A command without a key that got no answer, or a 503: nobody knows whether it happened."""

    command: Command
    why: str


Outcome: TypeAlias = Told | Untold


@dataclass
class Trader:
    """One client. Every order has a client_order_id of its own; keys are as asked."""

    name: str
    api: Api
    symbol: str
    rng: random.Random
    keyed_share: float = 0.5
    repeat_share: float = 0.05
    outcomes: list[Outcome] = field(default_factory=list)
    _mine: list[int] = field(default_factory=list)  # order numbers that may be open
    _keyed: list[Place] = field(default_factory=list)
    _count: int = 0

    def step(self) -> None:
        """One command, carried through."""
        command = self._next()
        outcome = self._carry_through(command)
        self.outcomes.append(outcome)
        if isinstance(outcome, Told) and outcome.answer.status == 201:
            order = outcome.answer.json()["order"]
            if order["status"] in ("open", "partially_filled"):
                self._mine.append(number_of(order["order_id"]))

    def _next(self) -> Command:
        if self._mine and self.rng.random() < 0.3:
            return Cancel(self._mine.pop(self.rng.randrange(len(self._mine))))
        if self._keyed and self.rng.random() < self.repeat_share:
            return self.rng.choice(self._keyed[-20:])
        place = self._place()
        if place.idempotency_key is not None:
            self._keyed.append(place)
        return place

    def _place(self) -> Place:
        self._count += 1
        identity = f"{self.name}-{self._count}"
        place = Place(
            client=self.name,
            side=self.rng.choice(SIDES),
            type="limit",
            time_in_force="gtc",
            quantity_lots=self.rng.randint(1, MAX_LOTS),
            price_ticks=MID_TICKS + self.rng.randint(-BAND_TICKS, BAND_TICKS),
            client_order_id=identity,
            idempotency_key=identity if self.rng.random() < self.keyed_share else None,
        )
        kind = self.rng.random()
        if kind < 0.1:
            return replace(place, post_only=True)
        if kind < 0.2:
            return replace(place, time_in_force=self.rng.choice(("ioc", "fok")))
        if kind < 0.3:
            return replace(place, type="market", time_in_force="ioc", price_ticks=None)
        return place

    def _carry_through(self, command: Command) -> Outcome:
        """Sends it until it is answered, where a second time does no harm."""
        sent_at, attempts = time.monotonic(), 0
        may_repeat = isinstance(command, Cancel) or command.idempotency_key is not None
        while True:
            attempts += 1
            try:
                answer = self._send(command)
                if answer.status != 503:
                    return Told(command, answer, sent_at, time.monotonic(), attempts)
                why = answer.code
            except NO_ANSWER as error:
                why = repr(error)
            if not may_repeat or time.monotonic() - sent_at > ANSWER_WITHIN_S:
                return Untold(command, why)
            time.sleep(PAUSE_S)

    def _send(self, command: Command) -> Answer:
        if isinstance(command, Cancel):
            return self.api.cancel(order_id(self.symbol, command.number))
        return self.api.place(order_body(self.symbol, command))


class Crowd:
    """Several traders, each in a thread of its own with its own connection."""

    def __init__(self, api: Api, symbol: str, rng: random.Random, size: int) -> None:
        self.traders = [
            Trader(f"trader-{n}", api, symbol, random.Random(rng.random())) for n in range(size)
        ]
        self._stop = threading.Event()
        self._errors: list[BaseException] = []

    def trade(self, steps: int) -> None:
        """Each does so many commands; returns when all have."""
        threads = [self._thread(trader, steps) for trader in self.traders]
        for thread in threads:
            thread.join()
        self._raise_errors()

    @contextmanager
    def trading(self) -> Iterator[None]:
        """They trade until the block ends."""
        threads = [self._thread(trader, None) for trader in self.traders]
        try:
            yield
        finally:
            self._stop.set()
            for thread in threads:
                thread.join()
        self._raise_errors()

    @property
    def outcomes(self) -> list[Outcome]:
        """Of all of them."""
        return [outcome for trader in self.traders for outcome in trader.outcomes]

    @property
    def told(self) -> list[Told]:
        """What was answered."""
        return [outcome for outcome in self.outcomes if isinstance(outcome, Told)]

    @property
    def untold(self) -> list[Untold]:
        """What nobody knows."""
        return [outcome for outcome in self.outcomes if isinstance(outcome, Untold)]

    @property
    def count(self) -> int:
        """Commands carried through so far."""
        return sum(len(trader.outcomes) for trader in self.traders)

    def _thread(self, trader: Trader, steps: int | None) -> threading.Thread:
        thread = threading.Thread(target=self._run, args=(trader, steps))
        thread.start()
        return thread

    def _run(self, trader: Trader, steps: int | None) -> None:
        done = 0
        try:
            while not self._stop.is_set() and done != steps:
                trader.step()
                done += 1
        except BaseException as error:  # noqa: BLE001  # told to the test by _raise_errors
            self._errors.append(error)

    def _raise_errors(self) -> None:
        if self._errors:
            raise self._errors[0]
