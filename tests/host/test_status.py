"""`make status`, `make trace` and `make logs` against a running site."""

from __future__ import annotations

import json
import re
import shlex
import subprocess
import sys
import time
from operator import itemgetter
from pathlib import Path
from typing import Any

import pytest
from testinfra.host import Host

from tests import ROOT
from tests.blackbox.gateway import Gateway
from tests.controller import environment
from tools.status.picture import RECORDED

testinfra_hosts = ["ansible://monitoring"]


@pytest.fixture
def inventory(request: pytest.FixtureRequest) -> str:
    return str(Path(request.config.fortress_inventory).absolute())  # type: ignore[attr-defined]


def run(module: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", module, *arguments]
    return subprocess.run(command, cwd=ROOT, env=environment(), capture_output=True, text=True, check=False)


def status(inventory: str) -> tuple[int, dict[str, Any]]:
    done = run("tools.status", "-i", inventory, "--json")
    assert done.stdout, done.stderr
    return done.returncode, json.loads(done.stdout)


def test_every_host_answers_and_the_exit_code_says_how_the_site_is(inventory: str) -> None:
    code, said = status(inventory)
    assert code == {"ok": 0, "warning": 1, "critical": 2, "unknown": 3}[said["status"]]
    assert [name for name, host in said["hosts"].items() if "unreachable" in host] == []
    assert [host["problems"] for host in said["hosts"].values() if host["problems"]] == []
    ready = [each["ready"] for host in said["hosts"].values() for each in host.get("instances") or []]
    assert ready and all(ready)
    assert said["traffic"]
    screen = run("tools.status", "-i", inventory)
    assert screen.returncode == code
    assert screen.stdout.startswith(said["status"].upper())


# What only a fault has, or not every target, alert and line of the history.
_NOT_ALWAYS = re.compile(r"why|labels|annotations|alerts\[\]|error|blamed|previous")


def fields(value: Any, path: str = "") -> set[str]:
    """Return the paths of all that an answer has, but what it has not always."""
    if isinstance(value, dict):
        inner = set().union(*(fields(each, f"{path}.{name}") for name, each in value.items()))
    elif isinstance(value, list):
        inner = set().union(*(fields(each, f"{path}[]") for each in value))
    else:
        inner = {path}
    return {each for each in inner if not _NOT_ALWAYS.search(each)}


@pytest.mark.one_release
def test_the_answer_that_the_documentation_shows_is_still_what_a_site_answers(inventory: str) -> None:
    """docs/pictures/status.svg is drawn from a recorded one."""
    recorded = json.loads(RECORDED.read_text(encoding="utf-8"))["hosts"]
    assert fields([*status(inventory)[1]["hosts"].values()]) == fields([*recorded.values()])


def quickest(inventory: str) -> tuple[float, int, dict[str, Any]]:
    """Return the seconds, exit code and words of the quickest of three answers: the machine does other things too."""

    def once() -> tuple[float, int, dict[str, Any]]:
        began = time.monotonic()
        code, said = status(inventory)
        return time.monotonic() - began, code, said

    return min((once() for _ in range(3)), key=itemgetter(0))


@pytest.mark.one_release
def test_it_answers_from_the_hosts_and_waits_for_nothing_while_prometheus_is_stopped(
    host: Host, inventory: str
) -> None:
    """How many seconds these are docs/operations.md says: beside other scenarios any answer may take more than five."""
    before, _, _ = quickest(inventory)
    host.check_output("systemctl stop prometheus")
    try:
        took, code, said = quickest(inventory)
    finally:
        host.check_output("systemctl start prometheus")
    assert took < 2 * before
    assert code in (1, 2)
    assert [name for name, each in said["hosts"].items() if "unreachable" in each] == []
    found = [finding["text"] for finding in said["findings"]]
    assert any("Prometheus does not answer" in text for text in found)
    assert any("prometheus.service is inactive" in text for text in found)
    assert said["traffic"]["source"].startswith("the access log of ")


@pytest.mark.one_release
def test_an_instance_that_stops_is_named(host: Host, inventory: str) -> None:
    if not host.file("/opt/iris-api/current").exists:
        pytest.skip("the instances are on other hosts")
    host.check_output("systemctl stop iris-api@3")
    try:
        code, said = status(inventory)
    finally:
        host.check_output("systemctl start iris-api@3")
    assert code in (1, 2)
    assert any(finding["text"].startswith("iris-api@3 is not ready") for finding in said["findings"])


def test_a_request_is_found_by_its_id_at_the_gateway_with_the_instance_that_answered(inventory: str) -> None:
    answer = Gateway().predict()
    done = run("tools.trace", "-i", inventory, answer.headers["X-Request-ID"])
    assert done.returncode == 0, done.stderr
    assert "POST /predict by " in done.stdout
    served_by = answer.headers["X-Served-By"].partition(".")[0]
    assert f"({served_by}): 200" in done.stdout
    assert "The instances wrote nothing of it" in done.stdout


@pytest.mark.one_release
def test_gateway_and_instances_are_followed_together(inventory: str) -> None:
    Gateway().predict()
    shown = subprocess.run(["make", "--dry-run", "logs"], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    command = shlex.split(shown.splitlines()[-1].replace("inventory/local", inventory))
    # It goes on until it is ended.
    with pytest.raises(subprocess.TimeoutExpired) as ended:
        subprocess.run(
            command,
            cwd=ROOT,
            env=environment(),
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            timeout=10,
            check=False,
        )
    said = (ended.value.output or b"").decode(errors="replace")
    assert '"request_id":"' in said, "no line of the access log"
    assert "systemd[1]" in said or "iris-api" in said, "no line of the journal"
