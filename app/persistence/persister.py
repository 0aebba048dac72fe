"""Writes every event down exactly once: follows the event streams and commits batches to Postgres,
position and rows in one transaction; only then Redis drops what it no longer needs. Must not know
how orders are matched or served, and never ends because a server is away.
"""

import logging
import threading
import time
from collections.abc import Callable
from typing import Final

import msgspec
import psycopg
import redis

from app.backoff import delay_s
from app.domain.instruments import Instrument
from app.engine import halts
from app.engine.floors import Floors
from app.engine.halts import FOUND_BEFORE_READING, Halt
from app.engine.keys import book_keys
from app.persistence import event_store, event_stream
from app.persistence.catch_up import Halted, catch_up
from app.persistence.event_store import Connection, PositionMoved, PositionUnreadable
from app.persistence.rows import (
    UNREADABLE,
    Batch,
    Delivery,
    Entry,
    Fees,
    Texts,
    halves,
    transactions,
)

log: Final = logging.getLogger("crossbook.persister")

STREAM_WINDOW: Final = 10_000
"""Committed entries that stay in each stream, for feeds that resume."""
BATCH_ENTRIES: Final = 500
"""Entries of each stream that one read takes at most."""
BLOCK_MS: Final = 500
"""How long one read waits for entries; a stop may take as long."""
LEARN_EVERY_S: Final = 1.0
"""How often new instruments are looked for, at most."""
RECHECK_EVERY_S: Final = 5.0
"""How often a halted instrument is looked at again: it may have been repaired."""
SMALL_BATCH_EVENTS: Final = 200
PAUSE_S: Final = 0.02
"""After a small batch, so that the next is larger: each commit waits for the disk."""
BACKOFF_FIRST_S: Final = 0.05
BACKOFF_MAX_S: Final = 2.0

OUTAGES: Final = (psycopg.Error, redis.RedisError, OSError)
"""A server is away, starting, or not set up yet; all of it passes."""
REFUSALS: Final = (
    psycopg.DataError,
    psycopg.IntegrityError,
    psycopg.errors.ProgramLimitExceeded,
    UnicodeError,
    PositionUnreadable,
)
"""That batch will never be written as things are, however often it is tried."""


