"""Grafana's dashboards: committed as built, sound, and with names that stay."""

from __future__ import annotations

import json
import re
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from iris_api.bundle.manifest import Manifest
from iris_api.predict.metrics import Metrics
from iris_api.settings import Settings

from tests import ROOT
from tests.promql import metrics
from tools.dashboards.__main__ import CONSOLES, TARGET, rendered
from tools.dashboards.figures import ALERTS
from tools.dashboards.panels import BOARDS, RUNBOOKS
from tools.rules.__main__ import FILES
from tools.rules.parts import Record, one_line

DASHBOARDS = {path.name: json.loads(path.read_text(encoding="utf-8")) for path in sorted(TARGET.glob("*.json"))}
PANELS = [
    pytest.param(panel, id=f"{name}: {panel['title']}")
    for name, dashboard in DASHBOARDS.items()
    for panel in dashboard["panels"]
]
PAGE = (CONSOLES / "overview.html").read_text(encoding="utf-8")
# What a page asks for.
ASKED = re.findall(r"query `([^`]+)`", PAGE)
MADE_BY_PROMETHEUS = {"ALERTS", "ALERTS_FOR_STATE", "up"}
# Of programs that are not ours, those names that tests on a host have found there.
OF_OTHERS = set(
    re.findall(
        r"\w+",
        """
alertmanager_notifications_failed_total
nginx_connections_accepted nginx_connections_active nginx_connections_handled nginx_connections_reading
nginx_connections_waiting nginx_connections_writing nginx_http_requests_total nginx_up
node_cpu_seconds_total node_disk_read_bytes_total node_disk_written_bytes_total node_filefd_allocated
node_filefd_maximum node_filesystem_avail_bytes node_filesystem_files node_filesystem_files_free
node_filesystem_size_bytes node_memory_MemAvailable_bytes node_memory_MemTotal_bytes node_network_receive_bytes_total
node_network_transmit_bytes_total node_nf_conntrack_entries node_nf_conntrack_entries_limit node_systemd_unit_state
node_time_seconds
probe_duration_seconds probe_success
process_cpu_seconds_total process_resident_memory_bytes process_start_time_seconds
prometheus_notifications_errors_total
""",
    )
)


def expressions() -> Iterator[tuple[str, str]]:
    """Yield where an expression stands, and the expression with variables filled in."""
    for name, dashboard in DASHBOARDS.items():
        asked = [(panel["title"], target["expr"]) for panel in dashboard["panels"] for target in panel["targets"]]
        asked += [("annotation", annotation["expr"]) for annotation in dashboard["annotations"]["list"]]
        for title, expr in asked:
            for variable in ("instance", "host"):
                expr = expr.replace(f"${variable}", ".*")
            yield f"{name}: {title}", expr.replace("$__rate_interval", "1m")
    for expr in ASKED:
        yield "overview.html", expr


def exported() -> set[str]:
    """Return the names of all metrics that a site has."""
    program = (ROOT / "roles/mtail/templates/etc/mtail/fortress-gateway.mtail").read_text()
    of_gateway = set(re.findall(r'^counter \w+ as "(\w+)"', program, re.MULTILINE))
    for name in re.findall(r"^histogram (\w+)", program, re.MULTILINE):
        of_gateway |= {f"fortress_gateway_{name}_seconds_{part}" for part in ("bucket", "count", "sum")}
    of_instances: set[str] = set()
    # One model has classes and the other predicts a number.
    for model in ("iris", "diabetes"):
        manifest = Manifest.model_validate_json((ROOT / f"models/{model}/1.0.0/manifest.json").read_bytes())
        text = Metrics(Settings(model_dir=ROOT / f"models/{model}/1.0.0"), manifest, "onnx").render().decode()
        of_instances |= set(re.findall(r"^(\w+)[{ ]", text, re.MULTILINE))
    files = (ROOT / "roles/node_exporter/files/usr/local/lib/fortress/host_metrics.py").read_text()
    of_hosts = set(re.findall(r'^    "(fortress_\w+)":', files, re.MULTILINE))
    records = {
        rule.name for groups in FILES.values() for group in groups for rule in group.rules if isinstance(rule, Record)
    }
    return of_gateway | of_instances | of_hosts | records | MADE_BY_PROMETHEUS | OF_OTHERS


def test_committed_dashboards_and_pages_are_what_the_code_builds() -> None:
    committed = {path: path.read_text(encoding="utf-8") for folder in (TARGET, CONSOLES) for path in folder.glob("*")}
    assert committed == rendered(), "run `make dashboards` and commit what it writes"


def test_every_metric_that_is_asked_for_is_exported() -> None:
    known = exported()
    assert {"iris_api_requests_total", "fortress_gateway_requests_total", "fortress_unit_memory_bytes"} <= known
    missing = {f"{where}: {name}" for where, expr in expressions() for name in metrics(expr) - known}
    assert missing == set()


