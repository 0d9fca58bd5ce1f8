"""Dashboards and console pages by their numbers: what was done is what panel, alert and page say."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import time
from pathlib import Path
from typing import Any

import httpx
import pytest
from testinfra.host import Host

from tests import ROOT
from tests.host.test_signals import ROW, client, gateway
from tests.monitored import query, wait_for
from tests.tools.console_site import Text, figures
from tools.dashboards.figures import ALERTS

testinfra_hosts = ["ansible://monitoring"]

__all__ = ["client", "gateway"]

DASHBOARDS = {path.stem: path for path in (ROOT / "roles/grafana/files/etc/grafana/dashboards").glob("*.json")}
GUESSES = 37


@pytest.fixture
def prometheus_url(host: Host) -> str:
    """Where people reach Prometheus; of several monitoring hosts the first."""
    return os.environ.get("FORTRESS_PROMETHEUS") or f"http://{os.environ['FORTRESS_MONITORING']}:9090"


@pytest.fixture
def browser() -> str:
    program = shutil.which("chromium")
    if not program:
        pytest.skip("there is no chromium: tools/control-node test installs it")
    return program


def expression(dashboard: str, title: str) -> str:
    """Return what a panel asks, as Grafana asks it where nothing is left out."""
    panels: list[dict[str, Any]] = json.loads(DASHBOARDS[dashboard].read_text())["panels"]
    [panel] = [panel for panel in panels if panel["title"] == title]
    [target] = panel["targets"]
    return re.sub(r"\$\w+", ".*", target["expr"])


def value(host: Host, expr: str) -> float:
    return sum(float(sample["value"][1]) for sample in query(host, expr))


def page(url: str, name: str = "overview") -> str:
    """Return a console page as Prometheus has filled it in."""
    answer = httpx.get(f"{url}/consoles/{name}.html", timeout=10)
    assert answer.status_code == 200, answer.text
    return answer.text


def test_as_many_wrong_passwords_as_were_sent_are_on_the_panel_and_in_the_alert(
    host: Host, client: httpx.Client, prometheus_url: str
) -> None:
    panel = expression("nginx", "Refused logins in 5 minutes")
    alert, _, threshold = ALERTS["LoginsRefused"].expr.rpartition(" > ")
    # On a younger site `increase` extrapolates over the part of its window that it has no samples of.
    known = "min(count_over_time(fortress_gateway_refused_logins_total[5m])) > 95"
    assert wait_for(lambda: query(host, known), 310)
    if value(host, panel) > 0:
        # An earlier test's are forgotten after five minutes.
        assert wait_for(lambda: value(host, panel) == 0, 330)
    for number in range(GUESSES):
        assert client.post("/predict", json=ROW, auth=("iris", f"wrong-{number}")).status_code == 401
        time.sleep(0.15)
    assert wait_for(lambda: value(host, panel) > GUESSES - 1, 20)
    time.sleep(7)
    for asked in (panel, alert, expression("nginx", "Refused logins")):
        assert abs(value(host, asked) - GUESSES) <= 1, asked
    assert float(threshold) < GUESSES
    fires = 'ALERTS{alertname="LoginsRefused", alertstate="firing"}'
    assert wait_for(lambda: query(host, fires), 40)
    text = Text(page(prometheus_url))
    assert [row for row in text.rows if "LoginsRefused" in row[0]]
    assert "runbooks.html#LoginsRefused" in text.links


def test_the_page_shows_what_prometheus_has(host: Host, prometheus_url: str) -> None:
    instances = len(query(host, 'up{job="iris-api"}'))
    shown = page(prometheus_url)
    found = figures(shown)
    assert found["Instances up"] == (str(instances), "green")
    assert found["Instances down"] == ("0", "green")
    assert found["Prediction by probe"] == ("works", "green")
    assert {text for text, _ in found.values()}.isdisjoint({"not known yet"}), found
    rows = Text(shown).rows
    [running] = [row for row in rows if len(row) == 6 and row[-1] == str(instances)]
    [sample] = query(host, "count by (name, version) (iris_api_model_info)")
    assert running[:2] == [sample["metric"]["name"], sample["metric"]["version"]]
    assert len([row for row in rows if row[0].startswith("iris-api@") and row[2] == "up"]) == instances


def test_an_instance_that_is_stopped_is_down_on_the_page(host: Host, prometheus_url: str) -> None:
    if not host.file("/opt/iris-api").exists:
        pytest.skip("the instances are on other hosts")
    host.check_output("systemctl stop iris-api@1")
    try:
        assert wait_for(lambda: figures(page(prometheus_url))["Instances down"] == ("1", "orange"), 30)
        assert wait_for(lambda: "runbooks.html#IrisApiInstanceDown" in Text(page(prometheus_url)).links, 60)
        assert [row[2] for row in Text(page(prometheus_url)).rows if row[0] == "iris-api@1"] == ["down"]
    finally:
        host.check_output("systemctl start iris-api@1")
    assert wait_for(lambda: figures(page(prometheus_url))["Instances down"] == ("0", "green"), 30)


@pytest.mark.parametrize("name", ["overview", "runbooks"])
def test_a_browser_shows_the_page(prometheus_url: str, browser: str, tmp_path: Path, name: str) -> None:
    """What it shows after all that it fetches and runs, which is nothing."""
    url = f"{prometheus_url}/consoles/{name}.html"
    command = [browser, "--headless", "--no-sandbox", "--disable-gpu", f"--user-data-dir={tmp_path}", "--dump-dom", url]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=120)
    assert done.returncode == 0, done.stderr
    if name == "overview":
        assert figures(done.stdout)["Instances down"] == ("0", "green")
        assert "<h2>Instances</h2>" in done.stdout
    else:
        assert '<section id="NginxDown">' in done.stdout


def test_links_of_the_page_lead_somewhere(prometheus_url: str) -> None:
    """Debian's Prometheus has no other pages than its classic ones."""
    links = {link.partition("#")[0] for link in Text(page(prometheus_url)).links}
    base = httpx.URL(f"{prometheus_url}/consoles/overview.html")
    found = {link: httpx.get(base.join(link.replace("&amp;", "&")), timeout=10).status_code for link in links if link}
    assert found
    assert {link: status for link, status in found.items() if status != 200} == {}
