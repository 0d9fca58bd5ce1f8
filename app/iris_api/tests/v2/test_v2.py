"""The Open Inference Protocol, as its clients speak it; tritonclient is the reference."""

from __future__ import annotations

import json
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import joblib
import numpy as np
import pytest
from starlette.testclient import TestClient
from tritonclient import http as triton
from tritonclient.utils import InferenceServerException

from ..instance import Instance
from ..paths import BUNDLE, MODELS

pytestmark = pytest.mark.kernel

INFER = "/v2/models/iris/infer"
ROWS = [[6.5, 0.8], [1.4, 0.2], [4.35, 1.35]]


def tensor(**changes: Any) -> dict[str, Any]:
    flat = [value for row in ROWS for value in row]
    return {"inputs": [{"name": "input", "shape": [3, 2], "datatype": "FP64", "data": flat} | changes]}


def test_the_server_says_what_it_is_and_that_it_lives(client: TestClient) -> None:
    assert client.get("/v2").json()["extensions"] == ["binary_tensor_data"]
    assert client.get("/v2/health/live").json() == {"live": True}
    assert client.get("/v2/health/ready").json() == {"ready": True}


@pytest.mark.parametrize("path", ["/v2/models/iris", "/v2/models/iris/versions/1.0.0"])
def test_the_model_says_what_it_takes(client: TestClient, path: str) -> None:
    about = client.get(path).json()
    assert (about["name"], about["versions"], about["platform"]) == ("iris", ["1.0.0"], "onnxruntime_onnx")
    (given,) = about["inputs"]
    assert (given["name"], given["datatype"], given["shape"]) == ("input", "FP64", [-1, 2])
    assert [(each["name"], each["datatype"], each["shape"]) for each in about["outputs"]] == [
        ("prediction", "INT64", [-1]),
        ("prediction_proba", "FP64", [-1, 3]),
        ("species", "BYTES", [-1]),
    ]
    assert client.get(f"{path}/ready").json() == {"name": "iris", "ready": True}
    assert client.post(f"{path}/infer", json=tensor()).status_code == 200


@pytest.mark.parametrize("path", ["/v2/models/iris/config", "/v2/models/iris/versions/1.0.0/config"])
def test_the_model_has_a_configuration_as_triton_has_one(client: TestClient, path: str) -> None:
    assert client.get(path).json() == {
        "name": "iris",
        "platform": "onnxruntime_onnx",
        "version_policy": {"latest": {"num_versions": 1}},
        "max_batch_size": 1000,
        "input": [{"name": "input", "data_type": "TYPE_FP64", "dims": [2]}],
        "output": [
            {"name": "prediction", "data_type": "TYPE_INT64", "dims": [1], "reshape": {"shape": []}},
            {"name": "prediction_proba", "data_type": "TYPE_FP64", "dims": [3]},
            {"name": "species", "data_type": "TYPE_STRING", "dims": [1], "reshape": {"shape": []}},
        ],
    }


def test_models_and_the_index_of_the_repository_name_the_model(client: TestClient) -> None:
    assert client.get("/v2/models").json() == {"models": ["iris"]}
    found = [{"name": "iris", "version": "1.0.0", "state": "READY", "reason": ""}]
    for body in ("", "{}", '{"ready": true}'):
        assert client.post("/v2/repository/index", content=body).json() == found
    assert client.get("/v2/repository/index").headers["Allow"] == "POST"


def test_readiness_is_that_of_the_instance(app: Any) -> None:
    outside = TestClient(app)
    for path in ("/v2/health/ready", "/v2/models/iris/ready"):
        assert outside.get(path).status_code == 503
    assert outside.post("/v2/repository/index").status_code == 503
    assert outside.get("/v2/health/live").status_code == 200


@pytest.mark.parametrize("data", [[value for row in ROWS for value in row], ROWS], ids=["flat", "nested"])
def test_rows_are_answered_as_predict_answers_them(client: TestClient, data: Any) -> None:
    answer = client.post(INFER, json=tensor(data=data) | {"id": "42"}).json()
    assert (answer["id"], answer["model_name"], answer["model_version"]) == ("42", "iris", "1.0.0")
    outputs = {each["name"]: each for each in answer["outputs"]}
    rows = [dict(zip(("petal_length", "petal_width"), row, strict=True)) for row in ROWS]
    expected = client.post("/predict", json=rows).json()
    assert outputs["prediction"]["data"] == [each["prediction"] for each in expected]
    assert outputs["species"]["data"] == [each["species"] for each in expected]
    assert outputs["prediction_proba"]["shape"] == [3, 3]
    assert outputs["prediction_proba"]["data"] == [share for each in expected for share in each["prediction_proba"]]


