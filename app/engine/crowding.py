"""The backlog's bound in bytes: sees how much memory the events of each book take, and marks a book
whose scripts are to take no new orders, while there is room for the cancels that pass. Must not
know who lets events go; the bound on their number is the scripts' own (lua/lib/intake.lua).
"""

import logging
from collections.abc import Sequence
from typing import Any, Final

import redis

from app.engine.keys import book_keys

log: Final = logging.getLogger("crossbook.crowding")

MAX_BACKLOG_BYTES: Final = 512 * 2**20
"""Of one book's stream; a million usual events take 350 MB."""
MEMORY_SHARE_MAX: Final = 0.9
"""Of Redis's `maxmemory`, where there is one: beyond all of it cancels would be refused, too."""
RELIEF: Final = 0.9
"""A mark is taken away below this share of a bound, so that it does not come and go."""
BOOKS_PER_LOOK: Final = 128
"""Bounds what one look asks of Redis; with more books, each has its turn less often."""

# One step, so that a book that is lost in between leaves no hash that has nothing but this field.
_MARK: Final = """
if ARGV[1] == '' then
  redis.call('HDEL', KEYS[1], 'crowded')
elseif redis.call('HEXISTS', KEYS[1], 'schema') == 1 then
  redis.call('HSET', KEYS[1], 'crowded', ARGV[1])
end
"""


class Crowding:
    """Looks at the books in turn. Several at once do no harm."""

    def __init__(
        self,
        client: redis.Redis,
        bytes_max: int = MAX_BACKLOG_BYTES,
        books_per_look: int = BOOKS_PER_LOOK,
    ) -> None:
        self._client = client
        self._bytes_max = bytes_max
        self._books_per_look = books_per_look
        self._next = 0

    def look(self, symbols: Sequence[str]) -> None:
        """Mark those of the next books that are crowded, and take the mark from those that are not
        any more.

        Raises:
            redis.RedisError, OSError: Redis is away; marks stay as they are.
        """
        some = self._turn(symbols)
        pipe = self._client.pipeline(transaction=False)
        pipe.info("memory")
        for symbol in some:
            keys = book_keys(symbol)
            pipe.memory_usage(keys.events)
            pipe.hget(keys.book, "crowded")
        memory, *found = pipe.execute(raise_on_error=False)
        share = _share(memory)
        for symbol, size, mark in zip(some, found[::2], found[1::2], strict=True):
            # A book whose keys somebody has damaged keeps no other from its turn.
            if not isinstance(size, redis.RedisError) and not isinstance(mark, redis.RedisError):
                self._mark(symbol, size or 0, share, is_marked=mark is not None)

    def _turn(self, symbols: Sequence[str]) -> Sequence[str]:
        if self._next >= len(symbols):
            self._next = 0
        some = symbols[self._next : self._next + self._books_per_look]
        self._next += len(some)
        return some

    def _mark(self, symbol: str, size_bytes: int, share: float, *, is_marked: bool) -> None:
        fullness = max(size_bytes / self._bytes_max, share / MEMORY_SHARE_MAX)
        if is_marked == (fullness > (RELIEF if is_marked else 1)):
            return
        value = "" if is_marked else str(size_bytes)
        self._client.eval(_MARK, 1, book_keys(symbol).book, value)
        words = "orders are taken again" if is_marked else "no orders are taken: memory is short"
        details = {
            "instrument": symbol,
            "stream_bytes": size_bytes,
            "memory_share": round(share, 3),
        }
        log.warning(words, extra=details)


def _share(memory: dict[str, Any] | redis.RedisError) -> float:
    if isinstance(memory, redis.RedisError):
        raise memory
    limit = int(memory.get("maxmemory", 0))
    return int(memory["used_memory"]) / limit if limit else 0.0
