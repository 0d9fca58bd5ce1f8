"""A model that is slow by nature: each row takes it the same time, however many there are."""

from __future__ import annotations

import csv
import time
from pathlib import Path

import joblib
import numpy as np
from iris_api.engines.model import Model
from iris_api.packing import cli
from sklearn.neighbors import KNeighborsClassifier

from tests.faults.attack import FEATURES, ROWS

NAME, VERSION = "slow", "1.0.0"
SECONDS = 5.0
"""That the largest legal request is to take."""
TRIAL = 50_000
"""Points of the model by which the processor is measured."""
TRIALS = 4
"""How often its points are reckoned anew, at most, from what it took."""
SPAN = ((0.1, 7.5), (0.1, 3.0))
"""Of each feature."""


def estimator(points: int) -> KNeighborsClassifier:
    """Return a classifier of random points that looks at each of them for each row: its tree is one leaf."""
    random = np.random.default_rng(1)
    table = np.column_stack([random.uniform(*span, points) for span in SPAN])
    classes = (table[:, 0] > 2).astype(int) + (table[:, 0] + table[:, 1] > 6.5).astype(int)
    # No power that a processor has a short cut for.
    return KNeighborsClassifier(5, algorithm="kd_tree", leaf_size=points, p=2.5).fit(table, classes)


def make(models: Path) -> float:
    """Write the bundle models/slow/1.0.0 as an operator would; return the seconds of its largest legal request."""
    points, taken = TRIAL, pack(models, TRIAL)
    # A processor that was idle is slow at first, so that a trial may say too much: 5 s became 2.8 s on one of them.
    for _ in range(TRIALS):
        points = round(points * SECONDS / taken)
        taken = pack(models, points)
        if 0.8 * SECONDS < taken < 1.25 * SECONDS:
            break
    return taken


def pack(models: Path, points: int) -> float:
    """Pack a model of so many points; return the processor's seconds for the largest legal request."""
    models.mkdir(exist_ok=True)
    model = estimator(points)
    artifact, sample = models / "model.joblib", models / "sample.csv"
    joblib.dump(model, artifact)
    random = np.random.default_rng(2)
    rows = np.column_stack([random.uniform(*span, 60) for span in SPAN]).round(4)
    with sample.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow([*FEATURES, "class"])
        writer.writerows([*row, label] for row, label in zip(rows.tolist(), model.predict(rows).tolist(), strict=True))
    options = ["--name", NAME, "--version", VERSION, "--target", "class", "--models-dir", str(models)]
    assert (
        cli.main(["pack", str(artifact), str(sample), *options, "--no-onnx", "--environment=never", "--replace"]) == 0
    )
    served = Model.load(models / NAME / VERSION, "sklearn")
    # A part of it is enough, and the processor's time and not the clock's: others may be at work.
    part = rows.tolist()
    served.predict(part)
    began = time.process_time()
    served.predict(part)
    return (time.process_time() - began) * ROWS / len(part)
