"""Prometheus's settings, alert rules and the Grafana dashboard: what promtool says of them, that
each alert fires for what it is for, and that each leads to a section that there is.
"""

import json
import re
from pathlib import Path
from typing import Any, Final

import pytest
import yaml

from tests.promtool import check_expressions, promtool

ROOT: Final = Path(__file__).resolve().parents[2]
FOLDER: Final = ROOT / "docs" / "observability"
ALERTS: Final = FOLDER / "alerts.yml"
DASHBOARDS: Final = FOLDER / "grafana" / "dashboards"
SCRAPE_S: Final = 5
STEADY: Final = "1+0x200"
INSTRUMENT: Final = 'instrument="BTC-USD"'

Json = dict[str, Any]

WELL: Final = {
    'up{job="crossbook"}': STEADY,
    'order_latency_seconds_bucket{le="0.5"}': "0+10x200",
    'order_latency_seconds_bucket{le="1.0"}': "0+10x200",
    'order_latency_seconds_bucket{le="+Inf"}': "0+10x200",
    'orders_rejected_total{code="internal_error"}': "0x200",
    'orders_rejected_total{code="outcome_unknown"}': "0x200",
    'orders_rejected_total{code="too_late"}': "0x200",
    "crossbook_redis_up": STEADY,
    "crossbook_redis_writable": STEADY,
    "crossbook_redis_memory_used_bytes": "900x200",
    "crossbook_redis_memory_max_bytes": "0x200",  # no limit
    "crossbook_books_missing": "0x200",
    "crossbook_instruments_listed": "10x200",
    "crossbook_postgres_up": STEADY,
    "crossbook_sweeper_up": STEADY,
    f"crossbook_persister_lag_events{{{INSTRUMENT}}}": "40000x200",
}
"""Series of a system without alerts, as promtool writes them."""

HALTED: Final = f'crossbook_instrument_halted{{code="%s",{INSTRUMENT}}}'
FIRE: Final[dict[str, Json]] = {
    "CrossbookDown": {'up{job="crossbook"}': "0x200"},
    "CrossbookOrdersSlow": {'order_latency_seconds_bucket{le="0.5"}': "0+9x200"},
    "CrossbookInternalErrors": {'orders_rejected_total{code="internal_error"}': "0x100 1x100"},
    "CrossbookUnknownOutcomes": {'orders_rejected_total{code="outcome_unknown"}': "0x100 2x100"},
    "CrossbookClockJumped": {'orders_rejected_total{code="too_late"}': "0x100 1x100"},
    "CrossbookRedisAway": {"crossbook_redis_up": "0x200"},
    "CrossbookRedisTakesNoWrites": {"crossbook_redis_writable": "0x200"},
    "CrossbookRedisMemoryShort": {"crossbook_redis_memory_max_bytes": "1000x200"},
    "CrossbookBooksMissing": {"crossbook_books_missing": "1x200"},
    "CrossbookRedisWentBack": {HALTED % "diverged": STEADY},
    "CrossbookPostgresWentBack": {HALTED % "postgres_behind": STEADY},
    "CrossbookInstrumentHalted": {HALTED % "poison": STEADY},
    "CrossbookPostgresAway": {"crossbook_postgres_up": "0x200"},
    "CrossbookPersisterAway": {"crossbook_sweeper_up": "0x200"},
    "CrossbookPersisterBehind": {
        f"crossbook_persister_lag_events{{{INSTRUMENT}}}": "60000x200",
    },
    "CrossbookInstrumentCrowded": {f"crossbook_instrument_crowded{{{INSTRUMENT}}}": STEADY},
}
"""Alert -> what is otherwise than WELL. In each case no other alert fires."""


def rules() -> list[Json]:
    """All alerts."""
    document = yaml.safe_load(ALERTS.read_text())
    return [rule for group in document["groups"] for rule in group["rules"]]


def dashboards() -> list[Json]:
    return [json.loads(path.read_text()) for path in sorted(DASHBOARDS.glob("*.json"))]


def panels() -> list[Json]:
    return [panel for dashboard in dashboards() for panel in dashboard["panels"]]


def dashboard_expressions() -> list[str]:
    """As Prometheus gets them, for some choice in the dashboard."""
    expressions = [target["expr"] for panel in panels() for target in panel.get("targets", ())]
    expressions += [note["expr"] for one in dashboards() for note in one["annotations"]["list"]]
    return [
        text.replace("$__rate_interval", "20s").replace("$instrument", "BTC-USD|ETH-USD")
        for text in expressions
    ]


def test_prometheus_takes_its_settings_and_rules() -> None:
    promtool("check", "config", "prometheus.yml", folder=FOLDER)
    promtool("check", "rules", "--lint=all", "--lint-fatal", str(ALERTS))


