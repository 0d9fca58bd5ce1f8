"""A number reaches the model as it was sent, or the request is refused with the number in the message."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from starlette.testclient import TestClient

from iris_api.engines.model import Answers, Model
from iris_api.server.app import build_app
from iris_api.settings import Settings
from iris_api.v2.codec import TensorCodec
from iris_api.v2.datatypes import DTYPES

from ..strategies import fuzz
from ..tabular import Tabular

INFER = "/v2/models/iris/infer"
GREATEST = 1.7e308


class Recorder(Tabular):
    """An engine that remembers the rows it was given."""

    name = "sklearn"
    tolerance = 0.0
    turns = 1

    def __init__(self) -> None:
        self.rows: list[list[float]] = []

    def __call__(self, rows: Sequence[Sequence[float]]) -> Answers:
        self.rows = [list(row) for row in rows]
        return Answers([0 for _ in rows], [[1.0, 0.0, 0.0] for _ in rows])


class Wide:
    """A client of a model whose features may be as great as a float is."""

    def __init__(self, client: TestClient, engine: Recorder) -> None:
        self.client = client
        self._engine = engine

    def post(self, path: str, body: bytes, **headers: str) -> tuple[Any, list[list[float]]]:
        """Return the response and the rows that the engine was given."""
        self._engine.rows = []
        response = self.client.post(path, content=body, headers={"Content-Type": "application/json"} | headers)
        return response, self._engine.rows


@pytest.fixture(scope="module")
def wide(settings: Settings, model: Model) -> Iterator[Wide]:
    limits = {"minimum": -GREATEST, "maximum": GREATEST}
    features = [feature.model_copy(update=limits) for feature in model.manifest.features]
    engine = Recorder()
    served = Model(model.manifest.model_copy(update={"features": features}), engine)
    with TestClient(build_app(settings.model_copy(update={"max_body_bytes": 65536}), served)) as client:
        yield Wide(client, engine)


def tensor(datatype: str, data: Any, **parameters: int) -> dict[str, Any]:
    given = {"parameters": parameters} if parameters else {"data": data}
    return {"inputs": [{"name": "input", "shape": [1, 2], "datatype": datatype, **given}]}


datatypes = st.sampled_from(sorted(DTYPES))
near_limits = st.sampled_from([2**53, 2**24, 2**31, 2**32, 2**63, 2**64, 2**7, 2**8, 2**15, 2**16, 2**128, 2**1024])
integers = (
    st.integers(-(2**70), 2**70)
    | st.integers(-300, 300)
    | st.builds(
        lambda limit, off, sign: sign * (limit + off), near_limits, st.integers(-3, 3), st.sampled_from([1, -1])
    )
)
decimals = st.floats(-GREATEST, GREATEST)


@fuzz
@given(datatype=datatypes, value=integers | decimals)
@example(datatype="INT64", value=27021597764222977)
@example(datatype="UINT64", value=2**64 - 1)
@example(datatype="FP64", value=2**53 + 1)
@example(datatype="FP32", value=2**24 + 1)
@example(datatype="FP32", value=1e39)
@example(datatype="FP32", value=0.1)
@example(datatype="FP64", value=10**400)
def test_a_number_of_a_tensor_in_json(wide: Wide, datatype: str, value: float) -> None:
    response, rows = wide.post(INFER, json.dumps(tensor(datatype, [value, 1])).encode())
    if response.status_code == 200:
        assert rows == [[value, 1]]
        if not datatype.startswith("FP"):
            assert type(value) is int
    else:
        assert (response.status_code, rows) == (400, [])
        assert "petal_length" in response.json()["error"]
        if abs(value) < 1e30:
            assert repr(value) in response.json()["error"]
    fits = {"FP64": abs(value) <= GREATEST, "FP32": abs(value) <= float(np.finfo("f4").max)}
    if datatype in fits and type(value) is float:
        # A decimal is rounded once, to the nearest float of 64 bits, by whoever reads JSON.
        assert (response.status_code == 200) == fits[datatype]
    if datatype == "INT64" and type(value) is int and abs(value) <= 2**53:
        assert response.status_code == 200


@fuzz
@given(datatype=datatypes, octets=st.binary(min_size=16, max_size=16))
@example(datatype="INT64", octets=np.array([27021597764222977, 1], "<i8").tobytes())
@example(datatype="UINT64", octets=np.array([2**64 - 1, 1], "<u8").tobytes())
def test_a_number_of_a_binary_tensor(wide: Wide, datatype: str, octets: bytes) -> None:
    sent = np.frombuffer(octets, DTYPES[datatype])[:2]
    head = json.dumps(tensor(datatype, None, binary_data_size=sent.nbytes)).encode()
    body = head + sent.tobytes()
    response, rows = wide.post(INFER, body, **{"Inference-Header-Content-Length": str(len(head))})
    if response.status_code == 200:
        assert rows == [sent.tolist()]
    else:
        assert (response.status_code, rows) == (400, [])
        if not datatype.startswith("FP"):
            assert any(str(value) in response.json()["error"] for value in sent.tolist() if abs(value) > 2**53)
    if datatype in {"INT32", "INT16", "INT8", "UINT32", "UINT16", "UINT8"}:
        assert response.status_code == 200


@fuzz
@given(value=integers | decimals, as_list=st.booleans())
@example(value=27021597764222977, as_list=False)
@example(value=27021597764222976, as_list=False)
@example(value=-(2**53) - 1, as_list=True)
@example(value=10**400, as_list=True)
def test_a_number_of_a_row(wide: Wide, value: float, as_list: bool) -> None:
    row = {"petal_length": 1, "petal_width": value}
    response, rows = wide.post("/predict", json.dumps([row] if as_list else row).encode())
    if response.status_code == 200:
        assert rows == [[1, value]]
    else:
        assert (response.status_code, rows) == (422, [])
        (detail,) = response.json()["details"]
        assert detail["field"] == ("0.petal_width" if as_list else "petal_width")
        if abs(value) < GREATEST:
            assert str(value) in detail["reason"] and str(int(float(value))) in detail["reason"]
    if type(value) is float or abs(value) <= 2**53:
        assert response.status_code == 200


def test_what_to_do_is_said(wide: Wide) -> None:
    response, _ = wide.post(INFER, json.dumps(tensor("INT64", [1, 27021597764222977])).encode())
    assert response.json()["error"] == (
        "input: 0.petal_width: The integer 27021597764222977 is not held exactly by a float of 64 bits, with which the "
        "model computes. The nearest that is: 27021597764222976; send that, or a decimal."
    )
    response, _ = wide.post(INFER, json.dumps(tensor("FP32", [2**24 + 1, 1])).encode())
    assert "petal_length: The integer 16777217 is not held exactly by FP32. Send it as FP64" in response.json()["error"]
    response, _ = wide.post(INFER, json.dumps(tensor("BOOL", [True, False])).encode())
    assert response.status_code == 400 and "the datatype is BOOL" in response.json()["error"]


def test_labels_beyond_int64_are_promised_and_sent_as_uint64(model: Model) -> None:
    classes = model.manifest.classes
    assert classes
    changed = [*classes[:-1], classes[-1].model_copy(update={"value": 2**64 - 1})]
    codec = TensorCodec(model.manifest.model_copy(update={"classes": changed}), None)  # type: ignore[arg-type]
    assert codec.outputs[0].datatype == "UINT64"
