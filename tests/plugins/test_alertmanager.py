"""Who is notified of what, and what is kept back: plugins/filter/alertmanager.py."""

from __future__ import annotations

import json
import re
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml
from ansible.plugins.loader import filter_loader

from tests import ROOT
from tools.rules.__main__ import FILES
from tools.rules.parts import Alert

filter_loader.add_directory(str(ROOT / "plugins" / "filter"))
configuration, secrets, mistakes = (
    filter_loader.get(f"alertmanager_{name}").j2_function for name in ("configuration", "secrets", "mistakes")
)

SECRETS = "/etc/prometheus/alertmanager-secrets"
INTERVALS = {"group_wait": "10s", "group_interval": "1m", "repeat_interval": "4h"}
ONCALL = {"name": "oncall", "webhook_url": "https://pager.example.com/hook", "webhook_token": "t0ken"}
TEAM = {"name": "team", "slack_url": "https://chat.example.com/in/s3cret", "slack_channel": "#ops"}
POST = {"name": "post", "email_to": ["a@example.com", "b@example.com"]}
SMTP = {"server": "mail.example.com:587", "from": "fortress@example.com", "user": "f", "password": "p4ss"}
ALERTS = {
    rule.name: rule for groups in FILES.values() for group in groups for rule in group.rules if isinstance(rule, Alert)
}


