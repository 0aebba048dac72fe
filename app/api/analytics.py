"""REST for what trades amount to: VWAP of a window, aggregates of intervals. They follow the
persister, as candles do, from which they are computed.
"""

from flask import Blueprint, Response

from app.api.candles import candle_starts, vwap_text
from app.api.http import json_response, read_query
from app.api.markets import Markets
from app.api.spans import DEFAULT_WINDOW, SPAN_PARAMETERS, read_candles, read_window
from app.domain.candles import Candle
from app.domain.instruments import Market
from app.domain.views import View, timestamp
from app.persistence.market_data import MarketData


def analytics_blueprint(data: MarketData, markets: Markets) -> Blueprint:
    """Routes under `/analytics`."""
    blueprint = Blueprint("analytics", __name__, url_prefix="/analytics")

    @blueprint.get("/vwap")
    def vwap() -> Response:
        query = read_query({"instrument": True, "window": False})
        market, minutes = markets.require(query["instrument"]), read_window(query)
        window = data.windows([market], minutes)[market.symbol]
        traded = window.traded
        return json_response(
            {
                "instrument": market.symbol,
                "window": query.get("window", DEFAULT_WINDOW),
                "start": timestamp(window.start_us),
                "end": timestamp(window.end_us),
                "vwap": vwap_text(market, traded),
                "volume": market.quantity.format(traded.volume_lots if traded else 0),
                "quote_volume": market.notional.format(traded.quote_volume if traded else 0),
                "trades": traded.trades if traded else 0,
            }
        )

    @blueprint.get("/trades")
    def trades() -> Response:
        query = read_query({"instrument": True} | SPAN_PARAMETERS)
        market, wanted = markets.require(query["instrument"]), read_candles(query)
        found = data.candles(market, candle_starts(data, market, wanted))
        return json_response(
            {
                "instrument": market.symbol,
                "interval": query["interval"],
                "buckets": [_bucket_view(market, candle) for candle in found],
            }
        )

    return blueprint


def _bucket_view(market: Market, candle: Candle) -> View:
    """An interval with trades. VWAP and average quantity are rounded half to even."""
    quantity = market.quantity
    return {
        "start": timestamp(candle.start_us),
        "trades": candle.trades,
        "volume": quantity.format(candle.volume_lots),
        "quote_volume": market.notional.format(candle.quote_volume),
        "vwap": vwap_text(market, candle),
        "buy_volume": quantity.format(candle.buy_lots),
        "sell_volume": quantity.format(candle.volume_lots - candle.buy_lots),
        "average_quantity": quantity.format_ratio(candle.volume_lots, candle.trades),
        "largest_quantity": quantity.format(candle.largest_lots),
    }
