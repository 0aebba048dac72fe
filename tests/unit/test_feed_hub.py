"""The hub: who gets what and from where on, driven turn by turn without threads or a server."""

from collections.abc import Callable
from typing import Any

import fakeredis
import pytest
from redis.exceptions import ConnectionError as RedisConnectionError

from app.domain.views import View
from app.engine.executor import EngineUnavailable
from app.engine.keys import book_keys, events_key
from app.feed import hub as hub_module
from app.feed.hub import Hub, HubFull, TooManySubscriptions
from app.feed.members import EVERY_EVENT, BookOptions
from app.feed.messages import Channel, frame
from app.feed.reader import CHECK_S, RETRY_S_MAX, RETRY_S_MIN, StreamReader
from app.feed.replica import Page
from app.feed.subscribers import Subscriber
from tests.feed_events import MARKETS, BookView, TapeBook, entry
from tests.unit.test_feed_messages import read

BTC, ETH = MARKETS["BTC-USD"], MARKETS["ETH-USD"]
BOOK, TRADES, ORDERS = (
    frozenset({name}) for name in (Channel.BOOK, Channel.TRADES, Channel.ORDERS)
)
ACKNOWLEDGED = {"type": "subscribed"}
Message = dict[str, Any]


class Desk:
    """A hub on a fakeredis, a clock set by hand, and a reader that turns when told."""

    def __init__(self, most: int = 10, new: Callable[[], Subscriber] = Subscriber) -> None:
        self.server = fakeredis.FakeServer()
        self.redis = fakeredis.FakeRedis(server=self.server, decode_responses=True)
        self.now = 100.0
        self.tickers: dict[str, View] = {}
        self.hub = Hub(self.redis, self.ticker, lambda: self.now, most, new)
        self.hub._start = lambda name, target: None  # type: ignore[method-assign]
        self.reader = StreamReader(self.redis, self.hub, lambda: self.now)
        self.book = TapeBook()

    def join(self) -> Subscriber:
        return self.hub.join()

    def ticker(self, symbol: str) -> View:
        return self.tickers[symbol]

    def subscribe(
        self,
        subscriber: Subscriber,
        channels: frozenset[Channel],
        options: BookOptions = EVERY_EVENT,
        since: int | None = None,
    ) -> None:
        given = {} if since is None else {"BTC-USD": since}
        self.hub.subscribe(subscriber, channels, [BTC], frame(ACKNOWLEDGED), options, given)

    def pass_s(self, seconds: float) -> None:
        """Time passes, and what is due then happens."""
        self.now += seconds
        self.hub.pulse()

    def turn(self, times: int = 3) -> None:
        for _ in range(times):
            self.reader.turn()

    def write(self, events: int) -> None:
        self.book.write(self.redis, events)


@pytest.fixture
def desk() -> Desk:
    return Desk()


def taken(subscriber: Subscriber) -> list[Message]:
    """All messages that wait for a subscriber."""
    data = b""
    while frames := subscriber.take(0).data:
        data += frames
    return read(data)


def sequences(messages: list[Message]) -> list[int]:
    """Sequences of messages that have one."""
    return [message["sequence"] for message in messages if "sequence" in message]


def test_a_book_begins_with_its_snapshot_and_goes_on_without_gap(desk: Desk) -> None:
    """`subscribed`, `book_snapshot`, then every event's delta: together they are the book."""
    desk.write(300)
    subscriber = desk.join()
    desk.subscribe(subscriber, BOOK)
    desk.write(50)
    desk.turn(5)
    desk.write(500)
    desk.turn(8)
    messages = taken(subscriber)
    assert [message["type"] for message in messages[:3]] == [
        "subscribed",
        "book_snapshot",
        "book_delta",
    ]
    view = BookView()
    for message in messages[1:]:
        view.see(message)
    assert view.sequence == 850
    assert (view.bids, view.asks) == desk.book.sides()


def test_a_snapshot_is_best_first(desk: Desk) -> None:
    """Bids fall, asks rise."""
    desk.write(300)
    subscriber = desk.join()
    desk.subscribe(subscriber, BOOK)
    desk.turn()
    (snapshot,) = [each for each in taken(subscriber) if each["type"] == "book_snapshot"]
    bids = [float(price) for price, _ in snapshot["bids"]]
    asks = [float(price) for price, _ in snapshot["asks"]]
    assert bids == sorted(bids, reverse=True)
    assert asks == sorted(asks)
    assert bids
    assert asks


