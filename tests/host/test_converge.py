"""Running the site's playbook again: nothing changes, in check mode too, and it costs little."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
BUDGET = 60
"""Remote executions a host; each costs about half a second."""


@pytest.mark.parametrize("mode", [[], ["--check"]], ids=["for real", "in check mode"])
def test_a_second_run_changes_nothing_and_stays_within_the_budget(inventory: str, mode: list[str]) -> None:
    command = [str(ROOT / "tools" / "converge-cost"), "-i", inventory, *mode]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    cost = json.loads(done.stdout)
    print(cost)
    assert cost["changed"], "no host was reached"
    assert set(cost["changed"].values()) == {0}
    assert cost["remote_executions"], "no remote execution was counted"
    assert max(cost["remote_executions"].values()) <= BUDGET
