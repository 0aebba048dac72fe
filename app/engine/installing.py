"""Building a book in Redis from a state: key by key under names of its own, a bounded chunk at a
time, and then put in place at once by `lua/install_book.lua`. Must not know where states come from.
"""

from collections.abc import Iterable, Iterator, Mapping
from itertools import islice
from typing import Any, Final, NamedTuple, TypeVar

from redis import Redis

from app.domain.book_state import BookState
from app.domain.events import EVENT_FIELDS
from app.domain.orders import parse_record
from app.engine.book import Books
from app.engine.keys import PERSISTER_GROUP, book_keys, rebuild_keys
from app.engine.layout import field_of, settings_of, standing_of

CHUNK: Final = 500
"""Orders, fields or events of one write: bounds how long Redis, and whoever trades, waits."""

Item = TypeVar("Item")


class Use(NamedTuple):
    """One use of an idempotency key: `<client>|<key>`, by which command, for what, and when."""

    name: str
    number: int
    fingerprint: str
    time_us: int


class Building:
    """One book on its way. Whatever an attempt before it has left behind is dropped first."""

    def __init__(self, client: Redis, state: BookState) -> None:
        self._client = client
        self._state = state
        self._keys = rebuild_keys(state.symbol)
        client.unlink(*self._keys)

    def put_orders(self) -> None:
        """The book itself: settings, open orders, and where these are found."""
        for fields in _chunks(settings_of(self._state).items()):
            self._client.hset(self._keys.book, mapping=dict(fields))
        for timers in _chunks(self._state.timers.items()):
            self._client.zadd(self._keys.timers, dict(timers))
        for orders in _chunks(self._state.orders.items()):
            self._put_orders(orders)

    def _put_orders(self, orders: list[tuple[int, str]]) -> None:
        keys, pipe = self._keys, self._client.pipeline(transaction=False)
        sets: dict[str, dict[str, int]] = {}
        ids: Any = {}
        for number, text in orders:
            standing, field = standing_of(parse_record(number, text)), field_of(number)
            sets.setdefault(getattr(keys, standing.key), {})[standing.member] = standing.score
            sets.setdefault(keys.owners, {})[standing.owner] = 0
            if standing.client_order_id:
                ids[standing.client_order_id] = field
            if standing.expires_us is not None:
                sets.setdefault(keys.expiries, {})[field] = standing.expires_us
        records: Any = {field_of(number): text for number, text in orders}
        pipe.hset(keys.book, mapping=records)
        for key, members in sets.items():
            pipe.zadd(key, members)
        if ids:
            pipe.hset(keys.client_order_ids, mapping=ids)
        pipe.execute()

    def put_events(self, events: Iterable[tuple[int, Mapping[str, str]]]) -> None:
        """The newest events up to the book's own, oldest first: feeds resume from them, and the
        answers to idempotency keys are there.
        """
        for some in _chunks(events):
            pipe = self._client.pipeline(transaction=False)
            for sequence, fields in some:
                told: Any = {name: fields[name] for name in EVENT_FIELDS}
                if fields.get("detail"):
                    told["detail"] = fields["detail"]
                pipe.xadd(self._keys.events, told, id=f"{sequence}-0")
            pipe.execute()

    def put_uses(self, uses: Iterable[Use]) -> None:
        """Idempotency keys that were used, oldest first: the newest use of a key counts."""
        for some in _chunks(uses):
            records: Any = {
                use.name: f"{use.number}|{use.fingerprint}|{use.time_us}" for use in some
            }
            self._client.hset(self._keys.idempotency_0, mapping=records)

    def install(self, books: Books, replaces: int) -> None:
        """Put it in place of a book that is at sequence `replaces` at most; all of it is in
        Postgres, and all of what it is known by.

        Raises:
            Refused: `book_changed`: the present one is beyond that; it stays.
        """
        state, keys = self._state, self._keys
        before: Any = self._client.hget(book_keys(state.symbol).book, "rebuilt")
        now_us = redis_time_us(self._client)
        self._client.hset(
            keys.book,
            mapping={
                "committed": str(state.sequence),
                # Those who know the present book must see that it is another one.
                "rebuilt": str(max(now_us, int(before) + 1 if (before or b"").isdigit() else 0)),
                "idempotency_generation": "0",
                "idempotency_rotated": str(now_us),
            },
        )
        group = f"{state.sequence}-0"
        self._client.xgroup_create(keys.events, PERSISTER_GROUP, id=group, mkstream=True)
        books.install(state.symbol, keys, replaces)


def redis_time_us(client: Redis) -> int:
    """Redis's clock, µs since 1970."""
    now: Any = client.time()
    seconds, micros = now
    return int(seconds) * 1_000_000 + int(micros)


def _chunks(items: Iterable[Item]) -> Iterator[list[Item]]:
    iterator = iter(items)
    while chunk := list(islice(iterator, CHUNK)):
        yield chunk
