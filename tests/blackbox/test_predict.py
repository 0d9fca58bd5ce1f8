"""What the API's users see, through the gateway."""

from __future__ import annotations

from collections import Counter
from itertools import pairwise

import httpx
import pytest

from tests.blackbox.gateway import IRIS, Gateway, is_error

JSON = {"Content-Type": "application/json"}
INSTANCES = 3


def test_a_flower_is_named(gateway: Gateway) -> None:
    response = gateway.predict()
    assert response.status_code == 200
    answer = response.json()
    assert answer["prediction"] == 2
    assert answer["species"] == "virginica"
    assert len(answer["prediction_proba"]) == 3
    assert sum(answer["prediction_proba"]) == pytest.approx(1)
    assert answer["model"] == "iris"
    assert response.headers["x-model-version"] == answer["model_version"]


def test_health_is_open_and_says_ok(gateway: Gateway) -> None:
    response = gateway.client.get("/health")
    assert (response.status_code, response.json()) == (200, {"status": "ok"})


def test_300_requests_land_100_on_each_instance(gateway: Gateway) -> None:
    served = Counter(gateway.predict().headers["x-served-by"] for _ in range(300))
    # The monitoring's probe takes a turn of its own every 15 s.
    assert served == {f"iris-api@{n}": pytest.approx(300 // INSTANCES, abs=3) for n in range(1, INSTANCES + 1)}


def test_instances_take_turns(gateway: Gateway) -> None:
    served = [gateway.predict().headers["x-served-by"] for _ in range(6)]
    assert all(one != other for one, other in pairwise(served))


@pytest.mark.parametrize(
    "body",
    [
        b'{"petal_length": NaN, "petal_width": 0.8}',
        b'{"petal_length": Infinity, "petal_width": 0.8}',
        b'{"petal_length": 1e999, "petal_width": 0.8}',
        b'{"petal_length": 1e308, "petal_width": 0.8}',
        b'{"petal_length": -1e308, "petal_width": 0.8}',
    ],
    ids=["NaN", "Infinity", "1e999", "1e308", "-1e308"],
)
def test_a_number_that_is_none_is_refused_and_never_answered_500(gateway: Gateway, body: bytes) -> None:
    response = gateway.predict(content=body, headers=JSON)
    assert response.status_code == 422, response.text
    assert response.json()["details"][0]["field"] in ("petal_length", "body")


@pytest.mark.parametrize("value", ["1.4", True, None, [1.4], {"value": 1.4}], ids=repr)
def test_what_is_no_number_is_not_taken_for_one(gateway: Gateway, value: object) -> None:
    response = gateway.predict({"petal_length": value, "petal_width": 0.8})
    assert response.status_code == 422, response.text
    assert response.json()["details"][0]["field"] == "petal_length"


@pytest.mark.parametrize("body", [{}, {"petal_length": 6.5}, IRIS | {"color": 1}, [], 7, "x"], ids=repr)
def test_a_body_of_another_shape_is_refused(gateway: Gateway, body: object) -> None:
    assert gateway.predict(body).status_code == 422


@pytest.mark.parametrize(
    "body", [b"", b"null", b"{", b"\xff\xfe", b'{"petal_length": 1, "petal_length": 2, "petal_width": 1}']
)
def test_broken_json_is_refused(gateway: Gateway, body: bytes) -> None:
    assert gateway.predict(content=body, headers=JSON).status_code == 422


def test_another_content_type_is_refused(gateway: Gateway) -> None:
    response = gateway.predict(content=b"petal_length=6.5&petal_width=0.8", headers={"Content-Type": "text/plain"})
    assert is_error(response, 415, "unsupported_media_type")


@pytest.mark.parametrize("method", ["GET", "PUT", "DELETE", "PATCH", "OPTIONS", "TRACE"])
def test_another_method_is_refused_and_told_which_is_right(gateway: Gateway, method: str) -> None:
    response = gateway.predict(method=method)
    assert is_error(response, 405, "method_not_allowed")
    assert response.headers["allow"] == "POST"


@pytest.mark.parametrize(
    "path",
    ["/predictXYZ", "/predict/", "/predict/x", "/PREDICT", "/", "/metrics", "/health/ready", "/docsx", "/x.html"],
)
def test_what_is_not_named_does_not_exist(gateway: Gateway, path: str) -> None:
    """The original proxied every path that begins with /predict."""
    response = gateway.client.post(path, json=IRIS, auth=gateway.auth)
    assert is_error(response, 404, "not_found")
    assert "x-served-by" not in response.headers


def test_a_request_keeps_the_id_it_came_with(gateway: Gateway) -> None:
    response = gateway.predict(headers={"X-Request-ID": "order-17.b_A"})
    assert response.headers.get_list("x-request-id") == ["order-17.b_A"]


@pytest.mark.parametrize("name", ["a b", 'a"b', "x" * 129, "<script>"])
def test_a_harmful_id_is_replaced(gateway: Gateway, name: str) -> None:
    response = gateway.client.get("/nothing", headers={"X-Request-ID": name})
    assert is_error(response, 404, "not_found")
    assert len(response.headers["x-request-id"]) == 32


def test_http_1_1_is_served_as_well(gateway: Gateway) -> None:
    assert gateway.client.get("/health").http_version == "HTTP/2"
    with httpx.Client(http2=False, verify=gateway.trust(), base_url=gateway.url) as old:
        assert old.get("/health").http_version == "HTTP/1.1"
