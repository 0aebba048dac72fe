"""REST for candles. They follow the persister: what it has not written down is not in them yet."""

from collections.abc import Mapping

from flask import Blueprint, Response

from app.api.http import json_response, read_query
from app.api.markets import Markets
from app.api.spans import SPAN_PARAMETERS, WantedCandles, read_candles
from app.domain.candles import Candle, page, without_gaps
from app.domain.instruments import Market
from app.domain.views import View, timestamp
from app.persistence.market_data import MarketData


class Candles:
    """Pages of candles without gaps. One per process."""

    def __init__(self, data: MarketData, markets: Markets) -> None:
        self._data = data
        self._markets = markets

    def candles(self, query: Mapping[str, str]) -> View:
        """A page, oldest first; by `instrument`, `interval`, `start`, `end` and `limit`.

        Raises:
            Problem: 400, or 404 for an unknown instrument. DatabaseUnavailable.
        """
        market = self._markets.require(query["instrument"])
        wanted = read_candles(query)
        starts = candle_starts(self._data, market, wanted)
        found = self._data.candles(market, starts)
        before = None
        if starts and (not found or found[0].start_us > starts[0]):
            before = self._data.close_before(market, starts[0])
        candles = without_gaps(starts, found, before)
        return {
            "instrument": market.symbol,
            "interval": query["interval"],
            "candles": [_candle_view(market, candle) for candle in candles],
        }


def candle_starts(data: MarketData, market: Market, wanted: WantedCandles) -> range:
    """Where the candles of a page begin; empty before the first trade."""
    span = data.span(market)
    if span is None:
        return range(0, 0, wanted.interval_us)
    return page(*span, wanted.interval_us, wanted.bounds, wanted.limit)


def _candle_view(market: Market, candle: Candle) -> View:
    """A candle of the contract. `vwap` is the one rounded number (half to even)."""
    price = market.price.format
    return {
        "start": timestamp(candle.start_us),
        "open": price(candle.open_ticks),
        "high": price(candle.high_ticks),
        "low": price(candle.low_ticks),
        "close": price(candle.close_ticks),
        "volume": market.quantity.format(candle.volume_lots),
        "quote_volume": market.notional.format(candle.quote_volume),
        "vwap": vwap_text(market, candle),
        "trades": candle.trades,
    }


def vwap_text(market: Market, candle: Candle | None) -> str | None:
    """The volume-weighted average price, rounded half to even; None where nothing was traded."""
    if candle is None or not candle.volume_lots:
        return None
    return market.price.format_ratio(candle.quote_volume, candle.volume_lots)


def candles_blueprint(candles: Candles) -> Blueprint:
    """Route `/candles`."""
    blueprint = Blueprint("candles", __name__)

    @blueprint.get("/candles")
    def read() -> Response:
        return json_response(candles.candles(read_query({"instrument": True} | SPAN_PARAMETERS)))

    return blueprint
