"""Running the site's playbook again: nothing changes, in check mode too, and it costs little."""

from __future__ import annotations

import json
import subprocess

import pytest

from tests import ROOT

testinfra_hosts = ["ansible://api"]

BUDGET = 60
"""Remote executions a host; each costs about half a second."""


def run_site(inventory: str, *options: str) -> subprocess.CompletedProcess[str]:
    command = [str(ROOT / "tools" / "converge-cost"), "-i", inventory, *options]
    return subprocess.run(command, capture_output=True, text=True, check=False)


@pytest.mark.parametrize("mode", [[], ["--check"]], ids=["for real", "in check mode"])
def test_a_second_run_changes_nothing_and_stays_within_the_budget(inventory: str, mode: list[str]) -> None:
    done = run_site(inventory, *mode)
    assert done.returncode == 0, done.stderr
    cost = json.loads(done.stdout)
    print(cost)
    assert cost["changed"], "no host was reached"
    assert set(cost["changed"].values()) == {0}
    assert cost["remote_executions"], "no remote execution was counted"
    assert max(cost["remote_executions"].values()) <= BUDGET
