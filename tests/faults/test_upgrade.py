"""A live site of release 1.0.0 is upgraded, rolled back, and converged by 1.0.0 again, as docs/operations.md says.

In the order of a real one: each test begins with the site that the one before it left.
"""

from __future__ import annotations

import json
import os
import re
import ssl
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from iris_api.bundle.golden import is_golden
from testinfra.host import Host

from tests import ROOT
from tests.earlier import Release
from tests.faults.traffic import Load, Record
from tests.operator import deploy, history, play, ready, rollback

pytestmark = pytest.mark.skipif("UPGRADE" not in os.environ, reason="a site of 1.0.0: the scenario upgrade has one")
testinfra_hosts = ["ansible://gateway"]

FOLDERS = "/etc/fortress /etc/iris-api /etc/nginx /etc/logrotate.d /etc/systemd/system /opt/iris-api /usr/local"
# Deployments that a host keeps, and whose credentials it has.
KEPT = re.compile(r"/opt/iris-api/(deployments|models|releases)/|/etc/fortress/site.fact")


@pytest.fixture(scope="module")
def seen() -> dict[str, Any]:
    """What one test leaves to the next."""
    return {}


@pytest.fixture(autouse=True)
def golden(healthy: None) -> Iterator[None]:
    """Assert after each test that the gateway answers every golden sample of the model as its bundle promises."""
    yield
    manifest = json.loads((ROOT / "models" / "iris" / "1.0.0" / "manifest.json").read_text())
    login = os.environ["FORTRESS_USER"], os.environ["FORTRESS_PASSWORD"]
    trust = ssl.create_default_context(cafile=os.environ["FORTRESS_CA"])
    with httpx.Client(base_url=f"https://{os.environ['FORTRESS_HOST']}", verify=trust, auth=login) as client:
        for sample in manifest["golden_samples"]:
            answer = client.post("/predict", json=sample["input"])
            assert answer.status_code == 200, answer.text
            assert is_golden(sample, answer.json(), classification=True, tolerance=1e-6), (sample, answer.text)


def files(host: Host) -> set[str]:
    return {path for path in host.check_output(f"find {FOLDERS} ! -type d").splitlines() if not KEPT.search(path)}


def serving(host: Host) -> set[str]:
    return {str(ready(host, instance).get("deployment")) for instance in (1, 2, 3)}


def test_a_site_of_1_0_0_is_upgraded(
    host: Host, inventory: str, load: Load, record: Record, seen: dict[str, Any]
) -> None:
    [first] = [event for event in history(host) if event["event"] == "deployed"]
    seen["first"], seen["files"] = first, files(host)
    assert "/usr/local/lib/iris_deploy/cli.py" in seen["files"]
    checked = play(inventory, "site.yml", "--check", "--diff")
    assert checked.returncode == 0, checked.stdout
    assert files(host) == seen["files"]
    with load() as traffic:
        done = play(inventory, "site.yml")
    assert done.returncode == 0, done.stdout
    last = history(host)[-1]
    assert (last["event"], last["previous"]) == ("deployed", first["deployment"])
    assert last["release"] != first["release"]
    assert serving(host) == {last["deployment"]}
    shown = host.check_output("iris-deploy history")
    assert first["deployment"] in shown and last["deployment"] in shown
    gone = seen["files"] - files(host)
    assert "/etc/nginx/fortress.d/server-strangers.conf" in gone and "/usr/local/lib/iris_deploy/cli.py" in gone
    seen["last"] = last
    record("upgrade from release 1.0.0", traffic)
    traffic.assert_nothing_failed()


def test_the_second_converge_changes_nothing(inventory: str) -> None:
    done = play(inventory, "site.yml")
    assert done.returncode == 0, done.stdout
    assert re.search(r"\bchanged=0\b", done.stdout) and not re.search(r"\bchanged=[1-9]", done.stdout), done.stdout


def test_the_application_is_rolled_back(
    host: Host, inventory: str, load: Load, record: Record, seen: dict[str, Any]
) -> None:
    with load() as traffic:
        done = rollback(inventory, "-e", "rollback_part=app")
    assert done.returncode == 0, done.stdout
    last = history(host)[-1]
    assert (last["event"], last["release"]) == ("rolled back", seen["first"]["release"])
    assert serving(host) == {last["deployment"]}
    record("rollback to the application of release 1.0.0", traffic, last["seconds"])
    traffic.assert_nothing_failed()


def test_1_0_0_is_converged_again(host: Host, inventory: str, load: Load, record: Record, seen: dict[str, Any]) -> None:
    """What it has no name for is removed as the page says; the host then has the files that it had."""
    # Or there would be no instance to switch.
    assert deploy(inventory, "-e", "iris_api_is_inventory=true").returncode == 0
    with load() as traffic:
        Release("1.0.0").converge(inventory)
        assert serving(host) == {seen["first"]["deployment"]}
        for command in left_behind():
            host.run_expect([0], command.replace("sudo ", ""))
    assert files(host) == seen["files"]
    record("converge with release 1.0.0, the way back", traffic)
    traffic.assert_nothing_failed()


def left_behind() -> list[str]:
    """Return the commands by which docs/operations.md removes what 1.0.0 leaves."""
    block = re.search(
        r"(?m)^( {4}sudo systemctl stop nginx-watch.*\n(?: {4}.+\n)+)", Path(ROOT, "docs/operations.md").read_text()
    )
    assert block
    return [f"bash -c '{line.strip()}'" for line in block[1].splitlines()]


def test_it_is_upgraded_once_more(host: Host, inventory: str, seen: dict[str, Any]) -> None:
    """What an earlier run of this release applied does not hold it off."""
    done = play(inventory, "site.yml")
    assert done.returncode == 0, done.stdout
    assert serving(host) == {seen["last"]["deployment"]}
