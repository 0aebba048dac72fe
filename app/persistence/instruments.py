"""Instruments in Postgres, and how far each one's events are written down. Must not know Redis."""

from typing import Any

import psycopg
from psycopg.rows import class_row

from app.domain.instruments import DEFAULT_INSTRUMENTS, Instrument

COLUMNS = "symbol, tick_size, lot_size, max_price, max_quantity"


class InstrumentDiffers(Exception):
    """An instrument of that symbol is there already, with other sizes or limits: `stored`."""

    def __init__(self, stored: Instrument) -> None:
        super().__init__(f"{stored.symbol} is stored with other values")
        self.stored = stored


def store_instrument(connection: psycopg.Connection[Any], instrument: Instrument) -> bool:
    """Write an instrument down; True if it was new, False if the same one was there.

    Raises:
        InstrumentDiffers: one of that symbol was there with other values; it stays as it is.
    """
    inserted = connection.execute(
        f"INSERT INTO instruments ({COLUMNS}) VALUES (%s, %s, %s, %s, %s)"  # noqa: S608
        " ON CONFLICT (symbol) DO NOTHING",
        (
            instrument.symbol,
            instrument.tick_size,
            instrument.lot_size,
            instrument.max_price,
            instrument.max_quantity,
        ),
    )
    if inserted.rowcount:
        return True
    stored = next(iter(_select(connection, "WHERE symbol = %s", (instrument.symbol,))))
    if stored != instrument:
        raise InstrumentDiffers(stored)
    return False


def seed(database_url: str) -> None:
    """List what a new installation trades; what is there already stays as it is."""
    with psycopg.connect(database_url) as connection:
        known = {instrument.symbol for instrument in stored_instruments(connection)}
        for instrument in DEFAULT_INSTRUMENTS:
            if instrument.symbol not in known:
                store_instrument(connection, instrument)


def stored_instruments(connection: psycopg.Connection[Any]) -> list[Instrument]:
    """Every instrument ever listed, by symbol."""
    return _select(connection, "ORDER BY symbol", ())


def positions(connection: psycopg.Connection[Any]) -> dict[str, int]:
    """The last sequence written down of each instrument that has been persisted."""
    return dict(connection.execute("SELECT instrument, sequence FROM stream_positions").fetchall())


def _select(
    connection: psycopg.Connection[Any], condition: str, values: tuple[str, ...]
) -> list[Instrument]:
    with connection.cursor(row_factory=class_row(Instrument)) as cursor:
        # `condition` is one of the constants above.
        statement = f"SELECT {COLUMNS} FROM instruments {condition}"  # noqa: S608
        return cursor.execute(statement, values).fetchall()
