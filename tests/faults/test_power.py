"""The whole host goes down: everything comes back unattended, each unit at its first try."""

from __future__ import annotations

import contextlib
import os
import ssl
import subprocess
import sys
import time

import httpx
import pytest
from testinfra.host import Host

from tests import ROOT
from tests.faults.traffic import Load, Record, wait_until_whole
from tests.operator import deploy, ready

testinfra_hosts = ["ansible://gateway"]

UNITS = (
    "iris-api@1 iris-api@2 iris-api@3 nginx"
    " prometheus prometheus-nginx-exporter prometheus-node-exporter grafana-server"
    " mtail prometheus-blackbox-exporter"
)


def localvm(command: str, host: Host) -> None:
    sudo = [] if os.geteuid() == 0 else ["sudo"]
    program = [*sudo, sys.executable, str(ROOT / "tools" / "localvm")]
    subprocess.run([*program, command, host.backend.host], check=True, stdout=subprocess.PIPE)


def boot(host: Host) -> str:
    """Which boot the host is in; nothing where it can't be reached."""
    with contextlib.suppress(RuntimeError):
        done = host.run("cat /proc/sys/kernel/random/boot_id")
        return str(done.stdout) if done.rc == 0 else ""
    return ""


def wait_until_serving(seconds: float) -> None:
    """Wait for an answer of an instance, through the gateway."""
    trust = ssl.create_default_context(cafile=os.environ["FORTRESS_CA"])
    deadline = time.monotonic() + seconds
    with httpx.Client(verify=trust, timeout=2) as client:
        while True:
            with contextlib.suppress(httpx.HTTPError):
                if client.get(os.environ["FORTRESS_URL"] + "/health").status_code == 200:
                    return
            assert time.monotonic() < deadline, f"nothing was served for {seconds} s"
            time.sleep(0.1)


@pytest.mark.parametrize("how", ["reboot", "power cut"])
def test_the_host_goes_down(host: Host, load: Load, record: Record, how: str) -> None:
    before = boot(host)
    with load(linger=5) as traffic:
        traffic.strike()
        if how == "power cut":
            localvm("cut", host)
            localvm("start", host)
        else:
            with contextlib.suppress(RuntimeError):
                host.run("systemctl reboot")
        # It serves until the reboot is announced, 4 s.
        for _ in range(60):
            if boot(host) not in ("", before):
                break
            time.sleep(0.5)
        else:
            pytest.fail("it is still the same boot")
        wait_until_serving(60)
    wait_until_whole(host)
    assert host.run("systemctl --failed --no-legend").stdout == ""
    restarts = host.run(f"systemctl show {UNITS} --property=Id,ActiveState,NRestarts").stdout
    assert restarts.count("ActiveState=active") == restarts.count("NRestarts=0") == len(UNITS.split()), restarts
    recovery = traffic.recovered_after()
    record(how, traffic, recovery, "nothing else can answer")
    assert recovery < 20, traffic.explain()
    traffic.assert_enough()


def test_the_power_is_cut_in_the_middle_of_a_deployment(host: Host, inventory: str, load: Load, record: Record) -> None:
    """The host finishes or reverts it by itself, and what runs is one deployment again."""
    assert deploy(inventory, "-e", "fortress_model_name=iris-forest").returncode == 0
    try:
        with load(linger=5) as traffic:
            host.run_expect([0], "systemd-run --quiet --collect iris-deploy rollback")
            for _ in range(300):
                if ready(host, 1).get("model") == "iris":
                    break
                time.sleep(0.1)
            assert ready(host, 3)["model"] == "iris-forest", "it was over before it was cut off"
            traffic.strike()
            localvm("cut", host)
            localvm("start", host)
            wait_until_serving(60)
        for _ in range(60):
            if host.run("iris-deploy status --check").rc == 0:
                break
            time.sleep(0.5)
        assert host.run("iris-deploy status --check").rc == 0, host.run("iris-deploy status --check").stdout
        runs = [ready(host, instance)["model"] for instance in (1, 2, 3)]
        said = host.run("iris-deploy history; journalctl --unit=iris-deploy-recover").stdout
        # Where the cut took with it that the first instance was switched, nothing is left to finish.
        assert runs == [runs[0]] * 3, said
        assert runs[0] == ("iris-forest" if "cut short before any instance was touched" in said else "iris"), said
    finally:
        assert deploy(inventory).returncode == 0
    recovery = traffic.recovered_after()
    record("power cut in the middle of a rollback", traffic, recovery, "nothing else can answer")
    assert recovery < 20, traffic.explain()
