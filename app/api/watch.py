"""Looks at every book when Redis is another one than before: restarted, or one that took over. A
book that lacks what this API has acknowledged is fenced by the look, before whatever is due by
the clock, which waits a little longer (app/sweeper.py), adds to it and hides the loss.
"""

from threading import Thread
from time import sleep

from app.engine.book import Books
from app.engine.commands import Refused
from app.engine.executor import EngineUnavailable
from app.engine.reads import BookReads
from app.logs import logger

LOOK_EVERY_S = 0.25
"""A quarter of what the sweeper waits."""


class Watch:
    """One per process."""

    def __init__(self, books: Books, reads: BookReads) -> None:
        self._books = books
        self._reads = reads
        self._run_id = ""

    def start(self) -> None:
        """Look in the background from now on."""
        Thread(target=self._run, name="watch", daemon=True).start()

    def _run(self) -> None:
        while True:
            try:
                self.step()
            except EngineUnavailable as error:
                # Whoever wants something of Redis says so louder.
                logger.debug("books cannot be looked at", extra={"error": repr(error)})
            sleep(LOOK_EVERY_S)

    def step(self) -> bool:
        """Look at the books if Redis is another one than at the last look; says whether it was.

        Raises:
            EngineUnavailable: Redis is away.
        """
        run_id = self._reads.run_id()
        if run_id == self._run_id:
            return False
        for instrument in self._reads.instruments():
            try:
                self._books.depth(instrument.symbol, 1)
            except Refused as error:
                told = {"instrument": instrument.symbol, "why": str(error)}
                logger.warning("a book cannot be used", extra=told)
        self._run_id = run_id
        return True
