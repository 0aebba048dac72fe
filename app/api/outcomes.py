"""What a client is told of a command's outcome, and what log and metrics are: the same for REST,
WebSocket and batches. Must not know how a command came or how it reaches the book.
"""

from logging import INFO
from typing import NamedTuple, assert_never

from app.api import metrics
from app.api.http import encode
from app.api.problems import Problem, problem_of, refused, safe_to_repeat
from app.domain.events import Event, Fill
from app.domain.instruments import Market
from app.domain.orders import OrderRecord
from app.domain.refusals import Refusal
from app.domain.views import View, order_view, trade_views
from app.engine.commands import (
    Amended,
    Cancelled,
    Executed,
    NewOrder,
    OrderCommand,
    OrderNumber,
    Outcome,
    Placed,
    Refused,
    Replayed,
)
from app.engine.executor import OutcomeUnknown
from app.engine.reads import BookReads
from app.logs import logger
from app.persistence.queries import DatabaseUnavailable, Queries


class Answer(NamedTuple):
    """What a command answers, on whichever way it came."""

    status: int
    body: bytes
    replayed: bool = False


class Outcomes:
    """Turns outcomes of the book into answers. One per process."""

    def __init__(self, reads: BookReads, queries: Queries) -> None:
        self._reads = reads
        self._queries = queries

    def answer(self, market: Market, outcome: Outcome, request_id: str) -> Answer:
        """The answer to a command that was accepted, or replayed.

        Raises:
            Problem, EngineUnavailable, DatabaseUnavailable: the first answer cannot be read now.
        """
        match outcome:
            case Placed():
                if outcome.fills:
                    metrics.ORDERS_MATCHED.inc()
                return _executed(201, "order placed", market, outcome, request_id)
            case Amended():
                return _executed(200, "order amended", market, outcome, request_id)
            case Cancelled():
                view = order_view(market, outcome.order)
                log("order cancelled", request_id, order=view)
                return Answer(200, encode({"order": view}))
            case Replayed():
                event = self._event(market, outcome.sequence)
                first = _order_and_trades(market, event.order, event, event.fills)
                return Answer(201, encode(first), replayed=True)
            case _:
                assert_never(outcome)

    def _event(self, market: Market, sequence: int) -> Event:
        event = self._reads.event(market.symbol, sequence) or self._queries.event(market, sequence)
        if event is None:
            raise Problem(503, "event_missing", "the first answer is being stored", retry_after_s=1)
        return event

    def problem(self, market: Market, command: OrderCommand, error: Exception) -> Problem:
        """The problem of a command that failed with `error`."""
        if isinstance(error, OutcomeUnknown) and _may_be_repeated(command):
            return safe_to_repeat(error)
        if isinstance(error, Refused) and error.refusal == Refusal.ORDER_NOT_FOUND:
            return self._not_found(market, command)
        return problem_of(error)

    def _not_found(self, market: Market, command: OrderCommand) -> Problem:
        """What Redis does not hold may be over, and with Postgres alone."""
        if isinstance(command, NewOrder) or not isinstance(command.target, OrderNumber):
            return refused(Refusal.ORDER_NOT_FOUND)
        try:
            is_over = self._queries.has_order(market, command.target.number)
        except DatabaseUnavailable as error:
            return problem_of(error)
        return refused(Refusal.ORDER_NOT_OPEN if is_over else Refusal.ORDER_NOT_FOUND)


def _may_be_repeated(command: OrderCommand) -> bool:
    """Whether doing it twice is doing it once: amendments say what the order becomes, not by how
    much it changes.
    """
    return not isinstance(command, NewOrder) or bool(command.idempotency_key)


def _executed(
    status: int, message: str, market: Market, outcome: Executed, request_id: str
) -> Answer:
    document = _order_and_trades(market, outcome.order, outcome, outcome.fills)
    log(message, request_id, order=document["order"])
    for trade in document["trades"]:
        log("trade", request_id, trade=trade)
    return Answer(status, encode(document))


def _order_and_trades(
    market: Market, order: OrderRecord, at: Executed | Event, fills: tuple[Fill, ...]
) -> View:
    return {
        "order": order_view(market, order),
        "trades": trade_views(market, order, at.sequence, at.time_us, fills),
    }


def order_refused(problem: Problem, request_id: str) -> Problem:
    """`problem`, after it was counted and logged as that of an order that was not placed."""
    metrics.ORDERS_REJECTED.labels(problem.code).inc()
    log("order refused", request_id, code=problem.code, detail=problem.detail)
    return problem


def log(message: str, request_id: str, **fields: object) -> None:
    """One line for each thing that happened, with the request that it happened in."""
    if logger.isEnabledFor(INFO):
        logger.info(message, extra={"request_id": request_id, **fields})
