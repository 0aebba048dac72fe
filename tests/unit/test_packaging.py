"""What the container and the requirements promise, as far as it can be read from their files."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import yaml

ROOT = Path(__file__).resolve().parents[2]
MARKER = "# --- not needed in the container image ---"


def requirement_lines() -> list[str]:
    lines = (ROOT / "requirements.txt").read_text(encoding="utf-8").splitlines()
    return [line for line in lines if line and not line.startswith("#")]


@pytest.fixture(scope="module")
def compose() -> dict[str, Any]:
    loaded: dict[str, Any] = yaml.safe_load((ROOT / "docker-compose.yml").read_text("utf-8"))
    return loaded


def test_every_requirement_is_pinned_and_says_why() -> None:
    form = re.compile(
        r"[a-z0-9-]+(\[[a-z,]+\])?==[0-9][^ ]*(; python_version [<>=]+ \"[0-9.]+\")? +# .+"
    )
    assert [line for line in requirement_lines() if not form.fullmatch(line)] == []


def test_the_image_takes_what_stands_above_the_marker() -> None:
    text = (ROOT / "requirements.txt").read_text(encoding="utf-8")
    assert text.splitlines().count(MARKER) == 1
    above = text.split(MARKER)[0]
    assert "gunicorn==" in above
    assert "pytest==" not in above
    assert MARKER in (ROOT / "Dockerfile").read_text(encoding="utf-8")


def test_compose_publishes_on_loopback_the_api_and_nothing_else(compose: dict[str, Any]) -> None:
    published = {
        name: part["ports"] for name, part in compose["services"].items() if "ports" in part
    }
    unasked = {name for name in published if "profiles" not in compose["services"][name]}
    assert unasked == {"api"}
    assert published == {
        "api": ["127.0.0.1:3000:3000"],
        "prometheus": ["127.0.0.1:9090:9090"],
        "grafana": ["127.0.0.1:3001:3000"],
    }


def test_compose_waits_for_what_a_part_needs(compose: dict[str, Any]) -> None:
    parts = compose["services"]
    for name in ("api", "persister"):
        needed = parts[name]["depends_on"]
        assert needed["redis"]["condition"] == "service_healthy"
        assert needed["migrate"]["condition"] == "service_completed_successfully"
        # Nobody may open an empty book before a lost one is there again.
        assert needed["rebuild"]["condition"] == "service_completed_successfully"
    assert parts["migrate"]["depends_on"]["postgres"]["condition"] == "service_healthy"
    assert parts["rebuild"]["command"] == ["rebuild", "--if-empty"]
    assert parts["rebuild"]["depends_on"]["migrate"]["condition"] == (
        "service_completed_successfully"
    )


def test_compose_keeps_the_data_and_the_projects_redis_settings(compose: dict[str, Any]) -> None:
    parts = compose["services"]
    assert set(compose["volumes"]) == {"redis-data", "postgres-data", "prometheus-data"}
    assert "./redis.conf:/etc/redis.conf:ro" in parts["redis"]["volumes"]
    assert "redis-data:/data" in parts["redis"]["volumes"]
    assert "postgres-data:/var/lib/postgresql/data" in parts["postgres"]["volumes"]


def test_nothing_acknowledged_is_lost_by_the_settings_of_redis() -> None:
    lines = (ROOT / "redis.conf").read_text(encoding="utf-8").splitlines()
    assert {"appendonly yes", "appendfsync always", "maxmemory-policy noeviction"} <= set(lines)
    assert "no-appendfsync-on-rewrite no" in lines
