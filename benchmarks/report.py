"""Medians and ratios over the rounds, and how they are shown."""

from __future__ import annotations

import os
import platform
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import median

from benchmarks import environments
from benchmarks.chart import Bar, draw
from benchmarks.measure import DISTURBED, Loaded, Turn
from benchmarks.stacks import STACKS
from tools import pages

IRIS, FOREST = "iris", "iris-forest"
MODELS = {IRIS: "logistic regression", FOREST: "random forest of 100"}
PEERS = [name for name, stack in STACKS.items() if stack.peer]
ENGINES = ("sklearn", "onnx")

# Where docs/benchmarks.md has the tables.
BEGIN = "<!-- written by make bench -->\n"

Metric = Callable[[Loaded], float]


def rate(loaded: Loaded) -> float:
    """Return the requests a second."""
    return loaded.requests_per_second


def p99(loaded: Loaded) -> float:
    """Return the latency in milliseconds that one request of a hundred exceeds."""
    return loaded.p99_ms


class Results:
    """What all turns say together."""

    def __init__(self, turns: Iterable[Turn]) -> None:
        right = [turn for turn in turns if not turn.errors]
        every = [loaded for turn in right for loaded in turn.loads.values()]
        self.calm = [turn for turn in right if not turn.disturbed]
        self.turns = [
            replace(turn, loads={n: load for n, load in turn.loads.items() if not load.disturbed}) for turn in right
        ]
        self.loaded = [loaded for loaded in every if not loaded.disturbed]
        self.disturbed = len(every) - len(self.loaded)

    def of(self, stack: str, model: str = IRIS) -> list[Turn]:
        """Return the turns of a stack with a model."""
        return [turn for turn in self.turns if (turn.stack, turn.model) == (stack, model)]

    def loads(self, stack: str, model: str, connections: int) -> list[Loaded]:
        """Return what was measured under a number of connections, a round each."""
        return [turn.loads[connections] for turn in self.of(stack, model) if connections in turn.loads]

    def ratio(self, metric: Metric, stack: str, base: str | None, model: str, connections: int) -> float | None:
        """Return the median of the ratios within each round: what slows a whole round down cancels out."""
        bases = {turn.round: turn for turn in self.of(base or "", model) if connections in turn.loads}
        return _median(
            metric(turn.loads[connections]) / metric(bases[turn.round].loads[connections])
            for turn in self.of(stack, model)
            if connections in turn.loads and turn.round in bases
        )

    def best_peer(self, connections: int = 16) -> str | None:
        """Return the peer with the highest median rate."""
        rates = {name: _median(map(rate, self.loads(name, IRIS, connections))) or 0 for name in PEERS}
        return max((name for name in rates if rates[name]), key=lambda name: rates[name], default=None)

    def start_seconds(self, stack: str) -> float | None:
        """Return the median time from start to the first right answer."""
        return _median(turn.start_seconds for turn in self.calm if (turn.stack, turn.model) == (stack, IRIS))

    def pss_mb(self, stack: str) -> float | None:
        """Return the median memory of an instance."""
        return _median(turn.pss_mb for turn in self.calm if (turn.stack, turn.model) == (stack, IRIS))


def _median(values: Iterable[float]) -> float | None:
    known = list(values)
    return median(known) if known else None


@dataclass(frozen=True)
class Target:
    """A figure to reach."""

    what: str
    at_least: bool
    unit: str
    goals: dict[str, float]
    """The goal of each engine."""
    measure: Callable[[Results, str], float | None]

    def reached(self, engine: str, value: float) -> bool:
        """Return whether an engine's value is good enough."""
        return value >= self.goals[engine] if self.at_least else value <= self.goals[engine]

    def cell(self, engine: str, results: Results) -> str:
        """Return what came out, against what was wanted."""
        value = self.measure(results, engine)
        goal = f"{'≥' if self.at_least else '≤'} {self.goals[engine]:g}{self.unit}"
        if value is None:
            return f"not measured ({goal})"
        verdict = "reached" if self.reached(engine, value) else "**not reached**"
        return f"{value:.3g}{self.unit} ({goal}): {verdict}"


