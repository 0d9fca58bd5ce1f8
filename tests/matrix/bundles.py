"""Packs cases: each becomes a folder with its bundle, rows that it was not fitted on, and the estimator's own answers.

    python -m tests.matrix.bundles FOLDER    packs all of them, as many at once as there are processors

`served` asks such folders, here and on hosts.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import sys
import warnings
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from functools import cache, partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from iris_api.bundle.manifest import NUMERIC, Manifest
from iris_api.packing import costs, writing
from iris_api.packing import pack as packing
from iris_api.packing.samples import FeatureText
from sklearn.base import is_classifier, is_regressor

from tests import ROOT
from tests.matrix import tables
from tests.matrix.cases import CASES, Case

FOLDER = ROOT / "build" / "matrix"
"""Where `make test-matrix` leaves them for a test on a host."""
ROWS = 1000
UNKNOWN = "a category that nobody knows"


@contextmanager
def quick_costs() -> Iterator[None]:
    """Measure costs in this process and by a few calls: they are no matter here."""
    few = partial(costs.measure_here, seconds=costs.SECONDS / 2, repeat_seconds=0)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(writing, "measure", few)
        yield


def make(case: Case, folder: Path) -> Manifest:
    """Pack a case into a folder, which is there only once it is whole, and replaces one that was there."""
    table = tables.make(case.table)
    target = tables.target(table, case.target)
    estimator = case.make().fit(table, target)
    features = {name: FeatureText(minimum=case.minimum) for name in table if case.minimum is not None}
    about = packing.About("matrix", "1.0.0", case.name, features=features)
    answers_target = target.ndim == 1 and (is_classifier(estimator) or is_regressor(estimator))
    known = target.tolist() if answers_target else None
    sample = packing.Sample(list(table), table, known)
    new = folder.with_name(f"{folder.name}.new")
    for each in (new, folder):
        shutil.rmtree(each, ignore_errors=True)
    new.mkdir(parents=True)
    with quick_costs():
        manifest = packing.pack(new / "bundle", about, "model.joblib", packing.dump(estimator), sample)
    asked = accepted(manifest, tables.make(case.table, ROWS, seed=5))
    values = np.asarray(estimator.predict(asked))
    shares = estimator.predict_proba(asked) if manifest.probabilities else None
    scores = getattr(estimator, manifest.scores.method)(asked) if manifest.scores else None
    rows = [
        {name: None if value is None or value != value else value for name, value in row.items()}
        for row in asked.astype(object).to_dict("records")
    ]
    expected = {
        "prediction": (values if manifest.outputs else values.ravel()).tolist(),
        "prediction_proba": None if shares is None else np.asarray(shares).tolist(),
        "scores": None if scores is None else np.reshape(scores, (len(scores), -1)).tolist(),
    }
    content = {"case": case.name, "state": state(), "rows": rows, "expected": expected}
    (new / "rows.json").write_text(json.dumps(content))
    new.rename(folder)
    return manifest


def accepted(manifest: Manifest, table: Any) -> Any:
    """Return a table with values within what is accepted; every tenth category is unknown where the list is open."""
    for feature in manifest.features:
        column = table[feature.name]
        if feature.kind in NUMERIC:
            table[feature.name] = column.clip(feature.minimum, feature.maximum)
        if feature.open and column.dtype.kind not in "iu" and str(column.dtype) != "category":
            table.loc[::10, feature.name] = UNKNOWN
    return table


@cache
def state() -> str:
    """Return a hash of all that bundles of the cases follow from, but for the interpreter."""
    files = [*(ROOT / "app" / "iris_api" / "src").rglob("*.py"), *(ROOT / "tests" / "matrix").glob("*.py")]
    text = b"".join(path.read_bytes() for path in sorted(files)) + (ROOT / "requirements" / "test.txt").read_bytes()
    return hashlib.sha256(text).hexdigest()


def folder_of(number: int, folder: Path = FOLDER) -> Path:
    """Return where the case of a number is, or is to be."""
    return folder / f"{number:02}"


def make_stale(folder: Path, number: int) -> None:
    """Pack a case if it is not there, or was packed by something else than what is here now."""
    content = folder_of(number, folder) / "rows.json"
    if not content.exists() or json.loads(content.read_text())["state"] != state():
        warnings.simplefilter("ignore")
        make(CASES[number], content.parent)


def main(arguments: Sequence[str]) -> int:
    """Pack all cases that are not there, or stale."""
    # Each process computes by one thread, as an instance does.
    os.environ["OMP_NUM_THREADS"] = "1"
    with ProcessPoolExecutor() as pool:
        list(pool.map(partial(make_stale, Path(arguments[0])), range(len(CASES))))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
