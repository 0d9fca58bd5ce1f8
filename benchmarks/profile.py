"""Measure where the processor time of an instance goes, a request, under the load of the benchmarks."""

from __future__ import annotations

import argparse
import json
import re
import secrets
import sys
import tempfile
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from benchmarks import PAGE, environments, report
from benchmarks.inputs import make_cases
from benchmarks.measure import Turn, turn
from benchmarks.stacks import STACKS, Server, Setup, Stack
from tools import pages

# A part of the work, and the functions that do it, as module:function. A sample belongs to the innermost of its
# functions that has a name here: what json or numpy take is the part's that called them.
PARTS = {
    "the event loop: read, write, wait": "the event loop",  # as servers/profiled.py calls it
    "HTTP: head in, head out, keep-alive": r"uvicorn\.protocols|iris_api\.server\.protocol|benchmarks|limit:",
    "id, headers, way to the endpoint": r"iris_api\.(http|server\.app)",
    "body to rows: JSON, validation": r"iris_api\.predict\.(rows|limits|codec:RowCodec\.read|reply:header)",
    "batching: queue, futures": r"iris_api\.predict\.batching",
    "the engine's call": r"iris_api\.engines\.(onnx|sklearn)",
    "numbers to predictions": r"iris_api\.engines\.model",
    "metrics": r"iris_api\.predict\.metrics",
    "predictions to JSON": r"iris_api\.predict\.(endpoint|codec|reply)",
}
OTHER = "anything else"
BEGIN = "<!-- written by python -m benchmarks.profile --docs -->\n"
STACKS_OF_OURS = ("limit-own", "onnx", "sklearn")


def main() -> int:
    """Run the command line."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.profile", description=__doc__)
    parser.add_argument("--engine", action="append", choices=STACKS_OF_OURS, help="default: each of them")
    parser.add_argument("--connections", type=int, default=16)
    parser.add_argument("--seconds", type=int, default=10)
    parser.add_argument("--stacks", type=int, default=0, metavar="N", help="show the N most frequent stacks, too")
    parser.add_argument("--docs", action="store_true", help="write the table in docs/")
    options = parser.parse_args()
    environments.debian()
    columns = {}
    for name in options.engine or STACKS_OF_OURS:
        result, samples = profile(STACKS[name], options.connections, options.seconds)
        print(report.line(result), flush=True)
        if result.errors:
            print(f"FAILED: {result.errors}", file=sys.stderr)
            return 1
        columns[report.title(name)] = by_part(samples, result.loads[options.connections].servers_us)
        for stack, count in samples.most_common(options.stacks):
            print(f"{count / samples.total():6.1%} {' < '.join(stack)}")
    print(f"\n{table(columns)}")
    if options.docs:
        pages.put(PAGE, BEGIN, table(columns))
    return 0


def profile(stack: Stack, connections: int, seconds: int) -> tuple[Turn, Counter[tuple[str, ...]]]:
    """Measure one turn of a stack and return it with the samples of its instances."""
    with tempfile.TemporaryDirectory(prefix="profile-") as folder:

        def servers(setup: Setup) -> list[Server]:
            return [_profiled(server, folder) for server in stack.servers(setup)]

        cases = make_cases("iris", secrets.randbits(32))
        result = turn(1, replace(stack, servers=servers), "iris", cases, [connections], seconds)
        samples: Counter[tuple[str, ...]] = Counter()
        for path in Path(folder).glob("*.json"):
            samples.update({tuple(frames): count for frames, count in json.loads(path.read_text())})
    return result, samples


def _profiled(server: Server, folder: str) -> Server:
    command = ["python:profiled" if word == "python:iris_api.server.gunicorn_conf" else word for word in server.command]
    return replace(server, command=command, settings={**server.settings, "PROFILE": folder})


def part_of(stack: Sequence[str]) -> str:
    """Return to which part of the work a sample belongs."""
    for function in stack:
        for part, pattern in PARTS.items():
            if re.match(pattern, function):
                return part
    return OTHER


def by_part(samples: Counter[tuple[str, ...]], servers_us: float) -> dict[str, float]:
    """Share out the processor time of a request among the parts."""
    counts: Counter[str] = Counter()
    for stack, count in samples.items():
        counts[part_of(stack)] += count
    return {part: count / samples.total() * servers_us for part, count in counts.items()}


def table(columns: dict[str, dict[str, float]]) -> str:
    """Return the parts of all stacks as a Markdown table."""
    rows = [
        [part, *(f"{column[part]:.1f}" if part in column else "" for column in columns.values())]
        for part in [*PARTS, OTHER]
        if any(part in column for column in columns.values())
    ]
    rows.append(["all of it", *(f"{sum(column.values()):.0f}" for column in columns.values())])
    return report.table(["µs of processor time a request", *columns], rows)


if __name__ == "__main__":
    sys.exit(main())
