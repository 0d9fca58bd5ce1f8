"""What group_vars/all/wiring.yml makes of an inventory: addresses, instances, scrape targets, users."""

from __future__ import annotations

import ipaddress
import socket
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from itertools import chain, zip_longest
from typing import Any

DOCUMENTATION = r"""
name: wiring
short_description: What role variables are made of
description:
  - O(ip_addresses) keeps of a list what is an IP address and no name.
  - O(in_url) puts an IPv6 address into brackets, as it stands before a port.
  - O(host_addresses) lists the IP addresses at which other hosts reach one that is known by an address or a name.
  - O(target) is what Prometheus scrapes at a port of a host.
  - O(probes) is what Prometheus has the blackbox exporter ask of several hosts.
  - O(instances) lists the instances of a host of the group api, as nginx and Prometheus know them.
  - O(in_turn) takes the first of each list, then the second of each, and so on.
  - O(repeated) lists what a list has more than once.
  - O(basic_auth_users) joins users with their passwords, previous ones included.
author: Fortress
"""

Target = dict[str, Any]
"""{"address": "127.0.0.1:8001", "labels": {"instance": ..., ...}}"""


def ip_addresses(candidates: Iterable[str]) -> list[str]:
    """Return those that are IPv4 or IPv6 addresses, in their order and shortest form; names are left out.

    An IPv6 address can be written in many ways, and certificates and clients have the shortest.
    """
    return [str(ipaddress.ip_address(candidate)) for candidate in map(str, candidates) if _is_ip(candidate)]


def in_url(address: str) -> str:
    """Return an address or name as it stands in a URL or before a port: an IPv6 address in brackets."""
    return f"[{address}]" if ":" in address else str(address)


def host_addresses(address: str) -> list[str]:
    """Return the IP addresses at which other hosts reach one that is known by this address or name, IPv4 first.

    Neither a firewall nor a unit nor an instance takes a name. It is looked up on the control node, and what means the
    control node itself is left out, such as a name that stands beside 127.0.1.1 in its /etc/hosts. None are left of an
    alias that only SSH knows: the preflight says so.
    """
    try:
        found = {str(answer[4][0]) for answer in socket.getaddrinfo(address, None, type=socket.SOCK_STREAM)}
    except (OSError, UnicodeError):
        return []
    addresses = (ipaddress.ip_address(each.partition("%")[0]) for each in found)
    usable = [each for each in addresses if not (each.is_loopback or each.is_link_local or each.is_unspecified)]
    return [str(each) for each in sorted(usable, key=lambda each: (each.version, int(each)))]


def target(address: str, port: int, host: str) -> Target:
    """Return what Prometheus scrapes at a port of a host.

    Args:
        address: Where Prometheus reaches the host.
        port: The port of what is scraped there.
        host: Name of the host, which becomes the label `instance`.
    """
    return {"address": f"{in_url(address)}:{port}", "labels": {"instance": str(host)}}


def probes(hosts: Iterable[str], urls: Iterable[str], exporter: str) -> list[Target]:
    """Return what Prometheus scrapes for the probes of several hosts: the exporter, which is told whom to ask.

    Args:
        hosts: Names of the hosts, which become the label `instance`.
        urls: What each of them is asked for.
        exporter: Where the blackbox exporter listens, with its port.
    """
    return [
        {"address": str(exporter), "labels": {"instance": str(host), "__param_target": str(url)}}
        for host, url in zip(hosts, urls, strict=True)
    ]


def instances(address: str, base_port: int, count: int, host: str) -> list[Target]:
    """Return one target for each instance of a host, `iris-api@1` being the one at the first port.

    Args:
        address: Where the instances of the host listen.
        base_port: Port of the first; each further one has the next.
        count: How many there are.
        host: Name of the host.
    """
    return [
        {
            "address": f"{in_url(address)}:{int(base_port) + number - 1}",
            "labels": {"instance": f"iris-api@{number}", "host": str(host)},
        }
        for number in range(1, int(count) + 1)
    ]


def in_turn(lists: Iterable[Sequence[Target]]) -> list[Target]:
    """Return the first of each list, then the second of each, and so on.

    nginx asks the upstream that is next in the list where one does not answer. With the instances of a host side by
    side, a host that is off would be asked again and again.
    """
    return [each for each in chain.from_iterable(zip_longest(*lists)) if each is not None]


def repeated(values: Iterable[str]) -> list[str]:
    """Return what is there more than once, in order."""
    counts = Counter(values)
    return sorted(value for value in counts if counts[value] > 1)


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


class FilterModule:
    """What Ansible loads."""

    def filters(self) -> dict[str, Callable[..., Any]]:
        """Name the filters of this file."""
        return {
            "ip_addresses": ip_addresses,
            "in_url": in_url,
            "host_addresses": host_addresses,
            "target": target,
            "probes": probes,
            "instances": instances,
            "in_turn": in_turn,
            "repeated": repeated,
            "basic_auth_users": basic_auth_users,
        }
