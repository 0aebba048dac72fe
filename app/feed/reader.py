"""The one reader of Redis in a process: follows all streams that its hub wants with one XREAD.

Reads only. Redis away: it tries again, ever more slowly up to a limit, and goes on after the last
sequence that was seen. Must not know subscribers or messages.
"""

import logging
import time
from collections.abc import Callable, Iterable, Sequence
from threading import Event
from typing import Any, Protocol, cast

from redis import BlockingConnectionPool, Redis
from redis.backoff import NoBackoff
from redis.exceptions import RedisError
from redis.retry import Retry

from app.backoff import delay_s
from app.engine.keys import book_keys, events_key, symbol_of
from app.feed import metrics
from app.feed.instrument_feed import Entry
from app.feed.replica import Page, Replica

BLOCK_MS = 50
"""How long XREAD waits for news, and so the longest that a subscription to an instrument nobody
followed yet waits for the reader. 20 empty reads a second cost Redis less than a thousandth."""
READ_ENTRIES_MAX = 128
"""Entries of each stream taken at once: bounds how long other work of the process waits."""
SCAN_FIELDS = 1_000
"""Fields of a book's hash that Redis looks at in one step of a scan, well below a millisecond."""
LEVEL_FIELDS = "[ab]*:*"
"""Of them only levels are sent, `bid:<ticks>` and `ask:<ticks>`, and not the orders' records."""
CHECK_S = 1.0
"""How often positions are held against the books themselves."""
RETRY_S_MIN = 0.05
RETRY_S_MAX = 1.0
CONNECTIONS_MAX = 8
"""The reader's own, and some for sockets that subscribe at the same moment."""
SOCKET_TIMEOUT_S = 5.0
"""Far above BLOCK_MS: only a Redis that is gone is silent for so long."""

_logger = logging.getLogger(__name__)


class Following(Protocol):
    """What the reader asks of the hub, and tells it. See `app.feed.hub.Hub`."""

    def positions(self) -> dict[str, int]: ...
    def loads(self) -> dict[str, Replica]: ...
    def page(self, symbol: str, replica: Replica, page: Page) -> None: ...
    def deliver(self, symbol: str, after: int, entries: Iterable[Entry]) -> None: ...
    def restart(self, symbol: str, sequence: int) -> None: ...
    def reload(self) -> None: ...


def connect(url: str) -> "Redis":
    """A client fit for a hub: text answers, and no silent repeats, for a scan's cursor is void
    after a reconnection and the reader has to know of each."""
    pool = BlockingConnectionPool.from_url(
        url,
        max_connections=CONNECTIONS_MAX,
        timeout=SOCKET_TIMEOUT_S,
        decode_responses=True,
        socket_timeout=SOCKET_TIMEOUT_S,
        socket_connect_timeout=SOCKET_TIMEOUT_S,
        retry=Retry(NoBackoff(), 0),
    )
    return Redis.from_pool(pool)


def read_sequences(client: "Redis", symbols: Sequence[str]) -> dict[str, int | None]:
    """The last sequence of each book; None where Redis has no such book."""
    if not symbols:
        return {}
    pipeline = client.pipeline(transaction=False)
    for symbol in symbols:
        pipeline.hget(book_keys(symbol).book, "sequence")
    found = cast(list[str | None], pipeline.execute())
    pairs = zip(symbols, found, strict=True)
    return {symbol: None if text is None else int(text) for symbol, text in pairs}


def read_after(client: "Redis", symbol: str, sequence: int) -> list[Entry]:
    """What the stream has after `sequence`, at most READ_ENTRIES_MAX entries."""
    found = client.xrange(events_key(symbol), f"{sequence + 1}-0", "+", READ_ENTRIES_MAX)
    return cast(list[Entry], found)


def _read_rebuilt(client: "Redis", symbols: Sequence[str]) -> dict[str, str | None]:
    pipeline = client.pipeline(transaction=False)
    for symbol in symbols:
        pipeline.hget(book_keys(symbol).book, "rebuilt")
    return dict(zip(symbols, cast(list[str | None], pipeline.execute()), strict=True))


