"""Candles without a database: how a page is laid out, and how gaps are filled."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.domain.candles import (
    DAY_MINUTES,
    INTERVAL_MINUTES,
    MINUTE_US,
    Candle,
    flat,
    minute_of,
    page,
    without_gaps,
)

M = MINUTE_US
times = st.integers(-(10**12), 10**12)


def test_intervals_divide_a_day() -> None:
    """Rule: so that candles of each begin at midnight UTC, and larger ones have whole smaller."""
    assert all(DAY_MINUTES % minutes == 0 for minutes in INTERVAL_MINUTES.values())


@pytest.mark.parametrize(
    ("bounds", "most", "starts"),
    [
        ((None, None), 100, [10, 15, 20, 25, 30]),
        ((None, None), 2, [25, 30]),
        ((None, 25), 2, [15, 20]),
        ((None, 26), 2, [20, 25]),
        ((None, 1000), 1, [30]),
        ((None, 10), 9, []),
        ((0, None), 2, [10, 15]),
        ((15, None), 100, [15, 20, 25, 30]),
        ((16, None), 100, [20, 25, 30]),
        ((16, 30), 100, [20, 25]),
        ((16, 30), 1, [20]),
        ((31, None), 5, []),
        ((-(10**6), 10**6), 3, [10, 15, 20]),
    ],
)
def test_page(bounds: tuple[int | None, int | None], most: int, starts: list[int]) -> None:
    """Rule: from the candle of the first trade to that of now; the first ones from a start on, the
    last ones without; of those that begin from `start` on and before `end`.
    """
    after, before = (None if bound is None else bound * M for bound in bounds)
    laid_out = page(12 * M, 31 * M, 5 * M, (after, before), most)
    assert [start // M for start in laid_out] == starts


@given(times, times, st.sampled_from([*INTERVAL_MINUTES.values()]), st.none() | times,
       st.none() | times, st.integers(1, 1000))  # fmt: skip
def test_pages_are_bounded_and_aligned(
    one: int, other: int, minutes: int, after: int | None, before: int | None, most: int
) -> None:
    """Rule: never more than asked for, never outside of what there is or was asked for, aligned."""
    first, current, interval = min(one, other), max(one, other), minutes * M
    starts = page(minute_of(first), minute_of(current), interval, (after, before), most)
    assert len(starts) <= most
    for start in (*starts[:1], *starts[-1:]):
        assert start % interval == 0
        assert first - interval < start <= current
        assert after is None or start >= after
        assert before is None or start < before


def test_gaps_are_flat_at_the_close_before() -> None:
    """Rule: a minute without a trade has the price of the last trade before, and no volume; before
    the first price there is nothing.
    """
    one, two = flat(2 * M, 7), flat(4 * M, 9)
    one.add(1, 7, 3, "buy")
    one.add(2, 5, 3, "buy")
    starts = range(M, 6 * M, M)
    assert without_gaps(starts, [one, two], None) == [one, flat(3 * M, 5), two, flat(5 * M, 9)]
    assert without_gaps(starts, [one, two], 4)[0] == flat(M, 4)
    assert without_gaps(starts, [], None) == []


@given(st.lists(st.tuples(st.integers(1, 9), st.integers(1, 9), st.sampled_from(["buy", "sell"])),
                min_size=1))  # fmt: skip
def test_candle_is_what_its_trades_are(trades: list[tuple[int, int, str]]) -> None:
    """Rule: each trade is in it once."""
    candle = flat(0, trades[0][0])
    for sequence, trade in enumerate(trades, 5):
        candle.add(sequence, *trade)
    prices, lots, sides = zip(*trades, strict=True)
    assert candle == Candle(
        start_us=0,
        open_ticks=prices[0],
        high_ticks=max(prices),
        low_ticks=min(prices),
        close_ticks=prices[-1],
        volume_lots=sum(lots),
        quote_volume=sum(price * quantity for price, quantity, _ in trades),
        trades=len(trades),
        buy_lots=sum(q for q, side in zip(lots, sides, strict=True) if side == "buy"),
        largest_lots=max(lots),
        first_sequence=5,
        last_sequence=4 + len(trades),
    )
