"""What is shipped for Prometheus and Grafana: alerts that fire when they should, queries of figures that exist."""

from __future__ import annotations

import configparser
import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import orjson
import pytest
from ruamel.yaml import YAML

from cluster.metrics import ENDED, FIGURES, PREFIX
from cluster.monitoring import OURS, Monitoring, with_share
from cluster.session import SessionError

HERE = Path(__file__).parent
needs_prometheus = pytest.mark.skipif(not shutil.which("promtool"), reason="needs promtool (Debian: prometheus)")
OURS_EXPORTED = {f"ray_{PREFIX}{name}" for name in FIGURES} | {f"ray_{PREFIX}{ENDED}_total"}
RAYS = set((HERE / "ray_metric_names.txt").read_text().split())  # as a build on two nodes of Ray 2.60 exported them
METRIC = re.compile(r"\b(?:ray|autoscaler)_[a-z0-9_]+")
QUOTED = re.compile(r'"(?:[^"\\]|\\.)*"')
DASHBOARD = orjson.loads((OURS / "corpusmill.json").read_bytes())
DATASOURCE = {"type": "prometheus", "uid": "${datasource}"}
PANEL_KEYS = {"id", "type", "title", "description", "datasource", "gridPos", "fieldConfig", "targets"}
TARGET_KEYS = {"refId", "expr", "legendFormat"}


def panels() -> Iterator[dict[str, Any]]:
    return (panel for panel in DASHBOARD["panels"] if panel["type"] != "row")


def queries(panel: dict[str, Any]) -> list[str]:
    """Those of a panel as PromQL, its variables filled in as Grafana does."""
    found = [re.sub(r"\$build|\$stage", ".*", target["expr"]) for target in panel["targets"]]
    return [expr.replace("$__rate_interval", "1m") for expr in found]


def expressions() -> list[str]:
    return [expr for panel in panels() for expr in queries(panel)]


def promtool(*arguments: object) -> str:
    done = subprocess.run(["promtool", *map(str, arguments)], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@needs_prometheus
def test_alerts_fire_on_what_they_are_for_and_on_nothing_else(tmp_path: Path) -> None:
    for file in (OURS / "alerts.yml", HERE / "alerts_test.yml"):
        shutil.copy(file, tmp_path)
    promtool("test", "rules", tmp_path / "alerts_test.yml")
    tested = YAML(typ="safe").load(HERE / "alerts_test.yml")["tests"]
    fired = {case["alertname"] for one in tested for case in one["alert_rule_test"] if case["exp_alerts"]}
    [group] = YAML(typ="safe").load(OURS / "alerts.yml")["groups"]
    assert fired == {rule["alert"] for rule in group["rules"] if "alert" in rule}


@needs_prometheus
def test_queries_parse_and_ask_for_figures_that_exist(tmp_path: Path) -> None:
    rules = [{"record": f"query:{number}", "expr": expr} for number, expr in enumerate(expressions())]
    (tmp_path / "rules.yml").write_bytes(orjson.dumps({"groups": [{"name": "dashboard", "rules": rules}]}))
    assert f"{len(rules)} rules found" in promtool("check", "rules", tmp_path / "rules.yml")
    asked = expressions() + [rule for rule in (OURS / "alerts.yml").read_text().split("expr:")[1:]]
    named = {name for expr in asked for name in METRIC.findall(QUOTED.sub('""', expr))}
    assert named <= OURS_EXPORTED | RAYS
    variables = {v["name"]: v.get("query") for v in DASHBOARD["templating"]["list"]}
    assert {name for query in variables.values() for name in METRIC.findall(query)} <= OURS_EXPORTED
    assert {name for name in OURS_EXPORTED if name not in named} == set()  # each figure is looked at


def test_the_dashboard_is_one_that_grafana_takes() -> None:
    assert DASHBOARD["schemaVersion"] == 36
    assert {"uid", "title", "time", "refresh", "templating", "panels"} < DASHBOARD.keys()
    numbers = [panel["id"] for panel in DASHBOARD["panels"]]
    assert len(set(numbers)) == len(numbers)
    taken: set[tuple[int, int]] = set()
    for panel in DASHBOARD["panels"]:
        at = panel["gridPos"]
        cells = {(x, y) for x in range(at["x"], at["x"] + at["w"]) for y in range(at["y"], at["y"] + at["h"])}
        assert cells, panel["title"]
        assert at["x"] + at["w"] <= 24
        assert not cells & taken, panel["title"]
        taken |= cells
    for panel in panels():
        assert panel["type"] in ("stat", "timeseries", "bargauge", "table")
        assert panel.keys() - {"options"} == PANEL_KEYS
        assert panel["datasource"] == DATASOURCE
        assert panel["title"]
        assert panel["description"].endswith((".", "…"))
        assert [target["refId"] for target in panel["targets"]] == list("ABC")[: len(panel["targets"])]
        for target in panel["targets"]:
            assert TARGET_KEYS <= target.keys() <= TARGET_KEYS | {"instant", "format"}
            assert set(re.findall(r"\$(\w+)", target["expr"])) <= {"build", "stage", "__rate_interval"}
    assert [v["name"] for v in DASHBOARD["templating"]["list"]] == ["datasource", "build", "stage"]


@needs_prometheus
def test_the_configuration_is_good_and_says_where_ray_and_the_dashboards_are(tmp_path: Path) -> None:
    monitoring = Monitoring(
        tmp_path / "a folder", session=tmp_path / "ray", port=9191, max_drop_share=0.5, alertmanager="127.0.0.1:9093"
    )
    written = monitoring.write()
    assert all(path.is_file() for path in written)
    assert "2 rule" not in promtool("check", "config", written[0])
    config = YAML(typ="safe").load(written[0])
    [scraped] = config["scrape_configs"]
    [found] = scraped["file_sd_configs"][0]["files"]
    assert found == str(tmp_path / "ray" / "session_latest" / "prom_metrics_service_discovery.json")
    assert config["alerting"]["alertmanagers"][0]["static_configs"][0]["targets"] == ["127.0.0.1:9093"]
    assert "vector(0.5)" in Path(config["rule_files"][0]).read_text()
    grafana = configparser.ConfigParser()
    grafana.read(tmp_path / "a folder" / "grafana" / "grafana.ini")
    assert grafana["server"]["http_addr"] == "127.0.0.1"
    provisioned = Path(grafana["paths"]["provisioning"])
    [source] = YAML(typ="safe").load(provisioned / "datasources" / "prometheus.yml")["datasources"]
    assert (source["name"], source["url"]) == ("Prometheus", "http://127.0.0.1:9191")
    ours, rays = YAML(typ="safe").load(provisioned / "dashboards" / "corpusmill.yml")["providers"]
    assert orjson.loads(Path(ours["options"]["path"], "corpusmill.json").read_bytes()) == DASHBOARD
    assert rays["options"]["path"].startswith(str(tmp_path / "ray" / "session_latest"))


def test_the_share_is_in_the_rules_as_shipped() -> None:
    rules = (OURS / "alerts.yml").read_text()
    assert with_share(rules, 0.9) == rules
    assert with_share(rules, 0.25).count("vector(0.25)") == 1


def test_an_address_that_is_no_ray_dashboard_is_told_before_anything_is_written(tmp_path: Path) -> None:
    with pytest.raises(SessionError, match="no Ray dashboard answers"):
        Monitoring(tmp_path / "new", address="http://127.0.0.1:9").write()
    assert not (tmp_path / "new" / "prometheus.yml").exists()
