"""Candles: what traded in a minute, a larger interval or a window, in ticks and lots. Pure: knows
how trades make a candle and how a page of candles is laid out; not where they are kept.
"""

from collections.abc import Iterable
from typing import Final

import msgspec

from app.domain.orders import Side

MINUTE_US: Final = 60_000_000
DAY_MINUTES: Final = 1_440
INTERVAL_MINUTES: Final = {"1m": 1, "5m": 5, "15m": 15, "1h": 60, "4h": 240, "1d": DAY_MINUTES}
"""Each divides a day: their candles begin at whole multiples of it since 1970, in UTC."""


class Candle(msgspec.Struct, kw_only=True):
    """Trades of one instrument and interval. `open` and `close` are those of the first and last by
    sequence, whatever their times; `quote_volume` is in ticks x lots; `buy_lots` are those of which
    the buyer was the taker. Without trades it is flat, at the price of the last trade before.
    """

    start_us: int
    open_ticks: int
    high_ticks: int
    low_ticks: int
    close_ticks: int
    volume_lots: int = 0
    quote_volume: int = 0
    trades: int = 0
    buy_lots: int = 0
    largest_lots: int = 0
    first_sequence: int = 0
    last_sequence: int = 0

    def add(self, sequence: int, price_ticks: int, quantity_lots: int, side: str) -> None:
        """One more trade, the newest so far; `side` is the taker's."""
        if not self.trades:
            self.open_ticks = self.high_ticks = self.low_ticks = price_ticks
            self.first_sequence = sequence
        elif price_ticks > self.high_ticks:
            self.high_ticks = price_ticks
        elif price_ticks < self.low_ticks:
            self.low_ticks = price_ticks
        self.close_ticks = price_ticks
        self.volume_lots += quantity_lots
        self.quote_volume += price_ticks * quantity_lots
        self.trades += 1
        if side == Side.BUY:
            self.buy_lots += quantity_lots
        self.largest_lots = max(self.largest_lots, quantity_lots)
        self.last_sequence = sequence


def flat(start_us: int, price_ticks: int) -> Candle:
    """A candle without trades."""
    return Candle(
        start_us=start_us,
        open_ticks=price_ticks,
        high_ticks=price_ticks,
        low_ticks=price_ticks,
        close_ticks=price_ticks,
    )


def minute_of(time_us: int) -> int:
    """Where the minute of that time begins."""
    return time_us - time_us % MINUTE_US


def page(
    first_us: int,
    current_us: int,
    interval_us: int,
    bounds: tuple[int | None, int | None],
    most: int,
) -> range:
    """Where the candles of a page begin, oldest first: from the first of `bounds` on and before the
    second, at most `most`. Without the first bound (None) they are the last ones, else the first;
    without the second up to now. `first_us` and `current_us` are the minutes of the first trade and
    of now: no candle is before the one or after the other.
    """
    after, before = bounds
    oldest = first_us - first_us % interval_us
    stop = current_us - current_us % interval_us + interval_us
    if before is not None:
        stop = min(stop, _ceiling(before, interval_us))
    if after is None:
        return range(max(oldest, stop - most * interval_us), stop, interval_us)
    begin = max(oldest, _ceiling(after, interval_us))
    return range(begin, min(stop, begin + most * interval_us), interval_us)


def _ceiling(time_us: int, interval_us: int) -> int:
    return -(-time_us // interval_us) * interval_us


def without_gaps(starts: range, found: Iterable[Candle], close_before: int | None) -> list[Candle]:
    """A candle for each of `starts`: those that were found, and between them flat ones at the close
    before; none before the first price that is known.
    """
    by_start = {candle.start_us: candle for candle in found}
    close, candles = close_before, []
    for start_us in starts:
        candle = by_start.get(start_us)
        if candle is None and close is not None:
            candle = flat(start_us, close)
        if candle is not None:
            candles.append(candle)
            close = candle.close_ticks
    return candles
