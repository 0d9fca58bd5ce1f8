"""A large batch is answered as its rows would be one by one, and counted so."""

from __future__ import annotations

import json
import tracemalloc
from typing import Any

import numpy as np
import pytest
from starlette.testclient import TestClient

from iris_api.bundle.files import read_manifest
from iris_api.engines.columns import Columns, Numbering
from iris_api.engines.model import Model, Prediction
from iris_api.predict.codec import RowCodec
from iris_api.predict.limits import Limits
from iris_api.predict.metrics import Metrics
from iris_api.predict.rows import RowParser
from iris_api.settings import Settings

from ..apps import load, serving
from ..paths import BUNDLE, MODELS

BUNDLES = sorted(path.parent for path in MODELS.glob("*/*/manifest.json"))
ROWS = 50


@pytest.fixture(params=["onnx", "sklearn"])
def engine(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture(params=BUNDLES, ids=lambda path: f"{path.parent.name}")
def served(request: pytest.FixtureRequest, engine: Any) -> Model:
    return load(request.param, engine)


def clients(model: Model) -> tuple[TestClient, TestClient]:
    one, other = (Settings(model_dir=BUNDLES[0], max_body_bytes=1 << 20, instance=number) for number in (1, 2))
    return TestClient(serving(one, model)), TestClient(serving(other, model))


def random_rows(model: Model) -> list[dict[str, float]]:
    """Rows within what the model was trained on, and beyond."""
    generator = np.random.default_rng(5)
    columns = []
    for least, usual, unusual, most in (each.limits for each in model.manifest.features):
        columns.append(np.clip(generator.uniform(usual - 1, unusual + 1, ROWS), least, most).tolist())
    return [dict(zip(model.manifest.feature_names, row, strict=True)) for row in zip(*columns, strict=True)]


def counted(client: TestClient) -> list[str]:
    """What /metrics says of rows and their answers."""
    kinds = ("feature_values", "predictions", "predicted_values", "out_of_range", "confidence_bucket")
    lines = client.get("/metrics").text.splitlines()
    return [line for line in lines if any(f"iris_api_{kind}" in line or kind in line for kind in kinds)]


def test_a_batch_is_answered_and_counted_as_its_rows_one_by_one(served: Model) -> None:
    together, alone = clients(served)
    rows = random_rows(served)
    answers = together.post("/predict", json=rows).json()
    singles = [alone.post("/predict", json=row).json() for row in rows]
    assert [list(answer) for answer in answers] == [list(single) for single in singles]
    for answer, single in zip(answers, singles, strict=True):
        assert answer.pop("prediction_proba", []) == pytest.approx(single.pop("prediction_proba", []), rel=1e-6)
        if served.manifest.classes is None:
            assert answer.pop("prediction") == pytest.approx(single.pop("prediction"), rel=1e-6)
        assert answer == single
    assert counted(together) == counted(alone)


def test_a_tensor_is_answered_as_the_rows_are(served: Model) -> None:
    client, _ = clients(served)
    rows = random_rows(served)
    answers = client.post("/predict", json=rows).json()
    values = [list(row.values()) for row in rows]
    tensor: dict[str, Any] = {"name": "input", "shape": [ROWS, len(values[0])], "datatype": "FP64"}
    path = f"/v2/models/{served.manifest.name}/infer"
    flat = client.post(path, json={"inputs": [{**tensor, "data": values}]}).json()
    outputs = {output["name"]: output for output in flat["outputs"]}
    assert outputs["prediction"]["data"] == [answer["prediction"] for answer in answers]
    if served.manifest.probabilities:
        shares = [share for answer in answers for share in answer["prediction_proba"]]
        assert outputs["prediction_proba"]["data"] == shares
        assert outputs["prediction_proba"]["shape"] == [ROWS, len(served.manifest.classes or [])]
    # And in binary, both ways.
    content = np.array(values).tobytes()
    head = json.dumps(
        {
            "inputs": [{**tensor, "parameters": {"binary_data_size": len(content)}}],
            "outputs": [{"name": name, "parameters": {"binary_data": True}} for name in outputs],
        }
    ).encode()
    answer = client.post(path, content=head + content, headers={"Inference-Header-Content-Length": str(len(head))})
    length = int(answer.headers["inference-header-content-length"])
    binary = answer.content[length:]
    for output in json.loads(answer.content[:length])["outputs"]:
        size = output["parameters"]["binary_data_size"]
        part, binary = binary[:size], binary[size:]
        if output["datatype"] != "BYTES":
            dtype = {"FP64": "<f8", "INT64": "<i8", "BOOL": "?"}[output["datatype"]]
            assert np.frombuffer(part, dtype).tolist() == outputs[output["name"]]["data"]
        else:
            texts = [text.encode() for text in outputs[output["name"]]["data"]]
            assert part == b"".join(len(text).to_bytes(4, "little") + text for text in texts)


def test_a_bad_row_of_a_batch_is_named(served: Model) -> None:
    client, _ = clients(served)
    rows: list[dict[str, Any]] = list(random_rows(served))
    name = served.manifest.feature_names[-1]
    rows[37] = {**rows[37], name: "much"}
    answer = client.post("/predict", json=rows)
    assert answer.status_code == 422
    assert answer.json()["details"][0]["field"] == f"37.{name}"


@pytest.mark.parametrize("values", [[3, 1, 2], [False, True], ["b", "a"], [1.5, -1.0]])
def test_classes_are_numbered_in_the_order_of_the_manifest(values: list[Any]) -> None:
    number = Numbering(values)
    asked = [values[-1], values[0], values[0]]
    assert number(np.array(asked)).tolist() == [len(values) - 1, 0, 0]
    with pytest.raises(KeyError):
        number(np.array(["no class"] if isinstance(values[0], str) else [7]))


@pytest.mark.parametrize(
    ("columns", "finite"),
    [
        (Columns(np.array([1.0, 2.0])), True),
        (Columns(np.array([1.0, np.inf])), False),
        (Columns(np.array([1, 0]), np.array([1, 0]), np.array([[0.5, 0.5], [np.nan, 0.5]])), False),
        (Columns(np.array(["a"]), np.array([0])), True),
    ],
)
def test_an_answer_that_is_not_finite_is_seen(columns: Columns, finite: bool) -> None:
    assert columns.finite is finite


def test_integers_of_a_table_are_counted_as_those_of_its_rows() -> None:
    about = read_manifest(BUNDLE)
    first, *others = about.features
    manifest = about.model_copy(update={"features": [first.model_copy(update={"kind": "integer"}), *others]})
    table = np.round(np.random.default_rng(3).uniform(0, 12, (ROWS, len(manifest.features))))
    numbers = np.arange(ROWS) % len(manifest.classes or [])
    together, alone = (Metrics(Settings(model_dir=BUNDLES[0]), manifest, "onnx") for _ in range(2))
    together.count_table(table, Columns(numbers, numbers))
    for row, number in zip(table.tolist(), numbers.tolist(), strict=True):
        alone.count_row(row, Prediction(number, number))
    said = [
        [line for line in metrics.render().decode().splitlines() if line.startswith("iris_api_")]
        for metrics in (together, alone)
    ]
    assert said[0] == said[1]
    assert any(line.startswith("iris_api_feature_values_total") and not line.endswith(" 0.0") for line in said[0])


@pytest.mark.parametrize("count", [2, 32, 33, 2000])
def test_answers_of_many_classes_are_written_alike_and_take_no_memory_for_each_pair(count: int) -> None:
    about = read_manifest(BUNDLE)
    assert about.classes
    classes = [about.classes[0].model_copy(update={"value": each, "name": f"class {each}"}) for each in range(count)]
    manifest = about.model_copy(update={"classes": classes})
    tracemalloc.start()
    codec = RowCodec(manifest, RowParser(manifest, Limits(body_bytes=1 << 20, rows=99, values=999)))
    _, most = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert most < 20e6
    numbers = np.array([count - 1, 0, 0, 1, count - 1])
    shares = np.random.default_rng(1).random((len(numbers), count))
    as_rows = [
        Prediction(int(each), int(each), f"class {each}", row.tolist())
        for each, row in zip(numbers, shares, strict=True)
    ]
    assert codec._columns
    assert json.loads(codec._columns.write(Columns(numbers, numbers, shares))) == [codec.answer(row) for row in as_rows]
