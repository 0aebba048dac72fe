"""A conflated book: one delta for an interval, with the last state of each level, gapless for
everybody; and the checksum of a book, by whomever it is asked for."""

import random
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.domain.events import Event, LevelChange
from app.feed import instrument_feed
from app.feed.checksum import DEPTH, checksum
from app.feed.conflation import Conflation
from app.feed.members import BookOptions
from app.feed.replica import Page, Replica
from tests.feed_events import MARKETS, TapeBook, entry
from tests.local_book import LocalBook
from tests.unit.test_feed_hub import BOOK, ORDERS, Desk, Message, taken
from tests.unit.test_feed_resume import deltas, sides, steps, told

TENTH = BookOptions(interval_ms=100)
SECOND = BookOptions(interval_ms=1000)
PROVED = BookOptions(checksum=True)


@pytest.fixture
def desk() -> Desk:
    return Desk()


def level(side: str, price_ticks: int, total_lots: int) -> LevelChange:
    return LevelChange(side, price_ticks, total_lots)


def event_of(sequence: int, *levels: LevelChange) -> Event:
    """An event of which only the levels count here."""
    return Event(
        symbol="BTC-USD",
        sequence=sequence,
        type="place",
        time_us=0,
        orders=(),
        fills=(),
        levels=levels,
    )


# --- what is gathered

changes = st.builds(level, st.sampled_from(["bid", "ask"]), st.integers(1, 5), st.integers(0, 3))


@given(st.lists(st.lists(changes, max_size=4), max_size=30), st.integers(0, 30), st.integers(0, 30))
def test_of_each_level_that_changed_the_last_state_is_kept(
    events: list[list[LevelChange]], forgotten: int, since: int
) -> None:
    """After any sequence, also once older ones were forgotten."""
    conflation = Conflation()
    for sequence, levels in enumerate(events, 1):
        conflation.gather(event_of(sequence, *levels))
    since = max(since, forgotten)
    conflation.forget(forgotten)
    expected = {(c.side, c.price_ticks): c for levels in events[since:] for c in levels}
    found = conflation.after(since)
    assert {(change.side, change.price_ticks): change for change in found} == expected
    assert len(found) == len(expected)


def test_what_nobody_asks_for_any_more_is_forgotten() -> None:
    """Memory does not grow with the levels that there have ever been."""
    conflation = Conflation()
    for sequence in range(1, 101):
        conflation.gather(event_of(sequence, level("bid", sequence, 1)))
    conflation.forget(90)
    assert [change.price_ticks for change in conflation.after(0)] == [*range(91, 101)]


# --- who is told what and when


def test_one_delta_for_an_interval_has_the_last_state_of_each_level(desk: Desk) -> None:
    """However many events there were; the next follows it, and the book comes out."""
    subscriber, book = desk.join(), LocalBook()
    desk.subscribe(subscriber, BOOK, TENTH)
    desk.turn()
    desk.write(50)
    desk.turn()
    desk.pass_s(0.05)
    assert [message["type"] for message in told(subscriber)] == ["book_snapshot"]
    desk.pass_s(0.06)
    (delta,) = taken(subscriber)
    assert (delta["previous_sequence"], delta["sequence"]) == (0, 50)
    prices = [price for name in ("bids", "asks") for price, _ in delta[name]]
    assert len(prices) == len(set(prices))
    desk.write(7)
    desk.turn()
    desk.pass_s(0.1)
    (second,) = taken(subscriber)
    assert (second["previous_sequence"], second["sequence"]) == (50, 57)
    book.take({"type": "book_snapshot", "sequence": 0, "bids": [], "asks": []})
    for message in (delta, second):
        book.take(message)
    assert book.sides == sides(desk)


def test_an_interval_in_which_nothing_happened_is_silent(desk: Desk) -> None:
    """And one in which no level changed is told all the same: the sequence went on."""
    subscriber = desk.join()
    desk.subscribe(subscriber, BOOK, TENTH)
    desk.turn()
    taken(subscriber)
    desk.pass_s(0.1)
    assert taken(subscriber) == []
    desk.hub.deliver("BTC-USD", 0, [entry(1)])
    desk.pass_s(0.1)
    (delta,) = taken(subscriber)
    assert deltas([delta]) == [(0, 1)]
    assert delta["bids"] == delta["asks"] == []


