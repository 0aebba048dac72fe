"""A book that is not what its callers know of it takes nothing: one that went back in time, one
that was fenced, and, until they have looked at it, one that was rebuilt. All commands, all
processes.
"""

import os
import time
from collections.abc import Callable, Iterator
from typing import Any, Final

import fakeredis
import pytest
from redis import Redis

from app.api.watch import Watch
from app.domain.instruments import DEFAULT_INSTRUMENTS
from app.domain.refusals import Reason, Refusal
from app.domain.rules import Rules
from app.engine import floors, halts
from app.engine.book import Books
from app.engine.commands import Amendment, Cancel, Cancelled, NewOrder, OrderNumber, Placed, Refused
from app.engine.executor import DirectExecutor, EngineUnavailable
from app.engine.floors import BOOKS_MAX, Column, Floors, SharedMemory, Standing
from app.engine.keys import HALTED, BookKeys, book_keys
from app.engine.reads import BookReads
from app.persistence import event_stream

SYMBOL: Final = "BTC-USD"
OTHER: Final = "ETH-USD"
KEYS: Final = book_keys(SYMBOL)


def order(
    price_ticks: int = 100, side: str = "buy", client_id: str = "alice", key: str = ""
) -> NewOrder:
    return NewOrder(
        side=side,
        type="limit",
        time_in_force="gtc",
        price_ticks=price_ticks,
        quantity_lots=1,
        client_id=client_id,
        idempotency_key=key,
        fingerprint=f"of {key}" if key else "",
    )


@pytest.fixture
def client() -> Redis:
    return fakeredis.FakeRedis(server=fakeredis.FakeServer())


class Told:
    """A process: its door to the books, and what it was told of books that are behind."""

    def __init__(self, client: Redis, known: Floors | None = None) -> None:
        self.behind: list[tuple[str, Standing]] = []
        self.books = Books(
            DirectExecutor(client),
            60,
            floors=known,
            tell_behind=lambda *it: self.behind.append(it),
        )


COMMANDS: Final[dict[str, Callable[[Books], object]]] = {
    "place": lambda books: books.place(SYMBOL, order()),
    "amend": lambda books: books.amend(SYMBOL, Amendment(target=OrderNumber(1), quantity_lots=1)),
    "cancel": lambda books: books.cancel(SYMBOL, Cancel(OrderNumber(1))),
    "mass cancel": lambda books: books.mass_cancel(SYMBOL, "alice", "", Reason.KILL_SWITCH),
    "timer": lambda books: books.set_timer(SYMBOL, "alice", 1_000_000),
    "rules": lambda books: books.set_rules(SYMBOL, Rules(max_open_orders=3)),
    "kill switch": lambda books: books.set_kill_switch(SYMBOL, "alice", engaged=True),
    "sweep": lambda books: books.sweep(SYMBOL),
    "depth": lambda books: books.depth(SYMBOL, 1),
    "open": lambda books: books.open(SYMBOL),
}


def contents(client: Redis) -> dict[str, object]:
    """Every key, but for marks of a halt."""
    found: Any = sorted(client.keys("*"))
    held = {key.decode(): client.dump(key) for key in found if key != KEYS.book.encode()}
    book: Any = client.hgetall(KEYS.book)
    marks = {b"suspended", b"fenced", b"rebuilt"}
    return held | {"book": {name: book[name] for name in book if name not in marks}}


def go_back(client: Redis, to: dict[bytes, bytes]) -> None:
    """The book as an older file of Redis's would have it; its other keys are of no matter here."""
    client.delete(KEYS.book)
    client.hset(KEYS.book, mapping=to)  # type: ignore[arg-type]


def book_of(client: Redis) -> dict[bytes, bytes]:
    held: Any = client.hgetall(KEYS.book)
    return dict(held)


def traded(process: Told) -> None:
    process.books.open(SYMBOL)
    for price in (100, 101, 102):
        process.books.place(SYMBOL, order(price))


