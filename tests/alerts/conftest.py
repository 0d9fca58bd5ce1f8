"""What receives the notifications of a site, and what the tests of alerts ask it."""

from __future__ import annotations

import base64
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from testinfra.host import Host

from tests.operator import play
from tests.ordered import put_in_order
from tests.several import Cluster

PORT, MAIL_PORT = 9911, 9912
FOLDER = "/run/fortress-test-receiver"
TOKEN, PASSWORD = "a token that a test sends", "a password that a test sends"
RECEIVER = {
    "name": "test",
    "webhook_url": f"http://127.0.0.1:{PORT}/alerts",
    "webhook_token": TOKEN,
    "email_to": ["ana@example.com", "ben@example.com"],
    "slack_url": f"http://127.0.0.1:{PORT}/slack",
    "slack_channel": "#site",
}
# By its name, which is in the certificate.
SMTP = {"server": f"localhost:{MAIL_PORT}", "from": "site@example.com", "user": "fortress", "password": PASSWORD}
SETTINGS: dict[str, Any] = {
    "fortress_alert_receivers": [RECEIVER],
    "fortress_alert_smtp": SMTP,
    "fortress_alert_heartbeat_url": f"http://127.0.0.1:{PORT}/heartbeat",
}
"""Of a site that notifies the receiver."""
UNIT = "fortress-test-receiver"
TRUSTED = "/usr/local/share/ca-certificates/fortress-test.crt"
START = f"""
apt-get --quiet --quiet install --yes python3-aiosmtpd
install -d {FOLDER}
printf '%s' '{TOKEN}' > {FOLDER}/token
printf '%s' '{PASSWORD}' > {FOLDER}/password
openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -subj /CN=localhost -days 2 \\
    -addext subjectAltName=DNS:localhost -keyout {FOLDER}/key.pem -out {FOLDER}/certificate.pem
install -m 0644 {FOLDER}/certificate.pem {TRUSTED}
update-ca-certificates
systemctl restart prometheus-alertmanager
systemd-run --unit={UNIT} /usr/bin/python3 {FOLDER}/receiver.py {FOLDER} {PORT} {MAIL_PORT}
"""
END = f"systemctl stop {UNIT}; rm -r {FOLDER} {TRUSTED}; update-ca-certificates --fresh"


class Received:
    """What receivers on the host got."""

    def __init__(self, host: Host) -> None:
        self._host = host

    def posts(self, path: str, since: float = 0) -> list[dict[str, Any]]:
        """Return what came to a path, or as `mail`, since a time of the host's clock."""
        lines = self._host.check_output(f"cat {FOLDER}/received").splitlines()
        return [post for post in map(json.loads, lines) if post["path"] == path and post["at"] >= since]

    def of(self, path: str, text: str, since: float) -> list[dict[str, Any]]:
        """Return what came there and has this text."""
        return [post for post in self.posts(path, since) if text in post.get("subject", "") + post["body"]]

    def told(self, alert: str, status: str, since: float) -> float | None:
        """Return when somebody was first told that an alert fires, or has ended (`resolved`)."""
        for post in self.posts("/alerts", since):
            for each in json.loads(post["body"])["alerts"]:
                if each["labels"]["alertname"] == alert and each["status"] == status:
                    return float(post["at"])
        return None


@pytest.fixture(scope="session")
def received(cluster: Cluster, inventory: str) -> Iterator[Received]:
    """Have the site notify receivers on the host, and send its heartbeat there; at the end nobody again."""
    host = cluster.hosts[cluster.groups["monitoring"][0]]
    program = base64.b64encode((Path(__file__).parent / "receiver_on_host.py").read_bytes()).decode()
    host.check_output(f"set -e; install -d {FOLDER}; echo {program} | base64 -d > {FOLDER}/receiver.py; {START}")
    done = play(inventory, "site.yml", "--tags", "alertmanager", **SETTINGS)
    try:
        assert done.returncode == 0, done.stdout
        yield Received(host)
    finally:
        play(inventory, "site.yml", "--tags", "alertmanager")
        host.run(END)


# What takes minutes to be told begins early and is looked at late; other tests pass that time.
ORDER = (
    "drift::test_rows_like_those_of_training_are_answered",
    "alertmanager",
    "drift::test_they_are_no_drift",
    # For five minutes nobody may guess a password before dashboards; Prometheus goes on meanwhile.
    "heartbeat::test_the_heartbeat_ends_with_alertmanager",
    "dashboards",
    "drift::test_rows_unlike_them_are_told_as_drift",
    "runbooks",
    "heartbeat",
)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Put the files of this folder into their order."""
    put_in_order(items, Path(__file__).parent, ORDER)
