"""Listing an instrument: it is written down, announced to every process, and gets its book.

The order matters: Postgres first, so that a Redis which lost its data can be told from a new one.
"""

from app.domain.instruments import Instrument
from app.engine.book import Books
from app.engine.reads import BookReads


def open_for_trading(books: Books, reads: BookReads, instrument: Instrument) -> bool:
    """Make the book of an instrument and announce it; says whether the book is new.

    Raises:
        Refused: `schema_mismatch`. EngineUnavailable.
    """
    opened = books.open(instrument.symbol)
    reads.announce(instrument)
    return opened
