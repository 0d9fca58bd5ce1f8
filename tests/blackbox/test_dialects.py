"""MLflow's `/invocations` and KServe's version 1 through the gateway: the same guards as /predict has."""

from __future__ import annotations

import pytest

from tests.blackbox.gateway import IRIS, Gateway, is_error

ROW = [IRIS["petal_length"], IRIS["petal_width"]]
BODIES = {
    "/invocations": {"dataframe_split": {"columns": ["petal_length", "petal_width"], "data": [ROW, [1.4, 0.2]]}},
    "/v1/models/iris:predict": {"instances": [ROW, [1.4, 0.2]]},
}


def test_a_ping_needs_no_password(gateway: Gateway) -> None:
    assert gateway.client.get("/ping").status_code == 200


@pytest.mark.parametrize("path", ["/version", "/v1/models", "/v1/models/iris"])
def test_everything_else_does(gateway: Gateway, path: str) -> None:
    gateway.wait(2)
    assert is_error(gateway.client.get(path), 401, "unauthorized")
    assert gateway.client.get(path, auth=gateway.auth).status_code == 200


@pytest.mark.parametrize("path", BODIES)
def test_rows_are_answered_for_who_has_the_password(gateway: Gateway, path: str) -> None:
    gateway.wait(4)
    assert is_error(gateway.client.post(path, json=BODIES[path]), 401, "unauthorized")
    answer = gateway.client.post(path, json=BODIES[path], auth=gateway.auth)
    assert answer.json() == {"predictions": [2, 0]}
    # What an instance answers is passed on as it is.
    wrong = gateway.client.post(path, json={"instances": [["a", 0.2]]}, auth=gateway.auth)
    assert wrong.status_code == 400
    assert "0.petal_length" in wrong.text
    refused = gateway.client.put(path, auth=gateway.auth)
    assert (refused.status_code, refused.headers["Allow"]) == (405, "POST")


def test_a_path_beside_them_is_none(gateway: Gateway) -> None:
    gateway.wait(2)
    assert is_error(gateway.client.get("/invocationsXYZ"), 404, "not_found")
    assert is_error(gateway.client.get("/v3"), 404, "not_found")
