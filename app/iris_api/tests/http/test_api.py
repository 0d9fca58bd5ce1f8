"""What holds for every answer, and the paths beside /predict."""

from __future__ import annotations

import asyncio
import json
import logging
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import fastapi.routing
import pytest
from fastapi import FastAPI
from fastapi.responses import StreamingResponse
from fastapi.staticfiles import StaticFiles
from starlette.routing import Mount
from starlette.testclient import TestClient

from iris_api.engines.model import Model
from iris_api.server.app import build_app
from iris_api.settings import Settings

JSON = {"Content-Type": "application/json"}
ROW = json.dumps({"petal_length": 1.4, "petal_width": 0.2})


@pytest.fixture
def broken(app: FastAPI, client: TestClient, monkeypatch: pytest.MonkeyPatch, model: Model) -> TestClient:
    """An instance whose model raises what nobody expected."""

    def explode(_rows: Any) -> Any:
        raise RuntimeError("secret internals")

    monkeypatch.setattr(model, "predict", explode)
    return client


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("POST", "/predict", 200),
        ("PUT", "/predict", 405),
        ("GET", "/predict", 405),
        ("GET", "/health", 200),
        ("GET", "/health/ready", 200),
        ("POST", "/health", 405),
        ("GET", "/metrics", 200),
        ("GET", "/docs", 200),
        ("GET", "/openapi.json", 200),
        ("GET", "/", 404),
        ("POST", "/predictXYZ", 404),
        ("POST", "/predict/", 404),
    ],
)
def test_every_answer_says_who_gave_it(client: TestClient, method: str, path: str, status: int) -> None:
    response = client.request(method, path, content=ROW if method == "POST" else None, headers=JSON)
    assert response.status_code == status
    assert response.headers["X-Served-By"] == "iris-api@2"
    assert response.headers["X-Model-Version"] == "1.0.0"
    assert re.fullmatch("[0-9a-f]{32}", response.headers["X-Request-ID"])
    if status >= 400:
        error = response.json()
        assert error.keys() == {"error", "code", "request_id"}
        assert error["request_id"] == response.headers["X-Request-ID"]
    if status == 405:
        assert response.headers["Allow"] == ("POST" if path == "/predict" else "GET, HEAD")


@pytest.mark.parametrize("given", ["abc-123._X", 128 * "a"])
def test_a_sane_request_id_is_kept(client: TestClient, given: str) -> None:
    assert client.get("/health", headers={"X-Request-ID": given}).headers["X-Request-ID"] == given


@pytest.mark.parametrize("given", ["", 129 * "a", 'a"b', "a b", "<script>", "a\n"])
def test_another_request_id_is_replaced(client: TestClient, given: str) -> None:
    response = client.get("/health", headers=[(b"x-request-id", given.encode())])
    assert re.fullmatch("[0-9a-f]{32}", response.headers["X-Request-ID"])


def test_an_unexpected_error_is_logged_and_not_shown(broken: TestClient, caplog: pytest.LogCaptureFixture) -> None:
    response = broken.post("/predict", content=ROW, headers=JSON | {"X-Request-ID": "find-me"})
    assert response.status_code == 500
    assert response.headers["X-Served-By"] == "iris-api@2"
    assert response.json().keys() == {"error", "code", "request_id"}
    assert "secret" not in response.text
    (record,) = (record for record in caplog.records if record.levelno == logging.ERROR)
    assert record.__dict__["request_id"] == "find-me"
    assert record.exc_info and "secret internals" in str(record.exc_info[1])
    assert 'iris_api_requests_total{path="/predict",status="500"} 1.0' in broken.get("/metrics").text


