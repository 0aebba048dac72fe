"""docs/OPERATIONS.md, pasted into a system with each failure provoked: every line answers as it is
printed there, and afterwards nothing is wrong any more.
"""

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from pathlib import Path
from typing import Any, Final, NamedTuple

import pytest

from app.persistence.verify import verify
from tests.commands import limit
from tests.free_ports import free_port
from tests.integration.test_readme import answers_as_printed, steps_of
from tests.rest import order_body
from tests.system import ROOT, System, running_system
from tests.venue import TTL_S, EngineVenue
from tests.waiting import wait_for

PAGE: Final = (ROOT / "docs" / "OPERATIONS.md").read_text()
SYMBOL: Final = "BTC-USD"
BOOK: Final = f"{{{SYMBOL}}}:book"
EVENTS: Final = f"{{{SYMBOL}}}:events"
PLACE_IN_THE_PAGE: Final = 5
"""Of the foreign entry; that of the book is one less."""
PLACE: Final = re.compile(r'("sequence":|sequence |\b)([45])(,|-0\b| digest)')
COMMAND_TIMEOUT_S: Final = 30.0
SOON_S: Final = 15.0
"""In which things mend themselves: a restart may wait 5 s, and so may a second look at a halt."""
LOOKS: Final = ("curl ", "$HISTORY ", "$BOOKS INFO ", "$BOOKS HMGET ")
"""Lines that a person repeats until they answer as they should."""
ASSIGNMENT: Final = re.compile(r'(?:export )?[A-Z]+=(?:\S+|"[^"]*"|\$\(.*\))')
EXPECTED_ERRORS: Final = (
    "instrument is not persisted any more",
    "instrument takes nothing any more",
    "Redis has lost books",
    "an instrument has no book",
    "a book was rebuilt without what was acknowledged",  # given up on purpose
)

pytestmark = pytest.mark.slow

Step = tuple[str, str]
Provoke = Callable[[System], AbstractContextManager[None]]


def _blocks_of(page: str) -> dict[str, list[list[Step]]]:
    """Heading -> its blocks, each the steps to paste."""
    found = {}
    for section in re.split(r"^##+ ", page, flags=re.MULTILINE)[1:]:
        heading = section.partition("\n")[0]
        blocks = re.findall(r"```bash\n.*?```", section, re.DOTALL)
        found[heading] = [steps_of(block) for block in blocks]
    return found


BLOCKS: Final = _blocks_of(PAGE)


@pytest.fixture(scope="module")
def system() -> Iterator[System]:
    """One of our own: here it suffers."""
    with running_system(expected=EXPECTED_ERRORS) as running:
        place(running, 3)
        trade(running)
        yield running


# Pasting


class Terminal:
    """A person's shell: what one line sets, the next ones see."""

    def __init__(self, system: System) -> None:
        self._port = system.api.port
        self._other_port = free_port()
        self._set = [f"export DATA_DIR={system.data_dir}"]
        self._environ = {"PATH": _path_with_programs(system)}

    def run(self, command: str) -> str:
        """What a line prints, whatever its exit code."""
        if ASSIGNMENT.fullmatch(command):
            self._set += [] if "$PWD" in command else [command]
            return ""
        here = command.replace("localhost:3000", f"localhost:{self._port}")
        here = here.replace("PORT=3001", f"PORT={self._other_port}")
        return subprocess.run(
            ["bash", "-c", "\n".join([*self._set, here])],
            cwd=ROOT,
            env=self._environ,
            stdout=subprocess.PIPE,
            text=True,
            check=False,
            timeout=COMMAND_TIMEOUT_S,
        ).stdout

    def paste(self, steps: list[Step]) -> None:
        """Each line answers as it is printed, at once, or soon if it is one that only looks."""
        for command, printed in steps:
            told: list[str] = []
            if not printed:
                self.run(command)
            elif command.startswith(LOOKS):
                _paste_until(lambda c=command: self.run(c), printed, told)  # type: ignore[misc]
            else:
                told.append(self.run(command))
            assert not printed or answers_as_printed(told[-1], printed), (
                f"{command}\n{told[0]}\n{told[-1]}\n{printed}"
            )


