"""REST for what a client holds. It follows the persister; `sequence` says how far it has come."""

from decimal import Decimal

from flask import Blueprint, Response

from app.api.http import json_response, read_query
from app.api.markets import Markets
from app.domain.views import View
from app.persistence.market_data import MarketData, Position


def positions_blueprint(data: MarketData, markets: Markets) -> Blueprint:
    """Route `/positions`."""
    blueprint = Blueprint("positions", __name__)

    @blueprint.get("/positions")
    def positions() -> Response:
        query = read_query({"client_id": True, "instrument": False})
        symbol = query.get("instrument")
        if symbol is not None:
            markets.require(symbol)
        found = data.positions(query["client_id"], symbol)
        return json_response({"positions": [_position_view(position) for position in found]})

    return blueprint


def _position_view(position: Position) -> View:
    """A Position of the contract. `average_cost` is the one rounded number (half to even)."""
    market = position.market
    price, quantity, notional = market.price, market.quantity, market.notional
    lots = abs(position.quantity_lots)
    return {
        "client_id": position.client_id,
        "instrument": market.symbol,
        "quantity": quantity.format_signed(position.quantity_lots),
        "average_cost": price.format_ratio(abs(position.cost), lots) if lots else None,
        "realised_pnl": notional.format_signed(position.realised),
        "fees": _exact(position.fees, notional.decimals),
        "bought_quantity": quantity.format(position.bought_lots),
        "sold_quantity": quantity.format(position.sold_lots),
        "trades": position.trades,
        "sequence": position.sequence,
    }


def _exact(amount: Decimal, decimals_min: int) -> str:
    """All digits of a sum of fees, which may be finer than the instrument."""
    whole, _, fraction = f"{amount:f}".partition(".")
    fraction = fraction.rstrip("0").ljust(decimals_min, "0")
    return f"{whole}.{fraction}" if fraction else whole
