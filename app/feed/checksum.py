"""A book's checksum: how a client proves that its copy of the best levels is right.

Kraken's (docs.kraken.com, "Spot WebSocket book checksum"), so that its clients' code fits: CRC32
over the ten best asks, then the ten best bids, of each the price and then the quantity, as they are
written in messages but without the point and without zeros in front. Pure.
"""

from collections.abc import Sequence
from zlib import crc32

from app.domain.instruments import Market, Scale

DEPTH = 10
"""Levels of each side that count."""


def checksum(
    market: Market, bids: Sequence[tuple[int, int]], asks: Sequence[tuple[int, int]]
) -> int:
    """The checksum of levels (ticks, lots), each side best first; an unsigned 32-bit integer."""
    text = "".join(
        _digits(market.price, price_ticks) + _digits(market.quantity, total_lots)
        for side in (asks, bids)
        for price_ticks, total_lots in side[:DEPTH]
    )
    return crc32(text.encode())


def _digits(scale: Scale, units: int) -> str:
    return scale.format(units).replace(".", "").lstrip("0")
