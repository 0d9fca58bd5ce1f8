"""The ONNX engine: taken only where it is proven to answer as the joblib model does, and lighter where it is taken."""

from __future__ import annotations

import json
import logging
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import joblib
import numpy as np
import pytest

from iris_api.bundle.files import BundleError
from iris_api.engines.model import Model
from iris_api.engines.onnx import MISSING, OnnxEngine
from iris_api.packing.conversion.graph import Graph, Type

from ..instance import EXAMPLE, Instance
from ..paths import BUNDLE, MODELS, SOURCE

EditManifest = Callable[[Callable[[dict[str, Any]], None]], Path]
BUNDLES = sorted(path.parent for path in MODELS.glob("*/*/manifest.json"))


@pytest.mark.kernel
@pytest.mark.parametrize("bundle", BUNDLES, ids=lambda path: path.parent.name)
def test_both_engines_answer_random_rows_alike(bundle: Path) -> None:
    """Other rows than those of the proof, at and beyond the edges of what was trained."""
    manifest = json.loads((bundle / "manifest.json").read_text())
    ranges = np.array([(each["training_minimum"], each["training_maximum"]) for each in manifest["features"]])
    width = ranges[:, 1] - ranges[:, 0]
    low = np.maximum(ranges[:, 0] - width, [each["minimum"] for each in manifest["features"]])
    high = np.minimum(ranges[:, 1] + width, [each["maximum"] for each in manifest["features"]])
    rows = np.random.default_rng(99).uniform(low, high, (20_000, len(low)))
    estimator = joblib.load(bundle / "model.joblib")
    answers = Model.load(bundle, "onnx").predict(rows.tolist())
    values = [answer.value for answer in answers if answer]
    assert values == pytest.approx(estimator.predict(rows).tolist(), rel=1e-6)
    if manifest["classes"]:
        assert values == estimator.predict(rows).tolist()
        shares = [answer.probabilities for answer in answers if answer]
        assert np.abs(np.array(shares) - estimator.predict_proba(rows)).max() <= 1e-6


def test_auto_takes_onnx_where_it_is_proven() -> None:
    assert Model.load(BUNDLE).engine.name == "onnx"
    assert Model.load(BUNDLE, "sklearn").engine.name == "sklearn"


def drop(manifest: dict[str, Any]) -> None:
    manifest.update(onnx=None, no_onnx_reason="it does not convert")


def of_another(manifest: dict[str, Any]) -> None:
    manifest["onnx"]["proof"]["artifact_sha256"] = 64 * "0"


def of_another_runtime(manifest: dict[str, Any]) -> None:
    manifest["onnx"]["proof"]["onnxruntime"] = "1.0.0"


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (drop, "it does not convert"),
        (of_another, "its proof is of another artifact"),
        (of_another_runtime, "it was proven with onnxruntime 1.0.0"),
    ],
)
def test_without_a_proof_that_holds_here_scikit_learn_serves(
    edit_manifest: EditManifest,
    caplog: pytest.LogCaptureFixture,
    change: Callable[[dict[str, Any]], None],
    reason: str,
) -> None:
    bundle = edit_manifest(change)
    with caplog.at_level(logging.INFO):
        assert Model.load(bundle).engine.name == "sklearn"
    assert reason in caplog.text
    with pytest.raises(BundleError, match="cannot be served by ONNX Runtime: " + reason):
        Model.load(bundle, "onnx")


def test_a_proof_that_proves_nothing_is_refused(edit_manifest: EditManifest) -> None:
    def worse(manifest: dict[str, Any]) -> None:
        manifest["onnx"]["proof"]["largest_difference"] = 1e-3

    with pytest.raises(BundleError, match="the proof proves nothing"):
        Model.load(edit_manifest(worse))


@pytest.mark.parametrize("name", ["model.onnx", "model.joblib"])
@pytest.mark.parametrize("engine", ["auto", "onnx"])
def test_a_damaged_file_is_refused_and_not_passed_over(copied_bundle: Path, name: str, engine: Any) -> None:
    with (copied_bundle / name).open("ab") as file:
        file.write(b"x")
    with pytest.raises(BundleError, match=f"{name}: its sha256 is"):
        Model.load(copied_bundle, engine)


LIST_MODULES = """
import os, sys
os.environ["IRIS_API_MODEL_DIR"] = sys.argv[1]
os.environ["IRIS_API_ENGINE"] = sys.argv[2]
from iris_api.server.app import create_app
create_app()
print(*sorted({name.partition(".")[0] for name in sys.modules}))
"""


@pytest.mark.parametrize(
    ("engine", "imported", "not_imported"),
    [("auto", "onnxruntime", {"sklearn", "joblib", "scipy", "skops"}), ("sklearn", "sklearn", {"onnxruntime"})],
)
def test_only_the_engine_that_serves_is_imported(engine: str, imported: str, not_imported: set[str]) -> None:
    environment = {**os.environ, "PYTHONPATH": str(SOURCE)}
    command = [sys.executable, "-c", LIST_MODULES, str(BUNDLE), engine]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
    modules = set(done.stdout.split())
    assert imported in modules
    assert not modules & not_imported


def test_an_instance_says_which_engine_serves(start: Callable[..., Instance]) -> None:
    instance = start(IRIS_API_ENGINE="sklearn")
    instance.wait_until_ready()
    assert instance.request("GET", "/health/ready")[1]["engine"] == "sklearn"
    assert instance.request("POST", "/predict", EXAMPLE)[1]["species"] == "virginica"


def test_an_error_of_the_session_is_raised_and_not_written_between_the_lines_of_the_log(
    capfd: pytest.CaptureFixture[str],
) -> None:
    engine = Model.load(BUNDLE, "onnx").engine
    with pytest.raises(Exception, match="ONNXRuntimeError"):
        engine.run(np.ones((1, 3)))
    assert capfd.readouterr() == ("", "")


def test_each_type_of_value_reaches_a_model_of_several_inputs_as_it_is() -> None:
    graph = Graph()
    kinds: list[tuple[str, Type]] = [("n", "double"), ("i", "int64"), ("b", "bool"), ("t", "string")]
    inputs = [graph.input(name, kind) for name, kind in kinds]
    content, names = graph.model({each.name + "_out": graph.node("Identity", each.name) for each in inputs})
    rows: list[list[Any]] = [[1.5, 2**53 + 1, True, "x\0"], [None, -7, False, None]]
    engine = OnnxEngine(content, list(names.values())[1:2], 1e-9)
    assert engine(rows).values == [2**53 + 1, -7]
    engine = OnnxEngine(content, list(names.values())[2:], 1e-9)
    for some in (rows, np.array(rows, dtype=object)):
        values, texts = engine.run(some)
        assert values.tolist() == [True, False]
        assert texts is not None and texts.tolist() == [["x\0"], [MISSING]]
    number, _ = OnnxEngine(content, list(names.values())[:1], 1e-9).run(rows)
    assert number[0] == 1.5 and np.isnan(number[1])
