"""Mutate a random sample of the lines, one at a time, until the time is up; print who survived, and the score.

python -m tools.mutants --minutes 20 --seed 1 --docs
python -m tools.mutants plugins/filter/htpasswd.py        # every mutant of these modules
"""

from __future__ import annotations

import argparse
import random
import sys
import tempfile
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from queue import SimpleQueue

from tools import pages
from tools.mutants.checkout import KILLED, SURVIVED, TIMEOUT, Checkout
from tools.mutants.mutate import Mutant, mutants

ROOT = Path(__file__).resolve().parents[2]
PAGE = ROOT / "docs" / "testing.md"
BEGIN = "<!-- written by make mutants -->\n"


@dataclass(frozen=True)
class Part:
    """Modules, as patterns below the repository, and the tests that are there for them."""

    name: str
    modules: tuple[str, ...]
    tests: tuple[str, ...]


def plugin(name: str, *modules: str) -> Part:
    """Return what is tested in one module of tests/plugins."""
    return Part(
        f"plugins: {name}", tuple(f"plugins/{module}.py" for module in modules), (f"tests/plugins/test_{name}.py",)
    )


def room(name: str) -> Part:
    """Return a room of the application."""
    return Part(f"iris_api.{name}", (f"app/iris_api/src/iris_api/{name}/*.py",), (f"app/iris_api/tests/{name}",))


def tool(name: str, tests: str) -> Part:
    """Return a program or a package of tools/."""
    return Part(f"tools/{name}", (f"tools/{name}", f"tools/{name}/*.py"), (f"tests/tools/{tests}.py",))


PARTS = (
    plugin("htpasswd", "filter/htpasswd"),
    plugin("wiring", "filter/wiring"),
    plugin("base", "filter/base"),
    plugin("certificates", "filter/certificates"),
    plugin("grafana", "filter/grafana"),
    plugin("nginx", "filter/nginx"),
    plugin("prometheus", "filter/prometheus"),
    plugin("credentials", "modules/credentials", "action/credentials", "lookup/credentials"),
    plugin("site", "filter/site"),
    plugin("config_tree", "modules/config_tree", "action/config_tree"),
    plugin("known_variables", "action/known_variables"),
    plugin("preflight", "action/preflight"),
    Part("iris_deploy", ("app/iris_deploy/src/iris_deploy/*.py",), ("app/iris_deploy/tests",)),
    room("bundle"),
    room("engines"),
    room("predict"),
    room("v2"),
    tool("build-release", "test_build_release"),
    tool("control-node", "test_control_node"),
    tool("localvm", "test_localvm"),
    tool("dashboards", "test_dashboards"),
    tool("mutants", "test_mutants"),
    tool("reference", "test_reference"),
)


@dataclass(frozen=True)
class Case:
    """One mutant of one module."""

    part: Part
    module: str
    mutant: Mutant

    def __str__(self) -> str:
        """Return it as a line that an editor can follow."""
        return f"{self.module}:{self.mutant.line}: {self.mutant.before}  ->  {self.mutant.after}"


def main() -> int:
    """Run mutants; return 1 if the tests fail without any mistake."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("modules", nargs="*", help="modules, or parts of the score, to mutate (default: all)")
    parser.add_argument("--minutes", type=float, default=20, help="when to stop (default: %(default)s)")
    parser.add_argument("--seed", type=int, default=1, help="of the sample (default: %(default)s)")
    parser.add_argument("--jobs", type=int, default=2, help="mutants at the same time (default: %(default)s)")
    parser.add_argument("--docs", action="store_true", help="write the score into docs/testing.md")
    options = parser.parse_args()
    cases = [case for part in PARTS for case in cases_of(part, options.modules)]
    random.Random(options.seed).shuffle(cases)
    started = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="mutants-") as folder:
        checkouts = [Checkout(ROOT, Path(folder, str(number))) for number in range(options.jobs)]
        try:
            limits = {part: limit(checkouts[0], part) for part in PARTS if any(case.part == part for case in cases)}
        except AssertionError as error:
            print(error, file=sys.stderr)
            return 1
        outcomes = run(cases, checkouts, limits, started + 60 * options.minutes)
    score = summary(cases, outcomes, options.seed, time.monotonic() - started)
    print("Survivors:", *sorted(str(case) for case in outcomes if outcomes[case] == SURVIVED), "", score, sep="\n")
    if options.docs:
        pages.put(PAGE, BEGIN, score)
    return 0


def cases_of(part: Part, wanted: list[str]) -> list[Case]:
    """Return every mutant of a part, or of those of its modules that are wanted."""
    found = sorted({path for pattern in part.modules for path in ROOT.glob(pattern) if path.is_file()})
    modules = [(str(path.relative_to(ROOT)), path) for path in found]
    return [
        Case(part, module, mutant)
        for module, path in modules
        if not wanted or module in wanted or part.name in wanted
        for mutant in mutants(path.read_text())
    ]


def limit(checkout: Checkout, part: Part) -> float:
    """Return after how many seconds the tests of a part are taken to hang; they must pass without a mistake."""
    started = time.monotonic()
    outcome = checkout.test(part.tests, 600)
    assert outcome == SURVIVED, f"{' '.join(part.tests)}: {outcome} without any mistake"
    return 10 + 4 * (time.monotonic() - started)


def run(cases: list[Case], checkouts: list[Checkout], limits: dict[Part, float], end: float) -> dict[Case, str]:
    """Run as many cases as there is time for; return what became of each."""
    free: SimpleQueue[Checkout] = SimpleQueue()
    for checkout in checkouts:
        free.put(checkout)
    outcomes: dict[Case, str] = {}

    def run_one(case: Case) -> None:
        if time.monotonic() > end:
            return
        checkout = free.get()
        path = checkout.folder / case.module
        original = path.read_bytes()
        try:
            path.write_text(case.mutant.text)
            outcomes[case] = checkout.test(case.part.tests, limits[case.part])
        finally:
            path.write_bytes(original)
            free.put(checkout)
        print(f"{outcomes[case]:8} {case}", flush=True)

    with ThreadPoolExecutor(len(checkouts)) as pool:
        list(pool.map(run_one, cases))
    return outcomes


def summary(cases: list[Case], outcomes: dict[Case, str], seed: int, seconds: float) -> str:
    """Return the score as Markdown."""
    lines = [
        f"{len(outcomes)} of {len(cases)} mutants, drawn by seed {seed}, in {seconds / 60:.0f} minutes.",
        "",
        "| part | mutants | killed | timeout | survived | score |",
        "|---|---|---|---|---|---|",
    ]
    for part in [*PARTS, None]:
        counted = Counter(outcome for case, outcome in outcomes.items() if part in (case.part, None))
        if total := counted.total():
            caught = counted[KILLED] + counted[TIMEOUT]
            row = [part.name if part else "all", total, counted[KILLED], counted[TIMEOUT], counted[SURVIVED]]
            lines.append(f"| {' | '.join(map(str, row))} | {caught / total:.0%} |")
    return "\n".join(lines)


if __name__ == "__main__":
    sys.exit(main())
