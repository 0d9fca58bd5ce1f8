"""Every answer is the estimator's own, and so is every refusal: by both engines, whatever the estimator."""

from __future__ import annotations

import asyncio
import json
import logging
import math
from collections.abc import Callable, Sequence
from http import HTTPStatus
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from sklearn.calibration import CalibratedClassifierCV
from sklearn.datasets import load_iris, load_wine, make_classification
from sklearn.discriminant_analysis import LinearDiscriminantAnalysis, QuadraticDiscriminantAnalysis
from sklearn.ensemble import (
    AdaBoostClassifier,
    BaggingClassifier,
    ExtraTreesClassifier,
    GradientBoostingClassifier,
    HistGradientBoostingClassifier,
    RandomForestClassifier,
    RandomForestRegressor,
    StackingClassifier,
    VotingClassifier,
)
from sklearn.gaussian_process import GaussianProcessClassifier
from sklearn.linear_model import LinearRegression, LogisticRegression, LogisticRegressionCV, Ridge, SGDClassifier
from sklearn.model_selection import FixedThresholdClassifier, GridSearchCV, TunedThresholdClassifierCV
from sklearn.multiclass import OneVsRestClassifier
from sklearn.naive_bayes import GaussianNB
from sklearn.neighbors import KNeighborsClassifier, RadiusNeighborsClassifier
from sklearn.neural_network import MLPClassifier
from sklearn.pipeline import Pipeline, make_pipeline
from sklearn.preprocessing import (
    FunctionTransformer,
    MaxAbsScaler,
    MinMaxScaler,
    OneHotEncoder,
    PowerTransformer,
    RobustScaler,
    StandardScaler,
)
from sklearn.svm import SVC
from sklearn.tree import DecisionTreeClassifier, DecisionTreeRegressor, ExtraTreeClassifier
from starlette.testclient import TestClient

from iris_api.bundle.files import BundleError
from iris_api.bundle.manifest import Manifest
from iris_api.engines import reviewed
from iris_api.engines.model import Model, RefusedError
from iris_api.engines.sklearn import SklearnEngine
from iris_api.packing import cli, conversion
from iris_api.packing.conversion import ConversionError, convert
from iris_api.packing.description import describe
from iris_api.packing.pack import About, Sample, dump, pack
from iris_api.packing.samples import FeatureText
from iris_api.predict.batching import Batcher
from iris_api.predict.durations import Durations
from iris_api.predict.metrics import Metrics
from iris_api.server.app import build_app
from iris_api.settings import Settings

from ..instance import Instance
from ..paths import BUNDLE, TESTS

pytestmark = pytest.mark.usefixtures("quick_packing")

WINE, CULTIVARS = load_wine(return_X_y=True)
IRIS, SPECIES = load_iris(return_X_y=True)
PAIRS, LABELS = make_classification(200, 4, random_state=0)
Limits = tuple[float | None, float | None]


def manifest_of(estimator: Any, rows: Any, limits: Limits = (None, None)) -> Manifest:
    """Describe an estimator as packing does."""
    names = [f"x{number}" for number in range(rows.shape[1])]
    features = {name: FeatureText(minimum=limits[0], maximum=limits[1]) for name in names}
    about = About("mine", "1", "", features=features)
    content = describe(estimator, about, Sample(names, rows))
    return Manifest.model_validate({**content, "artifact": "model.joblib", "sha256": 64 * "0"})


def served(estimator: Any, rows: Any, limits: Limits = (None, None)) -> Model:
    """Serve an estimator by scikit-learn."""
    manifest = manifest_of(estimator, rows, limits)
    return Model(manifest, SklearnEngine(manifest, estimator))


def around(rows: Any, number: int = 500) -> Any:
    """Return random rows in and a little beyond the ranges of others."""
    low, high = rows.min(axis=0), rows.max(axis=0)
    margin = (high - low) / 4
    return np.random.default_rng(3).uniform(low - margin, high + margin, (number, rows.shape[1]))


def assert_own_answers(model: Model, estimator: Any, rows: Any) -> None:
    answers = model.predict(rows.tolist())
    assert [answer and answer.value for answer in answers] == np.ravel(estimator.predict(rows)).tolist()
    if model.manifest.probabilities:
        shares = [answer.probabilities for answer in answers if answer]
        assert np.array(shares) == pytest.approx(estimator.predict_proba(rows), abs=1e-12)


