"""Building a book beside the present one and putting it in place: all of it or nothing, and never
over a book that has gone on.
"""

import random
from collections.abc import Iterator
from itertools import islice
from typing import Any

import fakeredis
import pytest
from redis import Redis

from app.domain.book_state import BookState
from app.domain.refusals import Refusal
from app.domain.rules import Rules
from app.engine.book import Books
from app.engine.commands import Refused
from app.engine.executor import DirectExecutor
from app.engine.installing import CHUNK, Building, Use
from app.engine.keys import book_keys, rebuild_keys
from app.engine.layout import first_difference, read_book
from tests import tapes
from tests.differential import KINDS, PipelinedVenue, Tape
from tests.reference import START_US
from tests.unit.test_book_state import history
from tests.venue import SYMBOL, TTL_S

KEYS, BUILT = book_keys(SYMBOL), rebuild_keys(SYMBOL)
EVENT = {"type": "place", "time": "7", "orders": "x", "fills": "", "levels": ""}


@pytest.fixture
def client() -> Iterator[Redis]:
    server = fakeredis.FakeRedis()
    yield server
    server.flushall()


@pytest.fixture
def books(client: Redis) -> Books:
    return Books(DirectExecutor(client), TTL_S)


def a_state(orders: int = 3) -> BookState:
    """A book with that many bids."""
    state = BookState.empty(SYMBOL, Rules())
    state.sequence, state.time_us = orders, 7
    for number in range(1, orders + 1):
        price, expires = number % 7 + 1, START_US + number
        text = f"open||5|0|0|{price}|||||7|alice|id-{number}|{expires}|||buy|limit|gtd|||"
        state.add(number, text)
    return state


def built(client: Redis, state: BookState) -> Building:
    """Ready to be installed."""
    building = Building(client, state)
    building.put_orders()
    building.put_events([(state.sequence, EVENT)])
    return building


def test_what_is_installed_is_the_state_and_nothing_else(client: Redis, books: Books) -> None:
    """Nothing of the book before it stays, and nothing of the building."""
    for key in KEYS[1:7]:
        client.set(key, "of before")
    client.hset(KEYS.book, mapping={"sequence": "2", "stray": "1", "suspended": "gap"})
    state = a_state(3 * CHUNK + 1)
    built(client, state).install(books, replaces=2)
    assert first_difference(client, state) is None
    assert list(read_book(client, SYMBOL).lines()) == list(state.lines())
    there = {key.decode() for key in client.keys("*")}  # type: ignore[union-attr]
    indexes = {KEYS.owners, KEYS.client_order_ids, KEYS.expiries}
    assert there == {KEYS.book, KEYS.bids, KEYS.events, *indexes}


@pytest.mark.parametrize("present", [{}, {"sequence": "0"}, {"sequence": "5"}])
def test_a_book_that_was_looked_at_is_replaced(
    client: Redis, books: Books, present: dict[str, str]
) -> None:
    if present:
        client.hset(KEYS.book, mapping=present)  # type: ignore[arg-type]
    built(client, a_state()).install(books, replaces=5)
    assert first_difference(client, a_state()) is None


def test_a_book_that_has_gone_on_stays(client: Redis, books: Books) -> None:
    client.hset(KEYS.book, mapping={"schema": "2", "sequence": "6"})
    client.zadd(KEYS.asks, {"someone": 1})
    with pytest.raises(Refused) as refused:
        built(client, a_state()).install(books, replaces=5)
    assert refused.value.refusal == Refusal.BOOK_CHANGED
    assert client.hgetall(KEYS.book) == {b"schema": b"2", b"sequence": b"6"}
    assert client.zcard(KEYS.asks) == 1


def test_nothing_is_installed_where_nothing_was_built(client: Redis, books: Books) -> None:
    client.hset(KEYS.book, mapping={"schema": "2", "sequence": "5"})
    with pytest.raises(Refused) as refused:
        books.install(SYMBOL, BUILT, 5)
    assert refused.value.refusal == Refusal.BOOK_MISSING
    assert client.hget(KEYS.book, "sequence") == b"5"


def test_what_was_left_behind_is_dropped_first(client: Redis, books: Books) -> None:
    for key in BUILT:
        client.set(key, "left")
    built(client, a_state()).install(books, replaces=0)
    assert first_difference(client, a_state()) is None
    assert not client.keys("*:rebuild:*")


def test_it_is_another_book_than_the_present_one(client: Redis, books: Books) -> None:
    """Also where that was made by a clock that went ahead."""
    client.hset(KEYS.book, mapping={"sequence": "0", "rebuilt": str(10**17)})
    built(client, a_state()).install(books, replaces=0)
    assert client.hget(KEYS.book, "rebuilt") == str(10**17 + 1).encode()
    client.hset(KEYS.book, "rebuilt", "fenced")
    built(client, a_state()).install(books, replaces=10)
    assert int(client.hget(KEYS.book, "rebuilt") or 0) > 0  # type: ignore[arg-type]


def test_the_newest_use_of_an_idempotency_key_counts(client: Redis) -> None:
    """They come oldest first, also where they are far from each other."""
    building = Building(client, a_state())
    between = [Use(f"b|{n}", n, "f", 2) for n in range(4, 4 + CHUNK)]
    building.put_uses([Use("a|k", 3, "old", 1), *between, Use("a|k", 900, "new", 5)])
    assert client.hget(BUILT.idempotency_0, "a|k") == b"900|new|5"
    assert client.hget(BUILT.idempotency_0, "b|4") == b"4|f|2"


def test_the_persister_goes_on_behind_it(client: Redis, books: Books) -> None:
    state = a_state()
    built(client, state).install(books, replaces=0)
    (group,) = client.xinfo_groups(KEYS.events)  # type: ignore[misc]
    assert (group["name"], group["last-delivered-id"]) == (b"persister", b"3-0")
    assert client.hget(KEYS.book, "committed") == b"3"


def test_a_book_goes_on_from_anywhere(client: Redis) -> None:
    """Also from between a command and the stops that it triggered, as far as Postgres had come:
    they are carried out by the next sweep, and what is played then leads to what the model says.
    """
    tape, rng = Tape(7 * KINDS, 600, low_limits=True), random.Random(3)
    events = history()
    waiting = [number for number in range(len(events)) if events[number][1]["type"] == "trigger"]
    for end in sorted({*rng.sample(range(len(events)), 7), *rng.sample(waiting, 4)}):
        state = BookState.empty(SYMBOL, Rules())
        for sequence, fields in events[:end]:
            state.apply(sequence, fields)
        client.flushall()
        venue = PipelinedVenue(client, tape.scripts())
        if end:
            built(client, state).install(venue.books, replaces=0)
        waited, is_open = state.next_triggered(), state.rules.status == "open"
        venue.books.sweep(SYMBOL)
        venue.apply_all(list(islice(tapes.commands(end, 60), 60)))
        told = follow(client, state)
        if waited and is_open:
            assert told[0][1]["type"] == "trigger"
        assert first_difference(client, state) is None


def follow(client: Redis, state: BookState) -> list[tuple[int, dict[str, str]]]:
    """Lets the state follow what the stream has beyond it; returns that."""
    entries: Any = client.xrange(KEYS.events, f"({state.sequence}-0", "+")
    told = [
        (int(entry_id.partition(b"-")[0]), {n.decode(): v.decode() for n, v in fields.items()})
        for entry_id, fields in entries
    ]
    for sequence, fields in told:
        state.apply(sequence, fields)
    client.hset(KEYS.book, "time", str(state.time_us))
    return told
