"""An InferenceService that `iris-model export` wrote is one by the models of KServe's own package.

That is installed in an environment of its own, .cache/clients, since it takes other versions than everything else.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests import ROOT

PYTHON = ROOT / ".cache" / "clients" / "bin" / "python"
IRIS = ROOT / "models" / "iris" / "1.0.0"
SOURCE = ROOT / "app" / "iris_api" / "src"

# Each object is made by its own class, which knows the names of its fields and which of them there must be.
VALIDATE = """
import json
import sys

import kserve
from kubernetes import client


def made(kind, content):
    if kind.startswith("list["):
        return [made(kind[5:-1], each) for each in content]
    model = getattr(kserve, kind, None) or getattr(client, kind, None)
    if not hasattr(model, "attribute_map"):
        return content
    names = {key: name for name, key in model.attribute_map.items()}
    unknown = content.keys() - names.keys()
    assert not unknown, f"{kind} has no {', '.join(unknown)}"
    return model(**{names[key]: made(model.openapi_types[names[key]], value) for key, value in content.items()})


service = made("V1beta1InferenceService", json.load(sys.stdin))
assert service.api_version == kserve.constants.KSERVE_V1BETA1
assert service.kind == kserve.constants.KSERVE_KIND_INFERENCESERVICE
model = service.spec.predictor.model
print(json.dumps([type(model).__name__, model.storage_uri, model.image, model.protocol_version]))
"""


def validate(service: dict[str, Any]) -> subprocess.CompletedProcess[str]:
    command = [str(PYTHON), "-c", VALIDATE]
    return subprocess.run(command, input=json.dumps(service), capture_output=True, text=True, check=False)


@pytest.mark.skipif(not PYTHON.exists(), reason=f"{PYTHON} is not installed: requirements/clients.txt")
@pytest.mark.parametrize("options", [["--storage-uri=s3://models/iris"], ["--image=iris:1"]])
def test_kserves_own_models_take_the_service(tmp_path: Path, options: list[str]) -> None:
    out = tmp_path / "out"
    command = [sys.executable, "-m", "iris_api.packing.cli", "export", str(IRIS), str(out), "--to=kserve", *options]
    subprocess.run(command, env=os.environ | {"PYTHONPATH": str(SOURCE)}, check=True)
    service = yaml.safe_load((out / "inference-service.yaml").read_text())
    done = validate(service)
    assert done.returncode == 0, done.stderr
    expected = ["s3://models/iris", None] if "s3" in options[0] else [None, "iris:1"]
    assert json.loads(done.stdout) == ["V1beta1ModelSpec", *expected, "v2"]
    # What it would refuse, it does.
    model = service["spec"]["predictor"]["model"]
    assert "has no storageURI" in validate(changed(service, {**model, "storageURI": "s3://x"})).stderr
    assert "`model_format`, must not be `None`" in validate(changed(service, {"storageUri": "s3://x"})).stderr


def changed(service: dict[str, Any], model: dict[str, Any]) -> dict[str, Any]:
    return {**service, "spec": {"predictor": {"model": model}}}
