"""Drift is said of what has changed, and not of what chance does, by an arithmetic that is also Prometheus'."""

from __future__ import annotations

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

from tools import drift
from tools.rules.model import GROUPS
from tools.rules.parts import render

WINDOWS = 1000
# The shares of a smaller sample are themselves too uncertain: with 150 rows up to a third of the windows are false.
TRAINING_ROWS = 300
Table = NDArray[np.float64]


def counted(spread: Spread, values: Table | Coded) -> list[int]:
    """Count a window by the application's own code."""
    spread.counts[:] = [0] * len(spread.counts)
    if isinstance(values, Coded):
        spread.count_coded(values)
    else:
        spread.count_all(values)
    return list(spread.counts)


def numbers(shift: float) -> tuple[Table, Table]:
    """Return the rows of each bin in windows of a number that has shifted by standard deviations, and its shares."""
    chance = np.random.default_rng(11)
    spread = Spread(Feature(**number_feature("age", chance.normal(50, 9, TRAINING_ROWS), FeatureText())))
    size = drift.ROWS_PER_BIN * len(spread.labels)
    windows = chance.normal(50 + 9 * shift, 9, (WINDOWS, size))
    return np.array([counted(spread, window) for window in windows]), np.array(spread.shares)


def categories(count: int, shift: float) -> tuple[Table, Table]:
    """Return the same of a category: which one a row has follows from a normal quantity that nobody sees.

    The most frequent one is `count` times as frequent as the rarest (Zipf's law).
    """
    chance = np.random.default_rng(13)
    shares = chance.permutation(1 / np.arange(1, count + 1))
    borders = [NormalDist().inv_cdf(each) for each in np.cumsum(shares / shares.sum())[:-1]]
    names: list[Category] = [f"c{number:02}" for number in range(count)]
    seen = np.bincount(np.searchsorted(borders, chance.normal(size=TRAINING_ROWS)), minlength=count) / TRAINING_ROWS
    told = [CategoryShare(value=names[number], share=seen[number]) for number in np.argsort(-seen)[:MOST_CATEGORIES]]
    text: dict[str, Any] = {"name": "city", "description": "", "unit": ""}
    spread = Spread(Feature(**text, kind="category", open=True, values=names, shares=told))
    size = drift.ROWS_PER_BIN * len(spread.labels)
    windows = np.searchsorted(borders, chance.normal(shift, 1, (WINDOWS, size)))
    return np.array([counted(spread, Coded(names, window)) for window in windows]), np.array(spread.shares)


def simulated(kind: int, shift: float) -> tuple[Table, Table]:
    return categories(kind, shift) if kind else numbers(shift)


KINDS = pytest.mark.parametrize(
    "kind", [0, 5, 20, 50], ids=["numbers", "5 categories", "20 categories", "50 categories"]
)


@KINDS
def test_at_most_one_window_in_a_hundred_is_a_false_alert(kind: int) -> None:
    rows, training = simulated(kind, shift=0)
    assert rows.shape[1] <= MOST_BINS
    index = drift.psi(rows, training)
    assert np.isfinite(index).all(), "all have just as many rows as are judged"
    assert np.mean(index > drift.THRESHOLD) <= 0.01


@KINDS
def test_a_shift_by_one_standard_deviation_is_found_in_95_of_100_windows(kind: int) -> None:
    assert np.mean(drift.psi(*simulated(kind, shift=1)) > drift.THRESHOLD) >= 0.95


@KINDS
def test_with_one_row_less_nothing_is_said(kind: int) -> None:
    rows, training = simulated(kind, shift=1)
    rows[np.arange(WINDOWS), rows.argmax(axis=1)] -= 1
    assert np.isnan(drift.psi(rows, training)).all()


def test_a_number_of_two_values_is_judged_as_any_other() -> None:
    """Of its bins one has no training row at all: without smoothing their PSI is infinite, or no number."""
    spread = Spread(Feature(**number_feature("is_new", np.array([0.0, 1.0] * 500), FeatureText())))
    assert 0 in spread.shares
    chance = np.random.default_rng(17)
    size = drift.ROWS_PER_BIN * len(spread.labels)
    for share, found in ((0.5, False), (0.9, True), (1.0, True)):
        windows = (chance.random((WINDOWS, size)) < share).astype(float)
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
    ("of", "windows"),
    [
        ("feature", numbers(0.5)),
        ("feature", categories(20, 1)),
        ("feature", ([[60, 60, 0]], [0.5, 0.5, 0.0])),
        ("feature", ([[10, 69]], [0.5, 0.5])),
        ("class", ([[90, 20, 40]], [0.3, 0.3, 0.4])),
        ("target", ([[90, 20, 40]], [0.3, 0.3, 0.4])),
    ],
    ids=["a number", "a category", "two values", "a row too few", "classes", "a target"],
)
def test_prometheus_computes_the_same(
    promtool: str, tmp_path: Path, of: str, windows: tuple[Any, Any], request: pytest.FixtureRequest
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
    test = {
        "interval": "1m",
        "input_series": series,
        "promql_expr_test": [{"expr": f"count({near})", "eval_time": "2h", "exp_samples": found}],
    }
    rules = tmp_path / "rules.yml"
    rules.write_text(render(GROUPS))
    told = {"rule_files": [str(rules)], "evaluation_interval": "1m", "tests": [test]}
    (tmp_path / "tests.yml").write_text(yaml.safe_dump(told))
    done = subprocess.run(
        [promtool, "test", "rules", tmp_path / "tests.yml"], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
