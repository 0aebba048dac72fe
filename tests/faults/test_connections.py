"""Connections that break in the middle of a request or an answer: between client and API, API and
Redis, API and Postgres; and a Postgres that is slow.
"""

import random
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Final
from urllib.parse import urlsplit

import pytest

from app.embedded.postgres_server import EmbeddedPostgres
from app.embedded.redis_server import EmbeddedRedis
from tests.audit import audit
from tests.faults.proxy import Proxy
from tests.flow import Crowd, HttpLine
from tests.free_ports import free_port
from tests.rest import HOST, Api
from tests.streams import SocketLine
from tests.system import System
from tests.waiting import wait_for

TRADERS: Final = 8
CUTS: Final = {"http": 60, "redis": 60, "postgres": 8}
"""Of each link. The persister waits longer after each failure, up to seconds."""
CUT_WITHIN_S: Final = 20.0
HTTP_BYTES_MAX: Final = 900
"""About an answer's size: cuts fall into its head, its body, or before its first byte."""
REDIS_BYTES_MAX: Final = 1_500
POSTGRES_BYTES_MAX: Final = 300
DELAY_S: Final = 0.05
"""Of each piece of an answer of a slow Postgres: a transaction takes half a second."""
PROGRESS: Final = 300
EXPECTED: Final = ("a message on a WebSocket failed",)

pytestmark = pytest.mark.slow


@dataclass
class Links:
    """A system, and the three links that can be cut. `api` goes through the first."""

    system: System
    api: Api
    http: Proxy
    redis: Proxy
    postgres: Proxy


@pytest.fixture(scope="module")
def links() -> Iterator[Links]:
    """Redis and Postgres are ours; the system knows them by the proxies' addresses."""
    with (
        TemporaryDirectory(prefix="crossbook-", ignore_cleanup_errors=True) as folder,
        running(Path(folder)) as found,
    ):
        yield found


@contextmanager
def running(folder: Path) -> Iterator[Links]:
    with ExitStack() as stack:
        redis_server, postgres = (
            EmbeddedRedis(folder / "stores", port=free_port()),
            EmbeddedPostgres(folder / "stores", port=free_port()),
        )
        for server in (redis_server, postgres):
            server.start()
            stack.callback(server.stop)
            server.wait_ready()
        to_redis = stack.enter_context(Proxy(address(redis_server.tcp_url)))
        to_postgres = stack.enter_context(Proxy(address(postgres.tcp_url)))
        urls = {
            "REDIS_URL": through(to_redis, redis_server.tcp_url),
            "DATABASE_URL": through(to_postgres, postgres.tcp_url),
        }
        system = System(folder / "data", urls)
        stack.callback(system.stop)
        system.start()
        to_api = stack.enter_context(Proxy((HOST, system.api.port)))
        yield Links(system, Api(to_api.port), to_api, to_redis, to_postgres)


def address(url: str) -> tuple[str, int]:
    """Host and port."""
    parts = urlsplit(url)
    assert parts.hostname is not None
    assert parts.port is not None
    return parts.hostname, parts.port


def through(proxy: Proxy, url: str) -> str:
    """The URL of the same server by way of the proxy."""
    host, port = address(url)
    return url.replace(f"{host}:{port}", f"{host}:{proxy.port}")


def cut_often(proxy: Proxy, rng: random.Random, cuts: int, bytes_max: int) -> None:
    """One cut after the other, each as soon as something is on the wire."""
    for _ in range(cuts):
        proxy.cut(rng, bytes_max)
        wait_for(lambda: proxy.is_cut, CUT_WITHIN_S)
        time.sleep(rng.uniform(0, 0.02))  # so that cuts do not follow each other at once


def crowd_of(links: Links, rng: random.Random) -> Crowd:
    """Half of them by WebSocket, through the same proxy."""
    ways = (HttpLine, SocketLine)
    symbol = links.system.list_instrument()
    return Crowd(links.api, symbol, rng, TRADERS, lambda n: ways[n % 2](links.api))


def check_story(links: Links, crowd: Crowd) -> None:
    """All that was told is so, and what nobody was told happened once or not at all."""
    for one in crowd.untold:
        assert getattr(one.command, "idempotency_key", "") is None, f"never resolved: {one}"
    audit(links.system, crowd.symbol, crowd.outcomes)


@pytest.mark.parametrize(
    ("link", "bytes_max"),
    [("http", HTTP_BYTES_MAX), ("redis", REDIS_BYTES_MAX), ("postgres", POSTGRES_BYTES_MAX)],
)
def test_connections_cut_in_the_middle_lose_nothing_and_do_nothing_twice(
    links: Links, rng: random.Random, link: str, bytes_max: int
) -> None:
    crowd, proxy = crowd_of(links, rng), getattr(links, link)
    with crowd.trading():
        cut_often(proxy, rng, CUTS[link], bytes_max)
    assert proxy.cuts == CUTS[link]
    if link != "postgres":
        assert any(one.attempts > 1 for one in crowd.told), "answers were lost"
    check_story(links, crowd)


def test_a_slow_postgres_slows_no_order(links: Links, rng: random.Random) -> None:
    """Orders go on; the persister is behind for a while, and catches up."""
    crowd = crowd_of(links, rng)
    with crowd.trading():
        links.postgres.delay_s = DELAY_S
        goal = crowd.count + PROGRESS
        wait_for(lambda: crowd.count >= goal)
        links.postgres.delay_s = 0.0
    check_story(links, crowd)
