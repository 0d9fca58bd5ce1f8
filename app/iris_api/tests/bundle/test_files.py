"""A bundle is served only if everything about it is as its manifest says; every refusal says what to do."""

from __future__ import annotations

import hashlib
import json
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import joblib
import numpy as np
import pytest
from sklearn.datasets import load_iris
from sklearn.ensemble import RandomForestClassifier
from sklearn.linear_model import LogisticRegression, Ridge

from iris_api.bundle.files import BundleError
from iris_api.engines.model import Model

from ..paths import MODELS

pytestmark = pytest.mark.kernel

EditManifest = Callable[[Callable[[dict[str, Any]], None]], Path]


def refusal(directory: Path) -> str:
    with pytest.raises(BundleError) as caught:
        Model.load(directory, "sklearn")
    message = str(caught.value)
    assert str(directory) in message
    assert "\n" not in message
    return message


def exchange_artifact(directory: Path, content: bytes) -> None:
    """Put another artifact into a bundle, with a manifest that vouches for it."""
    (directory / "model.joblib").write_bytes(content)
    path = directory / "manifest.json"
    manifest = json.loads(path.read_text())
    manifest["sha256"] = hashlib.sha256(content).hexdigest()
    path.write_text(json.dumps(manifest))


def exchange_estimator(directory: Path, estimator: object) -> None:
    joblib.dump(estimator, directory / "other")
    exchange_artifact(directory, (directory / "other").read_bytes())


def test_the_whole_bundle_loads(copied_bundle: Path) -> None:
    model = Model.load(copied_bundle, "sklearn")
    for sample in model.manifest.golden_samples:
        (answer,) = model.predict([[sample.input[name] for name in model.manifest.feature_names]])
        assert answer and answer.value == sample.prediction
        assert answer.probabilities == pytest.approx(sample.probabilities, abs=model.manifest.golden_tolerance)


def test_the_bundle_of_a_regression_has_no_classes_and_loads() -> None:
    model = Model.load(MODELS / "diabetes" / "1.0.0", "sklearn")
    assert model.manifest.classes is None
    for sample in model.manifest.golden_samples:
        (answer,) = model.predict([[sample.input[name] for name in model.manifest.feature_names]])
        assert answer and answer.value == pytest.approx(sample.prediction, rel=model.manifest.golden_tolerance)


def test_rows_are_answered_together_in_their_order(copied_bundle: Path) -> None:
    model = Model.load(copied_bundle, "sklearn")
    rows = [[1.4, 0.2], [6.5, 0.8], [4.35, 1.35]]
    together = model.predict(rows)
    assert [answer and answer.value for answer in together] == [0, 2, 1]
    for row, answer in zip(rows, together, strict=True):
        (alone,) = model.predict([row])
        assert alone and answer and alone.probabilities == pytest.approx(answer.probabilities, abs=1e-15)


def test_an_artifact_is_hashed_before_it_is_opened(copied_bundle: Path, tmp_path: Path) -> None:
    trap = tmp_path / "sprung"

    class Trap:
        def __reduce__(self) -> tuple[Any, ...]:
            return (Path.touch, (trap,))

    artifact = copied_bundle / "model.joblib"
    artifact.write_bytes(pickle.dumps(Trap()))
    message = refusal(copied_bundle)
    assert "sha256" in message and "has not been opened" in message
    assert not trap.exists()
    # The trap works: an artifact that its manifest vouches for is opened.
    exchange_artifact(copied_bundle, artifact.read_bytes())
    refusal(copied_bundle)
    assert trap.exists()


def test_a_missing_directory_is_named(tmp_path: Path) -> None:
    assert "A bundle is a folder such as models/iris/1.0.0" in refusal(tmp_path / "nowhere")


def test_a_missing_artifact_is_named(copied_bundle: Path) -> None:
    (copied_bundle / "model.joblib").unlink()
    assert "model.joblib: cannot be read (No such file or directory)" in refusal(copied_bundle)


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b"\xff", b'{"format": 1}'])
def test_a_manifest_that_is_none_is_refused(copied_bundle: Path, content: bytes) -> None:
    (copied_bundle / "manifest.json").write_bytes(content)
    assert "Make the bundle anew" in refusal(copied_bundle)


