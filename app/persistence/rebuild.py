"""`python -m app rebuild`: books in Redis made again from Postgres, for a Redis that lost its disk
or went back in time. Looks first, replaces only what is certainly older or wrong, and builds beside
the present book, so that it may be cut short anywhere and runs while everything else does.
"""

import logging
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from typing import Any, Final, NamedTuple

import msgspec
import psycopg
import redis
from redis.backoff import NoBackoff
from redis.retry import Retry

from app.domain.book_state import BookState
from app.domain.events import EVENT_FIELDS, EventType, parse_order_line
from app.domain.instruments import Instrument
from app.engine import halts
from app.engine.book import Books
from app.engine.commands import Refused
from app.engine.executor import DirectExecutor, EngineUnavailable
from app.engine.installing import Building, Use, redis_time_us
from app.engine.keys import INSTRUMENTS, book_keys, events_key
from app.engine.layout import SCHEMA, BookMoves, first_difference, read_book
from app.persistence import book_history, event_store
from app.persistence.audit_connections import connect
from app.persistence.event_store import Connection, stored_events
from app.persistence.instruments import stored_instruments
from app.persistence.persister import STREAM_WINDOW
from app.persistence.rows import Entry
from app.persistence.stored_events import EventMissing, event_chunks

log: Final = logging.getLogger("crossbook.rebuild")

LOCK_ID: Final = 0x63726F73_72626C64
"""Of the advisory lock that keeps a second rebuild out: "crosrbld" in ASCII."""
CONNECT_TIMEOUT_S: Final = 5.0
ANSWER_TIMEOUT_S: Final = 30.0
"""A chunk takes milliseconds; more than this, and Redis stands still."""
TERMINATE_TIMEOUT_MS: Final = 5_000
"""For a connection of Postgres to end; it only waits for its own transaction."""
US_PER_S: Final = 1_000_000
AWAY: Final = (psycopg.Error, redis.RedisError, EngineUnavailable)
"""What a server that is away leads to, also in the middle; a rebuild may begin again any time."""


class RebuildRefused(Exception):
    """Nothing was done at all; says why."""


class Outcome(msgspec.Struct, frozen=True):
    """What became of one instrument. `is_well`: its book is whole, by this or before."""

    instrument: str
    is_well: bool
    text: str
    sequence: int | None = None
    digest: str | None = None

    def line(self) -> str:
        """For a person."""
        if self.digest is None:
            return f"{self.instrument} {self.text}"
        return f"{self.instrument} sequence {self.sequence} digest {self.digest} {self.text}"


class Seen(NamedTuple):
    """A book as it was found in Redis; `sequence` None: there is none."""

    schema: str | None
    sequence: int | None
    is_fenced: bool


def connect_redis(redis_url: str) -> redis.Redis:
    """A client that repeats nothing by itself, and waits for nothing for ever."""
    return redis.Redis.from_url(
        redis_url,
        protocol=2,
        socket_connect_timeout=CONNECT_TIMEOUT_S,
        socket_timeout=ANSWER_TIMEOUT_S,
        retry=Retry(NoBackoff(), 0),
    )


class Wish(NamedTuple):
    """What a rebuild is asked for: these symbols, or all; whether events of halted books that
    Postgres has not may be given up; whether only books that are lost whole are looked at.
    """

    symbols: Collection[str] = ()
    discard_newer: bool = False
    only_lost: bool = False


def rebuild(
    redis_url: str, database_url: str, idempotency_ttl_s: int, wish: Wish
) -> Iterator[Outcome]:
    """Each instrument, one after the other, with what became of it.

    Raises:
        RebuildRefused: another rebuild runs, or a symbol is unknown.
        One of `AWAY`: begin again.
    """
    client = connect_redis(redis_url)
    with client, connect(database_url, "rebuild") as connection:
        lost = lost_books(client, connection) if wish.only_lost else []
        if lost or not wish.only_lost:
            run = Rebuild(client, connection, idempotency_ttl_s, discard_newer=wish.discard_newer)
            yield from run.run(lost or wish.symbols)


def lost_books(client: redis.Redis, connection: Connection) -> list[str]:
    """Instruments of which Postgres has events, and Redis no book at all: a Redis that lost its
    disk, also where a rebuild of it was cut short.
    """
    known = book_history.positions(connection)
    written = sorted(symbol for symbol, position in known.items() if position)
    return [symbol for symbol in written if not client.exists(book_keys(symbol).book)]


