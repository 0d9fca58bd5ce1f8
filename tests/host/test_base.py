"""Every host: nothing failed, our ports are closed to outsiders and no others, no secret is world-readable."""

from __future__ import annotations

import json
import os
import re

import pytest
from testinfra.host import Host

from tests.operator import play

testinfra_hosts = ["ansible://all"]

GUARDED = [8001, 8002, 8003, 9090, 9093, 3000, 9113, 9100, 3903, 9115]
LIMITED = [80, 443]


def test_systemd_is_running_and_no_unit_has_failed(host: Host) -> None:
    failed = host.run("systemctl --failed --no-legend --plain").stdout
    assert failed == ""
    assert host.run("systemctl is-system-running --wait").stdout.strip() == "running"


def test_the_packages_of_all_roles_came_in_one_transaction(host: Host) -> None:
    """Each is a paragraph of its history. Molecule has the node exporter there before, and tests install others."""
    paragraphs = host.run("cat /var/log/apt/history.log").stdout.split("\n\n")
    [ours, *_] = [found for text in paragraphs if "nginx" in (found := set(re.findall(r"([\w.+-]+):\w+ \(", text)))]
    assert {"mtail", "prometheus", "prometheus-alertmanager", "prometheus-nginx-exporter", "python3-venv"} <= ours


@pytest.mark.one_release
@pytest.mark.parametrize(("code", "stays"), [pytest.param(101, False, id="ours"), pytest.param(0, True, id="foreign")])
def test_a_run_that_lost_its_power_leaves_nothing_that_keeps_services_from_starting(
    host: Host, inventory: str, code: int, stays: bool
) -> None:
    """Ansible's apt writes the file for as long as it installs, and nobody removes it where both end at once."""
    file = host.file("/usr/sbin/policy-rc.d")
    assert not file.exists
    host.check_output(f"printf '#!/bin/sh\\nexit {code}\\n' > {file.path}")
    try:
        done = play(inventory, "site.yml", "--tags", "base")
        assert done.returncode == 0, done.stdout
        assert file.exists == stays
    finally:
        host.run(f"rm -f {file.path}")


def test_the_firewall_is_a_table_of_its_own_and_stands_before_the_network(host: Host) -> None:
    assert host.service("fortress-firewall").is_enabled
    rules = json.loads(host.run("nft --json list table inet fortress").stdout)["nftables"]
    chains = [rule["chain"] for rule in rules if "chain" in rule]
    assert [chain["policy"] for chain in chains if "policy" in chain] == ["accept"]
    before = host.run("systemctl show fortress-firewall --property=Before --value").stdout
    assert "network-pre.target" in before


def test_the_firewall_names_our_ports_and_no_other(host: Host) -> None:
    rules = json.loads(host.run("nft --json list table inet fortress").stdout)["nftables"]
    ports: set[int] = set()
    for rule in rules:
        for expression in rule.get("rule", {}).get("expr", []):
            match = expression.get("match", {})
            if match.get("left", {}).get("payload", {}).get("field") == "dport":
                right = match["right"]
                # nft shows a set of one as what is in it.
                for port in right["set"] if isinstance(right, dict) else [right]:
                    ports |= {port} if isinstance(port, int) else set(range(port["range"][0], port["range"][1] + 1))
    assert ports == set(GUARDED) | (set(LIMITED) if host.package("nginx").is_installed else set())


def test_flushing_by_nftables_service_does_not_open_our_ports(host: Host) -> None:
    """nftables.service flushes every table when it is restarted; ours is loaded again with it."""
    assert host.run("systemctl restart nftables.service").rc == 0
    try:
        # systemctl waits for the service it was given, not for the one that follows it.
        assert host.run("timeout 10 sh -c 'until nft list table inet fortress; do sleep 0.1; done'").rc == 0
    finally:
        host.run("systemctl stop nftables.service")
        host.run("systemctl start fortress-firewall.service")


def test_the_journal_survives_a_reboot_and_is_bounded(host: Host) -> None:
    assert host.file("/var/log/journal").is_directory
    assert len(host.run("journalctl --list-boots --no-pager").stdout.splitlines()) >= 2
    configuration = host.run("systemd-analyze cat-config systemd/journald.conf").stdout
    assert "SystemMaxUse=500M" in configuration


def test_no_secret_lies_in_a_world_readable_file(host: Host) -> None:
    """Private keys, password hashes and generated passwords are readable by their service and root alone."""
    readable = host.run(
        "find /etc /opt /var/lib /var/log /usr/local /home /run -xdev -type f -perm -o=r -size -1M"
        " -not -path '/etc/ssl/certs/*' -not -path '*/site-packages/*' -print0 2>/dev/null"
        " | xargs -0 grep -lEs -e '-----BEGIN ([A-Z]+ )?PRIVATE KEY-----' -e '^[a-z]+:[{]SSHA[}]' --"
    ).stdout
    assert readable == ""


def test_no_secret_is_in_a_process_environment_or_its_arguments(host: Host) -> None:
    secrets = [
        value for name, value in os.environ.items() if name.startswith("FORTRESS_") and name.endswith("PASSWORD")
    ]
    assert secrets, "FORTRESS_PASSWORD is not set: there is nothing to look for"
    seen = host.run("cat /proc/[0-9]*/environ /proc/[0-9]*/cmdline 2>/dev/null | tr '\\0' '\\n'").stdout
    for secret in secrets:
        assert secret not in seen
