"""`/invocations` as MLflow's scoring server answers it; tests/clients asks it by MLflow's own client."""

from __future__ import annotations

import csv
import gzip
import io
import json
from typing import Any

import pytest
from starlette.testclient import TestClient

from iris_api import __version__
from iris_api.engines.model import Model
from iris_api.server.app import build_app
from iris_api.settings import Settings

from ..apps import load, serving
from ..paths import BUNDLE, MODELS

NAMES = ["petal_length", "petal_width"]
ROWS = [[6.5, 0.8], [1.4, 0.2], [4.35, 1.35]]
OBJECTS = [dict(zip(NAMES, row, strict=True)) for row in ROWS]
COLUMNS = dict(zip(NAMES, map(list, zip(*ROWS, strict=True)), strict=True))
FORMS: dict[str, Any] = {
    "records": {"dataframe_records": OBJECTS},
    "split": {"dataframe_split": {"columns": NAMES, "data": ROWS}},
    "split with an index": {"dataframe_split": {"index": [7, 8, 9], "columns": NAMES, "data": ROWS}},
    "split in another order": {"dataframe_split": {"columns": NAMES[::-1], "data": [row[::-1] for row in ROWS]}},
    "split without names": {"dataframe_split": {"data": ROWS}},
    "split of a table without names": {"dataframe_split": {"columns": [0, 1], "data": ROWS}},
    "split with an id": {"dataframe_split": {"columns": ["id", *NAMES], "data": [["a", *row] for row in ROWS]}},
    "instances as objects": {"instances": OBJECTS},
    "instances as arrays": {"instances": ROWS},
    "instances as columns": {"instances": COLUMNS},
    "inputs as columns": {"inputs": COLUMNS},
    "inputs as arrays": {"inputs": ROWS},
    "inputs as objects": {"inputs": OBJECTS},
    "no params": {"inputs": ROWS, "params": {}},
    "what the server does not know": {"inputs": ROWS, "client_request_id": "42"},
}


def ask(client: TestClient, content: Any, status: int = 200) -> Any:
    response = client.post("/invocations", json=content)
    assert response.status_code == status, response.text
    return response.json()


@pytest.mark.parametrize("form", FORMS)
def test_each_form_is_answered_by_what_the_model_predicts(client: TestClient, form: str) -> None:
    expected = [answer["prediction"] for answer in client.post("/predict", json=OBJECTS).json()]
    assert ask(client, FORMS[form]) == {"predictions": expected} == {"predictions": [2, 0, 1]}


def test_a_value_for_each_name_is_one_row(client: TestClient) -> None:
    assert ask(client, {"inputs": OBJECTS[0]}) == {"predictions": [2]}


def test_csv_has_a_header_and_may_be_compressed(client: TestClient) -> None:
    lines = io.StringIO()
    csv.writer(lines).writerows([NAMES[::-1], *(row[::-1] for row in ROWS)])
    headers = {"Content-Type": "text/csv; charset=utf-8", "Content-Encoding": "gzip"}
    response = client.post("/invocations", content=gzip.compress(lines.getvalue().encode()), headers=headers)
    assert response.json() == {"predictions": [2, 0, 1]}


