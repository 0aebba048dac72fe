"""`python -m app verify`: the audit of a system, running or not. Each instrument's events are
played into a model, audited one by one; Postgres's tables are held against it and against each
other at one moment, and Redis's keys piece by piece, each at the sequence at which it was read. So
it is exact while orders come in, and nobody waits for it. Changes nothing.
"""

from collections.abc import Callable, Collection
from functools import partial
from itertools import chain
from time import monotonic, sleep
from typing import Final

import msgspec
import redis

from app.domain.auditing import Inconsistent
from app.domain.book_state import BookState
from app.domain.instruments import Instrument
from app.engine import inspection
from app.engine.inspection import Inspector, NoBook
from app.engine.layout import SCHEMA
from app.persistence import event_stream
from app.persistence.audit_connections import connect
from app.persistence.book_history import BROKEN, first_state
from app.persistence.event_store import Connection
from app.persistence.instruments import COLUMNS, positions
from app.persistence.snapshots import Snapshot, load, snapshots_of
from app.persistence.stored_events import EventMissing, event_chunks
from app.persistence.verifying import ledger, streams
from app.persistence.verifying.books import BookComparison
from app.persistence.verifying.findings import Breach, Findings, Report
from app.persistence.verifying.following import Follower, Moved
from app.persistence.verifying.idempotency import IdempotencyCheck
from app.persistence.verifying.settlements import check_settlements

HALTING_FIELDS: Final = ("suspended", "fenced")
LISTING_TIMEOUT_S: Final = 2.0
"""How long a book may take to be opened after its instrument was written down."""
LOOK_AGAIN_S: Final = 0.05
NEWEST_ORDERS: Final = 100_000
"""Of these the keys must have their records; with `full`, of all that are young enough."""


class UnknownSymbol(ValueError):
    """Neither store has such an instrument."""


def verify(
    redis_url: str,
    database_url: str,
    idempotency_ttl_s: int,
    *,
    full: bool,
    symbols: Collection[str] = (),
) -> Report:
    """Audit these instruments, or all and the settlements; `full` from the first event on, not from
    the newest snapshot.

    Raises:
        UnknownSymbol.
        psycopg.Error, redis.RedisError: a store is away, or a look at it took too long.
    """
    client = event_stream.connect(redis_url)
    with connect(database_url, "verify") as connection:
        # In this order: an instrument is in Postgres before it is in Redis.
        listed, known = inspection.listed(client), _instruments(connection)
        for symbol in symbols:
            if symbol not in known and symbol not in listed:
                raise UnknownSymbol(f"no instrument {symbol} was ever listed")
        chosen = set(symbols or (*listed, *known))
        connect_again = partial(connect, database_url, "verify")
        opened_by = monotonic() + LISTING_TIMEOUT_S
        found = [
            _Audit(client, connection, instrument, connect_again, opened_by).run(
                idempotency_ttl_s, full=full
            )
            for symbol, instrument in known.items()
            if symbol in chosen
        ]
        breaches = [] if symbols else _check_settlements(connection)
    for symbol in listed:
        if symbol in chosen and symbol not in known:
            findings = Findings(symbol)
            findings.breach("listing", "Redis lists it, Postgres does not know it")
            found.append(findings)
    return Report(found, breaches)


def _check_settlements(connection: Connection) -> list[Breach]:
    """All at one moment."""
    with connection.transaction():
        connection.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ, READ ONLY")
        return check_settlements(connection)


def _instruments(connection: Connection) -> dict[str, Instrument]:
    found = connection.execute(f"SELECT {', '.join(COLUMNS)} FROM instruments ORDER BY symbol")  # noqa: S608  # constants
    return {row[0]: Instrument(**dict(zip(COLUMNS, row, strict=True))) for row in found.fetchall()}


