"""A bundle that `iris-model export` wrote is served by MLServer itself, and answers its golden samples there.

`make test-clients` runs it: MLServer is installed in an environment of its own, that of the benchmarks.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import joblib
import numpy as np
import onnxruntime
import pandas as pd
import pytest
from iris_api.bundle.files import read_manifest
from iris_api.bundle.golden import is_golden
from iris_api.bundle.manifest import Manifest
from sklearn.compose import ColumnTransformer
from sklearn.impute import SimpleImputer
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import OneHotEncoder

from benchmarks import environments
from tests import ROOT

SOURCE = ROOT / "app" / "iris_api" / "src"
IRIS = ROOT / "models" / "iris" / "1.0.0"
DIABETES = ROOT / "models" / "diabetes" / "1.0.0"
PATIENCE_SECONDS = 90


def iris_model(*arguments: object, folder: Path | None = None) -> None:
    command = [sys.executable, "-m", "iris_api.packing.cli", *map(str, arguments)]
    subprocess.run(command, cwd=folder, env=os.environ | {"PYTHONPATH": str(SOURCE)}, check=True)


def free_ports(count: int) -> list[int]:
    """Return ports that nobody listens on just now, no two of them the same."""
    with contextlib.ExitStack() as stack:
        probes = [stack.enter_context(socket.socket()) for _ in range(count)]
        for probe in probes:
            probe.bind(("127.0.0.1", 0))
        return [probe.getsockname()[1] for probe in probes]


def customers() -> pd.DataFrame:
    """Return a table with a gap in a number and in a category."""
    chance = np.random.default_rng(3)
    frame = pd.DataFrame(
        {
            "age": chance.integers(18, 90, 80).astype(float),
            "visits": chance.integers(0, 20, 80),
            "city": chance.choice(["Aarau", "Bern", "Zug"], 80),
            "vip": chance.random(80) < 0.4,
        }
    )
    frame.loc[::7, "age"] = np.nan
    frame.loc[::9, "city"] = None
    return frame


@pytest.fixture(scope="module")
def mixed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A bundle of a table with categories and gaps, which its estimator takes as a DataFrame."""
    folder, frame = tmp_path_factory.mktemp("packed"), customers()
    columns = ColumnTransformer(
        [
            ("numbers", SimpleImputer(), ["age", "visits"]),
            ("city", OneHotEncoder(), ["city"]),
            ("vip", "passthrough", ["vip"]),
        ]
    )
    left = (frame.vip ^ (frame.visits > 9)).astype(int)
    joblib.dump(make_pipeline(columns, LogisticRegression(max_iter=1000)).fit(frame, left), folder / "mixed.joblib")
    frame.assign(left=left).to_parquet(folder / "mixed.parquet")
    options = ("--name=mixed", "--version=1", "--target=left", "--classes=stays,leaves", "--no-onnx")
    iris_model("pack", "mixed.joblib", "mixed.parquet", *options, "--environment=never", folder=folder)
    return folder / "models" / "mixed" / "1"


@pytest.fixture(scope="module")
def python() -> Path:
    """The interpreter of MLServer's environment."""
    return environments.python("mlserver")


