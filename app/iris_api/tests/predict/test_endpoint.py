"""What a client of POST /predict sees: answers, and refusals that say what is wrong."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from typing import Any

import joblib
import pytest
from starlette.testclient import TestClient

from iris_api.bundle.files import BundleError
from iris_api.engines.model import Answers, Model
from iris_api.server.app import build_app
from iris_api.settings import Settings

from ..paths import BUNDLE

pytestmark = pytest.mark.kernel

JSON = {"Content-Type": "application/json"}
ROW = {"petal_length": 6.5, "petal_width": 0.8}


def post(client: TestClient, body: bytes | str, **headers: str) -> Any:
    return client.post("/predict", content=body, headers=JSON | headers)


def with_length(literal: str) -> str:
    return f'{{"petal_length": {literal}, "petal_width": 0.8}}'


def test_the_answer_has_class_probabilities_species_and_model(client: TestClient) -> None:
    response = post(client, json.dumps(ROW))
    assert response.status_code == 200
    answer = response.json()
    probabilities = answer.pop("prediction_proba")
    assert answer == {"prediction": 2, "species": "virginica", "model": "iris", "model_version": "1.0.0"}
    assert len(probabilities) == 3
    assert math.isclose(sum(probabilities), 1)
    assert max(probabilities) == probabilities[2]


def test_each_answer_is_the_estimators_own(client: TestClient) -> None:
    """Asked without any of our code in between."""
    estimator = joblib.load(BUNDLE / "model.joblib")
    for length in range(0, 70, 7):
        row = [length / 10, length / 30]
        answer = post(client, json.dumps(dict(zip(("petal_length", "petal_width"), row, strict=True)))).json()
        assert answer["prediction"] == estimator.predict([row])[0]
        assert answer["prediction_proba"] == pytest.approx(estimator.predict_proba([row])[0], abs=1e-6)


def test_a_list_is_answered_by_a_list_in_its_order(client: TestClient) -> None:
    rows = [ROW, {"petal_length": 1.4, "petal_width": 0.2}, ROW]
    answers = post(client, json.dumps(rows)).json()
    assert [answer["species"] for answer in answers] == ["virginica", "setosa", "virginica"]
    for row, answer in zip(rows, answers, strict=True):
        alone = post(client, json.dumps(row)).json()
        assert answer.pop("prediction_proba") == pytest.approx(alone.pop("prediction_proba"), abs=1e-12)
        assert answer == alone


@pytest.mark.parametrize("path", ["/predict", "/v2/models/iris/infer"])
def test_too_many_values_are_refused_however_they_come(model: Model, settings: Settings, path: str) -> None:
    with TestClient(build_app(settings.model_copy(update={"max_values": 7}), model)) as client:
        for rows, status in ((3, 200), (4, 413)):
            tensor = {"name": "input", "shape": [rows, 2], "datatype": "FP64", "data": [1.0] * (2 * rows)}
            response = client.post(path, json=[ROW] * rows if path == "/predict" else {"inputs": [tensor]})
            assert response.status_code == status
        assert response.json()["code"] == "too_many_values"
        assert "Send at most 3 rows at once." in response.json()["error"]
        assert 'iris_api_rejected_requests_total{reason="too_many_values"} 1.0' in client.get("/metrics").text


def test_a_model_whose_row_has_more_values_than_a_request_may_have_is_not_served(
    model: Model, settings: Settings
) -> None:
    with pytest.raises(BundleError, match=r"a row has 2 values, .* Set IRIS_API_MAX_VALUES .* to 2 at least"):
        build_app(settings.model_copy(update={"max_values": 1}), model)


def test_a_list_of_too_many_rows_is_refused_and_one_of_just_enough_is_not(model: Model, settings: Settings) -> None:
    with TestClient(build_app(settings.model_copy(update={"max_rows": 4}), model)) as client:
        enough, too_many = (post(client, json.dumps(rows * [ROW])) for rows in (4, 5))
        described = client.get("/openapi.json").json()["paths"]["/predict"]["post"]["requestBody"]["content"]
        tensors = [{"name": "input", "shape": [rows, 2], "datatype": "INT8", "data": 2 * rows * [1]} for rows in (4, 5)]
        as_tensor = [client.post("/v2/models/iris/infer", json={"inputs": [tensor]}).status_code for tensor in tensors]
    assert (enough.status_code, [answer["prediction"] for answer in enough.json()]) == (200, 4 * [2])
    assert (too_many.status_code, too_many.json()["code"]) == (413, "too_many_rows")
    assert described["application/json"]["schema"]["oneOf"][1]["maxItems"] == 4
    assert as_tensor == [200, 413]


def test_names_count_and_not_their_order(client: TestClient) -> None:
    turned = dict(reversed(ROW.items()))
    assert post(client, json.dumps(turned)).json() == post(client, json.dumps(ROW)).json()


@pytest.mark.parametrize("literal", ["6", "6.50", "65e-1", "0", "-0.0", "100", "1e-400"])
def test_every_way_to_write_a_possible_number_is_accepted(client: TestClient, literal: str) -> None:
    assert post(client, with_length(literal)).status_code == 200


@pytest.mark.parametrize(
    ("literal", "reason"),
    [
        ("NaN", "NaN and Infinity are not JSON"),
        ("Infinity", "NaN and Infinity are not JSON"),
        ("1e999", "Input should be a finite number"),
        ("-1e999", "Input should be a finite number"),
        ("1e308", "Input should be less than or equal to 100"),
        ("-1", "Input should be greater than or equal to 0"),
        ("1" + 400 * "0", "Input should be a valid number"),
        ('"1.4"', "Input should be a valid number"),
        ("true", "Input should be a valid number"),
        ("null", "Input should be a valid number"),
        ("[1.4]", "Input should be a valid number"),
    ],
)
def test_what_is_not_a_possible_number_is_refused_with_the_reason(
    client: TestClient, literal: str, reason: str
) -> None:
    response = post(client, with_length(literal))
    assert response.status_code == 422
    (detail,) = response.json()["details"]
    assert detail["reason"] == reason
    assert detail["field"] == ("body" if "JSON" in reason else "petal_length")


@pytest.mark.parametrize(
    ("body", "field", "reason"),
    [
        ('{"petal_length": 1}', "petal_width", "Field required"),
        ('{"petal_length": 1, "petal_width": 1, "colour": 3}', "colour", "Extra inputs are not permitted"),
        ('{"petal_length": 1, "petal_length": 2, "petal_width": 1}', "body", "repeated name"),
        ("[1]", "0", "Input should be an object"),
        ("7", "body", "Input should be an object"),
        ("[]", "body", "at least 1 item"),
        (json.dumps([ROW, {"petal_length": 1}]), "1.petal_width", "Field required"),
        (json.dumps([ROW, ROW | {"petal_width": 101}]), "1.petal_width", "less than or equal to 100"),
        ("", "body", "Expecting value at line 1, column 1"),
        ('{"petal_length": 1 "petal_width": 1}', "body", "Expecting ',' delimiter at line 1, column 20"),
        (b'{"petal_length": \xff}', "body", "is not UTF-8"),
        (json.dumps(ROW).encode("utf-16"), "body", "is not UTF-8"),
        (b"\xef\xbb\xbf{}", "body", "Expecting value at line 1, column 1"),
    ],
)
def test_a_wrong_body_is_refused_with_field_and_reason(
    client: TestClient, body: bytes | str, field: str, reason: str
) -> None:
    response = post(client, body)
    assert response.status_code == 422
    (detail,) = response.json()["details"]
    assert detail["field"] == field
    assert reason in detail["reason"]


@pytest.mark.parametrize(("body", "reason"), [(60000 * "[", "nested"), (60000 * "1", "too many digits")])
def test_what_exhausts_a_parser_is_refused(model: Model, settings: Settings, body: str, reason: str) -> None:
    with TestClient(build_app(settings.model_copy(update={"max_body_bytes": 65536}), model)) as client:
        response = post(client, body)
    assert response.status_code == 422
    assert reason in response.json()["details"][0]["reason"]


def test_many_mistakes_get_a_bounded_answer(client: TestClient) -> None:
    body = json.dumps({f"{number:x<90}": 1 for number in range(10)} | {"a": 1})
    details = post(client, body).json()["details"]
    assert len(details) == 10
    assert all(len(detail["field"]) <= 64 for detail in details)


def test_strange_names_come_back_escaped(client: TestClient) -> None:
    response = post(client, '{"\\n\\"<b>": 1, "petal_length": 1, "petal_width": 1}')
    assert response.status_code == 422
    assert b'"field":"\\n\\"<b>"' in response.content


def test_a_name_that_is_no_text_is_refused(client: TestClient) -> None:
    response = post(client, '{"\\ud800": 1, "petal_length": 1, "petal_width": 1}')
    assert response.status_code == 422
    assert response.json()["details"][0]["field"] == "body"


@pytest.mark.parametrize("content_type", ["text/plain", "application/x-www-form-urlencoded", "", "application/jsonp"])
def test_another_content_type_is_refused(client: TestClient, content_type: str) -> None:
    response = client.post("/predict", content=json.dumps(ROW), headers={"Content-Type": content_type})
    assert (response.status_code, response.json()["code"]) == (415, "unsupported_media_type")


def test_no_content_type_is_refused(client: TestClient) -> None:
    assert client.post("/predict", content=json.dumps(ROW)).status_code == 415


@pytest.mark.parametrize("content_type", ["application/json; charset=utf-8", "Application/JSON"])
def test_json_is_json_however_it_is_declared(client: TestClient, content_type: str) -> None:
    assert post(client, json.dumps(ROW), **{"Content-Type": content_type}).status_code == 200


def test_a_body_over_the_limit_is_refused(client: TestClient) -> None:
    assert post(client, json.dumps(ROW).ljust(1024)).status_code == 200
    response = post(client, json.dumps(ROW).ljust(1025))
    assert (response.status_code, response.json()["code"]) == (413, "body_too_large")


def test_a_body_of_unknown_length_over_the_limit_is_refused(client: TestClient) -> None:
    def pieces() -> Iterator[bytes]:
        for _ in range(8):
            yield 500 * b" "

    response = client.post("/predict", content=pieces(), headers=JSON)
    assert (response.status_code, response.json()["code"]) == (413, "body_too_large")


def test_a_row_without_a_finite_answer_is_the_inputs_fault(
    client: TestClient, model: Model, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(model, "engine", lambda rows: Answers([0], [[math.inf, 0, math.nan]]))
    response = post(client, json.dumps(ROW))
    assert (response.status_code, response.json()["code"]) == (422, "no_answer")
