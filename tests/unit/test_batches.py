"""What becomes of a batch when a store goes away in the middle: nobody waits for it once for each
item, and nothing is said of an item that is not true.
"""

import json
from collections.abc import Sequence
from typing import Any

import pytest

from app.api.batches import Batches
from app.api.markets import Markets
from app.api.outcomes import Outcomes
from app.domain.instruments import DEFAULT_INSTRUMENTS, Instrument
from app.domain.refusals import Refusal
from app.engine.commands import OrderCommand, Refused
from app.engine.executor import EngineUnavailable, OutcomeUnknown
from app.persistence.queries import DatabaseUnavailable

Json = dict[str, Any]


class Listed:
    """Knows the instruments, until Redis is away."""

    away = False

    def instrument(self, symbol: str) -> Instrument | None:
        if self.away:
            raise EngineUnavailable("away")
        return next((each for each in DEFAULT_INSTRUMENTS if each.symbol == symbol), None)


class Books:
    """Answers every command with the same error, and remembers what it was asked."""

    def __init__(self, error: Exception) -> None:
        self._error = error
        self.asked: list[tuple[str, int]] = []

    def run_all(self, symbol: str, commands: Sequence[OrderCommand]) -> list[Exception]:
        self.asked.append((symbol, len(commands)))
        return [self._error] * len(commands)


class NoQueries:
    """A Postgres that does not answer."""

    asked = 0

    def has_order(self, *_which: object) -> bool:
        self.asked += 1
        raise DatabaseUnavailable


def place(symbol: str, **more: object) -> Json:
    order = {"op": "place", "instrument": symbol, "side": "buy", "price": "1", "quantity": "1"}
    return order | more


def run(books: Books, items: list[Json], queries: NoQueries | None = None) -> list[Json]:
    outcomes = Outcomes(None, queries or NoQueries())  # type: ignore[arg-type]
    batches = Batches(books, Markets(Listed()), outcomes)  # type: ignore[arg-type]
    results: list[Json] = json.loads(batches.run(json.dumps({"items": items}).encode(), "r"))[
        "results"
    ]
    return results


def codes(results: list[Json]) -> list[str]:
    return [result["body"]["code"] for result in results]


def test_a_book_is_asked_once_with_all_its_items() -> None:
    books = Books(Refused(Refusal.CANCEL_ONLY))
    results = run(books, [place("BTC-USD"), place("ETH-USD"), place("BTC-USD")])
    assert books.asked == [("BTC-USD", 2), ("ETH-USD", 1)]
    assert codes(results) == ["cancel_only"] * 3


def test_once_redis_is_away_the_other_books_are_not_asked() -> None:
    """What was sent may have happened; what was not sent has not, and may be repeated."""
    books = Books(OutcomeUnknown("lost"))
    items = [place("BTC-USD"), place("ETH-USD"), place("BTC-USD", idempotency_key="k")]
    results = run(books, [*items, place("SOL-USD")])
    assert books.asked == [("BTC-USD", 2)]
    assert codes(results) == [
        "outcome_unknown",
        "engine_unavailable",
        "outcome_unknown",
        "engine_unavailable",
    ]
    assert "safe to ask again" not in results[0]["body"]["detail"]
    assert "safe to ask again" in results[2]["body"]["detail"]


def test_a_redis_that_is_away_before_anything_was_sent_fails_the_batch_whole(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(Listed, "away", True)
    books = Books(Refused(Refusal.CANCEL_ONLY))
    with pytest.raises(EngineUnavailable):
        run(books, [place("BTC-USD")])
    assert books.asked == []


def test_a_postgres_that_is_away_is_waited_for_once() -> None:
    """Whether orders that Redis does not know are over, it alone could tell."""
    queries = NoQueries()
    unknown = [{"op": "cancel", "order_id": f"BTC-USD-{number:014}"} for number in range(1, 50)]
    results = run(Books(Refused(Refusal.ORDER_NOT_FOUND)), unknown, queries)
    assert codes(results) == ["database_unavailable"] * 49
    assert queries.asked == 1


def test_an_order_named_by_its_client_is_not_looked_for_in_postgres() -> None:
    queries = NoQueries()
    named = {"client_id": "ann", "instrument": "BTC-USD", "client_order_id": "c"}
    results = run(Books(Refused(Refusal.ORDER_NOT_FOUND)), [{"op": "cancel"} | named], queries)
    assert (codes(results), queries.asked) == (["order_not_found"], 0)
