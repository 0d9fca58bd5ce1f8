"""Stop the run where a host has already what a role would take, or lacks what it needs: see the module host_survey."""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from ansible.plugins.action import ActionBase

DOCUMENTATION = r"""
module: unoccupied
short_description: Check that a role's ports, configuration files and space are free on the host, and its address there
description:
  - Judges what the module host_survey found on the host, and runs on the control node alone.
  - Where that module has not run it passes.
options:
  unit:
    description: How the name of the systemd unit begins that may have the ports, C(prometheus.service) or C(iris-api@).
    type: str
  ports:
    description: Ports the unit is to have.
    type: list
    elements: int
    default: []
  port_variable:
    description: The variable by which another port is set, for the message.
    type: str
  files:
    description: Configuration files of O(package) that the role replaces.
    type: list
    elements: str
    default: []
  package:
    description: The Debian package they belong to.
    type: str
  nginx_sites:
    description: Whether sites of an nginx are in the way.
    type: bool
    default: false
  address:
    description: The address that the role is to listen at, which the host must have; a name is not looked up.
    type: str
  address_variable:
    description: The variable by which another address is set, for the message.
    type: str
  needs_mb:
    description: What folders need, in 10^6 bytes; those on one file system share its space.
    type: dict
    default: {}
author: Fortress
"""

Survey = Mapping[str, Any]
"""What the module host_survey returns as `ansible_facts.survey`."""


class ActionModule(ActionBase):
    """Runs on the control node only."""

    _VALID_ARGS = frozenset(
        {
            "unit",
            "ports",
            "port_variable",
            "files",
            "package",
            "nginx_sites",
            "address",
            "address_variable",
            "needs_mb",
        }
    )

    def run(self, tmp: str | None = None, task_vars: dict[str, Any] | None = None) -> dict[str, Any]:
        """Return a failure whose message has a sentence for each thing that is in the way."""
        result: dict[str, Any] = super().run(tmp, task_vars)
        variables = task_vars or {}
        survey = variables.get("ansible_facts", {}).get("survey")
        found = list(conflicts(survey, **self._task.args)) if survey else []
        result["changed"] = False
        if found:
            result["failed"] = True
            result["msg"] = f"{variables['inventory_hostname']}: {' '.join(found)}"
        return result


def conflicts(
    survey: Survey,
    *,
    unit: str = "",
    ports: Iterable[int | str] = (),
    port_variable: str = "",
    files: Sequence[str] = (),
    package: str = "",
    nginx_sites: bool = False,
    address: str = "",
    address_variable: str = "",
    needs_mb: Mapping[str, int] | None = None,
) -> Iterator[str]:
    """Yield a sentence for each thing in the way, with what to do about it; arguments as in DOCUMENTATION."""
    if taken := port_conflicts(survey, ports, unit):
        other = f"set {port_variable} to another" if port_variable else "give another host"
        yield f"Port {', '.join(taken)} is taken. Stop and disable that service, or {other}."
    foreign = [path for path in survey["changed_files"] if path in files]
    if nginx_sites:
        foreign = survey["nginx_sites"] + foreign
    if foreign:
        yield (
            f"{', '.join(foreign)} was written by somebody else and would be replaced. Save what is in it and run "
            f"there `apt-get purge {package}`, or give another host."
        )
    if is_foreign(survey, address):
        yield (
            f"{address} is no address of this host. Set {address_variable} to its own in the network of the other "
            "hosts; `ip address` there lists what it has."
        )
    for shortage in space_conflicts(survey, needs_mb or {}):
        yield f"{shortage}. Make room, or give another host."


def port_conflicts(survey: Survey, ports: Iterable[int | str], unit: str) -> list[str]:
    """Return who listens at the ports and is not the unit, as "9090 (python3, demo.service)"."""
    wanted = set(map(int, ports))
    found = {
        f"{each['port']} ({', '.join(filter(None, (each['program'], each['unit']))) or 'unknown'})"
        for each in survey["listeners"]
        if each["port"] in wanted and not each["unit"].startswith(unit)
    }
    return sorted(found, key=lambda text: (int(text.split()[0]), text))


def is_foreign(survey: Survey, address: str) -> bool:
    """Return whether an address is none of the host's; one for all addresses, or a name, is not foreign."""
    try:
        wanted = ipaddress.ip_address(address)
    except ValueError:
        return False
    own = {ipaddress.ip_address(each) for each in survey["addresses"]}
    # Where the host lists none, it has no program that would.
    return bool(own) and not wanted.is_unspecified and wanted not in own


def space_conflicts(survey: Survey, needs_mb: Mapping[str, int]) -> list[str]:
    """Return the folders where there is too little space, as "/opt has 300 MB free, and 1500 are needed"."""
    systems: dict[Any, list[str]] = {}
    for path in needs_mb:
        systems.setdefault(survey["file_systems"][path]["device"], []).append(path)
    found = []
    for paths in systems.values():
        system, needed = survey["file_systems"][paths[0]], sum(needs_mb[path] for path in paths)
        if system["read_only"]:
            found.append(f"{' and '.join(paths)} can't be written to: the file system is read-only")
        elif system["free_mb"] < needed:
            found.append(f"{' with '.join(paths)} has {system['free_mb']} MB free, and {needed} are needed")
    return found