def paths(app: FastAPI, method: str = "GET") -> list[str]:
    """Return every path that answers a method, the files of mounted directories included."""
    found: list[str] = []
    for route in fastapi.routing.iter_route_contexts(app.routes):
        if method in (route.methods or ()):
            assert route.path and "{" not in route.path
            found.append(route.path)
    for mounted in app.routes:
        if method == "GET" and isinstance(mounted, Mount):
            assert isinstance(mounted.app, StaticFiles)
            for folder in mounted.app.all_directories:
                found += [f"{mounted.path}/{file.relative_to(folder)}" for file in Path(folder).rglob("*.*")]
    return found


def test_the_paths_are_all_of_them(app: FastAPI) -> None:
    found = paths(app)
    assert {"/health", "/health/ready", "/metrics", "/docs", "/docs/start.js", "/openapi.json", "/v2"} < {*found}
    assert {"/v2/models/iris", "/v2/models/iris/versions/1.0.0/ready", "/docs/swagger-ui-bundle.js"} < {*found}
    model = "/v2/models/iris"
    assert paths(app, "POST") == [
        "/predict",
        "/v2/repository/index",
        f"{model}/infer",
        f"{model}/versions/1.0.0/infer",
        "/invocations",
        "/v1/models/iris:predict",
    ]


def test_head_has_the_status_and_headers_of_get_and_no_body(app: FastAPI, client: TestClient) -> None:
    given = {"X-Request-ID": "same"}
    for path in [*paths(app), *paths(app, "POST"), "/nothing", "/docs/nothing"]:
        get, head = client.get(path, headers=given), client.head(path, headers=given)
        assert head.status_code == get.status_code, path
        assert head.content == b"", path
        # What the metrics say changes from one to the other.
        left_out = {"content-length"} if path == "/metrics" else set()
        assert "content-length" in head.headers, path
        for name in {*get.headers, *head.headers} - left_out:
            assert head.headers.get(name) == get.headers.get(name), (path, name)
    assert 'iris_api_requests_total{path="/health",status="200"} 2.0' in client.get("/metrics").text


def test_head_is_no_operation_of_the_documentation(client: TestClient) -> None:
    operations = client.get("/openapi.json").json()["paths"]
    assert {method for path in operations.values() for method in path} == {"get", "post"}


def is_error(response: Any, status: int) -> bool:
    error = response.json()
    return bool(
        response.status_code == status
        and response.headers["content-type"] == "application/json"
        and {"error", "code", "request_id"} <= error.keys()
        and error["request_id"] == response.headers["x-request-id"]
    )


def test_an_unexpected_error_in_any_route_has_the_one_shape(
    app: FastAPI, client: TestClient, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def explode(*_: Any, **__: Any) -> Any:
        raise RuntimeError("secret")

    asked = [("GET", path) for path in paths(app)] + [("POST", path) for path in paths(app, "POST")]
    monkeypatch.setattr(fastapi.routing, "run_endpoint_function", explode)
    monkeypatch.setattr(StaticFiles, "get_response", explode)
    monkeypatch.setattr(app, "openapi", explode)
    for method, path in asked:
        caplog.clear()
        response = client.request(method, path)
        assert is_error(response, 500), (method, path, response.text)
        assert "secret" not in response.text
        (record,) = (record for record in caplog.records if record.levelno == logging.ERROR)
        assert record.__dict__["request_id"] == response.headers["x-request-id"]


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("GET", "/docs/nothing", 404),
        ("GET", "/docs/", 404),
        ("GET", "/docs/%00", 404),
        ("GET", "/docs/" + 300 * "a", 404),
        ("GET", "/docs/%ff", 404),
        ("GET", "/docs/..%2f..%2f__init__.py", 404),
        ("POST", "/docs/swagger-ui.css", 405),
        ("DELETE", "/docs/nothing", 405),
        ("PUT", "/openapi.json", 405),
        ("DELETE", "/v2", 405),
        ("PATCH", "/v2/models/iris/infer", 405),
        ("PUT", "/v1/models/iris:predict", 405),
        ("GET", "/invocations", 405),
    ],
)
def test_a_refusal_of_any_route_has_the_one_shape(client: TestClient, method: str, path: str, status: int) -> None:
    response = client.request(method, path)
    assert is_error(response, status), response.text
    if status == 405:
        assert response.headers["Allow"] == (
            "POST" if path.endswith(("infer", "predict", "invocations")) else "GET, HEAD"
        )


