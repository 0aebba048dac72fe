"""`python -m app rebuild`: whatever became of Redis, the books that Postgres remembers are there
again, key by key as in a Redis that never broke, and trading goes on; what is newer stays.
"""

import json
import os
import random
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import replace
from itertools import islice
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Final, NamedTuple

import pytest

from app.embedded.stores import Stores
from app.engine import halts
from app.engine.halts import Halt
from app.engine.keys import book_keys, rebuild_keys
from app.engine.layout import read_book
from app.persistence.rebuild import LOCK_ID, Wish
from app.persistence.rebuild import rebuild as rebuilding
from tests import tapes
from tests.audit import audit
from tests.commands import Command, Place, Tick, limit
from tests.differential import COMMANDS_AT_ONCE, PipelinedVenue
from tests.reference import START_US
from tests.rest import an_order, check_problem
from tests.system import ROOT, System
from tests.venue import TTL_S, EngineVenue
from tests.waiting import wait_for

COMMANDS: Final = 1_500
MORE: Final = 300
KILLS: Final = 6
MAY_SEND: Final = 5
"""Things that a rebuild sends to Redis where there is a halt to be withdrawn."""
TIMEOUT_S: Final = 60.0
POSITION: Final = "SELECT sequence FROM stream_positions WHERE instrument = %s"
NOT_COMPARED: Final = frozenset(
    {b"rebuilt", b"idempotency_generation", b"idempotency_rotated", b"trigger_low", b"trigger_high"}
)
"""Fields of a book's hash: when it was made, how old keys are dropped, and a range that may outlast
the stops that waited.
"""
UNTICK: Final = """
local last = redis.call('XREVRANGE', KEYS[2], '+', '-', 'COUNT', 1)[1]
redis.call('HSET', KEYS[1], 'time', last[2][4])
"""
"""Sets a book's clock back to its last event, from where a tape has moved it."""
DIES: Final = """
import os, signal, sys
from redis.connection import AbstractConnection
from app.cli import main
left, send = int(sys.argv[1]), AbstractConnection.send_packed_command
def dying(*args, **more):
    global left
    left -= 1
    if left <= 0:
        os.kill(os.getpid(), signal.SIGKILL)
    return send(*args, **more)
AbstractConnection.send_packed_command = dying
code = main(sys.argv[2:])
print(int(sys.argv[1]) - left, file=sys.stderr)
sys.exit(code)
"""
"""A command that is killed before it sends as many things to Redis (a pipeline is one), or else
says in its last line how many it has sent.
"""

pytestmark = pytest.mark.slow


class Said(NamedTuple):
    """What a command said, and how it ended."""

    code: int
    out: str
    err: str


@pytest.fixture(scope="module")
def system() -> Iterator[System]:
    """One of our own, which loses its Redis now and then: it says so as errors in its log."""
    with TemporaryDirectory(prefix="crossbook-", ignore_cleanup_errors=True) as folder:
        system = System(Path(folder))
        try:
            system.start()
            yield system
        finally:
            system.stop()


def command(system: System, *arguments: str, program: tuple[str, ...] = ("-m", "app")) -> Said:
    """`python -m app …` on the system's data folder, as a person beside it would type it."""
    environ = {"PATH": os.environ["PATH"], "DATA_DIR": str(system.data_dir)}
    done = subprocess.run(
        [sys.executable, *program, *arguments],
        check=False,
        capture_output=True,
        cwd=ROOT,
        env=environ,
        text=True,
        timeout=TIMEOUT_S,
    )
    return Said(done.returncode, done.stdout, done.stderr)


def rebuild(system: System, *symbols: str, discard_newer: bool = False) -> Said:
    """As the command of that name says it, without a process of its own."""
    stores, wish = stores_of(system), Wish(symbols, discard_newer=discard_newer)
    outcomes = list(rebuilding(stores.redis_url, stores.database_url, TTL_S, wish))
    is_well = all(outcome.is_well for outcome in outcomes)
    return Said(0 if is_well else 1, "".join(f"{one.line()}\n" for one in outcomes), "")


def stores_of(system: System) -> Stores:
    """Of the running system."""
    return Stores(**json.loads((system.data_dir / "stores.json").read_text()))


def rebuilt(system: System, symbol: str) -> str:
    """What a rebuild of one instrument that must succeed says."""
    said = rebuild(system, symbol)
    assert said.code == 0, said
    return said.out