def test_every_expression_can_be_read_by_prometheus(promtool: str, tmp_path: Path) -> None:
    rules = [{"record": f"asked{number}", "expr": expr} for number, (_, expr) in enumerate(expressions())]
    assert len(rules) > 100
    (tmp_path / "rules.yml").write_text(json.dumps({"groups": [{"name": "asked", "rules": rules}]}))
    done = subprocess.run(
        [promtool, "check", "rules", tmp_path / "rules.yml"], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr


def test_links_to_the_dashboards_stay_valid() -> None:
    assert {dashboard["uid"]: dashboard["title"] for dashboard in DASHBOARDS.values()} == {
        "fortress-overview": "Overview",
        "fortress-nginx": "Gateway",
        "fortress-iris-api": "Iris API",
        "fortress-model": "Model",
        "fortress-host": "Host",
    }


def linked() -> dict[str, set[str]]:
    """Return the alerts whose runbooks the panels of each dashboard link."""
    return {
        dashboard["uid"]: {
            link["title"].removeprefix("Runbook ") for panel in dashboard["panels"] for link in panel.get("links", [])
        }
        for dashboard in DASHBOARDS.values()
    }


def test_a_link_to_a_runbook_leads_to_its_section() -> None:
    page = (CONSOLES / "runbooks.html").read_text(encoding="utf-8")
    found = set(re.findall(r'id="(\w+)"', page))
    # By its name from a table of alerts, and in small letters as in the annotation of its rule.
    assert {alert.name for alert in ALERTS.values()} | {alert.name.lower() for alert in ALERTS.values()} <= found
    links = [
        link["url"]
        for dashboard in DASHBOARDS.values()
        for panel in dashboard["panels"]
        for link in panel.get("links", [])
    ]
    assert links
    assert {link for link in links if link.removeprefix(f"{RUNBOOKS}#") not in found} == set()


def test_an_alert_leads_to_a_dashboard_where_a_panel_leads_back_to_its_runbook() -> None:
    shown = linked()
    for alert in ALERTS.values():
        if alert.severity != "info":
            boards = [uid for uid, begins in BOARDS.items() if re.match(begins, alert.name)] or ["fortress-host"]
            assert len(boards) == 1, alert.name
            assert alert.name in shown[boards[0]], f"{alert.name} is on no panel of {boards[0]}"


def test_a_line_is_drawn_where_an_alert_fires() -> None:
    """And what is drawn is what the alert asks, but for what the reader has chosen."""
    lines = 0
    chosen = r'(?:, )?(?:name=~"iris-api@\.\*", )?(?:instance|host)=~"\$\w+"|, window="1\w"'
    for dashboard in DASHBOARDS.values():
        for panel in dashboard["panels"]:
            style = panel["fieldConfig"]["defaults"].get("custom", {}).get("thresholdsStyle")
            if panel["type"] != "timeseries" or not style:
                continue
            lines += 1
            limit = panel["fieldConfig"]["defaults"]["thresholds"]["steps"][1]["value"]
            asked = [one_line(ALERTS[link["title"].removeprefix("Runbook ")].expr) for link in panel["links"]]
            for target in panel["targets"]:
                expr = re.sub(chosen, "", target["expr"].replace("$__rate_interval", "5m")).replace("{}", "")
                assert any(alert == f"{expr} > {limit:g}" for alert in asked), (panel["title"], expr, limit)
    assert lines >= 10


@pytest.mark.parametrize("dashboard", DASHBOARDS.values(), ids=DASHBOARDS.keys())
def test_deployments_are_marked_on_every_graph(dashboard: dict[str, Any]) -> None:
    [annotation] = dashboard["annotations"]["list"]
    assert annotation["useValueForTime"]
    assert metrics(annotation["expr"]) == {"fortress_last_deployment_seconds"}
    # The value is the time, in milliseconds.
    assert " * 1000" in annotation["expr"]


@pytest.mark.parametrize("name", ["nginx.json", "iris-api.json", "host.json"])
def test_every_expression_goes_by_what_the_reader_has_chosen(name: str) -> None:
    variables = [variable["name"] for variable in DASHBOARDS[name]["templating"]["list"]]
    assert variables
    for panel in DASHBOARDS[name]["panels"]:
        for target in panel["targets"]:
            of_prometheus = (
                "alertmanager" in target["expr"] or "prometheus_" in target["expr"] or "(up)" in target["expr"]
            )
            assert of_prometheus or any(f"${variable}" in target["expr"] for variable in variables), panel["title"]


@pytest.mark.parametrize("dashboard", DASHBOARDS.values(), ids=DASHBOARDS.keys())
def test_a_dashboard_has_nothing_that_grafana_would_change_at_import(dashboard: dict[str, Any]) -> None:
    assert "id" not in dashboard
    assert "version" not in dashboard
    assert dashboard["schemaVersion"] >= 41, "older schemas are migrated by Grafana 12"
    ids = [panel["id"] for panel in dashboard["panels"]]
    assert len(set(ids)) == len(ids)


@pytest.mark.parametrize("panel", PANELS)
def test_a_panel_is_of_a_type_that_grafana_still_has_and_explains_itself(panel: dict[str, Any]) -> None:
    assert panel["type"] in {"stat", "timeseries", "table"}
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
    assert queries >= {
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
    host, instance = DASHBOARDS["iris-api.json"]["templating"]["list"]
    assert (host["name"], host["allValue"]) == ("host", ".*")
    assert (instance["name"], instance["allValue"]) == ("instance", ".*")
    for panel in DASHBOARDS["iris-api.json"]["panels"]:
        for target in panel["targets"]:
            selectors = re.findall(r"\w+{", target["expr"])
            # What the host says of a unit has the host as its instance.
            by = 'instance=~"$host"' if "fortress_unit" in target["expr"] else 'host=~"$host", instance=~"$instance"'
            assert selectors and target["expr"].count(by) == len(selectors), panel["title"]
            legend = target.get("legendFormat", "")
            assert ("{{instance}}" in legend) == ("{{host}}" in legend or "{{name}}" in legend), panel["title"]


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
    expression = target["expr"].replace("$host", host).replace("$instance", ".*").replace("$__rate_interval", "1m")
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