def test_an_error_after_the_answer_began_is_logged_and_cuts_it_off(
    app: FastAPI, client: TestClient, caplog: pytest.LogCaptureFixture
) -> None:
    def broken() -> Iterator[str]:
        yield "begun"
        raise RuntimeError("reason")

    @app.get("/broken")
    async def begin() -> StreamingResponse:
        return StreamingResponse(broken())

    # This client tells the end of a connection from the end of an answer no better than that.
    assert client.get("/broken").text == "begun"
    (record,) = (record for record in caplog.records if record.levelno == logging.ERROR)
    assert record.exc_info and "reason" in str(record.exc_info[1])


def test_liveness_is_short(client: TestClient) -> None:
    assert client.get("/health").json() == {"status": "ok"}


def test_readiness_names_release_deployment_and_model(client: TestClient) -> None:
    assert client.get("/health/ready").json() == {
        "status": "ok",
        "model": "iris",
        "model_version": "1.0.0",
        "engine": "onnx",
        "release": "r42",
        "deployment": "d7",
        "instance": "iris-api@2",
    }


def test_an_instance_is_not_ready_before_it_has_started_nor_once_it_stops(app: FastAPI) -> None:
    # A client outside of `with` neither starts nor stops the application.
    outside = TestClient(app)
    assert outside.get("/health/ready").status_code == 503
    with TestClient(app) as client:
        assert client.get("/health/ready").status_code == 200
    response = outside.get("/health/ready")
    assert (response.status_code, response.json()["code"]) == (503, "not_ready")


def test_the_probe_is_answered_and_changes_no_figure_of_the_model(client: TestClient, model: Model) -> None:
    def figures() -> list[str]:
        of_the_model = ("iris_api_predictions_", "iris_api_feature_", "iris_api_prediction_", "iris_api_out_of_range_")
        return [line for line in client.get("/metrics").text.splitlines() if line.startswith(of_the_model)]

    before = figures()
    assert before
    for _ in range(3):
        answer = client.get("/probe")
        assert (answer.status_code, answer.headers["Content-Type"]) == (200, "application/json")
        assert answer.json()["prediction"] == model.manifest.golden_samples[0].prediction
    assert figures() == before
    requests = client.get("/metrics").text.splitlines()
    assert 'iris_api_requests_total{path="/probe",status="200"} 3.0' in requests
    assert 'iris_api_requests_total{path="/predict",status="200"} 0.0' in requests


def test_a_probe_is_red_where_the_model_answers_otherwise_than_it_must(
    edit_manifest: Callable[[Callable[[dict[str, Any]], None]], Path], settings: Settings
) -> None:
    def change(manifest: dict[str, Any]) -> None:
        sample = manifest["golden_samples"][0]
        sample["prediction"] = next(
            each["value"] for each in manifest["classes"] if each["value"] != sample["prediction"]
        )

    app = build_app(settings, Model.load(edit_manifest(change)))
    with TestClient(app, raise_server_exceptions=False) as client:
        assert client.get("/probe").status_code == 500


@pytest.mark.parametrize("path", ["/predict", "/invocations", "/v2/models/iris/infer", "/probe"])
def test_a_status_that_an_alert_asks_for_is_there_before_its_first_answer(client: TestClient, path: str) -> None:
    metrics = client.get("/metrics").text.splitlines()
    for status in (200, 422, 500, 503):
        assert f'iris_api_requests_total{{path="{path}",status="{status}"}} 0.0' in metrics


