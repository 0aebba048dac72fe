"""Subscribing with `since`: what was missed comes once and in order, or the client begins anew."""

import random
from typing import Any

import pytest
from redis.exceptions import ConnectionError as RedisConnectionError

from app.engine.keys import book_keys, events_key
from app.feed import hub as hub_module
from app.feed import instrument_feed, reader
from app.feed.members import BookOptions
from app.feed.subscribers import Subscriber
from tests.local_book import LocalBook
from tests.unit.test_feed_hub import ACKNOWLEDGED, BOOK, ORDERS, TRADES, Desk, Message, taken

CONFLATED = BookOptions(interval_ms=100)


@pytest.fixture
def desk() -> Desk:
    return Desk()


def told(subscriber: Subscriber) -> list[Message]:
    """What waits for a subscriber, after its `subscribed`."""
    messages = taken(subscriber)
    assert messages[0] == ACKNOWLEDGED
    return messages[1:]


def deltas(messages: list[Message]) -> list[tuple[int, int]]:
    """Where each delta goes from and to."""
    return [(m["previous_sequence"], m["sequence"]) for m in messages if m["type"] == "book_delta"]


def steps(first: int, last: int) -> list[tuple[int, int]]:
    """One for each event from `first` to `last`."""
    return [(number - 1, number) for number in range(first, last + 1)]


def sides(desk: Desk) -> dict[str, dict[str, str]]:
    """The desk's book as a client has it."""
    bids, asks = desk.book.sides()
    return {"bids": bids, "asks": asks}


def test_what_was_missed_comes_before_what_happens_next(desk: Desk) -> None:
    """Event by event on each channel, as one who never left was told it."""
    stayed, left, back = desk.join(), desk.join(), desk.join()
    for each in (stayed, left):
        desk.subscribe(each, BOOK | TRADES | ORDERS)
    desk.write(20)
    desk.turn()
    before = [message for message in told(stayed) if message["type"] != "book_snapshot"]
    desk.hub.leave(left)
    desk.write(150)
    desk.turn(5)
    desk.subscribe(back, BOOK | TRADES | ORDERS, since=20)
    desk.write(5)
    desk.turn()
    assert before
    missed = told(back)
    assert missed == taken(stayed)
    assert deltas(missed) == steps(21, 175)


def test_whoever_comes_back_first_finds_what_was_missed(desk: Desk) -> None:
    """Also to a process in which nobody follows the instrument."""
    desk.write(200)
    back = desk.join()
    desk.subscribe(back, BOOK, since=50)
    assert deltas(told(back)) == steps(51, 200)


def test_a_process_that_is_behind_repeats_nothing(desk: Desk) -> None:
    """A client may have been told more by another process than this one has seen."""
    other, back = desk.join(), desk.join()
    desk.subscribe(other, BOOK)
    desk.turn()
    desk.write(20)
    desk.subscribe(back, BOOK, since=18)
    desk.write(5)
    desk.turn()
    assert deltas(told(back)) == steps(19, 25)
    assert deltas(told(other)) == steps(1, 25)


def test_where_nothing_was_missed_the_next_delta_follows(desk: Desk) -> None:
    desk.write(7)
    back = desk.join()
    desk.subscribe(back, BOOK, since=7)
    desk.turn()
    assert told(back) == []
    desk.write(1)
    desk.turn()
    assert deltas(taken(back)) == [(7, 8)]


def test_a_book_from_deltas_alone_is_the_book(desk: Desk) -> None:
    """From before the first event on no snapshot is needed."""
    book, back = LocalBook(start=0), desk.join()
    desk.write(150)
    desk.subscribe(back, BOOK, BookOptions(checksum=True), since=0)
    desk.turn()
    desk.write(50)
    desk.turn()
    for message in told(back):
        book.take(message)
    assert (book.sequence, book.snapshots, book.proofs) == (200, 0, 50)
    assert book.sides == sides(desk)