def trade(system: System, symbol: str, rng: random.Random, count: int = COMMANDS) -> None:
    """Commands of every kind, past the API; the sweeper sweeps in between."""
    venue = PipelinedVenue(system.redis, symbol=symbol)
    if not system.redis.hexists(venue.keys.book, "time"):
        system.redis.hset(venue.keys.book, "time", str(START_US))
    tape = auditable(tapes.commands(rng.randrange(2**32), count))
    while commands := list(islice(tape, COMMANDS_AT_ONCE)):
        venue.apply_all(commands)
    # What is due is done now, so that no sweep comes between two looks.
    assert venue.books.sweep(symbol)
    system.redis.eval(UNTICK, 2, venue.keys.book, venue.keys.events)


def auditable(commands: Iterator[Command]) -> Iterator[Command]:
    """Without what an event does not tell: how large a taker was before it was decremented."""
    for one in commands:
        is_told = not isinstance(one, Place) or one.self_trade_prevention != "decrement"
        yield one if is_told else replace(one, self_trade_prevention="cancel_both")


def held(system: System, symbol: str) -> dict[str, object]:
    """Every key of an instrument, but for what may differ; both generations of keys as one."""
    contents: Any = system.contents(symbol)
    book = f"{{{symbol}}}:book"
    fields = contents.get(book, {})
    contents[book] = {name: text for name, text in fields.items() if name not in NOT_COMPARED}
    uses: dict[bytes, bytes] = {}
    for generation in "01":
        uses |= contents.pop(f"{{{symbol}}}:idempotency:{generation}", {})
    return {**contents, "uses": uses}


def keys_of(system: System, symbol: str) -> dict[bytes, bytes]:
    """The keys of an instrument as Redis would move them."""
    names: Any = system.redis.keys(f"{{{symbol}}}:*")
    return {name: system.redis.dump(name) for name in names}  # type: ignore[misc]


def put_back(system: System, symbol: str, keys: dict[bytes, bytes]) -> None:
    """As an old file would: what there is now is gone."""
    names: Any = system.redis.keys(f"{{{symbol}}}:*")
    system.redis.delete(*names)
    for name, dump in keys.items():
        system.redis.restore(name, 0, dump)


def digest_in(system: System, symbol: str) -> str:
    """Of the book that lies in Redis."""
    return read_book(system.redis, symbol).digest()


def test_a_redis_that_lost_everything_is_as_if_it_never_had(
    system: System, rng: random.Random
) -> None:
    """While API, persister and sweeper run; the next order has the next sequence."""
    symbols = [system.list_instrument() for _ in range(2)]
    for symbol in symbols:
        trade(system, symbol, rng)
    system.settled()
    before = {symbol: held(system, symbol) for symbol in symbols}
    digests = {symbol: digest_in(system, symbol) for symbol in symbols}
    sequences = system.sequences()
    system.redis.flushall()
    said = command(system, "rebuild")
    assert said.code == 0, said
    for symbol in symbols:
        assert f"{symbol} sequence {sequences[symbol]} digest {digests[symbol]} rebuilt" in said.out
        assert held(system, symbol) == before[symbol]
        assert digest_in(system, symbol) == digests[symbol]
        trade(system, symbol, rng, MORE)
        audit(system, symbol)


def test_a_redis_that_went_back_in_time_is_brought_forward(
    system: System, rng: random.Random
) -> None:
    symbol = system.list_instrument()
    trade(system, symbol, rng, MORE)
    old = keys_of(system, symbol)
    trade(system, symbol, rng, MORE)
    system.settled()
    before = held(system, symbol)
    put_back(system, symbol, old)
    # Left by an attempt that was killed.
    system.redis.hset(rebuild_keys(symbol).book, "bid:9999", "5")
    system.redis.xadd(rebuild_keys(symbol).events, {"left": "over"}, id="999999-0")
    assert "rebuilt" in rebuilt(system, symbol)
    assert held(system, symbol) == before
    audit(system, symbol)


def test_a_book_that_is_whole_is_left_alone(system: System, rng: random.Random) -> None:
    symbol = system.list_instrument()
    trade(system, symbol, rng, MORE)
    system.settled()
    before = keys_of(system, symbol)
    said = rebuilt(system, symbol)
    digest = digest_in(system, symbol)
    sequence = system.sequences()[symbol]
    assert said == f"{symbol} sequence {sequence} digest {digest} nothing to do\n"
    assert keys_of(system, symbol) == before


