"""Settlement: all trades since the run before, netted into what each client is to receive and to
deliver of each asset, and into what the venue earns in fees. Knows only Postgres, and locks nothing
that the persister needs.

A run is fixed in one transaction: for each instrument, from where the last run ended up to what is
written down. Then it is netted in steps, each a transaction that adds some trades and notes how far
it came; the last one, which the database refuses unless every asset sums to zero, makes it final.
So a run that was killed anywhere goes on where it was, and several that work on the same one take
turns. A run that nobody finished is finished first by whoever starts the next.
"""

import logging
import re
from collections.abc import Callable
from datetime import UTC, datetime
from os import urandom
from typing import Any, Final, NamedTuple

import psycopg

from app.persistence.audit_connections import connect as connect_audit
from app.persistence.audit_connections import end_soon
from app.persistence.event_store import Connection

log: Final = logging.getLogger("crossbook.settlement")

TRADES_PER_STEP: Final = 20_000
"""Some tenths of a second: how long a killed run has worked in vain, and others wait for a turn."""
TURN_TIMEOUT_MS: Final = 3_000
"""How long one waits for its turn; steps are shorter, but there may be several before it."""
LOCK_ID: Final = 0x63726F73_7374746C
"""Of the advisory lock by which steps take turns: "crossttl" in ASCII."""
RUN_ID: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._:-]{0,63}")
RUN_ID_RULE: Final = "1 to 64 letters, digits and . _ : -, the first a letter or a digit"


class RunIdReused(Exception):
    """That run was asked for with another instrument."""


class UnknownInstrument(Exception):
    """None of that symbol was ever listed."""


class Wanted(NamedTuple):
    """A run as it is asked for; `instrument` None stands for all."""

    run_id: str
    instrument: str | None


class Settled(NamedTuple):
    """How far a call brought its run. `is_new`: the run is this call's."""

    is_done: bool
    is_new: bool


class _Range(NamedTuple):
    """What is left of a run on one instrument: trades of events after `first`, up to `last`."""

    instrument: str
    first: int
    last: int


BUSY: Final = psycopg.errors.LockNotAvailable
"""Raised by `settle` where it does not get its turn in time."""


def connect(database_url: str) -> Connection:
    """A connection for settlements.

    Raises:
        psycopg.OperationalError: Postgres is away.
    """
    connection = connect_audit(database_url, "settlement")
    connection.execute(f"SET lock_timeout = {TURN_TIMEOUT_MS}")
    return connection


def new_run_id() -> str:
    """An id for a run of somebody who has none: when it began, and something random."""
    return f"{datetime.now(UTC):%Y%m%dT%H%M%SZ}-{urandom(4).hex()}"


def settle(
    connection: Connection,
    wanted: Wanted,
    may_go_on: Callable[[], bool] = lambda: True,
    trades_per_step: int = TRADES_PER_STEP,
) -> Settled:
    """Bring a run to its end, and before it the one that was left unfinished, if there is one. What
    is done already stays as it is. Asked before each step but the first, `may_go_on` can end it
    early; the same call again goes on.

    Raises:
        RunIdReused, UnknownInstrument: nothing was done.
        BUSY, or another psycopg.Error: the same call again goes on.
    """
    is_new = False
    while True:
        current, began = _begin(connection, wanted)
        is_new = is_new or began
        if current is None:
            return Settled(is_done=True, is_new=is_new)
        while not _step(connection, current, trades_per_step):
            if not may_go_on():
                return Settled(is_done=False, is_new=is_new)


def _begin(connection: Connection, wanted: Wanted) -> tuple[str | None, bool]:
    """The run to work on, or None if the one that is wanted is done; and whether it began here."""
    with connection.transaction():
        _take_turn(connection)
        known = connection.execute(
            "SELECT status, instrument FROM settlements WHERE run_id = %s", (wanted.run_id,)
        ).fetchone()
        if known is not None:
            if known[1] != wanted.instrument:
                raise RunIdReused(f"the run {wanted.run_id} was of {known[1] or 'all instruments'}")
            return (None if known[0] == "done" else wanted.run_id), False
        _check_instrument(connection, wanted.instrument)
        unfinished = connection.execute(_UNFINISHED).fetchone()
        if unfinished is not None:
            log.warning("finishing a settlement first", extra={"run_id": unfinished[0]})
            return unfinished[0], False
        connection.execute(_INSERT_RUN, wanted)
        connection.execute(_INSERT_RANGES, wanted._asdict())
    return wanted.run_id, True


def _check_instrument(connection: Connection, symbol: str | None) -> None:
    listed = "SELECT FROM instruments WHERE symbol = %s"
    if symbol is not None and not connection.execute(listed, (symbol,)).rowcount:
        raise UnknownInstrument(f"no instrument {symbol}")


