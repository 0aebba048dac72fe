"""Listing instruments: written down in Postgres first, then announced to every process, then given
a book. The order matters: it is how a Redis that lost its data is told from a new one.
"""

from dataclasses import dataclass

import psycopg
from psycopg.conninfo import make_conninfo

from app.domain.instruments import Instrument
from app.engine.book import Books
from app.engine.reads import BookReads
from app.logs import logger
from app.persistence.instruments import positions, store_instrument, stored_instruments
from app.persistence.queries import DatabaseUnavailable

CONNECT_TIMEOUT_S = 5


@dataclass(frozen=True, slots=True)
class Listing:
    """Lists instruments. One per process."""

    books: Books
    reads: BookReads
    database_url: str

    def add(self, instrument: Instrument) -> bool:
        """List one instrument, live at once; says whether it is new.

        Raises:
            InstrumentDiffers: listed already, with other values. DatabaseUnavailable,
            EngineUnavailable: nothing, or a listing that the same call completes later.
        """
        try:
            with self._connect() as connection:
                is_new = store_instrument(connection, instrument)
        except psycopg.OperationalError as error:
            raise DatabaseUnavailable(str(error)) from error
        self.reads.announce(instrument)
        self.books.open(instrument.symbol)
        return is_new

    def open_all(self) -> None:
        """At the start of a process: everything that was ever listed has its book.

        A book that Redis should have and has not is left missing: orders for it are refused, and
        /readyz names it, until the book is rebuilt from Postgres.
        """
        try:
            with self._connect() as connection:
                stored, known = stored_instruments(connection), positions(connection)
        except psycopg.OperationalError as error:
            logger.warning("Postgres is away; Redis's own list serves", extra={"error": str(error)})
            return
        for instrument in stored:
            self.reads.announce(instrument)
            if known.get(instrument.symbol, 0) == 0:
                self.books.open(instrument.symbol)
        missing = self.reads.without_book([instrument.symbol for instrument in stored])
        if missing:
            logger.error("Redis has lost books", extra={"instruments": missing})

    def _connect(self) -> psycopg.Connection:
        conninfo = make_conninfo(self.database_url, connect_timeout=CONNECT_TIMEOUT_S)
        return psycopg.connect(conninfo, application_name="crossbook listing")
