"""A fault reaches a receiver; what is silenced does not."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time

import httpx
import pytest
from testinfra.host import Host

from tests import ROOT
from tests.alerts.conftest import PASSWORD, RECEIVER, SMTP, TOKEN, Received
from tests.monitored import now, wait_for

testinfra_hosts = ["ansible://monitoring"]


def amtool(host: Host, arguments: str) -> str:
    told: str = host.check_output(f"amtool --alertmanager.url=http://127.0.0.1:9093 {arguments}")
    return told


def test_no_port_of_a_cluster_is_open(host: Host) -> None:
    listening = host.check_output("ss --listening --numeric --tcp --udp --processes")
    # The kernel keeps so much of a program's name.
    ports = {line.split()[4].rsplit(":", 1)[1] for line in listening.splitlines() if "prometheus-aler" in line}
    assert ports == {"9093"}


def test_a_secret_is_for_alertmanager_alone(host: Host, received: Received) -> None:
    for name, secret in (
        ("test_webhook_token", TOKEN),
        ("test_slack_url", RECEIVER["slack_url"]),
        ("smtp_password", PASSWORD),
    ):
        file = host.file(f"/etc/prometheus/alertmanager-secrets/{name}")
        assert (file.user, file.group, file.mode) == ("root", "prometheus", 0o640)
        assert secret not in host.file("/etc/prometheus/alertmanager.yml").content_string


@pytest.fixture(scope="module")
def ended() -> dict[str, float]:
    """When a fault was over: its end is told minutes later, and other tests pass that time."""
    return {}


def test_a_fault_reaches_a_receiver_within_a_minute(
    host: Host, received: Received, one_host: None, ended: dict[str, float]
) -> None:
    begun = now(host)
    host.check_output("systemctl stop iris-api@3")
    title = f"IrisApiInstanceDown at {os.environ['FORTRESS_DOMAIN']}"
    try:
        assert wait_for(lambda: received.told("IrisApiInstanceDown", "firing", begun), 60)
        # The other ways take no longer; a receiver may get both at once.
        assert wait_for(lambda: received.of("mail", title, begun) and received.of("/slack", title, begun), 5)
    finally:
        host.check_output("systemctl start iris-api@3")
    ended["IrisApiInstanceDown"] = now(host)
    [post, *_] = received.of("/alerts", '"IrisApiInstanceDown"', begun)
    assert post["token"] == f"Bearer {TOKEN}"
    [alert, *_] = json.loads(post["body"])["alerts"]
    runbook, _, section = alert["annotations"]["runbook"].partition("#")
    assert f"## {alert['labels']['alertname']}" in (ROOT / runbook).read_text()
    assert section == alert["labels"]["alertname"].lower()
    # Who is told opens it from elsewhere, as this machine does.
    url, _, section = alert["annotations"]["runbook_url"].partition("#")
    assert f'id="{section}"' in httpx.get(url, trust_env=False).raise_for_status().text
    [mail, *_] = received.of("mail", title, begun)
    assert (mail["sender"], mail["to"]) == (SMTP["from"], RECEIVER["email_to"])
    [slack, *_] = received.of("/slack", title, begun)
    message = json.loads(slack["body"])
    assert message["channel"] == RECEIVER["slack_channel"]
    for text in (mail["body"], message["attachments"][0]["text"]):
        assert alert["annotations"]["summary"] in text and alert["annotations"]["runbook"] in text


def test_a_test_notification_says_who_got_it(inventory: str, received: Received) -> None:
    command = [sys.executable, "-m", "tools.notify", "--inventory", inventory]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    for way in ("webhook to 127.0.0.1:9911", "email to ana@example.com, ben@example.com", "slack to test"):
        assert f"told: {way}\n" in done.stdout


def test_what_is_silenced_is_not_told(host: Host, received: Received, one_host: None) -> None:
    amtool(host, "silence add --author=test --duration=10m --comment=test alertname=NginxExporterDown")
    begun = now(host)
    host.check_output("systemctl stop prometheus-nginx-exporter")
    try:
        firing = "alert query --output=json --silenced alertname=NginxExporterDown"
        assert wait_for(lambda: json.loads(amtool(host, firing)), 120)
        time.sleep(15)
        assert received.told("NginxExporterDown", "firing", begun) is None
    finally:
        host.check_output("systemctl start prometheus-nginx-exporter")
        amtool(host, f"silence expire {amtool(host, 'silence query --quiet').strip()}")


def test_the_end_of_a_fault_is_told_within_six_minutes(
    host: Host, received: Received, one_host: None, ended: dict[str, float]
) -> None:
    over = ended["IrisApiInstanceDown"]
    assert wait_for(lambda: received.told("IrisApiInstanceDown", "resolved", over), over + 400 - now(host))
    at = received.told("IrisApiInstanceDown", "resolved", over)
    assert at is not None and at - over <= 360