class Persister:
    """One persister; `step` does one round. Two at once are wasteful but write nothing twice."""

    def __init__(
        self,
        client: redis.Redis,
        connect_postgres: Callable[[], Connection],
        *,
        window: int = STREAM_WINDOW,
        batch_entries: int = BATCH_ENTRIES,
        floors: Floors | None = None,
    ) -> None:
        """`floors` are raised to what is committed, for others of the process to go by."""
        assert window >= 1, "the entry at the position is needed to recognise a Redis of the past"
        self.halted: dict[str, Halt] = {}
        self.positions: dict[str, int] = {}
        """Committed, of each instrument that is being followed."""
        self._client = client
        self._connect_postgres = connect_postgres
        self._window = window
        self._batch_entries = batch_entries
        self._floors = floors or Floors()
        self._connection: Connection | None = None
        self._instruments: dict[str, Instrument] = {}
        self._texts: dict[str, Texts] = {}
        self._fees: dict[str, Fees] = {}
        """In force at the position, of each instrument that is being followed."""
        self._learn_at = 0.0
        self._recheck_at: dict[str, float] = {}

    def run(self, stop: threading.Event) -> None:
        """Persist until `stop` is set; the batch in hand is finished first."""
        failures = 0
        while not stop.is_set():
            try:
                events = self.step()
            except OUTAGES as error:
                failures += 1
                stop.wait(self.recover(error, failures))
            else:
                failures = 0
                self._pace(events, stop)

    def step(self, block_ms: int = BLOCK_MS) -> int:
        """Read once, commit, let Redis drop what is committed. Returns the events committed.

        Raises:
            one of `OUTAGES`: call `recover` before the next step.
        """
        connection = self._ready_connection()
        self._follow(connection)
        if not self.positions:
            return 0
        delivery = event_stream.read(self._client, self.positions, self._batch_entries, block_ms)
        return sum(self._persist(connection, part) for part in transactions(delivery))

    def recover(self, error: Exception, failures: int) -> float:
        """Forget what may no longer be so; returns the seconds to wait, more after each failure."""
        pause_s = delay_s(failures, BACKOFF_FIRST_S, BACKOFF_MAX_S)
        # The first failures one by one, then ever fewer: an outage must not flood the log.
        log.log(
            logging.DEBUG if failures & (failures - 1) else logging.WARNING,
            "persisting is interrupted",
            extra={"why": f"{type(error).__name__}: {error}".strip(), "retry_in_s": pause_s},
        )
        self.close()
        return pause_s

    def close(self) -> None:
        """Close both connections; the next step opens them and looks where things stand."""
        self.positions.clear()
        self._recheck_at.clear()
        if self._connection is not None:
            self._connection.close()
            self._connection = None
        self._client.connection_pool.disconnect()

    def _ready_connection(self) -> Connection:
        if self._connection is None:
            self._connection = self._connect_postgres()
        return self._connection

    def _pace(self, events: int, stop: threading.Event) -> None:
        if not self.positions:
            stop.wait(LEARN_EVERY_S)
        elif events < SMALL_BATCH_EVENTS:
            stop.wait(PAUSE_S)

    def _follow(self, connection: Connection) -> None:
        """Learn of new instruments, and catch up with each that is not being followed."""
        now = time.monotonic()
        if now >= self._learn_at:
            self._learn_at = now + LEARN_EVERY_S
            self._learn()
        for symbol, instrument in self._instruments.items():
            if symbol not in self.positions and now >= self._recheck_at.get(symbol, 0.0):
                self._start(connection, instrument)

    def _learn(self) -> None:
        for symbol, text in event_stream.listed_instruments(self._client).items():
            try:
                self._instruments[symbol] = msgspec.json.decode(text, type=Instrument)
            except msgspec.MsgspecError as error:
                self._halt(Halt(symbol, 1, "instrument_unreadable", str(error)))

    def _start(self, connection: Connection, instrument: Instrument) -> None:
        symbol = instrument.symbol
        try:
            position, rules = catch_up(self._client, connection, instrument)
        except Halted as halted:
            self._halt(halted.halt, halted.judged)
            return
        self.positions[symbol] = position
        self._floors.raise_to(book_keys(symbol).book, position)
        self._texts[symbol] = texts = Texts(instrument)
        self._fees[symbol] = texts.fees(rules)
        self._reconsider_halt(symbol, position)
        log.info("following", extra={"instrument": symbol, "position": position})

    def _reconsider_halt(self, symbol: str, position: int) -> None:
        """Withdraw the halt, perhaps an earlier persister's, unless only reading can tell."""
        known = halts.announced(self._client, symbol) or self.halted.get(symbol)
        if known and known.code not in FOUND_BEFORE_READING and known.sequence > position:
            self.halted[symbol] = known
        else:
            self._withdraw_halt(symbol)

    def _persist(self, connection: Connection, delivery: Delivery) -> int:
        batch, found = self._build(connection, delivery)
        try:
            self._commit(connection, batch)
        except PositionMoved:
            for symbol in delivery:
                self._look_again(symbol)
            return 0
        except REFUSALS as error:
            return self._persist_in_halves(connection, delivery, error)
        except psycopg.errors.QueryCanceled:
            # Too slow for so much at once. A single event has to wait for better times.
            parts = halves(delivery)
            if not parts:
                raise
            return sum(self._persist(connection, part) for part in parts)
        for halt in found:
            self._halt(halt)
        return len(batch.events)

    def _persist_in_halves(
        self, connection: Connection, delivery: Delivery, error: Exception
    ) -> int:
        parts = halves(delivery)
        if not parts:
            symbol, entries = next(iter(delivery.items()))
            self._halt(Halt(symbol, entries[0].sequence, "refused", repr(error)))
        return sum(self._persist(connection, part) for part in parts)

    def _build(self, connection: Connection, delivery: Delivery) -> tuple[Batch, list[Halt]]:
        """The rows of all that follows on the positions, and what stands in the way of the rest."""
        batch = Batch()
        followed = {s: entries for s, entries in delivery.items() if s in self.positions}
        found = [
            self._add(connection, batch, symbol, entries) for symbol, entries in followed.items()
        ]
        return batch, [halt for halt in found if halt is not None]

    def _add(
        self, connection: Connection, batch: Batch, symbol: str, entries: list[Entry]
    ) -> Halt | None:
        texts, fees = self._texts[symbol], self._fees[symbol]
        for expected, entry in enumerate(entries, self.positions[symbol] + 1):
            if entry.sequence != expected:
                return self._out_of_order(connection, symbol, expected, entry.sequence)
            try:
                batch.add(texts, entry, fees)
            except UNREADABLE as error:
                return Halt(symbol, expected, "poison", repr(error))
        return None

    def _out_of_order(
        self, connection: Connection, symbol: str, expected: int, found: int
    ) -> Halt | None:
        """Whether an entry is missing, or is in the hands of another persister."""
        if found > expected and not event_stream.holds(self._client, symbol, expected):
            # Asked in this order: had it been trimmed, the position would be beyond it by now.
            position = event_store.open_position(connection, symbol)
            if position == self.positions[symbol]:
                return Halt(symbol, expected, "gap", f"event {found} comes where it should be")
        self._look_again(symbol)
        return None

    def _commit(self, connection: Connection, batch: Batch) -> None:
        if not batch.events:
            return
        event_store.write(connection, batch)
        self._fees |= batch.fees
        for symbol, end in batch.ends.items():
            self._floors.raise_to(book_keys(symbol).book, end)
            if symbol in self.positions:
                self.positions[symbol] = end
            if symbol in self.halted and self.halted[symbol].sequence <= end:
                self._withdraw_halt(symbol)
        for symbol, sequences in batch.sequences.items():
            keep_from = batch.ends[symbol] - self._window + 1
            event_stream.drop(self._client, symbol, sequences, batch.over[symbol], keep_from)
        log.debug("committed", extra={"events": len(batch.events), "positions": batch.ends})

    def _look_again(self, symbol: str) -> None:
        """Catch up with this instrument before anything more of it is read."""
        self.positions.pop(symbol, None)

    def _halt(self, halt: Halt, judged: str = "") -> None:
        symbol = halt.instrument
        if self.halted.get(symbol) != halt:
            log.error("instrument is not persisted any more", extra=msgspec.structs.asdict(halt))
        self.halted[symbol] = halt
        self._recheck_at[symbol] = time.monotonic() + RECHECK_EVERY_S
        halts.announce(self._client, halt, judged)
        position = self.positions.pop(symbol, None)
        if position is not None:
            event_stream.seek(self._client, symbol, position)

    def _withdraw_halt(self, symbol: str) -> None:
        is_withdrawn = halts.withdraw(self._client, symbol)
        if self.halted.pop(symbol, None) and is_withdrawn:
            log.info("instrument is persisted again", extra={"instrument": symbol})
