"""Single rows of a mixed table: one instance by each engine, beside a table of numbers and MLServer's `pd` codec."""

from __future__ import annotations

import argparse
import json
import random
import secrets
import sys
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import pandas as pd
from sklearn.compose import ColumnTransformer
from sklearn.impute import SimpleImputer
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import OneHotEncoder, StandardScaler

from benchmarks import PAGE, environments, load, report
from benchmarks.batches import wait_until_ready
from benchmarks.inputs import Case
from benchmarks.measure import PORTS, StackError, _free_ports
from benchmarks.processes import Process, nothing_left_behind
from benchmarks.stacks import APPLICATION, NUMBERS, PREDICT, STACKS, Setup, gunicorn
from tools import pages

sys.path.insert(0, str(APPLICATION))
from iris_api.packing.pack import About, Sample, dump, pack  # this tree's own, installed or not

BEGIN = "<!-- written by python -m benchmarks.mixed --docs -->\n"
TRAINED, ASKED = 2000, 4096
FIELDS = [f"number_{number}" for number in range(5)]
CATEGORIES = {
    "city": ["Aarau", "Basel", "Bern", "Zug"],
    "plan": ["free", "gold", "paid"],
    "zip": [f"{number:05}" for number in range(1000, 1015)],
}
WARM_UP_SECONDS = 1
NUMERIC, ONNX, SKLEARN, PEER = "numbers", "mixed, ONNX", "mixed, scikit-learn", "mixed, MLServer's pd codec"


@dataclass(frozen=True)
class Way:
    """A model, the server that answers it, and how it is asked."""

    name: str
    port: int
    process: Process
    path: str
    pattern: str
    cases: list[tuple[str, Case]]


