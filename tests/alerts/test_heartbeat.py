"""The dead man's switch: the heartbeat ends with Alertmanager, and with Prometheus."""

from __future__ import annotations

import re
from collections.abc import Iterator

import pytest
from testinfra.host import Host

from tests.alerts.conftest import FOLDER, Received
from tests.monitored import now, wait_for
from tests.runbooks.page import written

testinfra_hosts = ["ansible://monitoring"]

BEAT = 60
"""Seconds between two."""
ARGUMENTS = "/etc/default/prometheus"


def ends(host: Host, received: Received, unit: str, seconds: int) -> None:
    """Stop a unit, and hold that the heartbeat ends so many seconds later, and that the runbook names the unit."""
    begun = now(host)
    assert wait_for(lambda: received.posts("/heartbeat", begun), 3 * BEAT)
    host.check_output(f"systemctl stop {unit}")
    stopped = now(host)

    def silent() -> bool:
        last = max([post["at"] for post in received.posts("/heartbeat")])
        return bool(now(host) - max(last, stopped) > 1.5 * BEAT)

    try:
        assert wait_for(silent, seconds + 3 * BEAT)
        [command] = written("Watchdog", "Act")
        states = dict(
            re.findall(r"^\S+ (\S+)\.service.*?^ +Active: (\w+)", host.run(command).stdout, re.MULTILINE | re.DOTALL)
        )
        assert states == {"prometheus": "active", "prometheus-alertmanager": "active"} | {unit: "inactive"}
    finally:
        host.check_output(f"systemctl start {unit}")


def test_the_heartbeat_ends_with_alertmanager(host: Host, received: Received) -> None:
    ends(host, received, "prometheus-alertmanager", 0)


@pytest.fixture
def told_often(host: Host, received: Received) -> Iterator[None]:
    """Alertmanager takes Prometheus' word for four times as long as there is between two: a minute, and not four.

    It keeps what it was told for longer before, but not over its own restart.
    """
    host.check_output(
        f"cp --preserve {ARGUMENTS} {FOLDER}/arguments; "
        f"sed -i 's/^ARGS=\"/&--rules.alert.resend-delay=5s /' {ARGUMENTS}; "
        "systemctl restart prometheus && systemctl restart prometheus-alertmanager"
    )
    yield
    host.check_output(f"cp --preserve {FOLDER}/arguments {ARGUMENTS}; systemctl restart prometheus")


def test_the_heartbeat_ends_with_prometheus(host: Host, received: Received, told_often: None) -> None:
    # systemd has started it before it has its sandbox, and is the program.
    assert wait_for(lambda: "resend-delay=5s" in host.run("pgrep --list-full --exact prometheus").stdout, 30)
    ends(host, received, "prometheus", 60)


def test_the_heartbeat_comes_back(host: Host, received: Received) -> None:
    """As it did after Alertmanager: the test of Prometheus began with it."""
    begun = now(host)
    assert wait_for(lambda: received.posts("/heartbeat", begun), 3 * BEAT)
