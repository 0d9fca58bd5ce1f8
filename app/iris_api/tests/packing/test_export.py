"""`iris-model export` writes a whole folder or none; `tests/export` has MLServer serve it."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from iris_api.bundle.files import read_manifest
from iris_api.packing import cli
from iris_api.packing.export import requirements, service_name

from .. import forks
from ..paths import BUNDLE, MODELS

STORED = "--storage-uri=s3://models/iris"


def test_the_folder_has_the_bundle_and_all_that_its_runtime_imports(tmp_path: Path) -> None:
    out = tmp_path / "new" / "out"
    assert cli.main(["export", str(BUNDLE), str(out), "--to=mlserver"]) == 0
    assert read_manifest(out / "bundle") == read_manifest(BUNDLE)
    settings = json.loads((out / "model-settings.json").read_text())
    assert settings["parameters"]["extra"]["engine"] == "onnx"
    # What the runtime needs beside MLServer itself must be importable from there alone.
    module, _, name = settings["implementation"].rpartition(".")
    imports = (out / f"{module.replace('.', '/')}.py").read_text()
    assert f"class {name}(" in imports
    ours = "\n".join(line for line in imports.splitlines() if line.startswith("from iris_api"))
    found = f"{ours}\nimport iris_api, iris_api.engines.onnx, iris_api.engines.sklearn\nprint(iris_api.__file__)"
    (out / "importing.py").write_text(found)
    done = forks.run("importing", env=os.environ | {"PYTHONPATH": str(out)})
    assert done.stdout == f"{out / 'iris_api' / '__init__.py'}\n", done.stderr


def test_requirements_are_those_of_the_engine(
    edit_manifest: Callable[[Callable[[dict[str, Any]], None]], Path],
) -> None:
    manifest = read_manifest(BUNDLE)
    assert manifest.onnx
    assert requirements(manifest, "onnx").splitlines() == [
        "numpy>=1.26",
        f"onnxruntime=={manifest.onnx.proof.onnxruntime}",
        "pydantic>=2.14",
    ]

    def bring(content: dict[str, Any]) -> None:
        lock = {"file": "environment-3.13.txt", "sha256": "0" * 64}
        content["environment"] = {"packages": {"xgboost-cpu": "3.2.0"}, "locks": {"3.13": lock}}

    lines = requirements(read_manifest(edit_manifest(bring)), "sklearn").splitlines()
    assert "xgboost-cpu==3.2.0" in lines
    assert f"scikit-learn=={manifest.libraries['scikit-learn']}" in lines
    assert not any(line.startswith(("onnxruntime", "python")) for line in lines)


@pytest.mark.parametrize(
    ("name", "expected"),
    [("iris", "iris"), ("a.b_c", "a-b-c"), ("2nd", "model-2nd"), ("x.", "x"), ("a" * 64, "a" * 63)],
)
def test_a_service_has_a_name_that_kubernetes_takes(name: str, expected: str) -> None:
    assert service_name(name) == expected


def test_a_service_says_where_the_folder_is_and_serves_it_by_its_own_name(tmp_path: Path) -> None:
    out = tmp_path / "out"
    options = [STORED, "--image=registry.example.com/iris:1.0.0"]
    assert cli.main(["export", str(MODELS / "iris-forest" / "1.0.0"), str(out), "--to=kserve", *options]) == 0
    service = yaml.safe_load((out / "inference-service.yaml").read_text())
    assert service["metadata"]["name"] == json.loads((out / "model-settings.json").read_text())["name"] == "iris-forest"
    model = service["spec"]["predictor"]["model"]
    assert (model["storageUri"], model["image"]) == ("s3://models/iris", "registry.example.com/iris:1.0.0")
    assert model["protocolVersion"] == "v2"


@pytest.mark.parametrize(
    ("options", "part"),
    [
        (["--to=kserve"], "KServe must know where the model is: --storage-uri s3://..., or --image IMAGE."),
        (["--to=kserve", "--storage-uri=models/iris"], "give an address such as s3://models/churn"),
        (["--to=mlserver", STORED], "are for --to kserve alone"),
    ],
)
def test_what_cannot_be_exported_is_said_in_one_line(
    options: list[str], part: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.main(["export", str(BUNDLE), str(tmp_path / "out"), *options]) == 1
    assert part in capsys.readouterr().err
    assert not list(tmp_path.iterdir())


def test_nothing_is_written_over_and_nothing_of_a_damaged_bundle(
    copied_bundle: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"
    out.mkdir()
    assert cli.main(["export", str(BUNDLE), str(out), "--to=mlserver"]) == 1
    assert "is there already" in capsys.readouterr().err
    assert not list(out.iterdir())
    out.rmdir()
    (copied_bundle / "model.joblib").write_bytes(b"another")
    assert cli.main(["export", str(copied_bundle), str(out), "--to=mlserver"]) == 1
    assert "its sha256 is" in capsys.readouterr().err
    assert not out.exists()