REFERENCE = {"edges": [1.0], "shares": [0.5, 0.5]}


def proof(manifest: dict[str, Any]) -> dict[str, Any]:
    """Return what a manifest says of the comparison with its onnx model."""
    found: dict[str, Any] = manifest["onnx"]["proof"]
    return found


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        (lambda manifest: manifest.update(format=1), "format: Input should be 2"),
        (lambda manifest: manifest.update(surprise=1), "surprise: Extra inputs are not permitted"),
        (lambda manifest: manifest.update(artifact="../../etc/passwd"), "artifact: String should match pattern"),
        (lambda manifest: manifest["features"].pop(), "does not have exactly the features and classes"),
        (lambda manifest: manifest["classes"].pop(), "add up to 0.66"),
        (lambda manifest: manifest["classes"][0].update(value=1), "two classes have the same value"),
        (lambda manifest: manifest.update(task="regression"), "a regressor has a reference of its target"),
        (lambda manifest: manifest["target"].update(name="model"), "the name model is taken"),
        (lambda manifest: manifest["golden_samples"][1].update(prediction=7), "golden sample 2: 7 is no class"),
        (lambda manifest: manifest["features"][0]["reference"]["edges"].reverse(), "there must be ascending edges"),
        (lambda manifest: manifest["features"][0]["reference"]["shares"].pop(), "there must be ascending edges"),
        (lambda manifest: manifest["features"][0].update(name="petal_width"), "two features have the same name"),
        (lambda manifest: manifest["features"][1].update(maximum=1), "not all between minimum 0 and maximum 1"),
        (lambda manifest: manifest["features"][0]["reference"]["edges"].append(99), "there must be ascending edges"),
        (lambda manifest: manifest["features"][0].update(training_minimum=-1), "not all between minimum 0"),
        (lambda manifest: manifest["features"][0].update(training_minimum=9), "has values from 9 to"),
        (lambda manifest: manifest["features"][0].update(minimum=float("nan")), "Input should be a finite number"),
        (lambda manifest: manifest["features"][0].update(maximum=10**400), "beyond what a float of 64 bits holds"),
        (lambda manifest: manifest.update(training_rows=10**400), "training_rows: Input should be less than"),
        (
            lambda manifest: manifest["golden_samples"][0]["input"].update(petal_width=10**400),
            "golden sample 1: the value of 'petal_width' is not of its kind",
        ),
        (lambda manifest: manifest["target"].update(reference=REFERENCE), "a classifier has classes"),
        (lambda manifest: manifest.update(classes=None), "a classifier has classes"),
        (
            lambda manifest: (
                manifest.update(task="regression", classes=None),
                manifest["target"].update(reference=REFERENCE),
            ),
            "a regressor has no probabilities",
        ),
        (lambda manifest: manifest.update(no_onnx_reason="both"), "either an onnx model or the reason"),
        (lambda manifest: manifest.update(onnx=None), "either an onnx model or the reason"),
        (lambda manifest: manifest["onnx"].update(probabilities=None), "if and only if answers carry them"),
        (lambda manifest: proof(manifest).update(points={"training": 0}), "the proof proves nothing"),
        (lambda manifest: proof(manifest).update(largest_difference=1e-2), "the proof proves nothing"),
        (lambda manifest: manifest["golden_samples"][0]["input"].pop("petal_width"), "does not have exactly the feat"),
        (lambda manifest: manifest["golden_samples"][0]["probabilities"].pop(), "does not have exactly the features"),
        (lambda manifest: manifest["golden_samples"].clear(), "golden_samples: List should have at least 1 item"),
        (lambda manifest: manifest["libraries"].update({"scikit-learn": "1.0.2"}), "trained with scikit-learn 1.0.2"),
    ],
)
def test_a_wrong_manifest_is_refused(
    edit_manifest: EditManifest, change: Callable[[dict[str, Any]], None], complaint: str
) -> None:
    assert complaint in refusal(edit_manifest(change))


