"""gunicorn's settings: right values, and nothing imported before gevent has patched the worker; and
what the worker answers in the application's place.
"""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
from http import HTTPStatus
from pathlib import Path

import pytest

from app.api.problems import PROBLEM_JSON, Problem
from tests.rest import Answer, read_answer

ROOT = Path(__file__).resolve().parents[2]

# What would keep an unpatched socket, lock or wait function if the master imported it.
MUST_COME_LATER = ["flask", "redis", "psycopg", "psycopg_pool", "prometheus_client", "app.api"]

PROGRAM = """
import json, sys
from app import gunicorn_config as config, gunicorn_worker
names = ["bind", "workers", "worker_class", "http_parser", "accesslog", "preload_app"]
print(json.dumps({name: getattr(config, name) for name in names}
    | {"imported": [name for name in sys.modules],
       "metrics": __import__("os").environ["PROMETHEUS_MULTIPROC_DIR"]}))
"""


def load(tmp_path: Path, **environ: str) -> dict[str, object]:
    inherited = {key: val for key, val in os.environ.items() if key != "PROMETHEUS_MULTIPROC_DIR"}
    answer = subprocess.run(
        [sys.executable, "-c", PROGRAM],
        cwd=ROOT,
        env=inherited | {"DATA_DIR": str(tmp_path)} | environ,
        capture_output=True,
        text=True,
        check=True,
    )
    loaded: dict[str, object] = json.loads(answer.stdout)
    return loaded


def test_the_master_imports_nothing_that_gevent_has_to_patch_first(tmp_path: Path) -> None:
    imported = load(tmp_path)["imported"]
    assert isinstance(imported, list)
    assert [name for name in MUST_COME_LATER if name in imported] == []


def test_settings_reach_gunicorn(tmp_path: Path) -> None:
    loaded = load(tmp_path, HOST="::1", PORT="3999", WEB_CONCURRENCY="3")
    assert loaded["bind"] == "[::1]:3999"
    assert loaded["workers"] == 3
    assert loaded["worker_class"] == "app.gunicorn_worker.Worker"
    assert loaded["preload_app"] is False
    assert loaded["accesslog"] is None


def test_each_server_counts_in_its_own_folder(tmp_path: Path) -> None:
    assert load(tmp_path, PORT="3999")["metrics"] == str(tmp_path / "metrics" / "3999")


def test_the_operators_metrics_folder_is_used(tmp_path: Path) -> None:
    given = str(tmp_path / "given")
    assert load(tmp_path, PROMETHEUS_MULTIPROC_DIR=given)["metrics"] == given


def test_a_start_removes_old_counters_and_nothing_else(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PROMETHEUS_MULTIPROC_DIR", str(tmp_path))
    from app import gunicorn_config  # noqa: PLC0415  # reads the environment when imported

    (tmp_path / "counter_1.db").touch()
    (tmp_path / "thesis.txt").touch()
    gunicorn_config.on_starting(None)
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.txt"]


def written(status: int, message: str) -> Answer:
    """What a client gets of one error of gunicorn's."""
    from app.gunicorn_worker import write_problem  # noqa: PLC0415  # loads gevent, only here

    ours, theirs = socket.socketpair()
    with ours, theirs:
        write_problem(ours, status, "gunicorn's reason", message)
        ours.shutdown(socket.SHUT_WR)
        return read_answer(theirs)


@pytest.mark.parametrize(
    ("status", "code"),
    [
        (400, "bad_request"),
        (403, "forbidden"),
        (417, "expectation_failed"),
        (431, "request_header_fields_too_large"),
        (501, "not_implemented"),
        (500, "internal_error"),
    ],
)
def test_the_worker_answers_errors_in_the_applications_shape(status: int, code: str) -> None:
    answer = written(status, "what is wrong")
    assert answer.status == status
    assert answer.headers["Content-Type"] == PROBLEM_JSON
    assert answer.headers["Connection"] == "close"
    request_id = answer.headers["X-Request-Id"]
    assert len(request_id) == 16
    instance = f"urn:crossbook:request:{request_id}"
    detail = answer.json()["detail"]
    assert answer.json() == json.loads(Problem(status, code, detail).body(instance))


def test_each_error_of_the_worker_has_an_id_of_its_own() -> None:
    ids = {written(400, "what is wrong").headers["X-Request-Id"] for _ in range(10)}
    assert len(ids) == 10


def test_an_error_tells_what_is_wrong_with_the_request_in_few_characters() -> None:
    assert written(400, "Invalid Method 'X'").json()["detail"] == "Invalid Method 'X'"
    told = 'é"\n\0\ud800<script>' * 1_000
    assert told.startswith(written(431, told).json()["detail"])
    assert len(written(431, told).body) < 4_000


def test_an_error_tells_nothing_of_the_inside_of_the_server() -> None:
    answer = written(HTTPStatus.INTERNAL_SERVER_ERROR, "Configuration problem: a secret")
    assert b"secret" not in answer.body
