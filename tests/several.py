"""The hosts of a site of several: each by its name, what it is for, and what reaches it from the others."""

from __future__ import annotations

import json
import os
import shlex
import subprocess
import sys
from dataclasses import dataclass

import testinfra
from testinfra.host import Host

from tests import ROOT
from tools.remote import Hosts

# From where these tests are run; it is in fortress_trusted_networks.
CONTROL = "the control node"
OUTSIDER = "an outsider"

PROBE = """
import json, socket, sys
found = []
for address, port in json.loads(sys.argv[1]):
    with socket.socket() as probe:
        probe.settimeout(2)
        if probe.connect_ex((address, port)) == 0:
            found.append([address, port])
print(json.dumps(found))
"""


def localvm(*arguments: str) -> subprocess.CompletedProcess[str]:
    """Do something to a machine."""
    sudo = [] if os.geteuid() == 0 else ["sudo"]
    command = [*sudo, sys.executable, str(ROOT / "tools" / "localvm"), *arguments]
    return subprocess.run(command, check=True, capture_output=True, text=True)


@dataclass(frozen=True)
class Cluster:
    """The hosts of an inventory."""

    groups: dict[str, list[str]]
    addresses: dict[str, str]
    hosts: dict[str, Host]

    def open_from(self, source: str, doors: list[tuple[str, int]]) -> set[tuple[str, int]]:
        """Return to which of these (host, port) a connection can be opened from a host, or from outside."""
        wanted = json.dumps([(self.addresses[host], port) for host, port in doors])
        command = ["python3", "-c", PROBE, wanted]
        if source == CONTROL:
            told = subprocess.run(command, check=True, capture_output=True, text=True).stdout
        elif source == OUTSIDER:
            told = localvm("outsider", "--", *command).stdout
        else:
            told = self.run(source, command)
        names = {address: host for host, address in self.addresses.items()}
        return {(names[address], port) for address, port in json.loads(told)}

    def run(self, host: str, command: list[str]) -> str:
        """Run a command on a host; return what it prints."""
        done = self.hosts[host].run(shlex.join(command))
        assert done.rc == 0, done.stderr
        return str(done.stdout)


def several(inventory: str, resolved: str, *, sudo: bool) -> Cluster:
    """Return the hosts of an inventory, reached by what Testinfra was given in its place."""
    read = Hosts(inventory)
    found = testinfra.get_hosts(["ansible://all"], ansible_inventory=resolved, sudo=sudo)
    return Cluster(
        groups=read.groups,
        addresses={name: reach["ansible_host"] for name, reach in read.reach().items()},
        hosts={host.backend.host: host for host in found},
    )
