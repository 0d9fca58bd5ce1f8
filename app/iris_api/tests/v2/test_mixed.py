"""tritonclient and a model of mixed columns: a tensor for each feature, as its metadata describe them."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from tritonclient import http as triton
from tritonclient.utils import InferenceServerException

from iris_api.engines.model import MISSING

from ..conftest import MadeOnce
from ..instance import Instance
from ..packing.test_typed import left, make_mixed, mixed, table

DATATYPES = {
    **{"age": "FP64", "visits": "INT64", "city": "BYTES", "zip": "BYTES", "street": "BYTES", "vip": "BOOL"},
    "note": "BYTES",
}
DTYPES: dict[str, Any] = {"FP64": np.float64, "INT64": np.int64, "BOOL": np.bool_, "BYTES": np.object_}


@pytest.fixture(scope="module")
def client(
    made_once: MadeOnce, quick_packing: None, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[triton.InferenceServerClient]:
    """tritonclient, connected with a running instance of the model."""
    bundle: Path = made_once("mixed-bundle", make_mixed) / "mine" / "1"
    instance = Instance(tmp_path_factory.mktemp("instance"), bundle)
    try:
        instance.wait_until_ready()
        with triton.InferenceServerClient(f"127.0.0.1:{instance.port}") as client:
            yield client
    finally:
        instance.close()


def tensors(frame: pd.DataFrame, *, binary: bool = True, **datatypes: str) -> list[triton.InferInput]:
    """A tensor for each column; in a column of texts a gap is the text that stands for one."""
    given = []
    for name, values in frame.items():
        datatype = datatypes.get(str(name), DATATYPES[str(name)])
        column = values.fillna(MISSING) if datatype == "BYTES" else values
        given.append(triton.InferInput(str(name), [len(frame), 1], datatype))
        given[-1].set_data_from_numpy(column.to_numpy(DTYPES[datatype]).reshape(-1, 1), binary_data=binary)
    return given


def test_it_finds_what_the_model_takes(client: triton.InferenceServerClient) -> None:
    about, config = client.get_model_metadata("mine"), client.get_model_config("mine")
    assert [(each["name"], each["datatype"], each["shape"]) for each in about["inputs"]] == [
        (name, datatype, [-1, 1]) for name, datatype in DATATYPES.items()
    ]
    assert [each["data_type"] for each in config["input"]] == [
        f"TYPE_{datatype.replace('BYTES', 'STRING')}" for datatype in DATATYPES.values()
    ]
    assert config["max_batch_size"] == 1000
    assert client.get_model_repository_index()[0]["name"] == "mine"


@pytest.mark.parametrize("backwards", [False, True])
def test_a_batch_with_missing_values_is_answered_as_the_users_own_table(
    client: triton.InferenceServerClient, backwards: bool
) -> None:
    frame = table()
    estimator = mixed().fit(frame, left(frame))
    frame.loc[40:60, "city"] = "Timbuktu"
    frame.loc[60:90, "visits"] = 2**53 + 1
    given = tensors(frame)
    answer = client.infer("mine", given[::-1] if backwards else given, request_id="r7")
    assert answer.get_response()["id"] == "r7"
    assert answer.as_numpy("prediction").tolist() == estimator.predict(frame).tolist()
    assert np.abs(answer.as_numpy("prediction_proba") - estimator.predict_proba(frame)).max() < 1e-9


def test_json_and_binary_are_answered_alike(client: triton.InferenceServerClient) -> None:
    """And named outputs alone, each in the way that was asked for."""
    # What this client writes into JSON for NaN is no JSON.
    frame = table()[1:6]
    found = []
    for binary in (False, True):
        wanted = [triton.InferRequestedOutput("left", binary_data=not binary)]
        answer = client.infer("mine", tensors(frame, binary=binary), outputs=wanted)
        assert [each["name"] for each in answer.get_response()["outputs"]] == ["left"]
        found.append([each if isinstance(each, str) else each.decode() for each in answer.as_numpy("left")])
    assert found[0] == found[1] and len(found[0]) == 5


def test_what_is_wrong_is_said_by_the_name_of_the_feature(client: triton.InferenceServerClient) -> None:
    frame = table()[1:3]
    wrong = frame.assign(zip=["01234", "1234"])
    for given, reason in (
        (tensors(frame)[1:], "age: there is no tensor of this name"),
        (tensors(frame, age="BYTES"), "age is a number, which is sent as FP64"),
        (tensors(wrong), "1.zip: Input should be"),
        (tensors(frame.assign(zip=["01234", None])), "1.zip: Input should be"),
        (tensors(frame)[:-1] + tensors(frame[:1])[-1:], "note: the shape is .1, 1., but age has .2, 1."),
    ):
        with pytest.raises(InferenceServerException, match=reason) as caught:
            client.infer("mine", given)
        assert caught.value.status() == "400"
