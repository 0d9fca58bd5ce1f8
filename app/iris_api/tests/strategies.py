"""Bodies that no client should send, some that one should, and what must come back: in its process or from a site.

FUZZ_EXAMPLES says how many of each kind a test is called with.
"""

from __future__ import annotations

import json
import math
import os
import struct
from collections.abc import Callable
from typing import Any

import httpx
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from starlette.testclient import TestClient

EXAMPLES = int(os.environ.get("FUZZ_EXAMPLES", "1500"))

fuzz = settings(
    max_examples=EXAMPLES,
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
tables = st.lists(st.lists(st.floats(0, 100), min_size=2, max_size=2), min_size=1, max_size=3)


def tensor_of(table: list[list[float]]) -> st.SearchStrategy[dict[str, Any]]:
    """A tensor whose parts agree, nearly always."""
    return st.fixed_dictionaries(
        {
            "name": near(st.just("input")),
            "shape": near(st.just([len(table), 2])),
            "datatype": near(st.sampled_from(["FP64", "FP32"])),
            "data": near(st.sampled_from([table, [value for row in table for value in row]])),
        }
    )


tensors = tables.flatmap(tensor_of) | st.fixed_dictionaries(
    {
        "name": near(st.sampled_from(["input", "petal_length", "petal_width"])),
        "shape": near(st.tuples(st.integers(0, 3), st.integers(1, 3)) | st.just((2, 2)) | st.tuples(st.integers(1, 3))),
        "datatype": near(st.sampled_from(["FP64", "FP32", "INT64", "UINT8", "BOOL", "BYTES"])),
    },
    optional={
        "data": near(st.lists(numbers, max_size=6) | st.lists(st.lists(numbers, max_size=3), max_size=3)),
        "parameters": near(st.fixed_dictionaries({}, optional={"binary_data_size": st.integers(-1, 50)})),
    },
)


def columns_of(table: list[list[float]]) -> st.SearchStrategy[list[Any]]:
    """A tensor for each feature whose parts agree, nearly always."""
    return st.tuples(
        *(
            st.fixed_dictionaries(
                {
                    "name": near(st.just(name)),
                    "shape": near(st.sampled_from([[len(table)], [len(table), 1]])),
                    "datatype": near(st.sampled_from(["FP64", "FP32", "FP16"])),
                    "data": near(st.just([row[number] for row in table])),
                }
            )
            for number, name in enumerate(["petal_length", "petal_width"])
        )
    ).map(list)


requests = st.fixed_dictionaries(
    {"inputs": near(st.lists(tensors, min_size=1, max_size=2) | tables.flatmap(columns_of))},
    optional={
        "id": near(st.text()),
        "parameters": near(st.just({"binary_data_output": True})),
        "outputs": near(st.lists(st.fixed_dictionaries({"name": st.sampled_from(["prediction", "species", "x"])}))),
    },
)


@st.composite
def binary_requests(draw: st.DrawFn) -> tuple[bytes, int]:
    """A body of the binary tensor extension, and how long its JSON is said to be; some are right."""
    table = draw(tables)
    right = [value for row in table for value in row]
    values = draw(st.just(right) | st.lists(st.floats(0, 100) | st.floats(), max_size=6))
    tensor = draw(tensor_of(table))
    del tensor["data"]
    tensor["parameters"] = {"binary_data_size": draw(near(st.just(16 * len(table))))}
    head = json.dumps(draw(requests | st.just({"inputs": [tensor]}))).encode()
    packed = struct.pack(f"<{len(values)}d", *values)
    excess = draw(st.just(b"") | st.binary(max_size=3))
    off = draw(st.sampled_from([0, 0, 0, 0, -1, 1, 10**8]))
    return head + packed + excess, max(0, len(head) + off)


def called_with(strategy: st.SearchStrategy[Any], *hard: Any) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Return a decorator: the test is called with these bodies, the hard ones in any case."""

    def decorate(test: Callable[..., None]) -> Callable[..., None]:
        for body in hard:
            test = example(body=body)(test)
        return fuzz(given(body=strategy)(test))

    return decorate


any_body_of_predict = called_with(
    bodies,
    b'{"petal_length": 1e308, "petal_width": 1e308}',
    b'{"petal_length": 1' + 500 * b"0" + b', "petal_width": 1}',
    900 * b'{"a":',
)
any_body_of_infer = called_with(
    texts | (json_values | requests).map(lambda value: json.dumps(value).encode()),
    b'{"inputs": [{"name": "input", "shape": [99999999999999999999, 2], "datatype": "FP64", "data": []}]}',
)
any_binary_body_of_infer = called_with(binary_requests())


JSON = {"Content-Type": "application/json"}
INFER = "/v2/models/iris/infer"


def send_to_predict(client: httpx.Client | TestClient, body: bytes) -> int:
    """Assert that the answer is right or says what is wrong with the body; return its status."""
    response = client.post("/predict", content=body, headers=JSON)
    assert response.status_code in {200, 413, 422}
    answer = response.json()
    if response.status_code == 200:
        for each in answer if isinstance(answer, list) else [answer]:
            assert all(math.isfinite(probability) for probability in each["prediction_proba"])
    else:
        assert answer.keys() >= {"error", "code", "request_id"}
    return response.status_code


def send_to_infer(client: httpx.Client | TestClient, body: bytes | tuple[bytes, int]) -> int:
    """Send a body, or a binary one and how long its JSON is said to be; assert and return as `send_to_predict`."""
    content, json_length = (body, None) if isinstance(body, bytes) else body
    headers = JSON if json_length is None else {"Inference-Header-Content-Length": str(json_length)}
    response = client.post(INFER, content=content, headers=headers)
    assert response.status_code in {200, 400, 413}
    if response.status_code != 200:
        assert isinstance(response.json()["error"], str)
    return response.status_code
