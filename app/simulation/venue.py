"""The running server as the traders need it: which instruments there are, where their prices are,
and all orders of some clients away.
"""

from __future__ import annotations

from decimal import Decimal
from typing import TYPE_CHECKING, Final, NamedTuple

from app.domain.instruments import Market, Scale, list_instrument, parse_decimal
from app.simulation.characters import CHARACTERS, character_of
from app.simulation.client import ServerAway, ServerRefuses
from app.simulation.options import INSTRUMENTS_MAX

if TYPE_CHECKING:
    from collections.abc import Sequence

    from app.simulation.client import ApiClient, Document

MASS_CANCELS_MAX: Final = 20
"""Requests for the orders of one client, each of which cancels thousands."""


def markets(client: ApiClient, wanted: Sequence[str]) -> list[Market]:
    """The `wanted` instruments; if none is named, those that are open, the best known first.

    Raises:
        ServerRefuses: one is not listed, or none is open. ServerAway.
    """
    listed = {one["symbol"]: one for one in client.get("/instruments")["instruments"]}
    unknown = [symbol for symbol in wanted if symbol not in listed]
    if unknown:
        raise ServerRefuses(f"not listed: {', '.join(unknown)}")
    symbols = list(wanted) or _open(listed)
    if not symbols:
        raise ServerRefuses("no instrument is open")
    return [_market(listed[symbol]) for symbol in symbols]


def _open(listed: dict[str, Document]) -> list[str]:
    symbols = [symbol for symbol, one in listed.items() if one["status"] == "open"]
    symbols.sort(key=lambda symbol: (symbol not in CHARACTERS, -character_of(symbol).share, symbol))
    return symbols[:INSTRUMENTS_MAX]


def _market(listed: Document) -> Market:
    sizes = ("tick_size", "lot_size", "max_price", "max_quantity")
    tick, lot, max_price, max_quantity = (Decimal(listed[name]) for name in sizes)
    return Market(list_instrument(listed["symbol"], tick, lot, max_price, max_quantity))


def price_ticks(client: ApiClient, market: Market) -> int | None:
    """Of the last trade; where nothing has traded, the middle of the book. None: neither is there,
    or cannot be told now.
    """
    try:
        trades = client.get("/trades", instrument=market.symbol, limit=1)["trades"]
        if trades:
            return _ticks(market.price, trades[0]["price"])
        book = client.get("/orderbook", instrument=market.symbol, levels=1)
    except ServerAway:
        return None
    sides = (book["bids"], book["asks"])
    if not all(sides):
        return None
    return sum(_ticks(market.price, levels[0]["price"]) for levels in sides) // 2


def _ticks(scale: Scale, text: str) -> int:
    return scale.to_units(parse_decimal(text), "tick")


class Cleared(NamedTuple):
    """What became of all open orders of some clients."""

    cancelled: int
    halted: list[str]
    """Instruments that take no cancels now, and keep theirs."""


def cancel_all(client: ApiClient, client_ids: Sequence[str]) -> Cleared:
    """Cancel every open order of these clients.

    Raises:
        ServerAway: some may be left. ServerRefuses.
    """
    cancelled, halted = 0, set()
    for client_id in client_ids:
        for _ in range(MASS_CANCELS_MAX):
            document = client.delete("/orders", client_id=client_id)
            cancelled += len(document["cancelled"])
            halted.update(document["halted"])
            if document["complete"] or not document["cancelled"]:
                break
    return Cleared(cancelled, sorted(halted))
