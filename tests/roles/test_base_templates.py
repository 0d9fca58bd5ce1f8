"""What every host is given: a firewall for our own ports alone, and a company's mirror where one is named."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest

from tests.controller import render

FIREWALL = "etc/fortress/firewall.nft"
SOURCES = "etc/apt/sources.list.d/debian.sources"
FACTS = {"distribution": "Debian", "distribution_release": "trixie"}


def lines(path: str, **settings: Any) -> list[str]:
    text = render("base", path, ansible_facts=FACTS, **settings)
    return [line.strip() for line in text.splitlines() if line.strip() and not line.startswith("#")]


def test_the_firewall_lets_everything_through_that_is_not_ours() -> None:
    assert "type filter hook input priority filter - 5; policy accept;" in lines(FIREWALL)
    assert not [line for line in lines(FIREWALL) if "dport" in line]


def test_our_ports_are_open_to_loopback_and_the_trusted_alone() -> None:
    rules = lines(FIREWALL, base_guarded_ports=[9090, 3000], base_trusted_networks=["172.16.0.0/12", "2001:db8::/32"])
    assert rules.index("iif lo accept") < rules.index("tcp dport { 9090, 3000 } jump guarded")
    guarded = rules[rules.index("chain guarded {") + 1 :]
    assert guarded[:3] == [
        "tcp dport { 9090, 3000 } ip saddr { 172.16.0.0/12 } accept",
        "tcp dport { 9090, 3000 } ip6 saddr { 2001:db8::/32 } accept",
        "counter reject with tcp reset",
    ]


def test_a_port_is_open_to_those_who_need_it_alone() -> None:
    """The trusted networks have no business at an instance; a port may have clients beside them."""
    clients = [
        {"ports": [8001, 8002], "networks": ["192.0.2.1", "2001:db8::1"]},
        {"ports": [3000], "networks": ["192.0.2.1"]},
        {"ports": [], "networks": ["192.0.2.9"]},
        {"ports": [9113], "networks": []},
    ]
    rules = lines(
        FIREWALL,
        base_guarded_ports=[9090, 3000],
        base_trusted_networks=["172.16.0.0/12"],
        base_port_clients=clients,
    )
    assert "tcp dport { 9090, 3000, 8001, 8002, 9113 } jump guarded" in rules
    guarded = rules[rules.index("chain guarded {") + 1 :]
    assert guarded[:5] == [
        "tcp dport { 9090, 3000 } ip saddr { 172.16.0.0/12 } accept",
        "tcp dport { 8001, 8002 } ip saddr { 192.0.2.1 } accept",
        "tcp dport { 8001, 8002 } ip6 saddr { 2001:db8::1 } accept",
        "tcp dport { 3000 } ip saddr { 192.0.2.1 } accept",
        "counter reject with tcp reset",
    ]


def test_without_trusted_networks_nobody_outside_gets_in() -> None:
    rules = lines(FIREWALL, base_guarded_ports=[9090])
    assert rules[rules.index("chain guarded {") + 1] == "counter reject with tcp reset"


def test_a_reload_replaces_our_table_and_touches_no_other() -> None:
    """Its rules, in one step; its sets stay, or a reload would forget what is open."""
    assert lines(FIREWALL)[:3] == ["table inet fortress", "flush table inet fortress", "table inet fortress {"]
    assert render("base", FIREWALL).count("flush") == 1


LIMITED: dict[str, Any] = {
    "base_guarded_ports": [9090],
    "base_trusted_networks": ["172.16.0.0/12", "172.30.0.10", "2001:db8::/32"],
    "base_port_clients": [{"ports": [8001, 8002, 8003, 3000], "networks": ["192.0.2.1", "192.0.2.2", "2001:db8::1"]}],
    "base_limited_ports": [80, 443],
    "base_connections_per_address": 40,
    "base_new_connections_per_second": 7,
    "base_new_connections_burst": 9,
    "base_unlimited_networks": ["192.0.2.0/24", "2001:db8:1::/48"],
}


def test_an_address_is_bounded_at_the_limited_ports_and_nowhere_else() -> None:
    rules = lines(FIREWALL, **LIMITED)
    opening = "tcp flags & (fin | syn | rst | ack) == syn ct state new jump limited"
    assert [line for line in rules if "limited" in line and line[0] != "#"] == [
        f"tcp dport {{ 80, 443 }} {opening}",
        "chain limited {",
    ]
    assert rules.index("iif lo accept") < rules.index(f"tcp dport {{ 80, 443 }} {opening}")
    limited = rules[rules.index("chain limited {") + 1 :]
    limited = [line for line in limited if "ct timeout" not in line and not line.startswith("#")]
    assert limited == [
        "ip saddr { 192.0.2.0/24 } return",
        "ip6 saddr { 2001:db8:1::/48 } return",
        "update @new_7_9_ipv4 { ip saddr limit rate over 7/second burst 9 packets } counter reject with tcp reset",
        "update @new_7_9_ipv6 { ip6 saddr & ffff:ffff:ffff:ffff:: limit rate over 7/second burst 9 packets }"
        " counter reject with tcp reset",
        "add @open_40_ipv4 { ip saddr ct count over 40 } counter reject with tcp reset",
        "add @open_40_ipv6 { ip6 saddr & ffff:ffff:ffff:ffff:: ct count over 40 } counter reject with tcp reset",
        "}",
        "}",
    ]


def test_no_port_is_open_before_the_rules_are_there() -> None:
    unit = lines("etc/systemd/system/fortress-firewall.service")
    assert {
        # Before any address is up, and long before whatever could listen.
        "Before=network-pre.target", "Wants=network-pre.target", "DefaultDependencies=no", "WantedBy=sysinit.target",
        # nftables.service flushes all tables, ours too.
        "After=nftables.service", "PartOf=nftables.service", "ReloadPropagatedFrom=nftables.service",
        "ExecStart=/usr/sbin/nft --file /etc/fortress/firewall.nft",
        "ExecReload=/usr/sbin/nft --file /etc/fortress/firewall.nft",
        "RemainAfterExit=yes",
    } <= set(unit)  # fmt: skip


def test_a_host_without_limited_ports_counts_no_connection() -> None:
    """Counting costs every host the kernel's table of connections."""
    assert not [line for line in lines(FIREWALL, base_guarded_ports=[9090]) if line.startswith(("ct ", "set "))]
    assert "ct state" not in render("base", FIREWALL, base_guarded_ports=[9090])