def test_an_answer_has_the_outputs_that_were_asked_for_and_no_id_of_its_own(client: TestClient) -> None:
    answer = client.post(INFER, json=tensor() | {"outputs": [{"name": "species"}]}).json()
    assert [each["name"] for each in answer["outputs"]] == ["species"]
    assert "id" not in answer


@pytest.mark.parametrize(
    ("body", "complaint"),
    [
        (tensor(shape=[2, 2]), "has 4 values, but 6 came"),
        (tensor(shape=[2, 3]), "a row of this model has 2 values"),
        (tensor(shape=[6]), "the shape is [6], but a row of this model has 2 values: petal_length, petal_width"),
        (tensor(shape=[3, 1, 2]), "inputs.0.shape"),
        (tensor(shape=[-3, -2]), "inputs.0.shape.0"),
        (tensor(shape=[3, 2.0]), "inputs.0.shape.1"),
        (tensor(shape=[10**9, 2]), "but 6 came"),
        (tensor(data=[[6.5, 0.8], [1.4], [4.35, 1.35]]), "not 3 lists of 2 numbers"),
        (tensor(data=[[6.5, 0.8], 1.4, 0.2, [4.35, 1.35]]), "not 3 lists of 2 numbers"),
        (tensor(data=ROWS[:2]), "not 3 lists of 2 numbers"),
        (tensor(data=[1.5, 2, 3, 4, 5, 2**53 + 1]), "2.petal_width: "),
        (tensor(datatype="FP32", data=[1.5, 2, 3, 4, 5, 2**24 + 1]), "16777217 is not held exactly by FP32"),
        (tensor(datatype="INT8", data=[1, 2, 3, 4, 5, -129]), "-129 is no INT8, an integer from -128 to 127"),
        (tensor(data=None), "there is no data"),
        (tensor(datatype="BYTES"), "input: the datatype is BYTES, but petal_length is a number, which is sent as FP64"),
        (tensor(datatype="BOOL"), "input: the datatype is BOOL, but petal_length is a number"),
        (tensor(datatype="FP8"), "inputs.0.datatype"),
        (tensor(datatype="FP16", data=[1.5, 2, 3, 4, 5, 2**11 + 1]), "2049 is not held exactly by FP16"),
        (tensor(datatype="INT64"), "0.petal_length: 6.5 is no INT64"),
        (tensor(datatype="UINT8", data=[1, 2, 3, 4, 5, 256]), "2.petal_width: 256 is no UINT8"),
        (tensor(data=[1, 2, 3, 4, 5, "6"]), "2.petal_width: Input should be a valid number"),
        (tensor(data=[1, 2, 3, 4, 5, True]), "2.petal_width: Input should be a valid number"),
        (tensor(data=[1, 2, 3, 4, 5, 101]), "2.petal_width: Input should be less than or equal to 100"),
        (tensor(name=5), "inputs.0.name"),
        (tensor(parameters={"binary_data_size": 48}), "48 bytes after the JSON"),
        ({"inputs": []}, "inputs: List should have at least 1 item"),
        ({"inputs": 2 * tensor()["inputs"]}, "input: the model has no such feature. Send one tensor for each of"),
        ({}, "inputs: Field required"),
        ([], "The body: Input should be"),
        (tensor() | {"id": 5}, "id: Input should be a valid string"),
        (tensor() | {"outputs": [{"name": "colour"}]}, "there are prediction, prediction_proba, species"),
        (tensor() | {"outputs": 2 * [{"name": "prediction_proba"}]}, "An output is asked for more than once."),
        (tensor(shape=[2, 2**63]), "inputs.0.shape.1"),
        (tensor(shape=[int("9" * 400), int("9" * 400)]), "inputs.0.shape.0"),
        (tensor(parameters={"binary_data_size": 2**63}), "inputs.0.parameters.binary_data_size"),
    ],
)
def test_what_is_wrong_is_said_with_400(client: TestClient, body: Any, complaint: str) -> None:
    response = client.post(INFER, json=body)
    assert response.status_code == 400
    error = response.json()
    assert complaint in error["error"]
    assert len(error["error"]) < 500
    assert error.keys() == {"error", "code", "request_id"}