def test_an_instrument_that_never_traded_is_opened(system: System) -> None:
    symbol = system.list_instrument()
    before = held(system, symbol)
    put_back(system, symbol, {})
    assert rebuilt(system, symbol).endswith("opened, empty\n")
    assert held(system, symbol) == before


def test_events_that_postgres_has_not_yet_are_kept(system: System, rng: random.Random) -> None:
    """Also by a rebuild that may discard: the persister will write them."""
    symbol = system.list_instrument()
    trade(system, symbol, rng, MORE)
    system.settled()
    with system.paused("persist"):
        position = system.sequences()[symbol]
        trade(system, symbol, rng, MORE)
        before = keys_of(system, symbol)
        more = system.sequences()[symbol] - position
        for discard_newer in (False, True):
            said = rebuild(system, symbol, discard_newer=discard_newer)
            expected = f"has {more} events that Postgres has not: let the persister write them"
            assert (said.code, said.out) == (1, f"{symbol} {expected}\n")
        assert keys_of(system, symbol) == before
    audit(system, symbol)


def test_a_redis_that_went_another_way_is_replaced_on_demand_only(
    system: System, rng: random.Random
) -> None:
    symbol = system.list_instrument()
    trade(system, symbol, rng, MORE)
    old = keys_of(system, symbol)
    trade(system, symbol, rng, MORE)
    system.settled()
    right, position = held(system, symbol), system.sequences()[symbol]
    with system.paused("persist"):
        put_back(system, symbol, old)
        while system.sequences()[symbol] <= position:
            trade(system, symbol, rng, MORE)
        wrong, more = keys_of(system, symbol), system.sequences()[symbol] - position
        said = rebuild(system, symbol)
        assert said.code == 1
        assert f"gives up {more} events" in said.out
        assert keys_of(system, symbol) == wrong
        said = command(system, "rebuild", "--instrument", symbol, "--discard-newer")
        assert said.code == 0, said
        assert f"{more} events discarded" in said.out
        assert held(system, symbol) == right
    audit(system, symbol)


def test_events_that_nobody_can_write_down_are_given_up_on_demand(
    system: System, rng: random.Random
) -> None:
    """What the persister halted for is gone with them, and the halt is withdrawn."""
    symbol = system.list_instrument()
    trade(system, symbol, rng, MORE)
    system.settled()
    right = held(system, symbol)
    with system.paused("persist"):
        trade(system, symbol, rng, MORE)
        # Given up are these two, and so no part of what one command or sweep set off.
        for engaged in (True, False):
            switch = {"client_id": "nobody", "engaged": engaged, "instrument": symbol}
            assert system.api.request("POST", "/admin/kill-switch", switch).status == 200
        sequence = system.sequences()[symbol]
        system.redis.xdel(f"{{{symbol}}}:events", f"{sequence - 1}-0")
    wait_for(lambda: (halt := halts.announced(system.redis, symbol)) and halt.code == "gap")
    wait_for(lambda: system.rows(POSITION, symbol) == [(sequence - 2,)])
    assert rebuild(system, symbol).code == 1
    said = rebuild(system, symbol, discard_newer=True)
    assert said.code == 0, said
    assert "2 events discarded" in said.out
    assert halts.announced(system.redis, symbol) is None
    assert held(system, symbol) != right
    trade(system, symbol, rng, MORE)
    audit(system, symbol)


