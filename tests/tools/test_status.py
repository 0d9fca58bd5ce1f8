"""`make status` says what is wrong, what to type, and how sure it is; each host answers for itself."""

from __future__ import annotations

import copy
import io
import json
import os
import subprocess
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
import yaml
from rich.console import Console

from tests import ROOT
from tools.status import __main__ as status
from tools.status import probe
from tools.status.judge import CODES, Finding, judge, named, traffic, worst
from tools.status.screen import show

NOW = 1_790_000_000.0
READY = {
    "status": "ok",
    "model": "iris",
    "model_version": "1.0.0",
    "engine": "onnx",
    "release": "2.0.0-ab12cd34",
    "deployment": "0123456789",
    "instance": "iris-api@1",
}
EVENT = {
    "event": "deployed",
    "who": "ops@laptop",
    "time": "2026-11-26T10:00:00Z",
    "deployment": "0123456789",
    "release": "2.0.0-ab12cd34",
    "app": "2.0.0-ab12cd34+ffff",
    "model": "iris-1.0.0-77",
    "previous": "",
    "blamed": "",
    "seconds": 21.5,
    "why": "",
}
# As Prometheus' API answers it.
TARGETS = {
    "activeTargets": [
        {
            "labels": {"instance": "iris-api@1", "job": "iris-api"},
            "health": "up",
            "lastError": "",
            "scrapeUrl": "http://x",
        },
        {"labels": {"instance": "fortress", "job": "node"}, "health": "up", "lastError": "", "scrapeUrl": "http://x"},
    ],
    "droppedTargets": [],
}
ALERTS = {
    "alerts": [
        {
            "labels": {"alertname": "Watchdog", "severity": "info"},
            "annotations": {"summary": "Alerts get through."},
            "state": "firing",
            "activeAt": "2026-11-26T10:00:00Z",
            "value": "1e+00",
        }
    ]
}
VALUES = {"requests": "1234.5", "errors": "0", "p99": "0.008"}


def unit(name: str, state: str = "active", sub: str = "running") -> dict[str, str]:
    return {"Id": f"{name}.service", "LoadState": "loaded", "ActiveState": state, "SubState": sub, "NRestarts": "0"}


@pytest.fixture
def hosts() -> dict[str, dict[str, Any]]:
    """What a site of one host says that is well."""
    said = {
        "groups": ["gateway", "api", "monitoring"],
        "time": NOW,
        "root": True,
        "problems": [],
        "units": [unit("nginx"), unit("prometheus"), unit("iris-api@1"), unit("iris-api@2")],
        "instances": [{"ready": True, **READY}, {"ready": True, **READY, "instance": "iris-api@2"}],
        "current": "deployments/0123456789",
        "history": [EVENT],
        "hold": None,
        "certificates": {
            "gateway": {"not_before": NOW - 100 * 86400, "not_after": NOW + 265 * 86400},
            "ca": {"not_before": NOW - 100 * 86400, "not_after": NOW + 3550 * 86400},
        },
        "traffic": {"requests": 50, "errors": 1, "p99": 0.02, "seconds": 300},
        "prometheus": {
            "targets": [
                {"labels": {"job": "iris-api", "instance": "iris-api@1"}, "health": "up", "error": ""},
                {"labels": {"job": "node", "instance": "fortress"}, "health": "up", "error": ""},
            ],
            "alerts": [
                {"labels": each["labels"], "annotations": each["annotations"], "since": each["activeAt"]}
                for each in ALERTS["alerts"]
            ],
            "values": {"requests": 1234.5, "errors": 0.0, "p99": 0.008},
            "seconds": 300,
        },
    }
    return {"fortress": copy.deepcopy(said)}


def screen(hosts: dict[str, dict[str, Any]], width: int = 160) -> str:
    console = Console(file=io.StringIO(), width=width)
    show(console, "inventory/prod", hosts, judge(hosts))
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue()