def _paste_until(run: Callable[[], str], printed: str, told: list[str]) -> None:
    def is_told() -> bool:
        told.append(run())
        return answers_as_printed(told[-1], printed)

    try:
        wait_for(is_told, SOON_S)
    except AssertionError:
        return  # whoever asked compares, and says which line it was


def _path_with_programs(system: System) -> str:
    """`up` says where redis-cli and psql are, if they are not on PATH."""
    programs = re.findall(r"^ *(?:books|history) +(\S+)", system.log(), re.MULTILINE)
    folders = [str(Path(program).parent) for program in programs if "/" in program]
    return ":".join([os.environ["PATH"], *folders])


@pytest.fixture
def terminal(system: System) -> Terminal:
    shell = Terminal(system)
    shell.paste(BLOCKS["The doors"][0])
    return shell


# Provoking


def place(system: System, count: int = 1) -> None:
    """Orders of others, which rest far away and are acknowledged."""
    for _ in range(count):
        system.api.placed(order_body(SYMBOL, limit("ann", "buy", 1, 1)))


def trade(system: System) -> None:
    """One trade of `ops`, so that there are a trade and a position."""
    for client, side in (("ann", "sell"), ("ops", "buy")):
        order = {"instrument": SYMBOL, "client_id": client, "side": side, "quantity": "1"}
        system.api.placed(order | {"price": "100"})


def keys_of(system: System) -> dict[bytes, bytes]:
    """The book's keys as a file would have them."""
    names: Any = system.redis.keys(f"{{{SYMBOL}}}:*")
    return {name: system.redis.dump(name) for name in names}  # type: ignore[misc]


def put_back(system: System, keys: dict[bytes, bytes]) -> None:
    """In one step, as when Redis starts on an old file."""
    names: Any = system.redis.keys(f"{{{SYMBOL}}}:*")
    pipe = system.redis.pipeline(transaction=True)
    pipe.delete(*names)
    for name, dump in keys.items():
        pipe.restore(name, 0, dump)
    pipe.execute()


@contextmanager
def redis_went_back(system: System) -> Iterator[None]:
    old = keys_of(system)
    place(system, 2)
    system.settled()
    put_back(system, old)
    yield


@contextmanager
def redis_diverged(system: System) -> Iterator[None]:
    """It took other commands from somebody who knew nothing, while nobody else was there."""
    old, position = keys_of(system), system.sequences()[SYMBOL]
    place(system, 1)
    system.settled()
    venue = EngineVenue(system.redis, symbol=SYMBOL)
    with system.paused("persist"), system.paused("serve"):
        put_back(system, old)
        for _ in range(2):
            venue.apply(limit("bob", "buy", 7, 7))
        assert system.sequences()[SYMBOL] == position + 2
    yield


@contextmanager
def redis_is_empty(system: System) -> Iterator[None]:
    system.redis.flushall()
    yield


@contextmanager
def postgres_lacks_events(system: System) -> Iterator[None]:
    """As after an old backup, older than what the stream still has."""
    place(system, 3)
    system.settled()
    with system.stopped_supervisor():
        system.kill("persist")
        last = system.sequences()[SYMBOL]
        with system.postgres() as connection:
            tables = {"events": "sequence", "orders": "right(order_id, 14)::bigint"}
            for table, number in tables.items():
                connection.execute(
                    f"DELETE FROM {table} WHERE instrument = %s AND {number} > %s",
                    (SYMBOL, last - 2),
                )
            connection.execute(
                "UPDATE stream_positions SET sequence = %s WHERE instrument = %s",
                (last - 2, SYMBOL),
            )
        system.redis.xtrim(EVENTS, minid=f"{last - 1}-0", approximate=False)
    yield


