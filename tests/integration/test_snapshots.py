"""Snapshots: a book written down in Postgres is the book, whoever computes it; those that cannot be
used harm nobody.
"""

import json
import random
from collections.abc import Iterator
from itertools import islice

import pytest

from app.api.admin_snapshots import Snapshots
from app.api.problems import Problem
from app.domain.book_state import BookState, Inconsistent
from app.domain.rules import Rules
from app.engine.layout import read_book
from app.periodic_snapshots import PeriodicSnapshots
from app.persistence import audit_connections, book_history, event_store, snapshots
from app.persistence.event_store import Connection
from app.snapshot_process import SnapshotFailed, take
from tests import tapes
from tests.differential import COMMANDS_AT_ONCE, PipelinedVenue
from tests.integration.test_rebuild import UNTICK, command, stores_of
from tests.reference import START_US
from tests.rest import Api, check_problem, codes_by_field
from tests.system import System

COMMANDS = 600
NOBODY_S = 60.0
AWAY = "postgresql://nobody@127.0.0.1:1/nothing"


@pytest.fixture
def database_url(system: System) -> str:
    return stores_of(system).database_url


@pytest.fixture
def connection(database_url: str) -> Iterator[Connection]:
    with audit_connections.connect(database_url, "test") as connection:
        yield connection


def trade(system: System, symbol: str, rng: random.Random) -> None:
    """Commands of every kind; all of it is in Postgres afterwards."""
    venue = PipelinedVenue(system.redis, symbol=symbol)
    if not system.redis.hexists(venue.keys.book, "time"):
        system.redis.hset(venue.keys.book, "time", str(START_US))
    tape = tapes.commands(rng.randrange(2**32), COMMANDS)
    while commands := list(islice(tape, COMMANDS_AT_ONCE)):
        venue.apply_all(commands)
    # What is due is done now, so that no sweep comes between two looks.
    assert venue.books.sweep(symbol)
    system.redis.eval(UNTICK, 2, venue.keys.book, venue.keys.events)
    system.settled()


def test_a_snapshot_has_the_digest_of_the_book_in_redis(
    system: System, symbol: str, rng: random.Random
) -> None:
    trade(system, symbol, rng)
    digest = read_book(system.redis, symbol).digest()
    sequence = system.sequences()[symbol]
    said = command(system, "snapshot", "--instrument", symbol)
    assert (said.code, said.out) == (0, f"{symbol} sequence {sequence} digest {digest}\n"), said
    said = command(system, "snapshot", "--instrument", symbol, "--json")
    told = json.loads(said.out)
    assert (told["instrument"], told["sequence"], told["digest"]) == (symbol, sequence, digest)


def test_an_operator_takes_one_over_rest(
    system: System, api: Api, symbol: str, rng: random.Random
) -> None:
    """The same one again, while nothing has happened since."""
    trade(system, symbol, rng)
    taken = api.request("POST", "/admin/snapshots", {"instrument": symbol})
    assert taken.status == 201, taken
    (told,) = taken.json()["snapshots"]
    assert told.keys() == {"instrument", "sequence", "digest", "taken_at"}
    assert told["digest"] == read_book(system.redis, symbol).digest()
    again = api.request("POST", "/admin/snapshots", {"instrument": symbol})
    assert again.json()["snapshots"] == [told]


def test_what_is_asked_for_wrongly_is_named(api: Api) -> None:
    path = "/admin/snapshots"
    check_problem(
        api.request("POST", path, {"instrument": "NO-SUCH"}), 404, "instrument_not_found", path
    )
    problem = check_problem(
        api.request("POST", path, {"book": "BTC-USD"}), 400, "validation_failed", path
    )
    assert codes_by_field(problem) == {"book": "unknown_field"}
    check_problem(api.request("POST", path, b"{"), 400, "malformed_json", path)


