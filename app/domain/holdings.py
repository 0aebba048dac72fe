"""What a client holds of an instrument and what it has cost: average cost, exactly. Pure.

The cost of what is open is a whole number of ticks x lots, signed as the quantity. A trade that
enlarges the holding adds its notional; one that reduces it takes away the share of the cost that
the lots it closes have, rounded half to even, and leaves the rest; one that goes through zero takes
away all and opens the rest at its price. So at any moment, and whatever was rounded on the way,

    realised profit = sold notional - bought notional + cost

exactly, and it ends with whoever has closed everything. A trade of a client with himself changes
nothing here. Fees are counted apart.
"""

from typing import NamedTuple

from app.domain.instruments import divide_half_even


class Holding(NamedTuple):
    """Lots, negative where more was sold than bought, and their cost in ticks x lots."""

    lots: int = 0
    cost: int = 0

    def after(self, lots: int, price_ticks: int) -> "Holding":
        """What is held after a trade of `lots`, negative for a sale."""
        if self.lots * lots >= 0:
            return Holding(self.lots + lots, self.cost + lots * price_ticks)
        if abs(lots) >= abs(self.lots):
            left = self.lots + lots
            return Holding(left, left * price_ticks)
        released = divide_half_even(self.cost * abs(lots), abs(self.lots))
        return Holding(self.lots + lots, self.cost - released)
