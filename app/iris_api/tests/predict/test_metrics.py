"""What a practitioner reads from /metrics."""

from __future__ import annotations

import itertools
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from prometheus_client.parser import text_string_to_metric_families
from starlette.testclient import TestClient

from iris_api.bundle.manifest import Category, CategoryShare, Feature
from iris_api.engines.model import Model, Prediction
from iris_api.packing.features import number_feature
from iris_api.packing.samples import FeatureText
from iris_api.predict.metrics import Metrics, Spread
from iris_api.server.app import build_app
from iris_api.settings import Settings

from ..paths import MODELS, ROOT

BUNDLES = sorted(path.parent for path in MODELS.glob("*/*/manifest.json"))


def read(client: TestClient) -> dict[tuple[str, ...], float]:
    """Return each sample's value by its name and the values of its labels (feature before bin), but the model's."""
    families = text_string_to_metric_families(client.get("/metrics").text)
    found = {}
    for sample in (sample for family in families for sample in family.samples):
        labels = sorted(sample.labels.keys() - {"model", "version"}, reverse=True)
        found[sample.name.removeprefix("iris_api_"), *(sample.labels[label] for label in labels)] = sample.value
    return found


@pytest.fixture
def regressor(settings: Settings) -> Iterator[TestClient]:
    with TestClient(build_app(settings, Model.load(MODELS / "diabetes" / "1.0.0"))) as client:
        yield client


def test_values_and_answers_are_counted_by_bins_of_the_training_data(client: TestClient) -> None:
    rows = [{"petal_length": 1.4, "petal_width": 0.2}, {"petal_length": 6.9, "petal_width": 0.2}]
    client.post("/predict", json=rows)
    client.post("/predict", json={"petal_length": 7, "petal_width": 0.2})
    found = read(client)
    assert found["feature_values_total", "petal_length", "1"] == 1
    assert found["feature_values_total", "petal_length", "5"] == 2
    assert found["feature_values_total", "petal_width", "1"] == 3
    assert found["feature_values_total", "petal_width", "5"] == 0
    assert found["out_of_range_values_total", "petal_length"] == 1
    assert found["out_of_range_values_total", "petal_width"] == 0
    assert found["predictions_total", "setosa"] == 1
    assert sum(found["predictions_total", name] for name in ("setosa", "versicolor", "virginica")) == 3
    for feature in ("petal_length", "petal_width"):
        assert sum(found["feature_training_ratio", feature, str(number)] for number in range(1, 6)) == pytest.approx(1)
    assert found["class_training_ratio", "setosa"] == pytest.approx(1 / 3)
    assert found["prediction_confidence_count",] == 3
    assert found["prediction_confidence_bucket", "1.0"] == 3


def test_what_the_data_looked_like_is_said_of_the_model_that_saw_it(client: TestClient, regressor: TestClient) -> None:
    """The counts of two versions are not added up when one follows the other on the same instance."""
    per_model = ("feature_", "out_of_range_", "predictions_", "predicted_", "class_training_", "prediction_confidence")
    for served, name in ((client, "iris"), (regressor, "diabetes")):
        samples = [
            sample
            for family in text_string_to_metric_families(served.get("/metrics").text)
            for sample in family.samples
            if sample.name.removeprefix("iris_api_").startswith(per_model)
        ]
        assert samples
        assert {(sample.labels.get("model"), sample.labels.get("version")) for sample in samples} == {(name, "1.0.0")}


def test_of_how_many_rows_the_training_data_was_is_said_where_it_is_known(
    settings: Settings, client: TestClient, model: Model
) -> None:
    assert read(client)["training_rows",] == 120
    older = model.manifest.model_copy(update={"training_rows": None})
    assert "training_rows" not in Metrics(settings, older, "onnx").render().decode()


@pytest.mark.parametrize(("categories", "nullable", "own"), [(5, False, 5), (9, False, 9), (9, True, 8), (20, True, 8)])
def test_a_feature_has_at_most_ten_bins_and_they_hold_every_value(categories: int, nullable: bool, own: int) -> None:
    names: list[Category] = [f"c{number}" for number in range(categories)]
    missing = 0.1 if nullable else 0.0
    # The most frequent one last, as a bundle may have them that somebody wrote.
    shares = [
        CategoryShare(value=name, share=(1 - missing) * number / sum(range(categories + 1)))
        for number, name in enumerate(names, 1)
    ]
    spread = Spread(
        Feature(
            name="city",
            description="",
            unit="",
            kind="category",
            open=True,
            values=names,
            shares=shares,
            nullable=nullable,
            missing=missing,
        )
    )
    assert set(spread.labels) == {*names[categories - own :], "other", *(["missing"] if nullable else [])}
    assert len(spread.labels) <= 10
    assert sum(spread.shares) == pytest.approx(1)
    for value in [*names, "unheard of", *([None] if nullable else [])]:
        spread.count(value)
    assert sum(spread.counts) == categories + 1 + nullable
    assert dict(zip(spread.labels, spread.counts, strict=True))["other"] == categories - own + 1


