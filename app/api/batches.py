"""Batches: many orders, amendments and cancels in one request. Each item is answered as it would be
alone; those of one instrument travel to its book together, in their order.
"""

from collections.abc import Sequence
from time import perf_counter
from typing import Annotated, NamedTuple

import msgspec

from app.api import metrics
from app.api.bodies import (
    NOT_READABLE,
    Changes,
    OrderBody,
    check_changes,
    check_order,
    decode_either,
)
from app.api.dialects import with_seed_names
from app.api.fields import ABSENT, MAX_ID_CHARACTERS, Errors, read_text
from app.api.http import encode
from app.api.markets import Markets
from app.api.outcomes import Answer, Outcomes, log, order_refused
from app.api.problems import (
    DATABASE_UNAVAILABLE,
    FieldError,
    Problem,
    body_problem,
    invalid,
    problem_of,
)
from app.domain.instruments import Market
from app.domain.refusals import Refusal
from app.engine.book import Books
from app.engine.commands import (
    Cancel,
    ClientOrderId,
    NewOrder,
    OrderCommand,
    OrderNumber,
    Outcome,
    Refused,
    Replayed,
    Target,
)
from app.engine.executor import EngineUnavailable
from app.persistence.queries import DatabaseUnavailable

MAX_ITEMS = 1_000
MAX_BATCH_BYTES = 1024 * 1024
"""Of a batch's body: MAX_ITEMS orders with every field at its longest."""
PATH = "/orders/batch"


class PlaceItem(OrderBody, tag_field="op", tag="place"):
    """An order to place."""


class SeedPlaceItem(PlaceItem, tag_field="op", tag="place"):
    """The same, sent in a dialect of the seed documents."""


class _Named(msgspec.Struct, tag_field="op", forbid_unknown_fields=True):
    """An open order: by its id, or by what its client calls it on which instrument."""

    order_id: str | None = None
    client_id: str | None = None
    instrument: str | None = None
    client_order_id: str | None = None


class CancelItem(_Named, tag="cancel"):
    """An order to cancel."""


class AmendItem(_Named, tag="amend"):
    """An order to amend. The fields are those of `Changes`."""

    price: msgspec.Raw = ABSENT
    quantity: msgspec.Raw = ABSENT
    stop_price: msgspec.Raw = ABSENT


class _Batch(msgspec.Struct, forbid_unknown_fields=True):
    items: Annotated[list[msgspec.Raw], msgspec.Meta(min_length=1, max_length=MAX_ITEMS)]


class _Step(NamedTuple):
    """An item that is fit for its book. `place` is where in the batch it stands."""

    place: int
    market: Market
    command: OrderCommand
    is_seed: bool


_BATCH_DECODER = msgspec.json.Decoder(_Batch)
_ITEM_DECODER: msgspec.json.Decoder[PlaceItem | CancelItem | AmendItem] = msgspec.json.Decoder(
    PlaceItem | CancelItem | AmendItem
)
_SEED_ITEM_DECODER: msgspec.json.Decoder[SeedPlaceItem | CancelItem | AmendItem] = (
    msgspec.json.Decoder(SeedPlaceItem | CancelItem | AmendItem)
)
_OP_DECODER = msgspec.json.Decoder(dict[str, msgspec.Raw])
_BY_NAME = ("client_id", "instrument", "client_order_id")


class _Run:
    """One batch on its way."""

    def __init__(self, request_id: str) -> None:
        self.request_id = request_id
        self.started = perf_counter()
        self.answers: dict[int, Answer] = {}
        self.database_away: Problem | None = None
        """Once Postgres did not answer, the other items do not wait for it one by one."""


