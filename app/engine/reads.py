"""What can be read of a book without a script: orders, rules, events, the tail of the stream, the
listing.

Every answer comes from Redis as it is now; what has left Redis is Postgres's to tell.
"""

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple, TypeAlias, cast

import msgspec
from redis import Redis
from redis.client import Pipeline
from redis.exceptions import LockError, RedisError

from app.domain.events import Event, parse_event
from app.domain.instruments import Instrument
from app.domain.orders import NUMBER_DIGITS, OrderRecord, parse_record
from app.domain.rules import RULE_FIELDS, Rules, parse_rules
from app.engine.executor import EngineUnavailable
from app.engine.keys import (
    HALTED,
    INSTRUMENTS,
    PERSISTER_GROUP,
    RULES_LOCK,
    SWEEPER_ALIVE,
    book_keys,
    events_key,
)

RedisReply: TypeAlias = Any
"""Whatever a command answers: bytes, numbers, lists of them, or None."""

MAX_TAIL_EVENTS = 100_000
"""Events that lists read from a stream's end at most: so far may Postgres be behind for them."""
TAIL_CHUNK = 500
"""Events read at a time: bounds how long Redis, and this process's other callers, wait."""

RULES_LOCK_S = 5.0
"""For which one change of rules keeps out others, unless it is done before; and for which another
one waits at most.
"""
AFTER_DIGITS = ":"
"""Sorts after every digit: `<client>|:` comes after all of a client's orders in the owners' index,
and before the next client's.
"""


class ServerState(NamedTuple):
    """What Redis says of itself. `memory_max_bytes` 0: no limit."""

    memory_used_bytes: int
    memory_max_bytes: int
    file_bytes: int
    """Of the append-only file."""
    clients: int
    commands: int
    """Carried out since it started."""
    is_file_written: bool
    is_replica: bool

    @property
    def why_read_only(self) -> str | None:
        """Why it takes no writes; None where it takes them."""
        if self.is_replica:
            return "it is a replica"
        if not self.is_file_written:
            return "its append-only file cannot be written"
        if self.memory_max_bytes and self.memory_used_bytes > self.memory_max_bytes:
            return "its memory is full"
        return None


