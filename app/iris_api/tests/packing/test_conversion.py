"""Conversion to ONNX: what packing hands on is proven to answer as the estimator does, and what isn't says why."""

from __future__ import annotations

from typing import Any

import joblib
import pytest
from sklearn.datasets import load_iris
from sklearn.ensemble import GradientBoostingClassifier, HistGradientBoostingClassifier, RandomForestClassifier
from sklearn.linear_model import LogisticRegression
from sklearn.neighbors import KNeighborsClassifier
from sklearn.tree import DecisionTreeRegressor

from iris_api.bundle.manifest import Manifest
from iris_api.engines.model import Model
from iris_api.packing import conversion
from iris_api.packing.conversion import ConversionError, convert
from iris_api.packing.pack import About, Sample, describe

from ..paths import BUNDLE

DATA, CLASSES = load_iris(return_X_y=True)


def manifest_for(estimator: Any, data: Any = DATA) -> Manifest:
    """Describe an estimator as packing does."""
    sample = Sample([f"x{number}" for number in range(data.shape[1])], data)
    content = describe(estimator, About("m", "1", ""), sample)
    return Manifest.model_validate({**content, "artifact": "model.joblib", "sha256": 64 * "0"})


@pytest.mark.kernel
def test_a_forest_is_proven_in_single_precision_because_in_double_it_turns_elsewhere() -> None:
    """scikit-learn compares single precision numbers: only beside the borders it shows."""
    forest = RandomForestClassifier(10, random_state=0).fit(DATA[:, 2:], CLASSES)
    manifest = manifest_for(forest, DATA[:, 2:])
    assert convert(forest, manifest, DATA[:, 2:]).about["precision"] == "float"


@pytest.mark.parametrize(
    "estimator",
    [
        LogisticRegression(max_iter=1000).fit(DATA, CLASSES),
        GradientBoostingClassifier(n_estimators=3, random_state=0).fit(DATA, CLASSES),
        DecisionTreeRegressor(random_state=0).fit(DATA, CLASSES + 0.5),
    ],
    ids=lambda each: type(each).__name__,
)
def test_what_converts_is_proven(estimator: Any) -> None:
    about = convert(estimator, manifest_for(estimator), DATA).about
    assert about["proof"]["largest_difference"] <= 1e-6
    assert about["proof"]["points"]["beside borders"] > 100 or isinstance(estimator, LogisticRegression)


@pytest.mark.parametrize(
    ("estimator", "reason"),
    [
        (HistGradientBoostingClassifier(max_iter=2).fit(DATA, CLASSES), "it does not convert"),
        (KNeighborsClassifier(4).fit(DATA, CLASSES), "rows get another class|answers differ"),
    ],
    ids=["does-not-convert", "differs-at-ties"],
)
def test_what_does_not_convert_or_differs_has_none_and_says_why(estimator: Any, reason: str) -> None:
    with pytest.raises(ConversionError, match=reason):
        convert(estimator, manifest_for(estimator), DATA)


def test_the_proof_can_say_no(monkeypatch: pytest.MonkeyPatch) -> None:
    """A conversion that is wrong only a little, of a model with other coefficients."""
    estimator = joblib.load(BUNDLE / "model.joblib")
    other = joblib.load(BUNDLE / "model.joblib")
    other[-1].coef_ = other[-1].coef_ * (1 + 1e-5)
    to_onnx = conversion._to_onnx
    monkeypatch.setattr(conversion, "_to_onnx", lambda _, *rest: to_onnx(other, *rest))
    with pytest.raises(ConversionError, match=r"double: .* differ|double: .* another class"):
        convert(estimator, Model.load(BUNDLE).manifest, DATA[:, 2:])
