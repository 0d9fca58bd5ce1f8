"""Runbooks: while a fault stands, their commands are run as they stand on the page, and the alert ends."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass, field
from functools import partial
from typing import Any
from urllib.parse import quote

import pytest
from testinfra.host import Host

from tests import ROOT
from tests.alerts.conftest import wait_for

testinfra_hosts = ["ansible://monitoring"]

PAGE = (ROOT / "docs" / "runbooks.md").read_text(encoding="utf-8")
SECTIONS = dict(re.findall(r"^## (\w+)\n(.*?)(?=^## |\Z)", PAGE, re.MULTILINE | re.DOTALL))
METRICS = "/var/lib/prometheus/node-exporter"
FAILING = "fortress-test-failing.service"
# systemctl's own: of a unit that does not run, 3 is the answer and no failure.
ANSWERS = {0, 1, 3}


@dataclass(frozen=True)
class Fault:
    """How an alert is caused, and what stands for the names that its runbook leaves open."""

    alert: str
    cause: str
    names: dict[str, str] = field(default_factory=dict)
    repair: str = "true"
    """What the runbook can't say: the cause outside of the site."""
    undo: str = "true"


# Those of a list stand at the same time: none of them hides another.
TOGETHER = [
    [
        Fault("IrisApiInstanceDown", "systemctl stop iris-api@3", {"iris-api@N": "iris-api@3"}),
        Fault("NginxExporterDown", "systemctl stop prometheus-nginx-exporter"),
        Fault("TargetDown", "systemctl stop mtail", {"UNIT": "mtail"}),
        Fault("HostMetricsOld", "systemctl stop fortress-host-metrics.timer"),
        Fault(
            "TextfileUnreadable",
            f"echo 'not a metric' | install -m 0644 /dev/stdin {METRICS}/test.prom",
            {"FILE": "test.prom"},
            undo=f"rm -f {METRICS}/test.prom",
        ),
        Fault(
            "PrometheusReloadFailed",
            "echo 'groups: 3' | install -m 0644 /dev/stdin /etc/prometheus/rules/test.yml; systemctl reload prometheus",
            {"FILE": "test.yml"},
            undo="rm -f /etc/prometheus/rules/test.yml; systemctl reload prometheus",
        ),
        Fault(
            "UnitFailed",
            f"rm -f /run/fortress-test; printf '[Service]\\nExecStart=/usr/bin/test -e /run/fortress-test\\n' "
            f"> /run/systemd/system/{FAILING}; systemctl daemon-reload; systemctl start {FAILING}; sleep 1",
            {"NAME": FAILING},
            repair="touch /run/fortress-test",
            undo=f"rm -f /run/systemd/system/{FAILING}; systemctl daemon-reload; systemctl reset-failed",
        ),
    ],
    [
        Fault("NginxDown", "systemctl stop nginx"),
        Fault("AlertmanagerDown", "systemctl stop prometheus-alertmanager"),
        Fault("IrisApiDown", "systemctl stop iris-api.target 'iris-api@*'"),
        Fault("NodeExporterDown", "systemctl stop prometheus-node-exporter"),
    ],
]


def commands(fault: Fault, step: str) -> list[str]:
    """Return what a step has the reader type on the host."""
    [text] = re.findall(rf"^\*\*{step}\.\*\* (.*?)(?=^\*\*|\Z)", SECTIONS[fault.alert], re.MULTILINE | re.DOTALL)
    found = []
    for command in re.findall(r"`((?:sudo|curl) [^`]+)`", text):
        for name, value in fault.names.items():
            command = command.replace(name, value)
        found.append(command)
    return found


def firing(host: Host, alert: str) -> list[Any]:
    asked = quote(f'ALERTS{{alertname="{alert}", alertstate="firing"}}')
    answer = host.run(f"curl --silent --max-time 5 'http://127.0.0.1:9090/api/v1/query?query={asked}'")
    result: list[Any] = json.loads(answer.stdout)["data"]["result"]
    return result


def ended(host: Host, alert: str) -> bool:
    return not firing(host, alert)


@pytest.mark.parametrize("faults", TOGETHER, ids=lambda faults: " ".join(fault.alert for fault in faults))
def test_what_a_runbook_says_ends_the_alert(host: Host, one_host: None, faults: list[Fault]) -> None:
    try:
        for fault in faults:
            assert commands(fault, "Act"), f"{fault.alert}: nothing to type"
            host.run(fault.cause)
        for fault in faults:
            assert wait_for(partial(firing, host, fault.alert), 300), f"{fault.alert} does not fire"
        for fault in faults:
            for command in commands(fault, "Confirm"):
                done = host.run(command)
                assert done.rc in ANSWERS, f"{command}: {done.stderr}"
            host.check_output(fault.repair)
            for command in commands(fault, "Act"):
                done = host.run(command)
                assert done.rc == 0, f"{command}: {done.stderr}"
        for fault in faults:
            assert wait_for(partial(ended, host, fault.alert), 300), f"{fault.alert} does not end"
            for command in commands(fault, "Check"):
                done = host.run(command)
                assert done.rc == 0, f"{command}: {done.stderr}"
    finally:
        for fault in faults:
            host.run(fault.undo)
        host.run(
            "systemctl start nginx prometheus-nginx-exporter prometheus-node-exporter prometheus-alertmanager mtail "
            "fortress-host-metrics.timer iris-api.target iris-api@1 iris-api@2 iris-api@3"
        )
