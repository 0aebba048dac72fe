"""What an instrument is like in the simulation: where its price begins, how much of the flow it
gets, how wide it is quoted and how much it moves.
"""

from __future__ import annotations

from decimal import Decimal
from typing import TYPE_CHECKING, Final, NamedTuple

if TYPE_CHECKING:
    from app.domain.instruments import Market

UNKNOWN_PRICE_TICKS: Final = 10_000
"""Where an instrument begins that never traded and is not listed below."""
ORDER_NOTIONAL: Final = 2_000.0
"""Of a typical resting order, in quote currency, or in as many lots as come near it."""


class Character(NamedTuple):
    """Basis points are those of the price."""

    price: Decimal | None = None
    share: float = 1.0
    """Of the flow, relative to the others'."""
    half_spread_bps: float = 2.0
    volatility_bps: float = 2.0
    """Standard deviation of a second's move."""


CHARACTERS: Final = {
    "BTC-USD": Character(Decimal(65_000), 10.0, 0.8, 1.2),
    "ETH-USD": Character(Decimal(3_200), 6.0, 1.2, 1.5),
    "SOL-USD": Character(Decimal(150), 4.0, 2.0, 2.0),
    "BNB-USD": Character(Decimal(580), 2.0, 2.0, 1.5),
    "XRP-USD": Character(Decimal("0.55"), 3.0, 2.5, 2.0),
    "ADA-USD": Character(Decimal("0.45"), 1.5, 3.0, 2.0),
    "DOGE-USD": Character(Decimal("0.12"), 2.0, 3.0, 2.5),
    "AVAX-USD": Character(Decimal(28), 1.5, 3.5, 2.0),
    "MATIC-USD": Character(Decimal("0.70"), 1.0, 3.5, 2.0),
    "DOT-USD": Character(Decimal("6.20"), 1.0, 3.5, 2.0),
}
"""Of the instruments that a new installation lists; the prices are of 2024, about."""


def character_of(symbol: str) -> Character:
    """Also of an instrument that nobody here has heard of."""
    return CHARACTERS.get(symbol, Character())


def first_price_ticks(market: Market) -> int:
    """Where the price of an instrument begins that never traded."""
    price = character_of(market.symbol).price
    ticks = UNKNOWN_PRICE_TICKS if price is None else int(price / market.price.step)
    return max(1, min(ticks, market.price.limit // 2))
