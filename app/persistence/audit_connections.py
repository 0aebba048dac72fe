"""Connections to Postgres for what reads very much: verify and replay. Each wait has an end here as
everywhere, but a statement that looks at whole tables may take minutes.
"""

from typing import Final

from app.persistence.connections import BoundedConnection
from app.persistence.event_store import (
    IDLE_IN_TRANSACTION_TIMEOUT_MS,
    LOCK_TIMEOUT_MS,
    STATEMENT_TIMEOUT_MS,
    Connection,
    patient,
)

WHOLE_TABLE_TIMEOUT_MS: Final = 1_800_000
"""A sum over a hundred million trades takes minutes; what takes longer has gone wrong."""
ANSWER_MARGIN_S: Final = 5.0
"""The client gives a server up later than the server its own statement."""


def connect(database_url: str, name: str) -> Connection:
    """A connection that pg_stat_activity shows as `crossbook <name>`.

    Raises:
        psycopg.OperationalError: Postgres is away.
    """
    conninfo = patient(database_url, f"crossbook {name}")
    connection: Connection = BoundedConnection.connect(conninfo, autocommit=True)
    connection.patience_s = WHOLE_TABLE_TIMEOUT_MS / 1000 + ANSWER_MARGIN_S
    connection.execute(f"SET statement_timeout = {WHOLE_TABLE_TIMEOUT_MS}")
    connection.execute(f"SET lock_timeout = {LOCK_TIMEOUT_MS}")
    return connection


def end_soon(connection: Connection) -> None:
    """Of a transaction for which others wait: let Postgres end it rather than hold them up."""
    for name, limit_ms in (
        ("statement_timeout", STATEMENT_TIMEOUT_MS),
        ("idle_in_transaction_session_timeout", IDLE_IN_TRANSACTION_TIMEOUT_MS),
    ):
        connection.execute(f"SET LOCAL {name} = {limit_ms}")
