"""Instruments in Postgres with their rules, and how far each one's events are written down. Must
not know Redis.
"""

from collections.abc import Sequence
from decimal import Decimal
from typing import Any, Final, NamedTuple

import psycopg
from psycopg.rows import tuple_row

from app.domain.instruments import DEFAULT_INSTRUMENTS, Instrument
from app.domain.rules import Rules, rules_detail
from app.persistence.rows import Texts, notional_step, rules_row, to_units

COLUMNS: Final = ("symbol", "tick_size", "lot_size", "max_price", "max_quantity")
RULE_COLUMNS: Final = {
    "status": "text",
    "price_band_bps": "bigint",
    "max_order_quantity": "numeric",
    "max_order_notional": "numeric",
    "max_open_orders": "bigint",
    "maker_fee_bps": "numeric",
    "taker_fee_bps": "numeric",
}
"""Of `instruments`: decimals where the book has lots and ticks x lots."""

_ALL: Final = (*COLUMNS, *RULE_COLUMNS)
_SELECT: Final = f"SELECT {', '.join(_ALL)} FROM instruments"  # noqa: S608  # constants
_INSERT: Final = (
    f"INSERT INTO instruments ({', '.join(_ALL)}, first_rules)"  # noqa: S608  # constants
    f" VALUES ({', '.join(['%s'] * len(_ALL))}, %s) ON CONFLICT (symbol) DO NOTHING"
)


class Listed(NamedTuple):
    """An instrument with its rules as of its position: as of the last event written down."""

    instrument: Instrument
    rules: Rules


class InstrumentDiffers(Exception):
    """That symbol is there already, with other sizes, limits or rules: `stored`."""

    def __init__(self, stored: Listed) -> None:
        super().__init__(f"{stored.instrument.symbol} is stored with other values")
        self.stored = stored


def store_instrument(
    connection: psycopg.Connection[Any], instrument: Instrument, rules: Rules
) -> bool:
    """Write an instrument down; True if it was new, False if the same one was there. Decimals are
    the same if they are equal, however they are written.

    Raises:
        InstrumentDiffers: one of that symbol was there with other values; it stays as it is.
    """
    sizes = tuple(getattr(instrument, name) for name in COLUMNS)
    first = rules_row(Texts(instrument), rules)[1:]
    inserted = connection.execute(_INSERT, (*sizes, *first, rules_detail(rules)))
    if inserted.rowcount:
        return True
    (stored,) = _listed(connection, "WHERE symbol = %s", (instrument.symbol,))
    if stored != (instrument, rules):
        raise InstrumentDiffers(stored)
    return False


def seed(database_url: str) -> None:
    """List what a new installation trades; what is there already stays as it is."""
    with psycopg.connect(database_url) as connection:
        known = {listed.instrument.symbol for listed in stored_instruments(connection)}
        for instrument in DEFAULT_INSTRUMENTS:
            if instrument.symbol not in known:
                store_instrument(connection, instrument, Rules())


def stored_instruments(connection: psycopg.Connection[Any]) -> list[Listed]:
    """Every instrument ever listed, by symbol."""
    return _listed(connection, "ORDER BY symbol", ())


def stored_rules(instrument: Instrument, values: Sequence[Any]) -> Rules:
    """Rules in the book's units, from the values of RULE_COLUMNS in their order.

    Raises:
        ValueError: not a whole number of lots, or of ticks x lots: the row has been tampered with.
    """
    status, band_bps, quantity, notional, open_orders, maker_bps, taker_bps = values
    return Rules(
        status=status,
        price_band_bps=band_bps,
        max_order_lots=_units_or_none(quantity, instrument.lot_size),
        max_order_notional=_units_or_none(notional, notional_step(instrument)),
        max_open_orders=open_orders,
        maker_fee_bps=maker_bps,
        taker_fee_bps=taker_bps,
    )


def positions(connection: psycopg.Connection[Any]) -> dict[str, int]:
    """The last sequence written down of each instrument that has been persisted."""
    return dict(connection.execute("SELECT instrument, sequence FROM stream_positions").fetchall())


def _units_or_none(value: Decimal | None, step: Decimal) -> int | None:
    return None if value is None else to_units(value, step)


def _listed(
    connection: psycopg.Connection[Any], condition: str, values: tuple[str, ...]
) -> list[Listed]:
    with connection.cursor(row_factory=tuple_row) as cursor:
        # `condition` is one of the constants above.
        return [_row(row) for row in cursor.execute(f"{_SELECT} {condition}", values)]


def _row(values: tuple[Any, ...]) -> Listed:
    sizes, rules = values[: len(COLUMNS)], values[len(COLUMNS) :]
    instrument = Instrument(**dict(zip(COLUMNS, sizes, strict=True)))
    return Listed(instrument, stored_rules(instrument, rules))
