"""A Redis for one benchmark, with the project's redis.conf, and what its commands cost it. Commands
are packed beforehand and go pipelined, so that the client's speed does not matter: cost is Redis's
own CPU.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, NamedTuple

from redis import Redis

from app.api.application import connect_redis
from app.embedded.redis_server import EmbeddedRedis
from app.engine.executor import Call, Packet, Sent, grouped
from tests.free_ports import free_port

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
        server = EmbeddedRedis(Path(folder), port=free_port(), extra_args=NO_REWRITES)
        server.start()
        try:
            server.wait_ready()
            yield connect_redis(server.url)
        finally:
            server.stop()


def send(client: "Redis", commands: Sequence[bytes]) -> list[Any]:
    """Run packed commands, PIPELINED in one write; their replies, in order.

    Raises:
        redis.ResponseError: a command failed.
    """
    connection = client.connection_pool.get_connection()
    try:
        replies: list[Any] = []
        for first in range(0, len(commands), PIPELINED):
            chunk = commands[first : first + PIPELINED]
            connection.send_packed_command([b"".join(chunk)], check_health=False)
            replies += [connection.read_response() for _ in chunk]
        return replies
    finally:
        client.connection_pool.release(connection)


def make(client: "Redis", calls: Sequence[Call]) -> list[Any]:
    """Make calls, PIPELINED in one write, grouped as the executor groups those of as many callers;
    their answers, in order.
    """
    sent = [Sent(call) for call in calls]
    for first in range(0, len(sent), PIPELINED):
        packets = grouped(sent[first : first + PIPELINED])
        while packets:
            replies = send(client, [packet.packed for packet in packets])
            pairs = zip(packets, replies, strict=True)
            left = [each for packet, reply in pairs for each in packet.take(reply)]
            packets = grouped(left)
    return [each.outcome for each in sent]


def cost_of(client: "Redis", commands: Sequence[bytes]) -> tuple[Cost, list[Any]]:
    """Run packed commands, all of them scripts, and say what they cost Redis."""
    return _measured(client, len(commands), lambda: send(client, commands))


def make_alone(client: "Redis", calls: Sequence[Call]) -> list[Any]:
    """As `make`, but each call is a command of its own."""
    packets = [Packet([Sent(call)], call.head, may_repeat=True) for call in calls]
    replies = send(client, [packet.packed for packet in packets])
    return [call.answer(reply) for call, reply in zip(calls, replies, strict=True)]


def cost_of_calls(
    client: "Redis", calls: Sequence[Call], how: Callable[..., list[Any]] = make
) -> tuple[Cost, list[Any]]:
    """Make calls by `how`, and say what they cost Redis."""
    return _measured(client, len(calls), lambda: how(client, calls))


def _measured(client: "Redis", count: int, run: Callable[[], list[Any]]) -> tuple[Cost, list[Any]]:
    cpu_before, scripts_before = _cpu_us(client), script_us(client)
    replies = run()
    scripts_after, cpu_after = script_us(client), _cpu_us(client)
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
