"""A process's own copy of one book's level totals. Pure: who reads Redis hands the pages in.

How it gets its contents without ever holding up Redis: the book's hash is scanned in bounded steps
(HSCAN) while events go on being applied. A scan under writes is fuzzy, yet the copy converges.
Let s0 be the sequence at which the load began, so that every event after s0 will be applied here,
in order; let s1 be the book's sequence read after the last page; let S >= s1 be the last event
applied. Then each level is what it was at S:

  The last event in (s0, S] that changed the level is e. Totals in events are absolute, so after
  e was applied the level is right, unless a page that came later brought an older total. It did
  not: e was in the stream before it was applied, the stream and the hash are written in one step,
  so a page read afterwards is at least as new as e; and it is not newer than e either, as it was
  read at a sequence <= s1 <= S and e is the level's last change up to S.

  No event in (s0, S] changed the level. Then its total was the same during the whole scan. If it
  is not 0, its field existed from the scan's start to its end, and HSCAN returns such a field. If
  it is 0, there was no field to return, and the copy was emptied when the load began.
"""

from bisect import bisect_left, insort
from collections.abc import Iterable, Mapping
from typing import NamedTuple

from app.domain.events import LevelChange
from app.feed.messages import Level

SIDES = frozenset({"bid", "ask"})
SCAN_START = 0
"""HSCAN's cursor for the beginning, and its answer at the end."""


class Page(NamedTuple):
    """One step of a scan: the next cursor, the fields found, the book's sequence after it."""

    cursor: int
    fields: Mapping[str, str]
    sequence: int


class Replica:
    """Level totals of one book. `sequence` is the last event applied."""

    def __init__(self, sequence: int) -> None:
        self._sides: dict[str, dict[int, int]] = {side: {} for side in SIDES}
        self._prices: dict[str, list[int]] | None = None
        self.load(sequence)

    def load(self, sequence: int) -> None:
        """Begin again: empty, to be filled by a scan that starts now, and by events from here."""
        for levels in self._sides.values():
            levels.clear()
        self.disorder()
        self.sequence = sequence
        self.cursor = SCAN_START
        self._complete_from: int | None = None

    @property
    def scanned(self) -> bool:
        """Whether the whole hash has been read."""
        return self._complete_from is not None

    @property
    def ready(self) -> bool:
        """Whether this is the book as it was at `sequence`."""
        return self._complete_from is not None and self.sequence >= self._complete_from

    def page(self, page: Page) -> None:
        """Take the page of the scan at `cursor`."""
        for field, total in page.fields.items():
            side, _, price = field.partition(":")
            if price and side in SIDES:
                self._sides[side][int(price)] = int(total)
        self.cursor = page.cursor
        if page.cursor == SCAN_START:
            self._complete_from = page.sequence

    def apply(self, sequence: int, changes: Iterable[LevelChange]) -> None:
        """Apply the event that follows `sequence`."""
        assert sequence == self.sequence + 1
        for change in changes:
            self._set(change)
        self.sequence = sequence

    def _set(self, change: LevelChange) -> None:
        levels, price = self._sides[change.side], change.price_ticks
        if self._prices is not None and (price in levels) != bool(change.total_lots):
            prices = self._prices[change.side]
            if change.total_lots:
                insort(prices, price)
            else:
                del prices[bisect_left(prices, price)]
        if change.total_lots:
            levels[price] = change.total_lots
        else:
            levels.pop(price, None)

    def best(self, depth: int) -> tuple[list[Level], list[Level]]:
        """The `depth` best bids and asks of a copy that is ready, best first. Prices are kept in
        order from the first call on, until `disorder`."""
        if self._prices is None:
            self._prices = {side: sorted(levels) for side, levels in self._sides.items()}
        bids, asks = self._prices["bid"][: -depth - 1 : -1], self._prices["ask"][:depth]
        of_bid, of_ask = self._sides["bid"], self._sides["ask"]
        return [(each, of_bid[each]) for each in bids], [(each, of_ask[each]) for each in asks]

    def disorder(self) -> None:
        """Nobody asks for the best any more: prices need not be kept in order."""
        self._prices = None

    def bids(self) -> list[Level]:
        """All bid levels, best first."""
        return sorted(self._sides["bid"].items(), reverse=True)

    def asks(self) -> list[Level]:
        """All ask levels, best first."""
        return sorted(self._sides["ask"].items())
