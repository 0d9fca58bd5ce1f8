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
from iris_api.packing.conversion.estimators import answer
from iris_api.packing.conversion.graph import Graph, NotConvertedError, Tensor, Type
from iris_api.packing.conversion.points import Table, beside_borders, border_rows, proof_points
from iris_api.packing.progress import Progress, Watched

ARTIFACT = "model.onnx"
# How far probabilities, and values relative to their size, may be apart. Classes may not.
TOLERANCE = 1e-6
# As the manifest calls them, in their order.
_OUTPUTS = ("output", "probabilities")
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
    asked = _Asked(estimator, table_maker(manifest, categories or {}), progress)
    expected: dict[str, _Answers] = {}
    reasons = []
    for how, attempt in _attempts(estimator, manifest, categories or {}):
        try:
            model = attempt()
            engine = _open(model)
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
    if manifest.table is None:
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


def _open(model: _Model) -> OnnxEngine:
    try:
        return OnnxEngine(model.content, [model.outputs[each] for each in _OUTPUTS if each in model.outputs], TOLERANCE)
    except Exception as error:
        # ONNX Runtime does not take everything that is written in its format.
        raise ConversionError(f"it does not load ({type(error).__name__}: {_first_line(error)})") from error


class _Asked:
    """An estimator that is asked by rows as requests carry them: it gets the table that it gets when it serves."""

    def __init__(self, estimator: Any, make_table: MakeTable, progress: Progress) -> None:
        self.progress = progress
        self._estimator = Watched(estimator, progress)
        self._table = make_table
        self._classes = getattr(estimator, "classes_", None)

    def predict(self, rows: Any) -> NDArray[Any]:
        """Return what `predict` answers."""
        return flat(self._estimator.predict(self._table(rows)))

    def predict_proba(self, rows: Any) -> NDArray[Any]:
        """Return what `predict_proba` answers."""
        return np.asarray(self._estimator.predict_proba(self._table(rows)))

    def numbers(self, values: NDArray[Any]) -> Table:
        """Return answers as numbers: a class by its place."""
        return np.asarray(values if self._classes is None else np.searchsorted(self._classes, values), dtype=np.float64)


class _Answers(NamedTuple):
    """What an estimator's own methods answer to some points, each asked for itself."""

    rows: Table
    values: NDArray[Any]
    """Of `predict`."""
    shares: NDArray[Any] | None
    """Of `predict_proba`, where the manifest promises probabilities."""


def _expected(asked: _Asked, manifest: Manifest, rows: Any) -> dict[str, _Answers]:
    """Return the estimator's answers to all points, and to some beside the borders between them.

    Raise ConversionError if it refuses any of them or has no finite answer, for ONNX Runtime would have one.
    """
    points = proof_points(manifest, rows)
    methods = 2 if manifest.probabilities else 1
    asked.progress.expect(methods * sum(map(len, points.values())) + border_rows())
    values = {name: _values(asked, manifest, name, rows) for name, rows in points.items()}
    inner = [name for name in points if "accepted" not in name]
    beside = beside_borders(
        manifest.features,
        lambda some: asked.numbers(asked.predict(some)),
        np.vstack([points[name] for name in inner]),
        asked.numbers(np.concatenate([values[name] for name in inner])),
    )
    if len(beside):
        points = {**points, _BORDERS: beside}
        values[_BORDERS] = _values(asked, manifest, _BORDERS, beside)
    answers = {}
    for name, rows in points.items():
        shares = asked.predict_proba(rows) if manifest.probabilities else None
        numbers = [shares] if manifest.classes else [values[name]]
        if not all(np.isfinite(each).all() for each in numbers if each is not None):
            raise ConversionError(f"{name}: the estimator's own answers are not finite")
        answers[name] = _Answers(rows, values[name], shares)
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


def _difference(engine: OnnxEngine, where: str, manifest: Manifest, rows: Table, values: Any, shares: Any) -> float:
    """Return the largest difference of any number, or raise ConversionError where classes or numbers disagree.

    Numbers are the probabilities, or a regressor's values relative to their size; classes must be equal.
    """
    try:
        found, found_shares = engine.run(rows)
    except Exception as error:
        # See _open.
        raise ConversionError(f"it does not run ({type(error).__name__}: {_first_line(error)})") from error
    if manifest.classes:
        different = sum(left != right for left, right in zip(values.tolist(), found.tolist(), strict=True))
        if different:
            raise ConversionError(f"{where}: {different} of {len(rows)} rows get another class")
        if shares is None or found_shares is None:
            return 0.0
        differences = np.abs(found_shares - shares)
    else:
        differences = np.abs(found - values) / np.maximum(1, np.abs(values))
    # Not a number is never small enough.
    if not (differences <= TOLERANCE).all():
        raise ConversionError(f"{where}: answers differ by up to {differences.max():.1e}")
    return float(differences.max())


def _first_line(error: Exception) -> str:
    return (str(error).strip().splitlines() or [""])[0][:200]