TARGETS = (
    Target(
        "against the naive stack",
        True,
        "x",
        {"sklearn": 11, "onnx": 20},
        lambda results, engine: results.ratio(rate, engine, "naive", IRIS, 16),
    ),
    Target(
        "against the best peer",
        True,
        "x",
        {"sklearn": 4, "onnx": 8},
        lambda results, engine: results.ratio(rate, engine, results.best_peer(), IRIS, 16),
    ),
    Target(
        "of the limit",
        True,
        " %",
        {"sklearn": 42, "onnx": 80},
        lambda results, engine: _percent(results.ratio(rate, engine, "limit", IRIS, 16)),
    ),
    Target(
        "p99 against the limit's",
        False,
        "x",
        {"sklearn": 3, "onnx": 2},
        lambda results, engine: results.ratio(p99, engine, "limit", IRIS, 16),
    ),
    Target(
        "random forest against the naive stack, 64 connections",
        True,
        "x",
        {"sklearn": 8, "onnx": 25},
        lambda results, engine: results.ratio(rate, engine, "naive", FOREST, 64),
    ),
    Target(
        "memory of an instance (PSS)",
        False,
        " MB",
        {"sklearn": 130, "onnx": 100},
        lambda results, engine: results.pss_mb(engine),
    ),
    Target(
        "start to first answer",
        False,
        " s",
        {"sklearn": 2, "onnx": 1},
        lambda results, engine: results.start_seconds(engine),
    ),
)


def _percent(share: float | None) -> float | None:
    return None if share is None else share * 100


def line(turn: Turn) -> str:
    """Return a turn on one line."""
    loads = "  ".join(
        f"{count}: {loaded.requests_per_second:6.0f}/s p50 {loaded.p50_ms:.2f} p99 {loaded.p99_ms:.2f} ms,"
        f" us {loaded.servers_us:.0f}+{loaded.nginx_us:.0f}+{loaded.wrk_us:.0f}, others {loaded.others:.0%}"
        for count, loaded in turn.loads.items()
    )
    problem = f"  ERRORS {turn.errors}" if turn.errors else "  left out: disturbed" if turn.disturbed else ""
    return (
        f"{turn.round:3} {turn.model:12}{turn.stack:9} start {turn.start_seconds:5.2f} s"
        f"  PSS {turn.pss_mb:4.0f} MB  {loads}{problem}"
    )


def targets(results: Results) -> str:
    """Return the figures to reach and what came out, as a Markdown table."""
    rows = [[target.what, *(target.cell(engine, results) for engine in ENGINES)] for target in TARGETS]
    return table(["16 connections, logistic regression", "scikit-learn engine", "ONNX engine"], rows)


def bounds(results: Results) -> str:
    """Return what even a bare answer reaches of the figures that compare rates."""
    peer = results.best_peer()
    found = [
        f"{ratio:.3g} times as fast as {title(base)}"
        for base in ("naive", peer)
        if base and (ratio := results.ratio(rate, "limit", base, IRIS, 16))
    ]
    return f"The limit itself, which answers without a model, is {' and '.join(found)} at 16 connections." * bool(found)


def title(name: str) -> str:
    """Return how a stack is called, a peer with its version."""
    stack = STACKS[name]
    return f"{stack.title} {environments.version(stack.environment)}" if stack.peer else stack.title


def rates(results: Results, model: str, connections: int) -> str:
    """Return what every stack did under a load, best first, as a Markdown table."""
    rows = []
    for name in STACKS:
        loads = results.loads(name, model, connections)
        if not loads:
            continue
        share = results.ratio(rate, name, "limit", model, connections)
        numbers = [
            str(len(loads)),
            f"{median(rate(loaded) for loaded in loads):.0f}",
            "" if share is None else f"{share * 100:.3g} %",
            f"{median(loaded.p50_ms for loaded in loads):.1f}",
            f"{median(loaded.p99_ms for loaded in loads):.1f}",
            f"{median(loaded.servers_us for loaded in loads):.0f}",
            f"{median(loaded.nginx_us for loaded in loads):.0f}",
            f"{median(loaded.wrk_us for loaded in loads):.0f}",
            f"{median(loaded.servers_us + loaded.nginx_us + loaded.wrk_us for loaded in loads):.0f}",
        ]
        rows.append([title(name), *numbers])
    rows.sort(key=lambda row: -float(row[2]))
    heads = ["", "times", "req/s", "of the limit", "p50 ms", "p99 ms", "servers µs", "nginx µs", "wrk µs", "all µs"]
    return table(heads, rows)


