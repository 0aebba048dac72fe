"""How a book lies in Redis, seen from outside the scripts: which fields, members and scores a state
amounts to, and the state that lies there. The mirror of `lua/lib`: order, sides, stops, owners and
indexes. Rebuilding writes by it, audits compare with it. lua/README.md describes the keys.
"""

from collections.abc import Iterator
from typing import Any, Final, NamedTuple

from redis import Redis

from app.domain.book_state import BookState, Inconsistent, position_of
from app.domain.orders import NUMBER_DIGITS, OrderRecord, parse_record
from app.domain.rules import RULE_FIELDS, parse_rules, rule_texts
from app.engine.keys import BookKeys, book_keys

SCHEMA: Final = "3"
"""The layout that this module knows: that of `lua/lib/standing.lua`."""
SCAN_COUNT: Final = 1_000
"""Fields or members that one step of reading a book takes: some hundred microseconds of Redis."""
READ_ATTEMPTS: Final = 5
"""How often a book that changes while it is read is read again."""

STATE_FIELDS: Final = frozenset(
    {"schema", "sequence", "time", "last", "pending", "trigger_low", "trigger_high", *RULE_FIELDS}
)
"""Fields of the book's hash that a state determines, beside those named after levels, clients and
orders.
"""
PROCESS_FIELDS: Final = frozenset(
    {
        *("committed", "crowded", "suspended", "fenced", "rebuilt"),
        *("idempotency_generation", "idempotency_rotated"),
    }
)
"""Fields that say what goes on around the book, which no state knows."""

SIDES: Final = {
    "bid": "bids",
    "ask": "asks",
    "buy_stop": "buy_stops",
    "sell_stop": "sell_stops",
}
"""Kind of an open order -> the key, by its name in BookKeys, of the set that it is in."""


class BookMoves(Exception):
    """The book changed each time that it was read."""


class Standing(NamedTuple):
    """Where one open order is found besides its record."""

    key: str
    """Of the four sorted sets, by its name in BookKeys."""
    member: str
    score: int
    owner: str
    client_order_id: str
    """`<client>|<client order id>`, or empty."""
    expires_us: int | None


def standing_of(order: OrderRecord) -> Standing:
    """Where an open order is found."""
    kind, score, member = position_of(order)
    return Standing(
        SIDES[kind],
        member,
        score,
        f"{order.client_id}|{field_of(order.number)}",
        f"{order.client_id}|{order.client_order_id}" if order.client_order_id else "",
        order.expires_us,
    )


def field_of(number: int) -> str:
    """The field of an order's record, which is its member of `expiries`, too."""
    return f"{number:0{NUMBER_DIGITS}d}"


def settings_of(state: BookState) -> dict[str, str]:
    """The fields of the book's hash but for its orders; those in PROCESS_FIELDS come on top."""
    low, high = state.waiting or ("", "")
    fields = {
        "schema": SCHEMA,
        "sequence": str(state.sequence),
        "time": str(state.time_us or ""),
        "last": "" if state.last_ticks is None else str(state.last_ticks),
        "pending": str(state.pending or ""),
        "trigger_low": str(low),
        "trigger_high": str(high),
        **rule_texts(state.rules),
        **{f"open:{client}": str(count) for client, count in state.open_counts.items()},
        **{f"killed:{client}": "1" for client in state.killed},
        **{level: str(total) for level, total in state.levels.items()},
    }
    return {name: text for name, text in fields.items() if text}


def read_book(client: Redis, symbol: str) -> BookState:
    """The state that lies in Redis, of one moment: read again where it changed meanwhile. `client`
    must return bytes. Only what the text of a book has is read, from the book's hash and `timers`;
    whether the other keys agree with it is an audit's to say.

    Raises:
        Inconsistent: what lies there is no book. BookMoves: it never stood still.
    """
    for _ in range(READ_ATTEMPTS):
        before = _sequence(client, symbol)
        state = _read(client, symbol)
        if _sequence(client, symbol) == before == state.sequence:
            return state
    raise BookMoves(f"{symbol} changed {READ_ATTEMPTS} times while it was read")


def _sequence(client: Redis, symbol: str) -> int | None:
    text: Any = client.hget(book_keys(symbol).book, "sequence")
    return None if text is None else int(text)


