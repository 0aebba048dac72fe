"""Order entry: the same for REST and WebSocket. Takes bytes and ids, gives a status and a body."""

from collections.abc import Callable
from logging import INFO
from time import perf_counter
from typing import NamedTuple, TypeVar

from app.api import metrics
from app.api.bodies import check_order, decode_order
from app.api.http import encode
from app.api.markets import Markets
from app.api.problems import Problem, problem_of, refused, safe_to_repeat
from app.domain.events import Event, Fill
from app.domain.instruments import Market
from app.domain.orders import OrderRecord, split_order_id
from app.domain.refusals import Reason, Refusal
from app.domain.views import View, order_view, trade_views
from app.engine.book import Books, Placed, Refused, Replayed
from app.engine.executor import OutcomeUnknown
from app.engine.reads import BookReads
from app.logs import logger
from app.persistence.queries import Queries

Subject = TypeVar("Subject", bytes, str)


class Answer(NamedTuple):
    """What a command answers, on whichever way it came."""

    status: int
    body: bytes
    replayed: bool = False


def answering(command: Callable[[Subject], Answer]) -> Callable[[Subject], Answer]:
    """`command`, with its problems as answers too: for ways that carry no HTTP errors."""

    def answer(subject: Subject) -> Answer:
        try:
            return command(subject)
        except Exception as error:  # noqa: BLE001  # problem_of logs those that it does not know
            problem = problem_of(error)
            return Answer(problem.status, problem.body("/ws"))

    return answer


class OrderEntry:
    """Places and cancels orders for clients. One per process."""

    def __init__(self, books: Books, reads: BookReads, queries: Queries, markets: Markets) -> None:
        self._books = books
        self._reads = reads
        self._queries = queries
        self._markets = markets

    def place(self, body: bytes, header_key: str | None = None, request_id: str = "") -> Answer:
        """Place the order that `body` (JSON) describes; 201 with its state right after matching.

        Raises:
            Problem, Refused, EngineUnavailable: nothing was placed (but see OutcomeUnknown).
        """
        started = perf_counter()
        metrics.ORDERS_RECEIVED.inc()
        try:
            answer = self._place(body, header_key, request_id)
        except Exception as error:
            problem = problem_of(error)
            metrics.ORDERS_REJECTED.labels(problem.code).inc()
            _log("order refused", request_id, code=problem.code, detail=problem.detail)
            raise problem from error
        metrics.ORDER_LATENCY.observe(perf_counter() - started)
        return answer

    def _place(self, body: bytes, header_key: str | None, request_id: str) -> Answer:
        wanted = decode_order(body)
        market = self._markets.require(wanted.instrument)
        order = check_order(wanted, market, header_key)
        try:
            outcome = self._books.place(market.symbol, order)
        except OutcomeUnknown as error:
            raise (safe_to_repeat(error) if order.idempotency_key else error) from error
        if isinstance(outcome, Replayed):
            event = self._event(market, outcome.sequence)
            first = _placed_view(market, event.order, event, event.fills)
            return Answer(201, encode(first), replayed=True)
        document = _placed_view(market, outcome.order, outcome, outcome.fills)
        if outcome.fills:
            metrics.ORDERS_MATCHED.inc()
        _log("order placed", request_id, order=document["order"])
        for trade in document["trades"]:
            _log("trade", request_id, trade=trade)
        return Answer(201, encode(document))

    def _event(self, market: Market, sequence: int) -> Event:
        event = self._reads.event(market.symbol, sequence) or self._queries.event(market, sequence)
        if event is None:
            raise Problem(503, "event_missing", "the first answer is being stored", retry_after_s=1)
        return event

    def cancel(self, order_id: str, request_id: str = "") -> Answer:
        """Cancel one order; 200 with its final state.

        Raises:
            Problem: 404 `order_not_found`, 409 `order_not_open`, or as `place`.
        """
        market, number = self.locate(order_id)
        try:
            cancelled = self._books.cancel(market.symbol, number, Reason.CANCELLED_BY_CLIENT)
        except Refused as error:
            problem = self._cancel_problem(market, number, error.refusal)
            _log("cancel refused", request_id, code=problem.code, order_id=order_id)
            raise problem from error
        except OutcomeUnknown as error:
            raise safe_to_repeat(error) from error
        view = order_view(market, cancelled.order)
        _log("order cancelled", request_id, order=view)
        return Answer(200, encode({"order": view}))

    def _cancel_problem(self, market: Market, number: int, refusal: Refusal) -> Problem:
        over = refusal == Refusal.ORDER_NOT_FOUND and self._queries.has_order(market, number)
        return refused(Refusal.ORDER_NOT_OPEN if over else refusal)

    def locate(self, order_id: str) -> tuple[Market, int]:
        """The market and number that an order id names.

        Raises:
            Problem: 404 `order_not_found` where it cannot be the id of an order.
        """
        parts = split_order_id(order_id)
        market = self._markets.find(parts[0]) if parts else None
        if parts is None or market is None:
            raise refused(Refusal.ORDER_NOT_FOUND)
        return market, parts[1]

    def order(self, order_id: str) -> tuple[Market, OrderRecord]:
        """One order, as it is now.

        Raises:
            Problem: 404 `order_not_found`.
        """
        market, number = self.locate(order_id)
        # Redis first: an order leaves it only after Postgres has it.
        found = self._reads.order(market.symbol, number) or self._queries.order(market, number)
        if found is None:
            raise refused(Refusal.ORDER_NOT_FOUND)
        return market, found


def _log(message: str, request_id: str, **fields: object) -> None:
    """One line for each thing that happened, with the request that it happened in."""
    if logger.isEnabledFor(INFO):
        logger.info(message, extra={"request_id": request_id, **fields})


def _placed_view(
    market: Market, order: OrderRecord, at: Placed | Event, fills: tuple[Fill, ...]
) -> View:
    return {
        "order": order_view(market, order),
        "trades": trade_views(market, order, at.sequence, at.time_us, fills),
    }
