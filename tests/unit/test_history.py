"""Pages that join Postgres and the streams: nothing missing, nothing twice, however far behind."""

from collections.abc import Iterator

import fakeredis
import msgspec
import pytest

from app.api.history import History
from app.api.markets import Markets
from app.api.problems import Problem
from app.domain.events import Trade
from app.domain.instruments import DEFAULT_INSTRUMENTS
from app.domain.orders import OrderRecord
from app.engine import reads
from app.engine.executor import EngineUnavailable
from app.engine.reads import BookReads
from app.persistence.queries import DatabaseUnavailable, ListedOrder, OrderCursor, OrderFilter
from tests.commands import (
    Amend,
    ArmTimer,
    KillSwitch,
    MassCancel,
    SetRules,
    limit,
    market,
    stop,
)
from tests.venue import EngineVenue

SYMBOL = "BTC-USD"
PAGE = 3


class Stored:
    """Postgres as far as it has got: up to `position`, out of what the stream has."""

    def __init__(self, venue: EngineVenue, books: BookReads, position: int) -> None:
        self.position = position
        self.away = False
        events = [books.event(SYMBOL, number) for number in range(1, position + 1)]
        self._orders: dict[int, OrderRecord] = {}
        self._trades: list[Trade] = []
        for event in events:
            assert event is not None
            self._orders.update((order.number, order) for order in event.orders)
            self._trades += event.trades

    def orders(
        self, wanted: OrderFilter, limit: int, before: OrderCursor | None = None
    ) -> tuple[list[ListedOrder], dict[str, int]]:
        rows = [ListedOrder(SYMBOL, order) for order in self._orders.values()]
        found = [
            row
            for row in sorted(rows, key=lambda row: row.cursor, reverse=True)
            if (before is None or row.cursor < before)
            and (not wanted.statuses or row.order.status in wanted.statuses)
        ]
        return found[:limit], {SYMBOL: self.position}

    def trades(
        self, _market: object, limit: int, before: tuple[int, int] | None = None
    ) -> tuple[list[Trade], int]:
        if self.away:
            raise DatabaseUnavailable("away")
        found = [t for t in self._trades[::-1] if not before or (t.sequence, t.index) < before]
        return found[:limit], self.position


@pytest.fixture
def venue() -> Iterator[EngineVenue]:
    client = fakeredis.FakeRedis()
    client.flushall()
    BookReads(client).announce(DEFAULT_INSTRUMENTS[0])
    yield EngineVenue(client)
    client.flushall()


def history(venue: EngineVenue, position: int) -> tuple[History, Stored]:
    books = BookReads(venue.client)
    stored = Stored(venue, books, position)
    return History(books, stored, Markets(books)), stored  # type: ignore[arg-type]


def all_numbers(history: History, **query: str) -> list[int]:
    numbers: list[int] = []
    cursor: dict[str, str] = {}
    while True:
        page = history.orders({"limit": str(PAGE), **query, **cursor})
        numbers += [int(order["order_id"][-14:]) for order in page["orders"]]
        if page["next_cursor"] is None:
            return numbers
        cursor = {"cursor": page["next_cursor"]}


@pytest.mark.parametrize("position", range(17))
@pytest.mark.parametrize("status", ["open", "partially_filled", "filled", None])
def test_every_order_is_on_one_page_wherever_postgres_stands(
    venue: EngineVenue, position: int, status: str | None
) -> None:
    for number in range(10):
        venue.apply(limit(f"client-{number}", "sell", 100 + number % 3, 4))
    for lots in (1, 3, 5, 2, 6, 1):
        venue.apply(market("taker", "buy", lots))
    listed, _ = history(venue, position)
    expected = sorted(
        (n for n, order in venue.orders().items() if status in (None, order.status)), reverse=True
    )
    assert all_numbers(listed, **({"status": status} if status else {})) == expected


def trade_with_everything(venue: EngineVenue) -> None:
    """Events of every type that changes orders or none, stops that wait, one that was triggered."""
    venue.apply(limit("ann", "sell", 100, 4))
    venue.apply(SetRules(price_band_bps=5_000))
    venue.apply(stop("bob", "buy", 110, 1))
    venue.apply(stop("bob", "buy", 101, 2))
    venue.apply(KillSwitch("eve", engaged=True))
    venue.apply(limit("ann", "sell", 101, 9))
    venue.apply(Amend(1, quantity_lots=3))
    venue.apply(ArmTimer("ann", 1_000_000))
    venue.apply(limit("cyd", "buy", 101, 4))  # trades at 101, which triggers the second stop
    venue.apply(limit("dan", "buy", 90, 1))
    venue.apply(limit("dan", "buy", 91, 1))
    venue.apply(MassCancel("dan"))


@pytest.mark.parametrize("position", range(14))
@pytest.mark.parametrize("status", ["pending", "open", "filled", "cancelled", None])
def test_orders_changed_by_any_event_are_on_one_page(
    venue: EngineVenue, position: int, status: str | None
) -> None:
    """Events that change no order, and those that change many, are passed through."""
    trade_with_everything(venue)
    orders = venue.orders()
    statuses = [order.status for order in orders.values()]
    assert statuses.count("pending") == 1
    assert statuses.count("cancelled") == 2
    listed, _ = history(venue, position)
    expected = sorted(
        (n for n, order in orders.items() if status in (None, order.status)), reverse=True
    )
    assert all_numbers(listed, **({"status": status} if status else {})) == expected