def test_a_site_that_is_well_is_one_screen_that_says_so(hosts: dict[str, dict[str, Any]]) -> None:
    assert judge(hosts) == []
    said = screen(hosts)
    assert said.startswith("OK  inventory/prod")
    for part in (
        "4 of 4 active",
        "2 of 2 ready",
        "iris 1.0.0 (onnx)",
        "2.0.0-ab12cd34",
        "265 days left",
        "1234 requests, 0 errors (0.00%), p99 8.0 ms; Prometheus on fortress",
        "2026-11-26T10:00:00Z deployed iris-1.0.0-77 by 2.0.0-ab12cd34, ops@laptop",
        "2 of 2 up",
        "none firing",
    ):
        assert part in said
    assert len(said.splitlines()) <= 24


@pytest.mark.parametrize("name", ["fortress", "gate-1.iris.example.com"])
def test_a_terminal_of_80_characters_holds_the_table_of_hosts(hosts: dict[str, dict[str, Any]], name: str) -> None:
    hosts = {name: hosts["fortress"], "api2": {"groups": ["api"], "unreachable": "no route to it"}}
    for instance in hosts[name]["instances"]:
        instance["release"] = "1.1.0-acf76db7c1-cp313"
    said = screen(hosts, width=80).splitlines()
    assert said[2].split() == ["HOST", "GROUPS", "UNITS", "INSTANCES", "CERTIFICATE"]
    assert said[3].split()[0] == name
    assert [part for part in ("4 of 4 active", "2 of 2 ready", "265 days left") if part not in said[3]] == []
    # Words of groups stand below each other where the host's name is long, and none is cut.
    words = " ".join(said[3:8]).split()
    assert [group for group in ("gateway", "api", "monitoring") if group not in words] == []
    assert "iris 1.0.0 (onnx) by 1.1.0-acf76db7c1-cp313" in "\n".join(said)


def test_hosts_that_serve_different_things_are_named_beside_each(hosts: dict[str, dict[str, Any]]) -> None:
    hosts["api2"] = copy.deepcopy(hosts["fortress"])
    assert "iris 1.0.0 (onnx) by 2.0.0-ab12cd34 " in screen(hosts)
    for instance in hosts["api2"]["instances"]:
        instance["release"] = "1.1.0-77"
    said = screen(hosts)
    assert "iris 1.0.0 (onnx) by 2.0.0-ab12cd34, on fortress" in said
    assert "iris 1.0.0 (onnx) by 1.1.0-77, on api2" in said


def alert(severity: str) -> dict[str, Any]:
    labels = {"alertname": "FeatureDrift", "severity": severity, "feature": "age"}
    annotations = {"summary": "age is not what it was.", "runbook": "docs/runbooks.md#featuredrift"}
    return {"labels": labels, "annotations": annotations, "since": "2026-11-26T10:00:00Z"}


# What is changed in the site that is well, by the path to it; how bad that is; what is said, and what to type.
WRONG: dict[str, tuple[list[str | int], Any, str, str, str]] = {
    "nginx": (["units", 0], unit("nginx", "failed", "failed"), "critical", "nginx.service is failed", "make ssh HOST="),
    "a part": (["units", 1], unit("prometheus", "inactive", "dead"), "warning", "prometheus.service is inactive", ""),
    "an instance": (["instances", 1], {"ready": False, "why": "refused"}, "warning", "iris-api@2 is not ready", ""),
    "a mix": (
        ["instances", 1],
        {"ready": True, **READY, "deployment": "f"},
        "warning",
        "iris-api@2 does not",
        "recover",
    ),
    "releases": (
        ["instances", 1],
        {"ready": True, **READY, "release": "1"},
        "warning",
        "serve 2 things",
        "make history",
    ),
    "old": (["certificates", "gateway", "not_after"], NOW + 5 * 86400, "critical", "in 5 days", "renew-certificates"),
    "older": (
        ["certificates", "gateway", "not_after"],
        NOW + 30 * 86400,
        "warning",
        "in 30 days",
        "renew-certificates",
    ),
    "ended": (["certificates", "gateway", "not_after"], NOW - 86400, "critical", "has ended", "renew-certificates"),
    "ca": (["certificates", "ca", "not_after"], NOW + 5 * 86400, "warning", "(ca) ends in 5 days", "A new CA"),
    "a target": (["prometheus", "targets", 1, "health"], "down", "warning", "1 of 2 targets are not scraped: node", ""),
    "an alert": (
        ["prometheus", "alerts", 0],
        alert("warning"),
        "warning",
        "FeatureDrift: age",
        "runbooks.md",
    ),
    "a page": (
        ["prometheus", "alerts", 0],
        alert("critical"),
        "critical",
        "FeatureDrift: age",
        "runbooks.md",
    ),
    "errors": (["prometheus", "values", "errors"], 20.0, "warning", "1.6% of the predictions failed", "make logs"),
    "many": (["prometheus", "values", "errors"], 600.0, "critical", "48.6% of the predictions failed", "make logs"),
    "a login": (["root"], False, "unknown", "is asked without root", "sudo"),
    "a file": (["problems"], ["/x: no such file"], "unknown", "could not be read: /x: no such file", ""),
}


