"""Random rows, and the answers that the joblib model itself gives to them."""

from __future__ import annotations

import json
import random
from dataclasses import dataclass

import joblib
import numpy

from benchmarks import ROOT

ROWS = 16384


@dataclass(frozen=True)
class Case:
    """A row and the answer due to it."""

    petal_length: float
    petal_width: float
    prediction: int
    probabilities: tuple[float, float, float]


def make_cases(model: str, seed: int) -> list[Case]:
    """Return distinct rows from the range of the training data, each with its answer."""
    generator = random.Random(seed)
    rows: dict[tuple[float, float], None] = {}
    while len(rows) < ROWS:
        rows[round(generator.uniform(1.0, 6.9), 4), round(generator.uniform(0.1, 2.5), 4)] = None
    estimator = joblib.load(ROOT / "models" / model / "1.0.0" / "model.joblib")
    probabilities = estimator.predict_proba(numpy.array(list(rows)))
    predictions = estimator.classes_[probabilities.argmax(axis=1)]
    return [
        Case(*row, int(prediction), tuple(values))
        for row, prediction, values in zip(rows, predictions, probabilities.tolist(), strict=True)
    ]


def named(case: Case) -> str:
    """Return the row as /predict takes it."""
    return json.dumps({"petal_length": case.petal_length, "petal_width": case.petal_width})
