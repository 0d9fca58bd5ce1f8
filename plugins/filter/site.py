"""Whether the settings of a site can work, and whose credentials a host has: what is asked before the first change."""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any

DOCUMENTATION = r"""
name: site
short_description: Whether the settings of a site can work, and whose credentials a host has
description:
  - O(odd_user_names) lists the names that no user can have.
  - O(not_hosts) lists what is neither an address nor a name of a host.
  - O(out_of_range) says of each number that is too small or too large what it must be.
  - O(port_conflicts) names those who would listen on the same port.
  - O(credentials_conflict) compares what a host remembers of its credentials with a secrets folder.
  - O(lost_credentials) says what to do about files that are missing in a secrets folder.
author: Fortress
"""

USER = re.compile(r"[A-Za-z0-9_@+-][A-Za-z0-9._@+-]{0,63}")
"""A user's name is the name of a file, and stands before a colon in nginx' password file."""
HOST = re.compile(r"(?=.{1,253}$)\w([\w-]*\w)?([.]\w([\w-]*\w)?)*", re.ASCII)
"""A name of DNS, or an alias of SSH, which may have an underscore."""
BRING = "Copy that folder from the machine that has its newest state"
REPLACE = "-e fortress_replace_credentials=true"


def odd_user_names(users: Sequence[str]) -> list[str]:
    """Return the names that no user can have, and those that stand there twice, in their order."""
    return [user for index, user in enumerate(users) if not USER.fullmatch(user) or user in users[:index]]


def not_hosts(candidates: Sequence[str]) -> list[str]:
    """Return what is neither an IP address nor a host's name, such as a URL or an address with a port, in its order."""
    return [candidate for candidate in candidates if not (HOST.fullmatch(candidate) or _is_address(candidate))]


def out_of_range(numbers: Sequence[Mapping[str, Any]], values: Sequence[int]) -> list[str]:
    """Return a sentence for each number that is out of its range.

    Args:
        numbers: Of each `variable`, its name, and `least` and `most`, between which it must be; perhaps `unit`, which
            stands before "from", and `remedy`, which ends the sentence in place of a full stop.
        values: What they are.
    """
    return [
        f"{each['variable']} is {value}; give a whole number {each.get('unit', '')}"
        f"from {each['least']} to {each['most']}{each.get('remedy', '.')}"
        for each, value in zip(numbers, values, strict=True)
        if not each["least"] <= value <= each["most"]
    ]


def _is_address(candidate: str) -> bool:
    try:
        ipaddress.ip_address(candidate)
    except ValueError:
        return False
    return True


def port_conflicts(ports: Mapping[str, Sequence[int]]) -> list[str]:
    """Return a phrase for each port of a host that more than one wants, `8080 by fortress_a and fortress_b`, in order.

    Args:
        ports: Who listens, as the variable that says where or as a name, and on which ports.
    """
    users: dict[int, list[str]] = {}
    for user, wanted in ports.items():
        for port in wanted:
            users.setdefault(int(port), []).append(user)
    return [f"{port} by {' and '.join(users[port])}" for port in sorted(users) if len(users[port]) > 1]


def credentials_conflict(
    record: Any,
    host: str,
    folder: str,
    site: Mapping[str, Any],
    changes: Sequence[str],
    earlier: Mapping[str, Any] | None,
    is_fresh: bool,
) -> str:
    """Return why a run would replace the credentials of a host, and what to do; nothing where it would not.

    Args:
        record: What the host remembers: `{"id": ..., "generation": 3, "change": ...}`; None where it has no record.
        host: Its name.
        folder: The secrets folder on the control node.
        site: What a host of this folder's site remembers, like `record`.
        changes: The marks of all changes in the folder, in order: `change` of generation N is the N-th.
        earlier: Of a host without a record: `provisioned`, whether it has files of ours; `certificate` and `ca`, what
            `community.crypto.x509_certificate_info` returns of its certificate and the folder's CA, or nothing.
        is_fresh: Whether no credential was ever made in the folder.
    """
    if record is None:
        return _conflict_with_earlier(host, folder, earlier or {}, is_fresh)
    if not isinstance(record, Mapping) or not {"id", "generation", "change"} <= set(record):
        return (
            f"/etc/fortress/site.fact on {host} is damaged, so nobody knows whose credentials the host has. Remove it "
            "there (`sudo rm /etc/fortress/site.fact`), and run the same again."
        )
    generation = int(record["generation"])
    if is_fresh:
        return _foreign(host, folder, "holds none")
    if site["id"] and record["id"] != site["id"]:
        return _foreign(host, folder, "holds those of another site")
    if not site["id"]:
        state = f"is of an earlier release: since then the host has got generation {generation} of its credentials"
    elif generation > len(changes):
        state = (
            f"is older: the host has generation {generation} of this site's credentials, the folder generation "
            f"{len(changes)}"
        )
    elif generation and changes[generation - 1] != record["change"]:
        state = (
            f"is another copy of this site's: since generation {generation} both copies were changed, each for itself"
        )
    else:
        return ""
    return (
        f"{folder} {state}, so this run would take passwords or a CA from {host} that its clients use. {BRING}; or, if "
        f"{host} is to have this folder's credentials from now on, say so: {REPLACE}"
    )


def lost_credentials(lost: Sequence[str], folder: str) -> str:
    """Return what to do about files that a site had and that are missing in its secrets folder."""
    are, them = ("is", "it") if len(lost) == 1 else ("are", "them")
    return (
        f"{', '.join(lost)} {are} missing in {folder}, though this site had {them}. Bring the folder back from a "
        f"backup or from the machine that has it; or, if new ones are meant, say so: {REPLACE}"
    )


def _conflict_with_earlier(host: str, folder: str, earlier: Mapping[str, Any], is_fresh: bool) -> str:
    if earlier.get("provisioned") and is_fresh:
        return _foreign(host, folder, "holds none")
    certificate, ca = earlier.get("certificate") or {}, earlier.get("ca") or {}
    # A certificate that was given has an issuer of another name, and one of ours may take its place.
    same_name = bool(ca) and certificate.get("issuer_ordered") == ca["subject_ordered"]
    if same_name and certificate["authority_key_identifier"] != ca["subject_key_identifier"]:
        return _foreign(host, folder, "holds those of another site, with another CA")
    return ""


def _foreign(host: str, folder: str, what: str) -> str:
    return (
        f"{host} was provisioned with credentials from another secrets folder, and {folder} {what}: this run would "
        f"replace its passwords, its CA and Grafana's key. Bring the folder from the machine that provisioned {host}; "
        f"or, if new credentials are meant, say so: {REPLACE}"
    )


class FilterModule:
    """What Ansible loads."""

    def filters(self) -> dict[str, Callable[..., Any]]:
        """Name the filters of this file."""
        return {
            "credentials_conflict": credentials_conflict,
            "lost_credentials": lost_credentials,
            "not_hosts": not_hosts,
            "odd_user_names": odd_user_names,
            "out_of_range": out_of_range,
            "port_conflicts": port_conflicts,
        }