@contextmanager
def full_memory(system: System) -> Iterator[None]:
    system.redis.config_set("maxmemory", "1mb")
    try:
        yield
    finally:
        system.redis.config_set("maxmemory", "0")


@contextmanager
def crowded(system: System) -> Iterator[None]:
    """Between the share of memory that is for orders and the rest, which is for cancels."""
    memory: Any = system.redis.info("memory")
    system.redis.config_set("maxmemory", int(memory["used_memory"] / 0.95))
    try:
        yield
    finally:
        system.redis.config_set("maxmemory", "0")
    wait_for(lambda: system.redis.hget(BOOK, "crowded") is None)


@contextmanager
def foreign_entry(system: System) -> Iterator[None]:
    system.settled()
    system.redis.xadd(EVENTS, {"who": "me"}, id=f"{system.sequences()[SYMBOL] + 1}-0")
    yield


@contextmanager
def missing_entry(system: System) -> Iterator[None]:
    with system.stopped_supervisor():
        system.kill("persist")
        place(system, 2)
        system.redis.xdel(EVENTS, f"{system.sequences()[SYMBOL] - 1}-0")
    yield


@contextmanager
def damaged_listing(system: System) -> Iterator[None]:
    listing: Any = system.redis.hget("instruments", SYMBOL)
    other = re.sub(r'"tick_size":"[^"]*"', '"tick_size":"0.5"', listing.decode())
    system.redis.hset("instruments", SYMBOL, other)
    system.kill("persist")  # sizes are compared when an instrument begins to be followed
    yield


@contextmanager
def changed_position(system: System) -> Iterator[None]:
    system.settled()
    with system.postgres() as connection:
        changed = connection.execute(
            "UPDATE positions SET bought_quantity = bought_quantity + 1"
            " WHERE client_id = 'ops' AND instrument = %s",
            (SYMBOL,),
        )
        assert changed.rowcount == 1
    yield


@contextmanager
def answers_held_back(system: System) -> Iterator[None]:
    """So long that the first order waits in vain for its answer, and its repeat does not."""
    system.redis.client_pause(PAUSE_MS, all=False)
    yield


PAUSE_MS: Final = 8_000


def hangs(part: str) -> Provoke:
    """The part stands still until the page's line kills it."""
    return lambda system: system.paused(part)


def nothing(_system: System) -> AbstractContextManager[None]:
    return nullcontext()


class Story(NamedTuple):
    """Blocks of a section, pasted one after the other."""

    heading: str
    blocks: tuple[int, ...] = (0,)
    provoke: Provoke = nothing


STORIES: Final = (
    Story("The doors", (1,)),
    Story("Four commands"),
    Story("The API dies or hangs", provoke=hangs("serve")),
    Story("The persister dies or hangs", (0, 1), hangs("persist")),
    Story("Redis dies or hangs", provoke=hangs("redis")),
    Story("The disk of Redis is full"),
    Story("The memory of Redis is full", (0, 1), full_memory),
    Story("Redis went back in time", (0, 1), redis_went_back),
    Story("Redis went back in time", (2,), redis_diverged),
    Story("Redis is empty", provoke=redis_is_empty),
    Story("Postgres dies, hangs, is slow or full", provoke=hangs("postgres")),
    Story("Postgres lacks events that it had", (0, 1), postgres_lacks_events),
    Story("The backlog is full", provoke=crowded),
    Story("One instrument is not written down", (0,), foreign_entry),
    Story("One instrument is not written down", (1,), missing_entry),
    Story("One instrument is not written down", (2,), damaged_listing),
    Story("Read models that are wrong", provoke=changed_position),
    Story("An order whose outcome is unknown", provoke=answers_held_back),
    Story("Clocks that jump"),
    Story("Upgrade"),
    Story("Snapshots"),
    Story("What is worth an alert"),
    Story("What `appendfsync everysec` would lose"),
)
ELSEWHERE: Final = {
    ("The doors", 0): "every terminal begins with it",
    ("A damaged append-only file", 0): "a test of its own",
    ("Start and stop", 0): "a test of its own",
    ("Backup", 0): "a test of its own",
    ("Restore, and the drill", 0): "a test of its own",
}


