"""Long pages of candles: they take turns, and leave the database to others."""

import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest

from app.domain.candles import MINUTE_US
from app.domain.instruments import DEFAULT_INSTRUMENTS, Market
from app.persistence import market_data
from app.persistence.market_data import LONG_MINUTES, LONG_READS_MAX, MarketData
from app.persistence.queries import DatabaseBusy

MARKET = Market(DEFAULT_INSTRUMENTS[0])
LONG = range(0, LONG_MINUTES * MINUTE_US, MINUTE_US)
SHORT = LONG[:-1]
PATIENCE_S = 10.0


class SlowQueries:
    """A database whose answers wait for `may_answer`. `asked` is released with each question."""

    def __init__(self) -> None:
        self.asked = threading.Semaphore(0)
        self.may_answer = threading.Event()

    def rows(self, *_: object, **__: object) -> list[object]:
        self.asked.release()
        assert self.may_answer.wait(PATIENCE_S)
        return []


@pytest.fixture
def queries() -> Iterator[SlowQueries]:
    slow = SlowQueries()
    yield slow
    slow.may_answer.set()


def test_long_pages_take_turns(queries: SlowQueries, monkeypatch: pytest.MonkeyPatch) -> None:
    """Rule: so many at once; one more is told after a while, and short ones never wait."""
    monkeypatch.setattr(market_data, "LONG_READ_TURN_S", 0.01)
    data = MarketData(queries)  # type: ignore[arg-type]
    with ThreadPoolExecutor() as pool:
        reading = [pool.submit(data.candles, MARKET, LONG) for _ in range(LONG_READS_MAX)]
        for _ in reading:
            assert queries.asked.acquire(timeout=PATIENCE_S)
        with pytest.raises(DatabaseBusy):
            data.candles(MARKET, LONG)
        reading.append(pool.submit(data.candles, MARKET, SHORT))
        assert queries.asked.acquire(timeout=PATIENCE_S)
        queries.may_answer.set()
        assert [each.result(PATIENCE_S) for each in reading] == [[], [], []]
    assert data.candles(MARKET, LONG) == [], "a turn that is over is free again"
