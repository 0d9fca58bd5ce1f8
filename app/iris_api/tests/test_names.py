"""Features, targets and classes keep the names and values that people's data have, from the CSV to every answer."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import joblib
import jsonschema
import numpy as np
import pytest
from markdown_it import MarkdownIt
from prometheus_client.parser import text_string_to_metric_families
from sklearn.datasets import load_iris
from sklearn.linear_model import LogisticRegression, Ridge
from starlette.testclient import TestClient

from iris_api.engines.model import EngineChoice
from iris_api.packing import cli
from iris_api.predict.limits import Limits
from iris_api.predict.rows import RowParser
from iris_api.settings import Settings

from .apps import load, serving
from .described import described

DATA, KINDS = load_iris(return_X_y=True)
NAMES = [
    "1stFlrSF",
    "größe",
    "age<=30",
    "a[0]",
    "0",
    "Price, in\nUSD",
    'say "cheese"',
    "back\\slash",
    "Länge (µm) | `x` *y*",
    "nul\0 and bell\a",
    "model_config",
    "__class__",
    "a.b.c",
    " blanks ",
    "名前",
    "\N{GRINNING FACE}" * 64,
    "x" * 256,
]
TARGET = "Species, as of 2024\n<b>"
Pack = Callable[..., Path]


def wide(number: int) -> Any:
    """Return data with so many columns."""
    return np.random.default_rng(0).uniform(0, 1, (60, number))


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory, quick_packing: None) -> Path:
    """A bundle with all of these names, packed from a CSV as a user would."""
    folder = tmp_path_factory.mktemp("names")
    rows = wide(len(NAMES))
    kinds = np.where(rows[:, 0] > 0.5, "yes, `really`", "no\nnever")
    estimator = LogisticRegression().fit(rows, kinds)
    estimator.feature_names_in_ = np.array(NAMES, dtype=object)
    joblib.dump(estimator, folder / "model.joblib")
    with (folder / "sample.csv").open("w", newline="") as file:
        csv.writer(file).writerows([[*NAMES, TARGET], *([*row, kind] for row, kind in zip(rows, kinds, strict=True))])
    command = ["pack", folder / "model.joblib", folder / "sample.csv", "--name=mine", "--version=1"]
    assert cli.main([*map(str, command), f"--target={TARGET}", f"--models-dir={folder}"]) == 0
    return folder / "mine" / "1"


@pytest.fixture(params=["sklearn", "onnx"])
def client(bundle: Path, request: pytest.FixtureRequest) -> TestClient:
    engine: EngineChoice = request.param
    return TestClient(serving(Settings(model_dir=bundle), load(bundle, engine)))


def test_predict_takes_and_gives_the_names(client: TestClient) -> None:
    row = dict(zip(NAMES, wide(len(NAMES))[3].tolist(), strict=True))
    answer = client.post("/predict", json=row)
    assert answer.status_code == 200
    assert answer.json()[TARGET] == answer.json()["prediction"]
    assert client.post("/predict", json=[row, row]).json() == [answer.json()] * 2
    for name in NAMES:
        for body, field in ((row | {name: 99}, name), ([row, row | {name: 99}], f"1.{name}")):
            refused = client.post("/predict", json=body)
            assert refused.status_code == 422
            assert [detail["field"] for detail in refused.json()["details"]] == [field]
        missing = client.post("/predict", json={key: value for key, value in row.items() if key != name}).json()
        assert missing["details"] == [{"field": name, "reason": "Field required"}]


def test_the_protocol_tells_the_names_one_from_another(client: TestClient) -> None:
    about = client.get("/v2/models/mine").json()
    (names,) = csv.reader(io.StringIO(about["inputs"][0]["parameters"]["features"], newline=""))
    assert names == NAMES
    assert about["outputs"][-1]["name"] == TARGET
    tensor = {"name": "input", "shape": [1, len(NAMES)], "datatype": "FP64", "data": wide(len(NAMES))[3].tolist()}
    answer = client.post("/v2/models/mine/infer", json={"inputs": [tensor], "outputs": [{"name": TARGET}]}).json()
    assert answer["outputs"][0]["data"][0] in {"yes, `really`", "no\nnever"}


def test_metrics_can_be_read_and_have_a_label_for_each(client: TestClient) -> None:
    client.post("/predict", json=dict.fromkeys(NAMES, 0.5))
    samples = [
        sample for family in text_string_to_metric_families(client.get("/metrics").text) for sample in family.samples
    ]
    labels = [sample.labels["feature"] for sample in samples if sample.name == "iris_api_out_of_range_values_total"]
    assert len(set(labels)) == len(labels) == len(NAMES)
    assert {"1stFlrSF", "größe", "age<=30", "a[0]", "0", 'say "cheese"', "Price, in\\nUSD"} < set(labels)
    assert all(label.isprintable() for label in labels)
    classes = {sample.labels["class"] for sample in samples if sample.name == "iris_api_predictions_total"}
    assert classes == {"yes, `really`", "no\\nnever"}


def test_openapi_describes_the_names(client: TestClient) -> None:
    openapi = client.get("/openapi.json").json()
    operation = openapi["paths"]["/predict"]["post"]
    content = operation["requestBody"]["content"]["application/json"]
    assert list(openapi["components"]["schemas"]["Row"]["properties"]) == NAMES
    schema = operation["responses"]["200"]["content"]["application/json"]["schema"] | openapi
    for example in content["examples"].values():
        jsonschema.validate(example["value"], content["schema"] | openapi)
        jsonschema.validate(client.post("/predict", json=example["value"]).json(), schema)
    assert TARGET in openapi["components"]["schemas"]["Prediction"]["properties"]


def test_the_card_shows_the_names(bundle: Path) -> None:
    tokens = MarkdownIt("commonmark").enable("table").parse((bundle / "MODEL_CARD.md").read_text())
    shown = [child.content for token in tokens for child in token.children or [] if child.type == "code_inline"]
    expected = [name.encode("unicode_escape").decode() if not name.isprintable() else name for name in NAMES]
    assert [name.strip() for name in shown[1:] if name.strip() in {each.strip() for each in expected}] == [
        name.strip() for name in expected
    ]
    assert not [token for token in tokens if token.type in ("html_block", "html_inline")]


def test_a_golden_sample_has_the_names_and_is_answered(bundle: Path) -> None:
    assert cli.main(["check", str(bundle)]) == 0
    assert list(json.loads((bundle / "manifest.json").read_text())["golden_samples"][0]["input"]) == NAMES


# What a body may look like whose names have quotes: escaped in one way or the other, and repeated.
QUOTED = ['say "cheese"', "b"]


@pytest.mark.parametrize(
    ("body", "refused"),
    [
        (r'{"say \"cheese\"": 0.5, "b": 0.5}', None),
        (r'{"say \u0022cheese\u0022": 0.5, "b": 0.5}', None),
        (r'{"say \u0022cheese\u0022": 0.5, "b": 0.5, "b": 0.4}', "repeated name"),
        (r'{"say \"cheese\"": 0.5, "say \u0022cheese\u0022": 0.4, "b": 0.5}', "repeated name"),
        (r'{"say \u0022cheese\u0022": 0.5, "\u0062": 0.5}', None),
    ],
)
def test_a_name_with_quotes_may_be_written_in_every_way_and_once(body: str, refused: str | None) -> None:
    rows = wide(2)
    manifest = described(Ridge().fit(rows, rows[:, 0]), QUOTED, rows)
    parser = RowParser(manifest, Limits(body_bytes=1024, rows=10, values=100))
    if refused is None:
        assert parser.parse(body.encode()) == ([[0.5, 0.5]], False)
        return
    with pytest.raises(Exception, match="A name appears twice"):
        parser.parse(body.encode())


@pytest.mark.parametrize("name", ["", "x" * 257])
def test_a_name_that_is_none_or_too_long_is_refused(name: str) -> None:
    rows = wide(2)
    with pytest.raises(ValueError, match=r"should have at (least|most)"):
        described(Ridge().fit(rows, rows[:, 0]), [name, "b"], rows)


def test_names_that_metrics_could_not_tell_apart_are_refused() -> None:
    rows = wide(2)
    with pytest.raises(ValueError, match="two features have the same name"):
        described(Ridge().fit(rows, rows[:, 0]), ["a\n", "a\\n"], rows)
