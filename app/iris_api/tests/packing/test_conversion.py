"""Conversion to ONNX: what packing hands on is proven to answer as the estimator does, and what isn't says why."""

from __future__ import annotations

import copy
from typing import Any

import joblib
import numpy as np
import pandas
import pytest
from sklearn.base import BaseEstimator, TransformerMixin
from sklearn.cluster import KMeans
from sklearn.compose import ColumnTransformer
from sklearn.covariance import EllipticEnvelope
from sklearn.datasets import load_iris
from sklearn.decomposition import PCA
from sklearn.ensemble import (
    GradientBoostingClassifier,
    HistGradientBoostingClassifier,
    IsolationForest,
    RandomForestClassifier,
    RandomForestRegressor,
)
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.impute import SimpleImputer
from sklearn.linear_model import LinearRegression, LogisticRegression, SGDOneClassSVM
from sklearn.multiclass import OneVsRestClassifier
from sklearn.multioutput import ClassifierChain, MultiOutputClassifier, RegressorChain
from sklearn.neighbors import KNeighborsClassifier
from sklearn.neural_network import MLPClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import Normalizer, OneHotEncoder, PolynomialFeatures, StandardScaler
from sklearn.svm import SVC, LinearSVC, OneClassSVM
from sklearn.tree import DecisionTreeRegressor

from iris_api.bundle.manifest import Manifest, Value
from iris_api.engines.model import Model
from iris_api.packing import conversion
from iris_api.packing.conversion import ConversionError, convert, points
from iris_api.packing.conversion.points import UNKNOWN, proof_points
from iris_api.packing.description import describe
from iris_api.packing.pack import About, Sample
from iris_api.packing.preparation import prepare

from ..paths import BUNDLE

DATA, CLASSES = load_iris(return_X_y=True)
AMOUNTS = np.column_stack([DATA[:, 0] * 2, DATA[:, 1] + CLASSES])
LABELS = np.column_stack([DATA[:, 0] > 6, CLASSES == 2]).astype(int)
WORDS = np.array(["no", "yes"], dtype=object)[LABELS]


class Doubled(TransformerMixin, BaseEstimator):  # type: ignore[misc]
    """A step of somebody's own, which nothing can convert."""

    def fit(self, _rows: Any, _targets: Any = None) -> Doubled:
        self.fitted_ = True
        return self

    def transform(self, rows: Any) -> Any:
        return 2 * rows


