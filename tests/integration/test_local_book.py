"""A client that keeps a book from messages alone has the server's book, at every sequence, however
often it loses its connection: the reference client (`tests/local_book.py`), some of it at a time,
each asking for the book in another way, while orders of every kind come in over REST.
"""

import os
import random
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Final

from tests.audit import stored_events
from tests.local_book import Follower, LocalBook, levels_digest
from tests.rest import Api, Json, order_id
from tests.system import System
from tests.waiting import wait_for

COMMANDS: Final = int(os.environ.get("CROSSBOOK_TEST_FEED_COMMANDS", "2000"))
"""Events that the book goes through."""
BATCH_ITEMS: Final = 40
LEVELS_MAX: Final = 1000
MID: Final = 1000
REACH: Final = 30
AWAY_EVENTS_MAX: Final = 150
"""For how many events a follower stays away."""
FOLLOWED_TIMEOUT_S: Final = 60.0 + COMMANDS / 100
SIDE_NAMES: Final = {"buy": "bids", "sell": "asks"}


class Flow:
    """Random commands on one instrument, batch by batch."""

    def __init__(self, api: Api, symbol: str, rng: random.Random) -> None:
        self.api = api
        self.symbol = symbol
        self.sequence = 0
        self.looks: list[Json] = []
        """What /orderbook answered in between."""
        self.last: int | None = None
        """The sequence of the last command, once it is known."""
        self._rng = rng

    def run(self, commands: int) -> None:
        """Until the book has gone through `commands` events; the last is always accepted."""
        while self.sequence < commands - 1:
            self.api.batch([self._item() for _ in range(BATCH_ITEMS)])
            self.looks.append(self._look())
            self.sequence = self.looks[-1]["sequence"]
        self.last = self.sequence + 1
        self.api.placed(self._place() | {"type": "limit", "price": "1", "side": "buy"})
        self.looks.append(self._look())
        self.sequence = self.last

    def _look(self) -> Json:
        return self.api.found("/orderbook", instrument=self.symbol, levels=LEVELS_MAX)

    def _item(self) -> Json:
        rng = self._rng
        recent = order_id(self.symbol, max(1, self.sequence - rng.randrange(200)))
        match rng.choices(("place", "cancel", "amend"), (75, 15, 10))[0]:
            case "cancel":
                return {"op": "cancel", "order_id": recent}
            case "amend":
                return {"op": "amend", "order_id": recent, "price": self._price()}
        return {"op": "place", **self._order()}

    def _order(self) -> Json:
        rng, order = self._rng, self._place()
        match rng.choices(("limit", "market", "ioc", "iceberg", "stop"), (70, 8, 8, 8, 6))[0]:
            case "market":
                return order | {"type": "market"}
            case "ioc":
                return order | {"price": self._price(), "time_in_force": "ioc"}
            case "iceberg":
                return order | {"price": self._price(), "display_quantity": "2"}
            case "stop":
                return order | {"type": "stop", "stop_price": self._price()}
        return order | {"price": self._price()}

    def _place(self) -> Json:
        rng = self._rng
        client, side = f"client-{rng.randrange(5)}", rng.choice(("buy", "sell"))
        order = {"instrument": self.symbol, "client_id": client, "side": side}
        return order | {"quantity": str(rng.randint(2, 20))}

    def _price(self) -> str:
        return str(self._rng.randint(MID - REACH, MID + REACH))


@dataclass
class Reader:
    """A follower, and what its book was at each sequence. It loses its first connection after the
    first message, others after one in `stays` of the messages from the second on, and comes back
    when the book has gone on for a while."""

    follower: Follower
    flow: Flow
    rng: random.Random
    stays: int
    seen: dict[int, int] = field(default_factory=dict)
    heard: int = 0
    """Messages of this connection."""
    error: BaseException | None = None

    def run(self) -> None:
        try:
            self.follower.follow(self._note)
        except BaseException as error:  # noqa: BLE001  # told to the test when it ends
            self.error = error

    def _note(self, book: LocalBook) -> bool:
        assert book.sequence is not None
        self.seen[book.sequence] = book.fingerprint()
        if book.sequence == self.flow.last:
            self.follower.disconnect(politely=True)
            return False
        self.heard += 1
        is_first = self.follower.connections == 1
        if is_first or (self.heard > 1 and self.rng.randrange(self.stays) == 0):
            self.heard = 0
            self.follower.disconnect(politely=self.rng.random() < 0.5)
            back_at = book.sequence + self.rng.randrange(AWAY_EVENTS_MAX)
            wait_for(lambda: self.flow.sequence >= back_at or self.flow.last is not None)
        return True