class Batches:
    """Carries out batches. One per process."""

    def __init__(self, books: Books, markets: Markets, outcomes: Outcomes) -> None:
        self._books = books
        self._markets = markets
        self._outcomes = outcomes

    def run(self, body: bytes, request_id: str) -> bytes:
        """Carry out the batch in `body` (JSON); the document of its results.

        Raises:
            Problem: 400, it is no batch. EngineUnavailable: nothing was done at all.
        """
        run = _Run(request_id)
        steps: dict[str, list[_Step]] = {}
        items = _decode(body)
        for place, item in enumerate(items):
            try:
                step = self._read(place, item)
            except Problem as problem:
                run.answers[place] = _refuse(problem, run, is_order=_is_order(item))
            else:
                steps.setdefault(step.market.symbol, []).append(step)
        self._run_books(steps, run)
        return encode({"results": [_result(run.answers[place]) for place in range(len(items))]})

    def _read(self, place: int, raw: msgspec.Raw) -> _Step:
        item = decode_either(bytes(raw), _ITEM_DECODER, _SEED_ITEM_DECODER)
        is_seed = isinstance(item, SeedPlaceItem)
        return _Step(place, *self._command(item), is_seed=is_seed)

    def _command(self, item: PlaceItem | CancelItem | AmendItem) -> tuple[Market, OrderCommand]:
        if isinstance(item, PlaceItem):
            market = self._markets.require(item.instrument)
            return market, check_order(item, market, None)
        market, target = self._target(item)
        if isinstance(item, CancelItem):
            return market, Cancel(target)
        changes = Changes(item.price, item.quantity, item.stop_price)
        return market, check_changes(changes, target, market)

    def _target(self, item: CancelItem | AmendItem) -> tuple[Market, Target]:
        """Which order an item is about."""
        errors: Errors = []
        for name in _BY_NAME:
            given = getattr(item, name) is not None
            if item.order_id is None and not given:
                errors.append(FieldError(name, "required", "where there is no order_id"))
            elif item.order_id is not None and given:
                errors.append(FieldError(name, "not_allowed", "beside an order_id"))
        client_id = read_text("client_id", item.client_id, MAX_ID_CHARACTERS, errors)
        own_id = read_text("client_order_id", item.client_order_id, MAX_ID_CHARACTERS, errors)
        if errors:
            raise invalid(errors)
        if item.order_id is not None:
            market, number = self._markets.locate(item.order_id)
            return market, OrderNumber(number)
        return self._markets.require(item.instrument or ""), ClientOrderId(client_id, own_id)

    def _run_books(self, steps: dict[str, list[_Step]], run: _Run) -> None:
        """One book after the other. Once Redis is away, nothing more is sent to it."""
        away: EngineUnavailable | None = None
        for symbol, of_book in steps.items():
            outcomes: Sequence[Outcome | Exception] = [away] * len(of_book) if away else []
            if away is None:
                outcomes = self._books.run_all(symbol, [step.command for step in of_book])
            for step, outcome in zip(of_book, outcomes, strict=True):
                run.answers[step.place] = self._answer(step, outcome, run)
                if isinstance(outcome, EngineUnavailable):
                    away = EngineUnavailable(str(outcome))  # what was not sent is not in doubt

    def _answer(self, step: _Step, outcome: Outcome | Exception, run: _Run) -> Answer:
        is_order = isinstance(step.command, NewOrder)
        try:
            answer = self._told(step, outcome, run)
        except Exception as error:  # noqa: BLE001  # problem_of logs those that it does not know
            return _refuse(problem_of(error), run, is_order=is_order)
        if is_order:
            metrics.ORDERS_RECEIVED.inc()
            metrics.ORDER_LATENCY.observe(perf_counter() - run.started)
        return answer._replace(body=with_seed_names(answer.body)) if step.is_seed else answer

    def _told(self, step: _Step, outcome: Outcome | Exception, run: _Run) -> Answer:
        if run.database_away is not None and _may_need_database(outcome):
            raise run.database_away
        try:
            if not isinstance(outcome, Exception):
                return self._outcomes.answer(step.market, outcome, run.request_id)
            problem = self._outcomes.problem(step.market, step.command, outcome)
        except DatabaseUnavailable as error:
            problem = problem_of(error)
        if problem.code == DATABASE_UNAVAILABLE:
            run.database_away = problem
        raise problem


def _may_need_database(outcome: Outcome | Exception) -> bool:
    """Whether what is told of it may be with Postgres alone."""
    is_unknown = isinstance(outcome, Refused) and outcome.refusal == Refusal.ORDER_NOT_FOUND
    return is_unknown or isinstance(outcome, Replayed)


def _decode(body: bytes) -> list[msgspec.Raw]:
    try:
        return _BATCH_DECODER.decode(body).items
    except NOT_READABLE as error:
        raise body_problem(error) from error


def _is_order(item: msgspec.Raw) -> bool:
    """Whether an item that cannot be carried out was meant to place an order."""
    try:
        return _OP_DECODER.decode(item).get("op") == msgspec.Raw(b'"place"')
    except NOT_READABLE:
        return False


def _refuse(problem: Problem, run: _Run, *, is_order: bool) -> Answer:
    if is_order:
        metrics.ORDERS_RECEIVED.inc()
        order_refused(problem, run.request_id)
    else:
        log("batch item refused", run.request_id, code=problem.code, detail=problem.detail)
    return Answer(problem.status, problem.body(PATH))


def _result(answer: Answer) -> dict[str, object]:
    result: dict[str, object] = {"status": answer.status, "body": msgspec.Raw(answer.body)}
    if answer.replayed:
        result["replayed"] = True
    return result
