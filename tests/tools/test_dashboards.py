"""Grafana's dashboards: committed as built, sound, and with names that stay."""

import json
from collections.abc import Iterator
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


def _cells(position: dict[str, int]) -> Iterator[tuple[int, int]]:
    for x in range(position["x"], position["x"] + position["w"]):
        for y in range(position["y"], position["y"] + position["h"]):
            yield x, y
