"""Show on one screen how a site is: units, release, model, certificate, targets, alerts, requests, errors and p99.

    python -m tools.status -i inventory/prod            exit code 0 well, 1 warning, 2 critical, 3 not known
    python -m tools.status -i inventory/prod --json     the same for programs

All hosts are asked at once, over SSH as Ansible reaches them, and each answers for itself: what Prometheus would say is
asked on its own host. Where it does not answer, the requests are counted in the gateways' logs.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict
from pathlib import Path
from typing import Any

from rich.console import Console

from tools.remote import Hosts, InventoryError, ssh
from tools.rules.objectives import SERVED
from tools.status.judge import CODES, judge, named, traffic, worst
from tools.status.screen import show

PROBE = Path(__file__).with_name("probe.py")
# Of a site that is well all have answered within one; `make status` is to say within five what is known.
HOST_SECONDS = 4.0
CONNECT_SECONDS = 2
# Of those that are not installed nothing is said.
UNITS = {
    "gateway": ["nginx", "prometheus-nginx-exporter", "nginx-watch", "mtail"],
    "api": [],
    "monitoring": ["prometheus", "prometheus-alertmanager", "prometheus-blackbox-exporter", "grafana-server"],
}
EVERYWHERE = ["prometheus-node-exporter", "fortress-host-metrics", "fortress-firewall"]
# Requests for health, metrics and documents, and the probe's, are none of users.
_OF_USERS = 'path!~"/health.*|/v2/health.*|/ping|/probe|/metrics|/docs.*|/openapi.json"'
# What users were answered as the gateways' logs have it; where these are not counted, what the instances answered.
_COUNTERS = (("fortress_gateway_requests_total", SERVED), ("iris_api_requests_total", _OF_USERS))


def queries(seconds: int) -> dict[str, str]:
    """Return what Prometheus is asked of the last seconds."""
    requests = [f"sum(increase({name}{{{of}}}[{seconds}s]))" for name, of in _COUNTERS]
    errors = [f'sum(increase({name}{{{of}, status=~"5.."}}[{seconds}s]))' for name, of in _COUNTERS]
    buckets = f"sum by (le) (rate(iris_api_request_duration_seconds_bucket{{{_OF_USERS}}}[{seconds}s]))"
    return {
        "requests": " or ".join(requests),
        "errors": " or ".join([*errors, "vector(0)"]),
        "p99": f"histogram_quantile(0.99, {buckets})",
    }


# By root where that takes no password. The program comes on standard input, so nothing is written there.
REMOTE = 'test "$(id -u)" != 0 && sudo -n true </dev/null 2>/dev/null && exec sudo -n python3 -; exec python3 -'


def program(told: dict[str, Any]) -> str:
    """Return what a host runs: the probe, and what it is told."""
    return f"{PROBE.read_text(encoding='utf-8')}\nprint(json.dumps(survey(json.loads({json.dumps(told)!r}))))\n"


def ask(name: str, reach: dict[str, str], told: dict[str, Any], seconds: float = HOST_SECONDS) -> dict[str, Any]:
    """Return what a host said, or why it said nothing (`unreachable`), within so many seconds."""
    command = ssh(name, reach)
    # Before those of the inventory: ssh takes the first value that it sees.
    command[1:1] = ["-o", "BatchMode=yes", "-o", f"ConnectTimeout={CONNECT_SECONDS}"] if command else []
    try:
        done = subprocess.run(
            [*(command or ["sh", "-c"]), REMOTE],
            input=program(told),
            capture_output=True,
            text=True,
            errors="replace",
            check=False,
            timeout=seconds,
        )
    except subprocess.TimeoutExpired:
        return {"groups": told["groups"], "unreachable": f"no answer within {seconds:g} s"}
    except OSError as error:
        return {"groups": told["groups"], "unreachable": str(error)}
    try:
        # A login may greet first.
        said: dict[str, Any] = json.loads((done.stdout.splitlines() or [""])[-1])
    except ValueError:
        complaint = (done.stderr.strip() or done.stdout.strip() or f"exit code {done.returncode}").splitlines()[-1]
        return {"groups": told["groups"], "unreachable": complaint}
    return {"groups": told["groups"], **said}


def survey(inventory: str, seconds: int) -> dict[str, dict[str, Any]]:
    """Return what each host of an inventory said, by its name; of so many seconds back."""
    hosts = Hosts(inventory)
    members = {group: hosts.groups.get(group, []) for group in UNITS}
    reach = {name: each for name, each in hosts.reach().items() if any(name in group for group in members.values())}
    told = {}
    for name in reach:
        groups = [group for group, hosts_of in members.items() if name in hosts_of]
        told[name] = {
            "groups": groups,
            "units": [*EVERYWHERE, *(unit for group in groups for unit in UNITS[group])],
            "prometheus_port": int(hosts.variable("fortress_prometheus_port", name) or 9090),
            "queries": queries(seconds),
            "seconds": seconds,
        }
    with ThreadPoolExecutor(max(1, len(reach))) as threads:
        return dict(zip(reach, threads.map(ask, reach, reach.values(), told.values()), strict=True))


def main(arguments: Sequence[str] | None = None) -> int:
    """Run as a program."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("-i", "--inventory", required=True, help="a folder or file, as for ansible-playbook")
    parser.add_argument("--minutes", type=int, default=5, help="of requests, errors and p99; default: %(default)s")
    parser.add_argument("--json", action="store_true", help="for programs: all that the hosts said")
    options = parser.parse_args(arguments)
    if options.minutes < 1:
        parser.error("--minutes: at least 1")
    try:
        hosts = survey(options.inventory, 60 * options.minutes)
    except InventoryError as error:
        print(error, file=sys.stderr)
        return CODES["unknown"]
    if not hosts:
        print(f"{options.inventory} has no host in gateway, api or monitoring.", file=sys.stderr)
        return CODES["unknown"]
    findings = named(judge(hosts), options.inventory)
    level = worst(findings)
    if options.json:
        told = {"status": level, "findings": [asdict(finding) for finding in findings], "traffic": traffic(hosts)}
        print(json.dumps(told | {"hosts": hosts}, indent=2))
    else:
        show(Console(), options.inventory, hosts, findings)
    return CODES[level]


if __name__ == "__main__":
    sys.exit(main())