def footprint(results: Results) -> str:
    """Return memory and start time of every stack, as a Markdown table."""
    rows = []
    for name in STACKS:
        pss_mb, start_seconds = results.pss_mb(name), results.start_seconds(name)
        if pss_mb and start_seconds:
            rows.append([title(name), f"{pss_mb:.0f}", f"{start_seconds:.2f}"])
    return table(["", "PSS of an instance, MB", "start to first answer, s"], rows)


def conditions(results: Results) -> str:
    """Return on what and how often it was measured."""
    others = median(loaded.others for loaded in results.loaded)
    rounds = len({turn.round for turn in results.turns if turn.loads})
    every = len(results.loaded) + results.disturbed
    return (
        f"Medians over {rounds} rounds, of as many measurements as the column `times` says, on {os.cpu_count()} cores"
        f" ({processor()}). Other processes of that machine took {others:.0%} of it in the median measurement;"
        f" {results.disturbed} of {every} measurements, in which they took more than {DISTURBED:.0%}, are left out."
        " Trust the ratios."
    )


def processor() -> str:
    """Return the processor's name."""
    for text in Path("/proc/cpuinfo").read_text().splitlines():
        if text.startswith("model name"):
            return text.partition(":")[2].strip()
    return platform.machine()


def summary(turns: list[Turn], missing: Mapping[str, str]) -> str:
    """Return all tables, and which stacks could not be installed."""
    results = Results(turns)
    if not results.loaded:
        return f"Nothing to show: others took more than {DISTURBED:.0%} of the machine in each measurement."
    measured = sorted({(turn.model, connections) for turn in results.turns for connections in turn.loads})
    parts = [f"{MODELS[model]}, {n} connections:\n\n{rates(results, model, n)}" for model, n in measured]
    gone = [f"{STACKS[name].title} could not be installed: {reason}" for name, reason in missing.items()]
    shown = [conditions(results), targets(results), bounds(results), *parts, footprint(results), *gone]
    return "\n\n".join(filter(None, shown))


def chart(results: Results, connections: int) -> str:
    """Return the picture of the rates with the default model."""
    bars = []
    for name, stack in STACKS.items():
        loads = results.loads(name, IRIS, connections)
        if loads:
            values = [rate(loaded) for loaded in loads]
            kind = "peer" if stack.peer else "ours" if name in ENGINES else name.partition("-")[0]
            note = f"p99 {median(loaded.p99_ms for loaded in loads):.0f} ms"
            bars.append(Bar(title(name), kind, median(values), min(values), max(values), note))
    return draw(f"Requests a second behind the gateway, {MODELS[IRIS]}, {connections} connections", bars)


def write(turns: list[Turn], missing: Mapping[str, str], page: Path) -> None:
    """Put the tables between the page's marks, and the chart beside the page."""
    pages.put(page, BEGIN, summary(turns, missing))
    page.with_suffix(".svg").write_text(chart(Results(turns), 16), encoding="utf-8")


def table(heads: list[str], rows: list[list[str]]) -> str:
    """Return a Markdown table whose columns but the first are numbers."""
    widths = [max(len(row[column]) for row in [heads, *rows]) for column in range(len(heads))]
    aligned = [[cell.ljust(width) for cell, width in zip(row, widths, strict=True)] for row in [heads, *rows]]
    ruler = ["-" * widths[0], *("-" * (width - 1) + ":" for width in widths[1:])]
    return "\n".join("| " + " | ".join(row) + " |" for row in [aligned[0], ruler, *aligned[1:]])
