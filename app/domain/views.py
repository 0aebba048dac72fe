"""How orders, trades and rules look from outside: decimals as strings, times as RFC 3339, ids as
text.

The one place that shapes an Order, a Trade and an instrument's rules; REST, WebSocket and replayed
answers all use it, so the same state always gives the same bytes.
"""

from datetime import UTC, datetime
from functools import lru_cache
from typing import Any

from app.domain.events import Fill, Trade, trade_id, trades_of
from app.domain.instruments import Market, Scale
from app.domain.orders import OrderRecord, Side, order_id
from app.domain.rules import Rules

MICROSECONDS = 1_000_000

View = dict[str, Any]


@lru_cache(maxsize=64)
def _second(seconds: int) -> str:
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%dT%H:%M:%S")


def timestamp(time_us: int) -> str:
    """RFC 3339 in UTC with microseconds, from microseconds since 1970."""
    seconds, rest = divmod(time_us, MICROSECONDS)
    return f"{_second(seconds)}.{rest:06d}Z"


def _decimal_or_none(scale: Scale, units: int | None) -> str | None:
    return None if units is None else scale.format(units)


def order_view(market: Market, order: OrderRecord) -> View:
    """An Order of the contract. `average_price` is the one rounded number (half to even)."""
    price, quantity = market.price, market.quantity
    return {
        "order_id": order_id(market.symbol, order.number),
        "instrument": market.symbol,
        "client_id": order.client_id,
        "side": order.side,
        "type": order.type,
        "quantity": quantity.format(order.quantity_lots),
        "price": _decimal_or_none(price, order.price_ticks),
        "stop_price": _decimal_or_none(price, order.stop_price_ticks),
        "time_in_force": order.time_in_force,
        "expires_at": None if order.expires_us is None else timestamp(order.expires_us),
        "post_only": order.post_only,
        "display_quantity": _decimal_or_none(quantity, order.display_lots),
        "self_trade_prevention": order.self_trade_prevention,
        "client_order_id": order.client_order_id or None,
        "idempotency_key": order.idempotency_key or None,
        "status": order.status,
        "filled_quantity": quantity.format(order.filled_lots),
        "remaining_quantity": quantity.format(order.remaining_lots),
        "average_price": (
            price.format_ratio(order.notional, order.filled_lots) if order.filled_lots else None
        ),
        "reason": order.reason or None,
        "sequence": order.sequence,
        "created_at": timestamp(order.created_us),
        "updated_at": timestamp(order.updated_us),
    }


def trade_view(market: Market, trade: Trade) -> View:
    """A Trade of the contract. `side` is the taker's."""
    symbol = market.symbol
    maker_id = order_id(symbol, trade.maker_number)
    taker_id = order_id(symbol, trade.taker_number)
    buyer, seller = (taker_id, maker_id) if trade.side == Side.BUY else (maker_id, taker_id)
    return {
        "trade_id": trade_id(symbol, trade.sequence, trade.index),
        "instrument": symbol,
        "price": market.price.format(trade.price_ticks),
        "quantity": market.quantity.format(trade.quantity_lots),
        "side": trade.side,
        "buy_order_id": buyer,
        "sell_order_id": seller,
        "maker_order_id": maker_id,
        "taker_order_id": taker_id,
        "sequence": trade.sequence,
        "timestamp": timestamp(trade.time_us),
    }


def trade_views(
    market: Market, taker: OrderRecord, sequence: int, time_us: int, fills: tuple[Fill, ...]
) -> list[View]:
    """The Trades of one event, in the order of execution."""
    return [trade_view(market, trade) for trade in trades_of(taker, sequence, time_us, fills)]


def rules_view(market: Market, rules: Rules) -> View:
    """An instrument's rules: decimals as strings with the instrument's decimals, None where a limit
    is not set; basis points of the band and numbers of orders are whole numbers.
    """
    return {
        "status": rules.status,
        "price_band_bps": rules.price_band_bps,
        "max_order_quantity": _decimal_or_none(market.quantity, rules.max_order_lots),
        "max_order_notional": _decimal_or_none(market.notional, rules.max_order_notional),
        "max_open_orders": rules.max_open_orders,
        "maker_fee_bps": f"{rules.maker_fee_bps:f}",
        "taker_fee_bps": f"{rules.taker_fee_bps:f}",
    }