Damage = Callable[[System, str], object]
DAMAGES: Final[dict[str, Damage]] = {
    "a level's total": lambda s, book: s.redis.hincrby(book, _first(s, book, b"bid:"), 1),
    "an order's record": lambda s, book: s.redis.hdel(book, _first(s, book, b"0")),
    "a stray field": lambda s, book: s.redis.hset(book, "bid:9999", "5"),
    "a client's count": lambda s, book: s.redis.hincrby(book, _first(s, book, b"open:"), 1),
    "the last price": lambda s, book: s.redis.hincrby(book, "last", 1),
    "a score": lambda s, book: s.redis.zincrby(_of(book, "bids"), 1, _member(s, book, "bids")),
    "a member": lambda s, book: s.redis.zrem(_of(book, "asks"), _member(s, book, "asks")),
    "a stray member": lambda s, book: s.redis.zadd(_of(book, "asks"), {"0" * 14: 5}),
    "an owner": lambda s, book: s.redis.zrem(_of(book, "owners"), _member(s, book, "owners")),
    "a timer": lambda s, book: s.redis.zadd(_of(book, "timers"), {"nobody": START_US * 2}),
    "a client order id": lambda s, book: s.redis.hset(_of(book, "client_order_ids"), "a|b", "1"),
    "all expiries": lambda s, book: s.redis.zadd(_of(book, "expiries"), {"1" * 14: START_US * 2}),
    "a fence": lambda s, book: s.redis.hset(book, "fenced", "redis_behind"),
    "an event of nobody": lambda s, book: s.redis.xadd(
        _of(book, "events"), {"who": "me"}, "9999-0"
    ),
    "its newest event": lambda s, book: s.redis.xdel(_of(book, "events"), _newest(s, book)),
    "another layout": lambda s, book: s.redis.hset(book, "schema", "1"),
}


def _of(book: str, name: str) -> str:
    return book.removesuffix("book") + name


def _first(system: System, book: str, start: bytes) -> bytes:
    names: Any = system.redis.hkeys(book)
    return min(name for name in names if name.startswith(start))


def _member(system: System, book: str, name: str) -> bytes:
    members: Any = system.redis.zrange(_of(book, name), 0, 0)
    return bytes(members[0])


def _newest(system: System, book: str) -> bytes:
    entries: Any = system.redis.xrevrange(_of(book, "events"), count=1)
    return bytes(entries[0][0])


@pytest.fixture(scope="module")
def whole(system: System) -> str:
    """An instrument with something of every kind, at rest."""
    symbol = system.list_instrument()
    rng = random.Random(5)
    wait_for(lambda: trade(system, symbol, rng, MORE) or _is_rich(system, symbol))
    system.settled()
    return symbol


def _is_rich(system: System, symbol: str) -> bool:
    sets = (f"{{{symbol}}}:{name}" for name in ("bids", "asks"))
    return all(system.redis.zcard(name) for name in sets)


@pytest.mark.parametrize("what", DAMAGES)
def test_a_book_that_is_not_what_its_events_make_it_is_made_again(
    system: System, whole: str, what: str
) -> None:
    """Whatever it is: nothing stray stays, nothing that is missing is missed."""
    before = held(system, whole)
    DAMAGES[what](system, f"{{{whole}}}:book")
    assert held(system, whole) != before
    assert " rebuilt" in rebuilt(system, whole)
    assert held(system, whole) == before


@pytest.mark.parametrize("are_more", [False, True], ids=["all in Postgres", "more in Redis"])
def test_a_book_that_lost_what_nobody_has_is_opened_again(
    system: System, rng: random.Random, are_more: bool
) -> None:
    """The API found that clients were told of more than Redis and Postgres have together."""
    symbol = system.list_instrument()
    trade(system, symbol, rng, MORE)
    system.settled()
    with system.paused("persist"):
        if are_more:
            trade(system, symbol, rng, MORE)
        before, sequence = held(system, symbol), system.sequences()[symbol]
        halt = Halt(symbol, sequence + 1, "acknowledged_lost", "it lacks some", sequence + 9)
        halts.announce(system.redis, halt)
        check_problem(system.api.place(an_order(symbol)), 503, "book_behind", "/orders")
        assert f"without {sequence + 1} to {sequence + 9}, which" in rebuilt(system, symbol)
        assert held(system, symbol) == before
        assert halts.announced(system.redis, symbol) is None
    audit(system, symbol)


def test_no_persister_goes_on_with_what_it_had_read_of_the_book_before(system: System) -> None:
    """It stands still with its connection while the book is replaced."""
    symbol = system.list_instrument()
    system.api.placed(an_order(symbol))
    system.settled()
    with system.paused("persist"):
        before = persisters(system)
        assert before
        system.redis.delete(*book_keys(symbol))
        assert " rebuilt" in rebuilt(system, symbol)
        assert not before & persisters(system)
    system.api.placed(an_order(symbol))
    audit(system, symbol)


