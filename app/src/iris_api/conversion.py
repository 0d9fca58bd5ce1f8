"""Converts an estimator to ONNX and proves that both answer alike, or says why they don't."""

import hashlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnxruntime
from numpy.typing import NDArray

from iris_api.manifest import Manifest
from iris_api.onnx_engine import DTYPES, INPUT, OnnxEngine
from iris_api.progress import Progress, Watched

ARTIFACT = "model.onnx"
# How far probabilities, and values relative to their size, may be apart. Classes may not.
TOLERANCE = 1e-6
_GRID_POINTS = 90_000
_RANDOM_POINTS = 20_000
_BORDER_PAIRS = 1000
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

    Raise ConversionError where there is none, and TooLongError where the time is over that `progress` gives.
    """
    progress = progress or Progress()
    watched = Watched(estimator, progress)
    points = proof_points(watched, manifest, rows, progress)
    reasons = []
    for precision in DTYPES:
        try:
            content, output = _to_onnx(estimator, manifest, precision)
            engine = _open(content, precision, output)
            largest = largest_difference(watched, manifest, engine, points)
        except ConversionError as error:
            progress.expect(sum(map(len, points.values())))
            reasons.append(f"{precision}: {error}")
            continue
        proof = {
            "artifact_sha256": manifest.sha256,
            "onnxruntime": onnxruntime.__version__,
            "points": {name: len(table) for name, table in points.items()},
            "tolerance": TOLERANCE,
            "largest_difference": largest,
        }
        about = {"artifact": ARTIFACT, "sha256": hashlib.sha256(content).hexdigest(), "precision": precision}
        return Converted(content, {**about, "output": output, "proof": proof})
    raise ConversionError("; ".join(reasons))


def _to_onnx(estimator: Any, manifest: Manifest, precision: str) -> tuple[bytes, str]:
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
    outputs = [output.name for output in model.graph.output]
    return content, outputs[1] if manifest.probabilities else outputs[0]


def _open(content: bytes, precision: str, output: str) -> OnnxEngine:
    try:
        return OnnxEngine(content, precision, output, TOLERANCE)
    except Exception as error:
        # ONNX Runtime does not take everything that skl2onnx writes.
        raise ConversionError(f"it does not load ({type(error).__name__}: {_first_line(error)})") from error


def proof_points(estimator: Any, manifest: Manifest, rows: Table, progress: Progress) -> dict[str, Table]:
    """Return where both must agree: where data are, where they could be, and where the answer turns."""
    chance = np.random.default_rng(_SEED)
    least, greatest = rows.min(axis=0), rows.max(axis=0)
    minima = np.array([feature.minimum for feature in manifest.features])
    maxima = np.array([feature.maximum for feature in manifest.features])
    golden = [[sample.input[name] for name in manifest.feature_names] for sample in manifest.golden_samples]
    grid = _grid(least, greatest)
    within = chance.uniform(least, greatest, (_RANDOM_POINTS, len(least)))
    # To find the borders, and to compare.
    progress.expect(2 * (len(rows) + len(grid) + _RANDOM_POINTS) + (_HALVINGS + 2) * _BORDER_PAIRS + _RANDOM_POINTS)
    return {
        "training data": rows,
        "grid over the training ranges": grid,
        "random points of the training ranges": within,
        "random points of what is accepted": chance.uniform(minima, maxima, (_RANDOM_POINTS, len(least))),
        "beside borders": _beside_borders(estimator, np.vstack([rows, grid, within]), chance),
        "golden samples": np.array(golden, dtype=np.float64),
    }


def _grid(least: Table, greatest: Table) -> Table:
    """Return evenly spaced points, as many a dimension as make about _GRID_POINTS in all."""
    steps = max(2, int(_GRID_POINTS ** (1 / len(least)) + 1e-9))
    if steps ** len(least) > 2 * _GRID_POINTS:
        # So many features that even the corners are too many.
        return np.vstack([least, greatest])
    axes = np.meshgrid(*(np.linspace(low, high, steps) for low, high in zip(least, greatest, strict=True)))
    points: Table = np.stack([axis.ravel() for axis in axes], axis=1)
    return points


def _beside_borders(estimator: Any, points: Table, chance: np.random.Generator) -> Table:
    """Close in on where the answer turns, between pairs of points that are answered differently."""
    answers = _numbers(estimator, points)
    first, second = chance.integers(len(points), size=(2, 20 * _BORDER_PAIRS))
    differ = np.flatnonzero(answers[first] != answers[second])[:_BORDER_PAIRS]
    near: Table = points[first[differ]]
    far: Table = points[second[differ]]
    if not len(near):
        return near
    near_answers, far_answers = answers[first[differ]], answers[second[differ]]
    for _ in range(_HALVINGS):
        middle = (near + far) / 2
        middle_answers = _numbers(estimator, middle)
        # Of both halves the one in which the answer changes more.
        in_far_half = np.abs(far_answers - middle_answers) > np.abs(middle_answers - near_answers)
        near = np.where(in_far_half[:, None], middle, near)
        far = np.where(in_far_half[:, None], far, middle)
        near_answers = np.where(in_far_half, middle_answers, near_answers)
        far_answers = np.where(in_far_half, far_answers, middle_answers)
    return np.vstack([near, far])


def _numbers(estimator: Any, rows: Table) -> Table:
    """Return a model's answers as numbers: a class by its place."""
    answers = estimator.predict(rows)
    classes = getattr(estimator, "classes_", None)
    return np.asarray(answers if classes is None else np.searchsorted(classes, answers), dtype=np.float64)


def largest_difference(estimator: Any, manifest: Manifest, engine: OnnxEngine, points: Mapping[str, Table]) -> float:
    """Return the largest difference of any number, or raise ConversionError where classes or numbers disagree."""
    return max(_difference(estimator, manifest, engine, name, rows) for name, rows in points.items() if len(rows))


def _difference(estimator: Any, manifest: Manifest, engine: OnnxEngine, where: str, rows: Table) -> float:
    try:
        found = engine.run(rows)
    except Exception as error:
        # See _to_onnx.
        raise ConversionError(f"it does not run ({type(error).__name__}: {_first_line(error)})") from error
    if manifest.probabilities:
        expected = estimator.predict_proba(rows)
        _require_equal(where, expected.argmax(axis=1), found.argmax(axis=1))
    elif manifest.classes:
        _require_equal(where, estimator.predict(rows), found)
        return 0.0
    else:
        expected = estimator.predict(rows)
    differences = np.abs(found - expected) / np.maximum(1, np.abs(expected))
    # Not a number is never small enough.
    if not (differences <= TOLERANCE).all():
        raise ConversionError(f"{where}: answers differ by up to {differences.max():.1e}")
    return float(differences.max())


def _require_equal(where: str, expected: Iterable[Any], found: Iterable[Any]) -> None:
    pairs = list(zip(expected, found, strict=True))
    different = sum(left != right for left, right in pairs)
    if different:
        raise ConversionError(f"{where}: {different} of {len(pairs)} rows get another class")


def _first_line(error: Exception) -> str:
    return (str(error).strip().splitlines() or [""])[0][:200]
