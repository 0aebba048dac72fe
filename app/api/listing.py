"""Listing instruments: written down in Postgres first, then announced to every process, then given
a book. The order matters: it is how a Redis that lost its data is told from a new one.
"""

from dataclasses import dataclass
from itertools import count
from threading import Thread
from time import sleep
from typing import NamedTuple

import msgspec
import psycopg
from psycopg.conninfo import make_conninfo

from app.api.instrument_bodies import NewInstrument, RuleChanges
from app.backoff import delay_s
from app.domain.rules import Rules
from app.engine.book import Books
from app.engine.commands import Refused
from app.engine.executor import EngineUnavailable
from app.engine.reads import BookReads
from app.logs import logger
from app.persistence.connections import BoundedConnection
from app.persistence.instruments import (
    Listed,
    positions,
    store_instrument,
    stored_instruments,
)
from app.persistence.queries import DatabaseUnavailable

CONNECT_TIMEOUT_S = 5
RETRY_S_MIN = 0.2
RETRY_S_MAX = 2.0
MAX_INSTRUMENTS = 2_000
"""Each costs every scrape and every look of the persister a little."""


class TooManyInstruments(Exception):
    """MAX_INSTRUMENTS are listed already."""


class BookMissing(Exception):
    """Redis holds no book of a listed instrument."""


class Added(NamedTuple):
    """An instrument as it is stored, which may be spelled otherwise than it was sent."""

    listed: Listed
    is_new: bool


@dataclass(frozen=True, slots=True)
class Listing:
    """Lists instruments and changes their rules. One per process."""

    books: Books
    reads: BookReads
    database_url: str

    def add(self, wanted: NewInstrument) -> Added:
        """List one instrument, live at once.

        Raises:
            InstrumentDiffers: listed already, with other values. TooManyInstruments.
            DatabaseUnavailable, EngineUnavailable: nothing was done, or the same call completes it.
        """
        symbol = wanted.instrument.symbol
        try:
            with self._connect() as connection:
                _check_room(connection, symbol)
                is_new = store_instrument(connection, wanted.instrument, wanted.rules)
                stored = {each.instrument.symbol: each for each in stored_instruments(connection)}
                known = positions(connection)
        except psycopg.OperationalError as error:
            raise DatabaseUnavailable(str(error)) from error
        self._open(stored[symbol], known)
        return Added(stored[symbol], is_new)

    def change_rules(self, symbol: str, changes: RuleChanges) -> Rules:
        """Change some rules of one instrument, from the next command on; all as they are then.

        Raises:
            BookMissing. EngineUnavailable: nothing was done, or the same call completes it.
        """
        with self.reads.changing_rules():
            current = self.reads.rules([symbol]).get(symbol)
            if current is None:
                raise BookMissing
            changed = msgspec.structs.replace(current, **changes)
            if changed != current:
                self.books.set_rules(symbol, changed)
        return changed

    def start(self) -> None:
        """Open everything that was ever listed; in the background where a server is away."""
        if not self._opened_all():
            Thread(target=self._keep_trying, name="listing", daemon=True).start()

    def _keep_trying(self) -> None:
        for failures in count(1):
            sleep(delay_s(failures, RETRY_S_MIN, RETRY_S_MAX))
            if self._opened_all():
                return

    def _opened_all(self) -> bool:
        try:
            with self._connect() as connection:
                stored, known = stored_instruments(connection), positions(connection)
            for listed in stored:
                self._open_or_tell(listed, known)
            missing = self.reads.without_book([listed.instrument.symbol for listed in stored])
        except (psycopg.OperationalError, EngineUnavailable) as error:
            logger.warning("instruments cannot be opened yet", extra={"error": repr(error)})
            return False
        if missing:
            logger.error("Redis has lost books", extra={"instruments": missing})
        return True

    def _open_or_tell(self, listed: Listed, known: dict[str, int]) -> None:
        try:
            self._open(listed, known)
        except Refused as error:
            details = {"instrument": listed.instrument.symbol, "why": str(error)}
            logger.error("an instrument has no book that can be used", extra=details)

    def _open(self, listed: Listed, known: dict[str, int]) -> None:
        """Announce an instrument and give it a book, but never an empty one in place of one that
        Redis has lost: then it stays missing, orders are refused, and /readyz names it. A book that
        lacks what Postgres has takes nothing from here on.
        """
        symbol = listed.instrument.symbol
        self.reads.announce(listed.instrument)
        self.books.know(symbol, known.get(symbol, 0))
        if not known.get(symbol):
            self.books.open(symbol, listed.rules)

    def _connect(self) -> psycopg.Connection:
        conninfo = make_conninfo(self.database_url, connect_timeout=CONNECT_TIMEOUT_S)
        return BoundedConnection.connect(conninfo, application_name="crossbook listing")


def _check_room(connection: psycopg.Connection, symbol: str) -> None:
    listed = {known.instrument.symbol for known in stored_instruments(connection)}
    if symbol not in listed and len(listed) >= MAX_INSTRUMENTS:
        raise TooManyInstruments