def persisters(system: System) -> set[int]:
    """Processes of Postgres that serve one."""
    found = system.rows(
        "SELECT pid FROM pg_stat_activity WHERE application_name = 'crossbook persister'"
    )
    return {pid for (pid,) in found}


@pytest.mark.parametrize(
    ("key", "damage"),
    [
        ("bids", ("ZADD", "1", "junk")),
        ("book", ("HSET", "00000000000001", "junk")),
        ("client_order_ids", ("HSET", "x|y", "junk")),
        ("owners", ("SET", "junk")),
    ],
)
def test_a_book_with_junk_in_it_is_made_again(
    system: System, key: str, damage: tuple[str, ...]
) -> None:
    """Whatever somebody wrote into it by hand."""
    symbol = system.list_instrument()
    system.api.placed(an_order(symbol))
    system.settled()
    before = held(system, symbol)
    name = getattr(book_keys(symbol), key)
    if damage[0] == "SET":
        system.redis.delete(name)
    system.redis.execute_command(damage[0], name, *damage[1:])
    assert " rebuilt" in rebuilt(system, symbol)
    assert held(system, symbol) == before


def test_what_a_rebuild_that_was_cut_short_has_left_undone_is_done_by_the_next_start(
    system: System,
) -> None:
    """Some books are there again, and the listing; one is not."""
    whole, lost = system.list_instrument(), system.list_instrument()
    for symbol in (whole, lost):
        system.api.placed(an_order(symbol))
    system.settled()
    before = held(system, lost)
    system.redis.delete(*book_keys(lost))
    done = system.run("rebuild", "--if-empty")
    assert done.returncode == 0, done.stdout + done.stderr
    assert [line.split()[0] for line in done.stdout.splitlines()] == [lost]
    assert held(system, lost) == before


def test_a_listing_that_was_damaged_is_whole_again_whatever_becomes_of_the_book(
    system: System,
) -> None:
    """The persister waits for the listing, and the rebuild for the persister."""
    symbol = system.list_instrument()
    listed = system.redis.hget("instruments", symbol)
    system.settled()
    with system.paused("persist"):
        system.api.placed(an_order(symbol))
        system.redis.hset("instruments", symbol, "{")
        done = system.run("rebuild", "--instrument", symbol)
        assert "let the persister write them" in done.stdout
        assert system.redis.hget("instruments", symbol) == listed
    system.settled()
    audit(system, symbol)


def test_an_idempotency_key_means_after_it_what_it_meant_before(system: System) -> None:
    """The first answer again, also of an order that is over; another payload is still refused."""
    symbol = system.list_instrument()
    resting = system.api.place(an_order(symbol, side="sell"), key="first")
    taking = system.api.place(an_order(symbol), key="second")
    system.settled()
    put_back(system, symbol, {})
    rebuilt(system, symbol)
    for first, body, key in (
        (resting, an_order(symbol, side="sell"), "first"),
        (taking, an_order(symbol), "second"),
    ):
        again = system.api.place(body, key=key)
        assert again.is_replayed
        assert (again.status, again.body) == (first.status, first.body)
    reused = system.api.place(an_order(symbol, quantity="6"), key="first")
    check_problem(reused, 422, "idempotency_key_reused", "/orders")
    assert system.api.placed(an_order(symbol), key="third")["order"]["sequence"] == 3


def test_a_key_that_is_too_old_is_free_after_it(system: System) -> None:
    """As it would be without it."""
    symbol = system.list_instrument()
    venue = EngineVenue(system.redis, symbol=symbol)
    system.redis.hset(venue.keys.book, "time", str(START_US))
    for key in ("old", "new", "newest"):
        venue.apply(replace(limit("alice", "buy", 10, 5), idempotency_key=key))
        venue.apply(Tick(10_000_000))
    system.redis.eval(UNTICK, 2, venue.keys.book, venue.keys.events)
    system.settled()
    put_back(system, symbol, {})
    stores = stores_of(system)
    list(rebuilding(stores.redis_url, stores.database_url, 11, Wish((symbol,))))
    held: Any = system.redis.hkeys(venue.keys.idempotency_0)
    assert sorted(held) == [b"alice|new", b"alice|newest"]


