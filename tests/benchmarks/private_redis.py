"""A Redis for one benchmark, with the project's redis.conf, and what its commands cost it. Commands
come packed and go pipelined, so that the client's speed does not matter: cost is Redis's own CPU.
"""

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from itertools import islice
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, NamedTuple

from redis import Redis
from redis.connection import AbstractConnection

from app.api.application import connect_redis
from app.embedded.redis_server import EmbeddedRedis

PIPELINED = 64
"""Commands sent in one write, about what 100 users make a worker's executor send."""
NO_REWRITES = ("--auto-aof-rewrite-percentage", "0")
"""A rewrite of the append-only file would fall into one round and not into the others."""


class Cost(NamedTuple):
    """Of one command, on average: all of Redis's CPU, and the time inside its script."""

    cpu_us: float
    script_us: float


@contextmanager
def private_redis() -> Iterator["Redis"]:
    """A client of a Redis that ends with the block."""
    with TemporaryDirectory(prefix="crossbook-bench-") as folder:
        server = EmbeddedRedis(Path(folder), extra_args=NO_REWRITES)
        server.start()
        try:
            server.wait_ready()
            yield connect_redis(server.url)
        finally:
            server.stop()


def send(client: "Redis", commands: Sequence[bytes]) -> list[Any]:
    """Run packed commands, one write after the other; their replies, in order.

    Raises:
        redis.ResponseError: a command failed.
    """
    with _connection(client) as connection:
        replies: list[Any] = []
        for first in range(0, len(commands), PIPELINED):
            chunk = commands[first : first + PIPELINED]
            connection.send_packed_command([b"".join(chunk)], check_health=False)
            replies += [connection.read_response() for _ in chunk]
        return replies


def send_ahead(client: "Redis", commands: Iterable[bytes]) -> list[Any]:
    """As `send`, but the next write is made while Redis works on the one before: for filling."""
    iterator, replies, under_way = iter(commands), list[Any](), 0
    with _connection(client) as connection:
        while chunk := list(islice(iterator, PIPELINED)):
            connection.send_packed_command([b"".join(chunk)], check_health=False)
            replies += [connection.read_response() for _ in range(under_way)]
            under_way = len(chunk)
        replies += [connection.read_response() for _ in range(under_way)]
    return replies


@contextmanager
def _connection(client: "Redis") -> Iterator[AbstractConnection]:
    connection = client.connection_pool.get_connection()
    try:
        yield connection
    finally:
        client.connection_pool.release(connection)


def cost_of(client: "Redis", commands: Sequence[bytes]) -> tuple[Cost, list[Any]]:
    """Run packed commands, all of them scripts, and say what they cost Redis."""
    cpu_before, scripts_before = _cpu_us(client), script_us(client)
    replies = send(client, commands)
    scripts_after, cpu_after = script_us(client), _cpu_us(client)
    count = len(commands)
    return Cost((cpu_after - cpu_before) / count, (scripts_after - scripts_before) / count), replies


def script_us(client: "Redis") -> int:
    """Time spent in scripts since Redis's start."""
    stats: Any = client.info("commandstats")
    return int(stats.get("cmdstat_evalsha", {"usec": 0})["usec"])


def used_memory_bytes(client: "Redis") -> int:
    """What Redis's data take, without what its allocator keeps in reserve."""
    memory: Any = client.info("memory")
    return int(memory["used_memory"])


def _cpu_us(client: "Redis") -> float:
    cpu: Any = client.info("cpu")
    return float((cpu["used_cpu_user"] + cpu["used_cpu_sys"]) * 1e6)
