"""Where an instrument stands, and making Redis agree with it: done at the start, after every outage
and for a halted instrument now and then. The committed position is the truth; what a crash left
undone after its commit is done here.
"""

import redis

from app.domain.events import EVENT_FIELDS, parse_orders
from app.domain.instruments import Instrument
from app.domain.rules import Rules
from app.engine.halts import Halt
from app.persistence import event_store, event_stream
from app.persistence.event_store import Connection, Standing
from app.persistence.instruments import InstrumentDiffers, store_instrument
from app.persistence.rows import UNREADABLE, Entry, numbers_over


class Halted(Exception):
    """An instrument cannot be followed; carries why, and `rebuilt` of the book that was judged."""

    def __init__(self, halt: Halt) -> None:
        super().__init__(halt.detail)
        self.halt = halt
        self.judged = ""


def catch_up(client: redis.Redis, connection: Connection, instrument: Instrument) -> Standing:
    """Where one instrument stands in Postgres; the group's next entry is the one behind it.

    Raises:
        Halted: `postgres_behind`, `instrument_differs`, `redis_behind` or `diverged`.
        psycopg.Error, redis.RedisError: a server is away; nothing is lost by trying again.
    """
    judged = event_stream.rebuilt(client, instrument.symbol)
    try:
        return _catch_up(client, connection, instrument)
    except Halted as halted:
        halted.judged = judged
        raise


def _catch_up(client: redis.Redis, connection: Connection, instrument: Instrument) -> Standing:
    symbol = instrument.symbol
    _check_memory(client, connection, symbol)
    _check_sizes(connection, instrument)
    standing = event_store.standing(connection, instrument)
    position = standing.position
    group = event_stream.open_group(client, symbol)
    if group.last_sequence < position:
        detail = f"Redis is at {group.last_sequence}, Postgres at {position}"
        raise Halted(Halt(symbol, group.last_sequence + 1, "redis_behind", detail))
    if position:
        # From the first entry whose settling may have been cut short by a crash. The entry at the
        # position is always among them: it differs if Redis lost its latest and went on without.
        for chunk in event_stream.stretch(client, symbol, min(group.unsettled, position), position):
            _confirm(connection, symbol, chunk)
            over = [number for entry in chunk for number in _ended_by(symbol, entry)]
            event_stream.drop(client, symbol, [entry.sequence for entry in chunk], over, 0)
        event_stream.note_committed(client, symbol, position)
        event_stream.acknowledge_up_to(client, symbol, position)
    event_stream.seek(client, symbol, position)
    return standing


def _check_memory(client: redis.Redis, connection: Connection, symbol: str) -> None:
    """Whether this is the database that the book was written to: what was committed there has left
    Redis, so to go on with one that lacks it, or that never saw this book, would lose it. One that
    was restored from a backup may go on where the stream still has the event at its position, which
    proves that they are of the same history.
    """
    committed = event_stream.committed(client, symbol)
    position = event_store.positions(connection, [symbol]).get(symbol, 0)
    if position >= committed:
        return
    if position and event_stream.holds(client, symbol, position):
        return
    detail = f"Postgres is at {position}, and had {committed}"
    raise Halted(Halt(symbol, position + 1, "postgres_behind", detail))


def _check_sizes(connection: Connection, instrument: Instrument) -> None:
    try:
        store_instrument(connection, instrument, Rules())
    except InstrumentDiffers as difference:
        stored = difference.stored.instrument
        # Limits and rules may have been changed since; sizes never may.
        if (stored.tick_size, stored.lot_size) != (instrument.tick_size, instrument.lot_size):
            detail = f"stored with tick {stored.tick_size:f} and lot {stored.lot_size:f}"
            halt = Halt(instrument.symbol, 1, "instrument_differs", detail)
            raise Halted(halt) from difference


def _confirm(connection: Connection, symbol: str, entries: list[Entry]) -> None:
    stored = event_store.stored_events(connection, symbol, [entry.sequence for entry in entries])
    for entry in entries:
        ours = {name: entry.fields.get(name) for name in EVENT_FIELDS}
        ours["detail"] = entry.fields.get("detail", "")
        if stored.get(entry.sequence) != ours:
            detail = f"event {entry.sequence} is not the one that was written down"
            raise Halted(Halt(symbol, entry.sequence, "diverged", detail))


def _ended_by(symbol: str, entry: Entry) -> list[int]:
    try:
        return numbers_over(parse_orders(entry.fields["orders"]))
    except UNREADABLE as error:
        raise Halted(Halt(symbol, entry.sequence, "poison", repr(error))) from error