@contextmanager
def a_book_in_each_worker(system: System, flow: Flow) -> Iterator[None]:
    """Somebody follows it there all the while, so that each worker knows checksums at any time."""

    def follower() -> Follower:
        one = Follower(system.api.port, flow.symbol, resumes=False, checksum=True)
        one.connect()
        return one

    followers = system.by_each_worker(follower)

    def goes_on(book: LocalBook) -> bool:
        return book.sequence != flow.last

    with in_threads([partial(each.follow, goes_on) for each in followers]):
        yield
    for each in followers:
        each.disconnect(politely=True)


@contextmanager
def reading(readers: list[Reader]) -> Iterator[None]:
    """They read until they have seen the last command."""
    with in_threads([reader.run for reader in readers]):
        yield
    for reader in readers:
        if reader.error is not None:
            raise reader.error


@contextmanager
def in_threads(followings: list[Callable[[], object]]) -> Iterator[None]:
    """They go on beside the block, and end by themselves soon after it."""
    threads = [threading.Thread(target=each, daemon=True) for each in followings]
    for thread in threads:
        thread.start()
    yield
    for thread in threads:
        thread.join(FOLLOWED_TIMEOUT_S)
    assert not any(thread.is_alive() for thread in threads), "somebody did not arrive"


def true_books(system: System, symbol: str) -> Iterator[LocalBook]:
    """The book as the event store tells it, at each sequence from 0 on."""
    book = LocalBook(start=0)
    yield book
    for stored in stored_events(system, symbol):
        for change in stored.event.levels:
            side, price = book.sides[SIDE_NAMES[change.side]], str(change.price_ticks)
            side[price] = str(change.total_lots)
            if not change.total_lots:
                del side[price]
        book.sequence = stored.event.sequence
        yield book


def digest_of(look: Json) -> str:
    """Of what /orderbook answered."""
    sides: Any = ([(e["price"], e["quantity"]) for e in look[name]] for name in ("bids", "asks"))
    return levels_digest(*sides)


def test_a_book_from_messages_alone_is_the_servers_at_every_sequence(
    system: System, symbol: str, rng: random.Random, summary: Callable[[str], None]
) -> None:
    """Deltas from the first event on and no snapshot, deltas with checksums, conflated ones, with
    `since` and without: each state that a client was in is the book at that sequence, and those
    that ask for every event are told of every event."""
    flow = Flow(system.api, symbol, rng)

    def reader(stays: int, **options: Any) -> Reader:  # noqa: ANN401
        follower = Follower(system.api.port, symbol, **options)
        return Reader(follower, flow, random.Random(rng.random()), stays)

    from_nothing = reader(60, resumes=True, start=0)
    # Longer than what it missed lasts: that comes without checksums.
    proved = reader(300, resumes=True, checksum=True)
    conflated = reader(4, resumes=True, interval_ms=100, checksum=True)
    forgetful = reader(60, resumes=False, checksum=True)
    slow = reader(3, resumes=False, interval_ms=250)
    readers = [from_nothing, proved, conflated, forgetful, slow]
    with a_book_in_each_worker(system, flow), reading(readers):
        wait_for(lambda: all(each.follower.connections for each in readers))
        flow.run(COMMANDS)
    system.settled()
    looks = {look["sequence"]: digest_of(look) for look in flow.looks}
    for book in true_books(system, symbol):
        sequence = book.sequence
        assert sequence is not None
        for each in readers:
            assert each.seen.get(sequence, book.fingerprint()) == book.fingerprint(), sequence
        if sequence in looks:
            assert looks.pop(sequence) == book.digest(), sequence
    assert not looks
    assert set(from_nothing.seen) == {*range(1, flow.sequence + 1)}
    assert from_nothing.follower.book.snapshots == 0
    assert {each.follower.book.digest() for each in readers} == {digest_of(flow.looks[-1])}
    first = min(proved.seen)
    assert set(proved.seen) == {*range(first, flow.sequence + 1)}
    assert proved.follower.book.snapshots == 1
    alone = forgetful.follower.book
    assert alone.proofs == alone.snapshots + alone.deltas, "each message proves the book"
    for each in (proved, conflated):
        assert each.follower.book.proofs > each.follower.connections, "more than the first of each"
    for each in readers:
        assert each.follower.connections > 1, "there were disconnects"
        assert len(each.seen) > each.follower.connections
        book = each.follower.book
        summary(
            f"{each.follower.connections} connections: {book.snapshots} snapshots, {book.deltas}"
            f" deltas, {book.proofs} checksums, {len(each.seen)} states, all equal"
        )