@pytest.mark.parametrize("command", COMMANDS.values(), ids=COMMANDS)
def test_a_book_that_went_back_takes_nothing(
    client: Redis, command: Callable[[Books], object]
) -> None:
    """Whatever is asked, it is refused, nothing is written, and it is told."""
    process = Told(client)
    traded(process)
    older = book_of(client)
    process.books.place(SYMBOL, order(103))
    go_back(client, older)
    before = contents(client)
    with pytest.raises(Refused) as refused:
        command(process.books)
    assert refused.value.refusal == Refusal.BOOK_BEHIND
    assert contents(client) == before
    assert [(symbol, known.floor) for symbol, known in process.behind] == [(SYMBOL, 4)]


@pytest.mark.parametrize("command", COMMANDS.values(), ids=COMMANDS)
def test_a_fenced_book_takes_nothing(client: Redis, command: Callable[[Books], object]) -> None:
    """Also of processes that know nothing against it."""
    traded(Told(client))
    halts.announce(client, halts.Halt(SYMBOL, 4, "redis_behind", "Redis is at 3, Postgres at 5"))
    before = contents(client)
    process = Told(client)
    with pytest.raises(Refused) as refused:
        command(process.books)
    assert refused.value.refusal == Refusal.BOOK_BEHIND
    assert contents(client) == before
    assert not process.behind, "it says so itself"


def test_a_halt_that_is_withdrawn_lets_everybody_go_on(client: Redis) -> None:
    process = Told(client)
    traded(process)
    halts.announce(client, halts.Halt(SYMBOL, 4, "diverged", "at 3"))
    halts.withdraw(client, SYMBOL)
    assert process.books.place(SYMBOL, order()).sequence == 4
    assert Told(client).books.place(SYMBOL, order()).sequence == 5
    assert not {b"suspended", b"fenced"} & book_of(client).keys()
    assert halts.announced(client, SYMBOL) is None


def test_a_book_that_was_rebuilt_meanwhile_is_not_fenced_for_the_one_before(
    client: Redis,
) -> None:
    process = Told(client)
    traded(process)
    halt = halts.Halt(SYMBOL, 4, "redis_behind", "at 3")
    halts.announce(client, halt, judged=str(int(book_of(client)[b"rebuilt"]) - 1))
    assert process.books.place(SYMBOL, order()).sequence == 4
    halts.announce(client, halt, judged=event_stream.NO_BOOK)
    assert process.books.place(SYMBOL, order()).sequence == 5
    halts.announce(client, halt, judged=book_of(client)[b"rebuilt"].decode())
    with pytest.raises(Refused, match="book_behind"):
        process.books.place(SYMBOL, order())


def test_a_halt_for_what_cannot_be_stored_lets_cancels_pass(client: Redis) -> None:
    """Its history is right: a trader can still get out."""
    process = Told(client)
    traded(process)
    halts.announce(client, halts.Halt(SYMBOL, 4, "poison", "event 4"))
    with pytest.raises(Refused, match="instrument_halted"):
        process.books.place(SYMBOL, order())
    assert process.books.cancel(SYMBOL, Cancel(OrderNumber(1))).sequence == 4


def test_several_at_once_are_refused_one_by_one(client: Redis) -> None:
    process = Told(client)
    traded(process)
    older = book_of(client)
    process.books.place(SYMBOL, order())
    go_back(client, older)
    outcomes = process.books.run_all(SYMBOL, [order(), Cancel(OrderNumber(1))])
    assert [str(outcome) for outcome in outcomes] == ["book_behind"] * 2


def test_what_postgres_knows_is_a_floor_for_a_process_that_was_just_started(
    client: Redis,
) -> None:
    traded(Told(client))
    process = Told(client)
    process.books.know(SYMBOL, 4)
    with pytest.raises(Refused, match="book_behind"):
        process.books.place(SYMBOL, order())
    current = Told(client)
    current.books.know(SYMBOL, 3)
    assert current.books.place(SYMBOL, order()).sequence == 4


def test_no_empty_book_is_opened_over_one_that_was_lost(client: Redis) -> None:
    """Nothing of it was written down yet, so only this process knows."""
    process = Told(client)
    traded(process)
    client.flushall()
    with pytest.raises(Refused, match="book_missing"):
        process.books.open(SYMBOL)
    assert not client.exists(KEYS.book)


