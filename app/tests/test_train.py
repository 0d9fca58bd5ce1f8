"""`make model` is reproducible: what is in the repository is what the training code makes."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

from conftest import BUNDLE
from iris_api.model import Model

TRAIN = Path(__file__).parents[2] / "models" / "train.py"


def train(directory: Path) -> Path:
    subprocess.run([sys.executable, TRAIN, directory], check=True, capture_output=True)
    return directory


def manifest(directory: Path) -> dict[str, Any]:
    content: dict[str, Any] = json.loads((directory / "manifest.json").read_text())
    # Both Pythons that Debian has make the same model; only this line tells them apart.
    del content["libraries"]["python"]
    return content


def test_training_again_gives_the_bundle_of_the_repository(tmp_path: Path) -> None:
    made = train(tmp_path / "iris" / "1.0.0")
    assert manifest(made) == manifest(BUNDLE)
    assert (made / "model.joblib").read_bytes() == (BUNDLE / "model.joblib").read_bytes()


def test_a_bundle_is_replaced_whole(tmp_path: Path) -> None:
    directory = tmp_path / "bundle"
    directory.mkdir()
    (directory / "left-over").touch()
    train(directory)
    assert {path.name for path in directory.iterdir()} == {"manifest.json", "model.joblib"}
    assert [path.name for path in tmp_path.iterdir()] == ["bundle"]
    Model.load(directory)


def test_the_model_is_as_good_as_it_says() -> None:
    assert manifest(BUNDLE)["metrics"]["held_out_accuracy"] >= 0.9
