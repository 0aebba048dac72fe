"""Snapshots on an operator's demand: one at a time in each process of the API, and not for ever."""

from threading import Lock
from typing import Any, Final

from app.api.problems import DATABASE_UNAVAILABLE, Problem
from app.logs import logger
from app.snapshot_process import SnapshotFailed, take

TIMEOUT_S: Final = 60.0
"""Longer than an operator waits for an answer; books that need more are for the command line."""
BUSY_RETRY_AFTER_S: Final = 5
STORE_AWAY_CODE: Final = 3
"""With which `python -m app snapshot` ends where Postgres does not answer (app/cli.py)."""


class Snapshots:
    """Takes them, by processes of their own. Must not know what a snapshot is."""

    def __init__(self, database_url: str) -> None:
        self._database_url = database_url
        self._running = Lock()

    def take(self, symbols: list[str]) -> list[dict[str, Any]]:
        """Of these, or of all.

        Raises:
            Problem: 503 `snapshot_running`, `snapshot_timeout` or `database_unavailable`; 500
                `snapshot_failed`: the event store does not make a book.
        """
        if not self._running.acquire(blocking=False):
            detail = "another snapshot is being taken"
            raise Problem(503, "snapshot_running", detail, retry_after_s=BUSY_RETRY_AFTER_S)
        try:
            return take(symbols, self._database_url, TIMEOUT_S)
        except SnapshotFailed as error:
            raise _problem(error) from error
        finally:
            self._running.release()


def _problem(error: SnapshotFailed) -> Problem:
    if error.code == STORE_AWAY_CODE:
        detail = "Postgres does not answer now"
        return Problem(503, DATABASE_UNAVAILABLE, detail, retry_after_s=BUSY_RETRY_AFTER_S)
    if error.code is None:
        detail = "it takes too long now; `python -m app snapshot` waits for its end"
        return Problem(503, "snapshot_timeout", detail, retry_after_s=BUSY_RETRY_AFTER_S)
    logger.error("a snapshot failed", extra={"why": str(error)})
    return Problem(500, "snapshot_failed", "the event store does not make a book; see the log")
