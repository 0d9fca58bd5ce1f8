"""Drift is said of what has changed, and not of what chance does, by an arithmetic that is also Prometheus'."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path
from statistics import NormalDist
from typing import Any

import numpy as np
import pytest
import yaml
from iris_api.bundle.manifest import MOST_CATEGORIES, Category, CategoryShare, Feature
from iris_api.engines.columns import Coded
from iris_api.packing.features import number_feature
from iris_api.packing.samples import FeatureText
from iris_api.predict.metrics import MOST_BINS, Spread
from numpy.typing import NDArray

from tests.promtool import SETTINGS, dump, needs, parse
from tools import drift
from tools.rules.model import GROUPS
from tools.rules.parts import render

MODELS, WINDOWS = 40, 25
"""As many models, each trained on rows of its own, and windows of each: 1,000 in all."""
# As few as the bundle iris has, and more.
TRAINING_ROWS = (120, 300)
Table = NDArray[np.float64]


def counted(spread: Spread, values: Table | Coded) -> list[int]:
    """Count a window by the application's own code."""
    spread.counts[:] = [0] * len(spread.counts)
    if isinstance(values, Coded):
        spread.count_coded(values)
    else:
        spread.count_all(values)
    return list(spread.counts)


def numbers(shift: float, training_rows: int, chance: np.random.Generator) -> tuple[Table, Table]:
    """Return the rows of each bin in windows of a number that has shifted by standard deviations, and its shares."""
    spread = Spread(Feature(**number_feature("age", chance.normal(50, 9, training_rows), FeatureText())))
    size = drift.ROWS_PER_BIN * len(spread.labels)
    windows = chance.normal(50 + 9 * shift, 9, (WINDOWS, size))
    return np.array([counted(spread, window) for window in windows]), np.array(spread.shares)


def categories(
    count: int, shift: float, training_rows: int, chance: np.random.Generator, alike: bool = False
) -> tuple[Table, Table]:
    """Return the same of a category: which one a row has follows from a normal quantity that nobody sees.

    The most frequent one is `count` times as frequent as the rarest (Zipf's law), or all are alike.
    """
    shares = np.ones(count) if alike else chance.permutation(1 / np.arange(1, count + 1))
    borders = [NormalDist().inv_cdf(each) for each in np.cumsum(shares / shares.sum())[:-1]]
    names: list[Category] = [f"c{number:02}" for number in range(count)]
    seen = np.bincount(np.searchsorted(borders, chance.normal(size=training_rows)), minlength=count) / training_rows
    told = [CategoryShare(value=names[number], share=seen[number]) for number in np.argsort(-seen)[:MOST_CATEGORIES]]
    text: dict[str, Any] = {"name": "city", "description": "", "unit": ""}
    spread = Spread(Feature(**text, kind="category", open=True, values=names, shares=told))
    size = drift.ROWS_PER_BIN * len(spread.labels)
    windows = np.searchsorted(borders, chance.normal(shift, 1, (WINDOWS, size)))
    return np.array([counted(spread, Coded(names, window)) for window in windows]), np.array(spread.shares)


def simulated(kind: int, shift: float, training_rows: int, alike: bool = False) -> tuple[Table, Table]:
    """Return the windows of all models, of shape (models, windows, bins), and the shares of each, (models, 1, bins)."""
    chance = np.random.default_rng(11)
    found = [
        categories(kind, shift, training_rows, chance, alike) if kind else numbers(shift, training_rows, chance)
        for _ in range(MODELS)
    ]
    rows, shares = zip(*found, strict=True)
    return np.array(rows), np.array(shares)[:, np.newaxis]


def alerts(rows: Table, training: Table, training_rows: int | None) -> float:
    """Return the share of the windows in which there is an alert."""
    index = drift.psi(rows, np.broadcast_to(training, rows.shape))
    assert np.isfinite(index).all(), "all have just as many rows as are judged"
    return float(np.mean(index > drift.limit(rows.shape[-1], training_rows)))


KINDS = pytest.mark.parametrize(
    "kind", [0, 5, 20, 50], ids=["numbers", "5 categories", "20 categories", "50 categories"]
)
each_size = pytest.mark.parametrize("training_rows", TRAINING_ROWS)


@KINDS
@each_size
def test_at_most_one_window_in_a_hundred_is_a_false_alert(kind: int, training_rows: int) -> None:
    rows, training = simulated(kind, 0, training_rows)
    assert rows.shape[-1] <= MOST_BINS
    assert alerts(rows, training, training_rows) <= 0.01


@KINDS
@each_size
def test_a_shift_by_one_standard_deviation_is_found_in_95_of_100_windows(kind: int, training_rows: int) -> None:
    assert alerts(*simulated(kind, 1, training_rows), training_rows) >= 0.95


def test_without_the_number_of_training_rows_a_model_of_few_is_said_to_drift_more_often() -> None:
    """Of bundles that an earlier release packed it is not known, and their limit is as it was."""
    rows, training = simulated(50, 0, 120)
    assert drift.limit(rows.shape[-1], None) == drift.THRESHOLD
    assert alerts(rows, training, None) > 0.05


def test_of_fifty_categories_that_are_alike_half_of_the_shifts_are_found() -> None:
    """Most of them share one bin, as there are ten: docs/models.md says so."""
    assert alerts(*simulated(50, 0, 1000, alike=True), 1000) <= 0.01
    assert 0.3 < alerts(*simulated(50, 1, 1000, alike=True), 1000) < 0.8