@pytest.mark.parametrize("wrong", WRONG)
def test_what_is_wrong_is_said_with_what_to_type(hosts: dict[str, dict[str, Any]], wrong: str) -> None:
    path, value, level, text, todo = WRONG[wrong]
    at: Any = hosts["fortress"]
    for step in path[:-1]:
        at = at[step]
    at[path[-1]] = value
    findings = judge(hosts)
    [found] = findings
    assert (found.level, text in found.text, todo in found.todo) == (level, True, True), found
    assert screen(hosts).startswith(level.upper())


def test_one_release_built_for_the_python_of_each_host_is_one(hosts: dict[str, dict[str, Any]]) -> None:
    hosts["api2"] = copy.deepcopy(hosts["fortress"]) | {"groups": ["api"]}
    for host, release in (("fortress", "1.1.0-aa-cp313"), ("api2", "1.1.0-aa-cp311")):
        for instance in hosts[host]["instances"]:
            instance["release"] = release
    assert judge(hosts) == []
    hosts["api2"]["instances"][0]["release"] = "1.1.0-bb-cp311"
    [found] = judge(hosts)
    assert "serve 2 things" in found.text


def test_no_instance_at_all_is_said_once_and_is_critical(hosts: dict[str, dict[str, Any]]) -> None:
    hosts["fortress"]["instances"] = [{"ready": False, "why": "refused"}] * 2
    [found] = judge(hosts)
    assert found.level == "critical" and "every prediction fails" in found.text


def test_without_prometheus_the_gateways_logs_say_how_users_are(hosts: dict[str, dict[str, Any]]) -> None:
    hosts["fortress"]["prometheus"] = {"error": "Connection refused", "seconds": 300}
    hosts["gate2"] = copy.deepcopy(hosts["fortress"]) | {"groups": ["gateway"], "prometheus": None, "instances": None}
    hosts["gate2"]["traffic"] = {"requests": 10, "errors": 10, "p99": 0.5, "seconds": 120}
    [found, errors] = judge(hosts)
    assert (found.level, "no alert fires" in found.text) == ("critical", False)
    assert "18.3% of the predictions failed (11 of 60)" in found.text
    assert errors.level == "warning" and "Prometheus does not answer (Connection refused)" in errors.text
    assert traffic(hosts) == {
        "source": "the access log of fortress, gate2",
        "requests": 60,
        "errors": 11,
        "p99": 0.5,
        "seconds": 120,
    }


def test_a_host_that_does_not_answer_is_unknown_and_hides_nothing_of_the_others(
    hosts: dict[str, dict[str, Any]],
) -> None:
    hosts["api2"] = {"groups": ["api"], "unreachable": "ssh: connect to host api2 port 22: No route to host"}
    [found] = judge(hosts)
    assert (found.level, worst([found])) == ("unknown", "unknown")
    assert "No route to host" in found.text
    assert "no answer" in screen(hosts) and "2 of 2 ready" in screen(hosts)
    hosts["fortress"]["units"][1] = unit("prometheus", "failed", "failed")
    assert worst(judge(hosts)) == "warning"
    assert CODES == {"ok": 0, "warning": 1, "critical": 2, "unknown": 3}


