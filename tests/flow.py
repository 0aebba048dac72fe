"""Traders for tests: threads that place, amend, cancel and look at random, by HTTP or WebSocket, on
one instrument with tick 1 and lot 1, and remember what they asked and what they were told, and
when. What may be repeated without doing it twice, they repeat until they know.
"""

import http.client
import json
import random
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import Final, Protocol, TypeAlias

from websocket import WebSocketException

from tests.commands import (
    SELF_TRADE_PREVENTIONS,
    SIDES,
    Amend,
    ArmTimer,
    Cancel,
    Command,
    MassCancel,
    Place,
    Side,
)
from tests.rest import Answer, Api, Json, number_of, order_body, order_id

MID_TICKS: Final = 1000
BAND_TICKS: Final = 8
CROSSING_TICKS: Final = 2
"""How far from the middle prices are: so far behind it, and across it."""
STOP_BAND_TICKS: Final = 6
"""Stops wait as far as that on their side, and are triggered now and then."""
MAX_LOTS: Final = 12
MAX_BATCH: Final = 6
ANSWER_WITHIN_S: Final = 60.0
"""How long a trader repeats a command before it is a failure. Not shorter: what asks for an order
that is over waits for Postgres, which a storm kills every few seconds.
"""
REPEAT_WITHIN_S: Final = 20.0
"""How old an order is at most that a trader asks for again: both together are well within the time
to live of keys, after which the same request is another order.
"""
PAUSE_S: Final = 0.02
"""Between two attempts, as a polite client does."""
NO_ANSWER: Final = (OSError, http.client.HTTPException, WebSocketException)
OWN_ORDERS_MAX: Final = 60
"""Open orders that a trader remembers: beyond it, it forgets the oldest."""
KINDS: Final = {
    "plain": 47,
    "post_only": 8,
    "ioc": 5,
    "fok": 5,
    "market": 7,
    "iceberg": 10,
    "gtd": 8,
    "stop": 10,
}
"""How often which kind of order is placed, in percent."""
TIMEOUTS_MS: Final = (0, 0, 300, 1_500, 3_600_000)
"""Of timers: disarmed, soon, or long after the test."""
MICROSECONDS: Final = 1_000_000
RETRY_LATER: Final = "triggers_outstanding"
"""A 503 by which the book itself refuses, as other refusals do."""


@dataclass(frozen=True, slots=True)
class ReadOrder:
    """Asks for one order."""

    number: int


@dataclass(frozen=True, slots=True)
class ReadBook:
    """Asks for the best levels."""

    levels: int = 50


Request: TypeAlias = Command | ReadOrder | ReadBook


@dataclass(frozen=True, slots=True)
class Told:
    """A request, and its answer. Times are monotonic seconds: before the first attempt was sent,
    before the one that was answered was sent, after the answer was read. `attempts` counts how
    often it was sent.
    """

    command: Request
    answer: Answer
    sent_at: float
    received_at: float
    attempts: int
    last_sent_at: float = 0.0


@dataclass(frozen=True, slots=True)
class Untold:
    """A command without a key that got no answer, or a 503. `why` is the code of the 503; without
    one, and where the code says so, nobody knows whether it happened.
    """

    command: Request
    why: str
    sent_at: float = 0.0


Outcome: TypeAlias = Told | Untold


class Line(Protocol):
    """A trader's way to the server."""

    def send(self, symbol: str, request: Request) -> Answer:
        """One attempt.

        Raises:
            one of NO_ANSWER: nobody knows what happened.
        """
        ...

    def close(self) -> None:
        """Leave; another attempt comes back."""
        ...


class HttpLine:
    """REST alone."""

    def __init__(self, api: Api) -> None:
        self.api = api

    def send(self, symbol: str, request: Request) -> Answer:
        """See `Line`."""
        api = self.api
        match request:
            case Place():
                return api.place(order_body(symbol, request))
            case Cancel(number):
                return api.cancel(order_id(symbol, number))
            case Amend(number):
                return api.amend(order_id(symbol, number), **amend_body(request))
            case MassCancel(client, side):
                side_given = {} if side is None else {"side": side}
                return api.cancel_all(client_id=client, instrument=symbol, **side_given)
        return self._send_other(symbol, request)

    def close(self) -> None:
        """See `Line`: its connections end with their threads."""

    def _send_other(self, symbol: str, request: Request) -> Answer:
        match request:
            case ArmTimer(client, timeout_us):
                timeout_s = f"{timeout_us / MICROSECONDS:.3f}"
                body = {"client_id": client, "instrument": symbol, "timeout_s": timeout_s}
                return self.api.request("POST", "/orders/cancel-after", body)
            case ReadOrder(number):
                return self.api.get(f"/orders/{order_id(symbol, number)}")
            case ReadBook(levels):
                return self.api.get("/orderbook", instrument=symbol, levels=levels)
        raise AssertionError(f"not for traders: {request}")


def amend_body(amend: Amend) -> Json:
    """The body of PATCH /orders/{order_id}."""
    given = {
        "price": amend.price_ticks,
        "quantity": amend.quantity_lots,
        "stop_price": amend.stop_price_ticks,
    }
    return {name: str(units) for name, units in given.items() if units is not None}