def test_a_rebuild_that_is_killed_anywhere_is_done_again(
    system: System, rng: random.Random
) -> None:
    """Before each thing that it sends to Redis, or so it comes to in time: some are tried."""
    symbol = system.list_instrument()
    trade(system, symbol, rng, MORE)
    system.settled()
    before = held(system, symbol)
    put_back(system, symbol, {})
    said = command(system, "rebuild", "--instrument", symbol, program=("-c", DIES, "1000000"))
    sends = int(said.err.splitlines()[-1])
    for send in sorted(rng.sample(range(1, sends + 1), KILLS)):
        put_back(system, symbol, {})
        program = ("-c", DIES, str(send))
        said = command(system, "rebuild", "--instrument", symbol, program=program)
        # At its end it has some things more to send where the persister has halted it meanwhile.
        assert said.code == -signal.SIGKILL or (said.code == 0 and send > sends - MAY_SEND), said
        book = system.redis.hget(f"{{{symbol}}}:book", "schema")
        whole = None if book is None else _without_rests(held(system, symbol))
        assert whole in (None, before), "there is none, or all of it"
        rebuilt(system, symbol)
        assert held(system, symbol) == before
    audit(system, symbol)


def _without_rests(contents: dict[str, object]) -> dict[str, object]:
    return {name: held for name, held in contents.items() if ":rebuild:" not in name}


def test_two_rebuilds_at_once_are_one_too_many(system: System, symbol_of_its_own: str) -> None:
    """The second says so and does nothing."""
    with system.postgres() as connection:
        connection.execute("SELECT pg_advisory_lock(%s)", (LOCK_ID,))
        said = command(system, "rebuild", "--instrument", symbol_of_its_own)
    assert (said.code, said.out) == (1, "")
    assert "crossbook: another rebuild is running on this database\n" in said.err


def test_an_unknown_instrument_is_named(system: System) -> None:
    said = command(system, "rebuild", "--instrument", "NO-SUCH")
    assert (said.code, said.out) == (1, "")
    assert "crossbook: no instrument NO-SUCH was ever listed\n" in said.err


@pytest.fixture
def symbol_of_its_own(system: System) -> str:
    """A fresh instrument."""
    return system.list_instrument()


def test_events_that_make_no_book_are_named_and_nothing_is_replaced(
    system: System, rng: random.Random
) -> None:
    symbol = system.list_instrument()
    trade(system, symbol, rng, MORE)
    system.settled()
    before = keys_of(system, symbol)
    system.redis.hset(f"{{{symbol}}}:book", "bid:9999", "5")
    damaged = keys_of(system, symbol)
    with system.postgres() as connection:
        connection.execute(
            "UPDATE events SET levels = 'bid:1=1' WHERE instrument = %s AND sequence = 100",
            (symbol,),
        )
    said = rebuild(system, symbol)
    assert said.code == 1
    assert said.out.startswith(f"{symbol} cannot be rebuilt: {symbol} event 100: levels 'bid:1=1'")
    assert keys_of(system, symbol) == damaged
    put_back(system, symbol, before)


def test_a_stopped_system_is_rebuilt_and_stopped_again(rng: random.Random) -> None:
    """And `up` does it by itself: nobody who starts it has to know that a disk was lost."""
    with TemporaryDirectory(prefix="crossbook-", ignore_cleanup_errors=True) as folder:
        system = System(Path(folder))
        try:
            system.start()
            symbol = system.list_instrument()
            trade(system, symbol, rng, MORE)
            system.settled()
            before, digest = held(system, symbol), digest_in(system, symbol)
            assert system.stop() == 0
            shutil.rmtree(system.data_dir / "redis")
            said = command(system, "rebuild")
            assert said.code == 0, said
            assert f"digest {digest} rebuilt" in said.out
            shutil.rmtree(system.data_dir / "redis")
            system.start()
            assert "Redis held no book: rebuilt from Postgres" in system.log()
            assert held(system, symbol) == before
            audit(system, symbol)
        finally:
            system.stop()
        assert system.errors() == []


def test_a_folder_on_which_nothing_ever_ran_is_left_empty(tmp_path: Path) -> None:
    environ = {"PATH": os.environ["PATH"], "DATA_DIR": str(tmp_path / "data")}
    done = subprocess.run(
        [sys.executable, "-m", "app", "rebuild"],
        check=False,
        capture_output=True,
        cwd=ROOT,
        env=environ,
        text=True,
    )
    assert done.returncode == 2
    assert "ever ran on" in done.stderr
    assert not (tmp_path / "data").exists()