def two_thirds_vote(_: Any = None) -> VotingClassifier:
    return VotingClassifier([(str(depth), DecisionTreeClassifier(max_depth=depth)) for depth in (1, 2, 3)])


OTHERS = [
    SVC(probability=True, random_state=0),
    CalibratedClassifierCV(GaussianNB()),
    BaggingClassifier(DecisionTreeClassifier(), 4, random_state=0),
    # So small coefficients that all probabilities are the same number, and scores are not.
    LogisticRegression(C=1e-17),
    LogisticRegression(C=1e-16, fit_intercept=False),
    LogisticRegressionCV(Cs=3, use_legacy_attributes=False, l1_ratios=(0.0,)),
    RandomForestClassifier(2, max_depth=3, random_state=0),
    ExtraTreesClassifier(4, max_depth=2, random_state=0),
    DecisionTreeClassifier(max_depth=2, random_state=0),
    ExtraTreeClassifier(max_depth=2, random_state=0),
    two_thirds_vote(),
    VotingClassifier([("a", GaussianNB()), ("b", DecisionTreeClassifier(max_depth=2))], voting="soft"),
    StackingClassifier([("a", GaussianNB())]),
    AdaBoostClassifier(n_estimators=3, random_state=0),
    GradientBoostingClassifier(n_estimators=2, random_state=0),
    HistGradientBoostingClassifier(max_iter=2),
    LinearDiscriminantAnalysis(),
    QuadraticDiscriminantAnalysis(reg_param=0.5),
    GaussianNB(),
    MLPClassifier((4,), max_iter=20, random_state=0),
    SGDClassifier(loss="modified_huber", random_state=0),
    OneVsRestClassifier(LogisticRegression()),
    GaussianProcessClassifier(),
    KNeighborsClassifier(4, weights="distance"),
    RadiusNeighborsClassifier(1e6),
    GridSearchCV(LogisticRegression(), {"C": [1, 2]}),
]


@pytest.mark.kernel
@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("classes", [3, 2])
@pytest.mark.parametrize("estimator", OTHERS, ids=lambda each: type(each).__name__)
def test_the_prediction_is_what_predict_answers(estimator: Any, classes: int) -> None:
    chosen = classes > CULTIVARS
    rows, targets = StandardScaler().fit_transform(WINE)[chosen], CULTIVARS[chosen]
    for each in (estimator, make_pipeline(RobustScaler(), estimator)):
        each.fit(rows, targets)
        # What a rare row may show, a sample of 30 rows does not.
        assert_own_answers(served(each, rows[::6]), each, around(rows))


@pytest.mark.kernel
@pytest.mark.parametrize("threshold", [0.9, 0.1])
@pytest.mark.parametrize("tuned", [False, True])
def test_a_threshold_of_the_models_own_decides(threshold: float, tuned: bool) -> None:
    inner = LogisticRegression().fit(PAIRS, LABELS)
    estimator: Any = FixedThresholdClassifier(inner, threshold=threshold).fit(PAIRS, LABELS)
    if tuned:
        scoring = "precision" if threshold > 0.5 else "recall"
        estimator = TunedThresholdClassifierCV(inner, scoring=scoring, thresholds=10)
        estimator.fit(PAIRS, LABELS)
    rows = around(PAIRS)
    assert (estimator.predict(rows) != inner.predict(rows)).any()
    assert_own_answers(served(estimator, PAIRS), estimator, rows)


class Contrary(RandomForestClassifier):  # type: ignore[misc]  # scikit-learn comes without types
    """A classifier that answers the class it believes in least."""

    def predict(self, X: Any) -> Any:  # scikit-learn's name
        return self.classes_[self.predict_proba(X).argmin(axis=1)]


def test_a_subclass_is_not_on_the_list() -> None:
    estimator = Contrary(10, random_state=0).fit(IRIS, SPECIES)
    assert_own_answers(served(estimator, IRIS), estimator, IRIS)


def test_the_review_is_of_the_version_that_is_installed() -> None:
    """Another one must be read again, each type that is named in `reviewed`; until then it is asked all questions."""
    tree = DecisionTreeClassifier(max_depth=1).fit(IRIS, SPECIES)
    assert reviewed._is_reviewed(tree, reviewed.MOST_PROBABLE)