@pytest.fixture(scope="module")
def served(mixed: Path, python: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The address of an MLServer that serves what was exported, each bundle in a folder of its own."""
    folder = tmp_path_factory.mktemp("served")
    iris_model("export", mixed, folder / "mixed", "--to=mlserver")
    iris_model("export", DIABETES, folder / "diabetes", "--to=mlserver", "--engine=sklearn")
    iris_model("export", IRIS, folder / "iris", "--to=mlserver", "--engine=onnx")
    # Settings are of the whole server.
    (folder / "settings.json").write_text((folder / "iris" / "settings.json").read_text())
    # What requirements.txt of the last one names, from the environment of these tests: the other one lacks it alone.
    libraries = folder / "libraries"
    libraries.mkdir()
    installed = Path(onnxruntime.__file__).parent
    for package in (installed, *installed.parent.glob("flatbuffers")):
        (libraries / package.name).symlink_to(package)
    ports = {
        f"MLSERVER_{name}_PORT": str(port)
        for name, port in zip(("HTTP", "GRPC", "METRICS"), free_ports(3), strict=True)
    }
    environment = {name: value for name, value in os.environ.items() if not name.startswith("PYTHON")}
    environment |= ports | {"MLSERVER_HOST": "127.0.0.1", "MLSERVER_DEBUG": "false", "PYTHONPATH": str(libraries)}
    log = folder / "log.txt"
    with log.open("w") as stream:
        # It has workers: a session of its own ends with all of them.
        server = subprocess.Popen(
            [python.parent / "mlserver", "start", folder],
            env=environment,
            cwd=tmp_path_factory.mktemp("empty"),
            stdout=stream,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    url = f"http://127.0.0.1:{ports['MLSERVER_HTTP_PORT']}"
    try:
        _wait(url, server, log)
        yield url
    finally:
        os.killpg(server.pid, signal.SIGKILL)
        server.wait()


def _wait(url: str, server: subprocess.Popen[bytes], log: Path) -> None:
    end = time.monotonic() + PATIENCE_SECONDS
    while time.monotonic() < end and server.poll() is None:
        try:
            for name in ("mixed", "diabetes", "iris"):
                urllib.request.urlopen(f"{url}/v2/models/{name}/ready", timeout=5)
            return
        except OSError:
            time.sleep(0.3)
    raise AssertionError(f"MLServer is not ready:\n{log.read_text()[-5000:]}")


def infer(url: str, name: str, request: object) -> dict[str, Any]:
    """Return the outputs by their names: the data of each, and what came beside it."""
    body = request if isinstance(request, bytes) else json.dumps(request).encode()
    asked = urllib.request.Request(f"{url}/v2/models/{name}/infer", body, {"Content-Type": "application/json"})
    with urllib.request.urlopen(asked, timeout=20) as response:
        answer = json.loads(response.read())
    return {output["name"]: np.array(output["data"]).reshape(output["shape"]) for output in answer["outputs"]}


def columns_of(manifest: Manifest) -> list[dict[str, Any]]:
    """Return the golden samples as a request of MLServer's `pd` codec has them: a tensor for each feature."""
    datatypes = {"number": "FP64", "integer": "INT64", "boolean": "BOOL"}
    samples = [sample.input for sample in manifest.golden_samples]
    return [
        {
            "name": feature.name,
            "datatype": datatypes.get(feature.kind, "BYTES"),
            "shape": [len(samples), 1],
            "data": [sample[feature.name] for sample in samples],
        }
        for feature in manifest.features
    ]


@pytest.mark.parametrize("name", ["mixed", "diabetes", "iris"])
def test_golden_samples_are_answered_as_promised(served: str, mixed: Path, name: str) -> None:
    manifest = read_manifest({"mixed": mixed, "diabetes": DIABETES, "iris": IRIS}[name])
    requests = [{"parameters": {"content_type": "pd"}, "inputs": columns_of(manifest)}]
    if manifest.is_numeric:
        rows = [[sample.input[each] for each in manifest.feature_names] for sample in manifest.golden_samples]
        shape = [len(rows), len(rows[0])]
        data = [value for row in rows for value in row]
        requests.append({"inputs": [{"name": "input", "datatype": "FP64", "shape": shape, "data": data}]})
    for request in requests:
        outputs = infer(served, name, request)
        for number, sample in enumerate(manifest.golden_samples):
            answer = {"prediction": outputs["prediction"][number].item()}
            if manifest.probabilities:
                answer["prediction_proba"] = outputs["prediction_proba"][number].tolist()
            classifies = manifest.classes is not None
            assert is_golden(sample.model_dump(), answer, classification=classifies, tolerance=1e-6), (sample, answer)
            if classifies:
                assert outputs[manifest.target.name][number].item() == manifest.class_name(sample.prediction)


ENCODE = """
import sys
import pandas
from mlserver.codecs import PandasCodec

# It knows no texts of pandas 3 but as objects.
frame = pandas.read_json(sys.stdin, orient="split").astype({"city": object})
print(PandasCodec.encode_request(frame, use_bytes=False).model_dump_json())
"""


def test_a_table_as_mlservers_own_client_encodes_it_is_answered_as_by_the_estimator(
    served: str, mixed: Path, python: Path
) -> None:
    # That client can't encode a column of texts with gaps.
    frame = customers().dropna(subset="city").reset_index(drop=True)
    asked = frame.to_json(orient="split")
    done = subprocess.run([python, "-c", ENCODE], input=asked, capture_output=True, text=True, check=True)
    # The gaps of the numbers come as null.
    assert "null" in done.stdout
    outputs = infer(served, "mixed", done.stdout.encode())
    estimator = joblib.load(mixed / "model.joblib")
    assert outputs["prediction"].ravel().tolist() == estimator.predict(frame).tolist()
    assert np.abs(outputs["prediction_proba"] - estimator.predict_proba(frame)).max() < 1e-9


def test_null_is_a_missing_value_and_is_answered_as_the_estimator_answers_it(served: str, mixed: Path) -> None:
    frame = customers()
    gaps = frame[frame.age.isna() | frame.city.isna()]
    datatypes = {"age": "FP64", "visits": "INT64", "city": "BYTES", "vip": "BOOL"}
    inputs = [
        {
            "name": name,
            "datatype": datatype,
            "shape": [len(gaps), 1],
            "data": [None if pd.isna(value) else value for value in gaps[name].tolist()],
        }
        for name, datatype in datatypes.items()
    ]
    found = infer(served, "mixed", {"inputs": inputs})["prediction_proba"]
    estimator = joblib.load(mixed / "model.joblib")
    assert np.abs(found - estimator.predict_proba(gaps)).max() < 1e-9


@pytest.mark.parametrize(
    ("column", "value", "part"),
    [
        ("age", 1e9, "Row 0, age: 1000000000.0 is not from"),
        ("visits", None, "Row 0, visits: None is no possible value of this integer"),
        ("city", "Wien", "Row 0, city: 'Wien' is no possible value of this category"),
        ("vip", "yes", "Row 0, vip: 'yes' is no possible value of this boolean"),
    ],
)
def test_what_is_no_value_of_a_feature_is_refused_by_its_name(
    served: str, mixed: Path, column: str, value: Any, part: str
) -> None:
    inputs = columns_of(read_manifest(mixed))
    for tensor in inputs:
        if tensor["name"] == column:
            tensor["data"][0] = value
    with pytest.raises(urllib.error.HTTPError) as refused:
        infer(served, "mixed", {"inputs": inputs})
    assert refused.value.code == 400
    assert part in json.loads(refused.value.read())["error"]
