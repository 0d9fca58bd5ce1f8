"""Prometheus' console pages, served by Prometheus itself over figures that are made up."""

from __future__ import annotations

import re
import time
from collections.abc import Iterator
from html import unescape
from pathlib import Path

import pytest

from tests.tools.console_site import Text, Values, fetch, figures, growing, prometheus, steady
from tools.dashboards.__main__ import CONSOLES
from tools.dashboards.figures import ALERTS

PAGES = sorted(CONSOLES.glob("*.html"))
NOW = time.time()
GATEWAY = 'job="gateway", instance="gate1"'
NODE = 'job="node", instance="gate1"'


def instance(number: int, up: int, a_second: float) -> dict[str, Values]:
    """Return the figures of an instance, of whose predictions a tenth fails."""
    labels = f'job="iris-api", instance="iris-api@{number}", host="gate1"'
    predict = f'path="/predict", {labels}'
    buckets = {"0.008": 0.5, "0.016": 0.98, "0.032": 1.0, "+Inf": 1.0}
    return {
        f"up{{{labels}}}": steady(up),
        f'iris_api_requests_total{{status="200", {predict}}}': growing(0.9 * a_second),
        f'iris_api_requests_total{{status="500", {predict}}}': growing(0.1 * a_second),
        f'iris_api_model_info{{name="wine", version="2.0.0", engine="onnx", sha256="1", {labels}}}': steady(1),
        f'iris_api_release_info{{release="1.1.0-aa", deployment="bf3c394d09", {labels}}}': steady(1),
        f"process_cpu_seconds_total{{{labels}}}": growing(0.25),
        f"process_resident_memory_bytes{{{labels}}}": steady(100 * 2**20),
    } | {
        f'iris_api_request_duration_seconds_bucket{{le="{edge}", {predict}}}': growing(share * a_second)
        for edge, share in buckets.items()
    }


SERIES: dict[str, Values] = {
    **instance(1, up=1, a_second=20),
    **instance(2, up=0, a_second=0),
    # More than 30 in 5 minutes: an alert without a wait.
    f'fortress_gateway_refused_logins_total{{route="predict", {GATEWAY}}}': growing(0.2),
    f'fortress_gateway_requests_total{{route="predict", status="200", answered_by="upstream", {GATEWAY}}}': growing(18),
    f'fortress_gateway_requests_total{{route="predict", status="500", answered_by="upstream", {GATEWAY}}}': growing(2),
    'probe_success{job="probe", instance="gate1"}': steady(0),
    f'fortress_certificate_not_before_seconds{{certificate="gateway", {NODE}}}': steady(NOW - 280 * 86400),
    f'fortress_certificate_not_after_seconds{{certificate="gateway", {NODE}}}': steady(NOW + 120 * 86400),
    f"up{{{NODE}}}": steady(1),
    f'fortress_last_deployment_seconds{{event="deployed", {NODE}}}': steady(NOW - 7205),
    # Of a metric of somebody else's, say.
    'fortress_gateway_requests_total{route="<b>bold</b>", status="200"}': growing(1),
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("prometheus")


@pytest.fixture(scope="module")
def address(prometheus_server: str, promtool: str, folder: Path) -> Iterator[str]:
    with prometheus(prometheus_server, promtool, folder, SERIES) as address:
        deadline = time.monotonic() + 10
        # Rules are evaluated once a second here.
        while "LoginsRefused" not in fetch(f"{address}/consoles/overview.html")[1] and time.monotonic() < deadline:
            time.sleep(0.1)
        yield address


@pytest.fixture(scope="module")
def page(address: str) -> str:
    status, text = fetch(f"{address}/consoles/overview.html")
    assert status == 200, text
    return text


def test_the_figures_are_those_that_prometheus_has(page: str) -> None:
    shown = figures(page)
    assert shown["Instances up"] == ("1", "green")
    assert shown["Instances down"] == ("1", "orange")
    assert shown["Prediction by probe"] == ("fails", "red")
    assert shown["Certificate's life left"] == ("30%", "green")
    assert re.fullmatch(r"2h \d+m \d+s", shown["Last deployment"][0])
    assert shown["Warnings"] == ("1", "orange")
    # Nothing has counted these yet.
    assert shown["Latency p99"] == ("no requests", "")


def test_a_row_has_what_its_instance_does(page: str) -> None:
    text = Text(page)
    [first] = [row for row in text.rows if row[0] == "iris-api@1"]
    [second] = [row for row in text.rows if row[0] == "iris-api@2"]
    assert first[:3] == ["iris-api@1", "gate1", "up"]
    assert second[:3] == ["iris-api@2", "gate1", "down"]
    assert 15 < float(first[3].removesuffix("/s")) < 21
    assert 1.5 < float(first[4].removesuffix("/s")) < 2.1
    assert 14 < float(first[5].removesuffix("ms")) < 30
    assert 19 < float(first[7].removesuffix("%")) < 26
    assert first[8] == "100MiB"
    assert ["wine", "2.0.0", "onnx", "1.1.0-aa", "bf3c394d09", "2"] in text.rows


def test_an_alert_that_fires_is_told_with_its_meaning_and_its_runbook(page: str) -> None:
    text = Text(page)
    assert "Users are well; warnings: 1" in page
    assert "runbooks.html#LoginsRefused" in text.links
    [row] = [row for row in text.rows if "LoginsRefused" in row[0]]
    assert row[0].startswith("warning LoginsRefused for")
    assert "host gate1" in row[0].replace("\xa0", " ")
    assert row[0].endswith("Somebody tries passwords, or a client has an old one. make top names the addresses.")


def test_what_a_label_says_is_text(page: str) -> None:
    assert "<b>bold</b>" not in page
    assert "&lt;b&gt;bold&lt;/b&gt;" in page


@pytest.mark.parametrize("path", PAGES, ids=lambda path: path.stem)
def test_a_page_asks_nobody_else_and_runs_no_script(address: str, path: Path) -> None:
    status, page = fetch(f"{address}/consoles/{path.name}")
    assert status == 200, page
    assert "<script" not in page
    assert re.findall(r'<(?:link|img|iframe)|@import|url\(|src="', page) == []
    links = Text(page).links
    assert links
    known = ("#", "../classic/", "overview.html", "runbooks.html")
    assert [link for link in links if not link.startswith(known)] == []


def test_a_link_of_a_figure_leads_to_its_graph(page: str) -> None:
    [link] = [link for link in Text(page).links if "probe_success" in link and "min" in link]
    assert link == "../classic/graph?g0.expr=min%28probe_success%29&g0.tab=0&g0.range_input=6h"


def test_without_any_figures_nobody_is_said_to_be_well(prometheus_server: str, promtool: str, tmp_path: Path) -> None:
    with prometheus(prometheus_server, promtool, tmp_path, {"something": steady(1)}) as address:
        status, page = fetch(f"{address}/consoles/overview.html")
    assert status == 200, page
    assert "Users are well" not in page
    assert "Prometheus has no figures of an instance" in page
    assert figures(page)["Instances up"] == ("not known yet", "")
    assert "no alert fires" in page


def test_a_runbook_says_when_its_alert_fires_and_where_it_is_drawn(address: str) -> None:
    page = fetch(f"{address}/consoles/runbooks.html")[1]
    assert unescape(page).count("{{") == 0
    section = page.partition('<section id="LoginsRefused">')[2].partition("</section>")[0]
    assert unescape(ALERTS["LoginsRefused"].expr) in unescape(section)
    assert "Gateway, Refused logins in 5 minutes" in section
    for word in ("Confirm.", "Act.", "Check."):
        assert f"<strong>{word}</strong>" in section
