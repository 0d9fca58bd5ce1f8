"""Converts an estimator to ONNX and proves that both answer alike, or says why they don't.

The conversion is in double precision by graphs of our own (`estimators`, `steps`, `trees`, `boosting`) where these know
the estimator, and by skl2onnx otherwise. Which it is makes no difference to the proof.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, NamedTuple

import numpy as np
import onnxruntime
from numpy.typing import NDArray

from iris_api.bundle.manifest import Feature, Manifest, Value
from iris_api.engines.model import REFUSALS, find_refused
from iris_api.engines.onnx import DTYPES, INPUT, OnnxEngine
from iris_api.engines.reviewed import flat
from iris_api.engines.table import Categories, MakeTable, table_maker
from iris_api.packing.conversion.estimators import Answer, answer
from iris_api.packing.conversion.graph import Graph, NotConvertedError, Tensor, Type
from iris_api.packing.conversion.points import Table, beside_borders, border_rows, proof_points
from iris_api.packing.conversion.steps import transform
from iris_api.packing.progress import Progress, Watched

ARTIFACT = "model.onnx"
# How far probabilities, and values relative to their size, may be apart. Classes may not.
TOLERANCE = 1e-6
# As the manifest calls them, in their order.
_OUTPUTS = ("output", "probabilities", "scores")
# Characters of a row in a message.
_LONGEST_ROW = 200
_BORDERS = "beside borders"


class ConversionError(Exception):
    """There is no ONNX model that answers as the estimator does; the message says why."""


@dataclass(frozen=True)
class Converted:
    """A converted model and what the manifest says about it."""

    content: bytes
    about: dict[str, Any]


class _Model(NamedTuple):
    """A conversion that is not proven yet."""

    content: bytes
    precision: str
    outputs: dict[str, str]


def convert(
    estimator: Any,
    manifest: Manifest,
    rows: Sequence[Sequence[Value]] | Table,
    progress: Progress | None = None,
    categories: Categories | None = None,
) -> Converted:
    """Return the first conversion, in double precision if possible, that is proven equal on all points.

    Args:
        estimator: fitted.
        manifest: of its bundle, but for the conversion.
        rows: the training data, or a sample of it, rows x features.
        progress: hears of the rows that are done, and may end the proof.
        categories: of the columns with pandas' dtype of that name, by the feature's name.

    Raise ConversionError if there is none, TooLongError if the time is over that `progress` gives.
    """
    progress = progress or Progress()
    asked = _Asked(estimator, manifest, table_maker(manifest, categories or {}), progress)
    expected: dict[str, _Answers] = {}
    reasons = []
    for how, attempt in _attempts(estimator, manifest, categories or {}):
        try:
            model = attempt()
            engine = _open(model, manifest)
        except ConversionError as error:
            reasons.append(f"{how}: {error}")
            continue
        # The estimator is asked only if there is something to compare, and once.
        expected = expected or _expected(asked, manifest, rows)
        try:
            largest = max(_difference(engine, name, manifest, *answers) for name, answers in expected.items())
        except ConversionError as error:
            reasons.append(f"{how}: {error}")
            continue
        proof = {
            "artifact_sha256": manifest.sha256,
            "onnxruntime": onnxruntime.__version__,
            "points": {name: len(answers.rows) for name, answers in expected.items()},
            "tolerance": TOLERANCE,
            "largest_difference": largest,
        }
        about = {"artifact": ARTIFACT, "sha256": hashlib.sha256(model.content).hexdigest()}
        about["precision"] = model.precision
        return Converted(model.content, {**about, **model.outputs, "proof": proof})
    # Of several attempts often each fails for the same reason.
    raise ConversionError("; ".join(dict.fromkeys(reasons)))


def _attempts(estimator: Any, manifest: Manifest, categories: Categories) -> Iterator[tuple[str, Callable[[], _Model]]]:
    yield "double", partial(_graph, estimator, manifest, categories)
    if manifest.table is None and manifest.task in {"classification", "regression"} and not manifest.scores:
        for precision in DTYPES:
            yield f"{precision} by skl2onnx", partial(_to_onnx, estimator, manifest, precision)


def _graph(estimator: Any, manifest: Manifest, categories: Categories) -> _Model:
    graph = Graph()
    try:
        if manifest.table is None:
            tensors = [graph.input(INPUT, "double", len(manifest.features))]
        else:
            tensors = [
                _column(graph, feature, column.missing, categories.get(feature.name))
                for feature, column in zip(manifest.features, manifest.table.columns, strict=True)
            ]
        if manifest.task == "transformation":
            found = Answer(graph.matrix(transform(graph, estimator, tensors)).name)
        else:
            found = answer(graph, estimator, tensors)
    except NotConvertedError as error:
        raise ConversionError(f"it does not convert ({error})") from error
    except Exception as error:
        # Attributes of an estimator that another version, or a subclass, does not have.
        raise ConversionError(f"it does not convert ({type(error).__name__}: {_first_line(error)})") from error
    outputs = {"prediction": found.values}
    if manifest.probabilities:
        if found.shares is None:
            raise ConversionError("it does not convert (its probabilities)")
        outputs["probabilities"] = found.shares
    if manifest.scores:
        if found.scores is None or manifest.scores.method != "decision_function":
            raise ConversionError(f"it does not convert (what {manifest.scores.method} says)")
        outputs["scores"] = found.scores
    content, names = graph.model(outputs)
    names["output"] = names.pop("prediction")
    return _Model(content, "double", names)


def _column(graph: Graph, feature: Feature, missing: Any, categories: Sequence[Any] | None) -> Tensor:
    """Add the input of a feature, in the type of its values."""
    kinds = {"number": "double", "integer": "int64", "boolean": "bool", "text": "string"}
    kind = kinds.get(feature.kind)
    if feature.kind == "category":
        kind = {bool: "bool", int: "int64"}.get(type((feature.values or [""])[0]), "string")
    if kind is None:
        raise NotConvertedError(f"the feature {feature.name!r} of the kind {feature.kind}")
    # Neither an integer nor a boolean has a value that stands for a missing one; a double has.
    numeric: Type = "double" if feature.nullable else kind  # type: ignore[assignment]
    tensor = graph.input(feature.name, "string" if kind == "string" else numeric)
    known = None if categories is None else tuple(categories)
    return Tensor(tensor.name, tensor.type, 1, missing if feature.nullable else None, known)


def _to_onnx(estimator: Any, manifest: Manifest, precision: str) -> _Model:
    """Return what skl2onnx makes of an estimator of numbers."""
    from skl2onnx import to_onnx
    from skl2onnx.common.data_types import DoubleTensorType, FloatTensorType

    kind = {"double": DoubleTensorType, "float": FloatTensorType}[precision]
    options = {id(estimator): {"zipmap": False}} if manifest.probabilities else None
    try:
        types = [(INPUT, kind([None, len(manifest.features)]))]
        model = to_onnx(estimator, initial_types=types, options=options)
        content: bytes = model.SerializeToString(deterministic=True)
    except Exception as error:
        # Each converter fails in its own way; all of them mean the same.
        raise ConversionError(f"it does not convert ({type(error).__name__}: {_first_line(error)})") from error
    # skl2onnx puts what `predict` answers first, and probabilities or scores behind it.
    names = _OUTPUTS if manifest.probabilities else _OUTPUTS[:1]
    outputs = {name: output.name for name, output in zip(names, model.graph.output, strict=False)}
    return _Model(content, precision, outputs)


def _open(model: _Model, manifest: Manifest) -> OnnxEngine:
    outputs = [model.outputs[each] for each in _OUTPUTS if each in model.outputs]
    try:
        return OnnxEngine(
            model.content, outputs, TOLERANCE, lists=manifest.outputs is not None, scores=manifest.scores is not None
        )
    except Exception as error:
        # ONNX Runtime does not take everything that is written in its format.
        raise ConversionError(f"it does not load ({type(error).__name__}: {_first_line(error)})") from error


class _Asked:
    """An estimator that is asked by rows as requests carry them: it gets the table that it gets when it serves."""

    def __init__(self, estimator: Any, manifest: Manifest, make_table: MakeTable, progress: Progress) -> None:
        watched = Watched(estimator, progress)
        self.progress = progress
        self._table = make_table
        self._transforms = manifest.task == "transformation"
        self._predict = watched.transform if self._transforms else watched.predict
        method = "predict_proba" if manifest.probabilities else manifest.scores.method if manifest.scores else None
        self._numbers = getattr(watched, method) if method else None
        self.methods = 1 + (method is not None)
        self._places: dict[Any, int] = {}

    def predict(self, rows: Any) -> NDArray[Any]:
        """Return what `predict` answers, or `transform` of what only transforms."""
        found = self._predict(self._table(rows))
        return np.asarray(found) if self._transforms else flat(found)

    def numbers(self, rows: Any) -> NDArray[Any] | None:
        """Return probabilities, rows x classes, or scores, rows x their number, where answers carry either."""
        if self._numbers is None:
            return None
        found = np.asarray(self._numbers(self._table(rows)))
        return found.reshape(len(found), -1)

    def place(self, values: NDArray[Any]) -> Table:
        """Return a number for each answer; what are no numbers are counted as they come, and lists of them."""
        if values.dtype.kind == "f":
            return values.sum(axis=1) if values.ndim == 2 else values
        answers = map(tuple, values.tolist()) if values.ndim == 2 else values.tolist()
        return np.array([self._places.setdefault(each, len(self._places)) for each in answers], dtype=np.float64)


class _Answers(NamedTuple):
    """What an estimator's own methods answer to some points, each asked for itself."""

    rows: Table
    values: NDArray[Any]
    """Of `predict`."""
    numbers: NDArray[Any] | None
    """Probabilities or scores, where the manifest promises either."""