class _Audit:
    """Of one instrument."""

    def __init__(
        self,
        client: redis.Redis,
        connection: Connection,
        instrument: Instrument,
        connect_again: Callable[[], Connection],
        opened_by: float,
    ) -> None:
        self._client = client
        self._connection = connection
        self._instrument = instrument
        self._connect_again = connect_again
        self._opened_by = opened_by
        """When there is a book at the latest, in monotonic seconds."""
        self._findings = Findings(instrument.symbol)
        self._inspector = Inspector(client, instrument.symbol)

    def run(self, idempotency_ttl_s: int, *, full: bool) -> Findings:
        """All of it. What is found wrong ends only what depends on it."""
        state, findings = self._check_postgres(full=full), self._findings
        try:
            if self._has_book():
                self._check_redis(state, idempotency_ttl_s, None if full else NEWEST_ORDERS)
        except (NoBook, Moved) as error:
            findings.breach("moved", str(error) or "the book is gone")
        except BROKEN as error:
            findings.breach("event", str(error))
        except (redis.ResponseError, ValueError) as error:  # a key of another type, no number
            findings.breach("book", f"cannot be read: {error}")
        return findings

    # Postgres

    def _check_postgres(self, *, full: bool) -> BookState | None:
        """The model as of the position, or None where the events make none."""
        # Far behind the newest event this takes long; so not within the transaction.
        state = self._history(full=full)
        with self._connection.transaction():
            self._connection.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ, READ ONLY")
            self._findings.position = self._position()
            ledger.check_events(self._connection, self._findings)
            if state is not None:
                state = self._played(state, self._findings.position, {})
            if state is not None:
                ledger.check_open_orders(self._connection, self._findings, self._instrument, state)
            ledger.check_sums(self._connection, self._findings)
            self._check_costs()
        return state

    def _check_costs(self) -> None:
        try:
            ledger.check_costs(self._connection, self._findings, self._instrument)
        except (ValueError, ArithmeticError) as error:
            self._findings.breach("positions", f"a trade has no whole number of steps: {error}")

    def _position(self) -> int:
        return positions(self._connection).get(self._instrument.symbol, 0)

    def _history(self, *, full: bool) -> BookState | None:
        symbol, position = self._instrument.symbol, self._position()
        snapshots = snapshots_of(self._connection, symbol, position)
        state = None if full else self._newest(snapshots)
        digests = {snapshot.sequence: snapshot.digest for snapshot in snapshots} if full else {}
        try:
            first = state or first_state(self._connection, symbol)
        except (ValueError, ArithmeticError) as error:
            self._findings.breach("event", f"first_rules cannot be read: {error!r}")
            return None
        return self._played(first, position, digests)

    def _newest(self, snapshots: list[Snapshot]) -> BookState | None:
        for snapshot in snapshots:
            try:
                return load(self._connection, snapshot)
            except Inconsistent as error:
                self._findings.breach("snapshot", f"at {snapshot.sequence}: {error}")
        return None

    def _played(self, state: BookState, last: int, digests: dict[int, str]) -> BookState | None:
        """The model moved on to event `last`, with these digests on its way."""
        chunks = event_chunks(self._connection, state.symbol, state.sequence, last)
        try:
            for entry in chain.from_iterable(chunks):
                state.apply(entry.sequence, entry.fields)
                stored = digests.get(entry.sequence)
                if stored is not None and state.digest() != stored:
                    self._findings.breach(
                        "snapshot", f"at {entry.sequence} it is not what the events make"
                    )
        except EventMissing:
            return None  # told by check_events
        except Inconsistent as error:
            self._findings.breach("event", str(error))
            return None
        return state

    # Redis

    def _has_book(self) -> bool:
        """Whether there is a book to compare; tells why not, and whether it is halted."""
        findings, symbol = self._findings, self._instrument.symbol
        fields = self._book_fields()
        for name in HALTING_FIELDS:
            if name in fields:
                findings.breach("halted", f"the book is {name}: {fields[name]}")
        halt = inspection.halts(self._client).get(symbol)
        if halt is not None:
            findings.breach("halted", halt)
        if "sequence" not in fields:
            findings.breach(
                "book_missing", f"Redis has no book, Postgres {findings.position} events"
            )
            return False
        self._check_listing()
        findings.sequence = int(fields["sequence"])
        if fields.get("schema") != SCHEMA:
            findings.breach("schema_mismatch", f"{fields.get('schema')}, must be {SCHEMA}")
        elif findings.sequence < findings.position:
            findings.breach(
                "redis_behind", f"Redis is at {findings.sequence}, Postgres at {findings.position}"
            )
        else:
            return True
        return False

    def _check_listing(self) -> None:
        """An instrument is announced before it has a book."""
        ours = self._instrument
        text = inspection.listing(self._client, ours.symbol)
        if text is None:
            self._findings.breach("listing", "Postgres knows it, Redis does not list it")
            return
        try:
            theirs = msgspec.json.decode(text, type=Instrument)
        except msgspec.MsgspecError as error:
            self._findings.breach("listing", f"what Redis says of it cannot be read: {error}")
            return
        sizes = (theirs.tick_size, theirs.lot_size)
        if sizes != (ours.tick_size, ours.lot_size):
            self._findings.breach(
                "listing",
                f"in Redis tick {sizes[0]} and lot {sizes[1]},"
                f" in Postgres tick {ours.tick_size} and lot {ours.lot_size}",
            )

    def _book_fields(self) -> dict[str, str]:
        while True:
            fields = self._inspector.process_fields(("schema", "sequence", *HALTING_FIELDS))
            if fields or self._findings.position or monotonic() > self._opened_by:
                return fields
            sleep(LOOK_AGAIN_S)

    def _check_redis(self, state: BookState | None, ttl_s: int, orders_max: int | None) -> None:
        findings, inspector, connection = self._findings, self._inspector, self._connection
        streams.check_stream(inspector, connection, findings)
        keys = IdempotencyCheck(inspector, connection, findings)
        keys.check_records()
        keys.check_completeness(ttl_s, orders_max)
        follower = None
        if state is not None:
            follower = Follower(state, inspector, self._connect_again)
            follower.look_back(inspector.stream_ends().marks.unsettled)
            BookComparison(follower, inspector, findings).compare()
        ends = inspector.stream_ends()
        streams.check_marks(ends, findings, self._position())
        if follower is not None:
            follower.follow(ends.marks)
            self._conclude(follower.state)

    def _conclude(self, state: BookState) -> None:
        findings = self._findings
        findings.sequence, findings.orders = state.sequence, len(state.orders)
        if _is_crossed(state):
            findings.breach("book", "the best bid is not below the best ask")
        if all(breach.code != "book" for breach in findings.breaches):
            findings.digest = state.digest()


def _is_crossed(state: BookState) -> bool:
    """Every order that crosses trades when it comes, so none may rest crossed."""
    prices: dict[str, list[int]] = {"bid": [], "ask": []}
    for level in state.levels:
        side, _, ticks = level.partition(":")
        prices[side].append(int(ticks))
    bids, asks = prices["bid"], prices["ask"]
    return bool(bids and asks) and max(bids) >= min(asks)
