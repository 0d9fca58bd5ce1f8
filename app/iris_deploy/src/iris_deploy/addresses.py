"""Where instances listen. That is the host's: a deployment has no say in it, and a rollback takes none of it back.

Addresses change in three steps that cost no request: instances come to listen at the new ones beside the old, the
gateways are told, and then the old ones are given up. Where an instance is to have the port of another, as when all
move by one, both have it in between.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Self


@dataclass(frozen=True, order=True)
class Address:
    """An IP address and a port."""

    host: str
    port: int

    @classmethod
    def parse(cls, text: str) -> Self:
        """Read what `str` writes; raise ValueError where it is none."""
        host, _, port = text.rpartition(":")
        return cls(host.strip("[]"), int(port))

    def __str__(self) -> str:
        """As in a URL, and as gunicorn reads it."""
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"

    @property
    def is_own(self) -> bool:
        """Return whether it is an address of a host, and neither loopback nor all of them."""
        try:
            address = ipaddress.ip_address(self.host)
        except ValueError:
            # A name, which the application refuses when it starts.
            return False
        return not address.is_loopback and not address.is_unspecified

    def covers(self, other: Address) -> bool:
        """Return whether who listens here answers there as well. Linux takes :: for the addresses of IPv4 too."""
        wild = self.host == "::" or (self.host == "0.0.0.0" and ":" not in other.host)
        return self.port == other.port and (wild or self.host == other.host)


@dataclass(frozen=True)
class Listeners:
    """Where an instance listens."""

    addresses: tuple[Address, ...] = ()
    """None: it runs nothing."""
    shared: bool = False
    """Whether others may listen there at the same time (SO_REUSEPORT): each gets a share of the connections."""

    @classmethod
    def read(cls, instance: int, environment: str) -> Self:
        """Return where an instance listens that is told this; by default as the application does."""
        if several := re.findall(r"--bind=([^\s\"]+)", environment):
            return cls(tuple(map(Address.parse, several)), "--reuse-port" in environment)
        # Up to release 1.0.0 a deployment said it.
        told = settings(environment)
        port = int(told.get("IRIS_API_BASE_PORT", "8001")) + instance - 1
        return cls((Address(told.get("IRIS_API_BIND_ADDRESS", "127.0.0.1"), port),))

    def environment(self, instance: int) -> str:
        """Return what an instance is told, as systemd reads it. Any release knows these."""
        first = self.addresses[0]
        lines = [f"IRIS_API_BASE_PORT={first.port - instance + 1}", f"IRIS_API_BIND_ADDRESS={first.host}"]
        if self.shared:
            options = ["--reuse-port", *(f"--bind={each}" for each in self.addresses)]
            lines.append(f'GUNICORN_CMD_ARGS="{" ".join(options)}"')
        return "\n".join(["# iris-deploy: where this instance listens.", *lines, ""])

    def expanded(self, wanted: Address) -> tuple[Address, ...]:
        """Return where the instance is to listen until the gateways know where it is wanted."""
        if any(has.covers(wanted) for has in self.addresses):
            return self.addresses
        return (wanted, *(has for has in self.addresses if not wanted.covers(has)))

    def clash(self, other: Listeners) -> bool:
        """Return whether the two have an address in common."""
        return any(one.covers(two) or two.covers(one) for one in self.addresses for two in other.addresses)

    def __str__(self) -> str:
        """For messages."""
        return ", ".join(map(str, self.addresses))


NOWHERE = Listeners()


def settings(environment: str) -> Mapping[str, str]:
    """Return the variables of an environment as systemd reads it, a variable a line."""
    return dict(line.split("=", 1) for line in environment.splitlines() if "=" in line and line[0] != "#")
