"""Tickers: best prices from the book, the last trade and the last 24 hours from Postgres with what
only the stream knows yet. All in a ticker is at least as new as its `sequence`.
"""

from collections.abc import Callable, Iterable
from itertools import islice

from flask import Blueprint, Response

from app.api.candles import vwap_text
from app.api.http import json_response, read_query
from app.api.markets import Markets
from app.domain.candles import DAY_MINUTES, Candle, flat
from app.domain.events import Event
from app.domain.instruments import Market, divide_half_even
from app.domain.views import View, timestamp
from app.engine.book import Books
from app.engine.commands import Depth, Level, Refused
from app.engine.executor import EngineUnavailable, OutcomeUnknown
from app.engine.reads import BookReads
from app.persistence.market_data import LastTrade, MarketData, Window

MAX_TAIL_EVENTS = 1_000
"""Events that Postgres may lack for a ticker to count their trades among those of 24 hours; of more
only the last price is told.
"""
PERCENT_DECIMALS = 2


class Tickers:
    """One per process."""

    def __init__(self, books: Books, reads: BookReads, data: MarketData, markets: Markets) -> None:
        self._books = books
        self._reads = reads
        self._data = data
        self._markets = markets

    def ticker(self, symbol: str) -> View:
        """One instrument's, as it is now.

        Raises:
            Problem: 404 for an unknown instrument. Refused: its book cannot be read.
            DatabaseUnavailable, EngineUnavailable.
        """
        market = self._markets.require(symbol)
        depth = self._depth(market)
        return self._view(market, depth, self._data.windows([market], DAY_MINUTES)[symbol])

    def tickers(self) -> list[View]:
        """Of all instruments whose book can be read, by symbol.

        Raises:
            DatabaseUnavailable, EngineUnavailable.
        """
        depths = {}
        for instrument in self._reads.instruments():
            try:
                depths[instrument.symbol] = self._depth(self._markets.require(instrument.symbol))
            except Refused:
                continue  # lost, or of another version: /readyz names it
        markets = [self._markets.require(symbol) for symbol in depths]
        windows = self._data.windows(markets, DAY_MINUTES)
        return [self._view(m, depths[m.symbol], windows[m.symbol]) for m in markets]

    def _depth(self, market: Market) -> Depth:
        try:
            return self._books.depth(market.symbol, 1)
        except OutcomeUnknown as error:
            raise EngineUnavailable(str(error)) from error  # a read has no outcome to wonder at

    def _view(self, market: Market, depth: Depth, window: Window) -> View:
        newer: list[Event] = []
        if depth.sequence > window.position:
            tail = self._reads.tail(market.symbol, window.position)
            newer = list(islice(tail, MAX_TAIL_EVENTS))
        last = _newest(newer) or self._last_before(market, newer, window)
        traded = window.traded
        if newer and newer[-1].sequence == window.position + 1:
            traded = _with(traded, window.start_us, reversed(newer))
        return _ticker_view(market, depth, last, traded)

    def _last_before(self, market: Market, newer: list[Event], window: Window) -> LastTrade | None:
        """The last trade where `newer` have none; the book knows the price of one left out."""
        if newer and newer[-1].sequence > window.position + 1:
            price_ticks = self._reads.last_price(market.symbol)
            return None if price_ticks is None else LastTrade(price_ticks)
        return window.last


def _newest(events: Iterable[Event]) -> LastTrade | None:
    """The last trade of `events`, newest first."""
    for event in events:
        if event.fills:
            fill = event.fills[-1]
            return LastTrade(fill.price_ticks, fill.quantity_lots, event.time_us)
    return None


def _with(traded: Candle | None, start_us: int, events: Iterable[Event]) -> Candle | None:
    """With the trades of these later events, oldest first, of the same window."""
    for event in events:
        for fill in event.fills if event.time_us >= start_us else ():
            traded = traded or flat(start_us, fill.price_ticks)
            traded.add(event.sequence, fill.price_ticks, fill.quantity_lots, event.order.side)
    return traded


def _ticker_view(
    market: Market, depth: Depth, last: LastTrade | None, traded: Candle | None
) -> View:
    price, quantity = market.price, market.quantity
    bid, ask = (side[0] if side else None for side in (depth.bids, depth.asks))
    return {
        "instrument": market.symbol,
        "sequence": depth.sequence,
        "last": price.format(last.price_ticks) if last else None,
        "last_quantity": _text(quantity.format, last and last.quantity_lots),
        **_best_view(market, "best_bid", bid),
        **_best_view(market, "best_ask", ask),
        "open_24h": price.format(traded.open_ticks) if traded else None,
        "high_24h": price.format(traded.high_ticks) if traded else None,
        "low_24h": price.format(traded.low_ticks) if traded else None,
        "volume_24h": quantity.format(traded.volume_lots if traded else 0),
        "quote_volume_24h": market.notional.format(traded.quote_volume if traded else 0),
        "vwap_24h": vwap_text(market, traded),
        **_change_view(market, last, traded),
        "trades_24h": traded.trades if traded else 0,
        "timestamp": _text(timestamp, last and last.time_us),
    }


def _text(write: Callable[[int], str], units: int | None) -> str | None:
    return None if units is None else write(units)


def _best_view(market: Market, name: str, level: Level | None) -> View:
    return {
        name: market.price.format(level.price_ticks) if level else None,
        f"{name}_quantity": market.quantity.format(level.quantity_lots) if level else None,
    }


def _change_view(market: Market, last: LastTrade | None, traded: Candle | None) -> View:
    if last is None or traded is None:
        return {"change_24h": None, "change_24h_percent": None}
    change = last.price_ticks - traded.open_ticks
    percent = divide_half_even(change * 100 * 10**PERCENT_DECIMALS, traded.open_ticks)
    whole, fraction = divmod(abs(percent), 10**PERCENT_DECIMALS)
    return {
        "change_24h": market.price.format_signed(change),
        "change_24h_percent": f"{'-' if percent < 0 else ''}{whole}.{fraction:02d}",
    }


def tickers_blueprint(tickers: Tickers) -> Blueprint:
    """Route `/ticker`."""
    blueprint = Blueprint("tickers", __name__)

    @blueprint.get("/ticker")
    def read() -> Response:
        symbol = read_query({"instrument": False}).get("instrument")
        if symbol is not None:
            return json_response(tickers.ticker(symbol))
        return json_response({"tickers": tickers.tickers()})

    return blueprint
