"""`python -m app replay`: the read models computed once more from the event store, by the very code
that the persister writes them with, and held against the live ones. Never stops the persister; a
repair lets it wait for moments. Must not know Redis.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

import msgspec
import psycopg

from app.domain.instruments import Instrument
from app.domain.rules import Rules, parse_rules_detail
from app.persistence import read_models
from app.persistence.audit_connections import connect, end_soon
from app.persistence.event_store import Connection, write_read_models, write_rules
from app.persistence.instruments import COLUMNS
from app.persistence.read_models import Difference
from app.persistence.rows import UNREADABLE, Batch, Entry, Fees, Texts, rules_row, transactions
from app.persistence.stored_events import EventMissing, event_chunks

LOCK_ID: Final = 0x63726F73_72706C79
"""Of the advisory lock that keeps a second replay out: "crosrply" in ASCII."""
UNREPLAYABLE: Final = (*UNREADABLE, EventMissing, psycopg.DataError, psycopg.IntegrityError)
"""What an event store that was tampered with leads to."""


class ReplayRefused(Exception):
    """Nothing was done; says why."""


class Report(msgspec.Struct):
    """What a replay found. `failures` are instruments whose events cannot be replayed, with why;
    nothing was compared or repaired of them.
    """

    instruments: int = 0
    events: int = 0
    repaired_rows: int = 0
    differences: list[Difference] = []
    failures: dict[str, str] = {}

    @property
    def is_equal(self) -> bool:
        """Whether every read model is what its events say."""
        return not self.differences and not self.failures

    def lines(self) -> Iterator[str]:
        """The report for a person."""
        for symbol, why in self.failures.items():
            yield f"{symbol} cannot be replayed: {why}"
        for found in self.differences:
            more = found.rows - len(found.examples)
            named = ", ".join(found.examples) + (f", and {more} more" if more else "")
            yield f"{found.instrument} {found.table}: {found.rows} rows differ: {named}"
        if self.repaired_rows:
            yield f"repaired {self.repaired_rows} rows"
        verdict = "equal" if self.is_equal else "NOT equal"
        yield (
            f"{self.instruments} instruments, {self.events} events: the read models are {verdict}"
            " to the event store"
        )


class _Tape:
    """One instrument's way through its events: how far it is, and the fees in force there."""

    def __init__(self, instrument: Instrument, first: Rules) -> None:
        self.symbol = instrument.symbol
        self.texts = Texts(instrument)
        self.fees: Fees = self.texts.fees(first)
        self.position = 0

    def batch(self, entries: list[Entry]) -> Batch:
        """The rows of the events that come next."""
        batch = Batch()
        for entry in entries:
            try:
                batch.add(self.texts, entry, self.fees)
            except UNREADABLE as error:
                raise ValueError(f"event {entry.sequence} cannot be read: {error!r}") from error
        return batch


def replay(database_url: str, *, repair: bool = False) -> Report:
    """Compute the read models again and compare; with `repair` write what differs.

    Raises:
        ReplayRefused: another replay is running.
        psycopg.Error: Postgres is away; nothing is broken, begin again.
    """
    with connect(database_url, "replay") as connection, _alone(connection):
        # Whatever is computed here is thrown away: it need not wait for the disk.
        connection.execute("SET synchronous_commit = off")
        return _Replay(connection).run(repair=repair)


@contextmanager
def _alone(connection: Connection) -> Iterator[None]:
    taken = connection.execute("SELECT pg_try_advisory_lock(%s)", (LOCK_ID,)).fetchone()
    if taken != (True,):
        raise ReplayRefused("another replay is running on this database")
    read_models.make_tables(connection)
    try:
        yield
    finally:
        if not connection.closed:
            read_models.drop_tables(connection)
            # The end of the connection would do it, too, but a moment after ours.
            connection.execute("SELECT pg_advisory_unlock(%s)", (LOCK_ID,))


class _Replay:
    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self._tapes: dict[str, _Tape] = {}
        self._report = Report()

    def run(self, *, repair: bool) -> Report:
        self._catch_up()
        self._compare()
        if repair and self._report.differences:
            self._repair()
            self._compare()
        self._report.instruments = len(self._tapes)
        self._report.events = sum(tape.position for tape in self._tapes.values())
        return self._report

    def _compare(self) -> None:
        """At one moment of the database, up to which little is missing: exact while the persister
        goes on.
        """
        self._catch_up()
        with self._connection.transaction():
            self._connection.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ")
            self._catch_up()
            failed = list(self._report.failures)
            self._report.differences = read_models.compare(self._connection, failed)

    def _repair(self) -> None:
        """Row by row what the comparison found, a bounded step at a time. In between the persister
        writes on; what it adds to rows that are not yet repaired is overwritten with them.
        """
        for model, first in list(read_models.repair_steps(self._connection)):
            self._catch_up()  # most of it, before anybody has to wait
            with self._connection.transaction():
                # What the persister counts on must be on disk.
                self._connection.execute("SET LOCAL synchronous_commit = on")
                end_soon(self._connection)
                # In its own order, so that neither waits for the other for ever.
                self._connection.execute(
                    "SELECT FROM stream_positions ORDER BY instrument FOR UPDATE"
                )
                self._catch_up()
                self._report.repaired_rows += read_models.repair(self._connection, model, first)

    def _catch_up(self) -> None:
        """Compute all that is written down by now, and was not before."""
        for position, first_rules, *sizes in self._connection.execute(_INSTRUMENTS).fetchall():
            symbol = sizes[0]
            if symbol not in self._tapes and symbol not in self._report.failures:
                self._begin(Instrument(**dict(zip(COLUMNS, sizes, strict=True))), first_rules)
            if symbol not in self._report.failures:
                self._follow(self._tapes[symbol], position)

    def _begin(self, instrument: Instrument, first_rules: str) -> None:
        """Begin with an instrument that is new here."""
        try:
            rules = parse_rules_detail(first_rules)
            tape = _Tape(instrument, rules)
            row = rules_row(tape.texts, rules)
        except UNREADABLE as error:
            self._report.failures[instrument.symbol] = f"first_rules cannot be read: {error!r}"
            return
        self._connection.execute(_COPY_INSTRUMENT, (instrument.symbol,))
        with read_models.computing(self._connection):
            write_rules(self._connection, [row])
        self._tapes[instrument.symbol] = tape

    def _follow(self, tape: _Tape, position: int) -> None:
        try:
            for entries in event_chunks(self._connection, tape.symbol, tape.position, position):
                for piece in transactions({tape.symbol: entries}):
                    self._write(tape, tape.batch(piece[tape.symbol]))
        except UNREPLAYABLE as error:
            self._report.failures[tape.symbol] = str(error)

    def _write(self, tape: _Tape, batch: Batch) -> None:
        with read_models.computing(self._connection):
            write_read_models(self._connection, batch)
        tape.position = batch.ends[tape.symbol]
        tape.fees = batch.fees[tape.symbol]


_INSTRUMENTS: Final = (
    f"SELECT coalesce(p.sequence, 0), i.first_rules, {', '.join(f'i.{c}' for c in COLUMNS)}"  # noqa: S608  # constants
    " FROM instruments AS i LEFT JOIN stream_positions AS p ON p.instrument = i.symbol"
    " ORDER BY i.symbol"
)
_COPY_INSTRUMENT: Final = (
    f"INSERT INTO {read_models.SCHEMA}.instruments"  # noqa: S608  # a constant
    " SELECT * FROM instruments WHERE symbol = %s"
)