def run(*command: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(command, capture_output=True, text=True, check=False)


def told(*receivers: dict[str, Any], routes: Any = (), smtp: Any = None, heartbeat: str = "") -> dict[str, Any]:
    made: dict[str, Any] = configuration(receivers, routes, smtp or {}, heartbeat, INTERVALS)
    return made


def receiver(made: dict[str, Any], name: str) -> dict[str, Any]:
    [found] = [each for each in made["receivers"] if each["name"] == name]
    return {key: value for key, value in found.items() if key != "name"}


def fits(matcher: str, labels: dict[str, str]) -> bool:
    """Return what Alertmanager says of a matcher; a pattern means the whole value there."""
    found = re.fullmatch(r'(\w+)(=~|=)"(.*)"', matcher)
    assert found, matcher
    value = labels.get(found[1], "")
    return value == found[3] if found[2] == "=" else re.fullmatch(found[3], value) is not None


def reached(made: dict[str, Any], **labels: str) -> str:
    """Return the receiver of an alert: of the first route that fits."""
    for route in made["route"]["routes"]:
        if all(fits(matcher, labels) for matcher in route["matchers"]):
            return str(route["receiver"])
    return str(made["route"]["receiver"])


def silenced(by: str, name: str, *, same_host: bool = True) -> bool:
    """Return whether an alert is kept back while another one fires, on its host or another one."""
    for rule in told()["inhibit_rules"]:
        matching = all(fits(each, {"alertname": by}) for each in rule["source_matchers"])
        if matching and all(fits(each, {"alertname": name}) for each in rule["target_matchers"]):
            return same_host or not {"host", "instance"} & set(rule["equal"])
    return False


def test_without_routes_every_receiver_is_notified_of_everything() -> None:
    made = told(ONCALL, TEAM, POST, smtp=SMTP)
    everybody = receiver(made, reached(made, alertname="DiskAlmostFull", severity="warning"))
    assert set(everybody) == {"webhook_configs", "slack_configs", "email_configs"}
    assert all(way["send_resolved"] for ways in everybody.values() for way in ways), "its end is told too"


def test_the_first_route_that_fits_decides_and_what_fits_none_reaches_everybody() -> None:
    routes = [
        {"receivers": [], "alerts": ["ClientsLimited"]},
        {"receivers": ["oncall", "team"], "severities": ["critical"]},
        {"receivers": ["team"], "severities": ["warning"], "hosts": ["api1.example.com"], "repeat_interval": "1d"},
    ]
    made = told(ONCALL, TEAM, routes=routes)
    assert reached(made, alertname="ClientsLimited", severity="warning") == "nobody"
    both = receiver(made, reached(made, alertname="IrisApiDown", severity="critical"))
    assert set(both) == {"webhook_configs", "slack_configs"}
    one = receiver(made, reached(made, alertname="X", severity="warning", host="api1.example.com"))
    assert set(one) == {"slack_configs"}
    assert made["route"]["routes"][-1]["repeat_interval"] == "1d"
    assert reached(made, alertname="X", severity="warning", host="api1-example.com") == "everybody"


def test_nobody_is_notified_of_what_is_only_there_for_other_alerts() -> None:
    made = told(ONCALL)
    for name, alert in ALERTS.items():
        assert (reached(made, alertname=name, severity=alert.severity) == "nobody") == (alert.severity == "info"), name
    assert receiver(made, "nobody") == {}


def test_a_sign_of_life_goes_to_the_dead_mans_switch_alone_and_its_end_is_none() -> None:
    made = told(ONCALL, heartbeat="https://hc.example.com/x")
    assert reached(made, alertname="Watchdog", severity="info") == "heartbeat"
    assert receiver(made, "heartbeat") == {
        "webhook_configs": [{"url": "https://hc.example.com/x", "send_resolved": False}]
    }


def test_secrets_are_in_files_of_their_own_and_nowhere_else() -> None:
    made = yaml.safe_dump(told(ONCALL, TEAM, POST, smtp=SMTP))
    files = secrets([ONCALL, TEAM, POST], SMTP)
    assert files == {
        f"{SECRETS}/oncall_webhook_token": "t0ken\n",
        f"{SECRETS}/team_slack_url": "https://chat.example.com/in/s3cret\n",
        f"{SECRETS}/smtp_password": "p4ss\n",
    }
    for path, secret in files.items():
        assert path in made
        assert secret.strip() not in made
    assert secrets([{"name": "open", "webhook_url": "http://x"}], {}) == {}


@pytest.mark.parametrize(
    ("by", "kept_back", "told_all_the_same"),
    [
        ("HostDown", "NginxDown", "IrisApiDown"),
        ("DeploymentRuns", "IrisApiInstanceDown", "IrisApiErrors"),
        ("HostReboots", "HostDown", "IrisApiDown"),
        ("HoldStands", "IrisApiMixed", "IrisApiInstanceDown"),
    ],
)
def test_what_a_host_explains_is_kept_back_there_alone(by: str, kept_back: str, told_all_the_same: str) -> None:
    assert silenced(by, kept_back)
    assert not silenced(by, kept_back, same_host=False)
    assert not silenced(by, told_all_the_same)


def test_alertmanager_itself_takes_the_configuration_and_routes_by_it(amtool: str, tmp_path: Path) -> None:
    """And reads the texts of notifications."""
    routes = [
        {"receivers": ["oncall", "team"], "severities": ["critical"]},
        {"receivers": ["post"], "hosts": ["api1.example.com"]},
    ]
    made = told(ONCALL, TEAM, POST, routes=routes, smtp=SMTP, heartbeat="https://hc.example.com/x")
    file = tmp_path / "alertmanager.yml"
    file.write_text(yaml.safe_dump(made))
    texts = ROOT / "roles/alertmanager/files/etc/prometheus/alertmanager_templates"
    (tmp_path / texts.name).symlink_to(texts)
    checked = run(amtool, "check-config", str(file))
    assert checked.returncode == 0, checked.stdout + checked.stderr
    for labels, receiver in (
        ("alertname=IrisApiDown severity=critical", "oncall and team"),
        ("alertname=Watchdog severity=info", "heartbeat"),
        ("alertname=HoldStands severity=info", "nobody"),
        ("alertname=DiskAlmostFull severity=warning host=api1.example.com", "post"),
        ("alertname=DiskAlmostFull severity=warning host=api1-example.com", "everybody"),
    ):
        found = run(amtool, "config", "routes", "test", f"--config.file={file}", *labels.split())
        assert (found.returncode, found.stdout.strip()) == (0, receiver), found.stderr


def test_mail_and_chat_have_what_it_means_and_a_link_to_what_to_do(amtool: str, tmp_path: Path) -> None:
    annotations = {
        "summary": "web1 does not answer.",
        "description": "It is off.",
        "runbook": "docs/runbooks.md#hostdown",
        "runbook_url": "http://192.0.2.1:9090/consoles/runbooks.html#hostdown",
    }
    alert = {"status": "firing", "labels": {"alertname": "HostDown"}, "annotations": annotations}
    data = tmp_path / "data.json"
    data.write_text(json.dumps({"status": "firing", "alerts": [alert, alert | {"status": "resolved"}]}))
    template = ROOT / "roles/alertmanager/files/etc/prometheus/alertmanager_templates/fortress.tmpl"
    text = '{{ template "fortress.text" . }}'
    shown = run(
        *(amtool, "template", "render", f"--template.glob={template}", f"--template.text={text}"),
        f"--template.data={data}",
    )
    assert shown.returncode == 0, shown.stderr
    assert [line for line in shown.stdout.splitlines() if line] == [
        "web1 does not answer.",
        "It is off. What to do: http://192.0.2.1:9090/consoles/runbooks.html#hostdown or docs/runbooks.md#hostdown",
        "Ended: web1 does not answer.",
    ]


def test_a_deployment_over_several_hosts_explains_that_they_differ() -> None:
    assert silenced("DeploymentRuns", "IrisApiHostsDiffer", same_host=False)


def test_every_alert_that_is_kept_back_and_everything_that_does_it_exists() -> None:
    for rule in told()["inhibit_rules"]:
        names = [
            name
            for part in ("source", "target")
            for each in rule[f"{part}_matchers"]
            for name in each[:-1].split('"')[1].split("|")
        ]
        assert set(names) <= set(ALERTS)
        # Where one of the two has no such label, two that have none count as the same.
        if "host" in rule["equal"]:
            for name in names:
                alert = ALERTS[name]
                by_host = "host" in alert.labels or "(host" in alert.expr or 'job="iris-api"' in alert.expr
                assert by_host or "instance" in alert.expr, name


@pytest.mark.parametrize(
    ("receivers", "routes", "smtp", "complaint"),
    [
        ([{"name": "x"}], [], {}, "The receiver x can't be notified: give it webhook_url, email_to or slack_url."),
        ([ONCALL, ONCALL], [], {}, "has oncall 2 times"),
        ([ONCALL | {"name": "on call"}], [], {}, "'on call'; take letters"),
        ([ONCALL | {"name": "nobody"}], [], {}, "'nobody'; take letters"),
        ([{"name": "x", "webhook_url": "pager.example.com"}], [], {}, "webhook_url of the receiver x is no address"),
        ([TEAM | {"webhook_token": "t"}], [], {}, "has a webhook_token and no webhook_url"),
        ([POST], [], {}, "gets mail, and nothing says how"),
        ([POST], [], SMTP | {"server": "mail.example.com"}, "give mail.example.com:587"),
        ([ONCALL], [{"receivers": ["oncal"]}], {}, "Route 1 of fortress_alert_routes notifies oncal, and there is no"),
    ],
)
def test_what_cannot_work_is_named(receivers: Any, routes: Any, smtp: Any, complaint: str) -> None:
    said = " ".join(mistakes(receivers, routes, smtp))
    assert complaint in said
    assert not [secret for secret in ("t0ken", "s3cret", "p4ss") if secret in said]


def test_a_heartbeat_goes_to_an_address_of_the_web() -> None:
    assert mistakes([], [], {}, "https://hc.example.com/ping/2f7d") == []
    (said,) = mistakes([], [], {}, "hc.example.com/ping/2f7d")
    assert "fortress_alert_heartbeat_url is no address of the web" in said
    assert "2f7d" not in said


@pytest.mark.parametrize(
    ("wait", "fits"),
    [
        *((wait, True) for wait in ("30s", "1m30s", "4h", "1d12h", "2w", "500ms")),
        *((wait, False) for wait in ("24", "1 day", "30s1m", "0s", "", "1.5h", "h", 30)),
    ],
)
def test_how_long_it_waits_is_what_alertmanager_reads(wait: Any, fits: bool) -> None:
    said = mistakes([], [], {}, "", {"alertmanager_group_wait": wait})
    assert (said == []) is fits
    assert all(f"alertmanager_group_wait is {wait!r}, which Alertmanager can't read" in each for each in said)
    if wait:
        said = mistakes([ONCALL], [{"receivers": ["oncall"], "repeat_interval": wait}], {})
        assert (said == []) is fits
        assert all("repeat_interval of route 1 of fortress_alert_routes" in each for each in said)


def test_tls_of_the_mail_server_is_left_out_by_any_word_for_no() -> None:
    assert told(POST, smtp=SMTP | {"require_tls": "false"})["global"]["smtp_require_tls"] is False
    assert told(POST, smtp=SMTP)["global"]["smtp_require_tls"] is True


def test_what_can_work_is_no_mistake() -> None:
    assert mistakes([ONCALL, TEAM, POST], [{"receivers": ["team"]}, {"receivers": []}], SMTP) == []
    assert mistakes([], [], {}) == []
