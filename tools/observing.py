"""Measure what observing a site costs, while something else asks it: processor and memory of each part, samples, disk.

    python -m tools.observing -i inventory/prod                       for a minute
    python -m tools.observing -i inventory/prod --seconds 30 --pause  and then for as long without the parts

With --pause the parts are stopped meanwhile, and the requests that are answered with and without them are compared:
under a load that sends the next request when it has the answer, such as wrk's, that is the throughput. The load must
not run on a host of the site.
"""

from __future__ import annotations

import argparse
import json
import math
import re
import subprocess
import sys
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

from tools.remote import Hosts, ssh

WATCHERS = (
    "mtail",
    "prometheus",
    "prometheus-alertmanager",
    "prometheus-blackbox-exporter",
    "prometheus-nginx-exporter",
    "prometheus-node-exporter",
    "fortress-host-metrics",
    "grafana-server",
)
# What a sample takes on the disk, where Prometheus has compacted nothing yet: in its first two hours.
BYTES_A_SAMPLE = 1.5
# Samples of the last 45 s: Prometheus scrapes itself each 15 s, and before that the parts may have been stopped.
LOOK = """
look() {{
    date +%s%N
    systemctl show --property=Id,ActiveState,CPUUsageNSec {units}
    curl --silent --max-time 2 http://127.0.0.1/nginx_status \\
        | sed -n 's/^ *[0-9]* [0-9]* \\([0-9]*\\) *$/requests=\\1/p'
    echo ---
}}
memory() {{
    for unit in {units}; do
        group=$(systemctl show --property=ControlGroup --value $unit)
        [ -n "$group" ] || continue
        printf '\\nId=%s.service\\nPss=' $unit
        processes=$(sed 's,.*,/proc/&/smaps_rollup,' "/sys/fs/cgroup$group/cgroup.procs")
        awk '/^Pss:/ {{ sum += $2 }} END {{ print sum }}' $processes
    done
    echo ---
}}
look; sleep {seconds}; look; memory
for query in 'rate(prometheus_tsdb_head_samples_appended_total[45s])' \\
    'prometheus_tsdb_compaction_chunk_size_bytes_sum / prometheus_tsdb_compaction_chunk_samples_sum'; do
    curl --silent --max-time 5 --get --data-urlencode "query=sum($query)" http://127.0.0.1:{port}/api/v1/query; echo
done
"""
AS_ROOT = 'if [ "$(id -u)" = 0 ]; then exec sh -s; else exec sudo -n sh -s; fi'
PAUSED = """
trap 'systemctl start {running}' EXIT
systemctl stop {running}
{look}
"""


@dataclass(frozen=True)
class Cost:
    """What the parts on one host have cost."""

    parts: Mapping[str, tuple[float, float]]
    """Of each part the share of one core, and its memory in bytes: of pages that processes share, its part (PSS)."""
    requests: float
    """Requests that nginx answered a second, those of the nginx exporter among them."""
    samples: float
    """Samples that Prometheus took a second; 0 on a host without it."""
    bytes_a_day: float
    """What they take on the disk."""
    interval: tuple[float, float] = (0.0, 0.0)
    """When the measurement began and ended, in seconds since 1970 by the host's clock."""


def parse(said: str) -> Cost:
    """Return the cost that follows from what a host has said: two looks, the memory, two answers of Prometheus.

    Memory comes last: to find it out takes a second of the processor, which would be missing in what is measured.
    """
    before, after, memory, answers = said.split("---\n", 3)
    kept = blocks(memory)
    (began, units, asked), (ended, later, asked_later) = look(before), look(after)
    seconds = (ended - began) / 1e9
    parts = {}
    for name, unit in later.items():
        if unit.get("ActiveState") != "active":
            continue
        spent = number(unit.get("CPUUsageNSec")) - number(units.get(name, {}).get("CPUUsageNSec"))
        share = spent / 1e9 / seconds
        parts[name] = max(0.0, share), number(kept.get(name, {}).get("Pss")) * 1024
    samples, size = [value(line) for line in [*answers.splitlines(), "", ""][:2]]
    rate, day = (asked_later - asked) / seconds, samples * (size or BYTES_A_SAMPLE) * 86400
    return Cost(parts, rate, samples, day, (began / 1e9, ended / 1e9))


