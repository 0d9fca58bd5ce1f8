"""Medians and ratios over the rounds, and how they are shown."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from statistics import median

from benchmarks.measure import Loaded, Turn
from benchmarks.stacks import STACKS

IRIS, FOREST = "iris", "iris-forest"
PEERS = [name for name, stack in STACKS.items() if stack.peer]
ENGINES = ("sklearn", "onnx")

Metric = Callable[[Loaded], float]


def rate(loaded: Loaded) -> float:
    """Return the requests a second."""
    return loaded.requests_per_second


def p50(loaded: Loaded) -> float:
    """Return the median latency in milliseconds."""
    return loaded.p50_ms


def p99(loaded: Loaded) -> float:
    """Return the latency in milliseconds that one request of a hundred exceeds."""
    return loaded.p99_ms


class Results:
    """What all turns say together."""

    def __init__(self, turns: Iterable[Turn]) -> None:
        """Take the turns; one with errors is no result."""
        self.turns = [turn for turn in turns if not turn.errors]

    def of(self, stack: str, model: str = IRIS) -> list[Turn]:
        """Return the turns of a stack with a model."""
        return [turn for turn in self.turns if (turn.stack, turn.model) == (stack, model)]

    def median(self, metric: Metric, stack: str, model: str, connections: int) -> float | None:
        """Return the median over the rounds, if there are any."""
        return _median(metric(turn.loads[connections]) for turn in self.of(stack, model) if connections in turn.loads)

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
        rates = {name: self.median(rate, name, IRIS, connections) for name in PEERS}
        return max((name for name in rates if rates[name]), key=lambda name: rates[name] or 0, default=None)

    def start_seconds(self, stack: str) -> float | None:
        """Return the median time from start to the first right answer."""
        return _median(turn.start_seconds for turn in self.of(stack))

    def pss_mb(self, stack: str) -> float | None:
        """Return the median memory of an instance."""
        return _median(turn.pss_mb for turn in self.of(stack))


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
        """Tell whether an engine's value is good enough."""
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
        f" us {loaded.servers_us:.0f}+{loaded.nginx_us:.0f}+{loaded.wrk_us:.0f}"
        for count, loaded in turn.loads.items()
    )
    problem = f"  ERRORS {turn.errors}" if turn.errors else ""
    return (
        f"{turn.round:3} {turn.model:12}{turn.stack:9} start {turn.start_seconds:5.2f} s"
        f"  PSS {turn.pss_mb:4.0f} MB  {loads}{problem}"
    )


def targets(results: Results) -> str:
    """Return the figures to reach and what came out, as a Markdown table."""
    rows = [[target.what, *(target.cell(engine, results) for engine in ENGINES)] for target in TARGETS]
    return _table(["16 connections, logistic regression", "scikit-learn engine", "ONNX engine"], rows)


def rates(results: Results, model: str, connections: int) -> str:
    """Return what every stack did under a load, best first, as a Markdown table."""
    rows = []
    for name, stack in STACKS.items():

        def middle(metric: Metric, name: str = name) -> float:
            return results.median(metric, name, model, connections) or 0

        if not middle(rate):
            continue
        share = results.ratio(rate, name, "limit", model, connections)
        rows.append(
            [
                stack.title,
                f"{middle(rate):.0f}",
                "" if share is None else f"{share * 100:.3g} %",
                f"{middle(p50):.1f}",
                f"{middle(p99):.1f}",
                f"{middle(lambda loaded: loaded.servers_us):.0f}",
                f"{middle(lambda loaded: loaded.nginx_us):.0f}",
                f"{middle(lambda loaded: loaded.wrk_us):.0f}",
            ]
        )
    rows.sort(key=lambda row: -float(row[1]))
    heads = ["", "req/s", "of the limit", "p50 ms", "p99 ms", "servers µs", "nginx µs", "wrk µs"]
    return _table(heads, rows)


def footprint(results: Results) -> str:
    """Return memory and start time of every stack, as a Markdown table."""
    rows = [
        [stack.title, f"{results.pss_mb(name):.0f}", f"{results.start_seconds(name):.2f}"]
        for name, stack in STACKS.items()
        if results.of(name)
    ]
    return _table(["", "PSS of an instance, MB", "start to first answer, s"], rows)


def summary(turns: list[Turn]) -> str:
    """Return all tables."""
    results = Results(turns)
    measured = sorted({(turn.model, connections) for turn in results.turns for connections in turn.loads})
    parts = [f"{model}, {n} connections\n\n{rates(results, model, n)}" for model, n in measured]
    return "\n\n".join(["", *parts, footprint(results), targets(results)])


def _table(heads: list[str], rows: list[list[str]]) -> str:
    widths = [max(len(row[column]) for row in [heads, *rows]) for column in range(len(heads))]
    aligned = [[cell.ljust(width) for cell, width in zip(row, widths, strict=True)] for row in [heads, *rows]]
    ruler = ["---" + (":" if column else "") for column in range(len(heads))]
    return "\n".join("| " + " | ".join(row) + " |" for row in [aligned[0], ruler, *aligned[1:]])


def write(turns: list[Turn]) -> None:
    """Write docs/benchmarks.md and the chart."""
    raise NotImplementedError
