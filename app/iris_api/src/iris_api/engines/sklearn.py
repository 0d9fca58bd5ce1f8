"""Inference by scikit-learn: any estimator, from joblib or skops."""

import importlib.metadata
import io
import json
import warnings
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any, Self, TypeVar

import joblib
import numpy as np
import sklearn
from numpy.typing import NDArray
from sklearn.base import is_classifier, is_clusterer, is_outlier_detector, is_regressor
from sklearn.exceptions import InconsistentVersionWarning

from iris_api.bundle.files import BundleError, read_file
from iris_api.bundle.manifest import MANIFEST, Manifest, Task
from iris_api.engines.columns import Table
from iris_api.engines.model import Answers, Row
from iris_api.engines.reviewed import Decide, decider, is_finite_throughout
from iris_api.engines.table import Categories, read_categories, table_maker

T = TypeVar("T")

# Whoever sends a value that is refused is answered so; as warnings, such a value and an unknown category would fill the
# log. So would rows without names: they come in the order of the manifest, which was compared with the names when the
# bundle was loaded.
warnings.filterwarnings("ignore", category=RuntimeWarning)
warnings.filterwarnings("ignore", category=UserWarning, module="sklearn")


class SklearnEngine:
    """Answers rows by the estimator itself."""

    name = "sklearn"
    # A call takes some 200 us, of a forest more: to save one is worth some turns more to wait for others, of which each
    # takes a few us.
    turns = 4

    def __init__(self, manifest: Manifest, estimator: Any, categories: Categories | None = None) -> None:
        self.estimator = estimator
        self.tolerance = manifest.golden_tolerance
        self._table = table_maker(manifest, categories or {})
        self._decide = _decider(manifest, estimator)
        self._scores = getattr(estimator, manifest.scores.method) if manifest.scores else None
        self._unchecked = is_finite_throughout(estimator, manifest)

    @classmethod
    def load(cls, directory: Path, manifest: Manifest, skops_trusted: Sequence[str]) -> Self:
        """Load the artifact of a bundle; raise BundleError if it is not what the manifest promises."""
        content = read_file(directory, manifest.artifact, manifest.sha256)
        _check_library(directory, manifest)
        path = directory / manifest.artifact
        estimator = open_artifact(path, content, skops_trusted)
        _check_shape(path, manifest, estimator)
        return cls(manifest, estimator, read_categories(directory, manifest))

    def __call__(self, rows: Sequence[Row]) -> Answers:
        """Return the estimator's answers to rows; raise what it raises, also for what its table does not hold."""
        table = self._table(rows)
        with self._checks():
            values, probabilities = self._decide(table)
            scores = scores_of(self._scores, table) if self._scores else None
        return Answers(values.tolist(), None if probabilities is None else probabilities.tolist(), scores)

    def run(self, rows: Table) -> tuple[NDArray[Any], NDArray[Any] | None]:
        """Return what `predict` answers to a table, and the probabilities, rows x classes, or None."""
        table = self._table(rows)
        with self._checks():
            return self._decide(table)

    def _checks(self) -> AbstractContextManager[None]:
        # To check again what is known to be finite takes a tenth of a prediction's time.
        return sklearn.config_context(assume_finite=True) if self._unchecked else nullcontext()


def _decider(manifest: Manifest, estimator: Any) -> Decide:
    if manifest.task == "transformation":
        return lambda rows: (np.asarray(estimator.transform(rows)), None)
    return refusing(decider(estimator, manifest.probabilities))


# By name, since none of these libraries need be here.
_REFUSALS = frozenset({"CatBoostError", "LightGBMError"})


def refusing(call: Callable[[Any], T]) -> Callable[[Any], T]:
    """Return what raises ValueError where a library refuses a value by an error of its own."""

    def call_or_refuse(rows: Any) -> T:
        try:
            return call(rows)
        except Exception as error:
            if type(error).__name__ in _REFUSALS:
                raise ValueError(str(error)) from error
            raise

    return call_or_refuse


def scores_of(method: Callable[[Any], Any], table: Any) -> list[list[float]]:
    """Return the scores of each row of a table, in a list also if there is one alone."""
    found = np.asarray(method(table), dtype=np.float64)
    scores: list[list[float]] = found.reshape(len(found), -1).tolist()
    return scores