def test_a_rebuilt_book_is_taken_for_what_it_is(
    client: Redis, caplog: pytest.LogCaptureFixture
) -> None:
    """Also with a lower sequence: it says that it was made later. What it lacks is said once. All
    commands of a write are carried out then, in their order.
    """
    process = Told(client)
    traded(process)
    older = book_of(client)
    process.books.place(SYMBOL, order())
    rebuilt = int(older[b"rebuilt"]) + 1
    go_back(client, older | {b"rebuilt": str(rebuilt).encode()})
    client.delete(KEYS.events)
    caplog.clear()
    outcomes = process.books.run_all(SYMBOL, [order(), Cancel(OrderNumber(1)), order()])
    sequences = [it.sequence for it in outcomes if isinstance(it, (Placed, Cancelled))]
    assert sequences == [4, 5, 6]
    assert not process.behind
    (said,) = caplog.records
    assert (said.acknowledged, said.is_at) == (4, 3)  # type: ignore[attr-defined]


def test_an_older_file_than_the_last_rebuild_is_not_taken_for_a_new_one(client: Redis) -> None:
    process = Told(client)
    traded(process)
    older = book_of(client)
    client.hset(KEYS.book, "rebuilt", str(int(older[b"rebuilt"]) + 1))
    process.books.place(SYMBOL, order())
    go_back(client, older | {b"sequence": b"9"})
    with pytest.raises(Refused, match="book_changed"):
        process.books.place(SYMBOL, order())
    ((_, known),) = process.behind
    assert halts.announce_lost(client, SYMBOL, known) is not None
    with pytest.raises(Refused, match="book_behind"):
        process.books.place(SYMBOL, order())


