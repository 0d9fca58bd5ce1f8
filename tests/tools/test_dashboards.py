"""Grafana's dashboards: committed as built, sound, and with names that stay."""

import json
import re
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests import ROOT
from tools.dashboards.__main__ import TARGET, rendered

DASHBOARDS = {path.name: json.loads(path.read_text(encoding="utf-8")) for path in sorted(TARGET.glob("*.json"))}
PANELS = [
    pytest.param(panel, id=f"{name}: {panel['title']}")
    for name, dashboard in DASHBOARDS.items()
    for panel in dashboard["panels"]
]


def test_committed_dashboards_are_what_the_code_builds() -> None:
    committed = {path.name: path.read_text(encoding="utf-8") for path in TARGET.glob("*")}
    assert committed == rendered(), "run `make dashboards` and commit what it writes"


def test_links_to_the_dashboards_stay_valid() -> None:
    assert {dashboard["uid"]: dashboard["title"] for dashboard in DASHBOARDS.values()} == {
        "fortress-nginx": "NGINX",
        "fortress-iris-api": "Iris API",
    }


@pytest.mark.parametrize("dashboard", DASHBOARDS.values(), ids=DASHBOARDS.keys())
def test_a_dashboard_has_nothing_that_grafana_would_change_at_import(dashboard: dict[str, Any]) -> None:
    assert "id" not in dashboard
    assert "version" not in dashboard
    assert dashboard["schemaVersion"] >= 41, "older schemas are migrated by Grafana 12"
    ids = [panel["id"] for panel in dashboard["panels"]]
    assert len(set(ids)) == len(ids)


@pytest.mark.parametrize("panel", PANELS)
def test_a_panel_is_of_a_type_that_grafana_still_has_and_explains_itself(panel: dict[str, Any]) -> None:
    assert panel["type"] in {"stat", "timeseries"}
    assert panel["description"]
    assert panel["targets"]


@pytest.mark.parametrize("panel", PANELS)
def test_a_panel_asks_the_provisioned_datasource(panel: dict[str, Any]) -> None:
    provisioned = ROOT / "roles/grafana/templates/etc/grafana/provisioning/datasources/fortress.yml"
    # The values are templates; uid and type are not.
    (datasource,) = yaml.safe_load(provisioned.read_text(encoding="utf-8").replace("{{", "").replace("}}", ""))[
        "datasources"
    ]
    wanted = {"type": datasource["type"], "uid": datasource["uid"]}
    assert panel["datasource"] == wanted
    assert [target["datasource"] for target in panel["targets"]] == [wanted] * len(panel["targets"])


@pytest.mark.parametrize("dashboard", DASHBOARDS.values(), ids=DASHBOARDS.keys())
def test_panels_lie_side_by_side_and_fill_the_width(dashboard: dict[str, Any]) -> None:
    cells = [cell for panel in dashboard["panels"] for cell in _cells(panel["gridPos"])]
    assert len(set(cells)) == len(cells), "two panels overlap"
    assert len(cells) % 24 == 0, "a row has a gap"


def test_nginx_shows_what_dashboard_12708_shows() -> None:
    queries = {target["expr"] for panel in DASHBOARDS["nginx.json"]["panels"] for target in panel["targets"]}
    instance = '{instance=~"$instance"}'
    assert queries == {
        f"nginx_up{instance}",
        f"irate(nginx_connections_accepted{instance}[5m])",
        f"irate(nginx_connections_handled{instance}[5m])",
        f"nginx_connections_active{instance}",
        f"nginx_connections_reading{instance}",
        f"nginx_connections_waiting{instance}",
        f"nginx_connections_writing{instance}",
        f"irate(nginx_http_requests_total{instance}[5m])",
    }


def panel(title: str) -> dict[str, Any]:
    return next(panel for panel in DASHBOARDS["iris-api.json"]["panels"] if panel["title"] == title)


def test_every_panel_of_the_instances_can_be_of_one_host() -> None:
    """And where a panel names instances, it names their hosts: their numbers are the same on each."""
    [variable] = DASHBOARDS["iris-api.json"]["templating"]["list"]
    assert (variable["name"], variable["allValue"]) == ("host", ".*")
    for panel in DASHBOARDS["iris-api.json"]["panels"]:
        for target in panel["targets"]:
            selectors = re.findall(r"iris_api\w*{|process_\w+{|up{|ALERTS{", target["expr"])
            expected = 0 if selectors == ["ALERTS{"] else len(selectors)
            assert selectors and target["expr"].count('host=~"$host"') == expected, panel["title"]
            legend = target.get("legendFormat", "")
            assert ("{{instance}}" in legend) == ("{{host}}" in legend), panel["title"]


A1, A2 = (f'job="iris-api", host="{host}", instance="iris-api@1"' for host in ("a1", "a2"))
SERIES = {
    f"up{{{A1}}}": "1x40",
    f"up{{{A2}}}": "0x40",
    f'iris_api_requests_total{{path="/predict", status="200", {A1}}}': "0+30x40",
    f'iris_api_requests_total{{path="/predict", status="200", {A2}}}': "0+60x40",
    f'iris_api_requests_total{{path="/predict", status="500", {A2}}}': "0+60x40",
    f"process_resident_memory_bytes{{{A1}}}": "11x40",
    f"process_resident_memory_bytes{{{A2}}}": "22x40",
}


@pytest.mark.parametrize(
    ("title", "host", "samples"),
    [
        ("Instances down", ".*", {"{}": 1}),
        ("Instances down", "a1", {"{}": 0}),
        ("Failed requests", ".*", {"{}": 0.4}),
        ("Failed requests", "a1", {"{}": 0}),
        ("Failed requests", "a2", {"{}": 0.5}),
        (
            "Requests by instance", ".*",
            {'{host="a1", instance="iris-api@1"}': 2, '{host="a2", instance="iris-api@1"}': 8},
        ),
        ("Requests by instance", "a2", {'{host="a2", instance="iris-api@1"}': 8}),
        (
            "Memory", ".*",
            {
                'process_resident_memory_bytes{host="a1", instance="iris-api@1", job="iris-api"}': 11,
                'process_resident_memory_bytes{host="a2", instance="iris-api@1", job="iris-api"}': 22,
            },
        ),
    ],
)  # fmt: skip
def test_a_panel_keeps_instances_of_one_number_on_two_hosts_apart(
    promtool: str, tmp_path: Path, title: str, host: str, samples: dict[str, float]
) -> None:
    """By Prometheus' own promtool, with one instance on each of two hosts."""
    [target] = panel(title)["targets"]
    expression = target["expr"].replace("$host", host).replace("$__rate_interval", "1m")
    expected = [{"labels": labels, "value": value} for labels, value in samples.items()]
    test = {
        "interval": "15s",
        "input_series": [{"series": series, "values": values} for series, values in SERIES.items()],
        "promql_expr_test": [{"expr": expression, "eval_time": "10m", "exp_samples": expected}],
    }
    (tmp_path / "tests.yml").write_text(json.dumps({"evaluation_interval": "15s", "tests": [test]}))
    done = subprocess.run(
        [promtool, "test", "rules", tmp_path / "tests.yml"], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr


def _cells(position: dict[str, int]) -> Iterator[tuple[int, int]]:
    for x in range(position["x"], position["x"] + position["w"]):
        for y in range(position["y"], position["y"] + position["h"]):
            yield x, y