# Half of a surrogate pair is no character: whoever must repeat it, in an answer or a log, can't.
@pytest.mark.parametrize(
    "body",
    [
        *(b"", b"{", b"\xff", b'{"inputs": NaN}', b'{"id": "\\ud800"}', b'{"\\udfff": 1}'),
        json.dumps(tensor() | {"id": "\ud800"}).encode(),
        json.dumps(tensor() | {"outputs": [{"name": "\udc00\ud800"}]}).encode(),
    ],
)
def test_what_is_no_json_is_400(client: TestClient, body: bytes) -> None:
    response = client.post(INFER, content=body, headers={"Content-Type": "application/json"})
    assert (response.status_code, response.json()["code"]) == (400, "invalid_json")
    assert response.json()["request_id"] == response.headers["X-Request-ID"]


@pytest.mark.parametrize(
    ("by_default", "of_the_output", "is_binary"),
    [
        (None, None, False),
        (None, True, True),
        (None, False, False),
        (True, None, True),
        (True, False, False),
        (False, None, False),
        (False, True, True),
    ],
)
def test_an_output_is_binary_where_it_was_asked_for(
    client: TestClient, by_default: bool | None, of_the_output: bool | None, is_binary: bool
) -> None:
    """What tritonclient gets it reads either way, so its tests do not tell."""
    output: dict[str, Any] = {"name": "prediction"}
    if of_the_output is not None:
        output["parameters"] = {"binary_data": of_the_output}
    body = tensor() | {"outputs": [output]}
    if by_default is not None:
        body["parameters"] = {"binary_data_output": by_default}
    response = client.post(INFER, json=body)
    assert response.status_code == 200
    length = response.headers.get("Inference-Header-Content-Length")
    assert (length is not None) == is_binary
    [found] = json.loads(response.content[: int(length)] if length else response.content)["outputs"]
    if length:
        assert response.headers["Content-Type"] == "application/octet-stream"
        assert "data" not in found
        assert found["parameters"] == {"binary_data_size": 24}
        assert struct.unpack("<3q", response.content[int(length) :]) == (2, 0, 1)
    else:
        assert found["data"] == [2, 0, 1]


def test_an_id_comes_back_as_it_is(client: TestClient) -> None:
    for given in ("r\u00e9\U0001f600\u0000\n", ""):
        assert client.post(INFER, json=tensor() | {"id": given}).json()["id"] == given


def test_other_refusals(client: TestClient) -> None:
    assert client.post(INFER, content="{}", headers={"Content-Type": "text/plain"}).status_code == 415
    assert client.post(INFER, content=2000 * b" ").status_code == 413
    assert client.post("/v2/models/rose/infer", json=tensor()).status_code == 404
    assert client.post("/v2/models/iris/versions/2/infer", json=tensor()).status_code == 404
    assert client.get(INFER).status_code == 405
    for length in (b"x", b"-1", b"9" * 5000):
        given = [(b"inference-header-content-length", length)]
        assert client.post(INFER, json=tensor(), headers=given).status_code == 400
    assert 'iris_api_rejected_requests_total{reason="unsupported_media_type"} 1.0' in client.get("/metrics").text


def test_bytes_that_nobody_claims_are_refused(client: TestClient) -> None:
    body = b'{"inputs": [{"name": "input", "shape": [1, 2], "datatype": "FP64", "data": [1, 2]}]}'
    given = {"Inference-Header-Content-Length": str(len(body)), "Content-Type": "application/octet-stream"}
    assert client.post(INFER, content=body, headers=given).status_code == 200
    assert client.post(INFER, content=body + b"x", headers=given).status_code == 400


@pytest.mark.parametrize("value", [float("nan"), float("inf"), 1e308])
def test_a_binary_number_is_judged_as_any_other(client: TestClient, value: float) -> None:
    head = (
        b'{"inputs": [{"name": "input", "shape": [1, 2], "datatype": "FP64", "parameters": {"binary_data_size": 16}}]}'
    )
    given = {"Inference-Header-Content-Length": str(len(head))}
    response = client.post(INFER, content=head + struct.pack("<2d", value, 1), headers=given)
    assert response.status_code == 400
    assert "petal_length" in response.json()["error"]


Connect = Callable[..., triton.InferenceServerClient]


