"""`make model` is reproducible: what is in the repository is what the recipes make, as far as a processor can tell.

Another processor, or another kernel of OpenBLAS, rounds the last bits differently, and training carries them on. So
what it computed is compared within TOLERANCE, and all that was not computed exactly.
"""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import joblib
import jsonschema
import numpy as np
import pytest
from sklearn.base import BaseEstimator

from iris_api.bundle.manifest import json_schema
from iris_api.engines.model import EngineChoice, Model, Prediction
from iris_api.packing import cli, recipes
from iris_api.packing.card import model_card
from iris_api.packing.recipes import RECIPES

from ..conftest import MadeOnce
from ..paths import BUNDLE, MODELS

pytestmark = [pytest.mark.kernel, pytest.mark.usefixtures("quick_costs")]

BUNDLES = {name: MODELS / name / recipe.about.version for name, recipe in RECIPES.items()}


# Between kernels of OpenBLAS, what the shipped models learned and answer differs by less than 1e-10.
TOLERANCE = 1e-6
# Metrics are rounded to four digits.
ROUNDED = 1.5e-4


def manifest(directory: Path) -> dict[str, Any]:
    content: dict[str, Any] = json.loads((directory / "manifest.json").read_text())
    return content


def comparable(directory: Path) -> dict[str, Any]:
    """Return a manifest without what depends on the machine: hashes, costs and last bits of ONNX."""
    content = manifest(directory)
    # Both Pythons that Debian has make the same model; only this line tells them apart.
    del content["libraries"]["python"]
    del content["sha256"], content["onnx"]["sha256"]
    del content["onnx"]["proof"]["artifact_sha256"], content["onnx"]["proof"]["largest_difference"]
    content.pop("costs", None)
    return content


def assert_alike(found: Any, expected: Any, where: str = "", tolerance: float = TOLERANCE) -> None:
    """Assert that two nests of objects have the same types, parts and values, floats within a tolerance."""
    assert type(found) is type(expected), where
    if isinstance(expected, dict):
        assert list(found) == list(expected), where
        for key in expected:
            rounded = ROUNDED if where.endswith(".metrics") else tolerance
            assert_alike(found[key], expected[key], f"{where}.{key}", rounded)
    elif isinstance(expected, list | tuple):
        assert len(found) == len(expected), where
        for number, pair in enumerate(zip(found, expected, strict=True)):
            assert_alike(*pair, f"{where}[{number}]", tolerance)
    elif isinstance(expected, np.ndarray):
        assert (found.dtype, found.shape) == (expected.dtype, expected.shape), where
        if expected.dtype.names:
            for name in expected.dtype.names:
                assert_alike(found[name], expected[name], f"{where}.{name}", tolerance)
        elif expected.dtype == object:
            assert_alike(found.tolist(), expected.tolist(), where, tolerance)
        else:
            np.testing.assert_allclose(found, expected, rtol=tolerance, atol=tolerance, err_msg=where)
    elif isinstance(expected, float):
        assert found == pytest.approx(expected, rel=tolerance, abs=tolerance, nan_ok=True), where
    elif isinstance(expected, BaseEstimator):
        assert_alike(vars(found), vars(expected), f"{where}({type(expected).__name__})", tolerance)
    elif type(expected).__name__ == "Tree":
        assert_alike(found.__getstate__(), expected.__getstate__(), where, tolerance)
    else:
        assert found == expected, where


def test_the_repository_holds_exactly_what_there_are_recipes_for() -> None:
    assert sorted(path.parent for path in MODELS.glob("*/*/manifest.json")) == sorted(BUNDLES.values())


@pytest.fixture
def trained(name: str, made_once: MadeOnce) -> Path:
    """The bundle of a model that is trained again."""

    def train(models: Path) -> None:
        assert cli.main(["train", name, f"--models-dir={models}"]) == 0

    return made_once(f"trained-{name}", train) / name / BUNDLES[name].name


@pytest.mark.parametrize("name", RECIPES)
def test_training_again_gives_the_manifest_of_the_repository(name: str, trained: Path) -> None:
    assert_alike(comparable(trained), comparable(BUNDLES[name]), name)
    assert {path.name for path in trained.iterdir()} == {path.name for path in BUNDLES[name].iterdir()}


@pytest.mark.parametrize("name", RECIPES)
def test_training_again_gives_the_estimator_of_the_repository(name: str, trained: Path) -> None:
    """Its steps, their parameters, and all that it learned: coefficients, or each threshold of each tree."""
    made = joblib.load(trained / "model.joblib")
    shipped = joblib.load(BUNDLES[name] / "model.joblib")
    # What the recipe asks for is in the file; what is learned, its names end in _, is in both.
    assert repr(shipped) == repr(RECIPES[name].estimator())
    assert_alike(made, shipped, name)


@pytest.mark.parametrize("engine", ["sklearn", "onnx"])
@pytest.mark.parametrize("name", RECIPES)
def test_training_again_gives_the_answers_of_the_repository(name: str, engine: EngineChoice, trained: Path) -> None:
    made = Model.load(trained, engine)
    shipped = Model.load(BUNDLES[name], engine)
    low, trained_low, trained_high, high = np.array([each.limits for each in shipped.manifest.features]).T
    chance = np.random.default_rng(7)
    rows = [*chance.uniform(trained_low, trained_high, (5000, len(low))), *chance.uniform(low, high, (5000, len(low)))]
    # None of the rows is so close to a border that the last bits could decide its class.
    found, expected = (columns(each.predict(rows)) for each in (made, shipped))
    assert_alike(found, expected, name)


def columns(answers: list[Prediction | None]) -> list[Any]:
    """Return the parts of all answers side by side: numbers as arrays, which are compared at once."""
    parts = zip(*(answer for answer in answers if answer), strict=True)
    return [len(answers), *(np.array(part) if isinstance(part[0], float | list) else part for part in parts)]


def test_other_coefficients_are_not_taken_for_those_of_the_repository() -> None:
    shipped, other = joblib.load(BUNDLE / "model.joblib"), joblib.load(BUNDLE / "model.joblib")
    assert_alike(other, shipped)
    other[-1].coef_ *= 1 + 1e-5
    with pytest.raises(AssertionError, match="coef_"):
        assert_alike(other, shipped)


def test_a_checkout_trains_without_the_package_installed() -> None:
    done = subprocess.run([sys.executable, "-I", MODELS / "train.py", "nonsense"], capture_output=True, text=True)
    assert done.returncode == 1
    assert "There is no model 'nonsense' to train; there are iris, iris-forest" in done.stderr


def test_all_stands_for_every_model(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(recipes, "RECIPES", {name: RECIPES[name] for name in ("diabetes", "wine")})
    assert cli.main(["train", "all", f"--models-dir={tmp_path}"]) == 0
    assert sorted(path.name for path in tmp_path.iterdir()) == ["diabetes", "wine"]


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
    # Of a file: no processor computes it anew.
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
