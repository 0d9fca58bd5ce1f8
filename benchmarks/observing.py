"""What the monitoring of a running site costs, under a steady load and under all that 16 connections carry.

    make converge && .venv/bin/ansible-playbook -i inventory/local site.yml -e nginx_rate_limit_enabled=false
    python -m benchmarks.observing -i inventory/local --docs

The load comes from this machine, by one address, so the gateway must not limit it.

At full load two figures are compared, with the parts and without: requests a second, and the processor time that the
load generator takes in a second. It does the same work for each request, so its time says how many it sent, in a unit
that a processor whose clock changes takes along.
"""

from __future__ import annotations

import argparse
import base64
import os
import secrets
import shlex
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from statistics import median
from typing import NamedTuple, TypeVar

import numpy as np

from benchmarks import ROOT, load
from benchmarks.inputs import make_cases, named
from benchmarks.stacks import PREDICT
from tools import observing, pages
from tools.remote import Hosts

Measured = TypeVar("Measured")
Costs = Mapping[str, observing.Cost]

PAGE = ROOT / "docs" / "performance.md"
BEGIN = "<!-- written by python -m benchmarks.observing --docs -->\n"
CONNECTIONS = 16
# 16 connections that each wait 30 ms send some 500 requests a second.
PAUSE_MS = 30
WARM_UP_SECONDS = 2
# What a measurement takes beyond its own time: to read the inventory, to connect, to stop the parts and start them.
AROUND_SECONDS = 20
# Until what was started again has read what it had written.
SETTLE_SECONDS = 6
# At full load: of each measurement, and at most of a round, which has two and a pause.
FULL_SECONDS = 8
ROUND_SECONDS = 32


