"""Every model of the repository is served as its own data demand, with a documentation that fits."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import joblib
import jsonschema
import numpy as np
import pytest
from sklearn.linear_model import LinearRegression
from sklearn.pipeline import Pipeline
from starlette.testclient import TestClient

from iris_api.engines.model import EngineChoice
from iris_api.engines.reviewed import decider
from iris_api.settings import Settings

from .apps import load, serving
from .paths import MODELS

pytestmark = pytest.mark.kernel

BUNDLES = sorted(path.parent for path in MODELS.glob("*/*/manifest.json"))


@pytest.fixture(params=BUNDLES, ids=lambda path: path.parent.name)
def bundle(request: pytest.FixtureRequest) -> Path:
    path: Path = request.param
    return path


@pytest.fixture(params=["sklearn", "onnx"])
def engine(request: pytest.FixtureRequest) -> EngineChoice:
    choice: EngineChoice = request.param
    return choice


@pytest.fixture
def client(bundle: Path, engine: EngineChoice) -> Iterator[TestClient]:
    with TestClient(serving(Settings(model_dir=bundle), load(bundle, engine))) as client:
        yield client


def manifest(bundle: Path) -> dict[str, Any]:
    content: dict[str, Any] = json.loads((bundle / "manifest.json").read_text())
    return content


def test_a_row_is_answered_as_the_estimator_itself_does(bundle: Path, client: TestClient) -> None:
    estimator = joblib.load(bundle / "model.joblib")
    target = manifest(bundle)["target"]["name"]
    for sample in manifest(bundle)["golden_samples"]:
        answer = client.post("/predict", json=sample["input"]).json()
        row = [list(sample["input"].values())]
        assert answer["prediction"] == pytest.approx(estimator.predict(row)[0], rel=1e-6)
        if hasattr(estimator, "predict_proba"):
            assert answer["prediction_proba"] == pytest.approx(estimator.predict_proba(row)[0], abs=1e-6)
            assert answer[target] == manifest(bundle)["classes"][answer["prediction"]]["name"]


def test_the_documentation_describes_what_is_taken_and_answered(bundle: Path, client: TestClient) -> None:
    openapi = client.get("/openapi.json").json()
    operation = openapi["paths"]["/predict"]["post"]
    content = operation["requestBody"]["content"]["application/json"]
    one = openapi["components"]["schemas"]["Row"]
    assert list(one["properties"]) == [feature["name"] for feature in manifest(bundle)["features"]]
    schema = operation["responses"]["200"]["content"]["application/json"]["schema"] | openapi
    for example in content["examples"].values():
        jsonschema.validate(example["value"], content["schema"] | openapi)
        answer = client.post("/predict", json=example["value"])
        assert answer.status_code == 200
        jsonschema.validate(answer.json(), schema)


def test_a_value_beyond_the_limits_is_refused(bundle: Path, client: TestClient) -> None:
    row = manifest(bundle)["golden_samples"][0]["input"]
    for feature in manifest(bundle)["features"]:
        for value in (feature["minimum"] - 1, feature["maximum"] + 1, 1e308):
            refused = client.post("/predict", json=row | {feature["name"]: value})
            assert refused.status_code == 422
            assert [detail["field"] for detail in refused.json()["details"]] == [feature["name"]]


def test_a_pipeline_taken_apart_answers_as_the_whole_one(bundle: Path) -> None:
    estimator = joblib.load(bundle / "model.joblib")
    rows = np.array([list(sample["input"].values()) for sample in manifest(bundle)["golden_samples"]])
    nested = Pipeline([("nothing", "passthrough"), ("none", None), ("all", estimator)])
    for each in (estimator, nested):
        values, shares = decider(each, manifest(bundle)["probabilities"])(rows)
        assert values == pytest.approx(estimator.predict(rows), rel=1e-12)
        if shares is not None:
            assert shares == pytest.approx(estimator.predict_proba(rows), abs=1e-12)


def test_a_pipeline_of_the_users_own_is_asked_as_a_whole() -> None:
    class Own(Pipeline):  # type: ignore[misc]  # scikit-learn comes without types
        def predict(self, X: Any) -> Any:  # scikit-learn's name
            return np.full(len(X), 7)

    values, _ = decider(Own([("one", "passthrough"), ("two", LinearRegression())]), False)(np.zeros((1, 1)))
    assert values.tolist() == [7]
