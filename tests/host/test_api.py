"""Hosts of the group api: three sandboxed instances that serve when they say so, and come back when they die."""

from __future__ import annotations

import json
import time

import pytest
from testinfra.host import Host

testinfra_hosts = ["ansible://api"]

INSTANCES = [1, 2, 3]
EXPOSURE_LIMIT = 1.5


def pid_of(host: Host, unit: str) -> int:
    return int(host.run(f"systemctl show {unit} --property=MainPID --value").stdout)


def worker_of(host: Host, unit: str) -> int:
    return int(host.run(f"pgrep --parent {pid_of(host, unit)}").stdout.split()[0])


def ready(host: Host, instance: int) -> bool:
    return bool(host.run(f"curl --silent --fail --max-time 2 http://127.0.0.1:{8000 + instance}/health/ready").rc == 0)


def wait_until_ready(host: Host, instance: int, seconds: float) -> float:
    """Return how long it took, in seconds."""
    started = time.monotonic()
    while not ready(host, instance):
        assert time.monotonic() - started < seconds, f"iris-api@{instance} does not serve after {seconds} s"
        time.sleep(0.2)
    return time.monotonic() - started


@pytest.mark.parametrize("instance", INSTANCES)
def test_the_instance_runs_and_comes_up_at_boot(host: Host, instance: int) -> None:
    service = host.service(f"iris-api@{instance}")
    assert service.is_running
    assert service.is_enabled
    assert host.service("iris-api.target").is_enabled


@pytest.mark.parametrize("instance", INSTANCES)
def test_it_listens_on_loopback_alone(host: Host, instance: int) -> None:
    assert host.socket(f"tcp://127.0.0.1:{8000 + instance}").is_listening
    assert not host.socket(f"tcp://0.0.0.0:{8000 + instance}").is_listening


@pytest.mark.parametrize("instance", INSTANCES)
def test_an_instance_is_one_master_and_one_worker(host: Host, instance: int) -> None:
    worker = worker_of(host, f"iris-api@{instance}")
    assert host.run(f"pgrep --parent {pid_of(host, f'iris-api@{instance}')}").stdout.split() == [str(worker)]
    assert host.run(f"pgrep --parent {worker}").stdout == ""


@pytest.mark.parametrize("instance", INSTANCES)
def test_it_names_itself_its_release_and_its_model(host: Host, instance: int) -> None:
    answer = json.loads(host.run(f"curl --silent http://127.0.0.1:{8000 + instance}/health/ready").stdout)
    assert answer["status"] == "ok"
    assert answer["model"] == "iris"
    assert answer["model_version"] == "1.0.0"
    assert answer["instance"] == f"iris-api@{instance}"
    assert host.file("/opt/iris-api/current").linked_to == f"/opt/iris-api/deployments/{answer['deployment']}"
    assert host.file("/opt/iris-api/current/app").linked_to == f"/opt/iris-api/releases/{answer['release']}"


def test_health_says_exactly_ok(host: Host) -> None:
    assert json.loads(host.run("curl --silent http://127.0.0.1:8001/health").stdout) == {"status": "ok"}


def test_it_runs_as_a_user_without_a_shell(host: Host) -> None:
    user = host.user("iris-api")
    assert user.shell == "/usr/sbin/nologin"
    owner = host.run(f"stat --format=%U /proc/{worker_of(host, 'iris-api@1')}").stdout.strip()
    assert owner == "iris-api"


def test_it_can_not_change_its_own_code_or_model(host: Host) -> None:
    for path in ("/opt/iris-api/current/app/venv/bin/python3", "/opt/iris-api/current/model/model.joblib"):
        assert host.run(f"runuser --user iris-api -- test -w {path}").rc == 1


def test_the_sandbox_is_scored_1_5_or_better(host: Host) -> None:
    report = host.run("systemd-analyze security --no-pager iris-api@1.service").stdout
    score = float(report.strip().splitlines()[-1].split(":")[1].split()[0])
    assert score <= EXPOSURE_LIMIT, report


def test_limits_are_set(host: Host) -> None:
    shown = host.run("systemctl show iris-api@1 --property=MemoryMax,TasksMax,Restart,StartLimitIntervalUSec").stdout
    assert "MemoryMax=536870912" in shown
    assert "TasksMax=64" in shown
    assert "Restart=always" in shown
    assert "StartLimitIntervalUSec=0" in shown


def test_the_journal_holds_json(host: Host) -> None:
    lines = host.run("journalctl --unit=iris-api@1 --output=cat --lines=50 _COMM=iris-api").stdout.splitlines()
    assert lines
    for line in lines:
        assert json.loads(line)["message"]


def test_a_killed_worker_is_replaced(host: Host) -> None:
    before = worker_of(host, "iris-api@1")
    assert host.run(f"kill -9 {before}").rc == 0
    time.sleep(0.5)
    wait_until_ready(host, 1, 10)
    assert worker_of(host, "iris-api@1") != before
    assert host.service("iris-api@1").is_running


def test_a_killed_master_is_started_again(host: Host) -> None:
    before = pid_of(host, "iris-api@2")
    assert host.run(f"kill -9 {before}").rc == 0
    time.sleep(0.5)
    wait_until_ready(host, 2, 20)
    assert pid_of(host, "iris-api@2") != before


def test_a_frozen_worker_is_replaced_within_15_seconds(host: Host) -> None:
    before = worker_of(host, "iris-api@3")
    assert host.run(f"kill -STOP {before}").rc == 0
    assert not ready(host, 3)
    assert wait_until_ready(host, 3, 15) > 0
    assert worker_of(host, "iris-api@3") != before


def test_a_corrupt_model_is_refused_and_the_unit_never_says_active(host: Host) -> None:
    """A copy of what runs with one byte of its model changed, for an instance of its own beyond the three."""
    host.run_expect(
        [0],
        "cd /opt/iris-api/instances && rm -rf 9 && mkdir 9 && cp -rL ../current/model 9/model"
        " && printf x >> 9/model/model.joblib && ln -s ../../current/app 9/app && cp ../current/iris-api.env 9/"
        " && mkdir -p /run/systemd/system/iris-api@9.service.d"
        " && printf '[Service]\\nRestart=no\\n' > /run/systemd/system/iris-api@9.service.d/once.conf"
        " && systemctl daemon-reload",
    )
    try:
        assert host.run("systemctl start iris-api@9").rc != 0
        assert host.run("systemctl is-active iris-api@9").stdout.strip() == "failed"
        assert "sha256" in host.run("journalctl --unit=iris-api@9 --output=cat --lines=30").stdout
    finally:
        host.run("systemctl stop iris-api@9; rm -rf /opt/iris-api/instances/9 /run/systemd/system/iris-api@9.service.d")
        host.run("systemctl daemon-reload; systemctl reset-failed iris-api@9")
