"""Each estimator and table of `cases` is packed and asked over HTTP, by every engine that its bundle allows.

What is served must be the estimator's own answer to its user's own table, on a thousand rows that it was not fitted on.
`make test-matrix` runs it; `python -m tests.matrix.table` writes what is served how into docs/models.md.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from iris_api.bundle.manifest import NUMERIC, Manifest
from iris_api.engines.model import EngineChoice, Model
from iris_api.packing import costs, writing
from iris_api.packing import pack as packing
from iris_api.packing.samples import FeatureText
from iris_api.server.app import build_app
from iris_api.settings import Settings
from sklearn.base import is_classifier, is_regressor
from starlette.testclient import TestClient

from tests.matrix import tables
from tests.matrix.cases import CASES, Case

ROWS = 1000
UNKNOWN = "a category that nobody knows"


@pytest.fixture(scope="module", autouse=True)
def quick_costs() -> Iterator[None]:
    """Measure costs in this process and by a few calls: they are no matter here."""
    few = partial(costs.measure_here, seconds=costs.SECONDS / 2, repeat_seconds=0)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(writing, "measure", few)
        yield


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_what_is_served_is_the_estimators_own_answer(case: Case, tmp_path: Path) -> None:
    table = tables.make(case.table)
    target = tables.target(table, case.target)
    estimator = case.make().fit(table, target)
    features = {name: FeatureText(minimum=case.minimum) for name in table if case.minimum is not None}
    about = packing.About("matrix", "1.0.0", case.name, features=features)
    answers_target = target.ndim == 1 and (is_classifier(estimator) or is_regressor(estimator))
    known = target.tolist() if answers_target else None
    sample = packing.Sample(list(table), table, known)
    bundle = tmp_path / "bundle"
    manifest = packing.pack(bundle, about, "model.joblib", packing.dump(estimator), sample)
    assert (manifest.onnx is not None) == case.onnx, manifest.no_onnx_reason
    asked = accepted(manifest, tables.make(case.table, ROWS, seed=5))
    expected = np.asarray(estimator.predict(asked))
    expected = expected if manifest.outputs else expected.ravel()
    shares = estimator.predict_proba(asked) if manifest.probabilities else None
    rows = [
        {name: None if value is None or value != value else value for name, value in row.items()}
        for row in asked.astype(object).to_dict("records")
    ]
    engines: Sequence[EngineChoice] = ["sklearn", "onnx"] if case.onnx else ["sklearn"]
    for engine in engines:
        model = Model.load(bundle, engine)
        with TestClient(build_app(settings(bundle), model)) as client:
            answers = client.post("/predict", json=rows).json()
        assert isinstance(answers, list), f"{engine}: {answers}"
        found = [answer["prediction"] for answer in answers]
        if manifest.classes or expected.dtype.kind != "f":
            assert found == expected.tolist(), engine
        else:
            assert np.array(found) == pytest.approx(expected, rel=1e-6, abs=1e-6), engine
        if shares is not None:
            probabilities = np.array([answer["prediction_proba"] for answer in answers])
            assert np.abs(probabilities - shares).max() <= 1e-6, engine
        if manifest.scores:
            scores = np.array([answer["scores"] for answer in answers])
            assert scores[:, 0] == pytest.approx(getattr(estimator, manifest.scores.method)(asked), abs=1e-9), engine


def settings(bundle: Path) -> Settings:
    """Return settings by which a thousand rows are answered on a busy machine, too."""
    return Settings(model_dir=bundle, max_body_bytes=10**7, request_deadline=600, graceful_timeout=700)


def accepted(manifest: Manifest, table: Any) -> Any:
    """Return a table with values within what is accepted; every tenth category is unknown where the list is open."""
    for feature in manifest.features:
        column = table[feature.name]
        if feature.kind in NUMERIC:
            table[feature.name] = column.clip(feature.minimum, feature.maximum)
        if feature.open and column.dtype.kind not in "iu" and str(column.dtype) != "category":
            table.loc[::10, feature.name] = UNKNOWN
    return table


def test_sixty_are_asked_and_onnx_runtime_serves_most_of_them() -> None:
    assert len({case.name for case in CASES}) == len(CASES) == 60
    assert sum(case.onnx for case in CASES) >= 40
