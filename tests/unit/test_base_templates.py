"""What every host is given: a firewall for our own ports alone, and a company's mirror where one is named."""

from __future__ import annotations

from typing import Any

import pytest
from conftest import render

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
        "ip saddr { 172.16.0.0/12 } accept",
        "ip6 saddr { 2001:db8::/32 } accept",
        "counter reject with tcp reset",
    ]


def test_without_trusted_networks_nobody_outside_gets_in() -> None:
    rules = lines(FIREWALL, base_guarded_ports=[9090])
    assert rules[rules.index("chain guarded {") + 1] == "counter reject with tcp reset"


def test_a_reload_replaces_our_table_and_touches_no_other() -> None:
    assert lines(FIREWALL)[:3] == ["table inet fortress", "delete table inet fortress", "table inet fortress {"]
    assert "flush" not in render("base", FIREWALL)


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
    assert {"Storage=persistent", "SystemMaxUse=500M"} <= set(lines(path))
    assert {"SystemMaxUse=2G", "MaxRetentionSec=7day"} <= set(
        lines(path, base_journal_max_size="2G", base_journal_max_age="7day")
    )
