"""What group_vars/all/wiring.yml makes of an inventory: addresses, instances, scrape targets, users."""

from __future__ import annotations

import ipaddress
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from ansible.errors import AnsibleFilterError

DOCUMENTATION = r"""
name: wiring
short_description: What role variables are made of
description:
  - O(ip_addresses) keeps of a list what is an IP address and no name.
  - O(in_url) puts an IPv6 address into brackets, as it stands before a port.
  - O(others) leaves a host out of a list of hosts, and keeps their order.
  - O(instances) lists every instance of every host of the group api, as nginx and Prometheus know it.
  - O(targets) lists what Prometheus scrapes at one port of several hosts.
  - O(basic_auth_users) joins users with their passwords, previous ones included.
author: Fortress
"""

Target = dict[str, Any]
"""{"address": "127.0.0.1:8001", "labels": {"instance": ..., ...}}"""


def ip_addresses(candidates: Iterable[str]) -> list[str]:
    """Return those that are IPv4 or IPv6 addresses, in their order; names are left out."""
    return [candidate for candidate in map(str, candidates) if _is_ip(candidate)]


def in_url(address: str) -> str:
    """Return an address or name as it stands in a URL or before a port: an IPv6 address in brackets."""
    return f"[{address}]" if ":" in address else str(address)


def others(hosts: Sequence[str], host: str) -> list[str]:
    """Return the hosts but this one, in their order: a random one would change configuration files at each run."""
    return [other for other in hosts if other != host]


def instances(hosts: Sequence[str], addresses: Sequence[str], ports: Sequence[int]) -> list[Target]:
    """Return one target for each instance, host by host, `iris-api@1` being the one at the first port.

    Args:
        hosts: Names of the hosts with instances.
        addresses: Where the instances of each host listen, in the order of `hosts`.
        ports: Where the instances of a host listen.
    """
    return [
        {
            "address": f"{in_url(address)}:{port}",
            "labels": {"instance": f"iris-api@{number}", "host": str(host)},
        }
        for host, address in _pairs(hosts, addresses)
        for number, port in enumerate(ports, 1)
    ]


def targets(hosts: Sequence[str], addresses: Sequence[str], port: int) -> list[Target]:
    """Return one target for each host.

    Args:
        hosts: Names of the hosts, which become the label `instance`.
        addresses: Where Prometheus reaches each host, in the order of `hosts`.
        port: The port of what is scraped there.
    """
    return [
        {"address": f"{in_url(address)}:{port}", "labels": {"instance": str(host)}}
        for host, address in _pairs(hosts, addresses)
    ]


def basic_auth_users(
    users: Sequence[str], passwords: Mapping[str, str], previous: Mapping[str, str] | None = None
) -> list[dict[str, str]]:
    """Return `{name, password}` for each user, and `previous_password` for each who has one that still works."""
    kept = previous or {}
    return [
        {"name": user, "password": passwords[user]} | ({"previous_password": kept[user]} if user in kept else {})
        for user in users
    ]


def _is_ip(candidate: str) -> bool:
    try:
        ipaddress.ip_address(candidate)
    except ValueError:
        return False
    return True


def _pairs(hosts: Sequence[str], addresses: Sequence[str]) -> list[tuple[str, str]]:
    if len(hosts) != len(addresses):
        raise AnsibleFilterError(f"wiring: {len(hosts)} hosts have {len(addresses)} addresses.")
    return list(zip(hosts, addresses, strict=True))


class FilterModule:
    """What Ansible loads."""

    def filters(self) -> dict[str, Callable[..., Any]]:
        """Name the filters of this file."""
        return {
            "ip_addresses": ip_addresses,
            "in_url": in_url,
            "others": others,
            "instances": instances,
            "targets": targets,
            "basic_auth_users": basic_auth_users,
        }
