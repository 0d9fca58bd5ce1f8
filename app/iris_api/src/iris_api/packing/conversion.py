"""Converts an estimator to ONNX and proves that both answer alike, or says why they don't."""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import onnxruntime
from numpy.typing import NDArray

from iris_api.bundle.manifest import Manifest
from iris_api.engines.model import REFUSALS, find_refused
from iris_api.engines.onnx import DTYPES, INPUT, OnnxEngine
from iris_api.engines.reviewed import flat
from iris_api.packing.progress import Progress, Watched

ARTIFACT = "model.onnx"
# How far probabilities, and values relative to their size, may be apart. Classes may not.
TOLERANCE = 1e-6
_GRID_POINTS = 90_000
_RANDOM_POINTS = 20_000
_BORDER_PAIRS = 1000
# All corners of what is accepted up to 2 to the power of this, and as many random ones of more.
_CORNER_BITS = 10
# Beside zero, where logarithms, roots and divisions turn.
_TINY = 1e-9
# Characters of a row in a message.
_LONGEST_ROW = 200
_BORDERS = "beside borders"
# Halves the way between two points until they are a billionth of it apart.
_HALVINGS = 30
_SEED = 1

Table = NDArray[np.float64]


class ConversionError(Exception):
    """There is no ONNX model that answers as the estimator does; the message says why."""


@dataclass(frozen=True)
class Converted:
    """A converted model and what the manifest says about it."""

    content: bytes
    about: dict[str, Any]


def convert(estimator: Any, manifest: Manifest, rows: Table, progress: Progress | None = None) -> Converted:
    """Return the first conversion, in double precision if possible, that is proven equal on all points.

    `rows` is the training data, rows x features. Raise ConversionError if there is none, TooLongError if the time is
    over that `progress` gives.
    """
    if not manifest.is_numeric:
        raise ConversionError("features other than numbers, and missing values, are not yet converted")
    progress = progress or Progress()
    expected: dict[str, _Answers] = {}
    reasons = []
    for precision in DTYPES:
        try:
            content, outputs = _to_onnx(estimator, manifest, precision)
            engine = _open(content, precision, outputs)
        except ConversionError as error:
            reasons.append(f"{precision}: {error}")
            continue
        # The estimator is asked only if there is something to compare, and once.
        expected = expected or _expected(Watched(estimator, progress), manifest, proof_points(manifest, rows), progress)
        try:
            largest = max(_difference(engine, name, manifest, *answers) for name, answers in expected.items())
        except ConversionError as error:
            reasons.append(f"{precision}: {error}")
            continue
        proof = {
            "artifact_sha256": manifest.sha256,
            "onnxruntime": onnxruntime.__version__,
            "points": {name: len(answers.rows) for name, answers in expected.items()},
            "tolerance": TOLERANCE,
            "largest_difference": largest,
        }
        about = {"artifact": ARTIFACT, "sha256": hashlib.sha256(content).hexdigest(), "precision": precision}
        return Converted(content, {**about, **outputs, "proof": proof})
    raise ConversionError("; ".join(reasons))


def _to_onnx(estimator: Any, manifest: Manifest, precision: str) -> tuple[bytes, dict[str, str]]:
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
    names = ["output", *(["probabilities"] if manifest.probabilities else [])]
    return content, {name: output.name for name, output in zip(names, model.graph.output, strict=False)}


def _open(content: bytes, precision: str, outputs: Mapping[str, str]) -> OnnxEngine:
    try:
        return OnnxEngine(content, precision, list(outputs.values()), TOLERANCE)
    except Exception as error:
        # ONNX Runtime does not take everything that skl2onnx writes.
        raise ConversionError(f"it does not load ({type(error).__name__}: {_first_line(error)})") from error


def proof_points(manifest: Manifest, rows: Table) -> dict[str, Table]:
    """Return tables, rows x features, on which both must agree: where data are, and where they could be."""
    chance = np.random.default_rng(_SEED)
    least, greatest = rows.min(axis=0), rows.max(axis=0)
    minima, _, _, maxima = np.array([feature.limits for feature in manifest.features], dtype=np.float64).T
    golden = np.array(manifest.golden_rows, dtype=np.float64)
    return {
        "training data": rows,
        "edges of what is accepted": _edges(minima, maxima, golden[0], chance),
        "grid over the training ranges": _grid(least, greatest),
        "random points of the training ranges": chance.uniform(least, greatest, (_RANDOM_POINTS, len(least))),
        "random points of what is accepted": chance.uniform(minima, maxima, (_RANDOM_POINTS, len(least))),
        "golden samples": golden,
    }


def _edges(minima: Table, maxima: Table, inside: Table, chance: np.random.Generator) -> Table:
    """Return rows with one value after the other at its limits, at and beside zero; and corners of what is accepted."""
    width = len(minima)
    # Row n has the value in its column n.
    singles = [
        np.where(np.eye(width, dtype=bool), np.clip(value, minima, maxima), inside)
        for value in (minima, maxima, 0.0, -_TINY, _TINY)
    ]
    if width <= _CORNER_BITS:
        at_maximum = (np.arange(2**width)[:, None] >> np.arange(width)) % 2 == 1
    else:
        some = chance.integers(2, size=(2**_CORNER_BITS, width))
        at_maximum = np.vstack([np.zeros(width), np.ones(width), some]) == 1
    return np.vstack([*singles, np.clip(np.zeros(width), minima, maxima), np.where(at_maximum, maxima, minima)])