def test_a_version_that_was_not_reviewed_is_asked_all_questions(monkeypatch: pytest.MonkeyPatch) -> None:
    estimator = LogisticRegression(max_iter=1000).fit(IRIS, SPECIES)
    monkeypatch.setattr(reviewed, "REVIEWED", "1.8")
    model = served(estimator, IRIS)
    assert not reviewed.is_finite_throughout(estimator, model.manifest)
    assert_own_answers(model, estimator, around(IRIS))


def test_the_proof_asks_for_the_class_and_not_for_the_most_probable_one(monkeypatch: pytest.MonkeyPatch) -> None:
    """The conversion's probabilities are right to the last bit, and its classes those of another rule."""
    estimator = Contrary(10, max_depth=2, random_state=0).fit(IRIS, SPECIES)
    plain = RandomForestClassifier(10, max_depth=2, random_state=0).fit(IRIS, SPECIES)
    to_onnx = conversion._to_onnx
    manifest = manifest_of(estimator, IRIS)
    monkeypatch.setattr(conversion, "_to_onnx", lambda _, *rest: to_onnx(plain, *rest))
    with pytest.raises(ConversionError, match=r"float by skl2onnx: training data: .* rows get another class"):
        convert(estimator, manifest, IRIS)


@pytest.mark.parametrize("scaled", [True, False])
def test_votes_of_a_support_vector_machine_are_served_or_not_proven(scaled: bool, tmp_path: Path) -> None:
    """Of these 500 rows 13 were answered wrong, by both engines, and called proven."""
    steps = [StandardScaler()] if scaled else []
    estimator = make_pipeline(*steps, SVC(probability=True, random_state=0)).fit(WINE, CULTIVARS)
    names = load_wine().feature_names
    sample = Sample(names, WINE[::6])
    manifest = pack(tmp_path / "svc", About("svc", "1", ""), "model.joblib", dump(estimator), sample)
    rows = np.random.default_rng(1).uniform(WINE.min(axis=0), WINE.max(axis=0), (500, 13))
    for engine in ["sklearn", *(["onnx"] if manifest.onnx else [])]:
        assert_own_answers(Model.load(tmp_path / "svc", engine), estimator, rows)  # type: ignore[arg-type]


def test_a_bundle_of_release_1_0_0_is_served_and_its_proof_does_not_count(
    copied_bundle: Path, caplog: pytest.LogCaptureFixture, capsys: pytest.CaptureFixture[str]
) -> None:
    (copied_bundle / "manifest.json").write_bytes((TESTS / "data" / "iris-1.0.0-format-2.json").read_bytes())
    with caplog.at_level(logging.INFO):
        model = Model.load(copied_bundle)
    assert model.engine.name == "sklearn"
    assert "its proof is of format 2" in caplog.text
    (answer,) = model.predict([[6.5, 0.8]])
    assert answer and (answer.value, answer.name) == (2, "virginica")
    with pytest.raises(BundleError, match="pack it again with iris-model pack"):
        Model.load(copied_bundle, "onnx")
    assert cli.main(["check", str(copied_bundle)]) == 0
    assert "answered by scikit-learn alone; not by ONNX Runtime: its proof is of format 2" in capsys.readouterr().out


# What the estimator refuses.

LOGARITHM = FunctionTransformer(np.log)
POSITIVE = np.random.default_rng(0).uniform(1, 9, (80, 2))
CURVE = make_pipeline(LOGARITHM, RandomForestRegressor(5, random_state=0)).fit(POSITIVE, POSITIVE.sum(axis=1))
SIDES = make_pipeline(LOGARITHM, RandomForestClassifier(5, random_state=0)).fit(POSITIVE, POSITIVE[:, 0] > 5)


@pytest.fixture(params=[CURVE, SIDES], ids=["regressor", "classifier"])
def logarithmic(request: pytest.FixtureRequest) -> Model:
    # Beyond the sample by ten times its width, which nobody said is impossible.
    return served(request.param, POSITIVE)


