"""Measure the stacks in interleaved rounds; say what came out, and write it to docs/ if asked."""

from __future__ import annotations

import argparse
import dataclasses
import json
import random
import secrets
import signal
import sys
from pathlib import Path
from typing import Any

from benchmarks import CACHE, PAGE, environments, report
from benchmarks.inputs import make_cases
from benchmarks.measure import Loaded, StackError, Turn, turn
from benchmarks.stacks import STACKS

# What a slow estimator costs shows in these; the others would only take time.
FOREST_STACKS = ("naive", "sklearn", "onnx", "limit", "mlserver")


def main() -> int:
    """Run the command line."""
    options = _options()
    # kill(1) and a closed terminal end a run in the same order as Ctrl-C.
    for name in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(name, lambda *_: sys.exit(1))
    missing = _install(options.stacks)
    turns, failures = _measure(options, [name for name in options.stacks if name not in missing])
    print(f"\n{report.summary(turns, missing)}")
    for failure in failures:
        print(f"FAILED: {failure}", file=sys.stderr)
    if failures:
        return 1
    if options.docs:
        report.write(turns, missing, PAGE)
    return 0


def _options() -> argparse.Namespace:
    def names(text: str) -> list[str]:
        return text.split(",")

    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("--stacks", type=names, default=list(STACKS), help=f"of {','.join(STACKS)}; default: all")
    parser.add_argument(
        "--models", type=names, default=list(report.MODELS), help=f"of {','.join(report.MODELS)}; default: all"
    )
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--connections", type=lambda text: [int(n) for n in text.split(",")], default=[16, 64])
    parser.add_argument("--seconds", type=int, default=4, help="how long each load lasts")
    parser.add_argument("--append", action="store_true", help="add rounds to those in the results file")
    parser.add_argument("--results", type=Path, default=CACHE / "results.json")
    parser.add_argument("--docs", action="store_true", help="write the table and the chart in docs/")
    options = parser.parse_args()
    for given, known in ((options.stacks, STACKS), (options.models, report.MODELS)):
        if unknown := set(given) - set(known):
            parser.error(f"no such thing: {', '.join(sorted(unknown))}; there are {', '.join(known)}")
    return options


def _install(stacks: list[str]) -> dict[str, str]:
    """Make all environments, before anything is timed; return those that can't be had, and why."""
    environments.debian()
    missing = {}
    for name in stacks:
        try:
            environments.python(STACKS[name].environment)
        except environments.UnavailableError as error:
            print(f"{name} could not be installed: {error}", file=sys.stderr)
            missing[name] = str(error).splitlines()[-1]
    return missing


def _measure(options: argparse.Namespace, installed: list[str]) -> tuple[list[Turn], list[str]]:
    """Run the rounds; return all turns and what failed."""
    turns = _read(options.results) if options.append else []
    failures: list[str] = []
    first = max((turn.round for turn in turns), default=0) + 1
    for number in range(first, first + options.rounds):
        for model in options.models:
            cases = make_cases(model, seed=secrets.randbits(32))
            stacks = [name for name in installed if model == report.IRIS or name in FOREST_STACKS]
            for name in random.sample(stacks, len(stacks)):
                try:
                    result = turn(number, STACKS[name], model, cases, options.connections, options.seconds)
                except StackError as error:
                    failures.append(f"round {number}, {model}: {error}")
                    continue
                print(report.line(result), flush=True)
                if result.errors:
                    example = next(loaded.example for loaded in result.loads.values() if loaded.errors)
                    failures.append(f"round {number}, {name}, {model}: {result.errors}: {example}")
                    continue
                turns.append(result)
                _write(options.results, turns)
    return turns, failures


def _read(path: Path) -> list[Turn]:
    def turn_of(entry: dict[str, Any]) -> Turn:
        loads = {int(count): Loaded(**loaded) for count, loaded in entry.pop("loads").items()}
        return Turn(loads=loads, **entry)

    return [turn_of(entry) for entry in json.loads(path.read_text())] if path.exists() else []


def _write(path: Path, turns: list[Turn]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps([dataclasses.asdict(turn) for turn in turns], indent=1) + "\n")


if __name__ == "__main__":
    try:
        sys.exit(main())
    except KeyboardInterrupt:
        sys.exit("Stopped.")