def test_an_artifact_of_another_library_version_is_refused_though_the_manifest_is_not(copied_bundle: Path) -> None:
    estimator = joblib.load(copied_bundle / "model.joblib")

    class Older:
        def __reduce__(self) -> tuple[Any, ...]:
            state = estimator.__getstate__() | {"_sklearn_version": "1.0.2"}
            return (type(estimator), (estimator.steps,), state)

    exchange_estimator(copied_bundle, Older())
    assert "InconsistentVersionWarning" in refusal(copied_bundle)


def test_an_artifact_that_is_no_pickle_is_refused(copied_bundle: Path) -> None:
    exchange_artifact(copied_bundle, b"not a pickle")
    assert "cannot be loaded" in refusal(copied_bundle)


def test_a_model_of_other_features_is_refused(copied_bundle: Path) -> None:
    data, classes = load_iris(return_X_y=True)
    exchange_estimator(copied_bundle, LogisticRegression(max_iter=1000).fit(data, classes))
    assert '"features": 4' in refusal(copied_bundle)


@pytest.mark.parametrize(
    "classes",
    [[0, 1, 3], [2, 1, 0], [False, True, 2], ["0", "1", "2"], [0.0, 1.0, 2.0]],
    ids=["another", "another order", "booleans", "texts", "floats"],
)
def test_a_model_of_other_classes_is_refused(copied_bundle: Path, classes: list[Any]) -> None:
    """Its answers would get the names of others, or be no class of the manifest at all."""
    estimator = joblib.load(copied_bundle / "model.joblib")
    estimator[-1].classes_ = np.array(classes, dtype=object)
    exchange_estimator(copied_bundle, estimator)
    assert f'"classes": {json.dumps(classes)}' in refusal(copied_bundle)


def test_a_model_that_is_no_classifier_is_refused(copied_bundle: Path) -> None:
    exchange_estimator(copied_bundle, Ridge().fit(np.eye(2), [1, 2]))
    assert '"task": "regression"' in refusal(copied_bundle)


def test_a_model_that_knows_its_features_by_other_names_is_refused(copied_bundle: Path) -> None:
    estimator = joblib.load(copied_bundle / "model.joblib")
    estimator[0].feature_names_in_ = np.array(["petal_width", "petal_length"], dtype=object)
    exchange_estimator(copied_bundle, estimator)
    assert '["petal_width", "petal_length"]' in refusal(copied_bundle)


def use_skops(directory: Path, estimator: Any) -> None:
    """Make a skops artifact of an estimator, with a manifest that vouches for it."""
    # It takes a third of a second to import.
    from skops import io as skops_io

    content = skops_io.dumps(estimator)
    (directory / "model.skops").write_bytes(content)
    path = directory / "manifest.json"
    manifest = json.loads(path.read_text())
    manifest.update(artifact="model.skops", sha256=hashlib.sha256(content).hexdigest())
    path.write_text(json.dumps(manifest))


def test_a_skops_artifact_answers_as_the_joblib_does(copied_bundle: Path, joblib_model: Model) -> None:
    use_skops(copied_bundle, joblib.load(copied_bundle / "model.joblib"))
    assert Model.load(copied_bundle, "sklearn").predict([[6.5, 0.8]]) == joblib_model.predict([[6.5, 0.8]])


def test_a_skops_type_must_be_allowed_by_the_settings(copied_bundle: Path) -> None:
    data, classes = load_iris(return_X_y=True)
    use_skops(copied_bundle, RandomForestClassifier(3).fit(data[:, 2:], classes))
    message = refusal(copied_bundle)
    assert "sklearn.tree._tree.Tree, which is not allowed here" in message
    assert "IRIS_API_SKOPS_TRUSTED=sklearn.tree._tree.Tree" in message
    Model.load(copied_bundle, "sklearn", ["sklearn.tree._tree.Tree"])
