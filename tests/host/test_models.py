"""Deploying another model, or another engine, is one variable: each goes through the playbook and answers."""

from __future__ import annotations

import json
import math
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from testinfra.host import Host

testinfra_hosts = ["ansible://api"]

ROOT = Path(__file__).resolve().parents[2]
MODELS = ["iris-forest", "iris-full", "diabetes", "wine"]
Deploy = Callable[..., None]


@pytest.fixture(scope="module")
def deploy(request: pytest.FixtureRequest) -> Iterator[Deploy]:
    """Run site.yml with other settings, and with the inventory's own again at the end."""
    inventory = str(request.config.fortress_inventory)  # type: ignore[attr-defined]

    def deploy(**settings: str) -> None:
        command = [str(ROOT / "tools" / "converge-cost"), "-i", inventory, "-e", json.dumps(settings)]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr

    yield deploy
    deploy()


@pytest.mark.parametrize("name", MODELS)
def test_another_model_is_one_variable(host: Host, deploy: Deploy, name: str) -> None:
    deploy(fortress_model_name=name)
    assert_it_serves(host, name)


def test_another_engine_is_one_variable(host: Host, deploy: Deploy) -> None:
    """The default model is proven for ONNX Runtime, so that scikit-learn serves it only where it is told to."""
    deploy(iris_api_engine="sklearn")
    assert assert_it_serves(host, "iris") == {"sklearn"}


def assert_it_serves(host: Host, name: str) -> set[str]:
    """Assert that every instance has this model and answers its golden samples; return the engines."""
    manifest = json.loads((ROOT / "models" / name / "1.0.0" / "manifest.json").read_text())
    engines = set()
    for instance in (1, 2, 3):
        address = f"http://127.0.0.1:{8000 + instance}"
        ready = json.loads(host.run(f"curl --silent {address}/health/ready").stdout)
        assert ready["model"] == name
        engines.add(ready["engine"])
        for sample in manifest["golden_samples"]:
            body = json.dumps(sample["input"])
            answer = host.run(f"curl --silent --json '{body}' {address}/predict").stdout
            assert math.isclose(json.loads(answer)["prediction"], sample["prediction"], rel_tol=1e-6), answer
    return engines
