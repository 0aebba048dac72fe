"""GET /metrics of a running system, as Prometheus reads it: well formed, everything there that
alerts and dashboard ask for, and true of stores that are away.
"""

import re
from collections.abc import Iterator

import pytest

from tests.integration.test_rest import metrics_of
from tests.promtool import promtool
from tests.rest import an_order
from tests.system import System, running_system
from tests.unit.test_observability import dashboard_expressions, rules
from tests.waiting import wait_for

ONLY_WHEN_WRONG = {"crossbook_instrument_halted", "crossbook_instrument_crowded"}
"""Without samples while all is well."""
ONLY_WITH_SUBSCRIBERS = {"crossbook_feed_lag_events"}
OF_PROMETHEUS = {"up", "ALERTS"}


@pytest.fixture(scope="module")
def system() -> Iterator[System]:
    """One of our own: its stores are paused."""
    with running_system() as running:
        yield running


def metrics_asked_for() -> set[str]:
    """Every metric that an expression of rules or dashboard names."""
    expressions = [rule["expr"] for rule in rules()] + dashboard_expressions()
    words = {
        word for text in expressions for word in re.findall(r"[A-Za-z_]\w*(?=[\[{ )=<>]|$)", text)
    }
    named = {word for word in words if "_" in word or word in OF_PROMETHEUS}
    return named - OF_PROMETHEUS - {"histogram_quantile"}


def test_promtool_finds_nothing_to_complain_of(system: System) -> None:
    api = system.api
    api.placed(an_order("BTC-USD", price="1.00"))
    api.place(an_order("BTC-USD", price="0"))
    said = promtool("check", "metrics", given=api.get("/metrics").body)
    assert said == ""


def test_everything_that_alerts_and_dashboard_ask_for_is_there(system: System) -> None:
    asked = metrics_asked_for()
    assert len(asked) > 20
    text = system.api.get("/metrics").body.decode()
    sampled = {line.partition("{")[0].partition(" ")[0] for line in text.splitlines()}
    assert asked - ONLY_WHEN_WRONG - ONLY_WITH_SUBSCRIBERS <= sampled
    for name in ONLY_WHEN_WRONG:
        assert f"# TYPE {name} gauge" in text


def test_what_an_alert_waits_for_is_zero_before_it_happens(system: System) -> None:
    """A counter that begins at one never increased."""
    metrics = metrics_of(system.api)
    for code in ("internal_error", "outcome_unknown", "too_late"):
        assert metrics[f'orders_rejected_total{{code="{code}"}}'] == 0


def test_books_and_streams_are_counted(system: System) -> None:
    symbol = system.list_instrument()
    for _ in range(3):
        system.api.placed(an_order(symbol))
    metrics = metrics_of(system.api)
    assert metrics[f'crossbook_commands_accepted_total{{instrument="{symbol}"}}'] == 3
    assert metrics[f'crossbook_stream_events{{instrument="{symbol}"}}'] == 3
    assert metrics["crossbook_books_missing"] == 0
    listed = system.api.found("/instruments")["instruments"]
    assert metrics["crossbook_instruments_listed"] == len(listed)
    system.redis.rename(f"{{{symbol}}}:book", f"{{{symbol}}}:elsewhere")
    assert metrics_of(system.api)["crossbook_books_missing"] == 1
    system.redis.rename(f"{{{symbol}}}:elsewhere", f"{{{symbol}}}:book")


def test_redis_tells_of_itself(system: System) -> None:
    metrics = metrics_of(system.api)
    assert metrics["crossbook_redis_up"] == metrics["crossbook_redis_writable"] == 1
    assert metrics["crossbook_redis_memory_used_bytes"] > 100_000
    assert metrics["crossbook_redis_memory_max_bytes"] == 0
    assert metrics["crossbook_redis_clients"] > 1
    assert 0 < metrics["crossbook_redis_ping_seconds"] < 1
    assert (
        metrics_of(system.api)["crossbook_redis_commands_total"]
        > (metrics["crossbook_redis_commands_total"])
    )
    system.redis.config_set("maxmemory", "1000000")
    try:
        metrics = metrics_of(system.api)
        assert metrics["crossbook_redis_writable"] == 0
        assert metrics["crossbook_redis_memory_max_bytes"] == 1_000_000
    finally:
        system.redis.config_set("maxmemory", "0")


def test_a_store_that_is_away_is_told_and_the_page_is_still_there(system: System) -> None:
    with system.paused("postgres"):
        metrics = metrics_of(system.api)
        assert metrics["crossbook_postgres_up"] == 0
        assert metrics["crossbook_postgres_ping_seconds"] > 0.1
        assert metrics["crossbook_redis_up"] == 1
    wait_for(lambda: metrics_of(system.api)["crossbook_postgres_up"] == 1)
    with system.stopped_supervisor():
        system.kill("redis")
        metrics = metrics_of(system.api)
        assert metrics["crossbook_redis_up"] == 0
        assert "crossbook_books_missing" not in metrics
        promtool("check", "metrics", given=system.api.get("/metrics").body)
    wait_for(lambda: metrics_of(system.api)["crossbook_redis_up"] == 1)