@pytest.mark.parametrize("count", [100, 4000])
@pytest.mark.parametrize("model", ["iris", "diabetes"])
@pytest.mark.parametrize("form", ["records", "split", "arrays"])
def test_a_large_batch_takes_the_quick_way_to_the_same_answers(
    form: str, model: str, count: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = Settings(model_dir=MODELS / model / "1.0.0", max_rows=5000, max_body_bytes=10**7)
    loaded = load(settings.model_dir)
    names = loaded.manifest.feature_names
    rows = [loaded.manifest.golden_rows[number % 3] for number in range(count)]
    objects = [dict(zip(names, row, strict=True)) for row in rows]
    contents: dict[str, dict[str, Any]] = {
        "records": {"dataframe_records": objects},
        "split": {"dataframe_split": {"index": list(range(count)), "columns": names, "data": rows}},
        "arrays": {"instances": rows},
    }
    content = contents[form]
    with TestClient(serving(settings, loaded)) as client:
        slow = {**content, "params": None}
        expected = [answer["prediction"] for answer in client.post("/predict", json=objects).json()]
        assert ask(client, slow)["predictions"] == pytest.approx(expected)
        monkeypatch.setattr("iris_api.dialects.mlflow.InvocationsCodec._judge", None)
        assert ask(client, content)["predictions"] == pytest.approx(expected)


MANY = [ROWS[number % 3] for number in range(60)]


@pytest.mark.parametrize(
    ("body", "status"),
    [
        (json.dumps({"dataframe_split": {"columns": NAMES[::-1], "data": [row[::-1] for row in MANY]}}), 200),
        (json.dumps({"dataframe_split": {"columns": ["id", *NAMES], "data": [[1, *row] for row in MANY]}}), 200),
        (json.dumps({"instances": MANY, "client_request_id": 5}), 200),
        (json.dumps({"instances": MANY, "params": {"threshold": 0.3}}), 400),
        (json.dumps({"instances": MANY, "inputs": MANY}), 400),
        (json.dumps({"instances": MANY})[:-1], 400),
        (json.dumps({"instances": MANY}) + "}", 400),
        (json.dumps({"dataframe_split": {"columns": NAMES, "data": MANY}, "params": {"threshold": 0.3}}), 400),
        (json.dumps({"dataframe_split": {"columns": NAMES, "data": [*MANY, [1]]}}), 400),
    ],
)
def test_the_quick_way_takes_nothing_that_means_something_else(model: Model, body: str, status: int) -> None:
    with TestClient(serving(Settings(model_dir=BUNDLE), model)) as client:
        response = client.post("/invocations", content=body, headers={"Content-Type": "application/json"})
        assert response.status_code == status, response.text
        assert status != 200 or response.json() == {"predictions": [2, 0, 1] * 20}


def mixed_row(**changed: Any) -> dict[str, Any]:
    return {"age": 20.0, "city": "Bern", "since": "2026-01-31T00:00:00"} | changed


def test_a_missing_value_is_null_or_nan_or_nat_or_left_out(mixed: TestClient) -> None:
    whole = ask(mixed, {"inputs": [mixed_row()]})["predictions"]
    assert whole == ["left"]
    gap = ask(mixed, {"dataframe_records": [mixed_row(age=None, since=None)]})
    ways = [
        b'{"dataframe_records": [{"age": NaN, "city": "Bern", "since": "NaT"}]}',
        b'{"dataframe_split": {"columns": ["age", "city", "since"], "data": [[NaN, "Bern", "NaT"]]}}',
        b'{"dataframe_split": {"columns": ["city"], "data": [["Bern"]]}}',
        b'{"dataframe_records": [{"city": "Bern"}]}',
        b'{"inputs": {"age": [null], "city": ["Bern"]}}',
    ]
    for body in ways:
        answer = mixed.post("/invocations", content=body, headers={"Content-Type": "application/json"})
        assert (answer.status_code, answer.json()) == (200, gap), body
    lines = "age,city,since\n,Bern,\n20.0,Bern,2026-01-31\n"
    answer = mixed.post("/invocations", content=lines, headers={"Content-Type": "text/csv"})
    assert answer.json()["predictions"] == [*gap["predictions"], *whole]


@pytest.mark.parametrize(
    ("content", "complaint"),
    [
        ({"dataframe_records": [mixed_row(), mixed_row(age="20")]}, "1.age: Input should be a valid number"),
        ({"dataframe_records": [mixed_row(), mixed_row(city="Bonn")]}, "1.city: Input should be 'Aarau', 'Bern' or"),
        ({"inputs": {"age": [1, 2], "city": ["Bern", None]}}, "1.city: Input should be 'Aarau'"),
        ({"inputs": {"age": [1]}}, "0.city: Field required"),
        # A wrong name, and not one more column and one that is left out.
        ({"dataframe_records": [{"aeg": 5, "city": "Bern", "since": None}]}, "0.aeg: Extra inputs are not permitted"),
        ({"instances": [[20.0, "Bern", None], [20.0, "Bern"]]}, "1: has 2 values, and not 3: age, city, since"),
        (
            {"instances": [[20.0, "Bern", None], 5]},
            "1: must be an array with a value for each feature, but is a number",
        ),
        ({"instances": [mixed_row(), None]}, "1: Input should be an object"),
        ({"instances": "x"}, "instances: must be a list of rows, but is a text"),
        ({"instances": []}, "body: List should have at least 1 item"),
        ({"inputs": {"age": [1, 2], "city": ["Bern"]}}, "inputs.city: has 1 values, but age has 2"),
        ({"inputs": {"age": [1, 2], "city": "Bern"}}, "inputs.city: has no list, but age has 2"),
        ({"dataframe_records": mixed_row()}, "dataframe_records: must be a list of rows, but is an object"),
        ({"dataframe_split": [[1]]}, "dataframe_split: must be an object with columns"),
        ({"dataframe_split": {"columns": ["age", "age"], "data": [[1, 2]]}}, "columns: has a name twice"),
        ({"dataframe_split": {"columns": "age", "data": [[1]]}}, "columns: must be a list of names"),
        ({"dataframe_split": {"columns": ["age"], "rows": [[1]], "data": []}}, "but no rows"),
        ({"columns": ["age"], "data": [[1]]}, "exactly one of dataframe_records, dataframe_split, instances, inputs"),
        ({"inputs": [mixed_row()], "instances": []}, "and has instances and inputs"),
        ([mixed_row()], "must be an object"),
        ({"inputs": [mixed_row()], "params": {"threshold": 0.3}}, "params: this model takes none; leave them out"),
    ],
)
def test_an_error_has_mlflows_form_and_names_row_and_field(mixed: TestClient, content: Any, complaint: str) -> None:
    error = ask(mixed, content, 400)
    assert complaint in error["message"]
    assert error.keys() == {"error_code", "message", "code", "request_id"}
    assert (error["error_code"], error["code"]) == ("INVALID_PARAMETER_VALUE", "invalid_input")


@pytest.mark.parametrize(
    ("body", "content_type", "status", "error_code", "code"),
    [
        (b"{", "application/json", 400, "BAD_REQUEST", "invalid_json"),
        (b'{"inputs": [[Infinity, 1]]}', "application/json", 400, "BAD_REQUEST", "invalid_json"),
        (b'{"inputs": [[1, 1]], "inputs": []}', "application/json", 400, "INVALID_PARAMETER_VALUE", "invalid_input"),
        (b"petal_length\n1\n", "text/csv", 400, "INVALID_PARAMETER_VALUE", "invalid_input"),
        (b"PAR1", "application/vnd.apache.parquet", 415, "BAD_REQUEST", "unsupported_media_type"),
        (b"{}", "application/json; format=pandas-split", 415, "BAD_REQUEST", "unsupported_media_type"),
        (b" " * 2000, "application/json", 413, "BAD_REQUEST", "body_too_large"),
    ],
)
def test_other_errors_have_it_too(
    client: TestClient, body: bytes, content_type: str, status: int, error_code: str, code: str
) -> None:
    response = client.post("/invocations", content=body, headers={"Content-Type": content_type})
    error = response.json()
    assert (response.status_code, error["error_code"], error["code"]) == (status, error_code, code)
    assert f'iris_api_rejected_requests_total{{reason="{code}"}} 1.0' in client.get("/metrics").text


def test_limits_on_rows_and_values_hold_for_each_form(model: Model) -> None:
    tight = Settings(model_dir=BUNDLE, max_rows=40, max_values=40, max_body_bytes=10**5)
    with TestClient(build_app(tight, model)) as client:
        for count, code in ((41, "too_many_rows"), (21, "too_many_values"), (35, "too_many_values")):
            rows = [ROWS[0]] * count
            objects = [OBJECTS[0]] * count
            for content in (
                {"instances": rows},
                {"dataframe_records": objects},
                {"dataframe_split": {"columns": NAMES, "data": rows}},
                {"inputs": dict.fromkeys(NAMES, [1.0] * count)},
            ):
                assert ask(client, content, 413)["code"] == code


def test_requests_are_counted_by_their_path(client: TestClient) -> None:
    ask(client, {"inputs": ROWS})
    ask(client, {"inputs": 5}, 400)
    metrics = client.get("/metrics").text
    for status in (200, 400):
        assert f'iris_api_requests_total{{path="/invocations",status="{status}"}} 1.0' in metrics
    assert 'iris_api_predictions_total{class="setosa",model="iris",version="1.0.0"} 1.0' in metrics


def test_ping_and_version_are_there(client: TestClient) -> None:
    assert client.get("/ping").status_code == 200
    assert client.get("/version").text == __version__


def test_the_examples_of_the_documentation_are_answered(mixed: TestClient, client: TestClient) -> None:
    for each in (mixed, client):
        operation = each.get("/openapi.json").json()["paths"]["/invocations"]["post"]
        examples = operation["requestBody"]["content"]["application/json"]["examples"]
        assert examples.keys() == {"dataframe_split", "dataframe_records", "instances", "inputs"}
        for example in examples.values():
            assert len(ask(each, json.loads(json.dumps(example["value"])))["predictions"]) >= 1