class Rebuild:
    """One run. `discard_newer` gives up events of halted books that Postgres has not."""

    def __init__(
        self,
        client: redis.Redis,
        connection: Connection,
        idempotency_ttl_s: int,
        *,
        discard_newer: bool = False,
    ) -> None:
        self._client = client
        self._connection = connection
        self._ttl_us = idempotency_ttl_s * US_PER_S
        self._discard_newer = discard_newer
        self._books = Books(DirectExecutor(client), idempotency_ttl_s)

    def run(self, symbols: Collection[str] = ()) -> Iterator[Outcome]:
        """See `rebuild`."""
        with self._alone():
            listed = {one.instrument.symbol: one for one in stored_instruments(self._connection)}
            if unknown := sorted(set(symbols) - listed.keys()):
                raise RebuildRefused(f"no instrument {', '.join(unknown)} was ever listed")
            for symbol in sorted(symbols or listed):
                yield self._one(listed[symbol].instrument)

    @contextmanager
    def _alone(self) -> Iterator[None]:
        taken = self._connection.execute("SELECT pg_try_advisory_lock(%s)", (LOCK_ID,)).fetchone()
        if taken != (True,):
            raise RebuildRefused("another rebuild is running on this database")
        try:
            yield
        finally:
            if not self._connection.closed:
                # The end of the connection would do it, too, but a moment after ours.
                self._connection.execute("SELECT pg_advisory_unlock(%s)", (LOCK_ID,))

    def _one(self, instrument: Instrument) -> Outcome:
        symbol, listing = instrument.symbol, msgspec.json.encode(instrument).decode()
        # As a start of the API does. Where somebody has damaged it, the persister waits for it.
        self._client.hset(INSTRUMENTS, symbol, listing)
        try:
            return self._decide(instrument, book_history.positions(self._connection)[symbol])
        except book_history.BROKEN as error:
            return Outcome(symbol, is_well=False, text=f"cannot be rebuilt: {error}")
        except (BookMoves, Refused) as error:
            text = f"went on while it was looked at ({error}): begin again"
            return Outcome(symbol, is_well=False, text=text)

    def _decide(self, instrument: Instrument, position: int) -> Outcome:
        symbol, seen = instrument.symbol, self._look(instrument.symbol)
        if seen.sequence is None and position == 0:
            return self._open(instrument)
        if seen.sequence is not None and seen.sequence > position:
            return self._newer(instrument, position, seen.sequence, seen)
        state = book_history.state_at(self._connection, symbol, position)
        if seen == Seen(SCHEMA, position, is_fenced=False) and self._is_whole(state, seen):
            self._let_go(instrument)
            return _outcome(state, "nothing to do")
        halt = halts.announced(self._client, symbol)
        what = "rebuilt"
        if halt is not None and halt.acknowledged > position:
            what += f", without {position + 1} to {halt.acknowledged}, which clients were told of"
        return self._replace(instrument, state, seen.sequence or 0, what)

    def _is_whole(self, state: BookState, seen: Seen) -> bool:
        """Whether the book that was seen is this one, in every key."""
        try:
            difference = first_difference(self._client, state)
        except (ValueError, redis.ResponseError) as error:
            difference = f"what cannot be read: {error!r}"
        if difference is None and not self._follows(state.symbol, state.sequence):
            difference = "its newest event"
        now = self._look(state.symbol)
        if now != seen:
            raise BookMoves(f"{state.symbol} is at {now.sequence}")
        if difference is not None:
            told = {"instrument": state.symbol, "what": difference}
            log.warning("a book is not what its events make it", extra=told)
        return difference is None

    def _look(self, symbol: str) -> Seen:
        found: Any = self._client.hmget(book_keys(symbol).book, ["schema", "sequence", "fenced"])
        schema, sequence, fenced = (None if text is None else text.decode() for text in found)
        return Seen(schema, None if sequence is None else int(sequence), fenced is not None)

    def _open(self, instrument: Instrument) -> Outcome:
        """Nothing was ever written down of it, and there is no book."""
        state = book_history.first_state(self._connection, instrument.symbol)
        self._books.open(instrument.symbol, state.rules)
        self._let_go(instrument)
        return _outcome(state, "opened, empty")

    def _newer(self, instrument: Instrument, position: int, sequence: int, seen: Seen) -> Outcome:
        """Of a book that is beyond Postgres."""
        symbol, more = instrument.symbol, sequence - position
        halt = halts.announced(self._client, symbol)
        follows, is_ours = self._follows(symbol, position), seen.schema == SCHEMA
        is_lost = halt is not None and halt.code == halts.ACKNOWLEDGED_LOST
        if halt is not None and is_lost and follows and is_ours and seen.is_fenced:
            return self._reopen(symbol, halt)
        if self._discard_newer and (halt is not None or not follows):
            state = book_history.state_at(self._connection, symbol, position)
            return self._replace(instrument, state, sequence, f"rebuilt, {more} events discarded")
        if follows:
            text = f"has {more} events that Postgres has not: let the persister write them"
        else:
            text = (
                f"is at {sequence}, Postgres at {position}, and their events differ:"
                f" --discard-newer replaces it and gives up {more} events"
            )
        return Outcome(symbol, is_well=False, text=text)

    def _follows(self, symbol: str, position: int) -> bool:
        """Whether the stream has the very event that Postgres has at its position."""
        if position == 0:
            return True
        entry = f"{position}-0"
        found: Any = self._client.xrange(events_key(symbol), entry, entry)
        stored = stored_events(self._connection, symbol, [position]).get(position)
        if not found or stored is None:
            return False
        fields = {name.decode(): text.decode() for name, text in found[0][1].items()}
        ours = {name: fields.get(name, "") for name in (*EVENT_FIELDS, "detail")}
        return stored == ours

    def _reopen(self, symbol: str, halt: halts.Halt) -> Outcome:
        """What was lost is nowhere: the book that is there is the best that there is."""
        state = read_book(self._client, symbol)
        halts.give_up_lost(self._client, symbol)
        first, last = halt.sequence, halt.acknowledged
        return _outcome(state, f"open again, without {first} to {last}, which clients were told of")

    # Building

    def _replace(
        self, instrument: Instrument, state: BookState, replaces: int, what: str
    ) -> Outcome:
        building = Building(self._client, state)
        building.put_orders()
        building.put_events(self._window(state))
        uses = _Uses(self._connection, state, self._now_us(state) - self._ttl_us)
        building.put_uses(uses)
        self._end_persisters(state)
        building.install(self._books, replaces)
        self._let_go(instrument)
        halts.give_up_lost(self._client, state.symbol)
        if uses.without_fingerprint:
            what += f", {uses.without_fingerprint} idempotency keys of an older version left out"
        log.info("book rebuilt", extra={"instrument": state.symbol, "sequence": state.sequence})
        return _outcome(state, what)

    def _end_persisters(self, state: BookState) -> None:
        """One that stands still may have events of the book that is replaced in its hands, which
        would follow on the position when it goes on. Without its connection it has to look first.
        """
        self._connection.execute(
            "SELECT pg_terminate_backend(pid, %s) FROM pg_stat_activity"
            " WHERE application_name = %s AND datname = current_database()",
            (TERMINATE_TIMEOUT_MS, event_store.APPLICATION_NAME),
        )
        position = book_history.positions(self._connection)[state.symbol]
        if position != state.sequence:
            raise BookMoves(f"{state.symbol} was written down up to {position} meanwhile")

    def _now_us(self, state: BookState) -> int:
        """The clock that the book goes on with."""
        return max(redis_time_us(self._client), state.time_us)

    def _window(self, state: BookState) -> Iterator[Entry]:
        first = max(0, state.sequence - STREAM_WINDOW)
        for chunk in event_chunks(self._connection, state.symbol, first, state.sequence):
            yield from chunk

    def _let_go(self, instrument: Instrument) -> None:
        """The book is whole: withdraw what was said against it."""
        symbol = instrument.symbol
        halt = halts.announced(self._client, symbol)
        if halt is not None and halt.code in halts.FENCING:
            halts.give_up_lost(self._client, symbol)