@pytest.mark.skipif(not shutil.which("nft") or os.geteuid() != 0, reason="needs nft and root")
@pytest.mark.parametrize("before", [{}, {**LIMITED, "base_connections_per_address": 41}, LIMITED])
def test_nft_takes_the_rules_whatever_was_loaded_before(tmp_path: Path, before: dict[str, Any]) -> None:
    """In a network namespace of its own, so that nothing of this machine is touched."""
    files = []
    for number, settings in enumerate([before, LIMITED]):
        files.append(tmp_path / f"{number}.nft")
        files[-1].write_text(render("base", FIREWALL, **settings))
    load = [f"nft --file {files[0]}", f"nft --check --file {files[1]}", f"nft --file {files[1]}"]
    script = " && ".join([*load, "nft list table inet fortress"])
    done = subprocess.run(["unshare", "--net", "sh", "-c", script], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("ct count over 40 ") == 2


@pytest.mark.parametrize("security", ["", "http://mirror.example.com/security"])
def test_a_mirror_stands_for_the_distribution_and_its_security_updates(security: str) -> None:
    found = lines(SOURCES, base_apt_mirror="http://mirror.example.com/debian", base_apt_security_mirror=security)
    assert [line for line in found if line.startswith("URIs:")] == [
        "URIs: http://mirror.example.com/debian",
        *([f"URIs: {security}"] if security else []),
    ]
    assert "Suites: trixie trixie-updates" in found
    assert ("Suites: trixie-security" in found) == bool(security)
    signed = [line for line in found if line.startswith("Signed-By:")]
    assert signed == ["Signed-By: /usr/share/keyrings/debian-archive-keyring.gpg"] * (2 if security else 1)


def test_the_journal_is_kept_and_bounded() -> None:
    path = "etc/systemd/journald.conf.d/fortress-journal.conf"
    assert {"Storage=persistent", "SystemMaxUse=500M", "RateLimitBurst=1000"} <= set(lines(path))
    assert {"SystemMaxUse=2G", "MaxRetentionSec=7day"} <= set(
        lines(path, base_journal_max_size="2G", base_journal_max_age="7day")
    )
