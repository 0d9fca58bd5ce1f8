"""Restarts that nobody asked a deployment about: by hand, by needrestart, by a package."""

from __future__ import annotations

import time

import pytest
from testinfra.host import Host

from tests.faults.traffic import Load, Record
from tests.holders import Holders
from tests.operator import play, play_and_lose_the_control_node

testinfra_hosts = ["ansible://gateway"]

INSTANCES = "iris-api@1 iris-api@2 iris-api@3"


def invocations(host: Host) -> list[str]:
    return str(host.run(f"systemctl show --property=InvocationID --value {INSTANCES}").stdout).split()


@pytest.mark.parametrize(
    ("fault", "do"),
    [
        ("`systemctl restart iris-api.target`", "systemctl restart iris-api.target"),
        ("all instances restarted in one command, as needrestart does", f"systemctl restart {INSTANCES}"),
    ],
)
def test_all_instances_are_restarted(host: Host, load: Load, record: Record, fault: str, do: str) -> None:
    before = invocations(host)
    with load() as traffic:
        traffic.strike()
        # The target comes back at once; `start` waits for what has yet to be started.
        assert host.run(f"{do} && systemctl start {INSTANCES}").rc == 0
    assert not set(before) & set(invocations(host))
    record(fault, traffic, traffic.recovered_after())
    traffic.assert_nothing_failed()


def test_needrestart_restarts_what_uses_a_library_that_was_replaced(host: Host, load: Load, record: Record) -> None:
    """All of it in one command: instances, nginx and what watches it, exporters, Prometheus."""
    library = "zlib1g"
    quiet = "DEBIAN_FRONTEND=noninteractive apt-get --yes --quiet --no-install-recommends"
    try:
        host.run_expect([0], f"{quiet} install needrestart")
        before = invocations(host)
        with load() as traffic:
            traffic.strike()
            done = host.run(f"NEEDRESTART_MODE=a {quiet} --reinstall install {library} && systemctl start {INSTANCES}")
        assert done.rc == 0, done.stderr
        assert "Restarting services..." in done.stdout
        assert not set(before) & set(invocations(host))
    finally:
        host.run_expect([0], f"{quiet} purge needrestart && {quiet} --purge autoremove")
    record("needrestart, after a library was installed anew", traffic, traffic.recovered_after())
    traffic.assert_nothing_failed()


def test_all_instances_are_stopped_at_once(host: Host) -> None:
    """A restart is in the middle, and does not delay it: instances wait for nobody when they are to stop."""
    try:
        host.run_expect([0], "systemctl restart --no-block iris-api.target && sleep 1")
        began = time.monotonic()
        host.run_expect([0], f"systemctl stop iris-api.target {INSTANCES}")
        took = time.monotonic() - began
        active = host.run(f"systemctl is-active {INSTANCES}").stdout.split()
    finally:
        host.run_expect([0], "systemctl start iris-api.target")
    assert active == ["inactive"] * 3
    assert took < 4


def main_process(host: Host) -> str:
    return str(host.run("systemctl show --property=MainPID --value nginx").stdout).strip()


@pytest.mark.parametrize(
    ("fault", "do"),
    [
        ("`systemctl restart nginx`", "systemctl restart nginx"),
        ("five restarts of nginx", "for n in 1 2 3 4 5; do systemctl restart nginx; sleep 1; done"),
        ("nginx upgraded in place, as its package does", "/etc/init.d/nginx upgrade"),
        (
            "nginx' package installed anew",
            "apt-get install --yes --quiet --reinstall -o Dpkg::Options::=--force-confold nginx",
        ),
    ],
)
def test_nginx_is_restarted(host: Host, load: Load, record: Record, fault: str, do: str) -> None:
    before = main_process(host)
    with load() as traffic:
        traffic.strike()
        done = host.run(do)
    assert done.rc == 0, done.stdout + done.stderr
    assert main_process(host) != before
    record(fault, traffic, traffic.recovered_after())
    traffic.assert_nothing_failed()


def test_nginx_is_restarted_while_clients_hold_connections(host: Host, load: Load, record: Record) -> None:
    """It ends when its last connection does; whoever else asks must not wait for that."""
    with Holders() as holders, load() as traffic:
        time.sleep(1)
        traffic.strike()
        host.run_expect([0], "systemctl restart nginx")
        answer = holders.finish()
    assert answer == b"HTTP/1.1 200 OK"
    record("`systemctl restart nginx` while clients hold connections", traffic, traffic.recovered_after())
    traffic.assert_nothing_failed()
    assert max(kind.slowest_ms for kind in traffic.kinds.values()) < 1500


def test_a_converge_is_cut_before_nginx_reads_what_it_wrote(
    host: Host, inventory: str, load: Load, record: Record
) -> None:
    """The files are as they should be by then, so nothing else tells the next run that nginx has not read them."""

    def status() -> str:
        url = "https://$(hostname --all-ip-addresses | cut --delimiter=' ' --fields=1)/cut"
        return str(host.run(f"curl --silent --insecure --output /dev/null --write-out '%{{http_code}}' {url}").stdout)

    addition = {"nginx_extra_config": "location = /cut { return 204; }"}
    try:
        with load() as traffic:
            traffic.strike()
            play_and_lose_the_control_node(
                inventory, "playbooks/gateway.yml", "Configure users and passwords", **addition
            )
            assert "/cut" in host.file("/etc/nginx/fortress.d/server-https.conf").content_string
            assert status() == "404"
            done = play(inventory, "playbooks/gateway.yml", **addition)
            assert done.returncode == 0, done.stdout
            assert status() == "204", done.stdout
    finally:
        done = play(inventory, "playbooks/gateway.yml")
    assert done.returncode == 0, done.stdout
    assert status() == "404"
    record("a converge cut before nginx' reload, and run again", traffic, traffic.recovered_after())
    traffic.assert_nothing_failed()
