"""CatBoost and imbalanced-learn, which no release has, are packed with the environment that serves them.

The golden samples are asked in a fresh environment of the bundle's own lock: that is what takes the time here.
"""

from __future__ import annotations

from pathlib import Path

import pytest
from iris_api.bundle.manifest import PYTHONS
from iris_api.packing.environment import Environment

from tests.matrix import bundles, served
from tests.matrix.cases import CASES


@pytest.mark.parametrize(
    ("name", "package"), [("CatBoost", "catboost"), ("imbalanced-learn pipeline", "imbalanced-learn")]
)
def test_a_bundle_brings_the_library_of_its_model(tmp_path: Path, name: str, package: str) -> None:
    case = next(each for each in CASES if each.name == name)
    folder = tmp_path / "case"
    environment = Environment(wanted=True)
    manifest = bundles.make(case, folder, environment)
    assert manifest.environment and not environment.failed
    assert package in manifest.environment.packages
    for python in PYTHONS:
        lock = (folder / "bundle" / manifest.environment.locks[python].file).read_text()
        assert f"{package}=={manifest.environment.packages[package]} \\\n    --hash=sha256:" in lock
    # In the environment of this test it answers too.
    assert {served.ask(folder, engine) for engine in served.engines_of(folder)} == {None}
