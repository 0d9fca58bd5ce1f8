"""The Open Inference Protocol through the gateway, spoken by tritonclient as its users do."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pytest
from tritonclient import http as triton
from tritonclient.http.auth import BasicAuth
from tritonclient.utils import InferenceServerException

from tests.blackbox.gateway import IRIS, Gateway, is_error

ROWS = np.array([[6.5, 0.8], [1.4, 0.2], [4.35, 1.35]])


@pytest.fixture
def client(gateway: Gateway) -> Iterator[triton.InferenceServerClient]:
    """A client with the password; each call of a test waits its turn below the limit."""
    with triton.InferenceServerClient(
        gateway.url.removeprefix("https://"), ssl=True, ssl_options={"ca_certs": gateway.ca}
    ) as client:
        client.register_plugin(BasicAuth(*gateway.auth))
        gateway.wait(5)
        yield client


def infer(client: triton.InferenceServerClient, *, binary: bool) -> triton.InferResult:
    given = triton.InferInput("input", list(ROWS.shape), "FP64")
    given.set_data_from_numpy(ROWS, binary_data=binary)
    wanted = [triton.InferRequestedOutput(name, binary_data=binary) for name in ("prediction", "prediction_proba")]
    return client.infer("iris", [given], outputs=wanted, request_id="42")


def test_health_needs_no_password(gateway: Gateway) -> None:
    assert gateway.client.get("/v2/health/live").json() == {"live": True}
    assert gateway.client.get("/v2/health/ready").json() == {"ready": True}


def test_everything_else_does(gateway: Gateway) -> None:
    for path in (
        "/v2",
        "/v2/models",
        "/v2/models/iris",
        "/v2/models/iris/config",
        "/v2/models/iris/versions/1.0.0/ready",
    ):
        gateway.wait()
        assert is_error(gateway.client.get(path), 401, "unauthorized")
    gateway.wait()
    assert is_error(gateway.client.post("/v2/models/iris/infer", json={}), 401, "unauthorized")
    gateway.wait()
    assert is_error(gateway.client.post("/v2/repository/index"), 401, "unauthorized")


def test_the_server_and_its_model_are_ready(client: triton.InferenceServerClient) -> None:
    assert client.is_server_live()
    assert client.is_server_ready()
    assert client.is_model_ready("iris")
    (given,) = client.get_model_metadata("iris")["inputs"]
    assert (given["name"], given["datatype"], given["shape"]) == ("input", "FP64", [-1, 2])


def test_the_model_is_in_the_repository_and_has_a_configuration(
    gateway: Gateway, client: triton.InferenceServerClient
) -> None:
    [found] = client.get_model_repository_index()
    assert (found["name"], found["state"]) == ("iris", "READY")
    assert client.get_model_config("iris")["input"] == [{"name": "input", "data_type": "TYPE_FP64", "dims": [2]}]
    assert gateway.client.get("/v2/models", auth=gateway.auth).json() == {"models": ["iris"]}


@pytest.mark.parametrize("binary", [False, True], ids=["JSON", "binary tensors"])
def test_rows_are_answered_as_predict_answers_them(
    gateway: Gateway, client: triton.InferenceServerClient, binary: bool
) -> None:
    result = infer(client, binary=binary)
    assert result.get_response()["id"] == "42"
    single = gateway.predict(IRIS).json()
    assert result.as_numpy("prediction")[0] == single["prediction"]
    np.testing.assert_allclose(result.as_numpy("prediction_proba")[0], single["prediction_proba"], rtol=1e-12)


def test_a_tensor_for_each_feature_is_answered_as_one_of_all(client: triton.InferenceServerClient) -> None:
    given = []
    for number, name in ((1, "petal_width"), (0, "petal_length")):
        given.append(triton.InferInput(name, [len(ROWS)], "FP64"))
        given[-1].set_data_from_numpy(ROWS[:, number].copy())
    assert client.infer("iris", given).as_numpy("prediction").tolist() == [2, 0, 1]


def test_an_error_is_a_sentence_the_client_shows(client: triton.InferenceServerClient) -> None:
    given = triton.InferInput("input", [1, 3], "FP64")
    given.set_data_from_numpy(np.zeros((1, 3)), binary_data=False)
    with pytest.raises(InferenceServerException, match="shape") as caught:
        client.infer("iris", [given])
    assert caught.value.status() == "400"


def test_predict_takes_a_list_of_rows(gateway: Gateway) -> None:
    answers = gateway.predict([IRIS, {"petal_length": 1.4, "petal_width": 0.2}]).json()
    assert [answer["species"] for answer in answers] == ["virginica", "setosa"]