def batch_item(symbol: str, command: Request) -> Json:
    """A command as an item of a batch."""
    match command:
        case Place():
            return {"op": "place", **order_body(symbol, command)}
        case Cancel(number):
            return {"op": "cancel", "order_id": order_id(symbol, number)}
        case Amend(number):
            return {"op": "amend", "order_id": order_id(symbol, number), **amend_body(command)}
    raise AssertionError(f"not for batches: {command}")


def items_of(answer: Answer) -> list[Answer]:
    """The answers to the items of a batch."""
    return [
        Answer(
            result["status"],
            {"Idempotent-Replayed": "true"} if result.get("replayed") else {},
            json.dumps(result["body"]).encode(),
        )
        for result in answer.json()["results"]
    ]


@dataclass
class Trader:
    """One client. Every order has a client_order_id of its own; keys are as asked."""

    name: str
    api: Api
    symbol: str
    rng: random.Random
    line: Line
    keyed_share: float = 0.5
    repeat_share: float = 0.05
    pause_s: float = 0.0
    """After each step."""
    outcomes: list[Outcome] = field(default_factory=list)
    repeats: int = 0
    """How often it has asked again so far."""
    _mine: dict[int, Place] = field(default_factory=dict)  # orders that may be open, by number
    _keyed: list[tuple[float, Place]] = field(default_factory=list)  # with the time of each
    _count: int = 0

    def step(self) -> None:
        """One request, or one batch, carried through."""
        if self.rng.random() < 0.04:
            self._batch()
        else:
            self._note(self._carry_through(self._next()))
        if self.pause_s:
            time.sleep(self.pause_s)

    def has_accepted_since(self, at: float) -> bool:
        """Whether an order that was sent after that moment has been accepted. May be asked while it
        trades.
        """
        for index in range(len(self.outcomes) - 1, -1, -1):
            one = self.outcomes[index]
            if not isinstance(one, Told) or not isinstance(one.command, Place):
                continue
            if one.received_at < at:
                return False
            if one.last_sent_at >= at and one.answer.status == 201:
                return True
        return False

    # What it asks

    def _next(self) -> Request:
        chance = self.rng.random()
        if chance < 0.05:
            return (
                ReadBook() if self.rng.random() < 0.5 or not self._mine else ReadOrder(self._any())
            )
        if chance < 0.07:
            return MassCancel(self.name, self.rng.choice((*SIDES, None)))
        if chance < 0.09:
            return ArmTimer(self.name, self.rng.choice(TIMEOUTS_MS) * 1_000)
        return self._order_command()

    def _order_command(self) -> Place | Cancel | Amend:
        """What a batch may carry, too."""
        if self._mine and self.rng.random() < 0.4:
            if self.rng.random() < 0.3:
                return self._amend(self._any())
            number = self._any()
            del self._mine[number]
            return Cancel(number)
        if self.rng.random() < self.repeat_share and (recent := self._recent()):
            return self.rng.choice(recent)
        place = self._place()
        if place.idempotency_key is not None:
            self._keyed.append((time.monotonic(), place))
        return place

    def _recent(self) -> list[Place]:
        """Those with a key that certainly lives: later the same request is another order."""
        since = time.monotonic() - REPEAT_WITHIN_S
        return [place for at, place in self._keyed[-20:] if at > since]

    def _any(self) -> int:
        return self.rng.choice(list(self._mine))

    def _place(self) -> Place:
        self._count += 1
        identity = f"{self.name}-{self._count}"
        place = Place(
            client=self.name,
            side=self.rng.choice(SIDES),
            type="limit",
            time_in_force="gtc",
            quantity_lots=self.rng.randint(1, MAX_LOTS),
            client_order_id=identity,
            idempotency_key=identity if self.rng.random() < self.keyed_share else None,
        )
        place = replace(place, price_ticks=self._ticks(place.side))
        if self.rng.random() < 0.3:
            place = replace(place, self_trade_prevention=self.rng.choice(SELF_TRADE_PREVENTIONS))
        return self._shaped(place)

    def _ticks(self, side: Side) -> int:
        """Mostly a price that rests, on the better side of the middle or just across it."""
        away = self.rng.randint(-CROSSING_TICKS, BAND_TICKS)
        return MID_TICKS + (-away if side == "buy" else away)

    def _shaped(self, place: Place) -> Place:
        """The limit order as one of every kind."""
        kind = self.rng.choices(list(KINDS), list(KINDS.values()))[0]
        match kind:
            case "post_only":
                place = replace(place, post_only=True)
            case "ioc" | "fok":
                place = replace(place, time_in_force=kind)
            case "market":
                place = replace(place, type="market", time_in_force="ioc", price_ticks=None)
            case "iceberg":
                place = replace(place, display_lots=self.rng.randint(1, place.quantity_lots))
            case "gtd":
                expires_us = int((time.time() + self.rng.uniform(0.3, 3)) * MICROSECONDS)
                place = replace(place, time_in_force="gtd", expires_us=expires_us)
            case "stop":
                place = self._stop(place)
        return place

    def _stop(self, place: Place) -> Place:
        stop_ticks = self._stop_ticks(place.side)
        if self.rng.random() < 0.5:
            return replace(place, type="stop", stop_price_ticks=stop_ticks, price_ticks=None)
        return replace(place, type="stop_limit", stop_price_ticks=stop_ticks)

    def _stop_ticks(self, side: Side) -> int:
        away = self.rng.randint(0, STOP_BAND_TICKS)
        return MID_TICKS + (away if side == "buy" else -away)

    def _amend(self, number: int) -> Amend:
        place = self._mine[number]
        ticks = self._ticks(place.side)
        lots = self.rng.randint(1, MAX_LOTS)
        kind = self.rng.random()
        if place.stop_price_ticks is not None and kind < 0.4:
            return Amend(number, stop_price_ticks=self._stop_ticks(place.side))
        if kind < 0.7 or place.price_ticks is None:
            return Amend(number, quantity_lots=lots)
        return Amend(number, price_ticks=ticks, quantity_lots=lots if kind < 0.85 else None)

    # How it asks

    def _batch(self) -> None:
        commands = [self._order_command() for _ in range(self.rng.randint(2, MAX_BATCH))]
        body = {"items": [batch_item(self.symbol, command) for command in commands]}
        sent_at = time.monotonic()
        answers: Sequence[Answer | None] = [None] * len(commands)
        why = ""
        try:
            answer = self.api.request("POST", "/orders/batch", body)
            if answer.status == 200:
                answers = items_of(answer)
            else:
                assert answer.status == 503, answer
                why = answer.code
        except NO_ANSWER as error:
            why = repr(error)
        received_at = time.monotonic()
        for command, item in zip(commands, answers, strict=True):
            if item is not None and not _is_unknown(item):
                self._note(Told(command, item, sent_at, received_at, 1, sent_at))
            else:
                self._note(self._go_on(command, sent_at, 1, why if item is None else item.code))

    def _note(self, outcome: Outcome) -> None:
        self.outcomes.append(outcome)
        if not isinstance(outcome, Told) or outcome.answer.status != 201:
            return
        order = outcome.answer.json()["order"]
        if order["status"] in ("open", "partially_filled", "pending"):
            assert isinstance(outcome.command, Place)
            self._mine[number_of(order["order_id"])] = outcome.command
            if len(self._mine) > OWN_ORDERS_MAX:
                del self._mine[next(iter(self._mine))]

    def _carry_through(self, request: Request) -> Outcome:
        """Sends it until it is answered, where a second time does no harm."""
        return self._go_on(request, time.monotonic(), 0, "")

    def _go_on(self, request: Request, sent_at: float, attempts: int, why: str) -> Outcome:
        """As `_carry_through`, after so many attempts the last of which failed for that reason."""
        may_repeat = not isinstance(request, Place) or request.idempotency_key is not None
        while not attempts or (may_repeat and time.monotonic() - sent_at < ANSWER_WITHIN_S):
            if attempts:
                self.repeats += 1
                time.sleep(PAUSE_S)
            attempts += 1
            last_sent_at = time.monotonic()
            try:
                answer = self.line.send(self.symbol, request)
            except NO_ANSWER as error:
                why = repr(error)
                continue
            if not _is_unknown(answer):
                now = time.monotonic()
                return Told(request, answer, sent_at, now, attempts, last_sent_at)
            why = answer.code
        return Untold(request, why, sent_at)


