"""Deploying another model is one variable: each bundle of the repository goes through the playbook and answers."""

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
Deploy = Callable[[str], None]


@pytest.fixture(scope="module")
def deploy(request: pytest.FixtureRequest) -> Iterator[Deploy]:
    """Run site.yml with another model, and with the default one again at the end."""
    inventory = str(request.config.fortress_inventory)  # type: ignore[attr-defined]

    def deploy(name: str) -> None:
        command = [str(ROOT / "tools" / "converge-cost"), "-i", inventory, "-e", f"fortress_model_name={name}"]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr

    yield deploy
    deploy("iris")


@pytest.mark.parametrize("name", MODELS)
def test_another_model_is_one_variable(host: Host, deploy: Deploy, name: str) -> None:
    deploy(name)
    manifest = json.loads((ROOT / "models" / name / "1.0.0" / "manifest.json").read_text())
    for instance in (1, 2, 3):
        address = f"http://127.0.0.1:{8000 + instance}"
        assert json.loads(host.run(f"curl --silent {address}/health/ready").stdout)["model"] == name
        for sample in manifest["golden_samples"]:
            body = json.dumps(sample["input"])
            answer = host.run(f"curl --silent --json '{body}' {address}/predict").stdout
            assert math.isclose(json.loads(answer)["prediction"], sample["prediction"], rel_tol=1e-6), answer