def test_each_has_its_interval_and_its_place(desk: Desk) -> None:
    """Every event, each tenth of a second, each second, and one who joins in between: all have the
    same book in the end, and none of them a gap."""
    options = [BookOptions(), TENTH, SECOND, SECOND]
    clients = [(desk.join(), LocalBook()) for _ in options]
    for (subscriber, _), wanted in zip(clients[:3], options, strict=False):
        desk.subscribe(subscriber, BOOK, wanted)
    messages: list[list[Message]] = [[], [], [], []]
    for step in range(24):
        desk.write(3)
        desk.turn()
        desk.pass_s(0.125)
        if step == 4:
            desk.subscribe(clients[3][0], BOOK, SECOND)
        for (subscriber, book), heard in zip(clients, messages, strict=True):
            for message in taken(subscriber):
                book.take(message)
                heard.append(message)
    assert [len(deltas(heard)) for heard in messages] == [69, 23, 3, 3]
    for _, book in clients:
        assert (book.sequence, book.snapshots) == (72, 1)
        assert book.sides == sides(desk)
    assert deltas(messages[3])[0] == (15, 24)
    assert messages[2][-1] == messages[3][-1]


def test_a_conflated_delta_is_made_once(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever the number of sockets, and whatever their intervals where these end together."""
    made: list[int] = []
    original = instrument_feed.book_delta

    def counting(*arguments: Any) -> Any:  # noqa: ANN401
        made.append(1)
        return original(*arguments)

    monkeypatch.setattr(instrument_feed, "book_delta", counting)
    subscribers = [desk.join() for _ in range(9)]
    for subscriber in subscribers:
        desk.subscribe(subscriber, BOOK, TENTH)
    desk.turn()
    desk.write(20)
    desk.turn()
    desk.pass_s(0.1)
    assert len({str(told(subscriber)) for subscriber in subscribers}) == 1
    assert made == [1]


def test_other_channels_of_a_conflated_subscriber_are_not_conflated(desk: Desk) -> None:
    subscriber = desk.join()
    desk.subscribe(subscriber, BOOK | ORDERS, TENTH)
    desk.turn()
    taken(subscriber)
    desk.write(5)
    desk.turn()
    messages = taken(subscriber)
    assert [m["sequence"] for m in messages if m["side"] == "buy"] == [1, 2, 3, 4, 5]
    desk.pass_s(0.1)
    assert deltas(taken(subscriber)) == [(0, 5)]


def test_a_heartbeat_says_how_far_a_conflated_book_was_told(desk: Desk) -> None:
    """A client that knows less than a heartbeat says has missed something."""
    subscriber = desk.join()
    desk.subscribe(subscriber, BOOK, BookOptions(interval_ms=10_000))
    desk.write(5)
    desk.turn()
    (snapshot,) = told(subscriber)
    desk.write(5)
    desk.turn()
    desk.pass_s(1.1)
    (beat,) = taken(subscriber)
    assert (beat["type"], beat["sequence"]) == ("heartbeat", snapshot["sequence"])


def test_changing_the_interval_begins_with_a_snapshot(desk: Desk) -> None:
    """The last subscription is the one that counts."""
    subscriber = desk.join()
    desk.subscribe(subscriber, BOOK, TENTH)
    desk.write(5)
    desk.turn()
    told(subscriber)
    desk.write(5)
    desk.turn()
    desk.subscribe(subscriber, BOOK)
    desk.write(1)
    desk.turn()
    desk.pass_s(0.2)
    snapshot, delta = told(subscriber)
    assert (snapshot["type"], snapshot["sequence"]) == ("book_snapshot", 10)
    assert deltas([delta]) == [(10, 11)]


def test_a_gap_starts_a_conflated_book_over(desk: Desk) -> None:
    """Nothing that was gathered before it is told, also where sequences went back."""
    subscriber = desk.join()
    desk.subscribe(subscriber, BOOK, TENTH)
    desk.turn()
    desk.write(10)
    desk.turn()
    taken(subscriber)
    desk.redis.flushall()
    desk.book = TapeBook(seed=9)
    desk.write(4)
    desk.hub.restart("BTC-USD", 4)
    desk.turn()
    desk.write(2)
    desk.turn()
    desk.pass_s(0.1)
    book = LocalBook()
    for message in taken(subscriber):
        book.take(message)
    assert (book.snapshots, book.deltas, book.sequence) == (1, 1, 6)
    assert book.sides == sides(desk)


def test_the_hub_wakes_for_the_next_interval(desk: Desk) -> None:
    """And as ever while there is none."""
    assert desk.hub.pulse() == pytest.approx(0.1)
    subscriber = desk.join()
    desk.subscribe(subscriber, BOOK, TENTH)
    desk.now += 0.07
    assert desk.hub.pulse() == pytest.approx(0.03)
    desk.hub.leave(subscriber)
    assert desk.hub.pulse() == pytest.approx(0.1)


# --- checksums


def test_the_checksum_is_krakens() -> None:
    """The example of docs.kraken.com, "Spot Websockets (v1) Book Checksum"."""
    market = MARKETS["DOGE-USD"]
    assert (market.price.decimals, market.quantity.decimals) == (5, 1)
    asks = [(5005 + 5 * index, 500) for index in range(12)]
    prices = (5000, 4995, 4990, 4980, 4975, 4970, 4965, 4960, 4955, 4950, 4945)
    assert checksum(market, [(price, 500) for price in prices], asks) == 974947235


@given(st.integers(0, 10**6))
def test_the_best_levels_are_known_without_looking_at_all(seed: int) -> None:
    """Kept in order while levels come and go, whenever they are first asked for."""
    book, replica, rng = TapeBook(prices=30, seed=seed), Replica(0), random.Random(seed)
    replica.page(Page(0, {}, 0))
    for _ in range(100):
        entry_id, _, changed = book.next()
        sequence = int(entry_id.partition("-")[0])
        parts = ((name.partition(":"), total) for name, total in changed.items())
        replica.apply(sequence, [level(s, int(price), total) for (s, _, price), total in parts])
        match rng.randrange(4):
            case 0:
                replica.disorder()
            case 1:
                assert replica.best(DEPTH) == (replica.bids()[:DEPTH], replica.asks()[:DEPTH])


def test_whoever_asks_can_prove_each_state(desk: Desk) -> None:
    """Snapshot and deltas, event by event and conflated; whoever does not ask gets none."""
    wishes = [PROVED, BookOptions(100, checksum=True), BookOptions()]
    subscribers = [desk.join() for _ in wishes]
    desk.write(30)
    for subscriber, wanted in zip(subscribers, wishes, strict=True):
        desk.subscribe(subscriber, BOOK, wanted)
    for _ in range(4):
        desk.turn()
        desk.write(40)
        desk.pass_s(0.1)
    proofs = []
    for subscriber in subscribers:
        book = LocalBook()
        for message in told(subscriber):
            book.take(message)
        proofs.append((book.snapshots + book.deltas, book.proofs))
    assert proofs == [(121, 121), (4, 4), (121, 0)]


def test_what_nobody_asks_for_is_not_done(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    """No checksum, no conflation; not even after somebody has asked and left."""
    asking, other = desk.join(), desk.join()
    desk.subscribe(asking, BOOK, BookOptions(100, checksum=True))
    desk.subscribe(other, BOOK)
    desk.turn()
    desk.hub.unsubscribe(asking, BOOK, ["BTC-USD"], instrument_feed.heartbeat("X", 1))
    monkeypatch.delattr(instrument_feed, "checksum")
    monkeypatch.delattr(Replica, "best")
    monkeypatch.delattr(Conflation, "gather")
    desk.write(10)
    desk.turn()
    assert deltas(told(other)) == steps(1, 10)
