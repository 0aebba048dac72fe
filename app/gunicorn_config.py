"""gunicorn's settings for `python -m app serve`. It is loaded in the master, before gevent patches
the workers, so it (and `app/__init__.py`) must not import Flask, redis, psycopg or anything of ours
that does: their sockets and locks would block a whole worker.
"""

from __future__ import annotations

import ctypes
import gc
import logging
import os
import signal
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Protocol

from gunicorn.glogging import Logger

from app import logs
from app.config import Settings
from app.engine import floors

if TYPE_CHECKING:
    from collections.abc import Mapping

KEEPALIVE_S: Final = 75  # longer than what load balancers keep (60 s), so that they close first
GRACEFUL_TIMEOUT_S: Final = 6  # an order takes milliseconds; a WebSocket's goodbye up to 5 s
WORKER_TIMEOUT_S: Final = 30
BACKLOG: Final = 2_048
CONNECTIONS_PER_WORKER: Final = 4_000
REQUEST_LINE_BYTES_MAX: Final = 8_190
HEADERS_MAX: Final = 64
HEADER_BYTES_MAX: Final = 8_190
SHARED_MEMORY: Final = Path("/dev/shm")  # noqa: S108  # gunicorn makes its files there safely
GC_THRESHOLDS: Final = (50_000, 20, 100)
METRICS_VARIABLE: Final = "PROMETHEUS_MULTIPROC_DIR"
PR_SET_PDEATHSIG: Final = 1  # linux/prctl.h


class Worker(Protocol):
    """What we use of gunicorn's worker."""

    pid: int
    alive: bool
    wsgi: Any
    floors_column: int


class Server(Protocol):
    """What we use of gunicorn's master: its live workers by pid."""

    WORKERS: dict[int, Worker]


class RootLogger(Logger):  # type: ignore[misc]  # gunicorn has no types
    """gunicorn's own lines go through our root logger, in our format.
    Not `logconfig_dict`: with it, gunicorn prepares an access-log line for every request.
    """

    def setup(self, cfg: object) -> None:
        """Called once, in the master; workers inherit it."""
        super().setup(cfg)
        logs.configure(settings)
        for name in ("gunicorn.error", "gunicorn.access"):
            logging.getLogger(name).handlers.clear()
            logging.getLogger(name).propagate = True

    def access(self, *_about_the_request: object) -> None:
        """Orders log themselves; asking four settings whether to would cost 5 % of a request."""


def metrics_dir(settings: Settings, environ: Mapping[str, str]) -> Path:
    """Where worker processes of this server keep their counters: as the environment says, else in
    the data folder by port, else (where that is read-only) in the system's temporary folder.
    """
    if environ.get(METRICS_VARIABLE):
        return Path(environ[METRICS_VARIABLE])
    chosen = settings.data_dir / "metrics" / str(settings.port)
    try:
        chosen.mkdir(parents=True, exist_ok=True)
    except OSError:
        return Path(tempfile.mkdtemp(prefix="crossbook-metrics-"))
    return chosen


def on_starting(_server: object) -> None:
    """Counters begin at zero with the server: files of an earlier run belong to other pids."""
    folder = Path(os.environ[METRICS_VARIABLE])
    folder.mkdir(parents=True, exist_ok=True)
    # Only prometheus_client's files: the operator may have named a folder that holds more.
    for stale in folder.glob("*.db"):
        stale.unlink(missing_ok=True)


def pre_fork(server: Server, worker: Worker) -> None:
    """In the master: a place for what the worker knows of the books."""
    taken = {other.floors_column for other in server.WORKERS.values()}
    worker.floors_column = shared_floors.free_column(taken)


def post_fork(_server: object, worker: Worker) -> None:
    """In the worker, before the application is made."""
    floors.use(floors.Floors(shared_floors, worker.floors_column))
    _end_with_the_master()


def _end_with_the_master() -> None:
    """A worker whose master was killed stops at once, since the next master needs its port. Without
    this gunicorn's workers look once a second; where there is no prctl they still do.
    """
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGTERM)


def post_worker_init(worker: Worker) -> None:
    """A stopping worker tells its WebSockets, which would otherwise keep it from ending."""
    worker.wsgi.extensions["hub"].stop_when(lambda: not worker.alive)
    # What is loaded by now stays for ever: the collector need not look at it again and again.
    gc.collect()
    gc.freeze()
    gc.set_threshold(*GC_THRESHOLDS)


def worker_exit(_server: object, worker: Worker) -> None:
    """Postgres hears a goodbye; an abandoned pool would complain in the log instead."""
    if worker.wsgi is not None:
        worker.wsgi.extensions["pool"].close()


def child_exit(_server: object, worker: Worker) -> None:
    """A worker's gauges of the moment go with it; what it counted stays."""
    from prometheus_client import multiprocess  # noqa: PLC0415  # reads METRICS_VARIABLE at import

    multiprocess.mark_process_dead(worker.pid)  # type: ignore[no-untyped-call]


def _bind(host: str, port: int) -> str:
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


settings: Final = Settings.from_environment(os.environ)
shared_floors: Final = floors.SharedMemory()
# prometheus_client decides at import which kind of counter it makes, so before the app is loaded.
os.environ[METRICS_VARIABLE] = str(metrics_dir(settings, os.environ))

# From here on: gunicorn's names.
wsgi_app = "app:create_app()"
proc_name = "crossbook"
bind = _bind(settings.host, settings.port)
backlog = BACKLOG
workers = settings.web_concurrency
# Patches the standard library in each worker before it loads the app.
worker_class = "app.gunicorn_worker.Worker"
sendfile = False  # the worker sends answers in one piece
worker_connections = CONNECTIONS_PER_WORKER
preload_app = False  # see the first paragraph
keepalive = KEEPALIVE_S
timeout = WORKER_TIMEOUT_S
graceful_timeout = GRACEFUL_TIMEOUT_S
http_parser = "auto"  # the C parser where it is installed
# No header of a proxy is believed, so the peer's address need not be looked up (3 % of a request).
forwarded_allow_ips = "*"
secure_scheme_headers: Final[dict[str, str]] = {}
forwarder_headers = ""
limit_request_line = REQUEST_LINE_BYTES_MAX
limit_request_fields = HEADERS_MAX
limit_request_field_size = HEADER_BYTES_MAX
# The heartbeat file of each worker: on a busy disk its touch could block the worker.
worker_tmp_dir = str(SHARED_MEMORY) if os.access(SHARED_MEMORY, os.W_OK) else None
logger_class = RootLogger
loglevel = settings.log_level
accesslog = None
control_socket_disable = True  # it would be made in the home folder
