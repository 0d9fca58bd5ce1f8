"""Show one request on its way through a site: what the gateway wrote of it, which instances it asked, what they wrote.

python -m tools.trace -i inventory/prod 3f2c...     by X-Request-ID of the answer, or request_id of an error
"""

from __future__ import annotations

import argparse
import json
import re
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from datetime import UTC, datetime

from tools.remote import Hosts, ssh

# As gateway and instances accept one; anything else they replace by one of their own. It becomes part of a command.
REQUEST_ID = re.compile(r"[A-Za-z0-9._-]{1,128}")
# How far around a request the journal is searched: it has no index of request ids.
AROUND_SECONDS = 60
HOST_SECONDS = 60.0
_IN_EVERY_EVENT = {"time", "level", "logger", "message", "request_id", "exception", "stack"}


@dataclass(frozen=True)
class Step:
    """Something that one part of the site wrote of the request."""

    time: float
    """Seconds since 1970: when it was written."""
    where: str
    text: str
    more: Sequence[str] = field(default=())


def in_access_logs(request_id: str) -> str:
    """Return the command that finds a request in a gateway's access logs, also those that were rotated away."""
    wanted = f'"request_id":"{request_id}"'
    return f"sudo sh -c 'zgrep --no-filename --fixed-strings -- '\\''{wanted}'\\'' /var/log/nginx/access.log*'"


def in_journal(request_id: str, since: str, until: str) -> str:
    """Return the command that finds a request in a host's journal, as JSON."""
    units = "--unit='iris-api@*' --unit=nginx"
    journal = f"sudo journalctl --output=json {units} --since='{since}' --until='{until}'"
    return f"{journal} | grep --fixed-strings '{request_id}'"


def at_gateway(host: str, line: str, base_ports: Mapping[str, int]) -> Step:
    """Return the step of a line of the access log.

    Args:
        host: The gateway.
        line: What it has written.
        base_ports: The port of the first instance of each host, by the address at which gateways ask them.
    """
    entry = json.loads(line)
    user = f" by {entry['user']}" if entry["user"] else ""
    text = (
        f"{entry['method']} {entry['path']}{user} from {entry['remote_addr']}: {entry['status']} "
        f"after {1000 * entry['request_time']:.0f} ms, {entry['bytes']} bytes"
    )
    more = []
    if entry["limit"] not in ("", "PASSED"):
        more.append(f"the rate limit: {entry['limit']}")
    # After a retry these hold one value for each attempt.
    addresses, statuses, times = (
        re.split(r", | : ", entry[name]) for name in ("upstream_addr", "upstream_status", "upstream_response_time")
    )
    for address, status, seconds in zip(addresses, statuses, times, strict=False):
        if address:
            asked, _, port = address.rpartition(":")
            number = int(port) - base_ports[asked] + 1 if asked in base_ports and port.isdigit() else 0
            instance = f" (iris-api@{number})" if number > 0 else ""
            after = f" after {1000 * float(seconds):.0f} ms" if seconds not in ("", "-") else ""
            more.append(f"asked {address}{instance}: {status}{after}")
    if not entry["upstream_addr"]:
        more.append("no instance was asked")
    return Step(entry["msec"], f"nginx on {host}", text, more)


def in_upstream(address: str) -> str:
    """Return an address as nginx writes that of an upstream: of version 6 in brackets."""
    return f"[{address}]" if ":" in address else address


def in_unit(host: str, line: str) -> Step:
    """Return the step of an entry of the journal, as `journalctl --output=json` writes it."""
    entry = json.loads(line)
    message = entry["MESSAGE"]
    # The journal writes bytes that are no UTF-8 as numbers.
    text = bytes(message).decode(errors="replace") if isinstance(message, list) else str(message)
    unit = entry.get("_SYSTEMD_UNIT", "").removesuffix(".service")
    when = int(entry["__REALTIME_TIMESTAMP"]) / 1e6
    try:
        event = json.loads(text)
        more = [f"{name}: {event[name]}" for name in sorted(event.keys() - _IN_EVERY_EVENT)]
        for name in ("exception", "stack"):
            more += str(event.get(name, "")).splitlines()
        return Step(when, f"{unit} on {host}", f"{event['level'].upper()} {event['message']}", more)
    except (ValueError, TypeError, KeyError, AttributeError):
        return Step(when, f"{unit} on {host}", text)


