"""What an installation brings: a notebook gets no server, and the locks hold what the distribution asks for."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import tomllib
from importlib import metadata
from pathlib import Path
from typing import Any

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from .paths import BUNDLE, MODELS, ROOT, SOURCE

PROJECT: dict[str, Any] = tomllib.loads((SOURCE.parent / "pyproject.toml").read_text())["project"]
EXTRAS: dict[str, list[str]] = PROJECT["optional-dependencies"]
# What serves, and no notebook wants: the distributions and the packages that they bring.
SERVING = {
    "fastapi",
    "fastapi-swagger",
    "gunicorn",
    "prometheus-client",
    "starlette",
    "uvicorn",
    "uvicorn-worker",
    "uvloop",
}


def brought(requirements: list[str]) -> set[str]:
    """Return the names of all that is installed for some requirements: what they require, and so on."""
    names: set[str] = set()
    waiting = [(Requirement(each), "") for each in requirements]
    while waiting:
        requirement, extra = waiting.pop()
        if requirement.marker and not requirement.marker.evaluate({"extra": extra}):
            continue
        name = canonicalize_name(requirement.name)
        if name in names and not requirement.extras:
            continue
        names.add(name)
        for further in metadata.requires(name) or []:
            waiting += [(Requirement(further), each) for each in ("", *requirement.extras)]
    return names


def test_what_packs_brings_nothing_that_serves() -> None:
    found = brought([*PROJECT["dependencies"], *EXTRAS["pack"]])
    assert {"scikit-learn", "onnxruntime", "skl2onnx", "click"} <= found
    assert not found & SERVING
    # It would be seen.
    assert brought(EXTRAS["serve"]) >= SERVING


@pytest.mark.parametrize(
    ("lock", "requirements"),
    [("app.in", [*PROJECT["dependencies"], *EXTRAS["serve"]]), ("pack.in", EXTRAS["pack"])],
)
def test_what_is_locked_is_what_the_distribution_asks_for(lock: str, requirements: list[str]) -> None:
    lines = [re.sub(r"\s*#.*", "", line) for line in (ROOT / "requirements" / lock).read_text().splitlines()]
    assert sorted(filter(None, lines)) == sorted(requirements)


WITHOUT = """
import sys


class Missing:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in {missing!r}:
            raise ModuleNotFoundError(f"No module named {{name!r}}", name=name)


sys.meta_path.insert(0, Missing())
"""


def without(packages: set[str], folder: Path) -> dict[str, str]:
    """Return the environment of programs that do not find some packages, as where these are not installed."""
    (folder / "sitecustomize.py").write_text(WITHOUT.format(missing=packages))
    return os.environ | {"PYTHONPATH": f"{folder}:{SOURCE}"}


@pytest.fixture
def notebook(tmp_path: Path) -> dict[str, str]:
    """The environment of programs that find nothing of what serves."""
    return without({name.replace("-", "_") for name in SERVING}, tmp_path)


def run(environment: dict[str, str], *command: object) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, *map(str, command)], env=environment, capture_output=True, text=True, check=False
    )


PACK = """
import sys
from functools import partial
from iris_api.packing import cli, costs, writing

writing.measure = partial(costs.measure_here, seconds=costs.SECONDS / 2, repeat_seconds=0)
models, *bundles = sys.argv[1:]
sys.exit(cli.main(["train", "iris", f"--models-dir={models}"]) or cli.main(["check", *bundles]))
"""


@pytest.mark.long
def test_a_notebook_packs_and_checks_a_bundle_without_anything_that_serves(
    notebook: dict[str, str], tmp_path: Path
) -> None:
    bundle = tmp_path / "iris" / "1.0.0"
    done = run(notebook, "-c", PACK, tmp_path, bundle, BUNDLE)
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("answered by scikit-learn and ONNX Runtime") == 2


def test_who_has_nothing_that_serves_is_told_what_to_install(notebook: dict[str, str]) -> None:
    done = run(notebook | {"IRIS_API_MODEL_DIR": str(MODELS)}, "-m", "iris_api.server.command")
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr == "iris-api: gunicorn, which serves, is not installed: pip install 'iris-api[serve]'.\n"


def test_who_wants_to_try_a_bundle_is_told_what_to_install(notebook: dict[str, str]) -> None:
    done = run(notebook, "-m", "iris_api.packing.cli", "serve", BUNDLE)
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr == (
        "iris-model: serve needs fastapi, fastapi-swagger, prometheus-client, uvicorn, not installed here: "
        "pip install 'iris-api[serve]'\n"
    )


# The first without ONNX, the second with it.
PACK_TWICE = """
import sys
from functools import partial
from pathlib import Path
import numpy as np
from sklearn.dummy import DummyRegressor
from iris_api.packing import cli, costs, pack, writing

writing.measure = partial(costs.measure_here, seconds=costs.SECONDS / 2, repeat_seconds=0)
folder, rows = Path(sys.argv[1]), np.array([[1.0], [2.0]])
artifact = pack.dump(DummyRegressor().fit(rows, rows[:, 0]))
(folder / "model.joblib").write_bytes(artifact)
(folder / "sample.csv").write_text("a\\n1\\n2\\n")
given = [folder / "model.joblib", folder / "sample.csv", "--name=mine", "--version=1", f"--models-dir={folder}"]
code = cli.main(["pack", *map(str, given), "--no-onnx"])
try:
    pack.pack(folder / "2", pack.About("mine", "2", ""), "model.joblib", artifact, pack.Sample(["a"], rows))
except pack.PackError as error:
    sys.exit(f"{code}: {error}")
"""


def test_who_has_no_onnx_packs_without_it_and_is_told_so_otherwise(tmp_path: Path) -> None:
    done = run(without({"onnx", "skl2onnx"}, tmp_path), "-c", PACK_TWICE, tmp_path)
    assert "ONNX: it was packed without" in done.stdout, done.stderr
    assert done.stderr.startswith("0: onnx, by which it is converted to ONNX, is not installed: pip install")
    assert (tmp_path / "mine" / "1").exists() and not (tmp_path / "2").exists()