@KINDS
def test_with_one_row_less_nothing_is_said(kind: int) -> None:
    rows, training = simulated(kind, 1, 300)
    np.put_along_axis(rows, most := rows.argmax(-1)[..., None], np.take_along_axis(rows, most, -1) - 1, -1)
    assert np.isnan(drift.psi(rows, np.broadcast_to(training, rows.shape))).all()


def test_a_number_of_two_values_is_judged_as_any_other() -> None:
    """Of its bins one has no training row at all: without smoothing their PSI is infinite, or no number."""
    spread = Spread(Feature(**number_feature("is_new", np.array([0.0, 1.0] * 500), FeatureText())))
    assert 0 in spread.shares
    chance = np.random.default_rng(17)
    size = drift.ROWS_PER_BIN * len(spread.labels)
    for share, found in ((0.5, False), (0.9, True), (1.0, True)):
        windows = (chance.random((MODELS * WINDOWS, size)) < share).astype(float)
        index = drift.psi(np.array([counted(spread, window) for window in windows]), np.array(spread.shares))
        assert np.isfinite(index).all()
        assert np.mean((index > drift.THRESHOLD) == found) >= 0.99


# Of what, the counter and the label of its bins, and the shares of the same bins in the training data.
METRICS = {
    "feature": ("iris_api_feature_values_total", "bin", "iris_api_feature_training_ratio"),
    "class": ("iris_api_predictions_total", "class", "iris_api_class_training_ratio"),
    "target": ("iris_api_predicted_values_total", "bin", "iris_api_predicted_value_training_ratio"),
}


@pytest.mark.parametrize(
    ("of", "windows", "training_rows"),
    [
        ("feature", numbers(0.5, 120, np.random.default_rng(11)), 120),
        ("feature", categories(20, 1, 300, np.random.default_rng(13)), None),
        ("feature", ([[60, 60, 0]], [0.5, 0.5, 0.0]), 120),
        ("feature", ([[10, 69]], [0.5, 0.5]), 120),
        ("class", ([[90, 20, 40]], [0.3, 0.3, 0.4]), 120),
        ("target", ([[90, 20, 40]], [0.3, 0.3, 0.4]), None),
    ],
    ids=["a number", "a category", "two values", "a row too few", "classes", "a target"],
)
def test_prometheus_computes_the_same(
    promtool: str,
    tmp_path: Path,
    of: str,
    windows: tuple[Any, Any],
    training_rows: int | None,
    request: pytest.FixtureRequest,
) -> None:
    # With some more rows than are needed: Prometheus' increase is a product that may be a trifle less.
    more = 1 if "few" in request.node.name else 1.25
    rows, training = more * np.array(windows[0][0]), np.array(windows[1])
    index = float(drift.psi(rows, training))
    assert np.isnan(index) == ("few" in request.node.name)
    counter, label, ratio = METRICS[of]
    series = []
    for number, (count, share) in enumerate(zip(rows.tolist(), training.tolist(), strict=True)):
        feature = ', feature="age"' if of == "feature" else ""
        labels = f'model="m", version="1", {label}="{number}"{feature}'
        # Half by each of two instances, evenly over two hours.
        for instance in ("iris-api@1", "iris-api@2"):
            named = f'{{{labels}, instance="{instance}"}}'
            series.append({"series": counter + named, "values": f"0+{count / 120!r}x120"})
            series.append({"series": ratio + named, "values": f"{share!r}x120"})
    asked = f'iris_api:drift_psi{{of="{"feature" if of == "feature" else "prediction"}", window="1h"}}'
    near = f"abs({asked} - {index!r}) < 1e-9" if np.isfinite(index) else asked
    found = [] if np.isnan(index) else [{"labels": "{}", "value": 1}]
    test: dict[str, Any] = {
        "interval": "1m",
        "input_series": series,
        "promql_expr_test": [{"expr": f"count({near})", "eval_time": "2h", "exp_samples": found}],
    }
    if training_rows:
        name = 'iris_api_training_rows{model="m", version="1", instance="iris-api@1"}'
        series.append({"series": name, "values": f"{training_rows}x120"})
    wanted = drift.limit(len(training), training_rows)
    limit = f"count(abs({asked.split('{')[0].replace('psi', 'limit')} - {wanted!r}) < 1e-9)"
    test["promql_expr_test"].append({"expr": limit, "eval_time": "2h", "exp_samples": [{"labels": "{}", "value": 1}]})
    rules = tmp_path / "rules.yml"
    groups = parse(render(GROUPS))["groups"]
    every = [rule for group in groups for rule in group["rules"]]
    # The others would be evaluated as well, at each step.
    wanted_rules = needs([each["expr"] for each in test["promql_expr_test"]], every)
    assert {"iris_api:drift_psi", "iris_api:drift_limit"} <= {rule["record"] for rule in wanted_rules}
    alone = [group | {"rules": [rule for rule in group["rules"] if rule in wanted_rules]} for group in groups]
    rules.write_text(dump({"groups": alone}))
    told = {"rule_files": [str(rules)], "evaluation_interval": "1m", "tests": [test]}
    (tmp_path / "tests.yml").write_text(yaml.safe_dump(told))
    command = [promtool, "test", "rules", str(tmp_path / "tests.yml")]
    done = subprocess.run(command, env=os.environ | SETTINGS, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
