"""What the role base reads from its settings: where a CA certificate goes, and what is no network."""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import PurePosixPath
from typing import Any

DOCUMENTATION = r"""
name: base
short_description: What the role base reads from its settings
description:
  - O(ca_certificate_path) gives the path on a host of a CA certificate.
  - O(not_networks) lists what is no address or network in numbers; O(no_networks) says which variables have such.
author: Fortress
"""


def ca_certificate_path(file: str) -> str:
    """Return where a host has a CA certificate: update-ca-certificates takes only names that end in `.crt`."""
    return f"/usr/local/share/ca-certificates/{PurePosixPath(file).stem}.crt"


def not_networks(candidates: Sequence[str] | str) -> list[str]:
    """Return what is no IPv4 or IPv6 address or network in numbers, such as a name, in its order.

    Args:
        candidates: `192.0.2.7`, `10.20.0.0/16`, `2001:db8::/32`, ...; one text in place of a list is no list of them.
    """
    if isinstance(candidates, str):
        return [candidates]
    return [candidate for candidate in candidates if not _is_network(candidate)]


def no_networks(variables: Mapping[str, Sequence[str] | str]) -> list[str]:
    """Return a phrase for each variable that has what is no network, `base_trusted_networks has office.example.com`."""
    odd = {name: not_networks(networks) for name, networks in variables.items()}
    return [f"{name} has {', '.join(found)}" for name, found in odd.items() if found]


def _is_network(candidate: str) -> bool:
    # nft takes the length of a prefix, and neither a netmask nor a zone.
    if not re.fullmatch(r"[^/%]+(/[0-9]+)?", candidate):
        return False
    try:
        ipaddress.ip_network(candidate, strict=False)
    except ValueError:
        return False
    return True


class FilterModule:
    """What Ansible loads."""

    def filters(self) -> dict[str, Callable[..., Any]]:
        """Name the filters of this file."""
        return {"ca_certificate_path": ca_certificate_path, "not_networks": not_networks, "no_networks": no_networks}