def test_a_pending_stop_is_an_open_order_of_its_client(venue: EngineVenue) -> None:
    """Exact at once and without Postgres, as all open orders are."""
    trade_with_everything(venue)
    listed, _ = history(venue, 0)
    page = listed.orders({"client_id": "bob", "status": "pending"})
    assert [order["stop_price"] for order in page["orders"]] == ["1.10"]
    assert listed.orders({"client_id": "bob", "status": "open"})["orders"] == []


def test_trades_of_triggered_stops_are_in_the_list(venue: EngineVenue) -> None:
    trade_with_everything(venue)
    (stop_number,) = [n for n, o in venue.orders().items() if o.type == "stop" and o.filled_lots]
    for position in range(14):
        listed, _ = history(venue, position)
        trades = listed.trades({"instrument": SYMBOL})["trades"]
        assert trades[0]["taker_order_id"] == f"{SYMBOL}-{stop_number:014}"
        assert [trade["quantity"][-1] for trade in trades] == ["2", "1", "3"]


def test_an_order_that_newly_matches_at_a_page_s_edge_is_not_shown_twice(
    venue: EngineVenue,
) -> None:
    """Postgres's rows may have left the filter, and older ones come under it, by the stream."""
    for price in (100, 102, 103):
        venue.apply(limit("seller", "sell", price, 1))
        venue.apply(limit("buyer", "buy", price, 5))  # takes one, rests partially filled
    venue.apply(limit("buyer", "buy", 101, 5))
    venue.apply(limit("buyer", "buy", 102, 1))
    position = 8
    venue.apply(market("seller", "sell", 4 + 4 + 1 + 2))  # ends 103 and 102, begins 101
    for page in ("1", "2", "3"):
        listed, _ = history(venue, position)
        assert all_numbers(listed, status="partially_filled", limit=page) == [7, 2]


def test_trades_go_on_from_the_stream_into_postgres(venue: EngineVenue) -> None:
    venue.apply(limit("alice", "sell", 100, 50))
    for _ in range(7):
        venue.apply(market("taker", "buy", 1))
    for position in range(9):
        listed, _ = history(venue, position)
        told: list[int] = []
        before: dict[str, str] = {}
        while True:
            page = listed.trades({"instrument": SYMBOL, "limit": "2", **before})
            told += [trade["sequence"] for trade in page["trades"]]
            if page["next_before"] is None:
                break
            before = {"before": page["next_before"]}
        assert told == [8, 7, 6, 5, 4, 3, 2]


def test_trades_without_postgres_are_those_that_the_stream_has(venue: EngineVenue) -> None:
    venue.apply(limit("alice", "sell", 100, 50))
    for _ in range(4):
        venue.apply(market("taker", "buy", 1))
    listed, stored = history(venue, 2)
    stored.away = True
    page = listed.trades({"instrument": SYMBOL, "limit": "3"})
    assert [trade["sequence"] for trade in page["trades"]] == [5, 4, 3]
    with pytest.raises(DatabaseUnavailable):
        listed.trades({"instrument": SYMBOL, "limit": "100"})


def test_a_backlog_longer_than_a_chunk_is_read_whole(
    venue: EngineVenue, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(reads, "TAIL_CHUNK", 2)
    monkeypatch.setattr(reads, "MAX_TAIL_EVENTS", 20)
    for _ in range(9):
        venue.apply(limit("alice", "sell", 100, 4))
    listed, _ = history(venue, 0)
    assert all_numbers(listed) == list(range(9, 0, -1))


def test_a_backlog_too_long_to_read_is_said_and_not_passed_over(
    venue: EngineVenue, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A page with a hole in it would be a lie."""
    monkeypatch.setattr(reads, "TAIL_CHUNK", 2)
    monkeypatch.setattr(reads, "MAX_TAIL_EVENTS", 4)
    for _ in range(9):
        venue.apply(limit("alice", "sell", 100, 4))
    listed, _ = history(venue, 0)
    with pytest.raises(EngineUnavailable):
        listed.orders({})


@pytest.mark.parametrize(
    ("call", "query"),
    [
        ("orders", {"cursor": "nonsense"}),
        ("orders", {"cursor": "1:BTC-USD:1\n"}),
        ("orders", {"limit": "0"}),
        ("orders", {"limit": "1001"}),
        ("orders", {"status": "opened"}),
        ("trades", {"before": "ETH-USD-00000000000001-1"}),
        ("trades", {"before": "-1"}),
        ("trades", {"before": "1-2-3"}),
        ("trades", {"limit": "1e2"}),
    ],
)
def test_what_is_no_place_in_a_list_is_refused(
    venue: EngineVenue, call: str, query: dict[str, str]
) -> None:
    listed, _ = history(venue, 0)
    with pytest.raises(Problem) as caught:
        getattr(listed, call)({"instrument": SYMBOL, **query})
    assert caught.value.status == 400
    assert msgspec.json.decode(caught.value.body("/"))["errors"]
