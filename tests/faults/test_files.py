"""Redis's own files: an append-only file that ends anywhere, and what kill -9 takes from it under
either policy of writing it to disk.
"""

import os
import random
import socket
import threading
from bisect import bisect_right
from collections.abc import Callable, Generator, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Final, TypeAlias

import pytest
import redis

from app.embedded import redis_server
from app.embedded.redis_server import EmbeddedRedis
from app.engine.book import Books
from app.engine.executor import DirectExecutor, EngineUnavailable, PipelinedExecutor
from app.engine.keys import book_keys
from tests.commands import (
    Amend,
    ArmTimer,
    Cancel,
    Command,
    KillSwitch,
    MassCancel,
    SetRules,
    Sweep,
    Tick,
    iceberg,
    limit,
    market,
    stop,
    stop_limit,
)
from tests.free_ports import free_port
from tests.reference import START_US, ReferenceBook
from tests.venue import SYMBOL, TTL_S, EngineVenue, play
from tests.waiting import wait_for

SECOND_US: Final = 1_000_000
TAPE: Final[tuple[Command, ...]] = (
    SetRules(price_band_bps=5_000, max_open_orders=50),
    replace(limit("ann", "sell", 100, 5), client_order_id="a", idempotency_key="k-1"),
    iceberg("bob", "sell", 100, 9, 2),
    replace(limit("cat", "sell", 102, 9), time_in_force="gtd", expires_us=START_US + 5 * SECOND_US),
    replace(limit("dan", "buy", 98, 3), post_only=True),
    stop("eve", "buy", 101, 2),
    stop_limit("eve", "sell", 99, 97, 2),
    replace(limit("dan", "buy", 100, 6), time_in_force="ioc"),
    replace(limit("dan", "buy", 102, 90), time_in_force="fok"),
    Amend(3, quantity_lots=4),
    replace(limit("bob", "buy", 100, 2), self_trade_prevention="decrement"),
    market("fay", "buy", 4),
    ArmTimer("dan", 2 * SECOND_US),
    KillSwitch("gus", engaged=True),
    Tick(3 * SECOND_US),
    Sweep(),
    replace(limit("ann", "buy", 96, 1), idempotency_key="k-2"),
    MassCancel("ann", "buy"),
    Cancel(7),
    Tick(3 * SECOND_US),
    Sweep(),
)
"""Every kind of order, and of event; short, since it is cut at each of its bytes."""
STARTS: Final = int(os.environ.get("CROSSBOOK_TEST_CUTS", "100"))
"""How many cuts a server is started on, where one that runs cannot load the file again."""

KILLS: Final = 10
CLIENTS: Final = 16
ORDERS_BETWEEN_KILLS: Final = 400

pytestmark = pytest.mark.slow


SERVERS: Final = tuple({path.resolve(): path for path in redis_server._candidates()}.values())
"""Each program once: a PATH may name it twice."""
each_server = pytest.mark.parametrize(
    "binary", SERVERS, ids=[path.parts[-3] + "-" + path.name for path in SERVERS]
)


@contextmanager
def private_redis(binary: Path | None, *extra_args: str) -> Iterator[EmbeddedRedis]:
    """A Redis of our own with the project's settings, in a folder of its own."""
    with TemporaryDirectory(prefix="crossbook-", ignore_cleanup_errors=True) as folder:
        server = EmbeddedRedis(Path(folder), port=free_port(), binary=binary, extra_args=extra_args)
        server.start()
        try:
            server.wait_ready()
            yield server
        finally:
            server.stop()


def client_of(server: EmbeddedRedis) -> "redis.Redis":
    return redis.Redis.from_url(server.url, protocol=2)


def append_only_file(server: EmbeddedRedis) -> Path:
    """The file that commands are appended to: of Redis 6.2 the only one."""
    found = sorted(server.folder.glob("**/*.incr.aof")) or [server.folder / "appendonly.aof"]
    return found[-1]


def is_old(binary: Path) -> bool:
    """Of before Redis 7: DEBUG is always permitted, and loads a file that is cut off as a start
    does. Later ones end after it, so each cut needs a start.
    """
    version = redis_server.version_of(binary)
    assert version is not None
    return version < (7, 0, 0)


def dataset(client: "redis.Redis") -> str:
    """Redis's own digest of every key and value."""
    return str(client.execute_command("DEBUG", "DIGEST").decode())


@each_server
def test_a_file_cut_anywhere_loads_as_the_commands_before_the_cut(
    binary: Path, rng: random.Random
) -> None:
    """A kill in the middle of a write leaves a part of it: whatever the part, all of a command is
    there or nothing. At each cut Redis's digest is that of the commands that the file has whole;
    where it ends between two, every key is also compared with the reference.
    """
    allowed = () if is_old(binary) else ("--enable-debug-command", "local")
    with private_redis(binary, *allowed) as server:
        client, file = client_of(server), append_only_file(server)
        sizes, digests, books = play_tape(client, file)
        whole = file.read_bytes()
        client.config_set("appendfsync", "no")  # what follows is about reading
        assert len(whole) == sizes[-1]
        cuts = list(range(len(whole) + 1))
        if not is_old(binary) and len(cuts) > STARTS:
            near = {size + away for size in sizes for away in (-1, 0, 1)}
            cuts = sorted({*rng.sample(cuts, STARTS), *near} & set(cuts))
        loader = reloaded(server, file) if is_old(binary) else restarted(server, file)
        next(loader)
        for cut in cuts:
            place = bisect_right(sizes, cut) - 1
            assert loader.send(whole[:cut]) == digests[place], f"{cut} of {len(whole)} bytes"
            if cut in sizes[2:]:
                EngineVenue(client).check_against(books[place])