def main() -> int:
    """Do as the command line says; 1 if an answer was wrong."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.mixed", description=__doc__)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=int, default=5)
    parser.add_argument("--connections", type=int, default=16)
    parser.add_argument("--without-mlserver", action="store_true")
    parser.add_argument("--docs", action="store_true", help="write the table in docs/")
    options = parser.parse_args()
    found: dict[str, list[tuple[load.Load, float]]] = {}
    with tempfile.TemporaryDirectory(prefix="bench-") as temporary, nothing_left_behind(), ExitStack() as ending:
        folder = Path(temporary)
        ways = list(start(folder, ending, mlserver=not options.without_mlserver))
        for way in ways:
            load.write_cases(way.cases, folder / f"cases-{way.name}", options.connections)
        for number in range(1, options.rounds + 1):
            for way in random.sample(ways, len(ways)):
                target = load.Target(f"http://127.0.0.1:{way.port}{way.path}", "", way.pattern)
                load.run(target, folder / f"cases-{way.name}", options.connections, WARM_UP_SECONDS)
                before = way.process.cpu_seconds()
                seen = load.run(target, folder / f"cases-{way.name}", options.connections, options.seconds)
                took_us = (way.process.cpu_seconds() - before) / max(1, seen.requests) * 1e6
                if seen.errors:
                    print(f"FAILED: {way.name}: {seen.errors} {seen.example[:500]}", file=sys.stderr)
                    return 1
                found.setdefault(way.name, []).append((seen, took_us))
                rate = seen.requests / seen.seconds
                print(f"{number:3} {way.name:28} {rate:6.0f}/s, p99 {seen.p99_ms:.2f} ms, {took_us:.0f} us", flush=True)
    text = table(found, options.connections)
    print(f"\n{text}")
    if options.docs:
        pages.put(PAGE, BEGIN, text)
    return 0


def start(folder: Path, ending: ExitStack, *, mlserver: bool) -> Iterator[Way]:
    """Pack both models, start one instance for each way, and yield the ways once they answer."""
    generator = np.random.default_rng(secrets.randbits(32))
    numbers, mixed = folder / "numbers", folder / "mixed"
    asked = _pack_numbers(numbers, generator), _pack_mixed(mixed, generator)
    # scikit-learn needs pandas for this table, which a host has from the bundle and this interpreter from its tests.
    kinds = [
        (NUMERIC, numbers, "onnx", environments.python("app"), asked[0]),
        (ONNX, mixed, "onnx", environments.python("app"), asked[1]),
        (SKLEARN, mixed, "sklearn", Path(sys.executable), asked[1]),
    ]
    for name, bundle, engine, python, cases in kinds:
        own = folder / f"run-{name}"
        own.mkdir()
        server = gunicorn(Setup(python, bundle, own, _free_ports(PORTS)), engine)[0]
        process = Process(server.command, server.environ(own), own, own / "log")
        ending.callback(process.end)
        wait_until_ready(process, server.port, "/v2/health/ready")
        bodies = [(json.dumps(row), case) for row, case in cases]
        yield Way(name, server.port, process, "/predict", PREDICT, bodies)
    if mlserver:
        own = folder / "run-mlserver"
        own.mkdir()
        server = STACKS["mlserver"].servers(Setup(environments.python("mlserver"), mixed, own, _free_ports(PORTS)))[0]
        process = Process(server.command, server.environ(own), own, own / "log")
        ending.callback(process.end)
        wait_until_ready(process, server.port, "/v2/models/iris/ready")
        # A missing text becomes something else there than in the table that the estimator was fitted on, where no other
        # row of a batch has a text: the answer is wrong. So it is asked for rows with gaps in their numbers alone.
        bodies = [(_pd(row), case) for row, case in asked[1] if None not in map(row.get, CATEGORIES)]
        yield Way(PEER, server.port, process, "/v2/models/iris/infer", rf'"data":%s*{NUMBERS}', bodies)


Asked = list[tuple[dict[str, Any], Case]]


def _pack_numbers(bundle: Path, generator: np.random.Generator) -> Asked:
    """Pack a model of eight numbers; return rows and the answers that its estimator gives."""
    names = [f"number_{number}" for number in range(8)]
    rows = pd.DataFrame(generator.normal(size=(TRAINED, 8)), columns=names)
    target = (rows.to_numpy() @ generator.normal(size=(8, 3))).argmax(axis=1)
    estimator = make_pipeline(StandardScaler(), LogisticRegression()).fit(rows.to_numpy(), target)
    _pack(bundle, "numbers", estimator, rows, target, table=rows.to_numpy())
    asked = pd.DataFrame(generator.normal(size=(ASKED, 8)), columns=names)
    return _answered(asked, estimator.predict_proba(asked.to_numpy()))


def _pack_mixed(bundle: Path, generator: np.random.Generator) -> Asked:
    """Pack a model of five numbers and three categories with gaps; return rows and the answers of its estimator."""
    rows = _mixed_rows(generator, TRAINED)
    target = (rows["number_1"] + (rows["city"] == "Bern") > 0.3).astype(int) + (rows["number_2"] > 1)
    columns = ColumnTransformer(
        [
            ("numbers", make_pipeline(SimpleImputer(), StandardScaler()), FIELDS),
            ("categories", OneHotEncoder(handle_unknown="ignore"), list(CATEGORIES)),
        ]
    )
    estimator = make_pipeline(columns, LogisticRegression(max_iter=1000)).fit(rows, target)
    _pack(bundle, "mixed", estimator, rows, target, table=rows)
    asked = _mixed_rows(generator, ASKED)
    return _answered(asked, estimator.predict_proba(asked))


def _mixed_rows(generator: np.random.Generator, count: int) -> pd.DataFrame:
    rows = pd.DataFrame({name: generator.normal(size=count) for name in FIELDS})
    for name, values in CATEGORIES.items():
        rows[name] = generator.choice(values, count)
    rows.loc[generator.random(count) < 0.15, "number_0"] = np.nan
    rows.loc[generator.random(count) < 0.1, "city"] = None
    return rows


def _pack(bundle: Path, name: str, estimator: Any, rows: pd.DataFrame, target: Any, *, table: Any) -> None:
    about = About(name=name, version="1.0.0", description="Of the benchmarks")
    manifest = pack(
        bundle, about, "model.joblib", dump(estimator), Sample(list(rows), table, np.asarray(target).tolist())
    )
    assert manifest.onnx, manifest.no_onnx_reason


def _answered(rows: pd.DataFrame, probabilities: Any) -> Asked:
    records = rows.astype(object).where(rows.notna(), None).to_dict("records")
    return [
        (record, Case(0, 0, int(np.argmax(shares)), tuple(shares)))
        for record, shares in zip(records, probabilities.tolist(), strict=True)
    ]


def _pd(row: dict[str, Any]) -> str:
    """Return a row as MLServer takes the row of a DataFrame: a tensor for each column."""
    inputs = [
        {"name": name, "shape": [1], "datatype": "FP64", "data": [row[name]]}
        if name in FIELDS
        else {
            "name": name,
            "shape": [1],
            "datatype": "BYTES",
            "data": [row[name]],
            "parameters": {"content_type": "str"},
        }
        for name in row
    ]
    outputs = [{"name": "predict_proba"}]
    return json.dumps({"parameters": {"content_type": "pd"}, "inputs": inputs, "outputs": outputs})


def table(found: dict[str, list[tuple[load.Load, float]]], connections: int) -> str:
    """Return medians over the rounds, the ratios within them, and the figures to reach, in Markdown."""
    rates = {name: [seen.requests / seen.seconds for seen, _ in turns] for name, turns in found.items()}

    def ratio(name: str, base: str) -> float | None:
        pairs = zip(rates.get(name, []), rates.get(base, []), strict=False)
        return median([own / other for own, other in pairs] or [float("nan")]) if base in rates else None

    def shown(value: float | None) -> str:
        return "" if value is None else f"{value:.2f}"

    rows = [
        [
            name,
            f"{median(rates[name]):,.0f}",
            shown(ratio(name, NUMERIC)),
            shown(ratio(name, PEER)),
            f"{median(seen.p50_ms for seen, _ in turns):.2f}",
            f"{median(seen.p99_ms for seen, _ in turns):.2f}",
            f"{median(us for _, us in turns):.0f}",
        ]
        for name in (NUMERIC, ONNX, SKLEARN, PEER)
        if (turns := found.get(name))
    ]
    head = ["single rows", "req/s", "of the numeric model's", "of MLServer's", "p50 ms", "p99 ms", "server µs"]
    lines = [f"One instance each, asked directly, {connections} connections, medians over {len(rates[ONNX])} rounds:"]
    lines += ["", report.table(head, rows), ""]
    for text, value, least in (
        ("a mixed table by ONNX, of a numeric model of eight columns", ratio(ONNX, NUMERIC), 0.88),
        ("the same by scikit-learn, of MLServer's `pd` codec", ratio(SKLEARN, PEER), 1.0),
    ):
        if value is not None:
            verdict = "reached" if value >= least else "**not reached**"
            lines.append(f"- {text}: {value:.2f} (≥ {least:.2f}): {verdict}")
    return "\n".join(lines)


if __name__ == "__main__":
    try:
        sys.exit(main())
    except (StackError, environments.UnavailableError) as error:
        sys.exit(f"{error}")
    except KeyboardInterrupt:
        sys.exit("Stopped.")