def test_a_snapshot_and_what_came_after_make_what_all_events_make(
    system: System, symbol: str, rng: random.Random, connection: Connection
) -> None:
    trade(system, symbol, rng)
    first = book_history.take_snapshot(connection, symbol)
    trade(system, symbol, rng)
    last = system.sequences()[symbol]
    for sequence in {first.sequence, (first.sequence + last) // 2, last}:
        short = book_history.state_at(connection, symbol, sequence)
        whole = book_history.state_at(connection, symbol, sequence, from_snapshot=False)
        assert list(short.lines()) == list(whole.lines())
    assert book_history.state_at_position(connection, symbol).sequence == last


def test_the_newest_are_kept(
    system: System, symbol: str, rng: random.Random, connection: Connection
) -> None:
    for _ in range(snapshots.SNAPSHOTS_KEPT + 1):
        trade(system, symbol, rng)
        newest = book_history.take_snapshot(connection, symbol)
    kept = snapshots.snapshots_of(connection, symbol, newest.sequence)
    assert len(kept) == snapshots.SNAPSHOTS_KEPT
    assert kept[0] == newest
    parts = connection.execute(
        "SELECT DISTINCT sequence FROM book_snapshot_parts WHERE instrument = %s", (symbol,)
    )
    assert {sequence for (sequence,) in parts} == {one.sequence for one in kept}


@pytest.mark.parametrize(
    "damage",
    [
        "UPDATE book_snapshot_parts SET lines = replace(lines, 'time 4', 'time 3')",
        "UPDATE book_snapshot_parts SET lines = replace(lines, '-book 1', '-book 0')",
        "UPDATE book_snapshots SET digest = repeat('0', 64)",
        "DELETE FROM book_snapshot_parts",
    ],
)
def test_one_that_was_tampered_with_is_passed_over(
    system: System,
    symbol: str,
    rng: random.Random,
    connection: Connection,
    damage: str,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """The one before it is used, or the events alone."""
    trade(system, symbol, rng)
    book_history.take_snapshot(connection, symbol)
    trade(system, symbol, rng)
    newest = book_history.take_snapshot(connection, symbol)
    right = book_history.state_at_position(connection, symbol).digest()
    connection.execute(
        f"{damage} WHERE instrument = %s AND sequence = %s",
        (symbol, newest.sequence),
    )
    with pytest.raises(Inconsistent):
        snapshots.load(connection, snapshots.snapshots_of(connection, symbol, 10**9)[0])
    assert book_history.state_at_position(connection, symbol).digest() == right
    assert "a snapshot cannot be used" in caplog.text
    connection.execute("DELETE FROM book_snapshots WHERE instrument = %s", (symbol,))


def test_a_large_book_comes_back_whole(symbol: str, connection: Connection) -> None:
    """In as many parts as it needs; what is there already stays as it is."""
    state = BookState.empty(symbol, Rules())
    state.sequence = 25_000
    for number in range(1, state.sequence + 1):
        state.add(number, f"open||5|0|0|{number % 97 + 1}|||||7|c{number % 9}|||||buy|limit|gtc|||")
    stored = snapshots.store(connection, state)
    assert snapshots.load(connection, stored).digest() == stored.digest == state.digest()
    assert snapshots.store(connection, state) == stored
    state.last_ticks = 5
    with pytest.raises(Inconsistent, match="another snapshot"):
        snapshots.store(connection, state)
    connection.execute("DELETE FROM book_snapshots WHERE instrument = %s", (symbol,))


def test_what_has_gone_far_since_the_last_is_taken_by_itself(
    system: System, symbol: str, rng: random.Random, database_url: str, connection: Connection
) -> None:
    trade(system, symbol, rng)
    position = system.sequences()[symbol]
    periodic = PeriodicSnapshots(database_url, event_store.connect, every_events=position)
    assert symbol in periodic.step()
    (taken, *_) = snapshots.snapshots_of(connection, symbol, position)
    assert taken.sequence == position
    assert symbol not in periodic.step()
    ahead = PeriodicSnapshots(database_url, event_store.connect, every_events=position + 1)
    assert symbol not in ahead.step()


def test_while_postgres_is_away_there_is_none() -> None:
    with pytest.raises(SnapshotFailed) as failed:
        take([], AWAY, NOBODY_S)
    assert failed.value.code == 3
    with pytest.raises(Problem) as problem:
        Snapshots(AWAY).take([])
    assert (problem.value.status, problem.value.code) == (503, "database_unavailable")
    assert problem.value.retry_after_s


def test_one_that_takes_too_long_is_given_up(database_url: str) -> None:
    with pytest.raises(SnapshotFailed, match="longer than") as failed:
        take([], database_url, 0.01)
    assert failed.value.code is None


def test_a_process_takes_one_at_a_time(monkeypatch: pytest.MonkeyPatch) -> None:
    wanted = Snapshots(AWAY)
    refused: list[Problem] = []

    def meanwhile(*_: object) -> list[object]:
        with pytest.raises(Problem) as problem:
            wanted.take([])
        refused.append(problem.value)
        return []

    monkeypatch.setattr("app.api.admin_snapshots.take", meanwhile)
    assert wanted.take([]) == []
    assert [(one.status, one.code) for one in refused] == [(503, "snapshot_running")]
    assert wanted.take([]) == [], "free again"