def run(reach: Mapping[str, Mapping[str, str]], command: str) -> Iterator[tuple[str, list[str]]]:
    """Run a command on hosts at once and yield the lines that each said; on standard error, which did not answer."""

    def said(name: str) -> tuple[str, list[str]]:
        argv = [*(ssh(name, reach[name]) or ["sh", "-c"]), command]
        try:
            done = subprocess.run(
                argv,
                stdin=subprocess.DEVNULL,
                capture_output=True,
                text=True,
                errors="replace",
                check=False,
                timeout=HOST_SECONDS,
            )
        except subprocess.TimeoutExpired:
            print(f"{name}: no answer within {HOST_SECONDS:g} s", file=sys.stderr)
            return name, []
        # What searches ends with 1 where it finds nothing.
        if done.returncode > 1 or (done.returncode == 1 and done.stderr.strip()):
            print(f"{name}: {done.stderr.strip() or done.returncode}", file=sys.stderr)
        return name, done.stdout.splitlines()

    with ThreadPoolExecutor(max(1, len(reach))) as threads:
        yield from threads.map(said, reach)


def steps(hosts: Hosts, request_id: str) -> list[Step]:
    """Return all that a site's hosts wrote of a request, in the order of time."""
    base_ports = {
        in_upstream(hosts.variable("iris_api_bind_address", name)): int(hosts.variable("iris_api_base_port", name))
        for name in hosts.reach("api")
    }
    gateways = hosts.reach("gateway")
    found = [
        at_gateway(name, line, base_ports)
        for name, lines in run(gateways, in_access_logs(request_id))
        for line in lines
    ]
    times = [step.time for step in found]
    since, until = "-1day", "now"
    if times:
        since, until = f"@{min(times) - AROUND_SECONDS:.0f}", f"@{max(times) + AROUND_SECONDS:.0f}"
    asked = gateways | hosts.reach("api")
    found += [in_unit(name, line) for name, lines in run(asked, in_journal(request_id, since, until)) for line in lines]
    return sorted(found, key=lambda step: step.time)


def shown(found: Sequence[Step]) -> str:
    """Return the steps as text."""
    width = max(len(step.where) for step in found)
    lines = []
    for step in found:
        when = datetime.fromtimestamp(step.time, UTC).isoformat(sep=" ", timespec="milliseconds").removesuffix("+00:00")
        lines.append(f"{when}  {step.where:{width}}  {step.text}")
        lines += [f"{'':{len(when) + width + 4}}{line}" for line in step.more]
    return "\n".join(lines)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run as a program."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("-i", "--inventory", required=True, help="a folder or file, as for ansible-playbook")
    parser.add_argument("request_id", metavar="ID")
    options = parser.parse_args(arguments)
    if not REQUEST_ID.fullmatch(options.request_id):
        print(
            f"{options.request_id!r} is no id of a request: letters, digits, and . _ -, at most 128.", file=sys.stderr
        )
        return 1
    found = steps(Hosts(options.inventory), options.request_id)
    if not found:
        print(
            f"No host has written of {options.request_id}. Logs are kept by size (docs/operations.md, Logs), and of "
            "requests that the gateway refused uncounted only some are written.",
            file=sys.stderr,
        )
        return 1
    print(shown(found))
    if not any(step.where.startswith("iris-api@") for step in found):
        print("The instances wrote nothing of it, as of any request that they answered as they should.")
    return 0


if __name__ == "__main__":
    sys.exit(main())