def test_a_second_subscriber_gets_its_snapshot_at_once_and_the_same_deltas(desk: Desk) -> None:
    """With the book known already, a snapshot needs no turn; afterwards both get the same."""
    first, second = desk.join(), desk.join()
    desk.subscribe(first, BOOK)
    desk.write(20)
    desk.turn()
    taken(first)
    desk.subscribe(second, BOOK)
    begun = taken(second)
    assert [message["type"] for message in begun] == ["subscribed", "book_snapshot"]
    assert begun[1]["sequence"] == 20
    desk.write(20)
    desk.turn()
    assert taken(first) == taken(second) != []


def test_a_late_read_is_not_taken_for_a_gap(desk: Desk) -> None:
    """What was read for a feed that ended meanwhile says nothing to the one that replaced it."""
    subscriber = desk.join()
    desk.subscribe(subscriber, ORDERS)
    desk.hub.deliver("BTC-USD", 7, [entry(8)])
    assert [message["type"] for message in taken(subscriber)] == ["subscribed"]
    desk.hub.deliver("BTC-USD", 0, [entry(1), entry(2)])
    assert sequences(taken(subscriber)) == [1, 2]


def test_entries_seen_already_are_not_sent_again(desk: Desk) -> None:
    """A read that overlaps with what was seen repeats nothing, to the book and to the others."""
    subscriber = desk.join()
    desk.subscribe(subscriber, BOOK | ORDERS)
    desk.turn()
    taken(subscriber)
    desk.hub.deliver("BTC-USD", 0, [entry(1), entry(2)])
    desk.hub.deliver("BTC-USD", 0, [entry(1), entry(2), entry(3)])
    messages = taken(subscriber)
    assert sequences(messages) == [1, 1, 2, 2, 3, 3]
    assert {message["type"] for message in messages} == {"order", "book_delta"}


def test_a_page_for_a_copy_given_up_is_not_taken(desk: Desk) -> None:
    """A scan belongs to the copy it was begun for; the next one begins at its own start."""
    subscriber = desk.join()
    desk.subscribe(subscriber, BOOK)
    (old,) = desk.hub.loads().values()
    desk.hub.leave(subscriber)
    desk.subscribe(subscriber, BOOK)
    desk.hub.page("BTC-USD", old, Page(0, {"bid:1": "1"}, 0))
    assert [message["type"] for message in taken(subscriber)] == ["subscribed"] * 2
    desk.turn()
    (snapshot,) = taken(subscriber)
    assert snapshot["bids"] == []


def test_subscribing_again_gives_a_new_snapshot(desk: Desk) -> None:
    """A client that lost its place asks again, and goes on from there without a repeat."""
    subscriber = desk.join()
    desk.subscribe(subscriber, BOOK)
    desk.write(5)
    desk.turn()
    taken(subscriber)
    desk.subscribe(subscriber, BOOK)
    desk.write(2)
    desk.turn()
    messages = taken(subscriber)
    assert [message["type"] for message in messages] == [
        "subscribed",
        "book_snapshot",
        "book_delta",
        "book_delta",
    ]
    assert sequences(messages) == [5, 6, 7]
    desk.subscribe(subscriber, BOOK)
    (snapshot,) = [each for each in taken(subscriber) if each["type"] == "book_snapshot"]
    assert snapshot["sequence"] == 7
    assert (dict(snapshot["bids"]), dict(snapshot["asks"])) == desk.book.sides()


def test_trades_and_orders_start_after_subscribed(desk: Desk) -> None:
    """Nothing of the past; every event from the acknowledgement on, even before the first turn."""
    desk.write(40)
    subscriber = desk.join()
    desk.subscribe(subscriber, ORDERS)
    desk.write(3)
    desk.turn()
    messages = taken(subscriber)
    assert messages[0] == ACKNOWLEDGED
    assert {message["type"] for message in messages[1:]} == {"order"}
    takers = [each["sequence"] for each in messages[1:] if each["side"] == "buy"]
    assert takers == [41, 42, 43]