def open_artifact(path: Path, content: bytes, skops_trusted: Sequence[str]) -> Any:
    """Return the estimator of an artifact's bytes; raise BundleError if it cannot be loaded.

    Opening a pickle runs code: the bytes must have been compared with the hash of a manifest that is trusted.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error", InconsistentVersionWarning)
            if path.suffix == ".skops":
                return _open_skops(path, content, skops_trusted)
            return joblib.load(io.BytesIO(content))
    except BundleError:
        raise
    except Exception as error:
        # Unpickling may raise anything at all; none of it is more than a bundle that cannot be served.
        raise BundleError(
            f"{path}: cannot be loaded ({type(error).__name__}: {' '.join(str(error).split())}). "
            "Train it again with the libraries installed here."
        ) from error


def _open_skops(path: Path, content: bytes, trusted: Sequence[str]) -> Any:
    from skops import io as skops_io

    unknown = sorted(set(skops_io.get_untrusted_types(data=content)) - set(trusted))
    if unknown:
        raise BundleError(
            f"{path}: it holds {', '.join(unknown)}, which is not allowed here. If these types are known to be "
            f"harmless, allow them: IRIS_API_SKOPS_TRUSTED={','.join([*trusted, *unknown])}"
        )
    return skops_io.loads(content, trusted=sorted(set(trusted)))


def _check_library(directory: Path, manifest: Manifest) -> None:
    trained, installed = manifest.libraries.get("scikit-learn"), importlib.metadata.version("scikit-learn")
    if trained != installed:
        raise BundleError(
            f"{directory / MANIFEST}: the model was trained with scikit-learn {trained}, but {installed} is installed. "
            "Train it again or install that version."
        )


def _check_shape(path: Path, manifest: Manifest, estimator: Any) -> None:
    classes = manifest.classes if manifest.task == "classification" else None
    expected = {
        "task": manifest.task,
        "features": manifest.feature_names if isinstance(features_of(estimator), list) else len(manifest.features),
        "classes": [each.value for each in classes or []],
        "probabilities": manifest.probabilities,
    }
    features = features_of(estimator)
    found = {
        "task": manifest.task if _may_do(estimator, manifest.task) else task_of(estimator),
        # A pipeline that begins with a step of one's own may not know.
        "features": expected["features"] if features is None else features,
        "classes": np.asarray(getattr(estimator, "classes_", [])).tolist() if classes else [],
        "probabilities": manifest.probabilities and hasattr(estimator, "predict_proba"),
    }
    # As JSON, for which 1, 1.0 and true are not the same.
    if json.dumps(found) != json.dumps(expected):
        raise BundleError(
            f"{path}: {MANIFEST} promises {json.dumps(expected)}, but the artifact has {json.dumps(found)}. "
            "Manifest and artifact do not belong together: make the bundle anew."
        )


def _may_do(estimator: Any, task: Task) -> bool:
    """Return whether an estimator does a task; whether it has several targets only its answers tell."""
    return task_of(estimator) in ({"classification", "regression"} if task == "several_targets" else {task})


def task_of(estimator: Any) -> Task | None:
    """Return what an estimator does, as far as its type tells, or None for what can't be served."""
    try:
        if is_classifier(estimator):
            return "classification"
        if is_regressor(estimator):
            return "regression"
        if is_outlier_detector(estimator) and hasattr(estimator, "predict"):
            return "outlier_detection"
        if is_clusterer(estimator) and hasattr(estimator, "predict"):
            return "clustering"
        return "transformation" if is_transformer(estimator) else None
    except AttributeError:
        # It is no estimator at all.
        return None


def is_transformer(estimator: Any) -> bool:
    """Return whether an estimator makes other values of a row, and nothing else."""
    return hasattr(estimator, "transform") and hasattr(estimator, "fit") and not hasattr(estimator, "predict")


def features_of(estimator: Any) -> list[str] | int | None:
    """Return the names of an estimator's features if it knows them, else their number."""
    names = getattr(estimator, "feature_names_in_", None)
    if names is None and (own := getattr(estimator, "feature_names_", None)):
        # CatBoost counts none, and has names elsewhere: the numbers of the columns where it was fitted on an array.
        names = own if list(own) != [str(number) for number in range(len(own))] else None
    if names is not None:
        return [str(name) for name in names]
    number = getattr(estimator, "n_features_in_", None) or len(getattr(estimator, "feature_names_", None) or [])
    return int(number) or None
