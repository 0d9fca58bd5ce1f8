"""Estimators that answer anything but one class or one number: each is served with what it answers itself."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import jsonschema
import numpy as np
import pandas as pd
import pytest
from sklearn.cluster import DBSCAN, Birch, KMeans
from sklearn.datasets import load_iris
from sklearn.ensemble import IsolationForest, RandomForestClassifier
from sklearn.linear_model import LinearRegression, LogisticRegression
from sklearn.model_selection import GridSearchCV
from sklearn.neighbors import KNeighborsClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import FunctionTransformer, OneHotEncoder, StandardScaler
from sklearn.svm import LinearSVC, OneClassSVM
from starlette.testclient import TestClient

from iris_api.bundle.golden import is_golden
from iris_api.bundle.manifest import Manifest
from iris_api.engines.model import Model
from iris_api.packing.pack import About, PackError, Sample, dump, pack
from iris_api.packing.samples import FeatureText
from iris_api.server.app import build_app
from iris_api.settings import Settings

pytestmark = pytest.mark.usefixtures("quick_packing")

ROWS, CLASSES = load_iris(return_X_y=True)
NAMES = ["a", "b", "c", "d"]


def deep(rows: Any) -> Any:
    return rows[:, :, None]


def packed(folder: Path, estimator: Any, **about: Any) -> tuple[Manifest, TestClient]:
    bundle = folder / "mine" / "1"
    known = About("mine", "1", "A model.", **about)
    manifest = pack(bundle, known, "model.joblib", dump(estimator), Sample(NAMES, ROWS))
    return manifest, TestClient(build_app(Settings(model_dir=bundle), Model.load(bundle)))


def asked(client: TestClient) -> tuple[list[dict[str, Any]], dict[str, dict[str, Any]]]:
    """Return the answers to all rows, by /predict and by the protocol, each as its document describes it."""
    with client:
        answers = client.post("/predict", json=[dict(zip(NAMES, row, strict=True)) for row in ROWS.tolist()]).json()
        openapi = client.get("/openapi.json").json()
        schema = openapi["paths"]["/predict"]["post"]["responses"]["200"]["content"]["application/json"]["schema"]
        jsonschema.validate(answers, schema | openapi)
        tensor = {"name": "input", "shape": list(ROWS.shape), "datatype": "FP64", "data": ROWS.ravel().tolist()}
        outputs = client.post("/v2/models/mine/infer", json={"inputs": [tensor]}).json()["outputs"]
        described = client.get("/v2/models/mine").json()["outputs"]
        assert client.get("/metrics").status_code == 200
    assert [(each["name"], each["datatype"]) for each in outputs] == [
        (each["name"], each["datatype"]) for each in described
    ]
    return answers, {each["name"]: each for each in outputs}


@pytest.mark.parametrize("estimator", [IsolationForest(n_estimators=5, random_state=0), OneClassSVM()])
def test_outliers_have_a_score(tmp_path: Path, estimator: Any) -> None:
    estimator.fit(ROWS)
    manifest, client = packed(tmp_path, estimator)
    answers, outputs = asked(client)
    assert [answer["prediction"] for answer in answers] == estimator.predict(ROWS).tolist()
    assert {answer["label"] for answer in answers} == {"inlier", "outlier"}
    scores = estimator.decision_function(ROWS)
    assert np.ravel([answer["scores"] for answer in answers]) == pytest.approx(scores)
    assert outputs["scores"]["data"] == pytest.approx(scores) and outputs["scores"]["shape"] == [len(ROWS), 1]
    assert manifest.task == "outlier_detection" and manifest.onnx and manifest.onnx.scores


def test_clusters_are_classes(tmp_path: Path) -> None:
    estimator = KMeans(4, n_init=1, random_state=0).fit(ROWS)
    manifest, client = packed(tmp_path, estimator, class_names=["w", "x", "y", "z"])
    answers, _ = asked(client)
    assert [answer["prediction"] for answer in answers] == estimator.predict(ROWS).tolist()
    assert sum(each.share for each in manifest.classes or []) == pytest.approx(1)
    assert {answer["label"] for answer in answers} == {"w", "x", "y", "z"}


@pytest.mark.parametrize(
    "estimator",
    [
        make_pipeline(StandardScaler(), KMeans(4, n_init=1, random_state=0)),
        GridSearchCV(make_pipeline(KMeans(n_init=1, random_state=0)), {"kmeans__n_clusters": [4]}),
        Birch(n_clusters=None, threshold=1.5),
        Birch(n_clusters=KMeans(4, n_init=1, random_state=0)),
    ],
    ids=["pipeline", "search", "unbounded", "nested"],
)
def test_a_cluster_without_a_row_in_the_sample_is_a_class_too(tmp_path: Path, estimator: Any) -> None:
    found = estimator.fit(ROWS).predict(ROWS)
    largest = int(found.max())
    bundle = tmp_path / "mine" / "1"
    sample = Sample(NAMES, ROWS[found < largest])
    manifest = pack(bundle, About("mine", "1", "A model."), "model.joblib", dump(estimator), sample, onnx=False)
    assert [each.value for each in manifest.classes or []] == list(range(largest + 1))
    answers = Model.load(bundle).predict(ROWS.tolist())
    assert [answer.value for answer in answers if answer] == found.tolist()


def test_a_gap_that_is_promised_and_refused_is_refused_of_a_table_of_numbers_too(tmp_path: Path) -> None:
    estimator = LogisticRegression().fit(ROWS, CLASSES)
    with pytest.raises(PackError, match="b is nullable, as --features says, but the model refuses a missing value"):
        packed(tmp_path, estimator, features={"b": FeatureText(nullable=True)})


def test_scores_of_a_classifier_where_they_are_wanted(tmp_path: Path) -> None:
    estimator = LinearSVC(random_state=0).fit(ROWS, CLASSES)
    _, client = packed(tmp_path, estimator, scores=True)
    answers, outputs = asked(client)
    assert [answer["prediction"] for answer in answers] == estimator.predict(ROWS).tolist()
    assert np.array([answer["scores"] for answer in answers]) == pytest.approx(estimator.decision_function(ROWS))
    assert outputs["scores"]["shape"] == [len(ROWS), 3]


def test_several_targets_have_names(tmp_path: Path) -> None:
    targets = np.column_stack([ROWS[:, 0] * 2, ROWS[:, 1] + 1])
    estimator = LinearRegression().fit(ROWS, targets)
    manifest, client = packed(tmp_path, estimator, outputs=["double", "more"])
    answers, outputs = asked(client)
    assert np.array([answer["prediction"] for answer in answers]) == pytest.approx(estimator.predict(ROWS))
    assert answers[5]["outputs"] == {"double": pytest.approx(targets[5, 0]), "more": pytest.approx(targets[5, 1])}
    assert outputs["more"]["data"] == pytest.approx(targets[:, 1])
    assert manifest.task == "several_targets"


@pytest.mark.parametrize("names", [None, ["no", "yes"]])
def test_several_labels(tmp_path: Path, names: list[str] | None) -> None:
    labels = np.column_stack([ROWS[:, 0] > 6, CLASSES == 2]).astype(int)
    wanted = labels if names is None else np.array(names, dtype=object)[labels]
    estimator = (RandomForestClassifier(5, random_state=0) if names is None else KNeighborsClassifier(1)).fit(
        ROWS, wanted
    )
    _, client = packed(tmp_path, estimator)
    answers, outputs = asked(client)
    assert [answer["prediction"] for answer in answers] == estimator.predict(ROWS).tolist()
    assert outputs["label_2"]["datatype"] == ("INT64" if names is None else "BYTES")


def test_a_transformer(tmp_path: Path) -> None:
    estimator = StandardScaler().fit(ROWS)
    manifest, client = packed(tmp_path, estimator)
    answers, _ = asked(client)
    assert np.array([answer["prediction"] for answer in answers]) == pytest.approx(estimator.transform(ROWS))
    assert [output.name for output in manifest.outputs or []] == ["x0", "x1", "x2", "x3"]
    assert "x3" in (tmp_path / "mine" / "1" / "MODEL_CARD.md").read_text()


@pytest.mark.parametrize(
    ("estimator", "about", "complaint"),
    [
        (DBSCAN().fit(ROWS), {}, "neither a classifier nor a regressor, nor anything else"),
        (OneHotEncoder().fit(ROWS), {}, "a sparse matrix"),
        (FunctionTransformer(deep), {}, "an array of 3 dimensions"),
        (StandardScaler().fit(ROWS), {"outputs": ["a"]}, "answers 4 values a row, but 1 names"),
        (StandardScaler().fit(ROWS), {"outputs": ["a", "b", "c", "prediction"]}, "taken by the answer itself"),
        (StandardScaler().fit(ROWS), {"outputs": ["a", "b", "c", "c"]}, "two outputs have the same name"),
    ],
)
def test_what_answers_nothing_that_can_be_served(
    tmp_path: Path, estimator: Any, about: dict[str, Any], complaint: str
) -> None:
    with pytest.raises((PackError, AttributeError), match=complaint):
        packed(tmp_path, estimator, **about)


def test_a_sparse_matrix_is_called_one_of_a_table_with_names_too(tmp_path: Path) -> None:
    table = pd.DataFrame({"city": ["Bern", "Zug"] * 5})
    artifact = dump(OneHotEncoder().fit(table))
    with pytest.raises(PackError, match=r"^The model answers a sparse matrix.*sparse_output=False"):
        pack(tmp_path / "mine" / "1", About("mine", "1", "A model."), "model.joblib", artifact, table)


@pytest.mark.parametrize(
    ("answer", "golden"),
    [
        ({"prediction": [1.0 + 1e-12, "a"], "scores": [0.5]}, True),
        ({"prediction": [1.1, "a"], "scores": [0.5]}, False),
        ({"prediction": [1.0, "b"], "scores": [0.5]}, False),
        ({"prediction": [1.0], "scores": [0.5]}, False),
        ({"prediction": 1.0, "scores": [0.5]}, False),
        ({"prediction": [1.0, "a"], "scores": [0.6]}, False),
        ({"prediction": [1.0, "a"]}, False),
        ({"prediction": [1.0, "a"], "scores": [0.5, 0.5]}, False),
    ],
)
def test_lists_and_scores_are_compared(answer: dict[str, Any], golden: bool) -> None:
    sample = {"prediction": [1.0, "a"], "probabilities": None, "scores": [0.5]}
    assert is_golden(sample, answer, classification=False, tolerance=1e-9) == golden


def test_a_list_is_written_to_the_manifest_as_it_is_answered(tmp_path: Path) -> None:
    packed(tmp_path, StandardScaler().fit(ROWS))
    manifest = json.loads((tmp_path / "mine" / "1" / "manifest.json").read_text())
    assert manifest["format"] == 4 and len(manifest["golden_samples"][0]["prediction"]) == 4