def look(said: str) -> tuple[int, dict[str, dict[str, str]], int]:
    """Return the time in nanoseconds, each unit's properties, and how many requests nginx had answered."""
    moment, _, rest = said.strip().partition("\n")
    asked = re.search(r"^requests=(\d+)$", rest, re.MULTILINE)
    return int(moment), blocks(rest), int(asked[1]) if asked else 0


def blocks(said: str) -> dict[str, dict[str, str]]:
    """Return what is said of each unit: KEY=VALUE lines, and an empty line after each unit."""
    units = {}
    for block in said.split("\n\n"):
        found = {key: value for key, _, value in (line.partition("=") for line in block.splitlines())}
        if "Id" in found:
            units[found["Id"].removesuffix(".service")] = found
    return units


def number(text: str | None) -> float:
    """Return a number that systemd has said; 0 where it does not know."""
    return float(text) if text and text.isdigit() and int(text) < 2**63 else 0.0


def value(answer: str) -> float:
    """Return the one number that Prometheus has answered; 0 where there is none, as a mean of nothing (NaN)."""
    try:
        found = float(json.loads(answer)["data"]["result"][0]["value"][1])
    except (ValueError, KeyError, IndexError, TypeError):
        return 0.0
    return 0.0 if math.isnan(found) else found


def screen(host: str, cost: Cost, without: Cost | None = None) -> list[str]:
    """Return the lines that say what the parts on a host have cost."""
    found = [f"{host}: {cost.requests:.0f} requests a second"]
    for name, (share, memory) in sorted(cost.parts.items(), key=lambda part: -part[1][0]):
        found.append(f"  {name:<30} {share:7.2%} of a core" + (f" {memory / 2**20:8.1f} MiB" if memory else ""))
    total = sum(share for share, _ in cost.parts.values())
    memory = sum(memory for _, memory in cost.parts.values())
    found.append(f"  {'all':<30} {total:7.2%} of a core {memory / 2**20:8.1f} MiB")
    if cost.samples:
        found.append(f"  {cost.samples:.0f} samples a second, {cost.bytes_a_day / 2**20:.0f} MiB of disk a day")
    if without and without.requests:
        found.append(
            f"  {cost.requests / without.requests:.1%} of the {without.requests:.0f} requests a second without them"
        )
    return found


def measure(inventory: str, seconds: int, *, pause: bool = False) -> tuple[dict[str, Cost], dict[str, Cost]]:
    """Return what each host's parts have cost for some seconds, and with a pause what was asked as long without them.

    A host that cannot be asked ends the program.
    """
    hosts = Hosts(inventory)
    reached = hosts.reach()
    watchers = " ".join(WATCHERS)
    scripts = {
        name: LOOK.format(units=watchers, seconds=seconds, port=hosts.variable("fortress_prometheus_port", name))
        for name in reached
    }

    def ask(name: str, reach: Mapping[str, str], commands: str) -> Cost:
        command = [*ssh(name, reach), AS_ROOT] if ssh(name, reach) else ["sh", "-c", AS_ROOT]
        done = subprocess.run(command, input=commands, capture_output=True, text=True, check=False)
        if done.returncode != 0:
            sys.exit(f"{name} could not be asked: {done.stderr.strip()}")
        return parse(done.stdout)

    without: dict[str, Cost] = {}
    with ThreadPoolExecutor() as pool:
        costs = dict(zip(reached, pool.map(lambda name: ask(name, reached[name], scripts[name]), reached), strict=True))
        if pause:
            paused = {
                name: PAUSED.format(look=scripts[name], running=" ".join(cost.parts)) for name, cost in costs.items()
            }
            found = pool.map(lambda name: ask(name, reached[name], paused[name]), reached)
            without = dict(zip(reached, found, strict=True))
    return costs, without


def main(arguments: Sequence[str] | None = None) -> int:
    """Run as a program."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("-i", "--inventory", required=True)
    parser.add_argument("--seconds", type=int, default=60)
    parser.add_argument("--pause", action="store_true", help="measure for as long without the parts, too")
    options = parser.parse_args(arguments)
    costs, without = measure(options.inventory, options.seconds, pause=options.pause)
    for name, cost in costs.items():
        print("\n".join(screen(name, cost, without.get(name))))
    return 0


if __name__ == "__main__":
    sys.exit(main())