def test_every_order_of_an_event_is_told(desk: Desk) -> None:
    """Taker and makers, each in its new state."""
    subscriber = desk.join()
    desk.subscribe(subscriber, ORDERS | TRADES)
    while True:
        entry_id, fields, _ = desk.book.next()
        desk.redis.xadd(events_key("BTC-USD"), fields, id=entry_id)
        desk.turn(1)
        messages = taken(subscriber)
        if "trade" in {message["type"] for message in messages}:
            break
    assert [m["type"] for m in messages if m["type"] != "subscribed"][-3:] == [
        "trade",
        "order",
        "order",
    ]


def test_unsubscribing_ends_a_channel_and_leaves_the_others(desk: Desk) -> None:
    """After `unsubscribed` nothing of that channel comes; nobody left: nothing is followed."""
    subscriber = desk.join()
    desk.subscribe(subscriber, BOOK | ORDERS)
    desk.turn()
    desk.hub.unsubscribe(subscriber, BOOK, ["BTC-USD", "no such"], frame({"type": "unsubscribed"}))
    taken(subscriber)
    desk.write(5)
    desk.turn()
    assert {message["type"] for message in taken(subscriber)} == {"order"}
    assert desk.hub.loads() == {}
    desk.hub.unsubscribe(subscriber, ORDERS, ["BTC-USD"], frame({"type": "unsubscribed"}))
    assert desk.hub.positions() == {}


def test_a_subscriber_that_left_is_followed_no_more(desk: Desk) -> None:
    """Nothing of it stays behind."""
    subscriber = desk.join()
    desk.subscribe(subscriber, frozenset(Channel))
    desk.hub.leave(subscriber)
    assert desk.hub.positions() == {}
    assert subscriber.subscriptions == set()


def test_a_gap_in_the_stream_starts_the_books_over(desk: Desk) -> None:
    """Events that the stream holds no more: a new snapshot for the book, `gap` for the others,
    and both go on."""
    book, orders = desk.join(), desk.join()
    desk.subscribe(book, BOOK)
    desk.subscribe(orders, ORDERS)
    desk.write(10)
    desk.turn()
    taken(book), taken(orders)
    desk.write(30)
    desk.redis.xtrim(events_key("BTC-USD"), minid="26-0", approximate=False)
    desk.turn()
    view = BookView()
    for message in taken(book):
        view.see(message)
    assert view.snapshots == 1
    assert (view.sequence, (view.bids, view.asks)) == (40, desk.book.sides())
    told = taken(orders)
    assert (told[0]["type"], told[0]["code"], told[0]["sequence"]) == ("error", "gap", 10)
    assert {message["sequence"] for message in told[1:] if message["side"] == "buy"} == {
        *range(26, 41)
    }


def test_what_the_stream_never_brings_is_noticed(desk: Desk) -> None:
    """The book is ahead of a stream that lost its entries: the books start over by themselves."""
    subscriber = desk.join()
    desk.subscribe(subscriber, BOOK)
    desk.turn()
    desk.write(10)
    desk.redis.xtrim(events_key("BTC-USD"), minid="11-0", approximate=False)
    taken(subscriber)
    for _ in range(3):
        desk.now += CHECK_S
        desk.turn()
    messages = taken(subscriber)
    assert [message["type"] for message in messages] == ["book_snapshot"]
    assert messages[0]["sequence"] == 10


def test_a_busy_stream_is_not_taken_for_a_lost_one(desk: Desk) -> None:
    """Events that come between two reads, check after check, are no reason to start over."""
    subscriber = desk.join()
    desk.subscribe(subscriber, BOOK)
    desk.turn()
    taken(subscriber)
    for _ in range(10):
        desk.write(1)
        desk.now += CHECK_S
        desk.turn(1)
    assert {message["type"] for message in taken(subscriber)} == {"book_delta"}


def test_a_history_that_went_back_is_told(desk: Desk) -> None:
    """After a failover that lost events the book starts over at its lower sequence."""
    subscriber = desk.join()
    desk.subscribe(subscriber, BOOK)
    desk.write(10)
    desk.turn()
    taken(subscriber)
    desk.redis.flushall()
    desk.book = TapeBook(seed=9)
    desk.write(4)
    desk.now += CHECK_S
    desk.turn()
    desk.write(2)
    desk.turn()
    messages = taken(subscriber)
    assert messages[0]["type"] == "book_snapshot"
    assert sequences(messages) == [4, 5, 6]


