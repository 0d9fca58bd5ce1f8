"""What a sample's target means to a model, and what its manifest says of the answers."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from sklearn.datasets import load_iris
from sklearn.ensemble import RandomForestClassifier
from sklearn.linear_model import LinearRegression, LogisticRegression, Ridge
from sklearn.neighbors import KNeighborsRegressor
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from iris_api.bundle.manifest import Manifest
from iris_api.engines.model import Model
from iris_api.engines.sklearn import SklearnEngine
from iris_api.packing.pack import PackError

from ..described import described

DATA, KINDS = load_iris(return_X_y=True)


@pytest.mark.parametrize(
    ("classes", "written", "expected"),
    [
        ([False, True], ["True", "False"], [True, False]),
        ([False, True], ["TRUE", " false"], [True, False]),
        ([False, True], ["1", "0.0"], [True, False]),
        ([0, 1], ["1", "0"], [1, 0]),
        ([0, 1], ["1.0", " 0"], [1, 0]),
        ([0.0, 1.0], ["1", "0.0"], [1.0, 0.0]),
        (["0", "1"], ["1", "0"], ["1", "0"]),
        (["0", "1"], [1, 0], ["1", "0"]),
        (["01", "02"], ["02", "01"], ["02", "01"]),
        (["True", "False"], ["TRUE", "False"], ["True", "False"]),
        ([" no", "yes"], ["no", " yes "], [" no", "yes"]),
        (["No", "no"], ["no", "No"], ["no", "No"]),
        (["inf", "nan"], ["nan", "inf"], ["nan", "inf"]),
        ([2**60, 2**60 + 1], [str(2**60 + 1), str(2**60)], [2**60 + 1, 2**60]),
    ],
)
def test_a_target_means_the_class_that_it_names(classes: list[Any], written: list[Any], expected: list[Any]) -> None:
    rows = np.array([[0.0], [1.0]] * 10)
    estimator = RandomForestClassifier(5, random_state=0).fit(rows, np.array(expected * 10))
    manifest = described(estimator, ["a"], rows, written * 10)
    assert sorted((each.value for each in manifest.classes or []), key=str) == sorted(classes, key=str)
    assert [type(each.value) for each in manifest.classes or []] == [type(classes[0])] * 2
    assert [each.share for each in manifest.classes or []] == [0.5, 0.5]
    assert manifest.metrics["sample_accuracy"] == 1
    assert manifest.training_rows == 20
    model = Model(Manifest.model_validate_json(manifest.model_dump_json()), SklearnEngine(manifest, estimator))
    answers = [answer.value for answer in model.predict([[0.0], [1.0]]) if answer]
    assert answers == expected
    assert [type(answer) for answer in answers] == [type(each) for each in expected]


@pytest.mark.parametrize(
    ("estimator", "written", "complaint"),
    [
        (
            RandomForestClassifier(2),
            ["yes", "maybe"],
            r"Row 2 .* has 'maybe' for the target Kind, but .*'no', 'yes'\. Corr",
        ),
        (Ridge(), ["1.5", "many"], "Row 2 of the sample has 'many' for the target Kind, but the model answers numbers"),
    ],
)
def test_a_target_that_means_nothing_is_named(estimator: Any, written: list[str], complaint: str) -> None:
    rows = np.array([[0.0], [1.0]])
    targets = [1.5, 2.5] if isinstance(estimator, Ridge) else ["yes", "no"]
    with pytest.raises(PackError, match=complaint):
        described(estimator.fit(rows, targets), ["a"], rows, written, target="Kind")


def test_two_classes_of_one_name_are_refused() -> None:
    estimator = LogisticRegression(max_iter=500).fit(DATA, KINDS)
    with pytest.raises(PackError, match="The names of the classes, a, b, a, must differ"):
        described(estimator, list("abcd"), DATA, class_names=["a", "b", "a"])


@pytest.mark.parametrize(
    "estimator",
    [LinearRegression(), make_pipeline(StandardScaler(), LinearRegression()), KNeighborsRegressor(3)],
    ids=lambda each: type(each).__name__,
)
def test_a_model_fitted_on_a_column_answers_one_value_a_row(estimator: Any) -> None:
    estimator.fit(DATA, KINDS[:, None] + 0.5)
    assert estimator.predict(DATA).shape == (150, 1)
    manifest = described(estimator, list("abcd"), DATA, KINDS + 0.5)
    assert manifest.metrics["sample_r2"] > 0.9
    model = Model(manifest, SklearnEngine(manifest, estimator))
    answers = [answer.value for answer in model.predict(DATA.tolist()) if answer]
    assert answers == pytest.approx(estimator.predict(DATA)[:, 0])


@pytest.mark.filterwarnings("ignore:A column-vector y was passed")
def test_a_classifier_fitted_on_a_column_answers_a_class_a_row() -> None:
    estimator = RandomForestClassifier(3, random_state=0).fit(DATA, KINDS[:, None])
    manifest = described(estimator, list("abcd"), DATA, KINDS.tolist())
    model = Model(manifest, SklearnEngine(manifest, estimator))
    assert [answer.value for answer in model.predict(DATA.tolist()) if answer] == estimator.predict(DATA).tolist()
