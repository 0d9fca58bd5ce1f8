"""Running the site's playbook again: nothing changes, in check mode too, and it costs little."""

from __future__ import annotations

import json
import shutil
import subprocess
from pathlib import Path

import pytest
from testinfra.host import Host

testinfra_hosts = ["ansible://api"]

ROOT = Path(__file__).resolve().parents[2]
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


def test_a_model_that_can_not_be_served_stops_at_the_first_instance(inventory: str, host: Host, tmp_path: Path) -> None:
    """The others keep serving, the message says why, and the next good run puts everything right."""
    models = Path(shutil.copytree(ROOT / "models", tmp_path / "models"))
    with next(models.glob("iris/*/model.joblib")).open("ab") as artifact:
        artifact.write(b"x")
    before = [host.run(f"systemctl show iris-api@{number} -p MainPID --value").stdout for number in (2, 3)]
    done = run_site(inventory, "-e", f"iris_api_models_dir={models}")
    assert done.returncode != 0
    assert "iris-api@1 did not come up" in done.stderr
    assert "its sha256 is" in done.stderr
    assert [host.run(f"systemctl show iris-api@{number} -p MainPID --value").stdout for number in (2, 3)] == before

    done = run_site(inventory)
    assert done.returncode == 0, done.stderr
    for number in (1, 2, 3):
        assert host.run(f"curl --silent --fail http://127.0.0.1:800{number}/health/ready").rc == 0
