"""What a simulation has done so far, in numbers that fit one line."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, Final

from app.simulation.traders import GONE, TAKEN

if TYPE_CHECKING:
    from app.simulation.orders import Intent, Item

CODES_TOLD: Final = 3
"""The most frequent reasons of refusals."""


class Tally:
    """Counts answers to orders and amendments; cancels are not counted."""

    def __init__(self) -> None:
        self._orders = 0
        self._told = 0
        self._trades = 0
        self._refused: Counter[str] = Counter()

    def count(self, intent: Intent, status: int, body: Item) -> None:
        """One answer."""
        if not intent.is_order:
            return
        self._orders += 1
        if status in TAKEN:
            self._trades += len(body.get("trades", ()))
        elif status not in GONE:  # somebody was faster than an amendment
            self._refused[str(body.get("code"))] += 1

    def since_last(self, seconds: float) -> str:
        """The line, with the rate of the last `seconds`, which began when this was asked before."""
        rate_per_s = (self._orders - self._told) / seconds
        self._told = self._orders
        return f"{self} ({rate_per_s:.0f}/s)"

    def __str__(self) -> str:
        codes = self._refused.most_common(CODES_TOLD)
        why = f" ({', '.join(f'{code} {n:,}' for code, n in codes)})" if codes else ""
        refused = f"{self._refused.total():,} refused{why}"
        return f"{self._orders:,} orders, {self._trades:,} trades, {refused}"