def test_the_shares_of_a_number_that_is_missing_at_times_add_up_to_one() -> None:
    values = np.random.default_rng(7).normal(size=200)
    values[:50] = np.nan
    spread = Spread(Feature(**number_feature("age", values, FeatureText())))
    assert spread.labels == ["1", "2", "3", "4", "5", "missing"]
    assert spread.shares == pytest.approx([0.15] * 5 + [0.25])
    spread.count_all(values)
    assert spread.counts == [30] * 5 + [50]


def test_calls_of_the_model_are_counted_with_their_rows_and_times(client: TestClient) -> None:
    row = {"petal_length": 1.4, "petal_width": 0.2}
    client.post("/predict", json=[row] * 3)
    client.post("/predict", json=row)
    found = read(client)
    assert (found["batch_rows_count",], found["batch_rows_sum",]) == (2, 4)
    assert found["batch_rows_bucket", "1.0"] == 1
    assert found["inference_duration_seconds_count",] == 2
    assert 0 < found["inference_duration_seconds_sum",] < 1
    assert found["queue_wait_seconds_count",] == 2
    assert found["queue_rows",] == 0


@pytest.mark.parametrize(
    ("body", "content_type", "reason"),
    [
        ("{", "application/json", "invalid_json"),
        ("{}", "application/json", "invalid_input"),
        ("{}", "text/plain", "unsupported_media_type"),
        (" " * 2000, "application/json", "body_too_large"),
        (f"[{','.join(['1'] * 400)}]", "application/json", "too_many_rows"),
    ],
)
def test_refusals_are_counted_by_their_reason(
    settings: Settings, model: Model, body: str, content_type: str, reason: str
) -> None:
    with TestClient(build_app(settings.model_copy(update={"max_rows": 300}), model)) as client:
        for path, count in (("/predict", 1), ("/v2/models/iris/infer", 2)):
            client.post(path, content=body, headers={"Content-Type": content_type})
            if reason != "too_many_rows":
                assert read(client)["rejected_requests_total", reason] == count
        assert read(client)["rejected_requests_total", reason] >= 1


def test_a_regressor_is_counted_by_bins_of_its_target(regressor: TestClient) -> None:
    example = regressor.get("/openapi.json").json()["paths"]["/predict"]["post"]["requestBody"]
    row = example["content"]["application/json"]["examples"]["row"]["value"]
    regressor.post("/predict", json=row)
    found = read(regressor)
    assert sum(found["predicted_values_total", str(number)] for number in range(1, 6)) == 1
    assert sum(found["predicted_value_training_ratio", str(number)] for number in range(1, 6)) == pytest.approx(1)
    assert not any(name[0].startswith("predictions") for name in found)


@pytest.mark.parametrize("bundle", BUNDLES, ids=lambda path: path.parent.name)
def test_promtool_finds_nothing_to_say(bundle: Path) -> None:
    # tools/control-node takes it out of Debian's package.
    promtool = shutil.which("promtool", path=ROOT / ".cache") or shutil.which("promtool")
    if not promtool:
        pytest.skip("there is no promtool here: Debian's package could not be downloaded")
    with TestClient(build_app(Settings(model_dir=bundle), Model.load(bundle))) as client:
        text = client.get("/metrics").content
    done = subprocess.run([promtool, "check", "metrics"], input=text, capture_output=True, check=False)
    assert (done.returncode, done.stdout + done.stderr) == (0, b"")


def test_a_class_without_probabilities_is_counted_and_has_no_confidence(settings: Settings, model: Model) -> None:
    metrics = Metrics(settings, model.manifest, "sklearn")
    metrics.count_row([1.4, 0.2], Prediction(0, 0, "setosa"))
    text = metrics.render()
    assert b'iris_api_predictions_total{class="setosa",model="iris",version="1.0.0"} 1.0' in text
    assert b'iris_api_prediction_confidence_count{model="iris",version="1.0.0"} 0.0' in text


def test_buckets_ascend_and_one_ends_where_the_alert_begins(settings: Settings, model: Model) -> None:
    """Quantiles are guessed within a bucket: p99 against 0.25 s is right on its edge alone."""
    metrics = Metrics(settings, model.manifest, "sklearn")
    metrics.count_request("/predict", 200, 0.003)
    edges: dict[str, list[float]] = {}
    for family in text_string_to_metric_families(metrics.render().decode()):
        for sample in family.samples:
            if sample.name.endswith("_bucket"):
                edges.setdefault(sample.name, []).append(float(sample.labels["le"]))
    assert len(edges) >= 5
    for name, found in edges.items():
        assert found == sorted(set(found)), name
        assert found[-1] == float("inf"), name
        # No step is so wide that a quantile within it says nothing.
        assert all(after <= 10 * before for before, after in itertools.pairwise(found[:-1])), name
    assert 0.25 in edges["iris_api_request_duration_seconds_bucket"]