def test_units_are_read_as_systemctl_shows_them_and_those_not_installed_are_left_out() -> None:
    shown = (
        "Id=nginx.service\nLoadState=loaded\nActiveState=active\nSubState=running\nNRestarts=0\n\n"
        "Id=grafana-server.service\nLoadState=not-found\nActiveState=inactive\nSubState=dead\nNRestarts=0\n\n"
        "Id=iris-api@1.service\nLoadState=loaded\nActiveState=failed\nSubState=failed\nNRestarts=3\n"
    )
    found = probe.parsed_units(shown)
    assert [each["Id"] for each in found] == ["nginx.service", "iris-api@1.service"]
    assert found[1]["ActiveState"] == "failed" and found[1]["NRestarts"] == "3"


def test_prometheus_can_read_what_it_is_asked(promtool: str, tmp_path: Path) -> None:
    """And counts what users were answered: by the gateway, and where nobody counts there, by the instances."""
    asked = status.queries(300)
    series = {
        'iris_api_requests_total{path="/predict", status="200"}': "0+10x20",
        'iris_api_requests_total{path="/predict", status="500"}': "0+1x20",
        'iris_api_requests_total{path="/health/ready", status="500"}': "0+100x20",
        'iris_api_request_duration_seconds_bucket{path="/predict", le="0.1"}': "0+10x20",
        'iris_api_request_duration_seconds_bucket{path="/predict", le="+Inf"}': "0+10x20",
        'iris_api_request_duration_seconds_bucket{path="/metrics", le="+Inf"}': "0+1000x20",
    }
    served = 'route="predict", answered_by="upstream"'
    at_gateway = {
        f'fortress_gateway_requests_total{{{served}, status="200"}}': "0+20x20",
        f'fortress_gateway_requests_total{{{served}, status="502"}}': "0+4x20",
        'fortress_gateway_requests_total{route="predict", answered_by="limiter", status="503"}': "0+99x20",
    }
    tests = []
    for more, found in (({}, {"requests": 55, "errors": 5}), (at_gateway, {"requests": 120, "errors": 20})):
        questions = [
            {"expr": asked[name], "eval_time": "10m", "exp_samples": [{"labels": "{}", "value": value}]}
            for name, value in (found | {"p99": 0.099}).items()
        ]
        given = [{"series": name, "values": values} for name, values in (series | more).items()]
        tests.append({"interval": "1m", "input_series": given, "promql_expr_test": questions})
    (tmp_path / "tests.yml").write_text(yaml.safe_dump({"rule_files": [], "tests": tests}))
    done = subprocess.run(
        [promtool, "test", "rules", tmp_path / "tests.yml"], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr


class Answers(BaseHTTPRequestHandler):
    """Prometheus and two instances, of which the second is stopping; all on one port."""

    def do_GET(self) -> None:
        path, _, query = self.path.partition("?query=")
        answers: dict[str, Any] = {
            "/health/ready": READY,
            "/api/v1/targets?state=active": {"data": TARGETS},
            "/api/v1/alerts": {"data": ALERTS},
        }
        body: Any = answers.get(path)
        if query:
            result = [{"metric": {}, "value": [NOW, VALUES[query]]}] if query in VALUES else []
            body = {"data": {"resultType": "vector", "result": result}}
        self.send_response(200 if body else 503)
        self.end_headers()
        self.wfile.write(json.dumps(body or {"code": "not_ready"}).encode())

    def log_message(self, format: str, *args: Any) -> None:
        """Say nothing."""


@pytest.fixture
def port() -> Iterator[int]:
    with ThreadingHTTPServer(("127.0.0.1", 0), Answers) as server:
        threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
        yield server.server_address[1]
        server.shutdown()


def log_line(ago: float, status: int = 200, **changed: Any) -> str:
    entry = {
        "msec": time.time() - ago,
        "method": "POST",
        "path": "/predict",
        "status": status,
        "request_time": 0.004,
        "upstream_addr": "127.0.0.1:8001",
    }
    return json.dumps(entry | changed)


@pytest.fixture
def root(tmp_path: Path, port: int) -> Path:
    files = {
        "etc/iris-api/deploy.json": json.dumps({"instances": 1, "base_port": port, "bind_address": "127.0.0.1"}),
        "opt/iris-api/history.jsonl": "\n".join(
            json.dumps(each) for each in (EVENT, EVENT | {"event": "aborted"}, {"event": "held", "who": "ops"})
        ),
        "opt/iris-api/hold.json": json.dumps({"event": "held", "who": "ops", "time": "t", "why": "the fair"}),
        "var/lib/prometheus/node-exporter/fortress_certificate.prom": (
            "# HELP fortress_certificate_not_after_seconds When it ends.\n"
            'fortress_certificate_not_before_seconds{certificate="gateway"} 1.5e9\n'
            'fortress_certificate_not_after_seconds{certificate="gateway"} 1.9e9\n'
        ),
        "var/log/nginx/access.log": "\n".join(
            [
                log_line(400),
                *(log_line(60) for _ in range(98)),
                log_line(50, status=502, request_time=4.0),
                log_line(50, status=503, request_time=0.5),
                log_line(40, status=503, upstream_addr=""),
                log_line(40, method="GET", path="/docs"),
                log_line(40, path="/grafana/api/ds/query"),
                "no JSON",
            ]
        ),
    }
    for path, text in files.items():
        (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / path).write_text(text)
    (tmp_path / "opt/iris-api/current").symlink_to("deployments/0123456789")
    return tmp_path


def told(port: int, *groups: str) -> dict[str, Any]:
    queries = {name: name for name in ("requests", "errors", "p99", "nothing")}
    return {"groups": groups, "units": ["nginx"], "prometheus_port": port, "queries": queries, "seconds": 300}


def test_a_host_says_what_its_files_and_services_say(root: Path, port: int) -> None:
    said = probe.survey(told(port, "gateway", "api", "monitoring"), root)
    assert [problem for problem in said["problems"] if not problem.startswith("systemctl:")] == []
    assert said["instances"] == [{"ready": True, **READY}]
    assert said["current"] == "deployments/0123456789"
    assert [event["event"] for event in said["history"]] == ["deployed", "aborted"]
    assert said["hold"]["why"] == "the fair"
    assert said["certificates"] == {"gateway": {"not_before": 1.5e9, "not_after": 1.9e9}}
    # Neither what the limit refused nor what is no prediction nor what was before; of 100, the 99th.
    assert said["traffic"] == {"requests": 100, "errors": 2, "p99": 0.5, "seconds": 300}
    prometheus = said["prometheus"]
    assert [target["health"] for target in prometheus["targets"]] == ["up", "up"]
    assert [each["labels"]["alertname"] for each in prometheus["alerts"]] == ["Watchdog"]
    assert prometheus["values"] == {"requests": 1234.5, "errors": 0, "p99": 0.008, "nothing": None}
    assert json.loads(json.dumps(said)) == said


def test_a_host_without_anything_says_what_it_could_not_read(tmp_path: Path, port: int) -> None:
    closed = told(1, "gateway", "api", "monitoring")
    said = probe.survey(closed, tmp_path)
    assert said["instances"] == [] and "error" in said["prometheus"]
    for path in ("deploy.json", "history.jsonl", "current", "access.log", "certificate"):
        assert any(path in problem for problem in said["problems"]), path


def test_a_line_of_the_history_that_a_power_cut_left_unfinished_hides_no_other(root: Path, port: int) -> None:
    path = root / "opt/iris-api/history.jsonl"
    torn = json.dumps(EVENT)
    path.write_text("\n".join([torn, torn[:20], "5", json.dumps(EVENT | {"event": "aborted"}), torn[:40]]))
    said = probe.survey(told(port, "api"), root)
    assert [event["event"] for event in said["history"]] == ["deployed", "aborted"]


def test_a_quantile_of_no_requests_is_null_as_json_has_no_nan(
    root: Path, port: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(VALUES, "p99", "NaN")
    said = probe.survey(told(port, "monitoring"), root)
    assert said["prometheus"]["values"]["p99"] is None
    json.dumps(said, allow_nan=False)


def test_of_a_large_log_the_end_is_read_and_how_far_back_that_goes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "var/log/nginx").mkdir(parents=True)
    lines = "\n".join(log_line(200 - number) for number in range(200))
    (tmp_path / "var/log/nginx/access.log").write_text(lines)
    monkeypatch.setattr(probe, "LOG_BYTES", len(lines) // 2)
    said = probe.traffic(tmp_path, time.time() - 300)
    assert 95 <= said["requests"] <= 100
    assert 95 <= said["seconds"] <= 102


@pytest.fixture
def inventory(tmp_path: Path) -> Path:
    """Two hosts that are this machine, on which nothing is installed, and one in no group that is never asked."""
    hosts: dict[str, Any] = {"one": {"ansible_connection": "local"}, "two": {"ansible_connection": "local"}, "not": {}}
    groups = {"gateway": {"hosts": {"one": None}}, "api": {"hosts": {"two": None}}}
    file = tmp_path / "hosts.yml"
    file.write_text(yaml.safe_dump({"all": {"hosts": hosts, "children": groups}}))
    return file


def test_every_host_of_an_inventory_is_asked_as_its_groups_want(
    inventory: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    code = status.main(["-i", str(inventory), "--json"])
    said = json.loads(capsys.readouterr().out)
    assert {name: host["groups"] for name, host in said["hosts"].items()} == {"one": ["gateway"], "two": ["api"]}
    assert all("unreachable" not in host for host in said["hosts"].values())
    assert "instances" in said["hosts"]["two"] and "instances" not in said["hosts"]["one"]
    assert code == CODES[said["status"]] != 0
    assert any("access.log" in finding["text"] for finding in said["findings"])


def test_prometheus_is_asked_at_the_port_of_its_host(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    here = {"ansible_connection": "local"}
    hosts = {"one": here, "two": here | {"fortress_prometheus_port": 19090}}
    members = {"monitoring": {"hosts": dict.fromkeys(hosts)}}
    (tmp_path / "hosts.yml").write_text(yaml.safe_dump({"all": {"hosts": hosts, "children": members}}))
    monkeypatch.setattr(status, "ask", lambda name, reach, told: told)
    said = status.survey(str(tmp_path / "hosts.yml"), 300)
    assert {name: told["prometheus_port"] for name, told in said.items()} == {"one": 9090, "two": 19090}


def test_a_host_that_hangs_is_not_waited_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As one behind a firewall that drops packets: in the place of ssh stands a program that does nothing."""
    (tmp_path / "ssh").write_text("#!/bin/sh\nexec sleep 60\n")
    (tmp_path / "ssh").chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    began = time.monotonic()
    said = status.ask("far", {"ansible_host": "192.0.2.1"}, told(1, "api"), seconds=0.2)
    assert said == {"groups": ("api",), "unreachable": "no answer within 0.2 s"}
    assert time.monotonic() - began < 2


def test_what_ssh_complains_of_is_why_a_host_does_not_answer(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    complaint = "ssh: connect to host 192.0.2.1 port 22: Connection refused"
    (tmp_path / "ssh").write_text(f'#!/bin/sh\necho "$@" >{tmp_path}/asked\necho "{complaint}" >&2\nexit 255\n')
    (tmp_path / "ssh").chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    reach = {"ansible_host": "192.0.2.1", "ansible_user": "debian"}
    assert status.ask("far", reach, told(1, "api"))["unreachable"] == complaint
    # No question is asked that nobody would answer.
    assert (tmp_path / "asked").read_text().startswith("-o BatchMode=yes -o ConnectTimeout=2 -l debian 192.0.2.1 ")


def test_what_is_to_be_typed_means_the_inventory_that_was_asked() -> None:
    found = [
        Finding("warning", "api2", "x", "make ssh HOST=api2, then systemctl status"),
        Finding("unknown", "x", "z"),
    ]
    assert [each.todo for each in named(found, "inventory/local")] == [each.todo for each in found]
    assert [each.todo for each in named(found, str(ROOT / "inventory" / "prod"))] == [
        "make ssh INVENTORY=prod HOST=api2, then systemctl status",
        "",
    ]


def test_what_is_found_is_told_with_the_worst_first() -> None:
    levels = [Finding(level, "x", "y") for level in ("unknown", "ok", "critical", "warning")]
    assert worst(levels) == "critical"
    assert worst([]) == "ok"