def test_metrics_count_answers_and_classes(client: TestClient) -> None:
    for body in (ROW, ROW, "{}"):
        client.post("/predict", content=body, headers=JSON)
    metrics = client.get("/metrics")
    assert metrics.headers["Content-Type"].startswith("text/plain; version=")
    for line in (
        'iris_api_requests_total{path="/predict",status="200"} 2.0',
        'iris_api_requests_total{path="/predict",status="422"} 1.0',
        'iris_api_predictions_total{class="setosa",model="iris",version="1.0.0"} 2.0',
        'iris_api_predictions_total{class="virginica",model="iris",version="1.0.0"} 0.0',
        'iris_api_request_duration_seconds_count{path="/predict"} 3.0',
        'iris_api_release_info{deployment="d7",instance_name="iris-api@2",release="r42"} 1.0',
    ):
        assert line in metrics.text.splitlines()
    assert re.search(
        r'^iris_api_model_info{engine="onnx",name="iris",sha256="[0-9a-f]{64}",version="1.0.0"} 1.0$',
        metrics.text,
        re.M,
    )
    assert "process_resident_memory_bytes" in metrics.text


def test_a_client_cannot_make_up_label_values(client: TestClient) -> None:
    before = client.get("/metrics").text.count("\n")
    for number in range(50):
        client.request(f"METHOD{number}", f"/path-{number}")
        client.request(f"METHOD{number}", "/predict")
    grown = client.get("/metrics").text.count("\n") - before
    # One path "other" with its histogram, /metrics itself, and two statuses.
    assert grown < 50


def test_the_documentation_has_working_examples(client: TestClient) -> None:
    openapi = client.get("/openapi.json").json()
    operation = openapi["paths"]["/predict"]["post"]
    content = operation["requestBody"]["content"]["application/json"]
    reference, many = content["schema"]["oneOf"]
    assert reference == many["items"] == {"$ref": "#/components/schemas/Row"}
    one = openapi["components"]["schemas"]["Row"]
    assert one["required"] == ["petal_length", "petal_width"]
    assert one["additionalProperties"] is False
    answers = client.post("/predict", json=content["examples"].pop("a list")["value"]).json()
    assert [answer["species"] for answer in answers] == ["virginica", "setosa"]
    assert content["examples"].keys() == {"setosa", "versicolor", "virginica"}
    for species, example in content["examples"].items():
        assert client.post("/predict", json=example["value"]).json()["species"] == species
    shown = operation["responses"]["200"]["content"]["application/json"]["example"]
    example = content["examples"][shown["species"]]["value"]
    assert client.post("/predict", json=example).json() == shown
    assert "/metrics" not in client.get("/openapi.json").json()["paths"]


def test_the_documentation_page_needs_nothing_from_elsewhere(client: TestClient) -> None:
    page = client.get("/docs")
    assert "unsafe" not in page.headers["Content-Security-Policy"]
    assert "://" not in page.text
    assert not re.search(r"<script>|\son\w+=", page.text)
    links = re.findall(r'(?:src|href)="([^"]+)"', page.text)
    assert len(links) == 5
    for link in links:
        # Relative links: under a prefix they lead to the same prefix.
        assert not link.startswith("/")
        assert client.get(f"/{link}").status_code == 200
    assert "SwaggerUIBundle" in client.get("/docs/swagger-ui-bundle.js").text


def test_a_client_that_goes_away_is_no_error(
    settings: Settings, model: Model, caplog: pytest.LogCaptureFixture
) -> None:
    app = build_app(settings, model)

    async def leave() -> dict[str, Any]:
        return {"type": "http.disconnect"}

    async def nobody_listens(_message: Any) -> None:
        raise AssertionError("answered nobody")

    headers = [(b"content-type", b"application/json")]
    scope = {"type": "http", "method": "POST", "path": "/predict", "query_string": b"", "headers": headers}
    asyncio.run(app(scope, leave, nobody_listens))
    assert not [record for record in caplog.records if record.levelno >= logging.WARNING]
    assert 'status="499"} 1.0' in app.state.metrics.render().decode()
