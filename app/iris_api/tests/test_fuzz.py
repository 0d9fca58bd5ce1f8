"""No input whatever is an error of ours. tests/robust sends the same bodies through the gateway.

The long run: FUZZ_EXAMPLES=50000 pytest app/iris_api/tests/test_fuzz.py
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import strategies as st
from starlette.testclient import TestClient

from iris_api.engines.model import Model
from iris_api.predict.errors import ApiError
from iris_api.predict.limits import Limits
from iris_api.predict.rows import RowParser

from .instance import Instance
from .paths import MODELS, ROOT, TESTS
from .strategies import (
    any_binary_body_of_infer,
    any_body_of_infer,
    any_body_of_predict,
    bodies,
    called_with,
    send_to_infer,
    send_to_predict,
)


@any_body_of_predict
def test_no_body_of_predict(client: TestClient, body: bytes) -> None:
    send_to_predict(client, body)


@any_body_of_infer
def test_no_body_of_the_protocol(client: TestClient, body: bytes) -> None:
    send_to_infer(client, body)


@any_binary_body_of_infer
def test_no_binary_tensor(client: TestClient, body: tuple[bytes, int]) -> None:
    send_to_infer(client, body)


@pytest.fixture(scope="module")
def parsers(model: Model) -> list[RowParser]:
    """One as it is, and one that has no quick way."""
    quick, other = (RowParser(model.manifest, Limits(body_bytes=1024, rows=5, values=100)) for _ in range(2))
    other._quotes = -1
    return [quick, other]


literals = st.from_regex(
    r"[-+]?[0-9]{0,25}(\.[0-9]{0,25})?([eE][-+]?[0-9]{0,3})?|-?(NaN|Infinity)|true|null", fullmatch=True
)
names = st.sampled_from(["petal_length", "petal_width", "petal_lengt\\u0068", "petal\\u005fwidth", "colour", "", '\\"'])
members = st.lists(st.tuples(names, literals), min_size=1, max_size=3)


@called_with(
    bodies | members.map(lambda pairs: ("{" + ", ".join(f'"{a}": {b}' for a, b in pairs) + "}").encode()),
    b'{"petal_length": 1, "petal_width": 1, "petal_width": 2}',
    b'{"petal_width": 1, "petal_width": 2}',
    b'{"petal_length": -0, "petal_width": 1e-400}',
    b'{"petal_length": 1, "petal_width": 1} x',
    b'\xef\xbb\xbf{"petal_length": 1, "petal_width": 1}',
    b'\t{"petal_length": 1, "petal_width": 1}\r\n',
    b'{"petal_length": 1, "petal_width\xff": 1}',
)
def test_the_quick_way_to_a_row_takes_what_the_other_takes(parsers: list[RowParser], body: bytes) -> None:
    outcomes = []
    for parser in parsers:
        try:
            outcomes.append(repr(parser.parse(body)))
        except ApiError as error:
            outcomes.append(repr((error.code, error.details)))
    assert outcomes[0] == outcomes[1]


@pytest.mark.parametrize("model", ["iris", "diabetes"])
@pytest.mark.long
def test_schemathesis_finds_nothing(model: str, start: Callable[..., Instance], tmp_path: Path) -> None:
    """All its phases and checks, over the wire."""
    instance = start(MODELS / model / "1.0.0")
    instance.wait_until_ready()
    command = [
        str(Path(sys.executable).with_name("schemathesis")),
        f"--config-file={TESTS / 'schemathesis.toml'}",
        "run",
        "--checks=all",
        f"--max-examples={os.environ.get('SCHEMATHESIS_EXAMPLES', '30')}",
        "--seed=1",
        "--generation-database=none",
        "--no-color",
        f"http://127.0.0.1:{instance.port}/openapi.json",
    ]
    # What Hypothesis knows of Unicode is there: to find it out takes a fifth of the time.
    known = {"HYPOTHESIS_STORAGE_DIRECTORY": str(ROOT / ".hypothesis")}
    done = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path, env=os.environ | known, check=False)
    assert done.returncode == 0, done.stdout[:2000] + done.stdout[-4000:]
    assert not [event for event in instance.log if event["level"] == "error"]