class _Answers(NamedTuple):
    """What an estimator's own methods answer to some points, each asked for itself."""

    rows: Table
    values: NDArray[Any]
    """Of `predict`."""
    shares: Table | None
    """Of `predict_proba`, where the manifest promises probabilities."""


def _expected(
    estimator: Any, manifest: Manifest, points: Mapping[str, Table], progress: Progress
) -> dict[str, _Answers]:
    """Return the estimator's answers to all points, and to some beside the borders between them.

    Raise ConversionError if it refuses any of them or has no finite answer, for ONNX Runtime would have one.
    """
    methods = 2 if manifest.probabilities else 1
    progress.expect(methods * sum(map(len, points.values())) + (_HALVINGS + 2 * methods) * _BORDER_PAIRS)
    values = {name: _values(estimator, manifest, name, rows) for name, rows in points.items()}
    inner = [name for name in points if "accepted" not in name]
    beside = _beside_borders(
        estimator,
        np.vstack([points[name] for name in inner]),
        _numbers(estimator, np.concatenate([values[name] for name in inner])),
    )
    if len(beside):
        points = {**points, _BORDERS: beside}
        values[_BORDERS] = _values(estimator, manifest, _BORDERS, beside)
    answers = {}
    for name, rows in points.items():
        shares = estimator.predict_proba(rows) if manifest.probabilities else None
        numbers = [shares] if manifest.classes else [values[name]]
        if not all(np.isfinite(each).all() for each in numbers if each is not None):
            raise ConversionError(f"{name}: the estimator's own answers are not finite")
        answers[name] = _Answers(rows, values[name], shares)
    return answers


def _values(estimator: Any, manifest: Manifest, where: str, rows: Table) -> NDArray[Any]:
    """Return what `predict` answers, or raise ConversionError if it refuses any of the rows."""
    try:
        return flat(estimator.predict(rows))
    except REFUSALS as error:
        names = manifest.feature_names
        inside = manifest.golden_rows[0]
        found = find_refused(lambda some: estimator.predict(np.array(some, dtype=np.float64)), rows.tolist(), inside)
        row, column, reason = found or (0, None, _first_line(error))
        values = (
            f"{rows[row].tolist()}"[:_LONGEST_ROW] if column is None else f"{names[column]} = {rows[row, column]:g}"
        )
        raise ConversionError(
            f"{where}: the estimator refuses {values}, which is accepted ({reason}), and ONNX Runtime would answer. "
            "Give each feature a minimum and a maximum between which the estimator answers everything"
        ) from None


def _grid(least: Table, greatest: Table) -> Table:
    """Return evenly spaced points, as many a dimension as make about _GRID_POINTS in all."""
    steps = max(2, int(_GRID_POINTS ** (1 / len(least)) + 1e-9))
    if steps ** len(least) > 2 * _GRID_POINTS:
        # So many features that even the corners are too many.
        return np.vstack([least, greatest])
    axes = np.meshgrid(*(np.linspace(low, high, steps) for low, high in zip(least, greatest, strict=True)))
    points: Table = np.stack([axis.ravel() for axis in axes], axis=1)
    return points


def _beside_borders(estimator: Any, points: Table, answers: Table) -> Table:
    """Close in on where the answer turns, between pairs of points that are answered differently."""
    chance = np.random.default_rng(_SEED)
    first, second = chance.integers(len(points), size=(2, 20 * _BORDER_PAIRS))
    differ = np.flatnonzero(answers[first] != answers[second])[:_BORDER_PAIRS]
    near: Table = points[first[differ]]
    far: Table = points[second[differ]]
    if not len(near):
        return near
    near_answers, far_answers = answers[first[differ]], answers[second[differ]]
    for _ in range(_HALVINGS):
        middle = (near + far) / 2
        middle_answers = _numbers(estimator, flat(estimator.predict(middle)))
        # Of both halves the one in which the answer changes more.
        in_far_half = np.abs(far_answers - middle_answers) > np.abs(middle_answers - near_answers)
        near = np.where(in_far_half[:, None], middle, near)
        far = np.where(in_far_half[:, None], far, middle)
        near_answers = np.where(in_far_half, middle_answers, near_answers)
        far_answers = np.where(in_far_half, far_answers, middle_answers)
    return np.vstack([near, far])


def _numbers(estimator: Any, values: NDArray[Any]) -> Table:
    """Return a model's answers as numbers: a class by its place."""
    classes = getattr(estimator, "classes_", None)
    return np.asarray(values if classes is None else np.searchsorted(classes, values), dtype=np.float64)


def _difference(engine: OnnxEngine, where: str, manifest: Manifest, rows: Table, values: Any, shares: Any) -> float:
    """Return the largest difference of any number, or raise ConversionError where classes or numbers disagree.

    Numbers are the probabilities, or a regressor's values relative to their size; classes must be equal.
    """
    try:
        found, found_shares = engine.run(rows)
    except Exception as error:
        # See _to_onnx.
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