@pytest.fixture(scope="module")
def connect(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """Start an instance of a bundle and return tritonclient, connected with it."""
    running: list[Instance] = []

    def start(bundle: Path = BUNDLE) -> triton.InferenceServerClient:
        instance = Instance(tmp_path_factory.mktemp("instance"), bundle)
        running.append(instance)
        instance.wait_until_ready()
        return triton.InferenceServerClient(f"127.0.0.1:{instance.port}")

    yield start
    for instance in running:
        instance.close()


@pytest.fixture(scope="module")
def reference_client(connect: Connect) -> triton.InferenceServerClient:
    return connect()


def test_tritonclient_finds_server_and_model(reference_client: triton.InferenceServerClient) -> None:
    assert reference_client.is_server_live()
    assert reference_client.is_server_ready()
    assert reference_client.is_model_ready("iris")
    assert reference_client.is_model_ready("iris", "1.0.0")
    assert not reference_client.is_model_ready("iris", "2")
    assert reference_client.get_server_metadata()["name"] == "iris-api"
    assert reference_client.get_model_metadata("iris")["inputs"][0]["shape"] == [-1, 2]
    assert reference_client.get_model_config("iris", "1.0.0")["input"][0]["dims"] == [2]
    index = reference_client.get_model_repository_index()
    assert [(each["name"], each["version"], each["state"]) for each in index] == [("iris", "1.0.0", "READY")]


@pytest.mark.parametrize("datatype", ["FP64", "FP32"])
@pytest.mark.parametrize("binary_in", [False, True], ids=["json", "binary"])
@pytest.mark.parametrize("binary_out", [False, True], ids=["to-json", "to-binary"])
def test_tritonclient_gets_the_models_own_answers(
    reference_client: triton.InferenceServerClient, datatype: str, binary_in: bool, binary_out: bool
) -> None:
    rows = np.random.default_rng(1).uniform(0, 2.5, (40, 2)).astype({"FP64": "f8", "FP32": "f4"}[datatype])
    given = triton.InferInput("input", list(rows.shape), datatype)
    given.set_data_from_numpy(rows, binary_data=binary_in)
    names = ["prediction", "prediction_proba", "species"]
    wanted = [triton.InferRequestedOutput(name, binary_data=binary_out) for name in names]
    answer = reference_client.infer("iris", [given], outputs=wanted, request_id="r7")
    assert answer.get_response()["id"] == "r7"
    estimator = joblib.load(BUNDLE / "model.joblib")
    assert answer.as_numpy("prediction").tolist() == estimator.predict(rows).tolist()
    assert answer.as_numpy("prediction_proba") == pytest.approx(estimator.predict_proba(rows.astype("f8")), abs=1e-12)
    species = [each.decode() if isinstance(each, bytes) else each for each in answer.as_numpy("species")]
    assert species == [["setosa", "versicolor", "virginica"][each] for each in estimator.predict(rows)]


def test_tritonclient_may_leave_the_outputs_to_the_server(reference_client: triton.InferenceServerClient) -> None:
    given = triton.InferInput("input", [3, 2], "FP64")
    given.set_data_from_numpy(np.array(ROWS))
    assert reference_client.infer("iris", [given]).as_numpy("prediction").tolist() == [2, 0, 1]


@pytest.mark.parametrize("binary", [False, True], ids=["json", "binary"])
@pytest.mark.parametrize("count", [3, 40])
def test_tritonclient_may_send_a_tensor_for_each_feature(
    reference_client: triton.InferenceServerClient, binary: bool, count: int
) -> None:
    rows = np.random.default_rng(2).uniform(0, 6, (count, 2)).astype("f4")
    given = []
    for number, name in ((1, "petal_width"), (0, "petal_length")):
        given.append(triton.InferInput(name, [count], "FP32"))
        given[-1].set_data_from_numpy(rows[:, number], binary_data=binary)
    expected = joblib.load(BUNDLE / "model.joblib").predict(rows.astype("f8"))
    assert reference_client.infer("iris", given).as_numpy("prediction").tolist() == expected.tolist()
    with pytest.raises(InferenceServerException, match=r"petal_width: the shape is \[\d+\], but a row of this"):
        reference_client.infer("iris", given[:1])


def test_tritonclient_shows_the_reason_of_a_refusal(reference_client: triton.InferenceServerClient) -> None:
    given = triton.InferInput("input", [1, 3], "FP64")
    given.set_data_from_numpy(np.ones((1, 3)), binary_data=False)
    with pytest.raises(InferenceServerException, match="a row of this model has 2 values"):
        reference_client.infer("iris", [given])


def test_tritonclient_speaks_with_a_regressor(connect: Connect) -> None:
    bundle = MODELS / "diabetes" / "1.0.0"
    estimator, client = joblib.load(bundle / "model.joblib"), connect(bundle)
    row = np.array([[50, 1, 25, 90, 180, 110, 50, 4, 4.8, 90]], dtype=float)
    given = triton.InferInput("input", [1, 10], "FP64")
    given.set_data_from_numpy(row, binary_data=False)
    answer = client.infer("diabetes", [given])
    assert answer.as_numpy("prediction") == pytest.approx(estimator.predict(row), rel=1e-12)
