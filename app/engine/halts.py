"""Halts: why nothing more of an instrument is taken or written down, until whatever is wrong is
mended. Announced in Redis, where readiness, metrics and redis-cli find it, and where the scripts
find that they have to refuse.

Two degrees: a *suspended* book takes no orders, and cancels pass, since its history is right. A
*fenced* book takes nothing at all: it lacks commands that were acknowledged, and whatever it
accepted now would be lost when it is rebuilt.
"""

import logging
from typing import Any, Final

import msgspec
import redis

from app.engine.floors import Standing
from app.engine.keys import HALTED, book_keys

log: Final = logging.getLogger("crossbook.halts")

CODES: Final = {
    # Found while looking where things stand.
    "instrument_unreadable": "what the hash `instruments` says of it cannot be read",
    "instrument_differs": "Postgres has another tick or lot size",
    "postgres_behind": "Postgres lacks events that it had: an old backup, or another database",
    "redis_behind": "Postgres has events that this Redis never had: Redis lost some",
    "diverged": "Redis and Postgres have different events: Redis went back in time",
    # Found while reading.
    "gap": "an entry is missing from the stream",
    "poison": "an entry cannot be read",
    "refused": "Postgres refuses the entry's rows",
    # Found by the API.
    "acknowledged_lost": "clients were told of commands that this Redis does not have",
}
FOUND_BEFORE_READING: Final = frozenset(
    {"instrument_unreadable", "instrument_differs", "postgres_behind", "redis_behind", "diverged"}
)
ACKNOWLEDGED_LOST: Final = "acknowledged_lost"
FENCING: Final = frozenset({"redis_behind", "diverged", ACKNOWLEDGED_LOST})
"""Codes by which the book itself is wrong."""

# Each in one step, so that a book that is lost in between leaves no hash that has nothing but
# these fields. The scripts look at `suspended`, and at `rebuilt`; `fenced` is for the reader.
_HALT: Final = """
local book = redis.call('HMGET', KEYS[1], 'schema', 'rebuilt', 'fenced')
if not book[1] or (ARGV[3] ~= '' and book[2] ~= ARGV[3]) then
  return
end
redis.call('HSET', KEYS[1], 'suspended', ARGV[1])
if ARGV[2] == '1' and book[3] ~= 'acknowledged_lost' then
  redis.call('HSET', KEYS[1], 'fenced', ARGV[1], 'rebuilt', 'fenced')
end
"""
_FENCE_IF_BEHIND: Final = """
local book = redis.call('HMGET', KEYS[1], 'schema', 'rebuilt', 'sequence')
local rebuilt, known = tonumber(book[2] or 0), tonumber(ARGV[2])
if not book[1] or not rebuilt or rebuilt > known
  or (rebuilt == known and tonumber(book[3]) >= tonumber(ARGV[3])) then
  return false
end
if ARGV[4] == '1' then
  redis.call('HSET', KEYS[1], 'suspended', ARGV[1], 'fenced', ARGV[1], 'rebuilt', 'fenced')
end
return book[3]
"""
# A book that was fenced is as good as rebuilt: whoever knew it has to look at it anew. Only an
# operator takes away a fence that ARGV 1 names.
_WITHDRAW: Final = """
if redis.call('HGET', KEYS[1], 'fenced') == ARGV[1] then
  return 0
end
if redis.call('HDEL', KEYS[1], 'fenced') == 1 then
  local now = redis.call('TIME')
  redis.call('HSET', KEYS[1], 'rebuilt', now[1] .. string.format('%06d', now[2]))
end
redis.call('HDEL', KEYS[1], 'suspended')
return 1
"""


class Halt(msgspec.Struct, frozen=True, omit_defaults=True):
    """One instrument's halt: `sequence` is the first event that is affected, `acknowledged` the
    last that clients were told of, where that is what is wrong.
    """

    instrument: str
    sequence: int
    code: str
    detail: str
    acknowledged: int = 0


def announce(client: redis.Redis, halt: Halt, judged: str = "") -> None:
    """Make it known to whoever looks, and stop trading in the instrument: what is accepted now
    might never be written down. `judged` is `rebuilt` of the book that was found wrong, empty for
    whichever is there: one that has been rebuilt meanwhile is left alone. What the API has found
    lost is not replaced: it says more.
    """
    known = announced(client, halt.instrument)
    if known is None or known.code != ACKNOWLEDGED_LOST:
        client.hset(HALTED, halt.instrument, msgspec.json.encode(halt).decode())
    is_fencing = "1" if halt.code in FENCING else ""
    client.eval(_HALT, 1, book_keys(halt.instrument).book, halt.code, is_fencing, judged)


def announce_lost(client: redis.Redis, symbol: str, known: Standing) -> Halt | None:
    """Fence a book that is below what is known of it; None where it is not any more, or is fenced
    already.
    """
    code, book = ACKNOWLEDGED_LOST, book_keys(symbol).book
    fence = (_FENCE_IF_BEHIND, 1, book, code, str(known.rebuilt), str(known.floor))
    sequence: Any = client.eval(*fence, "")
    if sequence is None:
        return None
    detail = f"Redis is at {int(sequence)}, and {known.floor} was acknowledged"
    halt = Halt(symbol, int(sequence) + 1, code, detail, known.floor)
    # Said before it is done: cut short in between, the next command finds the book still behind.
    client.hset(HALTED, symbol, msgspec.json.encode(halt).decode())
    client.eval(*fence, "1")
    return halt


def tell_lost(client: redis.Redis, symbol: str, known: Standing) -> None:
    """As `announce_lost`, for whoever only wants it done: it is logged, and tried again with the
    next command where Redis has gone away meanwhile.
    """
    try:
        halt = announce_lost(client, symbol, known)
    except redis.RedisError as error:
        log.warning("a book that is behind cannot be fenced now", extra={"error": repr(error)})
        return
    if halt:
        log.error("instrument takes nothing any more", extra=msgspec.structs.asdict(halt))


def announced(client: redis.Redis, symbol: str) -> Halt | None:
    """The halt that somebody announced, unless it was withdrawn."""
    text: Any = client.hget(HALTED, symbol)
    try:
        return None if text is None else msgspec.json.decode(text, type=Halt)
    except msgspec.MsgspecError:  # not ours; what it says is of no use
        return None


def withdraw(client: redis.Redis, symbol: str) -> bool:
    """Let the instrument be traded again, and make it known that it is persisted; False where the
    API has found what only an operator may give up.
    """
    return _withdraw(client, symbol, ACKNOWLEDGED_LOST)


def give_up_lost(client: redis.Redis, symbol: str) -> None:
    """As `withdraw`, by an operator's word, whatever was found."""
    _withdraw(client, symbol, "")


def _withdraw(client: redis.Redis, symbol: str, kept: str) -> bool:
    # The marks go first: cut short between the two, the next start finds what is left to do.
    if client.eval(_WITHDRAW, 1, book_keys(symbol).book, kept) == 0:
        return False
    client.hdel(HALTED, symbol)
    return True