@pytest.mark.parametrize("since", [3, 41, 10**15])
def test_what_is_not_held_is_a_new_beginning(desk: Desk, since: int) -> None:
    """Trimmed, or of another history: a snapshot, a `gap` for the other channels, and on it goes
    from here."""
    desk.write(40)
    desk.redis.xtrim(events_key("BTC-USD"), minid="20-0", approximate=False)
    back = desk.join()
    desk.subscribe(back, BOOK | ORDERS, since=since)
    desk.turn()
    gap, snapshot = told(back)
    assert (gap["code"], gap["instrument"], gap["sequence"]) == ("gap", "BTC-USD", since)
    assert (snapshot["type"], snapshot["sequence"]) == ("book_snapshot", 40)
    desk.write(2)
    desk.turn()
    messages = taken(back)
    assert deltas(messages) == steps(41, 42)
    takers = [m["sequence"] for m in messages if m["type"] == "order" and m["side"] == "buy"]
    assert takers == [41, 42]


def test_a_client_resumes_from_so_far_back_only(
    desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(instrument_feed, "RESUME_EVENTS_MAX", 30)
    desk.write(40)
    near, far = desk.join(), desk.join()
    desk.subscribe(near, BOOK, since=10)
    desk.subscribe(far, BOOK, since=9)
    desk.turn()
    assert deltas(told(near)) == steps(11, 40)
    assert [message["type"] for message in told(far)] == ["book_snapshot"]


def test_a_book_that_is_too_fast_is_not_caught_up_with(
    desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The end of it: a snapshot."""
    monkeypatch.setattr(hub_module, "RESUME_READS_MAX", 2)
    monkeypatch.setattr(reader, "READ_ENTRIES_MAX", 5)
    desk.write(40)
    back = desk.join()
    desk.subscribe(back, BOOK, since=0)
    desk.turn(1)
    messages = told(back)
    assert deltas(messages) == steps(1, 10)
    assert (messages[-1]["type"], messages[-1]["sequence"]) == ("book_snapshot", 40)


def test_redis_going_away_meanwhile_is_a_new_beginning(
    desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What was subscribed stays so: the snapshot comes when Redis does."""
    desk.write(200)
    read = hub_module.read_after
    pages: list[int] = []

    def fails_on_the_second(client: Any, symbol: str, after: int) -> list[Any]:  # noqa: ANN401
        pages.append(after)
        if len(pages) > 1:
            raise RedisConnectionError("away")
        return read(client, symbol, after)

    monkeypatch.setattr(hub_module, "read_after", fails_on_the_second)
    back = desk.join()
    desk.subscribe(back, BOOK | ORDERS, since=10)
    desk.turn()
    messages = told(back)
    last = 10 + reader.READ_ENTRIES_MAX
    assert deltas(messages) == steps(11, last)
    assert [(m["type"], m["sequence"]) for m in messages[-2:]] == [
        ("error", last),
        ("book_snapshot", 200),
    ]


def test_a_poison_entry_on_the_way_is_a_new_beginning(desk: Desk) -> None:
    desk.write(5)
    desk.book.sequence += 1
    desk.redis.xadd(events_key("BTC-USD"), {"type": "place"}, id="6-0")
    desk.write(5)
    back = desk.join()
    desk.subscribe(back, BOOK, since=3)
    desk.turn()
    messages = told(back)
    assert deltas(messages) == [(3, 4), (4, 5)]
    assert (messages[-1]["type"], messages[-1]["sequence"]) == ("book_snapshot", 11)


def test_a_history_that_was_replaced_on_the_way_is_a_new_beginning(
    desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What the stream has now does not follow what the client was told."""
    desk.write(200)
    read = hub_module.read_after

    def replaced(client: Any, symbol: str, after: int) -> list[Any]:  # noqa: ANN401
        entries = read(client, symbol, after)
        if after > 10:
            desk.hub.restart("BTC-USD", 200)
        return entries

    monkeypatch.setattr(hub_module, "read_after", replaced)
    back = desk.join()
    desk.subscribe(back, BOOK | TRADES, since=10)
    desk.turn()
    messages = told(back)
    last = 10 + reader.READ_ENTRIES_MAX
    assert deltas(messages) == steps(11, last)
    assert [(m["type"], m["sequence"]) for m in messages[-2:]] == [
        ("error", last),
        ("book_snapshot", 200),
    ]


def test_the_channels_that_flow_already_are_left_alone(desk: Desk) -> None:
    """Only what is asked for goes back to `since`."""
    both = desk.join()
    desk.subscribe(both, ORDERS)
    desk.write(10)
    desk.turn()
    first = taken(both)
    desk.subscribe(both, BOOK, since=0)
    messages = told(both)
    assert {message["type"] for message in first[1:]} == {"order"}
    assert deltas(messages) == steps(1, 10)
    assert len(messages) == 10
    desk.write(1)
    desk.turn()
    assert {message["type"] for message in taken(both)} >= {"order", "book_delta"}


def test_the_last_subscription_counts(desk: Desk) -> None:
    """Who waits for a snapshot and then names a sequence gets what was missed, and no snapshot."""
    desk.write(10)
    back = desk.join()
    desk.subscribe(back, BOOK)
    desk.subscribe(back, BOOK, since=7)
    desk.turn()
    messages = [message for message in taken(back) if message != ACKNOWLEDGED]
    assert [message["type"] for message in messages] == ["book_delta"] * 3


def test_a_conflated_book_resumes_with_one_delta(desk: Desk) -> None:
    """From where the client was to where the book is; then one for each interval."""
    desk.write(150)
    whole = LocalBook(start=0)
    back = desk.join()
    desk.subscribe(back, BOOK | ORDERS, CONFLATED, since=0)
    messages = told(back)
    assert deltas(messages) == [(0, 150)]
    assert {message["type"] for message in messages[:-1]} == {"order"}
    desk.write(10)
    desk.turn()
    desk.pass_s(0.1)
    messages += taken(back)
    assert deltas(messages) == [(0, 150), (150, 160)]
    for message in messages:
        whole.take(message)
    assert whole.sides == sides(desk)


def test_a_conflated_book_with_nothing_missed_waits_for_its_interval(desk: Desk) -> None:
    desk.write(3)
    back = desk.join()
    desk.subscribe(back, BOOK, CONFLATED, since=3)
    desk.pass_s(0.1)
    assert told(back) == []
    desk.write(2)
    desk.turn()
    desk.pass_s(0.1)
    assert deltas(taken(back)) == [(3, 5)]


def test_no_heartbeat_overtakes_what_was_missed(
    desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It would say that nothing happened since an event that is still to be told."""
    desk.write(200)
    read = hub_module.read_after

    def slowly(client: Any, symbol: str, after: int) -> list[Any]:  # noqa: ANN401
        desk.pass_s(2)
        return read(client, symbol, after)

    monkeypatch.setattr(hub_module, "read_after", slowly)
    back = desk.join()
    desk.subscribe(back, TRADES, since=100)
    assert {message["type"] for message in told(back)} == {"trade"}


@pytest.mark.parametrize("seed", range(6))
def test_whoever_comes_and_goes_keeps_the_book(seed: int) -> None:
    """Clients leave, resume and stay in random order while events come in and the process reads
    them or lags: each has the book that there was at its sequence."""
    desk, rng = Desk(most=100), random.Random(seed)
    clients = [(LocalBook(start=0), options) for options in (BookOptions(), CONFLATED) * 2]
    places: dict[int, Subscriber] = {}
    history = {0: sides(desk)}
    for _ in range(200):
        at = rng.randrange(len(clients))
        book, options = clients[at]
        match rng.choices("wtpjlr", (6, 3, 3, 2, 1, 3))[0]:
            case "w":
                desk.write(1)
                history[desk.book.sequence] = sides(desk)
            case "t" if desk.hub.positions():
                desk.turn(1)
            case "p":
                desk.pass_s(0.1)
            case "j" if at not in places:
                places[at] = desk.join()
                desk.subscribe(places[at], BOOK, options, since=book.sequence)
            case "l" if at in places:
                desk.hub.leave(places.pop(at))
            case "r" if at in places:
                for message in taken(places[at]):
                    book.take(message)
                assert book.sides == history[book.sequence or 0]
    assert [book.snapshots for book, _ in clients] == [0] * len(clients)
    assert any(book.deltas for book, _ in clients)


def test_a_stream_that_is_gone_does_not_hold_a_client_up(desk: Desk) -> None:
    """The book says that there were events, and the stream has none of them."""
    desk.write(10)
    desk.redis.delete(events_key("BTC-USD"))
    back = desk.join()
    desk.subscribe(back, BOOK, since=5)
    desk.turn()
    (snapshot,) = told(back)
    assert snapshot["sequence"] == int(desk.redis.hget(book_keys("BTC-USD").book, "sequence") or 0)
