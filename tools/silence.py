"""Keep alerts back for a while, end that, or list what is kept back: `make silence`.

    python -m tools.silence -i inventory/prod --alert DiskAlmostFull --for 2h --why "the disk is being replaced"
    python -m tools.silence -i inventory/prod --host api2 --for 1d --why "new memory"
    python -m tools.silence -i inventory/prod --end 8d7f2c11-...
    python -m tools.silence -i inventory/prod

Alertmanager is asked on each monitoring host, where it answers loopback, by its own amtool.
"""

from __future__ import annotations

import argparse
import getpass
import os
import re
import shlex
import sys
from collections.abc import Sequence

from tools.remote import Hosts, side_by_side, ssh

MOST_HOURS = 14 * 24
UNITS = {"m": 1 / 60, "h": 1, "d": 24}


def command(options: argparse.Namespace, port: int, who: str) -> str:
    """Return what a shell on a monitoring host is to run.

    Raises:
        ValueError: What is asked for can't be, with what to type instead.
    """
    amtool = ["amtool", f"--alertmanager.url=http://127.0.0.1:{port}", "silence"]
    if options.end:
        return shlex.join([*amtool, "expire", options.end])
    matchers = [f"{label}={value}" for label, value in (("alertname", options.alert), ("host", options.host)) if value]
    if not matchers:
        if options.duration or options.why:
            raise ValueError('Which alerts? make silence ALERT=DiskAlmostFull FOR=2h WHY="...", or HOST=api2')
        return shlex.join([*amtool, "query"])
    if not options.duration:
        raise ValueError(f"For how long? FOR=30m, FOR=2h or FOR=1d; at most {MOST_HOURS // 24}d")
    found = re.fullmatch(r"(\d+)([mhd])", options.duration)
    if not found or not 0 < int(found[1]) * UNITS[found[2]] <= MOST_HOURS:
        raise ValueError(f"FOR={options.duration} is no time from 1m to {MOST_HOURS // 24}d: FOR=30m, FOR=2h or FOR=1d")
    if not options.why:
        raise ValueError('Why? Whoever wonders about the quiet reads it: WHY="the disk is being replaced"')
    # Alertmanager 0.25 knows no days.
    minutes = round(int(found[1]) * UNITS[found[2]] * 60)
    told = [f"--author={who}", f"--duration={minutes}m", f"--comment={options.why}"]
    return shlex.join([*amtool, "add", *told, "--", *matchers])


def main(arguments: Sequence[str] | None = None) -> int:
    """Run as a program."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("-i", "--inventory", required=True, help="a folder or file, as for ansible-playbook")
    parser.add_argument("--alert", help="name of an alert")
    parser.add_argument("--host", help="a host of the inventory: all of its alerts")
    parser.add_argument("--for", dest="duration", help="30m, 2h or 1d")
    parser.add_argument("--why", help="for whoever wonders")
    parser.add_argument("--end", help="the id of a silence, as it was printed")
    options = parser.parse_args(arguments)
    hosts = Hosts(options.inventory)
    # Of a name that no host has nothing would ever be silent.
    if options.host:
        hosts.require(options.host)
    reached = hosts.reach_some("monitoring")
    who = f"{getpass.getuser()}@{os.uname().nodename}"
    try:
        told = {
            name: command(options, int(hosts.variable("fortress_alertmanager_port", name)), who) for name in reached
        }
    except ValueError as error:
        print(error, file=sys.stderr)
        return 1
    return side_by_side({name: [*(ssh(name, reach) or ["sh", "-c"]), told[name]] for name, reach in reached.items()})


if __name__ == "__main__":
    sys.exit(main())