@pytest.fixture
def few_points(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, count in {"_GRID_POINTS": 500, "_RANDOM_POINTS": 200, "_MIXED_POINTS": 200, "_BORDER_PAIRS": 20}.items():
        monkeypatch.setattr(points, name, count)


def manifest_for(estimator: Any, data: Any = DATA, *, scores: bool = False) -> Manifest:
    """Describe an estimator as packing does."""
    sample = Sample([f"x{number}" for number in range(data.shape[1])], data)
    content = describe(estimator, About("m", "1", "", scores=scores), sample)
    return Manifest.model_validate({**content, "artifact": "model.joblib", "sha256": 64 * "0"})


@pytest.mark.kernel
def test_a_forest_is_exact_in_double_precision_though_it_compares_in_single() -> None:
    """scikit-learn rounds what it compares: only beside the borders it shows."""
    forest = RandomForestClassifier(10, random_state=0).fit(DATA[:, 2:], CLASSES)
    about = convert(forest, manifest_for(forest, DATA[:, 2:]), DATA[:, 2:]).about
    assert about["precision"] == "double"
    assert about["proof"]["largest_difference"] < 1e-14


@pytest.mark.parametrize(
    "estimator",
    [
        LogisticRegression(max_iter=1000).fit(DATA, CLASSES),
        GradientBoostingClassifier(n_estimators=3, random_state=0).fit(DATA, CLASSES),
        HistGradientBoostingClassifier(max_iter=3).fit(DATA, CLASSES),
        DecisionTreeRegressor(random_state=0).fit(DATA, CLASSES + 0.5),
    ],
    ids=lambda each: type(each).__name__,
)
def test_what_converts_is_proven(estimator: Any) -> None:
    about = convert(estimator, manifest_for(estimator), DATA).about
    assert about["proof"]["largest_difference"] <= 1e-6
    assert about["proof"]["points"]["beside borders"] > 100 or isinstance(estimator, LogisticRegression)


@pytest.mark.usefixtures("few_points")
@pytest.mark.parametrize(
    "estimator",
    [
        RandomForestRegressor(3, max_depth=4, random_state=0).fit(DATA, AMOUNTS),
        RandomForestClassifier(3, max_depth=4, random_state=0).fit(DATA, WORDS),
        LinearRegression().fit(DATA, AMOUNTS),
        MultiOutputClassifier(LogisticRegression(max_iter=500)).fit(DATA, WORDS),
        OneVsRestClassifier(LogisticRegression(max_iter=500)).fit(DATA, LABELS),
        ClassifierChain(LogisticRegression(max_iter=500), order=[1, 0]).fit(DATA, LABELS),
        RegressorChain(LinearRegression(), order=[1, 0]).fit(DATA, AMOUNTS),
        MLPClassifier((4,), max_iter=20, random_state=0).fit(DATA, LABELS),
        IsolationForest(n_estimators=5, max_features=2, contamination=0.1, random_state=0).fit(DATA),
        OneClassSVM(nu=0.2).fit(DATA),
        SGDOneClassSVM(random_state=0).fit(DATA),
        EllipticEnvelope(random_state=0).fit(DATA),
        make_pipeline(StandardScaler(), KMeans(3, n_init=1, random_state=0)).fit(DATA),
        make_pipeline(StandardScaler(), PolynomialFeatures(2)).fit(DATA),
        PCA(1).fit(DATA),
        LinearSVC(random_state=0).fit(DATA, CLASSES),
        SVC(decision_function_shape="ovo").fit(DATA, CLASSES),
        SVC().fit(DATA, CLASSES),
        SVC().fit(DATA, CLASSES == 2),
    ],
    ids=lambda each: type(each).__name__,
)
def test_lists_and_scores_are_proven_in_double(estimator: Any) -> None:
    manifest = manifest_for(estimator, scores=True)
    about = convert(estimator, manifest, DATA).about
    assert about["precision"] == "double" and about["proof"]["largest_difference"] < 1e-12
    assert ("scores" in about) == (manifest.outputs is None and manifest.task != "clustering")


@pytest.mark.usefixtures("few_points")
@pytest.mark.parametrize(
    ("estimator", "wrong", "reason"),
    [
        (LinearRegression().fit(DATA, AMOUNTS), {"intercept_": np.array([0.0, 1e-3])}, "answers differ"),
        (OneClassSVM(nu=0.2).fit(DATA), {"_intercept_": np.array([1e-3])}, "answers differ|another class"),
        (IsolationForest(n_estimators=3, random_state=0).fit(DATA), {"offset_": -0.4}, "differ|another class"),
        (KMeans(3, n_init=1, random_state=0).fit(DATA), {"cluster_centers_": DATA[:3]}, "another class"),
    ],
    ids=lambda each: type(each).__name__,
)
def test_the_proof_says_no_to_lists_scores_and_clusters_too(
    monkeypatch: pytest.MonkeyPatch, estimator: Any, wrong: dict[str, Any], reason: str
) -> None:
    other = copy.deepcopy(estimator)
    for name, value in wrong.items():
        setattr(other, name, getattr(other, name) + value if name.endswith("intercept_") else value)
    attempts = conversion._attempts
    monkeypatch.setattr(conversion, "_attempts", lambda _, *rest: attempts(other, *rest))
    with pytest.raises(ConversionError, match=reason):
        convert(estimator, manifest_for(estimator), DATA)


@pytest.mark.parametrize(
    ("estimator", "reason"),
    [
        (make_pipeline(Normalizer("max"), Doubled(), LogisticRegression()).fit(DATA, CLASSES), "it does not convert"),
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
    attempts = conversion._attempts
    monkeypatch.setattr(conversion, "_attempts", lambda _, *rest: attempts(other, *rest))
    with pytest.raises(ConversionError, match=r"double: .* differ|double: .* another class"):
        convert(estimator, Model.load(BUNDLE).manifest, DATA[:, 2:])


def test_half_of_what_is_compared_has_a_value_at_a_limit_missing_or_unknown() -> None:
    names = ["amount", "account", "city"]
    table: list[list[Value]] = [[1.5, 2**53 - 1, "Bern"], [None, 7, "Zug"], [2.5, 2**53 + 3, "Bern"]]
    number: dict[str, Any] = {"description": "", "unit": "", "reference": {"edges": [], "shares": [1]}}
    limits = {"minimum": 0, "maximum": 2**60, "training_minimum": 7, "training_maximum": 2**53 + 3}
    content = manifest_for(LogisticRegression().fit(DATA[:, :3], CLASSES), DATA[:, :3]).model_dump()
    content |= {"format": 4, "golden_samples": [{"input": dict(zip(names, table[0], strict=True)), "prediction": 0}]}
    content |= {"probabilities": False, "table": {"form": "objects", "columns": 3 * [{"dtype": "object"}]}}
    content["features"] = [
        {**number, **limits, "name": "amount", "kind": "number", "nullable": True},
        {**number, **limits, "name": "account", "kind": "integer"},
        {**number, "reference": None, "name": "city", "kind": "category", "values": ["Bern", "Zug"], "open": True}
        | {"shares": []},
    ]
    found = proof_points(Manifest.model_validate(content), table)
    changed = found.pop("at limits, missing or unknown")
    assert len(changed) == sum(map(len, found.values()))
    amounts, accounts, cities = (set(column) for column in changed.T)
    assert {None, 0.0, float(2**60)} <= amounts
    assert {2**53 + 1, 0, 2**60} <= accounts and all(type(each) is int for each in accounts)
    assert UNKNOWN in cities and UNKNOWN not in set(found["training data"][:, 2])


@pytest.mark.usefixtures("few_points")
def test_texts_and_none_among_categories_are_proven_in_double() -> None:
    """Each encoder is asked for its own answer, also to what it does not know."""
    chance = np.random.default_rng(3)
    notes = ["late parcel", "great", "never AGAIN", "\N{LATIN SMALL LETTER U WITH DIAERESIS}bel, co-op"]
    frame = pandas.DataFrame(
        {
            "plan": chance.choice(np.array(["basic", "pro", None], dtype=object), 150),
            "note": chance.choice(notes, 150),
            "hours": chance.exponential(5, 150),
        }
    )
    frame["plan"] = frame["plan"].astype(object)
    frame.loc[::7, "hours"] = np.nan
    columns = ColumnTransformer(
        [
            ("plan", OneHotEncoder(handle_unknown="infrequent_if_exist", min_frequency=20), ["plan"]),
            ("note", TfidfVectorizer(), "note"),
            ("hours", make_pipeline(SimpleImputer(add_indicator=True), StandardScaler()), ["hours"]),
        ]
    )
    target = (frame.plan.isna() ^ (frame.hours > 3)).astype(int)
    estimator = make_pipeline(columns, LogisticRegression()).fit(frame, target)
    about = About("m", "1", "")
    prepared = prepare(estimator, about, Sample(list(frame), frame, target.tolist()))
    content = describe(estimator, about, Sample(list(frame), frame, target.tolist()), prepared=prepared)
    manifest = Manifest.model_validate({**content, "artifact": "model.joblib", "sha256": 64 * "0"})
    proof = convert(estimator, manifest, prepared.rows, categories=prepared.categories).about["proof"]
    assert proof["largest_difference"] < 1e-14
    assert proof["points"]["beside borders"] > 20