Loader: TypeAlias = Generator[str, bytes, None]
"""Is sent what the file is to contain, and gives the digest of a server that has loaded that."""


def restarted(server: EmbeddedRedis, file: Path) -> Loader:
    """By a new start each time."""
    digest = ""
    while True:
        content = yield digest
        assert server.process is not None
        server.process.kill()
        server.process.wait()
        file.write_bytes(content)
        server.start()
        server.wait_ready()
        digest = dataset(client_of(server))


def reloaded(server: EmbeddedRedis, file: Path) -> Loader:
    """By a server that goes on running; bare, since it is done for thousands of files."""
    digest = ""
    with file.open("r+b", buffering=0) as writer, socket.socket(socket.AF_UNIX) as connection:
        connection.connect(str(server.socket))
        answers = connection.makefile("rb")
        while True:
            content = yield digest
            writer.seek(0)
            writer.write(content)
            writer.truncate()
            connection.sendall(b"DEBUG LOADAOF\r\nDEBUG DIGEST\r\n")
            # An empty file is loaded, too, but called an error.
            loaded, digest = answers.readline(), answers.readline().decode()[1:].strip()
            assert loaded == b"+OK\r\n" or not content, loaded


def play_tape(
    client: "redis.Redis", file: Path
) -> tuple[list[int], list[str], list[ReferenceBook]]:
    """After each command, and before the first: how long the file is, the digest of what it has,
    and what the book is by the reference.
    """
    book = ReferenceBook()
    sizes: list[int] = []
    digests: list[str] = []
    books: list[ReferenceBook] = []

    def note() -> None:
        sizes.append(file.stat().st_size)
        digests.append(dataset(client))
        books.append(book.copy())

    note()
    Books(DirectExecutor(client), TTL_S).open(SYMBOL)
    note()
    client.hset(book_keys(SYMBOL).book, "time", str(START_US))
    note()
    venue = EngineVenue(client)
    for command in TAPE:
        play(venue, book, command)
        note()
    assert sizes == sorted(sizes)
    kinds = {event.type for event in book.events}
    assert len(kinds) == 9, f"every kind of event: {sorted(kinds)}"
    return sizes, digests, books


@pytest.mark.parametrize("policy", ["always", "everysec"])
def test_what_kill_takes_from_acknowledged_orders(
    policy: str, summary: Callable[[str], None]
) -> None:
    """Under `always`, the default, nothing. Under `everysec` what Redis had not yet handed to the
    kernel: reported, not demanded. A kill of the process is no loss of the machine's power: what
    the kernel has but the disk has not survives it, and is not measured here.
    """
    losses = []
    with private_redis(None, "--appendfsync", policy) as server:
        for _ in range(KILLS):
            told = order_until_killed(server)
            server.start()
            server.wait_ready()
            kept: Any = client_of(server).hget("{BTC-USD}:book", "sequence")
            losses.append(max(0, told - int(kept)))
        summary(
            f"appendfsync {policy}: {KILLS} kills of Redis under {CLIENTS} clients, each after"
            f" {ORDERS_BETWEEN_KILLS} orders or more; acknowledged, then lost: {sum(losses)},"
            f" {max(losses)} at worst"
        )
    if policy == "always":
        assert losses == [0] * KILLS


def order_until_killed(server: EmbeddedRedis) -> int:
    """The greatest sequence that was acknowledged before kill -9 in the middle of it."""
    client = client_of(server)
    venue = EngineVenue(client)
    venue.books = Books(PipelinedExecutor(client), TTL_S)
    told = [0] * CLIENTS
    threads = [
        threading.Thread(target=_order_on, args=(venue, told, n), name=f"client-{n}")
        for n in range(CLIENTS)
    ]
    first: Any = client.hget("{BTC-USD}:book", "sequence")
    for thread in threads:
        thread.start()
    wait_for(lambda: max(told) >= int(first) + ORDERS_BETWEEN_KILLS)
    process = server.process
    assert process is not None
    process.kill()
    process.wait()
    for thread in threads:
        thread.join()
    return max(told)


def _order_on(venue: EngineVenue, told: list[int], n: int) -> None:
    """Places and cancels until Redis is gone."""
    try:
        while True:
            answer = venue.apply(limit(f"client-{n}", "buy", 100 + n, 1))
            told[n] = answer.order.sequence  # type: ignore[union-attr]
            answer = venue.apply(Cancel(told[n]))
            told[n] = answer.order.sequence  # type: ignore[union-attr]
    except EngineUnavailable:
        return