@pytest.mark.filterwarnings("ignore")
def test_a_value_that_the_estimator_refuses_is_refused_by_name(logarithmic: Model) -> None:
    with pytest.raises(ValueError, match="infinity"):
        CURVE.predict([[3.0, 0.0]])
    with TestClient(build_app(Settings(model_dir=BUNDLE), logarithmic)) as client:
        assert client.post("/predict", json={"x0": 3, "x1": 4}).status_code == HTTPStatus.OK
        refused = client.post("/predict", json={"x0": 3, "x1": 0})
        assert (refused.status_code, refused.json()["code"]) == (422, "no_answer")
        (detail,) = refused.json()["details"]
        assert detail["field"] == "x1"
        assert detail["reason"].startswith("The model refuses it: Input X contains infinity")
        # Two at once: neither of them alone is to blame.
        (detail,) = client.post("/predict", json={"x0": 0, "x1": 0}).json()["details"]
        assert detail["field"] == "body"
        rows = [{"x0": 3, "x1": 4}, {"x0": 0, "x1": 4}, {"x0": 3, "x1": 4}]
        (detail,) = client.post("/predict", json=rows).json()["details"]
        assert detail["field"] == "1.x0"
        assert 'reason="no_answer"} 3.0' in client.get("/metrics").text
        tensor = {"name": "input", "shape": [2, 2], "datatype": "FP64", "data": [3, 4, 3, 0]}
        refused = client.post("/v2/models/mine/infer", json={"inputs": [tensor]})
        assert refused.status_code == HTTPStatus.BAD_REQUEST
        assert "1.x1: The model refuses it" in refused.json()["error"]


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("rows", [1, 2, 3, 8, 1000])
def test_the_first_row_that_is_refused_is_found_in_few_calls(rows: int) -> None:
    model, calls = served(CURVE, POSITIVE), 0
    engine = model.engine

    def count(some: Sequence[Sequence[float]]) -> Any:
        nonlocal calls
        calls += 1
        return engine(some)

    model.engine = count  # type: ignore[assignment]
    for bad in {0, rows // 2, rows - 1}:
        calls = 0
        with pytest.raises(RefusedError) as caught:
            model.predict([[3, 0] if number >= bad else [3, 4] for number in range(rows)])
        assert (caught.value.row, caught.value.field) == (bad, "x1")
        assert calls <= 5 + math.log2(rows) + 1


def test_an_error_that_is_no_rows_fault_stays_one(monkeypatch: pytest.MonkeyPatch) -> None:
    model = served(CURVE, POSITIVE)
    broken = ValueError("broken")

    def fail(_rows: object) -> Any:
        raise broken

    monkeypatch.setattr(model, "engine", fail)
    with pytest.raises(ValueError, match="broken"):
        model.predict([[3, 4]])


@pytest.mark.filterwarnings("ignore")
def test_one_refused_request_fails_nobody_elses(settings: Settings) -> None:
    async def ask(batcher: Batcher) -> list[Any]:
        requests = (batcher.predict([[3.0, 4.0], [3.0, value]]) for value in (4.0, 0.0, 5.0))
        return await asyncio.gather(*requests, return_exceptions=True)

    model = served(CURVE, POSITIVE)
    metrics = Metrics(settings, model.manifest, "sklearn")
    durations = Durations(call=1e-4, row=1e-6)
    batcher = Batcher(model, metrics, durations, deadline=4, max_batch_rows=64, max_waiting_rows=64)
    first, refused, last = asyncio.run(ask(batcher))
    assert isinstance(refused, RefusedError)
    assert (refused.row, refused.field) == (1, "x1")
    assert [len(first), len(last)] == [2, 2]


@pytest.mark.kernel
@pytest.mark.parametrize("estimator", [DecisionTreeRegressor(), RandomForestRegressor(3), DecisionTreeClassifier()])
def test_a_value_that_single_precision_cannot_hold_is_refused_as_the_trees_do(estimator: Any) -> None:
    model = served(estimator.fit(POSITIVE, POSITIVE[:, 0] // 2), POSITIVE, (0, 1e39))
    with pytest.raises(ValueError, match="too large"):
        estimator.predict([[3, 1e39]])
    with pytest.raises(RefusedError, match=r"row 0, x1: .*too large"):
        model.predict([[3, 1e39]])


@pytest.mark.parametrize(
    ("estimator", "limits", "expected"),
    [
        (make_pipeline(StandardScaler(), LogisticRegression()), (None, None), True),
        (make_pipeline(MinMaxScaler(), Pipeline([("a", MaxAbsScaler()), ("b", Ridge())])), (None, None), True),
        (make_pipeline("passthrough", RobustScaler(), RandomForestClassifier(2)), (None, None), True),
        (LinearRegression(), (None, None), True),
        (DecisionTreeClassifier(), (0, 1e39), False),
        (make_pipeline(StandardScaler(), LogisticRegression()), (0, 1e39), False),
        (make_pipeline(FunctionTransformer(np.exp), Ridge()), (None, None), False),
        (make_pipeline(StandardScaler(), PowerTransformer(), Ridge()), (None, None), False),
        (make_pipeline(StandardScaler(), GaussianNB()), (None, None), False),
        (BaggingClassifier(make_pipeline(FunctionTransformer(np.log1p), LogisticRegression())), (None, None), False),
        (Contrary(2), (None, None), False),
    ],
)
def test_checks_are_left_out_only_where_they_are_known_to_pass(estimator: Any, limits: Limits, expected: bool) -> None:
    estimator.fit(POSITIVE, POSITIVE[:, 0] > 5)
    assert reviewed.is_finite_throughout(estimator, manifest_of(estimator, POSITIVE, limits)) is expected


BOX_COX = make_pipeline(PowerTransformer("box-cox"), LogisticRegression()).fit(POSITIVE, POSITIVE[:, 0] > 5)


def test_what_the_estimator_refuses_is_never_left_to_onnx() -> None:
    """ONNX Runtime cannot refuse: it answers the power of a number below zero by some class."""
    with pytest.raises(
        ConversionError, match=r"edges of what is accepted: the estimator refuses x\d = -.*a minimum and"
    ):
        convert(BOX_COX, manifest_of(BOX_COX, POSITIVE), POSITIVE)


def test_what_is_not_accepted_need_not_be_answered() -> None:
    tree = DecisionTreeClassifier().fit(POSITIVE, POSITIVE[:, 0] > 5)
    with pytest.raises(ConversionError, match=r"the estimator refuses x0 = 1e\+39"):
        convert(tree, manifest_of(tree, POSITIVE, (0, 1e39)), POSITIVE)
    converted = convert(tree, manifest_of(tree, POSITIVE, (0, 1e38)), POSITIVE)
    assert converted.about["proof"]["points"]["edges of what is accepted"] > 10


def test_a_model_that_refuses_what_it_does_not_know_has_no_onnx() -> None:
    """Of the random points of what is accepted it knows none, and a converted encoder would take them for nothing."""
    rows = POSITIVE // 3
    known = make_pipeline(OneHotEncoder(handle_unknown="error"), LogisticRegression()).fit(rows, rows[:, 0] > 1)
    with pytest.raises(ConversionError, match=r"the estimator refuses .*Found unknown categories"):
        convert(known, manifest_of(known, rows, (0, 9)), rows)


@pytest.mark.parametrize(
    ("estimator", "rows", "asked", "expected"),
    [
        (CURVE, POSITIVE, {"a": 3, "b": 0}, 422),
        (
            make_pipeline(OneHotEncoder(handle_unknown="warn"), Ridge()).fit(POSITIVE // 3, POSITIVE[:, 0]),
            POSITIVE // 3,
            {"a": 1, "b": 1.5},
            200,
        ),
    ],
    ids=["refused", "warned of"],
)
def test_what_a_model_says_of_a_value_does_not_fill_the_log(
    start: Callable[..., Instance], tmp_path: Path, estimator: Any, rows: Any, asked: dict[str, float], expected: int
) -> None:
    pack(
        tmp_path / "mine", About("mine", "1", ""), "model.joblib", dump(estimator), Sample(["a", "b"], rows), onnx=False
    )
    instance = start(tmp_path / "mine")
    instance.wait_until_ready()
    before = len(instance.log_text.splitlines())
    for _ in range(20):
        status, answer, _ = instance.request("POST", "/predict", asked)
        assert status == expected
        assert status == 200 or answer["details"][0]["field"] == "b"
    after = instance.log_text.splitlines()[before:]
    assert not [line for line in after if "Warning" in line or "Traceback" in line]
    assert all(json.loads(line) for line in after)