class TestLateness:
    """What lies in the socket of a Redis that stands still is given up by those who sent it."""

    @pytest.fixture
    def late(self, client: Redis, monkeypatch: pytest.MonkeyPatch) -> Told:
        """A process whose commands reach Redis a microsecond after it has given them up."""
        process = Told(client)
        traded(process)
        monkeypatch.setattr(floors, "LATE_AFTER_US", -1)
        return process

    @pytest.mark.parametrize(
        "command",
        [command for name, command in COMMANDS.items() if name not in ("depth", "open")],
        ids=[name for name in COMMANDS if name not in ("depth", "open")],
    )
    def test_a_command_that_comes_too_late_does_nothing(
        self, client: Redis, late: Told, command: Callable[[Books], object]
    ) -> None:
        before = contents(client)
        with pytest.raises(Refused, match="too_late"):
            command(late.books)
        assert contents(client) == before

    def test_it_is_redis_that_says_when_however_far_ahead_the_book_is(
        self, client: Redis, late: Told
    ) -> None:
        """As after Redis's clock was set back by an hour: the book's stands still meanwhile."""
        client.hset(KEYS.book, "time", (int(time.time()) + 3600) * 1_000_000)
        with pytest.raises(Refused, match="too_late"):
            late.books.place(SYMBOL, order())

    def test_a_book_that_is_ahead_does_not_give_others_more_time(
        self, client: Redis, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        process = Told(client)
        traded(process)
        client.hset(KEYS.book, "time", (int(time.time()) + 3600) * 1_000_000)
        process.books.place(SYMBOL, order())
        monkeypatch.setattr(floors, "LATE_AFTER_US", -1)
        process.books.open(OTHER)
        with pytest.raises(Refused, match="too_late"):
            process.books.place(OTHER, order())

    def test_a_clock_that_leaps_ahead_is_learnt_of_at_once(
        self, client: Redis, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Redis says what time it is when it refuses, and the command is sent again."""
        process = Told(client)
        traded(process)
        later = time.time() + 3600
        monkeypatch.setattr(fakeredis.commands_mixins.server_mixin.time, "time", lambda: later)
        placed = process.books.place(SYMBOL, order())
        assert placed.sequence == 4
        outcomes = process.books.run_all(SYMBOL, [order(), order()])
        assert [it.sequence for it in outcomes if isinstance(it, Placed)] == [5, 6]

    def test_a_clock_that_is_set_back_stops_nobody(
        self, client: Redis, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        process = Told(client)
        traded(process)
        earlier = time.time() - 3600
        monkeypatch.setattr(fakeredis.commands_mixins.server_mixin.time, "time", lambda: earlier)
        assert process.books.place(SYMBOL, order()).sequence == 4
        assert Told(client).books.place(SYMBOL, order()).sequence == 5

    def test_a_process_that_knows_no_time_learns_it_before_its_first_command(
        self, client: Redis
    ) -> None:
        process = Told(client)
        process.books.open(SYMBOL)
        assert process.books.place(SYMBOL, order()).sequence == 1
        latest_us = int(process.books.floors.clock.latest())
        assert 0 < latest_us - time.time() * 1_000_000 <= floors.LATE_AFTER_US


class TestFencing:
    """What a process does that finds a book behind."""

    def test_the_halt_says_what_is_lost(self, client: Redis) -> None:
        traded(Told(client))
        known = Standing(int(book_of(client)[b"rebuilt"]), 7)
        halt = halts.announce_lost(client, SYMBOL, known)
        assert halt == halts.Halt(
            SYMBOL, 4, "acknowledged_lost", "Redis is at 3, and 7 was acknowledged", 7
        )
        assert halts.announced(client, SYMBOL) == halt
        assert book_of(client)[b"fenced"] == b"acknowledged_lost"

    def test_only_an_operator_gives_it_up(self, client: Redis) -> None:
        """Not a persister, to which all looks well, and not by another halt that it has found."""
        traded(Told(client))
        known = Standing(int(book_of(client)[b"rebuilt"]), 7)
        lost = halts.announce_lost(client, SYMBOL, known)
        halts.announce(client, halts.Halt(SYMBOL, 4, "redis_behind", "at 3"))
        assert not halts.withdraw(client, SYMBOL)
        assert halts.announced(client, SYMBOL) == lost
        assert book_of(client)[b"fenced"] == b"acknowledged_lost"
        halts.give_up_lost(client, SYMBOL)
        assert halts.announced(client, SYMBOL) is None
        assert Told(client).books.place(SYMBOL, order()).sequence == 4

    def test_once_is_enough(self, client: Redis) -> None:
        traded(Told(client))
        known = Standing(int(book_of(client)[b"rebuilt"]), 7)
        assert halts.announce_lost(client, SYMBOL, known)
        client.delete(HALTED)
        assert halts.announce_lost(client, SYMBOL, known) is None
        assert not client.exists(HALTED)

    @pytest.mark.parametrize("how", ["rebuilt since", "there again", "not there"])
    def test_a_book_that_is_right_by_now_is_left_alone(self, client: Redis, how: str) -> None:
        traded(Told(client))
        rebuilt = int(book_of(client)[b"rebuilt"])
        known = {"rebuilt since": Standing(rebuilt - 1, 7), "there again": Standing(rebuilt, 3)}
        if how == "not there":
            client.flushall()
        before = contents(client)
        assert halts.announce_lost(client, SYMBOL, known.get(how, Standing(rebuilt, 7))) is None
        assert contents(client) == before


class TestFloors:
    """What processes know of each other."""

    def test_what_one_process_acknowledged_is_a_floor_for_all(self, client: Redis) -> None:
        memory = SharedMemory(columns=3)
        first, second = (Told(client, Floors(memory, column)) for column in (0, 2))
        second.books.know("ETH-USD", 1)
        traded(first)
        older = book_of(client)
        first.books.place(SYMBOL, order())
        go_back(client, older)
        with pytest.raises(Refused, match="book_behind"):
            second.books.place(SYMBOL, order())

    def test_a_rebuilt_book_is_learnt_of_by_one_for_all(self) -> None:
        memory = SharedMemory(columns=2)
        first, second = Floors(memory, 0), Floors(memory, 1)
        first.adopt("b", 10, 0)
        first.raise_to("b", 7)
        assert second.of("b") == (10, 7)
        assert second.adopt("b", 20, 5)
        assert first.of("b") == (20, 5)
        first.raise_to("b", 6)
        assert second.of("b") == (20, 6)
        assert not first.adopt("b", 10, 9)

    def test_who_learns_of_a_book_late_lowers_nothing(self) -> None:
        """Two callers of a process had sent their commands before either knew the book."""
        own = Floors()
        assert own.adopt("b", 10, 5)
        own.raise_to("b", 7)
        assert own.adopt("b", 10, 6)
        assert own.of("b") == (10, 7)

    def test_a_floor_never_sinks(self) -> None:
        own = Floors()
        for sequence, floor in ((3, 3), (2, 3), (4, 4)):
            own.raise_to("b", sequence)
            assert own.of("b").floor == floor

    def test_another_process_sees_it_after_a_fork(self) -> None:
        memory = SharedMemory(columns=2)
        ours = Floors(memory, 0)
        child = os.fork()
        if not child:
            Floors(memory, 1).raise_to("b", 2**62)
            os._exit(0)
        os.waitpid(child, 0)
        assert ours.of("b").floor == 2**62

    def test_every_book_has_a_place_of_its_own(self) -> None:
        column = Column(memoryview(bytearray(BOOKS_MAX * 3 * 8)).cast("Q"))
        books = [book_keys(f"S{number}-USD").book for number in range(BOOKS_MAX)]
        for number, book in enumerate(books):
            column.put(book, Standing(1, number))
        assert [column.get(book).floor for book in books] == list(range(BOOKS_MAX))
        with pytest.raises(RuntimeError, match="more than"):
            column.put("one more", Standing())

    def test_a_worker_takes_the_column_that_is_free(self) -> None:
        assert SharedMemory.free_column([]) == 0
        assert SharedMemory.free_column([0, 1, 3]) == 2


PATHS: Final = {
    "rests": (),
    "is filled by plain makers": (order(side="sell", client_id="bob"),),
    "meets an order of its own client": (order(side="sell"),),
}


@pytest.mark.parametrize("before", PATHS.values(), ids=PATHS)
def test_an_event_tells_the_payload_of_its_key(client: Redis, before: tuple[NewOrder, ...]) -> None:
    """What an idempotency record can be made again from, on each way that an order may take."""
    books = Told(client).books
    books.open(SYMBOL)
    for one in before:
        books.place(SYMBOL, one)
    details = list(told(client, KEYS))
    assert details == [None] * len(before)
    books.place(SYMBOL, order(key="k"))
    assert list(told(client, KEYS))[-1] == b"of k"
    record: Any = client.hget(KEYS.idempotency_0, "alice|k")
    assert record.split(b"|")[1] == b"of k"


def told(client: Redis, keys: BookKeys) -> Iterator[bytes | None]:
    """`detail` of each event."""
    entries: Any = client.xrange(keys.events)
    return (fields.get(b"detail") for _, fields in entries)


class TestWatch:
    """What a process does when Redis is another one than before."""

    def test_a_book_that_went_back_is_found_without_a_command(self, client: Redis) -> None:
        process, reads = Told(client), BookReads(client)
        traded(process)
        reads.announce(DEFAULT_INSTRUMENTS[0])
        run_ids = ["first", "first", "second"]
        reads.run_id = lambda: run_ids.pop(0)  # type: ignore[method-assign]
        watch = Watch(process.books, reads)
        assert watch.step()
        assert not process.behind
        older = book_of(client)
        process.books.place(SYMBOL, order())
        go_back(client, older)
        assert not watch.step(), "it is the same Redis"
        assert watch.step()
        assert [(symbol, known.floor) for symbol, known in process.behind] == [(SYMBOL, 4)]

    def test_a_look_that_was_cut_short_is_done_again(self, client: Redis) -> None:
        process, reads = Told(client), BookReads(client)
        reads.run_id = lambda: "first"  # type: ignore[method-assign]
        watch = Watch(process.books, reads)
        instruments, reads.instruments = reads.instruments, away  # type: ignore[method-assign]
        with pytest.raises(EngineUnavailable):
            watch.step()
        reads.instruments = instruments  # type: ignore[method-assign]
        assert watch.step()
        assert not watch.step()


def away() -> list[Any]:
    raise EngineUnavailable("away")
