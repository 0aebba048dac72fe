"""Brings the database's tables to the version that this code expects, with yoyo-migrations and the
plain SQL of `db/migrations`. Must not know what the tables are for, and puts no rows into them.
"""

import logging
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final
from urllib.parse import urlsplit

import psycopg
from psycopg.conninfo import make_conninfo
from yoyo import get_backend, read_migrations

log: Final = logging.getLogger("crossbook.migrations")

MIGRATIONS: Final = Path(__file__).resolve().parents[2] / "db" / "migrations"
LOCK_ID: Final = 0x63726F73_73626F6F
"""Of the advisory lock that migrating processes take turns by: "crossboo" in ASCII."""
STARTUP_PATIENCE_S: Final = 60.0
"""How long a Postgres may take to start before migrating is given up."""
RETRY_EVERY_S: Final = 0.25
CONNECT_TIMEOUT_S: Final = 5
TURN_TIMEOUT_MS: Final = 300_000
"""How long to wait for another process that is migrating this database now."""


def migrate(database_url: str) -> None:
    """Apply every migration that has not been applied; does nothing where all have been.

    Several processes may call it at once: they take turns. Waits up to `STARTUP_PATIENCE_S` for a
    Postgres that is starting.

    Raises:
        psycopg.Error: no Postgres there in time, or a migration failed; it was rolled back.
    """
    with _turn(database_url), _backend(database_url) as backend:
        pending = backend.to_apply(read_migrations(str(MIGRATIONS)))
        backend.apply_migrations(pending)
        log.info("database is up to date", extra={"applied": [step.id for step in pending]})


def roll_back(database_url: str) -> None:
    """Undo every migration, newest first: drops all tables with all that is in them."""
    with _turn(database_url), _backend(database_url) as backend:
        backend.rollback_migrations(backend.to_rollback(read_migrations(str(MIGRATIONS))))


@contextmanager
def _turn(database_url: str) -> Iterator[None]:
    # An advisory lock ends with its connection. Yoyo's own lock is a row: one that was left behind
    # by a killed process would stop every start until somebody removes it by hand.
    with _connect_patiently(database_url) as connection:
        connection.execute(f"SET statement_timeout = {TURN_TIMEOUT_MS}")
        connection.execute("SELECT pg_advisory_lock(%s)", (LOCK_ID,))
        yield


def _connect_patiently(database_url: str) -> psycopg.Connection[Any]:
    conninfo = make_conninfo(database_url, connect_timeout=CONNECT_TIMEOUT_S)
    deadline = time.monotonic() + STARTUP_PATIENCE_S
    while True:
        try:
            return psycopg.connect(conninfo, autocommit=True)
        except psycopg.OperationalError as error:
            if time.monotonic() > deadline:
                raise
            log.debug("waiting for Postgres", extra={"error": str(error)})
            time.sleep(RETRY_EVERY_S)


@contextmanager
def _backend(database_url: str) -> Iterator[Any]:
    with get_backend(_yoyo_url(database_url)) as backend:
        backend.break_lock()  # we have the turn, so whoever left it is gone
        yield backend


def _yoyo_url(database_url: str) -> str:
    # yoyo chooses the driver by the scheme; without "+psycopg" it wants psycopg2.
    return urlsplit(database_url)._replace(scheme="postgresql+psycopg").geturl()
