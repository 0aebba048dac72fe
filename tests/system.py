"""A whole Crossbook for tests: `python -m app up` on free ports with a data folder of its own, and
the doors to its stores and processes. Whatever a test kills or stops here is a child of that `up`.
"""

import hashlib
import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Final, TypeVar

import psycopg
import redis

from app.embedded import ports
from app.embedded.process import ChildProcess
from app.embedded.stores import Stores
from tests.free_ports import free_port, remember_free_ports
from tests.processes import children_of, is_running, stand_still, standing_still
from tests.rest import Answer, Api, Json, volley
from tests.waiting import wait_for

T = TypeVar("T")

ROOT: Final = Path(__file__).resolve().parents[1]
WORKERS: Final = 2
START_TIMEOUT_S: Final = 60.0
STOP_TIMEOUT_S: Final = 40.0
SETTLED_TIMEOUT_S: Final = 60.0
COMMAND_TIMEOUT_S: Final = 120.0
PARTS: Final = {
    "redis": b"redis-server",
    "postgres": b"/postgres\0",
    "persist": b"\0persist\0",
    "serve": b"\0gunicorn\0",
}
"""What the command lines of up's children contain: serve is gunicorn's master."""


class _Up(ChildProcess):
    """`up` as a child of ours, which ends with us at the latest."""

    name = "up"
    stop_steps = ((signal.SIGTERM, STOP_TIMEOUT_S), (signal.SIGKILL, 5.0))

    def __init__(self, module: str, environ: Mapping[str, str], probe: Callable[[], bool]) -> None:
        super().__init__()
        self._module = module
        self._environ = environ
        self._probe = probe

    def command(self) -> Sequence[str]:
        return [sys.executable, "-m", self._module, "up"]

    def environment(self) -> Mapping[str, str]:
        return self._environ

    def popen_options(self) -> dict[str, Any]:
        return {"cwd": ROOT}

    def probe(self) -> bool:
        return self._probe()


