"""Order entry: the same for REST and WebSocket. Takes bytes and ids, gives a status and a body."""

from collections.abc import Callable
from time import perf_counter
from typing import ParamSpec, assert_never

from app.api import metrics
from app.api.bodies import Changes, SeedOrder, check_changes, check_order, decode_order
from app.api.dialects import with_seed_names
from app.api.markets import Markets
from app.api.outcomes import Answer, Outcomes, log, order_refused
from app.api.problems import problem_of, refused
from app.domain.instruments import Market
from app.domain.orders import OrderRecord
from app.domain.refusals import Refusal
from app.engine.book import Books
from app.engine.commands import Amendment, Cancel, NewOrder, OrderCommand, OrderNumber, Outcome
from app.engine.reads import BookReads
from app.persistence.queries import Queries

Given = ParamSpec("Given")


def answering(command: Callable[Given, Answer]) -> Callable[Given, Answer]:
    """`command`, with its problems as answers too: for ways that carry no HTTP errors."""

    def answer(*args: Given.args, **kwargs: Given.kwargs) -> Answer:
        try:
            return command(*args, **kwargs)
        except Exception as error:  # noqa: BLE001  # problem_of logs those that it does not know
            problem = problem_of(error)
            return Answer(problem.status, problem.body("/ws"))

    return answer


class OrderEntry:
    """Places, amends and cancels orders for clients. One per process."""

    def __init__(
        self,
        books: Books,
        reads: BookReads,
        queries: Queries,
        markets: Markets,
        outcomes: Outcomes,
    ) -> None:
        self._books = books
        self._reads = reads
        self._queries = queries
        self._markets = markets
        self._outcomes = outcomes

    def place(self, body: bytes, header_key: str | None = None, request_id: str = "") -> Answer:
        """Place the order that `body` (JSON) describes; 201 with its state right after matching.

        Raises:
            Problem: nothing was placed, unless its code is `outcome_unknown`.
        """
        started = perf_counter()
        metrics.ORDERS_RECEIVED.inc()
        try:
            wanted = decode_order(body)
            market = self._markets.require(wanted.instrument)
            answer = self._run(market, check_order(wanted, market, header_key), request_id)
        except Exception as error:
            raise order_refused(problem_of(error), request_id) from error
        if type(wanted) is SeedOrder:
            answer = answer._replace(body=with_seed_names(answer.body))
        metrics.ORDER_LATENCY.observe(perf_counter() - started)
        return answer

    def amend(self, order_id: str, changes: Changes, request_id: str = "") -> Answer:
        """Amend one open order; 200 with its state right after, and the trades that it made.

        Raises:
            Problem: 404 `order_not_found`, 409 `order_not_open`, 422 of the book's, or as `place`.
        """
        try:
            market, number = self._markets.locate(order_id)
            amendment = check_changes(changes, OrderNumber(number), market)
            return self._run(market, amendment, request_id)
        except Exception as error:
            problem = problem_of(error)
            log("amendment refused", request_id, code=problem.code, order_id=order_id)
            raise problem from error

    def cancel(self, order_id: str, request_id: str = "") -> Answer:
        """Cancel one order; 200 with its final state.

        Raises:
            Problem: 404 `order_not_found`, 409 `order_not_open`, or as `place`.
        """
        try:
            market, number = self._markets.locate(order_id)
            return self._run(market, Cancel(OrderNumber(number)), request_id)
        except Exception as error:
            problem = problem_of(error)
            log("cancel refused", request_id, code=problem.code, order_id=order_id)
            raise problem from error

    def _run(self, market: Market, command: OrderCommand, request_id: str) -> Answer:
        try:
            outcome = self._carry_out(market.symbol, command)
        except Exception as error:
            raise self._outcomes.problem(market, command, error) from error
        return self._outcomes.answer(market, outcome, request_id)

    def _carry_out(self, symbol: str, command: OrderCommand) -> Outcome:
        match command:
            case NewOrder():
                return self._books.place(symbol, command)
            case Amendment():
                return self._books.amend(symbol, command)
            case Cancel():
                return self._books.cancel(symbol, command)
            case _:
                assert_never(command)

    def order(self, order_id: str) -> tuple[Market, OrderRecord]:
        """One order, as it is now.

        Raises:
            Problem: 404 `order_not_found`.
        """
        market, number = self._markets.locate(order_id)
        # Redis first: an order leaves it only after Postgres has it.
        found = self._reads.order(market.symbol, number) or self._queries.order(market, number)
        if found is None:
            raise refused(Refusal.ORDER_NOT_FOUND)
        return market, found
