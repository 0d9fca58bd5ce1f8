"""Is it as fast as it was: an earlier revision and this tree in interleaved rounds, for /predict and for v2.

A processor that others share changes its clock from turn to turn, by a fifth and more. What the load generator takes of
a request is the same work on both sides, so it says how fast the processor was: the verdict is by the processor time
that all take of a request, in parts of the load generator's own.
"""

from __future__ import annotations

import argparse
import json
import random
import secrets
import signal
import subprocess
import sys
import tempfile
import tomllib
from collections.abc import Iterable
from pathlib import Path
from statistics import median
from typing import NamedTuple

from benchmarks import ROOT, environments, report
from benchmarks.inputs import Case, make_cases, named
from benchmarks.measure import StackError, Turn, turn
from benchmarks.stacks import NUMBERS, PREDICT, STACKS, Server, Setup, Stack, gunicorn

BEFORE, AFTER = "before", "after"
LIMIT = "limit"


def main() -> int:
    """Do as the command line says; 1 if something failed or is slower than it may be."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.compare", description=__doc__.splitlines()[0])
    parser.add_argument("revision", help="what to compare with, as git names it")
    parser.add_argument("--engine", choices=("onnx", "sklearn"), default="onnx")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--connections", type=int, default=16)
    parser.add_argument("--seconds", type=int, default=4, help="how long each load lasts")
    parser.add_argument("--points", type=float, default=3, help="of the limit, that may be lost")
    options = parser.parse_args()
    # kill(1) and a closed terminal end a run in the same order as Ctrl-C.
    for name in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(name, lambda *_: sys.exit(1))
    environments.debian()
    environments.python("app")
    with tempfile.TemporaryDirectory(prefix="bench-before-") as folder:
        extract(options.revision, Path(folder))
        stacks = [
            STACKS[LIMIT],
            *stacks_of(BEFORE, Path(folder), options.engine),
            *stacks_of(AFTER, ROOT, options.engine),
        ]
        turns: list[Turn] = []
        for number in range(1, options.rounds + 1):
            cases = make_cases(report.IRIS, seed=secrets.randbits(32))
            for stack in random.sample(stacks, len(stacks)):
                try:
                    result = turn(number, stack, report.IRIS, cases, [options.connections], options.seconds)
                except StackError as error:
                    print(f"FAILED: round {number}: {error}", file=sys.stderr)
                    return 1
                print(report.line(result), flush=True)
                if result.errors:
                    example = result.loads[options.connections].example
                    print(f"FAILED: round {number}, {stack.name}: {result.errors}: {example}", file=sys.stderr)
                    return 1
                turns.append(result)
    lost = False
    print(f"\nShare of the limit, and processor time in parts of the load's own; medians over {options.rounds} rounds:")
    for kind in ("predict", "v2"):
        before, after = (measured(turns, f"{when} {kind}", options.connections) for when in (BEFORE, AFTER))
        points = 100 * before.share * (before.cost / after.cost - 1)
        lost |= points < -options.points
        print(
            f"{kind:8} {options.revision} {before.share:6.1%} {before.cost:5.2f}, now {after.share:6.1%}"
            f" {after.cost:5.2f}: {points:+.1f} points at the same clock"
        )
    return int(lost)


def extract(revision: str, folder: Path) -> None:
    """Put the application and the models of a revision into a folder."""
    archive = ["git", "-C", str(ROOT), "archive", revision, "app", "models"]
    content = subprocess.run(archive, capture_output=True, check=True).stdout
    subprocess.run(["tar", "--extract", f"--directory={folder}"], input=content, check=True)


def find_source(tree: Path) -> Path:
    """Return the folder with the package of the distribution iris-api in a tree; revisions differ in where it is."""
    for file in sorted((tree / "app").rglob("pyproject.toml")):
        about = tomllib.loads(file.read_text(encoding="utf-8"))
        if about.get("project", {}).get("name") == "iris-api":
            module: str = about["tool"]["hatch"]["version"]["path"]
            return (file.parent / module).parents[1]
    raise FileNotFoundError(f"{tree / 'app'}: no pyproject.toml below it is of the distribution iris-api")


def stacks_of(when: str, tree: Path, engine: str) -> list[Stack]:
    """Return the stacks of a tree: each of its two APIs."""
    source = find_source(tree)

    def servers(setup: Setup) -> list[Server]:
        own = Setup(setup.python, tree / setup.bundle.relative_to(ROOT), setup.folder, setup.ports)
        return gunicorn(own, engine, source=source)

    v2 = rf'"data":%s*{NUMBERS}'
    return [
        Stack(f"{when} predict", f"{when}, /predict", "app", servers, body=named, pattern=PREDICT),
        Stack(f"{when} v2", f"{when}, v2", "app", servers, path="/v2/models/iris/infer", body=tensor, pattern=v2),
    ]


def tensor(case: Case) -> str:
    """Return a row for v2, which answers with all that /predict answers."""
    given = {"name": "input", "shape": [1, 2], "datatype": "FP64", "data": [case.petal_length, case.petal_width]}
    return json.dumps({"inputs": [given]})


class Measured(NamedTuple):
    """A stack's medians over the rounds."""

    share: float
    """Its rate divided by the limit's of the same round."""
    cost: float
    """Processor time that instances, nginx and load take of a request, divided by the load's own."""


def measured(turns: Iterable[Turn], stack: str, connections: int) -> Measured:
    """Return the medians over the rounds of one stack."""
    loads = {(turn.round, turn.stack): turn.loads[connections] for turn in turns}
    own = {number: load for (number, name), load in loads.items() if name == stack}
    return Measured(
        median(load.requests_per_second / loads[number, LIMIT].requests_per_second for number, load in own.items()),
        median((load.servers_us + load.nginx_us + load.wrk_us) / load.wrk_us for load in own.values()),
    )


if __name__ == "__main__":
    try:
        sys.exit(main())
    except KeyboardInterrupt:
        sys.exit("Stopped.")
