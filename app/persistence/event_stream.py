"""The persister's side of Redis: its consumer group, reading, and dropping what is committed. Must
not know Postgres. The positions that it is told are the truth; the group only mirrors them.
"""

from collections.abc import Iterable, Iterator, Sequence
from itertools import islice
from typing import Any, Final, NamedTuple

import redis
from redis.backoff import NoBackoff
from redis.retry import Retry

from app.domain.orders import NUMBER_DIGITS
from app.engine.keys import (
    INSTRUMENTS,
    PERSISTER_GROUP,
    book_keys,
    events_key,
    symbol_of,
)
from app.persistence.rows import Delivery, Entry

CONSUMER: Final = "persister"
"""One name for whoever is the persister: a restarted one finds the group as it was left."""

CONNECT_TIMEOUT_S: Final = 5
ANSWER_TIMEOUT_S: Final = 10
"""Longer than any read blocks."""
CHUNK_ENTRIES: Final = 500
"""Entries, ids or fields that one command takes or returns outside the normal reading."""

COMMITTED: Final = "committed"
"""Field of the book hash: the last sequence that is committed, which tells scripts the backlog."""

# One step, so that a book that is lost in between leaves no hash that has nothing but this field.
# A persister that was overtaken by another takes nothing back.
_NOTE_COMMITTED: Final = """
local book = redis.call('HMGET', KEYS[1], 'schema', ARGV[1])
if book[1] and tonumber(book[2] or 0) < tonumber(ARGV[2]) then
  redis.call('HSET', KEYS[1], ARGV[1], ARGV[2])
end
"""


class GroupState(NamedTuple):
    """Where a book and the persister's group on its stream stand. `unsettled` is the first entry
    that was delivered and not acknowledged, or comes after the last one delivered.
    """

    last_sequence: int
    unsettled: int


def connect(redis_url: str) -> redis.Redis:
    """A client that never repeats a command on its own: after any trouble the persister looks
    first where things stand. Malformed UTF-8 arrives as surrogates, to be refused later by name.
    """
    return redis.Redis.from_url(
        redis_url,
        protocol=2,
        decode_responses=True,
        encoding_errors="surrogateescape",
        socket_connect_timeout=CONNECT_TIMEOUT_S,
        socket_timeout=ANSWER_TIMEOUT_S,
        retry=Retry(NoBackoff(), 0),
    )


def listed_instruments(client: redis.Redis) -> dict[str, str]:
    """Symbol -> JSON of each instrument whose book this Redis holds."""
    listed: Any = client.hgetall(INSTRUMENTS)
    return dict(listed)


def open_group(client: redis.Redis, symbol: str) -> GroupState:
    """Make the group unless it is there, and say where it stands."""
    stream = events_key(symbol)
    _make_group(client, stream)
    sequence: Any = client.hget(book_keys(symbol).book, "sequence")
    last: Any = client.xrevrange(stream, count=1)
    last_sequence = max(int(sequence or 0), _sequence(last[0][0]) if last else 0)
    return GroupState(last_sequence, min(_undelivered(client, stream), _pending(client, stream)))


def _make_group(client: redis.Redis, stream: str) -> None:
    """Only where it is missing: a Redis whose memory is full refuses to look whether it is."""
    groups: Any = client.xinfo_groups(stream) if client.exists(stream) else []
    if any(group["name"] == PERSISTER_GROUP for group in groups):
        return
    try:
        client.xgroup_create(stream, PERSISTER_GROUP, id="0", mkstream=True)
    except redis.ResponseError as error:
        if not str(error).startswith("BUSYGROUP"):
            raise


def _undelivered(client: redis.Redis, stream: str) -> int:
    groups: Any = client.xinfo_groups(stream)
    last = next(g["last-delivered-id"] for g in groups if g["name"] == PERSISTER_GROUP)
    return _sequence(last) + 1


def _pending(client: redis.Redis, stream: str) -> int:
    summary: Any = client.xpending(stream, PERSISTER_GROUP)
    return _sequence(summary["min"]) if summary["pending"] else 2**63


def seek(client: redis.Redis, symbol: str, position: int) -> None:
    """Let the group go on behind `position`, whatever it was delivered before."""
    stream = events_key(symbol)
    state: Any = client.xinfo_stream(stream)
    added = state.get("entries-added")  # since Redis 7.0; XINFO GROUPS can tell the lag by it
    behind = max(0, _sequence(state["last-generated-id"]) - position)
    read = max(0, added - behind) if added is not None else None
    client.xgroup_setid(stream, PERSISTER_GROUP, f"{position}-0", entries_read=read)