def test_every_expression_of_the_dashboard_can_be_parsed(tmp_path: Path) -> None:
    expressions = dashboard_expressions()
    assert len(expressions) > 20
    assert not any("$" in text for text in expressions)
    check_expressions(expressions, tmp_path)
    with pytest.raises(AssertionError):
        check_expressions(["sum(rate(orders_received_total[20s])"], tmp_path)


def alert_test(alert: str | None, at_s: int) -> Json:
    """That exactly this alert, or none, fires at the end of its series."""
    series = WELL | (FIRE[alert] if alert else {})
    firing = 'sort(count by (alertname) (ALERTS{alertstate="firing"}))'
    samples = [{"labels": f'{{alertname="{alert}"}}', "value": 1}] if alert else []
    return {
        "name": alert or "all is well",
        "interval": f"{SCRAPE_S}s",
        "input_series": [{"series": name, "values": text} for name, text in series.items()],
        "promql_expr_test": [{"expr": firing, "eval_time": f"{at_s}s", "exp_samples": samples}],
    }


def test_each_alert_fires_for_what_it_is_for_and_for_nothing_else(tmp_path: Path) -> None:
    assert {rule["alert"] for rule in rules()} == FIRE.keys()
    document = {
        "rule_files": [str(ALERTS)],
        "evaluation_interval": f"{SCRAPE_S}s",
        "tests": [alert_test(alert, 600) for alert in (*FIRE, None)],
    }
    path = tmp_path / "alerts_test.yml"
    path.write_text(yaml.safe_dump(document, width=1_000))
    promtool("test", "rules", str(path))


def anchors(page: str) -> set[str]:
    """Of a Markdown page's headings, as GitHub makes them."""
    headings = re.findall(r"^#+ (.*)$", page, re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


def test_each_alert_leads_to_a_section_that_there_is() -> None:
    for rule in rules():
        page, _, anchor = rule["annotations"]["runbook_url"].partition("#")
        assert anchor in anchors((ROOT / page).read_text()), rule["alert"]
        assert rule["annotations"]["summary"]
        assert rule["labels"]["severity"] in {"critical", "warning"}


def test_every_failure_that_a_metric_shows_has_an_alert() -> None:
    """Sections without one are procedures, or nothing that a metric could show."""
    told = {rule["annotations"]["runbook_url"].partition("#")[2] for rule in rules()}
    told.add("the-memory-of-redis-is-full")
    sections = re.findall(r"^## (.*)$", (ROOT / "docs/OPERATIONS.md").read_text(), re.MULTILINE)
    without = {"The doors", "A damaged append-only file", "Read models that are wrong", "Routine"}
    for heading in set(sections) - without:
        assert anchors(f"# {heading}") <= told, heading


def test_the_dashboard_is_whole() -> None:
    for dashboard in dashboards():
        ids = [panel["id"] for panel in dashboard["panels"]]
        assert len(ids) == len(set(ids))
        assert len(json.dumps(dashboard)) < 100_000
    for panel in panels():
        assert panel["title"]
        if panel["type"] != "row":
            assert panel["description"]
            assert panel["datasource"] == {"type": "prometheus", "uid": "prometheus"}
            assert panel["targets"]


def test_no_panel_lies_on_another() -> None:
    for dashboard in dashboards():
        taken: dict[tuple[int, int], str] = {}
        for panel in dashboard["panels"]:
            place = panel["gridPos"]
            assert place["x"] + place["w"] <= 24
            for x in range(place["x"], place["x"] + place["w"]):
                for y in range(place["y"], place["y"] + place["h"]):
                    assert taken.setdefault((x, y), panel["title"]) == panel["title"]


def test_grafana_finds_what_is_mounted_for_it() -> None:
    compose = yaml.safe_load((ROOT / "docker-compose.yml").read_text())["services"]
    mounts = dict(volume.split(":")[:2] for volume in compose["grafana"]["volumes"])
    inside = {target: ROOT / source for source, target in mounts.items()}
    provisioning = inside["/etc/grafana/provisioning"]
    (provider,) = yaml.safe_load((provisioning / "dashboards/crossbook.yml").read_text())[
        "providers"
    ]
    assert inside[provider["options"]["path"]] == DASHBOARDS
    home = Path(compose["grafana"]["environment"]["GF_DASHBOARDS_DEFAULT_HOME_DASHBOARD_PATH"])
    assert (inside[str(home.parent)] / home.name).exists()
    (source,) = yaml.safe_load((provisioning / "datasources/prometheus.yml").read_text())[
        "datasources"
    ]
    assert source["uid"] == "prometheus"
    settings = yaml.safe_load((FOLDER / "prometheus.yml").read_text())
    assert settings["global"]["scrape_interval"] == source["jsonData"]["timeInterval"]
    (target,) = settings["scrape_configs"][0]["static_configs"][0]["targets"]
    assert target.split(":") == ["api", compose["api"]["ports"][0].rpartition(":")[2]]