def test_a_book_that_was_rebuilt_starts_over_though_its_sequences_follow(desk: Desk) -> None:
    """Another history, which had grown beyond the old one before anybody looked."""
    subscriber = desk.join()
    desk.subscribe(subscriber, BOOK)
    desk.write(5)
    desk.redis.hset(book_keys("BTC-USD").book, "rebuilt", "1")
    for now in (0.0, CHECK_S):
        desk.now += now
        desk.turn()
    taken(subscriber)
    desk.write(1)
    desk.redis.hset(book_keys("BTC-USD").book, "rebuilt", "2")
    desk.now += CHECK_S
    desk.turn()
    desk.turn()
    messages = taken(subscriber)
    assert messages[-1]["type"] == "book_snapshot"
    assert messages[-1]["sequence"] == 6


@pytest.mark.parametrize(
    "poison",
    [
        {"type": "place"},
        entry(3)[1] | {"orders": "x"},
        entry(3)[1] | {"levels": "bid:1"},
        entry(3)[1] | {"levels": "mid:1=2"},
        entry(3)[1] | {"fills": "1,2"},
    ],
)
def test_a_poison_entry_costs_a_snapshot_and_no_more(desk: Desk, poison: dict[str, str]) -> None:
    """An entry that is no event is logged and passed over; the feed goes on, the book exact."""
    subscriber = desk.join()
    desk.subscribe(subscriber, BOOK)
    desk.write(2)
    desk.turn()
    taken(subscriber)
    desk.book.sequence += 1
    desk.redis.xadd(events_key("BTC-USD"), poison, id="3-0")
    desk.redis.hset(book_keys("BTC-USD").book, "sequence", 3)
    desk.write(4)
    desk.turn()
    view = BookView()
    for message in taken(subscriber):
        view.see(message)
    assert (view.snapshots, view.sequence) == (1, 7)
    assert (view.bids, view.asks) == desk.book.sides()


