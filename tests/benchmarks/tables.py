"""What a benchmark hands back, and how it looks on a terminal. Must not know what was measured."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple


class Bound(NamedTuple):
    """A promise that a benchmark checks: the figure must not be above (or below) the limit."""

    what: str
    value: float
    limit: float
    is_floor: bool = False

    @property
    def holds(self) -> bool:
        """Whether the promise was kept in this run."""
        return self.value >= self.limit if self.is_floor else self.value <= self.limit

    def __str__(self) -> str:
        sign = ">=" if self.is_floor else "<="
        verdict = "holds" if self.holds else "BROKEN"
        return f"{verdict}: {self.what} {self.value:,.2f} {sign} {self.limit:,.2f}"


@dataclass(frozen=True, slots=True)
class Table:
    """Rows under a title, and what must hold of them."""

    title: str
    columns: Sequence[str]
    rows: Sequence[Sequence[str]]
    bounds: Sequence[Bound] = field(default_factory=tuple)

    def __str__(self) -> str:
        widths = [max(map(len, cells)) for cells in zip(self.columns, *self.rows, strict=True)]
        lines = [self.title, _line(self.columns, widths)]
        lines += [_line(row, widths) for row in self.rows]
        lines += [f"  {bound}" for bound in self.bounds]
        return "\n".join(lines) + "\n"


def _line(cells: Iterable[str], widths: Iterable[int]) -> str:
    first, *rest = [
        cell.rjust(width) if column else cell.ljust(width)
        for column, (cell, width) in enumerate(zip(cells, widths, strict=True))
    ]
    return "  " + "   ".join([first, *rest]).rstrip()
