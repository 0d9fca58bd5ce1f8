"""The processes of nginx on a host."""

from __future__ import annotations

from testinfra.host import Host


def master(host: Host) -> int:
    """Return the process id of the master."""
    return int(host.run("systemctl show nginx --property=MainPID --value").stdout)


def workers(host: Host) -> list[str]:
    """Return the process ids of the workers."""
    return str(host.run(f"pgrep --parent {master(host)}").stdout).split()
