"""`make notify`: who got the test notification, by what a real Alertmanager counted and wrote of such ones."""

from __future__ import annotations

from itertools import chain, repeat
from pathlib import Path
from typing import Any

import pytest
import yaml
from ansible.plugins.loader import filter_loader

from tests import ROOT
from tools import notify

filter_loader.add_directory(str(ROOT / "plugins" / "filter"))
configuration = filter_loader.get("alertmanager_configuration").j2_function
INTERVALS = {"group_wait": "1s", "group_interval": "2s", "repeat_interval": "4h"}
CRITICAL = {"alertname": notify.ALERT, "severity": "critical", "site": "iris.example.com"}
RECEIVERS: list[dict[str, Any]] = [
    {"name": "pager", "webhook_url": "https://pager.example.com/s3cret"},
    {"name": "gone", "webhook_url": "https://gone.example.com/s3cret"},
    {"name": "post", "email_to": ["ops@example.com"]},
    {"name": "team", "slack_url": "https://chat.example.com/s3cret"},
]
RETRIED = (
    "level=warn component=dispatcher receiver=everybody integration=email[0] "
    'msg="Notify attempt failed, will retry later" attempts=1 err="dial tcp: connection refused"'
)
GIVEN_UP = (
    'level=error component=dispatcher msg="Notify for alerts failed" num_alerts=1 '
    'err="everybody/webhook[1]: notify retry canceled due to unrecoverable error after 1 attempts: '
    "unexpected status code 404: https://gone.example.com/s3cret: ; "
    'everybody/email[0]: notify retry canceled after 7 attempts: dial tcp: connection refused"'
)


class Site:
    """What a monitoring host answers; counters and log go on with each look."""

    def __init__(self, receivers: list[dict[str, Any]], looks: list[tuple[dict[str, tuple[int, int]], str]]) -> None:
        self.made = configuration(receivers, [], {}, "https://beat.example.com", INTERVALS)
        last, log = looks[-1] if looks else ({}, "")
        self.metrics = chain([{}], (counted for counted, _ in looks), repeat(last))
        self.logs = chain((written for _, written in looks), repeat(log))
        self.asked: list[str] = []

    def __call__(self, asked: str) -> str:
        """Answer a command."""
        self.asked.append(asked)
        if asked.endswith("/metrics"):
            names = ("notifications", "notification_requests", "notification_requests_failed")
            return "\n".join(
                f'alertmanager_{name}_total{{integration="{kind}"}} {value}'
                for kind, (begun, through) in next(self.metrics).items()
                for name, value in zip(names, (begun, through + 2, 2), strict=True)
            )
        if "journalctl" in asked:
            return next(self.logs)
        return "everybody\n" if "routes test" in asked else yaml.safe_dump(self.made) if "cat " in asked else ""


def said(site: Site) -> list[str]:
    return list(notify.notify(site, 9093, CRITICAL, sleep=lambda _: None))


def test_who_got_it_is_said_and_why_the_others_did_not() -> None:
    """As it goes with Alertmanager 0.25: first it begins all, with a heartbeat; then it gives up, and begins anew."""
    site = Site(
        RECEIVERS,
        [
            ({"webhook": (3, 1), "email": (1, 0), "slack": (1, 0)}, RETRIED),
            ({"webhook": (3, 2), "email": (1, 0), "slack": (1, 1)}, RETRIED),
            ({"webhook": (4, 2), "email": (2, 0), "slack": (1, 1)}, f"{RETRIED}\n{GIVEN_UP}"),
        ],
    )
    assert said(site) == [
        "told: webhook to pager.example.com",
        "FAILED: webhook to gone.example.com: unexpected status code 404: https://gone.example.com/...",
        "FAILED: email to ops@example.com: dial tcp: connection refused",
        "told: slack to team",
    ]
    [added] = [asked for asked in site.asked if "alert add" in asked]
    assert all(f"{name}={value}" in added for name, value in CRITICAL.items())


def test_that_nobody_is_told_is_a_failure() -> None:
    assert said(Site([], [])) == [
        "FAILED: nobody is told of such an alert: see fortress_alert_receivers and fortress_alert_routes."
    ]


def test_who_does_not_answer_in_time_is_named() -> None:
    """And a heartbeat that went through meanwhile is not taken for it."""
    site = Site(RECEIVERS[:1], [({"webhook": (2, 1)}, "")])
    assert said(site) == ["FAILED: webhook to pager.example.com: no answer within 15 s"]


@pytest.mark.parametrize(
    "line",
    [
        'level=warn component=dispatcher receiver="a and b" integration=email[1] '
        'msg="Notify attempt failed, will retry later" attempts=1 err="*email.loginAuth auth: 535 no"',
        'level=ERROR source=dispatch.go:360 msg="Notify for alerts failed" component=dispatcher num_alerts=1 '
        'err="a and b/email[1]: notify retry canceled due to unrecoverable error after 1 attempts: '
        '*email.loginAuth auth: 535 no"',
    ],
    ids=["is tried again", "is given up"],
)
def test_reasons_are_those_of_the_receiver_that_is_meant(line: str) -> None:
    other = line.replace("a and b", "heartbeat")
    assert notify.failures(f"{line}\n{other}", "a and b") == {"email[1]": "*email.loginAuth auth: 535 no"}


@pytest.mark.parametrize(("duration", "expected"), [("10s", 10), ("1m30s", 90), ("2h", 7200), ("500ms", 0.5)])
def test_durations_are_read_as_alertmanager_does(duration: str, expected: float) -> None:
    assert notify.seconds(duration) == expected


@pytest.fixture
def inventory(tmp_path: Path) -> Path:
    """A monitoring host, which is this machine, behind one of no group."""
    here = {"ansible_connection": "local"}
    hosts = {"api1": here, "mon1": here | {"fortress_alertmanager_port": 19093}}
    file = tmp_path / "hosts.yml"
    file.write_text(yaml.safe_dump({"all": {"hosts": hosts, "children": {"monitoring": {"hosts": {"mon1": None}}}}}))
    return file


def test_alertmanager_is_asked_at_the_port_of_its_host(
    inventory: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(notify, "notify", lambda ask, port, labels: [f"{port} {labels['host']}"])
    assert notify.main(["-i", str(inventory), "--host", "api1"]) == 0
    assert capsys.readouterr().out == "mon1: 19093 api1\n"


def test_a_host_that_is_not_there_is_named_with_those_that_are(inventory: Path) -> None:
    with pytest.raises(SystemExit, match="has no host typo: it has api1, mon1"):
        notify.main(["-i", str(inventory), "--host", "typo"])
