"""Tickers joined from book, Postgres and stream, however far behind Postgres is."""

from collections.abc import Iterable, Iterator

import fakeredis
import pytest

from app.api import tickers
from app.api.markets import Markets
from app.api.tickers import Tickers
from app.domain.candles import Candle, flat
from app.domain.instruments import DEFAULT_INSTRUMENTS, Market
from app.domain.views import View
from app.engine.reads import BookReads
from app.persistence.market_data import LastTrade, Window
from tests.commands import limit
from tests.reference import START_US
from tests.venue import EngineVenue

SYMBOL = "BTC-USD"
DAY_US = 86_400_000_000


class Stored:
    """Postgres as far as it has got: up to `position`, out of what the stream has."""

    def __init__(self, reads: BookReads, position: int) -> None:
        self.position = position
        self._events = [event for event in reads.tail(SYMBOL, 0) if event.sequence <= position]

    def windows(self, markets: Iterable[Market], minutes: int) -> dict[str, Window]:
        assert minutes * 60_000_000 == DAY_US
        start_us = START_US - DAY_US // 2
        traded: Candle | None = None
        last = None
        for event in reversed(self._events):
            for fill in event.fills:
                traded = traded or flat(start_us, fill.price_ticks)
                traded.add(
                    event.sequence, fill.price_ticks, fill.quantity_lots, event.orders[0].side
                )
                last = LastTrade(fill.price_ticks, fill.quantity_lots, event.time_us)
        window = Window(self.position, start_us, start_us + DAY_US, traded, last)
        return {market.symbol: window for market in markets}


@pytest.fixture
def venue() -> Iterator[EngineVenue]:
    """Trades at 10, 12, 9, 11, in events 2, 4, 6, 8."""
    client = fakeredis.FakeRedis()
    client.flushall()
    BookReads(client).announce(DEFAULT_INSTRUMENTS[0])
    venue = EngineVenue(client)
    client.hset(venue.keys.book, "time", str(START_US))
    for price in (10, 12, 9, 11):
        venue.apply(limit("ann", "sell", price, 5))
        venue.apply(limit("bob", "buy", price, 5))
    venue.apply(limit("bob", "buy", 7, 3))
    yield venue
    client.flushall()


def ticker(venue: EngineVenue, position: int) -> View:
    reads = BookReads(venue.client)
    stored = Stored(reads, position)
    return Tickers(venue.books, reads, stored, Markets(reads)).ticker(SYMBOL)  # type: ignore[arg-type]


@pytest.mark.parametrize("position", range(10))
def test_ticker_is_the_same_however_far_postgres_is_behind(
    venue: EngineVenue, position: int
) -> None:
    """Rule: each trade is in it once, whether Postgres has it or only the stream."""
    found = ticker(venue, position)
    assert found == ticker(venue, 9)
    assert (found["sequence"], found["best_bid"], found["best_ask"]) == (9, "0.07", None)
    assert (found["open_24h"], found["high_24h"], found["low_24h"], found["last"]) == (
        *("0.10", "0.12", "0.09"),
        "0.11",
    )
    assert (found["trades_24h"], found["volume_24h"]) == (4, "0.00000020")
    assert (found["change_24h"], found["change_24h_percent"]) == ("0.01", "10.00")


def test_postgres_far_behind_leaves_out_what_it_lacks(
    venue: EngineVenue, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Rule: of a long tail only the end is read: the last trade is told, the day is Postgres's."""
    monkeypatch.setattr(tickers, "MAX_TAIL_EVENTS", 4)
    whole, behind = ticker(venue, 5), ticker(venue, 2)
    assert whole == ticker(venue, 9)
    assert (behind["last"], behind["timestamp"]) == (whole["last"], whole["timestamp"])
    assert (behind["trades_24h"], behind["high_24h"]) == (1, "0.10")


def test_a_last_trade_that_is_not_read_has_the_price_that_the_book_knows(
    venue: EngineVenue, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Rule: a ticker never tells an older price than one before it."""
    monkeypatch.setattr(tickers, "MAX_TAIL_EVENTS", 1)
    behind = ticker(venue, 2)
    assert behind["last"] == "0.11", "of event 8; event 9 alone was read, which did not trade"
    assert (behind["last_quantity"], behind["timestamp"]) == (None, None)