class System:
    """One Crossbook. `start` and `stop` as often as you like: the data folder stays."""

    def __init__(
        self, data_dir: Path, environ: Mapping[str, str] | None = None, module: str = "app"
    ) -> None:
        """`module` is what `up` is a command of."""
        self.data_dir = data_dir
        data_dir.mkdir(parents=True, exist_ok=True)
        port = ports.choose(free_port(), data_dir / "port")
        if not (data_dir / "redis").exists():
            remember_free_ports(data_dir)
        own = {
            "PATH": os.environ["PATH"],
            "DATA_DIR": str(data_dir),
            "PORT": str(port),
            "WEB_CONCURRENCY": str(WORKERS),
            "LOG_FORMAT": "json",
        }
        self.up = _Up(module, own | dict(environ or {}), self._says_ready)
        self.api = Api(port)
        self._starts = 0
        self._listed = 0

    # Life

    def start(self) -> None:
        """Returns when the system says that it is ready."""
        self._starts += 1
        self.up.log_file = self.data_dir / f"up-{self._starts}.log"
        self.up.start()
        self.up.wait_ready(START_TIMEOUT_S)
        self.redis = redis.Redis.from_url(self._stores().redis_url, protocol=2)

    def stop(self) -> int:
        """SIGTERM, and whatever is needed after it; the exit code."""
        process = self.up.process
        self.up.stop()
        assert process is not None
        return process.wait()

    def run(self, *arguments: str) -> "subprocess.CompletedProcess[str]":
        """`python -m app …` on the same data folder, to its end."""
        command = [sys.executable, "-m", "app", *arguments]
        return subprocess.run(
            command,
            env=self.up.environment(),
            cwd=ROOT,
            capture_output=True,
            text=True,
            timeout=COMMAND_TIMEOUT_S,
            check=False,
        )

    def log(self) -> str:
        """What it has written since its last start: log lines and what it tells the person."""
        return (self.data_dir / f"up-{self._starts}.log").read_text()

    def errors(self) -> list[str]:
        """Log lines of level error of all its starts, but for gunicorn's: to it, a client that goes
        away in the middle of a request is one.
        """
        logs = [path.read_text() for path in sorted(self.data_dir.glob("up-*.log"))]
        lines = [line for log in logs for line in log.splitlines() if '"level":"error"' in line]
        return [line for line in lines if '"logger":"gunicorn.error"' not in line]

    def _says_ready(self) -> bool:
        return "Crossbook is ready\n" in self.log()

    def _stores(self) -> Stores:
        return Stores(**_json(self.data_dir / "stores.json"))

    # Processes

    def pid(self, part: str) -> int:
        """Of one of PARTS, once it runs."""
        found: list[int] = []

        def find() -> bool:
            assert self.up.pid is not None, "started"
            found[:] = [pid for pid in children_of(self.up.pid) if _is_part(pid, part)]
            return bool(found)

        wait_for(find)
        return found[0]

    def pids(self) -> list[int]:
        """Of `up` and everything below it."""
        assert self.up.pid is not None, "started"
        found = [self.up.pid]
        for pid in found:  # grows as it goes
            found += children_of(pid)
        return found

    def kill(self, part: str) -> int:
        """kill -9; returns the pid that is no more."""
        pid = self.pid(part)
        os.kill(pid, signal.SIGKILL)
        wait_for(lambda: not is_running(pid))
        return pid

    @contextmanager
    def paused(self, part: str) -> Iterator[None]:
        """The part and what it has started stand still, as on a machine that hangs."""
        with standing_still(self.pid(part)):
            yield

    def ask_each_worker(self, request: bytes) -> list[Answer]:
        """What each says to `request`."""
        return self.by_each_worker(lambda: volley(self.api.port, [request])[0])

    def by_each_worker(self, act: Callable[[], T]) -> list[T]:
        """What `act` returns, once for each worker, while the others stand still."""
        workers, results = children_of(self.pid("serve")), []
        for worker in workers:
            with ExitStack() as others:
                for other in workers:
                    if other != worker:
                        others.enter_context(standing_still(other))
                results.append(act())
        return results

    @contextmanager
    def stopped_supervisor(self) -> Iterator[None]:
        """`up` starts nothing again while it stands still."""
        pid = self.up.pid
        assert pid is not None, "started"
        stand_still(pid)
        try:
            yield
        finally:
            os.kill(pid, signal.SIGCONT)

    # Stores

    def postgres(self) -> psycopg.Connection[tuple[Any, ...]]:
        """A connection, which ends with its block."""
        return psycopg.connect(self._stores().database_url, connect_timeout=5)

    def rows(self, statement: str, *values: object) -> list[tuple[Any, ...]]:
        """What Postgres answers."""
        with self.postgres() as connection:
            return connection.execute(statement, values).fetchall()

    def sequences(self) -> dict[str, int]:
        """Symbol -> the sequence of its book, of every listed instrument that has one above 0."""
        names: Any = self.redis.hkeys("instruments")
        symbols = [name.decode() for name in names]
        pipe = self.redis.pipeline(transaction=False)
        for symbol in symbols:
            pipe.hget(f"{{{symbol}}}:book", "sequence")
        told = zip(symbols, pipe.execute(), strict=True)
        return {symbol: int(sequence) for symbol, sequence in told if sequence not in (None, b"0")}

    def is_settled(self) -> bool:
        """Whether Postgres has every event, and Redis has dropped what it then no longer needs."""
        try:
            rows = self.rows("SELECT instrument, sequence FROM stream_positions WHERE sequence > 0")
            sequences = self.sequences()
            return dict(rows) == sequences and not any(map(self._in_hand, sequences))
        except (psycopg.OperationalError, redis.RedisError):
            return False

    def _in_hand(self, symbol: str) -> int:
        """Events that the persister has read and not yet acknowledged, which it does last."""
        pending: Any = self.redis.xpending(f"{{{symbol}}}:events", "persister")
        return int(pending["pending"])

    def settled(self) -> None:
        """Returns once the persister is through with everything, while nobody trades."""
        wait_for(self.is_settled, SETTLED_TIMEOUT_S)

    def contents(self, symbol: str) -> dict[str, object]:
        """Every key of one instrument and what it holds, but for what the persister does meanwhile:
        its consumer group, a stream that it made for that, and how far it has come.
        """
        keys: Any = self.redis.keys(f"{{{symbol}}}:*")
        held = {key.decode(): self._content(key) for key in sorted(keys)}
        return {key: content for key, content in held.items() if content}

    def _content(self, key: bytes) -> object:
        kind = self.redis.type(key)
        if kind == b"hash":
            fields: Any = self.redis.hgetall(key)
            return {name: fields[name] for name in sorted(fields) if name != b"committed"}
        if kind == b"zset":
            return self.redis.zrange(key, 0, -1, withscores=True)
        assert kind == b"stream", key
        return self.redis.xrange(key)

    def digest(self, symbol: str) -> str:
        """One line for all of `contents`."""
        return hashlib.sha256(repr(self.contents(symbol)).encode()).hexdigest()

    # Instruments

    def list_instrument(self, tick_size: str = "1", lot_size: str = "1", **more: object) -> str:
        """Lists an instrument that no other test has; returns its symbol."""
        self._listed += 1
        symbol = f"T{self._listed:04}-USD"
        body: Json = {"symbol": symbol, "tick_size": tick_size, "lot_size": lot_size}
        answer = self.api.request("POST", "/admin/instruments", body | more)
        assert answer.status == 201, answer
        return symbol


@contextmanager
def running_system(
    module: str = "app", expected: Sequence[str] = (), **environ: str
) -> Iterator[System]:
    """A started System that is stopped at the end, whatever happens. Log lines of level error fail
    the test, but for those that have one of the `expected` texts: nothing else that tests send or
    kill is a defect of the server.
    """
    # Not pytest's folders: each new session of pytest closes them to other users, and to Postgres.
    with TemporaryDirectory(prefix="crossbook-", ignore_cleanup_errors=True) as folder:
        system = System(Path(folder), environ, module)
        try:
            system.start()
            yield system
        finally:
            system.stop()
        errors = [line for line in system.errors() if not any(text in line for text in expected)]
        assert not errors, "\n".join(errors)


def _json(path: Path) -> Json:
    document: Json = json.loads(path.read_text())
    return document


def _is_part(pid: int, part: str) -> bool:
    try:
        command = Path(f"/proc/{pid}/cmdline").read_bytes()
    except (FileNotFoundError, ProcessLookupError):
        return False
    # Before it starts a server, `up` asks the program for its version.
    return PARTS[part] in command and b"\0--version\0" not in command
