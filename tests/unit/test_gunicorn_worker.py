"""Taking leave: a worker that stops closes connections on which nothing is asked, and no others."""

import gevent
import pytest
from gevent.event import Event

from app import gunicorn_worker
from app.gunicorn_worker import Waiting, WholeResponse

LONG_S = 30.0


@pytest.fixture
def among() -> set[Waiting]:
    return set()


def end_idle(among: set[Waiting]) -> None:
    """As a worker does it; returns when the hub was at it."""
    for waiting in among:
        gevent.get_hub().loop.run_callback(waiting.end_if_idle)
    gevent.sleep(0.01)


def waits(among: set[Waiting], told: list[str]) -> None:
    """What gunicorn does for each request of a connection."""
    with Waiting(LONG_S, among):
        gevent.sleep(LONG_S)
        told.append("a request")
    told.append("goes on")


def test_a_connection_that_only_waits_is_ended_quietly(
    among: set[Waiting], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(gunicorn_worker, "IDLE_S", 0.0)
    told: list[str] = []
    connection = gevent.spawn(waits, among, told)
    gevent.sleep(0.01)
    assert len(among) == 1
    end_idle(among)
    connection.join(LONG_S)
    assert told == ["goes on"], "without a request, as after the keep-alive time"
    assert not among


def test_one_that_has_just_begun_to_wait_is_left(
    among: set[Waiting], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(gunicorn_worker, "IDLE_S", LONG_S)
    told: list[str] = []
    connection = gevent.spawn(waits, among, told)
    gevent.sleep(0.01)
    end_idle(among)
    assert len(among) == 1
    assert not told
    connection.kill()


def test_one_that_is_answering_is_left_although_it_was_to_be_ended(
    among: set[Waiting], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The request came between the look and the end."""
    monkeypatch.setattr(gunicorn_worker, "IDLE_S", 0.0)
    told: list[str] = []
    has_begun, comes, answers_now, goes_on = (Event() for _ in range(4))

    def answers() -> None:
        with Waiting(LONG_S, among):
            has_begun.set()
            comes.wait()
        answers_now.set()
        goes_on.wait()
        told.append("answered")

    connection = gevent.spawn(answers)
    has_begun.wait()
    (waiting,) = among
    comes.set()
    answers_now.wait()
    waiting.end_if_idle()
    goes_on.set()
    connection.join(LONG_S)
    assert told == ["answered"]
    assert connection.successful()


def test_the_last_answer_of_a_connection_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    class Request:
        version = (1, 1)
        method = "GET"

        def should_close(self) -> bool:
            return False

    class Config:
        is_ssl = sendfile = False

    response = WholeResponse(Request(), None, Config())
    response.response_length = 0
    assert not response.should_close()
    monkeypatch.setattr(WholeResponse, "is_last", staticmethod(lambda: True))
    assert response.should_close()
