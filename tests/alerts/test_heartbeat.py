"""The dead man's switch: the heartbeat ends with Alertmanager, and with Prometheus."""

from __future__ import annotations

import re

import pytest
from testinfra.host import Host

from tests.alerts.conftest import Received, now, wait_for
from tests.alerts.runbook import written

testinfra_hosts = ["ansible://monitoring"]

BEAT = 60
"""Seconds between two."""


# After Prometheus has stopped, Alertmanager takes its word for another 4 minutes.
@pytest.mark.parametrize(("unit", "seconds"), [("prometheus-alertmanager", 0), ("prometheus", 240)])
def test_the_heartbeat_ends_with_each_of_the_two(host: Host, received: Received, unit: str, seconds: int) -> None:
    """And the command of Watchdog's runbook says which one has stopped."""
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


def test_the_heartbeat_comes_back(host: Host, received: Received) -> None:
    """As it did after each of the two: the test of the other began with it."""
    begun = now(host)
    assert wait_for(lambda: received.posts("/heartbeat", begun), 3 * BEAT)
