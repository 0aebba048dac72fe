"""REST for market data: the book's depth, trades, instruments."""

from itertools import accumulate

from flask import Blueprint, Response

from app.api.history import History
from app.api.http import json_response, read_query, whole_number
from app.api.markets import Markets
from app.domain.instruments import Market
from app.domain.rules import InstrumentStatus, Rules
from app.domain.views import View, rules_view
from app.engine.book import Books
from app.engine.commands import Level
from app.engine.executor import EngineUnavailable, OutcomeUnknown
from app.engine.reads import BookReads

DEFAULT_LEVELS, MAX_LEVELS = 50, 1000
BOOK_MISSING = Rules(status=InstrumentStatus.HALTED)
"""What is told of an instrument whose book Redis has lost: nobody can trade it."""


def market_blueprint(
    books: Books, reads: BookReads, markets: Markets, history: History
) -> Blueprint:
    """Routes `/orderbook`, `/trades` and `/instruments`."""
    blueprint = Blueprint("market", __name__)

    @blueprint.get("/orderbook")
    def orderbook() -> Response:
        query = read_query({"instrument": True, "levels": False})
        levels = whole_number(query, "levels", DEFAULT_LEVELS, MAX_LEVELS)
        market = markets.require(query["instrument"])
        try:
            depth = books.depth(market.symbol, levels)
        except OutcomeUnknown as error:
            raise EngineUnavailable(str(error)) from error  # a read has no outcome to wonder at
        return json_response(
            {
                "instrument": market.symbol,
                "sequence": depth.sequence,
                "bids": _side_view(market, depth.bids),
                "asks": _side_view(market, depth.asks),
            }
        )

    @blueprint.get("/trades")
    def trades() -> Response:
        query = read_query({"instrument": True, "limit": False, "before": False})
        return json_response(history.trades(query))

    @blueprint.get("/instruments")
    def instruments() -> Response:
        read_query({})
        listed = [Market(instrument) for instrument in reads.instruments()]
        rules = reads.rules(market.symbol for market in listed)
        views = [instrument_view(m, rules.get(m.symbol, BOOK_MISSING)) for m in listed]
        return json_response({"instruments": views})

    @blueprint.get("/instruments/<symbol>")
    def instrument(symbol: str) -> Response:
        market = markets.require(symbol)
        rules = reads.rules([symbol]).get(symbol, BOOK_MISSING)
        return json_response(instrument_view(market, rules))

    return blueprint


def _side_view(market: Market, levels: tuple[Level, ...]) -> list[View]:
    cumulative = accumulate(level.quantity_lots for level in levels)
    return [
        {
            "price": market.price.format(level.price_ticks),
            "quantity": market.quantity.format(level.quantity_lots),
            "cumulative": market.quantity.format(total),
            "orders": level.orders,
        }
        for level, total in zip(levels, cumulative, strict=True)
    ]


def instrument_view(market: Market, rules: Rules) -> View:
    """An instrument of the contract, with its rules under the names by which they are changed."""
    instrument, view = market.instrument, rules_view(market, rules)
    return {
        "symbol": instrument.symbol,
        "base": instrument.base,
        "quote": instrument.quote,
        "tick_size": f"{instrument.tick_size:f}",
        "lot_size": f"{instrument.lot_size:f}",
        "max_price": f"{instrument.max_price:f}",
        "max_quantity": f"{instrument.max_quantity:f}",
        **view,
        "fees": {"maker_bps": view["maker_fee_bps"], "taker_bps": view["taker_fee_bps"]},
    }
