"""Tickers: at once after a subscription, then when they change and at most once a second."""

from typing import Any

import pytest

from app.domain.views import View
from app.feed.messages import Channel, frame
from app.feed.quotes import QUIET_S, TICKER_S, TickerReader
from app.feed.subscribers import Subscriber
from tests.unit.test_feed_hub import BOOK, BTC, ETH, Desk, taken
from tests.unit.test_feed_resume import told

TICKER = frozenset({Channel.TICKER})
FIRST: View = {"instrument": "BTC-USD", "sequence": 1, "last": "1.00", "timestamp": "a"}


class Floor(Desk):
    """A desk with tickers, which counts how often they are asked for."""

    def __init__(self) -> None:
        super().__init__()
        self.asked: list[str] = []
        self.tickers["BTC-USD"] = dict(FIRST)
        self.quotes = TickerReader(self.ticker, self.hub, lambda: self.now)

    def ticker(self, symbol: str) -> View:
        self.asked.append(symbol)
        return super().ticker(symbol)

    def later(self, seconds: float, **changes: object) -> None:
        """The ticker changes, then time passes."""
        self.tickers["BTC-USD"] = self.tickers["BTC-USD"] | changes
        self.now += seconds
        self.quotes.turn()

    def follower(self, channels: frozenset[Channel] = TICKER) -> Subscriber:
        subscriber = self.join()
        self.subscribe(subscriber, channels)
        self.quotes.turn()
        return subscriber


@pytest.fixture
def floor() -> Floor:
    return Floor()


def lasts(subscriber: Subscriber) -> list[Any]:
    """The last price of each ticker that waits."""
    return [message["last"] for message in taken(subscriber) if message["type"] == "ticker"]


def test_the_ticker_comes_at_once(floor: Floor) -> None:
    """As REST shows it, with a type."""
    assert told(floor.follower()) == [{"type": "ticker", **FIRST}]


def test_only_what_changed_is_told(floor: Floor) -> None:
    """That another event happened, or time passed, is no change."""
    subscriber = floor.follower()
    taken(subscriber)
    floor.later(TICKER_S, sequence=2, timestamp="b")
    assert lasts(subscriber) == []
    floor.later(TICKER_S, sequence=3, timestamp="c", last="2.00")
    assert taken(subscriber) == [{"type": "ticker", **floor.tickers["BTC-USD"]}]


def test_at_most_one_a_second_comes_to_each(floor: Floor) -> None:
    """Also to one who came in the middle, who is told the last known one at once, and misses no
    change."""
    first = floor.follower()
    assert lasts(first) == ["1.00"]
    floor.later(0.5, last="2.00")
    second = floor.follower()
    assert (lasts(first), lasts(second)) == ([], ["1.00"])
    floor.later(0.5)
    assert (lasts(first), lasts(second)) == (["2.00"], [])
    floor.later(0.5)
    assert (lasts(first), lasts(second)) == ([], ["2.00"])


def test_a_ticker_is_asked_for_once_a_second_for_everybody(floor: Floor) -> None:
    """However many listen; every QUIET_S where nothing happens; never when nobody does."""
    subscribers = [floor.follower() for _ in range(5)]
    assert len(floor.asked) == 1
    for _ in range(80):
        floor.later(0.125)
    assert len(floor.asked) == 11
    for _ in range(160):
        floor.later(0.125)
    assert len(floor.asked) == 13
    assert QUIET_S == 10
    for subscriber in subscribers:
        floor.hub.unsubscribe(subscriber, TICKER, ["BTC-USD"], frame({"type": "unsubscribed"}))
    assert floor.quotes.turn() is False
    floor.later(100)
    assert len(floor.asked) == 13


def test_an_event_is_a_reason_to_ask(floor: Floor) -> None:
    """Though nothing is told of events themselves, and nothing of them is read."""
    subscriber = floor.follower()
    for _ in range(200):
        floor.later(0.125)
    asked = len(floor.asked)
    floor.write(1)
    floor.turn()
    floor.later(0.125, last="9.00")
    assert len(floor.asked) == asked + 1
    assert [message["type"] for message in told(subscriber)] == ["ticker"] * 2
    assert floor.hub.positions() == {"BTC-USD": 1}


def test_a_ticker_that_cannot_be_had_is_asked_for_again(
    floor: Floor, caplog: pytest.LogCaptureFixture
) -> None:
    """Other instruments do not suffer, the log is not flooded, and it comes when it is there."""
    view = floor.tickers.pop("BTC-USD")
    subscriber = floor.join()
    floor.tickers["ETH-USD"] = FIRST | {"instrument": "ETH-USD", "last": "7.00"}
    floor.hub.subscribe(subscriber, TICKER, [ETH, BTC], frame({"type": "subscribed"}))
    for _ in range(30):
        floor.quotes.turn()
        floor.now += 0.1
    assert lasts(subscriber) == ["7.00"]
    assert [record.message for record in caplog.records] == ["a ticker cannot be had"]
    floor.tickers["BTC-USD"] = view
    floor.later(TICKER_S)
    assert lasts(subscriber) == ["1.00"]


def test_subscribing_again_gives_the_ticker_again(floor: Floor) -> None:
    subscriber = floor.follower()
    assert lasts(subscriber) == ["1.00"]
    floor.subscribe(subscriber, TICKER)
    floor.quotes.turn()
    assert lasts(subscriber) == ["1.00"]


def test_a_ticker_is_traffic(floor: Floor) -> None:
    """No heartbeat within a second of it; and none of it makes a gap a matter of the ticker."""
    subscriber = floor.follower(TICKER | BOOK)
    floor.turn()
    taken(subscriber)
    floor.now += 0.6
    floor.later(0.5, last="3.00")
    floor.pass_s(0.6)
    assert [message["type"] for message in taken(subscriber)] == ["ticker"]
    alone = floor.follower()
    taken(alone)
    floor.hub.restart("BTC-USD", 77)
    assert taken(alone) == []
