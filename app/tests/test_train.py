"""`make model` is reproducible: what is in the repository is what the recipes make."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import jsonschema
import pytest

from conftest import BUNDLE, MODELS
from iris_api import cli
from iris_api.card import model_card
from iris_api.manifest import json_schema
from iris_api.model import Model
from iris_api.recipes import RECIPES

SOURCE = MODELS.parent / "app" / "src"
BUNDLES = {name: MODELS / name / recipe.about.version for name, recipe in RECIPES.items()}


def manifest(directory: Path) -> dict[str, Any]:
    content: dict[str, Any] = json.loads((directory / "manifest.json").read_text())
    # Both Pythons that Debian has make the same model; only this line tells them apart.
    del content["libraries"]["python"]
    return content


def test_the_repository_holds_exactly_what_there_are_recipes_for() -> None:
    assert sorted(path.parent for path in MODELS.glob("*/*/manifest.json")) == sorted(BUNDLES.values())


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """All models, trained again; in a process of its own, because a pickle's bytes know which objects were shared."""
    models = tmp_path_factory.mktemp("models")
    command = [sys.executable, "-m", "iris_api.cli", "train", "all", f"--models-dir={models}"]
    subprocess.run(command, check=True, capture_output=True, env=os.environ | {"PYTHONPATH": str(SOURCE)})
    return models


@pytest.mark.parametrize("name", RECIPES)
def test_training_again_gives_the_bundle_of_the_repository(name: str, trained: Path) -> None:
    made = trained / name / BUNDLES[name].name
    assert manifest(made) == manifest(BUNDLES[name])
    assert {path.name for path in made.iterdir()} == {path.name for path in BUNDLES[name].iterdir()}
    for path in made.iterdir():
        if path.suffix not in {".json", ".md"}:
            assert path.read_bytes() == (BUNDLES[name] / path.name).read_bytes()


def test_a_checkout_trains_without_the_package_installed() -> None:
    done = subprocess.run([sys.executable, "-I", MODELS / "train.py", "nonsense"], capture_output=True, text=True)
    assert done.returncode == 1
    assert "There is no model 'nonsense' to train; there are iris, iris-forest" in done.stderr


def test_a_bundle_is_replaced_whole(tmp_path: Path) -> None:
    directory = tmp_path / "iris" / "1.0.0"
    directory.mkdir(parents=True)
    (directory / "left-over").touch()
    assert cli.main(["train", f"--models-dir={tmp_path}"]) == 0
    assert not (directory / "left-over").exists()
    assert [path.name for path in directory.parent.iterdir()] == ["1.0.0"]
    Model.load(directory)


def test_the_models_are_as_good_as_they_say() -> None:
    for name in ("iris", "iris-forest", "iris-full", "wine"):
        assert manifest(BUNDLES[name])["metrics"]["held_out_accuracy"] >= 0.9
    assert manifest(BUNDLES["diabetes"])["metrics"]["held_out_r2"] >= 0.4


def test_the_default_model_is_still_the_one_it_was() -> None:
    assert manifest(BUNDLE)["sha256"] == "5df73afce3ad042f4148a4675e4c4b54341d6e80d2f7151c3396ea4b0dfb0f6a"


def test_the_schema_of_the_repository_is_the_one_that_bundles_are_checked_by() -> None:
    assert (MODELS / "manifest.schema.json").read_text() == json_schema()


@pytest.mark.parametrize("directory", BUNDLES.values(), ids=str)
def test_a_manifest_fits_the_schema_and_its_card_fits_the_manifest(directory: Path) -> None:
    schema = json.loads((MODELS / "manifest.schema.json").read_text())
    content = json.loads((directory / "manifest.json").read_text())
    jsonschema.validate(content, schema)
    assert (directory / "MODEL_CARD.md").read_text() == model_card(Model.load(directory).manifest)
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate(content | {"surprise": 1}, schema)
