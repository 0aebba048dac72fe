"""What changed in a book lately, for those who do not want to hear of each event: of each level its
last state. Pure.
"""

from collections import OrderedDict

from app.domain.events import Event, LevelChange

INTERVAL_MS_MIN = 100
INTERVAL_MS_MAX = 10_000


class Conflation:
    """Levels in the order of their last changes. One serves everybody, however far each was told;
    memory is bounded by the levels that changed since the last `forget`."""

    __slots__ = ("_levels",)

    def __init__(self) -> None:
        self._levels: OrderedDict[tuple[str, int], tuple[LevelChange, int]] = OrderedDict()

    def gather(self, event: Event) -> None:
        """Take the next event."""
        for change in event.levels:
            key = change.side, change.price_ticks
            self._levels[key] = change, event.sequence
            self._levels.move_to_end(key)

    def after(self, sequence: int) -> list[LevelChange]:
        """The last state of each level that an event after `sequence` changed."""
        found = []
        for change, changed_at in reversed(self._levels.values()):
            if changed_at <= sequence:
                break
            found.append(change)
        found.reverse()
        return found

    def forget(self, sequence: int) -> None:
        """Nobody will ask for changes up to `sequence` any more."""
        while self._levels:
            key = next(iter(self._levels))
            if self._levels[key][1] > sequence:
                return
            del self._levels[key]

    def clear(self) -> None:
        """Begin again with nothing."""
        self._levels.clear()
