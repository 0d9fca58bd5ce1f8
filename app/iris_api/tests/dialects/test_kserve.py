"""KServe's protocol, version 1; tests/clients asks it by KServe's own client."""

from __future__ import annotations

from typing import Any

import pytest
from fastapi import FastAPI
from starlette.testclient import TestClient

PREDICT = "/v1/models/iris:predict"
ROWS = [[6.5, 0.8], [1.4, 0.2], [4.35, 1.35]]
OBJECTS = [{"petal_width": width, "petal_length": length} for length, width in ROWS]


def ask(client: TestClient, content: Any, path: str = PREDICT, status: int = 200) -> Any:
    response = client.post(path, json=content)
    assert response.status_code == status, response.text
    return response.json()


def test_the_model_is_listed_and_says_whether_it_is_ready(app: FastAPI, client: TestClient) -> None:
    assert client.get("/v1/models").json() == {"models": ["iris"]}
    assert client.get("/v1/models/iris").json() == {"name": "iris", "ready": True}
    assert client.get("/v1/models/other").status_code == 404
    assert client.post("/v1/models/other:predict", json={"instances": ROWS}).status_code == 404


def test_readiness_is_that_of_the_instance(app: FastAPI) -> None:
    assert TestClient(app).get("/v1/models/iris").status_code == 503


@pytest.mark.parametrize("rows", [ROWS, OBJECTS, ROWS * 20, OBJECTS * 5], ids=["arrays", "objects", "many", "more"])
def test_instances_are_answered_by_what_the_model_predicts(client: TestClient, rows: list[Any]) -> None:
    assert ask(client, {"instances": rows}) == {"predictions": [2, 0, 1] * (len(rows) // 3)}
    # As curl and clients send it that say nothing of its type.
    assert client.post(PREDICT, content=b'{"instances": [[1, 1]]}').status_code == 200
    assert f'iris_api_requests_total{{path="{PREDICT}",status="200"}} 2.0' in client.get("/metrics").text


def test_a_missing_value_is_null(mixed: TestClient) -> None:
    path = "/v1/models/customers:predict"
    rows: list[list[Any]] = [[20.0, "Bern", "2026-01-31"], [None, "Bern", None]]
    answer = ask(mixed, {"instances": rows}, path)
    assert answer["predictions"][0] == "left"
    objects = [dict(zip(("age", "city", "since"), row, strict=True)) for row in rows]
    assert ask(mixed, {"instances": objects}, path) == answer


@pytest.mark.parametrize(
    ("content", "complaint"),
    [
        ({"instances": [[20.0, "Bern", None], [20.0, None, None]]}, "1.city: Input should be 'Aarau', 'Bern' or 'Zug'"),
        ({"instances": [["20", "Bern", None]]}, "0.age: Input should be a valid number"),
        ({"instances": [[20.0, "Bern"]]}, "0: has 2 values, and not 3: age, city, since"),
        ({"instances": {"age": [1]}}, "instances: must be a list of rows, but is an object"),
        ({"inputs": []}, "body: must be an object with instances, a list of rows"),
        ([], "body: must be an object with instances"),
    ],
)
def test_an_error_names_row_and_field(mixed: TestClient, content: Any, complaint: str) -> None:
    error = ask(mixed, content, "/v1/models/customers:predict", 400)
    assert complaint in error["error"]
    assert error.keys() == {"error", "code", "request_id"}


def test_nan_is_no_json_and_a_form_is_none(client: TestClient) -> None:
    for body, content_type, status in (
        (b'{"instances": [[NaN, 1]]}', "application/json", 400),
        (b"instances=1", "application/x-www-form-urlencoded", 415),
    ):
        response = client.post(PREDICT, content=body, headers={"Content-Type": content_type})
        assert response.status_code == status