def _is_unknown(answer: Answer) -> bool:
    return answer.status == 503 and answer.code != RETRY_LATER


class Crowd:
    """Several traders, each in a thread of its own with its own connection."""

    def __init__(
        self,
        api: Api,
        symbol: str,
        rng: random.Random,
        size: int,
        line: Callable[[int], Line] | None = None,
    ) -> None:
        """`line` makes the way of the n-th trader; all go by REST unless told otherwise."""
        self.symbol = symbol
        lines = [line(n) if line else HttpLine(api) for n in range(size)]
        self.traders = [
            Trader(f"trader-{n}", api, symbol, random.Random(rng.random()), lines[n])
            for n in range(size)
        ]
        self._stop = threading.Event()
        self._errors: list[BaseException] = []

    def trade(self, steps: int) -> None:
        """Each does so many steps; returns when all have."""
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
        """Of all of them, each trader's in order."""
        return [outcome for trader in self.traders for outcome in trader.outcomes]

    @property
    def told(self) -> list[Told]:
        """What was answered."""
        return [outcome for outcome in self.outcomes if isinstance(outcome, Told)]

    @property
    def untold(self) -> list[Untold]:
        """What nobody knows, or was refused for now."""
        return [outcome for outcome in self.outcomes if isinstance(outcome, Untold)]

    @property
    def repeats(self) -> int:
        """How often one of them has asked again so far."""
        return sum(trader.repeats for trader in self.traders)

    @property
    def count(self) -> int:
        """Requests carried through so far."""
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
        finally:
            trader.line.close()

    def _raise_errors(self) -> None:
        if self._errors:
            raise self._errors[0]