def test_a_scan_that_was_cut_begins_again(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    """A connection lost during a load: its cursor and pages are worth nothing, nothing is sent of
    them."""
    monkeypatch.setattr("app.feed.reader.SCAN_FIELDS", 10)
    desk.book = TapeBook(prices=2_000)
    desk.write(2_000)
    subscriber = desk.join()
    desk.subscribe(subscriber, BOOK)
    desk.reader.turn()
    (replica,) = desk.hub.loads().values()
    assert replica.cursor != 0
    desk.hub.reload()
    assert (replica.cursor, replica.bids(), replica.asks()) == (0, [], [])


def test_heartbeats_fill_silence(desk: Desk) -> None:
    """After a second without traffic of an instrument, and each second again; with the last
    sequence; not while there is traffic."""
    desk.write(5)
    subscriber = desk.join()
    desk.subscribe(subscriber, ORDERS)
    taken(subscriber)
    desk.now += 0.9
    desk.hub.pulse()
    assert taken(subscriber) == []
    desk.now += 0.2
    desk.hub.pulse()
    beat = {"type": "heartbeat", "instrument": "BTC-USD", "sequence": 5}
    assert taken(subscriber) == [beat]
    desk.hub.pulse()
    assert taken(subscriber) == []
    desk.now += 0.6
    desk.write(1)
    desk.turn()
    taken(subscriber)
    desk.now += 0.6
    desk.hub.pulse()
    assert taken(subscriber) == []
    desk.now += 1.0
    desk.hub.pulse()
    assert taken(subscriber) == [beat | {"sequence": 6}]


def test_heartbeats_are_for_each_instrument(desk: Desk) -> None:
    """Traffic of one instrument does not hide the silence of another."""
    subscriber = desk.join()
    desk.hub.subscribe(subscriber, ORDERS, [BTC, ETH], frame(ACKNOWLEDGED))
    desk.now += 0.9
    desk.write(1)
    desk.turn()
    taken(subscriber)
    desk.now += 0.5
    desk.hub.pulse()
    assert [message["instrument"] for message in taken(subscriber)] == ["ETH-USD"]


def test_a_channel_without_news_of_an_event_still_beats(desk: Desk) -> None:
    """An event that says nothing to a subscriber is no traffic on its connection."""
    subscriber = desk.join()
    desk.subscribe(subscriber, TRADES)
    taken(subscriber)
    desk.now += 1.1
    entry_id, fields = entry(1)
    desk.redis.xadd(events_key("BTC-USD"), fields, id=entry_id)
    desk.redis.hset(book_keys("BTC-USD").book, "sequence", 1)
    desk.turn()
    desk.hub.pulse()
    assert taken(subscriber) == [{"type": "heartbeat", "instrument": "BTC-USD", "sequence": 1}]


def test_a_slow_subscriber_costs_the_others_nothing() -> None:
    """One queue is full and ends; the other subscriber gets every event."""
    queues = iter((Subscriber(messages_max=20), Subscriber()))
    desk = Desk(new=lambda: next(queues))
    slow, quick = desk.join(), desk.join()
    desk.subscribe(slow, BOOK)
    desk.subscribe(quick, BOOK)
    desk.turn()
    taken(quick)
    for _ in range(10):
        desk.write(10)
        desk.turn(1)
    assert sequences(taken(quick)) == [*range(1, 101)]
    assert [message["code"] for message in taken(slow)] == ["slow_consumer"]


def test_sockets_are_limited_and_a_stopped_hub_takes_none() -> None:
    """One more than allowed is refused; a place is free again after a leave; stopping closes all
    with 1001."""
    desk = Desk(most=2)
    first, second = desk.join(), desk.join()
    with pytest.raises(HubFull):
        desk.join()
    desk.hub.leave(first)
    desk.join()
    desk.hub.leave(second)
    desk.hub.stop()
    with pytest.raises(HubFull):
        desk.join()


def test_stopping_closes_every_socket(desk: Desk) -> None:
    """1001, also for one without a subscription."""
    subscriber = desk.join()
    desk.hub.stop()
    assert subscriber.closing is not None
    assert subscriber.closing.code == 1001


def test_subscriptions_are_limited(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    """The batch that would go over the limit changes nothing; asking for the same again does not
    count twice."""
    monkeypatch.setattr(hub_module, "SUBSCRIPTIONS_MAX", 3)
    subscriber = desk.join()
    desk.subscribe(subscriber, BOOK | TRADES)
    desk.subscribe(subscriber, BOOK | TRADES)
    with pytest.raises(TooManySubscriptions):
        desk.hub.subscribe(subscriber, BOOK | TRADES, [ETH], frame(ACKNOWLEDGED))
    assert set(desk.hub.positions()) == {"BTC-USD"}
    desk.hub.unsubscribe(subscriber, BOOK, ["BTC-USD"], frame(ACKNOWLEDGED))
    desk.hub.subscribe(subscriber, BOOK | TRADES, [ETH], frame(ACKNOWLEDGED))


def test_without_redis_a_subscription_is_refused(desk: Desk) -> None:
    """Where a feed would begin is not known then; nothing is acknowledged."""
    subscriber = desk.join()
    desk.server.connected = False
    with pytest.raises(EngineUnavailable):
        desk.subscribe(subscriber, TRADES)
    assert taken(subscriber) == []


def test_a_reader_comes_back_after_every_error(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    """Errors are waited out, ever longer up to a limit, and none ends the reader; whatever scan was
    under way begins again each time."""
    waits: list[float] = []
    reloads: list[None] = []
    monkeypatch.setattr(desk.hub, "reload", lambda: reloads.append(None))
    turns = iter([RedisConnectionError("away")] * 10 + [RuntimeError("a defect")])

    def turn() -> None:
        error = next(turns, None)
        if error is None:
            desk.reader.stop()
        else:
            raise error

    monkeypatch.setattr(desk.reader, "turn", turn)
    monkeypatch.setattr(desk.reader._stopped, "wait", waits.append)
    desk.reader.run()
    assert len(waits) == len(reloads) == 11
    assert waits[0] <= RETRY_S_MIN
    assert RETRY_S_MAX / 2 <= waits[-1] <= RETRY_S_MAX