class BookReads:
    """Reads of all books of one Redis. `client` must return bytes."""

    def __init__(self, client: "Redis") -> None:
        self._client = client

    def _call(self, *command: str | int) -> RedisReply:
        try:
            return self._client.execute_command(*command)
        except RedisError as error:
            raise EngineUnavailable(str(error)) from error

    def ping(self) -> None:
        """Raises EngineUnavailable where Redis does not answer."""
        self._call("PING")

    def run_id(self) -> str:
        """Of the Redis that answers: another one after each of its starts."""
        found: dict[str, Any] = self._call("INFO", "server")
        return str(found["run_id"])

    def why_read_only(self) -> str | None:
        """Why Redis takes no writes at present: its file cannot be written, its memory is full, or
        it is a replica. None where it takes them.
        """
        return self.server().why_read_only

    def server(self) -> ServerState:
        """What Redis says of itself."""
        found: dict[str, Any] = self._call("INFO")
        return ServerState(
            memory_used_bytes=int(found.get("used_memory", 0)),
            memory_max_bytes=int(found.get("maxmemory", 0)),
            file_bytes=int(found.get("aof_current_size", 0)),
            clients=int(found.get("connected_clients", 0)),
            commands=int(found.get("total_commands_processed", 0)),
            is_file_written=found.get("aof_last_write_status", "ok") == "ok",
            is_replica=found.get("role") == "slave",
        )

    def instrument(self, symbol: str) -> Instrument | None:
        """One listed instrument.

        Raises:
            EngineUnavailable: also where what is listed cannot be read.
        """
        found = self._call("HGET", INSTRUMENTS, symbol)
        if found is None:
            return None
        instrument = _readable(found)
        if instrument is None:
            raise EngineUnavailable(f"what is listed of {symbol} cannot be read")
        return instrument

    def instruments(self) -> list[Instrument]:
        """All listed instruments that can be read, by symbol. One that cannot keeps the others from
        nothing; the persister says that it is halted.
        """
        values = cast(list[bytes], self._call("HVALS", INSTRUMENTS))
        found = [instrument for instrument in map(_readable, values) if instrument]
        return sorted(found, key=lambda instrument: instrument.symbol)

    def announce(self, instrument: Instrument) -> None:
        """Make an instrument known to every process."""
        self._call("HSET", INSTRUMENTS, instrument.symbol, msgspec.json.encode(instrument).decode())

    def order(self, symbol: str, number: int) -> OrderRecord | None:
        """An order that is open, or over and not yet in Postgres."""
        record = self._call("HGET", book_keys(symbol).orders, f"{number:014d}")
        return None if record is None else parse_record(number, record.decode())

    def orders(self, symbol: str, numbers: Iterable[int]) -> list[OrderRecord]:
        """Those of `numbers` that Redis holds."""
        fields = [f"{number:014d}" for number in numbers]
        if not fields:
            return []
        records = self._call("HMGET", book_keys(symbol).orders, *fields)
        pairs = zip(fields, records, strict=True)
        return [parse_record(int(field), text.decode()) for field, text in pairs if text]

    def open_numbers(self, symbol: str, client_id: str, below: int, limit: int) -> list[int]:
        """Numbers of a client's open orders below `below`, newest first, at most `limit`."""
        members = self._call(
            "ZREVRANGEBYLEX",
            book_keys(symbol).owners,
            f"({client_id}|{below:014d}",
            f"[{client_id}|",
            "LIMIT",
            0,
            limit,
        )
        return [int(member[-NUMBER_DIGITS:]) for member in members]

    def next_owner(self, symbol: str, after: str | None) -> str | None:
        """The client with open orders that follows client `after` (None: the first), in the order
        of the owners' index, which is that of the bytes of `<client>|`.
        """
        start = "-" if after is None else f"({after}|{AFTER_DIGITS}"
        key = book_keys(symbol).owners
        members = self._call("ZRANGEBYLEX", key, start, "+", "LIMIT", 0, 1)
        return members[0].decode().rpartition("|")[0] if members else None

    def owned(self, symbols: Iterable[str], client_id: str) -> list[str]:
        """Those of `symbols` on which a client has open orders."""
        wanted = list(symbols)
        pipeline = self._client.pipeline(transaction=False)
        bounds = (f"[{client_id}|", f"({client_id}|{AFTER_DIGITS}")
        for symbol in wanted:
            pipeline.zrangebylex(book_keys(symbol).owners, *bounds, start=0, num=1)
        found = _all_good(self._execute(pipeline))
        return [symbol for symbol, members in zip(wanted, found, strict=True) if members]

    def rules(self, symbols: Iterable[str]) -> dict[str, Rules]:
        """The rules of each book that there is, as they hold now."""
        wanted = list(symbols)
        pipeline = self._client.pipeline(transaction=False)
        for symbol in wanted:
            pipeline.hmget(book_keys(symbol).book, ["schema", *RULE_FIELDS])
        found = _all_good(self._execute(pipeline))
        pairs = zip(wanted, found, strict=True)
        return {symbol: _rules(values) for symbol, (schema, *values) in pairs if schema}

    @contextmanager
    def changing_rules(self) -> Iterator[None]:
        """Keeps every other change of rules out for the block, so that none is lost between its
        reading and its writing.

        Raises:
            EngineUnavailable: Redis is away, or another change takes too long.
        """
        lock = self._client.lock(RULES_LOCK, timeout=RULES_LOCK_S, blocking_timeout=RULES_LOCK_S)
        try:
            with lock:
                yield
        except (LockError, RedisError) as error:
            raise EngineUnavailable(str(error)) from error

    def is_swept(self) -> bool:
        """Whether a sweeper has made a round lately."""
        return bool(self._call("EXISTS", SWEEPER_ALIVE))

    def event(self, symbol: str, sequence: int) -> Event | None:
        """One event, if the stream still holds it."""
        entry = f"{sequence}-0"
        found = self._entries("XRANGE", events_key(symbol), entry, entry)
        return _event(symbol, found[0]) if found else None

    def tail(self, symbol: str, after: int) -> Iterator[Event]:
        """Events after sequence `after`, newest first, read as they are asked for.

        Raises:
            EngineUnavailable: they are more than MAX_TAIL_EVENTS, or Redis is away.
        """
        newest = "+"
        for _ in range(MAX_TAIL_EVENTS // TAIL_CHUNK):
            found = self._entries(
                "XREVRANGE", events_key(symbol), newest, f"({after}-0", "COUNT", TAIL_CHUNK
            )
            yield from (_event(symbol, entry) for entry in found)
            if len(found) < TAIL_CHUNK:
                return
            newest = "(" + found[-1][0].decode()
        raise EngineUnavailable(f"Postgres is more than {MAX_TAIL_EVENTS} events behind {symbol}")

    def _entries(self, *command: str | int) -> list[tuple[bytes, dict[bytes, bytes]]]:
        return cast(list[tuple[bytes, dict[bytes, bytes]]], self._call(*command))

    def last_price(self, symbol: str) -> int | None:
        """Ticks at which a book traded last; None before its first trade."""
        found = self._call("HGET", book_keys(symbol).book, "last")
        return int(cast(bytes, found)) if found else None

    def depths(self, symbols: list[str]) -> dict[str, tuple[int, int]]:
        """Resting orders of each book: bids, asks."""
        pipeline = self._client.pipeline(transaction=False)
        for keys in map(book_keys, symbols):
            pipeline.zcard(keys.bids)
            pipeline.zcard(keys.asks)
        counts = self._execute(pipeline)
        return {symbol: (counts[2 * i], counts[2 * i + 1]) for i, symbol in enumerate(symbols)}

    def sequences(self, symbols: list[str]) -> dict[str, int]:
        """The sequence of each book that there is: how many commands it has accepted."""
        pipeline = self._client.pipeline(transaction=False)
        for keys in map(book_keys, symbols):
            pipeline.hget(keys.book, "sequence")
        found = zip(symbols, self._execute(pipeline), strict=True)
        return {symbol: int(text) for symbol, text in found if isinstance(text, bytes)}

    def stream_lengths(self, symbols: list[str]) -> dict[str, int]:
        """Events that each stream holds, committed or not."""
        pipeline = self._client.pipeline(transaction=False)
        for symbol in symbols:
            pipeline.xlen(events_key(symbol))
        found = zip(symbols, self._execute(pipeline), strict=True)
        return {symbol: length for symbol, length in found if isinstance(length, int)}

    def without_book(self, symbols: list[str]) -> list[str]:
        """Those of `symbols` whose book is not in Redis."""
        pipeline = self._client.pipeline(transaction=False)
        for symbol in symbols:
            pipeline.exists(book_keys(symbol).book)
        found = self._execute(pipeline)
        return [symbol for symbol, there in zip(symbols, found, strict=True) if there != 1]

    def crowded(self, symbols: list[str]) -> list[str]:
        """Those of `symbols` that take no orders because their events take too much memory."""
        pipeline = self._client.pipeline(transaction=False)
        for symbol in symbols:
            pipeline.hexists(book_keys(symbol).book, "crowded")
        found = self._execute(pipeline)
        return [symbol for symbol, marked in zip(symbols, found, strict=True) if marked == 1]

    def halted(self) -> dict[str, dict[str, object]]:
        """Instruments that the persister has given up on until an operator helps, with reasons."""
        found = cast(dict[bytes, bytes], self._call("HGETALL", HALTED))
        return {symbol.decode(): msgspec.json.decode(why) for symbol, why in found.items()}

    def lags(self, symbols: list[str]) -> dict[str, int]:
        """Events of each instrument that the persister has not committed yet."""
        pipeline = self._client.pipeline(transaction=False)
        for keys in map(book_keys, symbols):
            pipeline.hget(keys.book, "sequence")
            pipeline.xpending(keys.events, PERSISTER_GROUP)
            pipeline.xinfo_groups(keys.events)
        replies = self._execute(pipeline)
        return {symbol: _lag(*replies[3 * i : 3 * i + 3]) for i, symbol in enumerate(symbols)}

    @staticmethod
    def _execute(pipeline: Pipeline) -> list[RedisReply]:
        """Replies in order; a command that failed has its error for a reply."""
        try:
            return pipeline.execute(raise_on_error=False)
        except RedisError as error:
            raise EngineUnavailable(str(error)) from error


def _readable(listed: bytes) -> Instrument | None:
    try:
        return msgspec.json.decode(listed, type=Instrument)
    except msgspec.MsgspecError:
        return None


def _all_good(replies: list[RedisReply]) -> list[RedisReply]:
    """`replies`, none of which may be an error."""
    for reply in replies:
        if isinstance(reply, Exception):
            raise EngineUnavailable(str(reply)) from reply
    return replies


def _rules(values: list[bytes | None]) -> Rules:
    texts = (None if value is None else value.decode() for value in values)
    return parse_rules(dict(zip(RULE_FIELDS, texts, strict=True)))


def _event(symbol: str, entry: tuple[bytes, dict[bytes, bytes]]) -> Event:
    entry_id, fields = entry
    text = {name.decode(): value.decode() for name, value in fields.items()}
    return parse_event(symbol, entry_id.decode(), text)


def _lag(sequence: RedisReply, pending: RedisReply, groups: RedisReply) -> int:
    """Book's sequence less the last event committed: delivered, and no longer pending."""
    last = int(sequence or 0)
    if isinstance(groups, Exception) or isinstance(pending, Exception):
        return last  # no persister has ever looked at this stream
    own = next(group for group in groups if group["name"] == PERSISTER_GROUP.encode())
    delivered = _sequence_of(own["last-delivered-id"])
    if pending["pending"]:
        delivered = _sequence_of(pending["min"]) - 1
    return max(0, last - delivered)


def _sequence_of(entry_id: bytes) -> int:
    return int(entry_id.partition(b"-")[0])