def _step(connection: Connection, run_id: str, trades_max: int) -> bool:
    """Net some more trades of a run, or make it final where none is left; whether it is done."""
    with connection.transaction():
        _take_turn(connection)
        rest = connection.execute(_REST, (run_id,)).fetchone()
        if rest is None:
            connection.execute(_FINISH, (run_id,))
            return True
        _net(connection, run_id, _Range(*rest), trades_max)
    return False


def _take_turn(connection: Connection) -> None:
    # For the transaction alone: a process that dies or stands still gives it back.
    end_soon(connection)
    connection.execute("SELECT pg_advisory_xact_lock(%s)", (LOCK_ID,))


def _net(connection: Connection, run_id: str, rest: _Range, trades_max: int) -> None:
    part = _first_part(connection, rest, trades_max)
    values = part._asdict() | {"run_id": run_id}
    connection.execute(_ADD_OBLIGATIONS, values)
    connection.execute(_ADVANCE, values)


def _first_part(connection: Connection, rest: _Range, trades_max: int) -> _Range:
    """As many events as have some `trades_max` trades; those of one event stay together."""
    values = rest._asdict() | {"trades_max": trades_max}
    last: Any = connection.execute(_END_OF_PART, values).fetchone()
    return rest if last is None else rest._replace(last=last[0])


_UNFINISHED: Final = "SELECT run_id FROM settlements WHERE status = 'running'"
_INSERT_RUN: Final = "INSERT INTO settlements (run_id, instrument) VALUES (%s, %s)"
# One statement, hence one moment for all instruments.
_INSERT_RANGES: Final = """
    INSERT INTO settlement_ranges (
        run_id, instrument, after_sequence, up_to_sequence, netted_sequence
    )
    SELECT %(run_id)s, p.instrument, ended.sequence, p.sequence, ended.sequence
    FROM stream_positions AS p
    CROSS JOIN LATERAL (
        SELECT coalesce((
            SELECT up_to_sequence FROM settlement_ranges WHERE instrument = p.instrument
            ORDER BY after_sequence DESC LIMIT 1
        ), 0) AS sequence
    ) AS ended
    WHERE p.sequence > ended.sequence
        AND (%(instrument)s::text IS NULL OR p.instrument = %(instrument)s)
"""
_REST: Final = """
    SELECT instrument, netted_sequence, up_to_sequence FROM settlement_ranges
    WHERE run_id = %s AND netted_sequence < up_to_sequence
    ORDER BY instrument LIMIT 1
"""
_END_OF_PART: Final = """
    SELECT sequence FROM trades
    WHERE instrument = %(instrument)s AND sequence > %(first)s AND sequence <= %(last)s
    ORDER BY sequence, fill_index
    OFFSET %(trades_max)s - 1 LIMIT 1
"""
# Fees are in the quote currency; what clients pay, the venue gets.
_ADD_OBLIGATIONS: Final = """
    WITH traded AS (
        SELECT split_part(instrument, '-', 1) AS base, split_part(instrument, '-', 2) AS quote,
            quantity, price * quantity AS notional, buyer_client_id, seller_client_id,
            CASE side WHEN 'buy' THEN taker_fee ELSE maker_fee END AS buyer_fee,
            CASE side WHEN 'buy' THEN maker_fee ELSE taker_fee END AS seller_fee
        FROM trades
        WHERE instrument = %(instrument)s AND sequence > %(first)s AND sequence <= %(last)s
    ), parts (client_id, asset, received, delivered, fees) AS (
        SELECT buyer_client_id, base, quantity, 0, 0 FROM traded
        UNION ALL SELECT buyer_client_id, quote, 0, notional, buyer_fee FROM traded
        UNION ALL SELECT seller_client_id, base, 0, quantity, 0 FROM traded
        UNION ALL SELECT seller_client_id, quote, notional, 0, seller_fee FROM traded
        UNION ALL SELECT '', quote, 0, 0, -(buyer_fee + seller_fee) FROM traded
    )
    INSERT INTO settlement_obligations AS o (run_id, client_id, asset, received, delivered, fees)
    SELECT %(run_id)s, client_id, asset, sum(received), sum(delivered), sum(fees)
    FROM parts GROUP BY client_id, asset
    ON CONFLICT (run_id, client_id, asset) DO UPDATE SET
        received = o.received + excluded.received,
        delivered = o.delivered + excluded.delivered,
        fees = o.fees + excluded.fees
"""
_ADVANCE: Final = """
    UPDATE settlement_ranges SET netted_sequence = %(last)s, trades = trades + (
        SELECT count(*) FROM trades
        WHERE instrument = %(instrument)s AND sequence > %(first)s AND sequence <= %(last)s
    )
    WHERE run_id = %(run_id)s AND instrument = %(instrument)s
"""
_FINISH: Final = """
    UPDATE settlements SET status = 'done', finished_at = now()
    WHERE run_id = %s AND status = 'running'
"""
