"""The process's copy of a book: loaded by a fuzzy scan, exact nevertheless."""

import random

import fakeredis
import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.domain.events import parse_event
from app.engine.keys import book_keys
from app.feed.replica import Page, Replica
from tests.feed_events import TapeBook, entry

PAGE_FIELDS = 5


def levels(replica: Replica) -> dict[str, int]:
    """All levels of a copy under the names that the book's hash gives them."""
    bids = {f"bid:{price}": total for price, total in replica.bids()}
    return bids | {f"ask:{price}": total for price, total in replica.asks()}


def apply(replica: Replica, item: tuple[str, dict[str, str]]) -> None:
    """Hand the copy one stream entry."""
    event = parse_event("BTC-USD", *item)
    replica.apply(event.sequence, event.levels)


class SlowScan:
    """A scan whose pages are taken when asked for, of a hash that changes in between."""

    def __init__(self, book: TapeBook, order: random.Random) -> None:
        self._book = book
        self._ahead = [f"{side}:{tick}" for side in ("bid", "ask") for tick in range(900, 2200)]
        order.shuffle(self._ahead)
        self._cursor = 0

    def page(self) -> Page:
        """The next part of the hash as it is now, in an order that has nothing to do with it."""
        names, self._ahead = self._ahead[:400], self._ahead[400:]
        self._cursor = self._cursor + 1 if self._ahead else 0
        found = {name: str(self._book.levels[name]) for name in names if name in self._book.levels}
        fields = found | {"sequence": str(self._book.sequence), "schema": "1"}
        return Page(self._cursor, fields, self._book.sequence)


@given(seed=st.integers(0, 10**6), steps=st.lists(st.sampled_from("wra"), max_size=150))
def test_a_copy_scanned_under_writes_is_exact_once_it_says_so(seed: int, steps: list[str]) -> None:
    """In whatever order a writer's events (w), the scan's pages (r) and the events that the reader
    applies (a) come, the copy equals the book as it was at its sequence, from `ready` on."""
    book = TapeBook(prices=12, seed=seed)
    for _ in range(30):
        book.next()
    replica = Replica(book.sequence)
    history = {book.sequence: dict(book.levels)}
    scan, waiting = SlowScan(book, random.Random(seed)), []
    for step in steps + ["r"] * 10 + ["a"] * 200:
        if step == "w":
            waiting.append(book.next()[:2])
            history[book.sequence] = dict(book.levels)
        elif step == "r" and not replica.scanned:
            replica.page(scan.page())
        elif step == "a" and waiting:
            apply(replica, waiting.pop(0))
        if replica.ready:
            assert levels(replica) == history[replica.sequence]
    assert replica.ready


def test_a_copy_is_not_ready_before_the_last_event_that_the_scan_may_have_seen() -> None:
    """Ready needs the whole scan and every event up to the book's sequence after it."""
    replica = Replica(10)
    replica.page(Page(3, {"bid:5": "1"}, 11))
    assert not replica.scanned
    replica.page(Page(0, {"ask:7": "2"}, 12))
    assert replica.scanned
    assert not replica.ready
    apply(replica, entry(11, "bid:5=0"))
    assert not replica.ready
    apply(replica, entry(12, "ask:7=2"))
    assert replica.ready
    assert levels(replica) == {"ask:7": 2}


def test_a_new_load_forgets_everything() -> None:
    """A level that vanished unseen is not kept when the copy is loaded again."""
    replica = Replica(1)
    replica.page(Page(0, {"bid:5": "1"}, 1))
    replica.load(9)
    assert not replica.ready
    replica.page(Page(0, {"bid:6": "2"}, 9))
    assert levels(replica) == {"bid:6": 2}


def test_sides_come_best_first() -> None:
    """Bids from the highest price down, asks from the lowest up, also past a change of digits."""
    replica = Replica(0)
    fields = {"bid:9": "1", "bid:10": "1", "bid:8": "1", "ask:100": "1", "ask:99": "1"}
    replica.page(Page(0, fields, 0))
    assert [price for price, _ in replica.bids()] == [10, 9, 8]
    assert [price for price, _ in replica.asks()] == [99, 100]


def test_an_event_out_of_turn_is_a_defect() -> None:
    """A copy never applies an event that does not follow its last one."""
    with pytest.raises(AssertionError):
        apply(Replica(1), entry(3))


def test_a_page_is_what_hscan_gives() -> None:
    """Redis's own cursor and fields fit: a book read from it with small steps is the book."""
    redis = fakeredis.FakeRedis(decode_responses=True)
    book = TapeBook()
    book.write(redis, 200)
    key = book_keys(book.symbol).book
    replica = Replica(book.sequence)
    while not replica.scanned:
        cursor, fields = redis.hscan(key, replica.cursor, count=PAGE_FIELDS)
        replica.page(Page(cursor, fields, int(redis.hget(key, "sequence"))))
    assert levels(replica) == book.levels
