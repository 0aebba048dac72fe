"""Snapshots now and then, so that a rebuild and an audit read few events. A thread beside the
persister, which looks how far each instrument is and leaves the work to a process of its own. It
never ends anything but itself, and whatever fails is tried again with the next look.
"""

import logging
import threading
from collections.abc import Callable
from time import monotonic
from typing import Final

import psycopg

from app.persistence.event_store import Connection
from app.snapshot_process import SnapshotFailed, take

log: Final = logging.getLogger("crossbook.snapshots")

SNAPSHOT_EVERY_EVENTS: Final = 50_000
"""Of an instrument; so many are applied in a few seconds."""
LOOK_EVERY_S: Final = 10.0
AFTER_FAILURE_S: Final = 600.0
TIMEOUT_S: Final = 900.0
"""Of one process; a million open orders take minutes on a small machine."""

_DUE: Final = """
SELECT p.instrument FROM stream_positions AS p
LEFT JOIN (SELECT instrument, max(sequence) AS sequence FROM book_snapshots GROUP BY instrument)
    AS s USING (instrument)
WHERE p.sequence - coalesce(s.sequence, 0) >= %s ORDER BY p.instrument
"""


class PeriodicSnapshots:
    """One thread's work: `run`."""

    def __init__(
        self,
        database_url: str,
        connect: Callable[[str], Connection],
        every_events: int = SNAPSHOT_EVERY_EVENTS,
    ) -> None:
        self._database_url = database_url
        self._connect = connect
        self._every_events = every_events
        self._not_before: dict[str, float] = {}

    def run(self, stop: threading.Event) -> None:
        """Look and take until `stop` is set."""
        while not stop.wait(LOOK_EVERY_S):
            try:
                self.step()
            except (psycopg.Error, OSError) as error:
                # An outage of Postgres is the persister's to tell.
                is_away = isinstance(error, psycopg.OperationalError)
                level = logging.DEBUG if is_away else logging.WARNING
                log.log(level, "no snapshot now", extra={"why": str(error).strip()})

    def step(self) -> list[str]:
        """Take what is due, each by itself; returns the symbols of those that were taken.

        Raises:
            psycopg.Error: Postgres is away.
        """
        taken = []
        for symbol in self._due():
            if monotonic() < self._not_before.get(symbol, 0.0):
                continue
            try:
                taken += take([symbol], self._database_url, TIMEOUT_S)
            except SnapshotFailed as error:
                # Not again with every look: to find that out takes as long as a snapshot.
                self._not_before[symbol] = monotonic() + AFTER_FAILURE_S
                log.warning("no snapshot", extra={"instrument": symbol, "why": str(error)})
        if taken:
            told = {one["instrument"]: one["sequence"] for one in taken}
            log.info("snapshots taken", extra={"sequences": told})
        return [one["instrument"] for one in taken]

    def _due(self) -> list[str]:
        with self._connect(self._database_url) as connection:
            found = connection.execute(_DUE, (self._every_events,)).fetchall()
        return [symbol for (symbol,) in found]
