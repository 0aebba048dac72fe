"""Crossbook's parts as processes of a benchmark, each started when it is wanted, and what CPU time
each has used (from /proc: benchmarks run on Linux).
"""

import os
import signal
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from http import HTTPStatus
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Final

from app.api.application import connect_redis
from app.domain.instruments import DEFAULT_INSTRUMENTS
from app.embedded import ports
from app.embedded.postgres_server import EmbeddedPostgres
from app.embedded.process import ChildProcess
from app.embedded.redis_server import EmbeddedRedis
from app.embedded.stores import Stores
from app.engine.reads import BookReads
from app.persistence.instruments import seed
from app.persistence.migrations import migrate
from tests.benchmarks.private_redis import NO_REWRITES
from tests.free_ports import free_port
from tests.processes import children_of
from tests.rest import Api
from tests.system import ROOT

SYMBOL: Final = "BTC-USD"
NOOP: Final = ("gunicorn", "-c", "python:tests.benchmarks.noop_gunicorn")
TICKS_PER_S: Final = os.sysconf("SC_CLK_TCK")


class Program(ChildProcess):
    """A Python module with its arguments, ready once it answers at `port` if it has one."""

    stop_steps = ((signal.SIGTERM, 15.0), (signal.SIGKILL, 5.0))

    def __init__(
        self, name: str, arguments: Sequence[str], environ: Mapping[str, str], port: int | None
    ) -> None:
        super().__init__()
        self.name = name
        self._arguments = arguments
        self._environ = environ
        self._port = port

    def command(self) -> list[str]:
        """Run by the interpreter of the benchmark."""
        return [sys.executable, "-m", *self._arguments]

    def environment(self) -> Mapping[str, str]:
        """As given."""
        return self._environ

    def popen_options(self) -> dict[str, Any]:
        """Where `app` and `tests` can be imported."""
        return {"cwd": ROOT}

    def probe(self) -> bool:
        """Whether it is ready to be measured."""
        if self._port is None:
            return self.exit_code() is None
        try:
            return Api(self._port).request("GET", "/readyz").status == HTTPStatus.OK
        except OSError:
            return False


class System:
    """Redis and Postgres, set up for the default instruments; the other parts on demand."""

    def __init__(self, stack: ExitStack, folder: Path) -> None:
        self._stack = stack
        self._folder = folder
        self.parts: dict[str, ChildProcess] = {}
        redis_server = EmbeddedRedis(folder, port=free_port(), extra_args=NO_REWRITES)
        postgres = EmbeddedPostgres(folder, port=free_port())
        self._start("redis", redis_server)
        self._start("postgres", postgres)
        self.stores = Stores(redis_server.url, postgres.url)
        migrate(postgres.url)
        seed(postgres.url)
        self.client = connect_redis(redis_server.url)
        self.reads = BookReads(self.client)

    def start_persister(self) -> None:
        """`app persist`, which follows what is announced."""
        for instrument in DEFAULT_INSTRUMENTS:
            self.reads.announce(instrument)
        self._start_program("persister", ("app", "persist"), None)

    def start_api(self) -> str:
        """`app serve`; returns its URL."""
        port = ports.choose(free_port(), self._folder / "api.port")
        self._start_program("api", ("app", "serve"), port)
        return f"http://{ports.LOOPBACK}:{port}"

    def start_noop(self) -> str:
        """The application that does nothing; returns its URL."""
        port = ports.choose(free_port(), self._folder / "noop.port")
        self._start_program("noop", NOOP, port)
        return f"http://{ports.LOOPBACK}:{port}"

    def cpu_s(self) -> dict[str, float]:
        """CPU seconds that each part and its children have used."""
        return {
            name: sum(map(_own_cpu_s, _family(part.pid)))
            for name, part in self.parts.items()
            if part.pid is not None
        }

    def lag_events(self) -> int:
        """How far the persister is behind."""
        return self.reads.lags([SYMBOL])[SYMBOL]

    def _start(self, name: str, part: ChildProcess) -> None:
        self._stack.callback(part.stop)
        part.start()
        part.wait_ready()
        self.parts[name] = part

    def _start_program(self, name: str, arguments: Sequence[str], port: int | None) -> None:
        own = {"DATA_DIR": str(self._folder / name), "LOG_LEVEL": "warning"}
        if port is not None:
            own["PORT"] = str(port)
        environ = os.environ | own | dict(self.stores.environment())
        self._start(name, Program(name, arguments, environ, port))


@contextmanager
def new_system() -> Iterator[System]:
    """A system of its own, gone with the block."""
    with (
        TemporaryDirectory(prefix="crossbook-bench-", ignore_cleanup_errors=True) as folder,
        ExitStack() as stack,
    ):
        yield System(stack, Path(folder))


def _family(pid: int) -> list[int]:
    """A process and all below it."""
    return [pid, *(one for child in children_of(pid) for one in _family(child))]


def _own_cpu_s(pid: int) -> float:
    try:
        text = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8")
    except (FileNotFoundError, ProcessLookupError):
        return 0.0
    # Behind the name, which may hold anything: utime is field 14 of all, stime 15.
    fields = text.rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / TICKS_PER_S