def _expected(asked: _Asked, manifest: Manifest, rows: Any) -> dict[str, _Answers]:
    """Return the estimator's answers to all points, and to some beside the borders between them.

    Raise ConversionError if it refuses any of them or has no finite answer, for ONNX Runtime would have one.
    """
    points = proof_points(manifest, rows)
    asked.progress.expect(asked.methods * sum(map(len, points.values())) + border_rows())
    values = {name: _values(asked, manifest, name, rows) for name, rows in points.items()}
    inner = [name for name in points if "accepted" not in name]
    beside = beside_borders(
        manifest.features,
        lambda some: asked.place(asked.predict(some)),
        np.vstack([points[name] for name in inner]),
        asked.place(np.concatenate([values[name] for name in inner])),
    )
    if len(beside):
        points = {**points, _BORDERS: beside}
        values[_BORDERS] = _values(asked, manifest, _BORDERS, beside)
    answers = {}
    for name, rows in points.items():
        numbers = asked.numbers(rows)
        some = [each for each in (values[name], numbers) if each is not None and each.dtype.kind == "f"]
        if not all(np.isfinite(each).all() for each in some):
            raise ConversionError(f"{name}: the estimator's own answers are not finite")
        answers[name] = _Answers(rows, values[name], numbers)
    return answers