class _Uses:
    """The idempotency keys used after `since_us`, oldest first, as place events tell them."""

    def __init__(self, connection: Connection, state: BookState, since_us: int) -> None:
        self._connection = connection
        self._state = state
        self._since_us = since_us
        self.without_fingerprint = 0

    def __iter__(self) -> Iterator[Use]:
        symbol, last = self._state.symbol, self._state.sequence
        for chunk in event_chunks(self._connection, symbol, self._last_too_old(), last):
            for entry in chunk:
                yield from self._of(entry)

    def _last_too_old(self) -> int:
        """The last sequence that is not after `since_us`, halving: times never go back."""
        old, young = 0, self._state.sequence + 1
        while young - old > 1:
            middle = (old + young) // 2
            event = stored_events(self._connection, self._state.symbol, [middle]).get(middle)
            if event is None:
                raise EventMissing(middle)
            if int(event["time"]) <= self._since_us:
                old = middle
            else:
                young = middle
        return old

    def _of(self, entry: Entry) -> Iterator[Use]:
        if entry.fields["type"] != EventType.PLACE:
            return
        order = parse_order_line(entry.fields["orders"].partition("\n")[0])
        if not order.idempotency_key:
            return
        if not entry.fields["detail"]:
            self.without_fingerprint += 1
            return
        name = f"{order.client_id}|{order.idempotency_key}"
        yield Use(name, entry.sequence, entry.fields["detail"], int(entry.fields["time"]))


def _outcome(state: BookState, text: str) -> Outcome:
    return Outcome(
        state.symbol, is_well=True, text=text, sequence=state.sequence, digest=state.digest()
    )