def test_no_line_of_the_page_is_left_out() -> None:
    told = {(story.heading, block) for story in STORIES for block in story.blocks}
    assert told | ELSEWHERE.keys() == {
        (heading, number) for heading, blocks in BLOCKS.items() for number in range(len(blocks))
    }


@pytest.mark.parametrize(
    "story", STORIES, ids=[f"{story.heading} {story.blocks}" for story in STORIES]
)
def test_what_the_page_says_is_so(system: System, terminal: Terminal, story: Story) -> None:
    before = system.sequences()[SYMBOL]
    with story.provoke(system):
        for number in story.blocks:
            terminal.paste(as_numbered_here(BLOCKS[story.heading][number], before))
    if story.provoke is not nothing:
        check_whole(system)


def as_numbered_here(steps: list[Step], sequence: int) -> list[Step]:
    """The page's foreign entry is at 5."""

    moved = sequence + 1 - PLACE_IN_THE_PAGE

    def numbered(text: str) -> str:
        return PLACE.sub(lambda found: f"{found[1]}{int(found[2]) + moved}{found[3]}", text)

    return [(numbered(command), numbered(printed)) for command, printed in steps]


def check_whole(system: System) -> None:
    """Nothing is wrong, nobody is missing, and orders are taken."""
    wait_for(lambda: system.api.get("/readyz").json()["status"] == "ready")
    place(system)
    stores = system._stores()
    report = verify(stores.redis_url, stores.database_url, TTL_S, full=False)
    assert not report.breaches_total, "\n".join(report.lines())


def test_a_backup_is_whole_and_restored_it_goes_on(system: System, terminal: Terminal) -> None:
    """Copied while orders come in; the drill's audits; then the folder is the system."""
    for step in BLOCKS["Backup"][0]:
        terminal.paste([step])
        place(system)
    terminal.paste(BLOCKS["Restore, and the drill"][0])
    terminal.paste(BLOCKS["Start and stop"][0])
    assert system.up.process is not None
    assert system.up.process.wait(COMMAND_TIMEOUT_S) == 0
    assert system.log().splitlines()[-1] == "Crossbook has stopped, the data is kept"
    for store in ("redis", "postgres"):
        shutil.rmtree(system.data_dir / store)
        shutil.move(system.data_dir / "backup" / store, system.data_dir / store)
    system.start()
    check_whole(system)


@pytest.mark.skipif(not shutil.which("redis-check-aof"), reason="comes with Redis's own package")
def test_a_damaged_file_is_cut_and_the_rest_comes_from_postgres(system: System) -> None:
    place(system, 5)
    system.settled()
    sequence = system.sequences()[SYMBOL]
    assert system.stop() == 0
    damage(system, f"{sequence - 2}-0")
    refused = system.run("up")
    assert refused.returncode == 1
    assert "Bad file format reading the append only file" in refused.stderr
    shell = Terminal(system)
    shell.paste(BLOCKS["A damaged append-only file"][0])
    system.start()
    assert system.sequences()[SYMBOL] < sequence
    assert "digest" in shell.run(f"{sys.executable} -m app rebuild")
    assert system.sequences()[SYMBOL] == sequence
    check_whole(system)


def damage(system: System, event: str) -> None:
    """The append-only file, where it first names this event."""
    folder = system.data_dir / "redis" / "appendonlydir"
    file = max(folder.glob("*.incr.aof"), key=lambda found: found.stat().st_mtime)
    content = bytearray(file.read_bytes())
    at = content.index(f"\r\n{event}\r\n".encode())
    content[at - 2 : at] = b"xx"
    file.write_bytes(content)