def acknowledge_up_to(client: redis.Redis, symbol: str, position: int) -> None:
    """Clear the group's list of what was delivered, as far as it is committed."""
    stream = events_key(symbol)
    while True:
        pending: Any = client.xpending_range(
            stream, PERSISTER_GROUP, min="-", max=f"{position}-0", count=CHUNK_ENTRIES
        )
        if not pending:
            return
        client.xack(stream, PERSISTER_GROUP, *(entry["message_id"] for entry in pending))


def read(client: redis.Redis, symbols: Iterable[str], count: int, block_ms: int) -> Delivery:
    """Up to `count` new entries of each stream; waits up to `block_ms` for the first."""
    streams: Any = dict.fromkeys(map(events_key, symbols), ">")
    answer: Any = client.xreadgroup(PERSISTER_GROUP, CONSUMER, streams, count, block_ms)
    return {symbol_of(stream): _entries(raw) for stream, raw in answer}


def stretch(client: redis.Redis, symbol: str, first: int, last: int) -> Iterator[list[Entry]]:
    """The retained entries from sequence `first` to `last`, in chunks."""
    end, low = f"{last}-18446744073709551615", f"{first}-0"
    while True:
        raw: Any = client.xrange(events_key(symbol), low, end, CHUNK_ENTRIES)
        if not raw:
            return
        yield _entries(raw)
        low = f"({raw[-1][0]}"


def holds(client: redis.Redis, symbol: str, sequence: int) -> bool:
    """Whether the stream still has that entry."""
    entry_id = f"{sequence}-0"
    return bool(client.xrange(events_key(symbol), entry_id, entry_id))


def committed(client: redis.Redis, symbol: str) -> int:
    """How far the book was told that it is committed; 0 where it was told nothing."""
    sequence: Any = client.hget(book_keys(symbol).book, COMMITTED)
    return int(sequence or 0)


NO_BOOK: Final = "none"
"""Instead of when a book was made: whichever is made meanwhile is another one."""


def rebuilt(client: redis.Redis, symbol: str) -> str:
    """When the book was made, as it says; empty where it does not, NO_BOOK where there is none."""
    book: Any = client.hmget(book_keys(symbol).book, ["schema", "rebuilt"])
    schema, when = book
    return str(when or "") if schema else NO_BOOK


def note_committed(client: redis.Redis, symbol: str, sequence: int) -> None:
    """Let the book know how far it is committed, if there is a book; it never goes back. Where
    memory is full it hears of it later: what makes room must not wait for it.
    """
    try:
        client.eval(_NOTE_COMMITTED, 1, book_keys(symbol).book, COMMITTED, str(sequence))
    except redis.ResponseError as error:
        # redis-py knows the word of Redis 7, at the beginning, and takes it off.
        if not isinstance(error, redis.OutOfMemoryError) and "OOM" not in str(error):
            raise


def drop(
    client: redis.Redis, symbol: str, sequences: Sequence[int], over: list[int], keep_from: int
) -> None:
    """Drop what is committed, up to the last of `sequences`, and let the book know of it: orders
    that are over, entries before `keep_from`, and last the mark that these `sequences` are being
    worked on, which is what a restart finds its work by.
    """
    keys = book_keys(symbol)
    pipe = client.pipeline(transaction=False)
    for numbers in _chunks(over):
        pipe.hdel(keys.orders, *(f"{number:0{NUMBER_DIGITS}d}" for number in numbers))
    if keep_from > 1:
        pipe.xtrim(keys.events, minid=f"{keep_from}-0", approximate=True)
    for acknowledged in _chunks(sequences):
        pipe.xack(keys.events, PERSISTER_GROUP, *(f"{n}-0" for n in acknowledged))
    note_committed(client, symbol, sequences[-1])
    pipe.execute()


def _chunks(numbers: Iterable[int]) -> Iterator[list[int]]:
    iterator = iter(numbers)
    while chunk := list(islice(iterator, CHUNK_ENTRIES)):
        yield chunk


def _sequence(entry_id: str) -> int:
    return int(entry_id.partition("-")[0])


def _entries(raw: list[tuple[str, dict[str, str]]]) -> list[Entry]:
    return [_entry(entry_id, fields) for entry_id, fields in raw]


def _entry(entry_id: str, fields: dict[str, str]) -> Entry:
    sequence, _, part = entry_id.partition("-")
    return Entry(int(sequence), fields if part == "0" else {})