class StreamReader:
    """Follows for `hub` until stopped. `clock` gives seconds, monotonic."""

    def __init__(self, client: "Redis", hub: Following, clock: Callable[[], float]) -> None:
        self._pool_client = client
        self._hub = hub
        self._clock = clock
        self._wanted = Event()
        self._stopped = Event()
        self._client: Redis | None = None
        self._failures = 0
        self._check_at = 0.0
        self._rebuilt: dict[str, str | None] = {}
        """When each book was made, as it said at the last check."""
        self._behind: dict[str, int] = {}
        """Where feeds were that the last check found behind their books."""

    def wake(self) -> None:
        """Something is followed now."""
        self._wanted.set()

    def stop(self) -> None:
        """End `run` within a few BLOCK_MS."""
        self._stopped.set()
        self._wanted.set()

    def run(self) -> None:
        """Follow until `stop`."""
        while not self._stopped.is_set():
            try:
                self.turn()
            except (RedisError, OSError) as error:
                self._lost(str(error))
            except Exception:
                _logger.exception("a defect of the feed")
                self._lost("defect")

    def _lost(self, why: str) -> None:
        self._failures += 1
        pause_s = delay_s(self._failures, RETRY_S_MIN, RETRY_S_MAX)
        details = {"detail": why, "retry_s": pause_s}
        _logger.warning("the feed cannot read from Redis", extra=details)
        self._hub.reload()
        self._check_at = 0.0
        self._behind = {}
        self._stopped.wait(pause_s)

    def turn(self) -> None:
        """Read once: a page of each book that is being loaded, and what the streams have.

        Raises:
            RedisError, OSError: Redis is away.
        """
        self._wanted.clear()
        positions = self._hub.positions()
        if not positions:
            self._behind = {}
            self._wanted.wait()
            return
        client = self._connected()
        self._check(client, positions)
        self._load(client)
        self._read(client, self._hub.positions())
        self._failures = 0
        # Under gevent a read that need not wait lets nobody else run; this does.
        time.sleep(0)

    def _connected(self) -> Redis:
        """A connection of its own: one from a pool is replaced without a word when it broke."""
        if self._client is None:
            self._client = cast(Any, self._pool_client).client()
        return self._client

    def _read(self, client: "Redis", positions: dict[str, int]) -> None:
        if not positions:
            return
        streams = {events_key(symbol): f"{last}-0" for symbol, last in positions.items()}
        block = None if self._hub.loads() else BLOCK_MS
        reply = client.xread(cast(Any, streams), count=READ_ENTRIES_MAX, block=block)
        for key, entries in cast(list[tuple[str, list[Entry]]], reply):
            symbol = symbol_of(key)
            self._hub.deliver(symbol, positions[symbol], entries)

    def _load(self, client: "Redis") -> None:
        """Read the next page of each book that is not read yet."""
        for symbol, replica in self._hub.loads().items():
            key = book_keys(symbol).book
            # Not a pipeline: redis-py takes a connection from the pool for one.
            cursor, fields = client.hscan(key, replica.cursor, LEVEL_FIELDS, SCAN_FIELDS)
            sequence = int(client.hget(key, "sequence") or 0)
            page = Page(cursor, cast(dict[str, str], fields), sequence)
            self._hub.page(symbol, replica, page)

    def _check(self, client: "Redis", positions: dict[str, int]) -> None:
        """Compare positions with the books: a history that went back (a failover lost events), or
        events that the stream does not hold, would otherwise pass for silence."""
        if self._clock() < self._check_at:
            return
        before, self._behind = self._behind, {}
        known, self._rebuilt = self._rebuilt, _read_rebuilt(client, tuple(positions))
        for symbol, sequence in read_sequences(client, tuple(positions)).items():
            if sequence is None:
                continue
            if known.get(symbol, self._rebuilt[symbol]) != self._rebuilt[symbol]:
                # Of another history, also where its sequences seem to follow.
                self._hub.restart(symbol, sequence)
            else:
                self._compare(symbol, positions[symbol], sequence, before)
        self._check_at = self._clock() + CHECK_S

    def _compare(self, symbol: str, seen: int, sequence: int, before: dict[str, int]) -> None:
        metrics.LAG_EVENTS.labels(symbol).set(max(0, sequence - seen))
        if sequence > seen:
            self._behind[symbol] = seen
        # The turns since the check before took all that the stream had, and led nowhere.
        is_stuck = sequence > seen and before.get(symbol) == seen
        if is_stuck or sequence < seen:
            self._hub.restart(symbol, sequence)
