"""When a model is said to see other data than it was trained on: the arithmetic of Prometheus' rules, in numpy.

A population stability index (PSI) compares how many of the rows of a window fall into each bin with how many would if
they were as the training data: the sum over bins of (seen - expected) * ln(seen / expected), each as a share of the
rows. 0 is the same; up to 0.1 is usually called no change, above 0.2 a significant one. What a bin is, the application
decides (`Spread` in app/iris_api/src/iris_api/predict/metrics.py). Half a row is added to each bin: one that is empty
on one side has a PSI all the same, and one that is empty on both adds nothing.

Chance alone makes the PSI of k bins and N rows about (k - 1) / N, so nothing is said of fewer than 40 rows a bin. The
shares of M training rows are off by chance too, by about (k - 1) / M, for as long as the model serves: no number of
rows in a window helps against that, so the limit is higher by it. Of 1.5 times as much, 120 training rows leave less
than 1 % of false alerts, and of a shift by one standard deviation more than 95 % are found.

tests/tools/test_drift.py simulates how often that is wrong, and compares `psi` with what Prometheus computes by
tools/rules/model.py.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

THRESHOLD = 0.2
"""A PSI above it is an alert, where the shares of the training data are of very many rows."""
NOISE = 1.5
"""By how many times what chance adds to the PSI of the training data the limit is above that."""
ROWS_PER_BIN = 40
"""From how many rows a bin on a window is judged."""
SMOOTHING = 0.5
"""Rows added to each bin."""


def limit(bins: int, training_rows: int | None) -> float:
    """Return the PSI above which there is an alert, for shares of so many training rows; None: not known."""
    return THRESHOLD + NOISE * (bins - 1) / training_rows if training_rows else THRESHOLD


def psi(rows: NDArray[Any], training: NDArray[Any]) -> NDArray[np.float64]:
    """Return the population stability index of windows, NaN of one with too few rows to be judged.

    `rows` has the rows of each bin and `training` their shares in the training data, both of shape (..., bins); the
    result is of shape (...).
    """
    bins = training.shape[-1]
    total = rows.sum(axis=-1)
    expected = training * total[..., np.newaxis]
    summands = (rows - expected) * np.log((rows + SMOOTHING) / (expected + SMOOTHING))
    index = summands.sum(axis=-1) / (total + SMOOTHING * bins)
    return np.where(total >= ROWS_PER_BIN * bins, index, np.nan)
