"""No input whatever is an error of ours.

The long run: FUZZ_EXAMPLES=50000 pytest app/tests/test_fuzz.py
"""

from __future__ import annotations

import json
import math
import os
import struct
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from starlette.testclient import TestClient

from instance import Instance
from iris_api.errors import ApiError
from iris_api.model import Model
from iris_api.rows import RowParser

JSON = {"Content-Type": "application/json"}
INFER = "/v2/models/iris/infer"

fuzz = settings(
    max_examples=int(os.environ.get("FUZZ_EXAMPLES", "1500")),
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)

json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=12,
)
texts = st.binary(max_size=200) | st.text().map(lambda text: text.encode("utf-8", "surrogatepass"))


def with_length(literal: str) -> bytes:
    return f'{{"petal_length": {literal}, "petal_width": 0.8}}'.encode()


near_rows = st.fixed_dictionaries(
    {}, optional={"petal_length": json_values, "petal_width": json_values, "colour": json_values}
)
rows = st.fixed_dictionaries({"petal_length": st.floats(0, 100), "petal_width": st.floats(0, 100)})
bodies = (
    texts
    | (json_values | near_rows | st.lists(rows | near_rows, max_size=5)).map(lambda value: json.dumps(value).encode())
    | st.floats().map(lambda value: with_length(repr(value)))
    | st.integers(-(10**400), 10**400).map(lambda value: with_length(str(value)))
)


def near(right: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    """What is right nearly always, so that what stands behind it is reached."""
    return st.integers(0, 9).flatmap(lambda number: json_values if number == 0 else right)


numbers = st.floats(0, 100) | st.floats() | st.integers()
tensors = st.fixed_dictionaries(
    {
        "name": near(st.just("input")),
        "shape": near(st.tuples(st.integers(0, 3), st.integers(1, 3)) | st.just((2, 2))),
        "datatype": near(st.sampled_from(["FP64", "FP32", "INT64", "UINT8", "BOOL", "BYTES"])),
    },
    optional={
        "data": near(st.lists(numbers, max_size=6) | st.lists(st.lists(numbers, max_size=3), max_size=3)),
        "parameters": near(st.fixed_dictionaries({}, optional={"binary_data_size": st.integers(-1, 50)})),
    },
)
requests = st.fixed_dictionaries(
    {"inputs": near(st.lists(tensors, min_size=1, max_size=1))},
    optional={
        "id": near(st.text()),
        "parameters": near(st.just({"binary_data_output": True})),
        "outputs": near(st.lists(st.fixed_dictionaries({"name": st.sampled_from(["prediction", "species", "x"])}))),
    },
)


@fuzz
@given(body=bodies)
@example(body=b'{"petal_length": 1e308, "petal_width": 1e308}')
@example(body=b'{"petal_length": 1' + 500 * b"0" + b', "petal_width": 1}')
@example(body=900 * b'{"a":')
def test_no_body_of_predict(client: TestClient, body: bytes) -> None:
    response = client.post("/predict", content=body, headers=JSON)
    assert response.status_code in {200, 413, 422}
    answer = response.json()
    if response.status_code == 200:
        for each in answer if isinstance(answer, list) else [answer]:
            assert all(math.isfinite(probability) for probability in each["prediction_proba"])
    else:
        assert answer.keys() >= {"error", "code", "request_id"}


@pytest.fixture(scope="module")
def parsers(model: Model) -> list[RowParser]:
    """One as it is, and one that has no quick way."""
    quick, other = RowParser(model.manifest, 5), RowParser(model.manifest, 5)
    other._quotes = -1
    return [quick, other]


literals = st.from_regex(
    r"[-+]?[0-9]{0,25}(\.[0-9]{0,25})?([eE][-+]?[0-9]{0,3})?|-?(NaN|Infinity)|true|null", fullmatch=True
)
names = st.sampled_from(["petal_length", "petal_width", "petal_lengt\\u0068", "petal\\u005fwidth", "colour", "", '\\"'])
members = st.lists(st.tuples(names, literals), min_size=1, max_size=3)


@fuzz
@given(body=bodies | members.map(lambda pairs: ("{" + ", ".join(f'"{a}": {b}' for a, b in pairs) + "}").encode()))
@example(body=b'{"petal_length": 1, "petal_width": 1, "petal_width": 2}')
@example(body=b'{"petal_width": 1, "petal_width": 2}')
@example(body=b'{"petal_length": -0, "petal_width": 1e-400}')
@example(body=b'{"petal_length": 1, "petal_width": 1} x')
@example(body=b'\xef\xbb\xbf{"petal_length": 1, "petal_width": 1}')
@example(body=b'\t{"petal_length": 1, "petal_width": 1}\r\n')
@example(body=b'{"petal_length": 1, "petal_width\xff": 1}')
def test_the_quick_way_to_a_row_takes_what_the_other_takes(parsers: list[RowParser], body: bytes) -> None:
    outcomes = []
    for parser in parsers:
        try:
            outcomes.append(repr(parser.parse(body)))
        except ApiError as error:
            outcomes.append(repr((error.code, error.details)))
    assert outcomes[0] == outcomes[1]


@fuzz
@given(body=texts | (json_values | requests).map(lambda value: json.dumps(value).encode()))
@example(body=b'{"inputs": [{"name": "input", "shape": [99999999999999999999, 2], "datatype": "FP64", "data": []}]}')
def test_no_body_of_the_protocol(client: TestClient, body: bytes) -> None:
    response = client.post(INFER, content=body, headers=JSON)
    assert response.status_code in {200, 400, 413}
    if response.status_code != 200:
        assert isinstance(response.json()["error"], str)


@fuzz
@given(
    request=requests,
    values=st.lists(st.floats(0, 100) | st.floats(), max_size=6),
    excess=st.binary(max_size=3),
    off=st.sampled_from([0, 0, 0, 0, -1, 1, 10**8]),
)
def test_no_binary_tensor(
    client: TestClient, request: dict[str, Any], values: list[float], excess: bytes, off: int
) -> None:
    head = json.dumps(request).encode()
    headers = {"Inference-Header-Content-Length": str(max(0, len(head) + off))}
    response = client.post(INFER, content=head + struct.pack(f"<{len(values)}d", *values) + excess, headers=headers)
    assert response.status_code in {200, 400, 413}


@pytest.mark.parametrize("model", ["iris", "diabetes"])
def test_schemathesis_finds_nothing(model: str, start: Callable[..., Instance], tmp_path: Path) -> None:
    """All its phases and checks, over the wire."""
    instance = start(Path(__file__).parents[2] / "models" / model / "1.0.0")
    instance.wait_until_ready()
    command = [
        str(Path(sys.executable).with_name("schemathesis")),
        f"--config-file={Path(__file__).with_name('schemathesis.toml')}",
        "run",
        "--checks=all",
        f"--max-examples={os.environ.get('SCHEMATHESIS_EXAMPLES', '30')}",
        "--seed=1",
        "--no-color",
        f"http://127.0.0.1:{instance.port}/openapi.json",
    ]
    done = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path, check=False)
    assert done.returncode == 0, done.stdout[:2000] + done.stdout[-4000:]
    assert not [event for event in instance.log if event["level"] == "error"]