def _read(client: Redis, symbol: str) -> BookState:
    keys = book_keys(symbol)
    fields = dict(_fields(client, keys))
    try:
        state = BookState(symbol, parse_rules({name: fields.get(name) for name in RULE_FIELDS}))
        state.sequence, state.time_us = int(fields["sequence"]), int(fields.get("time", "0"))
        state.last_ticks = int(fields["last"]) if "last" in fields else None
    except (ValueError, KeyError, ArithmeticError) as error:
        raise Inconsistent(f"{symbol} has no book: {error!r}") from error
    state.killed = {name.partition(":")[2] for name in fields if name.startswith("killed:")}
    state.timers = _timers(client, keys)
    low, high = (int(fields.get(name, default)) for name, default in _NOTHING_WAITS.items())
    for name, text in fields.items():
        if name.isdigit() and parse_record(int(name), text).is_open:
            order = state.add(int(name), text)
            if _waits(order, low, high):
                state.wait(order)
    return state


_NOTHING_WAITS: Final = {"trigger_low": 2**53, "trigger_high": 0}


def _waits(order: OrderRecord, low: int, high: int) -> bool:
    """STP-2."""
    kind, score, _ = position_of(order)
    return (kind == "buy_stop" and score <= high) or (kind == "sell_stop" and -score >= low)


def first_difference(client: Redis, state: BookState) -> str | None:
    """What of a book that lies in Redis, and does not change, is not as `state` lays it out; None
    where all is. Orders that are over do not count, nor a range that outlasts stops that waited.
    """
    keys = book_keys(state.symbol)
    found = _hash_difference(client, keys, state)
    for name in (*SIDES.values(), "owners", "expiries"):
        found = found or _set_difference(client, name, getattr(keys, name), state)
    if not found and _timers(client, keys) != state.timers:
        found = "timers"
    if not found and _client_order_ids(client, keys) != state.client_order_ids:
        found = "client_order_ids"
    if not found and _last_event(client, keys) > state.sequence:
        found = "events beyond its own"
    return found


def _timers(client: Redis, keys: BookKeys) -> dict[str, int]:
    found = client.zscan_iter(keys.timers, count=SCAN_COUNT)
    return {name.decode(): int(due_us) for name, due_us in found}


def _client_order_ids(client: Redis, keys: BookKeys) -> dict[str, int]:
    found = client.hscan_iter(keys.client_order_ids, count=SCAN_COUNT)
    return {own.decode(): int(number) for own, number in found}


def _last_event(client: Redis, keys: BookKeys) -> int:
    """Of the stream, in whosever hand it is; 0 where there is none."""
    entries: Any = client.xrevrange(keys.events, count=1)
    return int(entries[0][0].partition(b"-")[0]) if entries else 0


def _hash_difference(client: Redis, keys: BookKeys, state: BookState) -> str | None:
    settings, orders = settings_of(state), 0
    ignored = PROCESS_FIELDS | (set() if state.waiting else {"trigger_low", "trigger_high"})
    seen: set[str] = set()
    for name, text in _fields(client, keys):
        if name.isdigit() and int(name) in state.orders:
            orders += name not in seen
            if text != state.orders[int(name)]:
                return f"order {name}"
        elif name.isdigit():
            if parse_record(int(name), text).is_open:
                return f"order {name}"
            continue
        elif name not in ignored and settings.get(name) != text:
            return f"field {name}"
        seen.add(name)
    missing = settings.keys() - seen
    return f"field {min(missing)}" if missing else None if orders == len(state.orders) else "orders"


def _set_difference(client: Redis, name: str, key: str, state: BookState) -> str | None:
    """Every member must be one that its order has there; as many as there are orders that do."""
    seen = set()
    for member, score in client.zscan_iter(key, count=SCAN_COUNT):
        number = int(member[-NUMBER_DIGITS:])
        text = state.orders.get(number)
        if text is None or _entry(name, parse_record(number, text)) != (member.decode(), score):
            return f"{name} {member.decode()}"
        seen.add(number)
    orders = (parse_record(number, text) for number, text in state.orders.items())
    expected = sum(_entry(name, order) is not None for order in orders)
    return None if len(seen) == expected else name


def _entry(name: str, order: OrderRecord) -> tuple[str, float] | None:
    """Member and score that an order has in the sorted set `name`, if any."""
    standing = standing_of(order)
    if name == "owners":
        return standing.owner, 0
    if name == "expiries":
        due_us = standing.expires_us
        return None if due_us is None else (field_of(order.number), due_us)
    return (standing.member, standing.score) if standing.key == name else None


def _fields(client: Redis, keys: BookKeys) -> Iterator[tuple[str, str]]:
    for name, text in client.hscan_iter(keys.book, count=SCAN_COUNT):
        yield name.decode(), text.decode()
