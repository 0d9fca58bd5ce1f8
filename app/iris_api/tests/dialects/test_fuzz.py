"""No body whatever is an error of ours, in either dialect."""

from __future__ import annotations

import json
from typing import Any

from hypothesis import strategies as st
from starlette.testclient import TestClient

from ..strategies import bodies, called_with

numbers = st.floats(-1e3, 1e3) | st.integers(-(2**70), 2**70) | st.sampled_from([6.5, 0.8])
cells = numbers | st.none() | st.booleans() | st.text(max_size=3) | st.sampled_from(["NaT", [], {}, [1.5]])
names = st.sampled_from(["petal_length", "petal_width", "colour", "", "0"])
rows = st.dictionaries(names, cells, max_size=3) | st.lists(cells, max_size=3) | cells
tables = st.lists(rows, max_size=4) | st.dictionaries(names, st.lists(cells, max_size=3) | cells, max_size=3) | cells
splits = st.fixed_dictionaries(
    {},
    optional={
        "columns": st.lists(names | st.integers(0, 2), max_size=3) | cells,
        "data": st.lists(rows, max_size=3) | cells,
        "index": cells,
        "more": cells,
    },
)
forms = st.sampled_from(["dataframe_records", "dataframe_split", "instances", "inputs", "params", "x"])
contents: st.SearchStrategy[Any] = st.dictionaries(forms, tables | splits, max_size=2) | tables


@called_with(
    bodies | contents.map(lambda content: json.dumps(content).encode()), b'{"inputs": {}}', b'{"inputs": [[]]}'
)
def test_any_body_is_answered_or_refused(client: TestClient, body: bytes) -> None:
    # One of them, for the time that it takes.
    path = ("/invocations", "/v1/models/iris:predict")[len(body) % 2]
    response = client.post(path, content=body, headers={"Content-Type": "application/json"})
    assert response.status_code in {200, 400, 413}, (path, response.text)
    content = response.json()
    if response.status_code == 200:
        assert content.keys() == {"predictions"} and content["predictions"]
    else:
        assert content["code"] in {"invalid_input", "invalid_json", "too_many_rows", "body_too_large", "no_answer"}