def main() -> int:
    """Do as the command line says; 1 if an answer was wrong."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.observing", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("-i", "--inventory", required=True)
    parser.add_argument("--seconds", type=int, default=30, help="of the steady load; default: 30")
    parser.add_argument("--rounds", type=int, default=12, help="of full load with the parts and without; default: 12")
    parser.add_argument("--docs", action="store_true", help="write what came out to docs/")
    options = parser.parse_args()
    inventory, seconds = options.inventory, options.seconds
    target = site(inventory)
    with tempfile.TemporaryDirectory(prefix="bench-") as temporary:
        cases = Path(temporary) / "cases"
        rows = make_cases("iris", secrets.randbits(32))
        load.write_cases([(named(case), case) for case in rows], cases, CONNECTIONS)
        seen = load.run(target, cases, CONNECTIONS, 1)
        if "503" in seen.example:
            sys.exit(
                f"The gateway limits this machine; converge with -e nginx_rate_limit_enabled=false: {seen.example}"
            )
        try:
            steady = under_load(
                lambda: observing.measure(inventory, seconds)[0],
                lambda: load.run(target, cases, CONNECTIONS, seconds + AROUND_SECONDS, PAUSE_MS),
            )
            spent = Spent()
            full = under_load(
                lambda: alternating(inventory, options.rounds, spent),
                lambda: load.run(
                    target,
                    cases,
                    CONNECTIONS,
                    options.rounds * ROUND_SECONDS + AROUND_SECONDS,
                    started=spent.watch,
                ),
            )
        except WrongError as error:
            print(f"FAILED: {error}", file=sys.stderr)
            return 1
    text = report(steady, full)
    print(f"\n{text}")
    if options.docs:
        pages.put(PAGE, BEGIN, text)
    return 0


class WrongError(Exception):
    """An answer was wrong or missing, so that what was measured counts for nothing."""


def site(inventory: str) -> load.Target:
    """Return the gateway of an inventory as `make env` has it."""
    file = Path(Hosts(inventory).variable("fortress_secrets_dir")) / "fortress.env"
    words = (shlex.split(line) for line in file.read_text(encoding="utf-8").splitlines())
    known = dict(line[1].split("=", 1) for line in words if line[:1] == ["export"])
    login = base64.b64encode(f"{known['FORTRESS_USER']}:{known['FORTRESS_PASSWORD']}".encode()).decode()
    return load.Target(f"{known['FORTRESS_URL']}/predict", f"Basic {login}", PREDICT)


def under_load(measured: Callable[[], Measured], asking: Callable[[], load.Load]) -> Measured:
    """Return what is measured while something asks the site."""
    with ThreadPoolExecutor(1) as pool:
        asked = pool.submit(asking)
        time.sleep(WARM_UP_SECONDS)
        found = measured()
        if asked.done():
            raise WrongError("the load ended before the measurement did")
        if (seen := asked.result()).errors:
            raise WrongError(f"{seen.errors} {seen.example[:500]}")
    return found


class Spent:
    """What a process takes of the processor, looked at again and again, so that any interval can be asked for."""

    def __init__(self) -> None:
        self._seen: list[tuple[float, float]] = []

    def watch(self, pid: int) -> None:
        """Look at a process from now on, until it has ended."""
        threading.Thread(target=self._look, args=(pid,), daemon=True).start()

    def _look(self, pid: int) -> None:
        ticks = os.sysconf("SC_CLK_TCK")
        while True:
            try:
                fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
            except OSError:
                return
            self._seen.append((time.time(), (int(fields[11]) + int(fields[12])) / ticks))
            time.sleep(0.1)

    def share(self, began: float, ended: float) -> float:
        """Return what share of a core it took between two times, in seconds since 1970."""
        times, spent = zip(*self._seen, strict=True)
        before, after = np.interp([began, ended], times, spent)
        return float((after - before) / (ended - began))


class Round(NamedTuple):
    """One of the rounds at full load; with the parts it was measured before and after the time without them."""

    having: float
    """Requests a second that were answered with the parts."""
    without: float
    having_share: float
    """The share of a core that the load generator took meanwhile."""
    without_share: float


def alternating(inventory: str, rounds: int, spent: Spent) -> list[Round]:
    """Return what each round had, with the parts and without.

    What else a machine does changes more within a minute than the parts take: the rounds are short, and many.
    """
    having, without = [], []

    def seen(costs: Costs) -> tuple[float, float]:
        return rate(costs), spent.share(*next(iter(costs.values())).interval)

    for number in range(1, rounds + 1):
        before, paused = observing.measure(inventory, FULL_SECONDS, pause=True)
        having.append(seen(before))
        without.append(seen(paused))
        print(f"{number:3} {having[-1][0]:6.0f}/s with the parts, {without[-1][0]:6.0f}/s without", flush=True)
        time.sleep(SETTLE_SECONDS)
    having.append(seen(observing.measure(inventory, FULL_SECONDS)[0]))
    return [
        Round((before[0] + after[0]) / 2, rest[0], (before[1] + after[1]) / 2, rest[1])
        for before, after, rest in zip(having, having[1:], without, strict=False)
    ]


def rate(costs: Costs) -> float:
    """Return how many requests a second all hosts have answered."""
    return sum(cost.requests for cost in costs.values())


def report(steady: Costs, full: list[Round]) -> str:
    """Return what came out, in Markdown: each part under the steady load, and the throughput with and without them."""
    requests = rate(steady)
    parts = [(name, *part) for cost in steady.values() for name, part in cost.parts.items()]
    parts.append(("all", sum(share for _, share, _ in parts), sum(memory for *_, memory in parts)))
    lines = [
        f"At {requests:.0f} requests a second:",
        "",
        "| part | % of a core | memory (PSS, MiB) |",
        "|---|---:|---:|",
        *(
            f"| {name} | {100 * share:.1f} | {f'{memory / 2**20:.0f}' if memory else ''} |"
            for name, share, memory in sorted(parts, key=lambda part: (part[0] == "all", -part[1]))
        ),
        "",
    ]
    if samples := sum(cost.samples for cost in steady.values()):
        day = sum(cost.bytes_a_day for cost in steady.values()) / 2**20
        lines += [
            f"Prometheus took {samples:.0f} samples a second meanwhile, which are {day:.0f} MiB of disk a day.",
            "",
        ]
    if full:
        by_requests = sorted(each.having / each.without for each in full)
        by_load = sorted(each.having_share / each.without_share for each in full)
        lines.append(
            f"At full load over {CONNECTIONS} connections the site answered {median(each.having for each in full):.0f} "
            f"requests a second: {median(by_requests):.1%} of what it answers without the parts, by the median of "
            f"{len(full)} rounds of {FULL_SECONDS} s, which had {by_requests[0]:.0%} to {by_requests[-1]:.0%}. By the "
            f"processor time of the load generator, which takes the processor's clock along, it is "
            f"{median(by_load):.1%}, and the rounds had {by_load[0]:.0%} to {by_load[-1]:.0%}."
        )
    return "\n".join(lines)


if __name__ == "__main__":
    sys.exit(main())