def _values(asked: _Asked, manifest: Manifest, where: str, rows: Table) -> NDArray[Any]:
    """Return what `predict` answers, or raise ConversionError if it refuses any of the rows."""
    try:
        return asked.predict(rows)
    except REFUSALS as error:
        found = find_refused(asked.predict, rows.tolist(), manifest.golden_rows[0])
        row, column, reason = found or (0, None, _first_line(error))
        values = f"{rows[row].tolist()}"
        remedy = "Give each feature a minimum and a maximum between which the estimator answers everything"
        if manifest.table is not None:
            remedy += ", and categories a closed list"
        if column is not None:
            values = f"{manifest.feature_names[column]} = {_shown(rows[row, column])}"
        raise ConversionError(
            f"{where}: the estimator refuses {values[:_LONGEST_ROW]}, which is accepted ({reason}), and ONNX Runtime "
            f"would answer. {remedy}"
        ) from None


def _shown(value: Any) -> str:
    return f"{value:g}" if isinstance(value, float) else repr(value)


def _difference(engine: OnnxEngine, where: str, manifest: Manifest, rows: Table, values: Any, numbers: Any) -> float:
    """Return the largest difference of any number, or raise ConversionError where classes or numbers disagree.

    Numbers are the probabilities; or scores, and values that are no classes, relative to their size. Classes and labels
    must be equal.
    """
    try:
        found, found_numbers = engine.run(rows)
    except Exception as error:
        # See _open.
        raise ConversionError(f"it does not run ({type(error).__name__}: {_first_line(error)})") from error
    pairs: list[tuple[NDArray[Any], NDArray[Any] | None]] = [] if numbers is None else [(numbers, found_numbers)]
    if manifest.classes or values.dtype.kind != "f":
        different = sum(left != right for left, right in zip(values.tolist(), found.tolist(), strict=True))
        if different:
            raise ConversionError(f"{where}: {different} of {len(rows)} rows get another class")
        if manifest.outputs and (found.dtype.kind == "f" or values.dtype.kind == "b"):
            raise ConversionError(f"{where}: integers come as floats, or booleans as integers")
    else:
        pairs.append((values, found))
    largest = 0.0
    for expected, answered in pairs:
        if answered is None or expected.shape != answered.shape:
            raise ConversionError(f"{where}: there is not an answer for each of the estimator's own")
        differences = np.abs(answered - expected) / (1 if manifest.probabilities else np.maximum(1, np.abs(expected)))
        # Not a number is never small enough.
        if not (differences <= TOLERANCE).all():
            raise ConversionError(f"{where}: answers differ by up to {differences.max():.1e}")
        largest = max(largest, float(differences.max()))
    return largest


def _first_line(error: Exception) -> str:
    return (str(error).strip().splitlines() or [""])[0][:200]
