"""Running the site's playbook again: nothing changes, in check mode too, and it costs little.

A stage of Molecule between the first run and the reboot, which could hide what the first has left undone.
"""

from __future__ import annotations

import json
import re
import subprocess

import pytest
from testinfra.host import Host

from tests import ROOT
from tests.operator import play

testinfra_hosts = ["ansible://api"]

BUDGET = 5
"""Remote executions a host, of which each costs about a third of a second; one more than there are on a host with a
package of Grafana: its facts with its survey, two questions of the deployment, Prometheus' targets."""
BUDGET_OF_A_ROLE = 2
"""One more than facts and survey, which are one execution."""


def run_site(inventory: str, *options: str) -> subprocess.CompletedProcess[str]:
    command = [str(ROOT / "tools" / "converge-cost"), "-i", inventory, *options]
    return subprocess.run(command, capture_output=True, text=True, check=False)


# In check mode on one: Molecule's check of a fresh host is on both releases.
@pytest.mark.parametrize(
    "mode",
    [pytest.param([], id="for real"), pytest.param(["--check"], marks=pytest.mark.one_release, id="in check mode")],
)
def test_a_second_run_changes_nothing_and_stays_within_the_budget(inventory: str, mode: list[str]) -> None:
    done = run_site(inventory, *mode)
    assert done.returncode == 0, done.stderr
    cost = json.loads(done.stdout)
    print(cost)
    assert cost["changed"], "no host was reached"
    assert set(cost["changed"].values()) == {0}, cost["changed_tasks"]
    assert cost["remote_executions"], "no remote execution was counted"
    assert max(cost["remote_executions"].values()) <= BUDGET


@pytest.mark.one_release
def test_one_role_can_be_converged_alone(inventory: str) -> None:
    """It finds the facts and packages that it needs, and asks nothing for the other roles."""
    done = run_site(inventory, "--tags", "nginx")
    assert done.returncode == 0, done.stderr
    cost = json.loads(done.stdout)
    print(cost)
    assert set(cost["changed"].values()) == {0}, cost["changed_tasks"]
    assert max(cost["remote_executions"].values()) <= BUDGET_OF_A_ROLE


@pytest.mark.one_release
def test_a_bad_setting_of_the_last_role_stops_the_run_before_the_first_has_changed_anything(
    host: Host, inventory: str
) -> None:
    """Although the first role would have something to change."""
    journal = host.file("/etc/systemd/journald.conf.d/fortress-journal.conf").content_string
    done = play(inventory, "site.yml", base_journal_max_size="501M", grafana_apt_key_fingerprints=["none"])
    assert done.returncode != 0
    assert "a fingerprint is 40 digits" in " ".join(done.stdout.split())
    assert set(re.findall(r"changed=(\d+)", done.stdout)) == {"0"}, done.stdout
    assert host.file("/etc/systemd/journald.conf.d/fortress-journal.conf").content_string == journal
