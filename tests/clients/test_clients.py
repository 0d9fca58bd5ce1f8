"""MLflow's and KServe's own clients, and a model that MLflow itself has saved: packed, served and asked.

`make test-clients` runs it: the clients are installed in .cache/clients, apart from all else, by
requirements/clients.txt.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
from iris_api import __version__
from iris_api.bundle.files import read_manifest

from app.iris_api.tests.instance import Instance
from tests import ROOT

HERE = Path(__file__).parent
PYTHON = ROOT / ".cache" / "clients" / "bin" / "python"
NAMES = ("mixed", "numeric")


def run(program: str, *arguments: object) -> dict[str, Any]:
    """Run a program by the Python that has the clients; return what it prints."""
    environment = {**os.environ, "MLFLOW_DISABLE_TELEMETRY": "true", "PYTHONWARNINGS": "ignore"}
    # Of this process's own packages none is meant.
    environment.pop("PYTHONPATH", None)
    command = [str(PYTHON), str(HERE / program), *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, text=True, env=environment, timeout=120, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return found


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("clients")


@pytest.fixture(scope="module")
def expected(folder: Path) -> dict[str, Any]:
    """What the models answer by MLflow, which saves them here, to the rows that they were trained on."""
    return run("saved.py", folder)


@pytest.fixture(scope="module")
def bundles(folder: Path, expected: Mapping[str, Any]) -> dict[str, Path]:
    """Both, packed as a user would."""
    for name in NAMES:
        command = [sys.executable, "-m", "iris_api.packing.cli", "pack", str(folder / name), f"--name={name}"]
        command += ["--version=1.0.0", f"--models-dir={folder / 'models'}", "--no-onnx", "--environment=never"]
        environment = {**os.environ, "PYTHONPATH": str(ROOT / "app" / "iris_api" / "src")}
        done = subprocess.run(command, capture_output=True, text=True, env=environment, check=False)
        assert done.returncode == 0, done.stdout + done.stderr
    return {name: folder / "models" / name / "1.0.0" for name in NAMES}


@pytest.fixture(scope="module")
def ports(bundles: Mapping[str, Path], tmp_path_factory: pytest.TempPathFactory) -> Iterator[list[int]]:
    """An instance for each."""
    running = [Instance(tmp_path_factory.mktemp(name), bundles[name]) for name in NAMES]
    for instance in running:
        instance.wait_until_ready()
    yield [instance.port for instance in running]
    for instance in running:
        instance.close()


def test_what_mlflow_saves_is_packed_by_its_signature(bundles: Mapping[str, Path]) -> None:
    features = {each.name: each for each in read_manifest(bundles["mixed"]).features}
    assert {name: (each.kind, each.nullable) for name, each in features.items()} == {
        "age": ("number", True),
        "visits": ("integer", False),
        "city": ("category", False),
        "vip": ("boolean", False),
        "since": ("datetime", True),
    }
    assert read_manifest(bundles["numeric"]).is_numeric


def test_mlflows_client_gets_what_mlflow_answers(folder: Path, ports: list[int], expected: dict[str, Any]) -> None:
    came = run("by_mlflow.py", folder, *ports)
    assert came["version"] == __version__
    for way in ("mixed batch", "mixed as a frame", "mixed example", "csv"):
        assert came[way] == expected["mixed"], way
    assert came["mixed row with gaps"] in (["left"], ["stays"])
    for way in ("numeric batch", "numeric array", "numeric example"):
        assert came[way] == pytest.approx(expected["numeric"]), way
    assert came["converted"] == pytest.approx(expected["numeric"][:3])
    for error, parts in {
        "null where none may be": ("error code 400", "INVALID_PARAMETER_VALUE", "0.city: Input should be 'Aarau'"),
        "wrong type": ("error code 400", "1.city: Input should be 'Aarau'"),
        "wrong type of a number": ("error code 400", "0.b: Input should be a valid number"),
        "missing column": ("error code 400", "0.city: Field required"),
        "params": ("error code 400", "params: this model takes none"),
    }.items():
        for part in parts:
            assert part in came[error], (error, came[error])


def test_kserves_client_gets_the_same(ports: list[int], expected: dict[str, Any]) -> None:
    came = run("by_kserve.py", *ports)
    assert came["ready"] == [True] * 4
    for way in ("mixed objects", "mixed arrays"):
        assert came[way] == expected["mixed"], way
    assert came["mixed row with gaps"] in (["left"], ["stays"])
    assert came["mixed binary tensors"] == expected["mixed"]
    # In JSON NaN is none: of these rows no number is missing.
    assert came["mixed tensors"] == [each for number, each in enumerate(expected["mixed"]) if number % 7]
    for way in ("numeric arrays", "numeric tensor", "numeric binary tensor"):
        assert came[way] == pytest.approx(expected["numeric"]), way
    for error, parts in {
        "null where none may be": ("0.city: Input should be 'Aarau'", "400 Bad Request"),
        "wrong type": ("1.city: Input should be 'Aarau'", "400 Bad Request"),
        "null where no tensor may": ("1.city: ", "400 Bad Request"),
        "wrong datatype": ("vip", "400 Bad Request"),
        "wrong width": ("0: has 2 values, and not 4: a, b, c, d", "400 Bad Request"),
        "no model": ("There is nothing at this path", "404 Not Found"),
        "null in a tensor": ("2.b: Input should be", "400 Bad Request"),
        "wrong type of a tensor": ("400 Bad Request",),
        "wrong shape": ("400 Bad Request",),
    }.items():
        for part in parts:
            assert part in came[error], (error, came[error])
