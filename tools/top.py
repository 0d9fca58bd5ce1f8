"""Name the clients of a gateway: who asked, who was limited, and whose password was refused: `make top`.

    python -m tools.top -i inventory/prod               of the last 20,000 lines of each gateway's log
    python -m tools.top -i inventory/prod --lines 2000 --hosts gw1

An address never becomes a label of a metric: there are too many of them, and clients would choose how many. They stand
in the log alone.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from tools.remote import Hosts, ssh

LOG = "/var/log/nginx/access.log"
SHOWN = 15


@dataclass
class Client:
    """What one address asked for."""

    requests: int = 0
    limited: int = 0
    refused: int = 0
    failed: int = 0
    bytes: int = 0
    routes: Counter[str] = field(default_factory=Counter)


def clients(lines: Iterable[str]) -> dict[str, Client]:
    """Count what each address asked for, by the lines of the access log; a line that was cut off counts as none."""
    found: dict[str, Client] = {}
    for line in lines:
        try:
            entry = json.loads(line)
            address, status = str(entry["remote_addr"]), int(entry["status"])
        except (ValueError, KeyError, TypeError):
            continue
        # Of requests that cost nothing not each is a line.
        weight = int(entry.get("weight", 1))
        client = found.setdefault(address, Client())
        client.requests += weight
        client.limited += weight * (entry.get("limit") == "REJECTED")
        client.refused += weight * (status == 401)
        client.failed += weight * (status >= 500 and entry.get("limit") != "REJECTED")
        client.bytes += int(entry.get("bytes", 0))
        client.routes[str(entry.get("route") or entry.get("path", ""))] += weight
    return found


def table(found: dict[str, Client], shown: int = SHOWN) -> str:
    """Return the busiest clients, a line each; of as many requests, those with most that was refused first."""
    rows: list[tuple[str, ...]] = [("ADDRESS", "REQUESTS", "LIMITED", "REFUSED", "FAILED", "MB", "MOSTLY")]
    ranked = sorted(found.items(), key=lambda each: (-each[1].requests, -each[1].limited - each[1].refused, each[0]))
    # Who tries passwords need not be among the busiest.
    wanted = dict(ranked[:shown]) | dict(sorted(ranked, key=lambda each: -each[1].refused)[:3])
    for address, client in wanted.items():
        counts = (client.requests, client.limited, client.refused, client.failed)
        [(route, _)] = client.routes.most_common(1)
        # What a client has sent is not to draw on this terminal.
        route = "".join(letter if letter.isprintable() else "?" for letter in route)[:40]
        rows.append((address, *map(str, counts), f"{client.bytes / 1e6:.1f}", route))
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    return "\n".join(
        "  ".join(
            cell.ljust(width) if column in (0, len(row) - 1) else cell.rjust(width)
            for column, (cell, width) in enumerate(zip(row, widths, strict=True))
        ).rstrip()
        for row in rows
    )


def main(arguments: Sequence[str] | None = None) -> int:
    """Run as a program."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("-i", "--inventory", required=True, help="a folder or file, as for ansible-playbook")
    parser.add_argument("--hosts", default="gateway", help="one of several gateways; default: all")
    parser.add_argument("--lines", type=int, default=20_000, help="how many of the newest of each log")
    options = parser.parse_args(arguments)
    lines: list[str] = []
    worst = 0
    for name, reach in Hosts(options.inventory).reach_some(options.hosts).items():
        command = f"sudo tail --lines={options.lines} {LOG}"
        done = subprocess.run(
            [*(ssh(name, reach) or ["sh", "-c"]), command],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            check=False,
        )
        if done.returncode:
            print(f"The log of {name} can't be read; the line above says why.", file=sys.stderr)
            worst = 1
        lines += done.stdout.decode(errors="replace").splitlines()
    found = clients(lines)
    print(table(found) if found else "No request is in the log.")
    return worst


if __name__ == "__main__":
    sys.exit(main())
