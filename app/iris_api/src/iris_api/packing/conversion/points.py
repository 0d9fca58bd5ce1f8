"""Rows on which a model and its conversion are compared: where data are, where they could be, and where it turns."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from iris_api.bundle.manifest import NUMERIC, Feature, Manifest, Value

Table = NDArray[Any]
"""Rows x features: floats with NaN for a missing value, or Python's objects with None for one."""

# Of numbers; with other kinds of features a model is slower, and a row holds less.
_GRID_POINTS = 40_000
_RANDOM_POINTS = 10_000
_MIXED_POINTS = 4000
_BORDER_PAIRS = 1000
# All corners of what is accepted up to 2 to the power of this, and as many random ones of more.
_CORNER_BITS = 10
# Beside zero, where logarithms, roots and divisions turn.
_TINY = 1e-9
# Halves the way between two points until they are a billionth of it apart.
HALVINGS = 30
# Up to here a float of 64 bits holds every integer.
_EXACT = 2**53
# What no training data has: another category, and texts of which not each letter is of ASCII.
UNKNOWN = "\N{LATIN SMALL LETTER U WITH DIAERESIS}nknown, 1 of 2"
_TEXTS = (
    "",
    " ",
    UNKNOWN,
    "\N{LATIN CAPITAL LETTER U WITH DIAERESIS}BER don't co-op a1_b2 3.14 \N{GREEK SMALL LETTER PI}",
)
_SEED = 1
_LIMITS = "at limits, missing or unknown"


def proof_points(manifest: Manifest, rows: Sequence[Sequence[Value]] | Table) -> dict[str, Table]:
    """Return tables on which both must agree; in half of all rows a value is at a limit, missing or unknown.

    `rows` is the training data.
    """
    chance = np.random.default_rng(_SEED)
    features = manifest.features
    golden = manifest.golden_rows
    if manifest.table is None:
        table = np.array(rows, dtype=np.float64)
        points = _of_numbers(features, table, np.array(golden, dtype=np.float64), chance)
    else:
        table = _objects(rows)
        inside = [_drawn(feature, table[:, number], chance) for number, feature in enumerate(features)]
        points = {
            "training data": table[chance.permutation(len(table))[:_MIXED_POINTS]],
            "random points of the training ranges": np.stack(inside, axis=1),
            "golden samples": _objects(golden),
        }
    known = np.vstack(list(points.values()))
    return {**points, _LIMITS: _changed(features, known, table, chance)}


def _objects(rows: Any) -> Table:
    table = np.empty((len(rows), len(rows[0])), dtype=object)
    for number, row in enumerate(rows):
        table[number] = row
    return table


def _of_numbers(
    features: Sequence[Feature], rows: Table, golden: Table, chance: np.random.Generator
) -> dict[str, Table]:
    least, greatest = np.nanmin(rows, axis=0), np.nanmax(rows, axis=0)
    minima, maxima = _limits(features, least, greatest)
    inside = np.where(np.isnan(golden[0]), least, golden[0])
    return {
        "training data": rows,
        "edges of what is accepted": _edges(minima, maxima, inside, chance),
        "grid over the training ranges": _grid(least, greatest),
        "random points of the training ranges": chance.uniform(least, greatest, (_RANDOM_POINTS, len(least))),
        "random points of what is accepted": chance.uniform(minima, maxima, (_RANDOM_POINTS, len(least))),
        "golden samples": golden,
    }


def _limits(features: Sequence[Feature], least: Table, greatest: Table) -> tuple[Table, Table]:
    """Return the least and the greatest of what is accepted; a boolean has those of training."""
    limits = [
        (each.limits[0], each.limits[3]) if each.kind in NUMERIC else pair
        for each, pair in zip(features, zip(least, greatest, strict=True), strict=True)
    ]
    minima, maxima = np.array(limits, dtype=np.float64).T
    return minima, maxima


def _drawn(feature: Feature, values: Table, chance: np.random.Generator) -> Table:
    """Return random values of a feature: of the training range, or of its categories or texts."""
    drawn = np.empty(_MIXED_POINTS, dtype=object)
    if feature.kind == "number":
        _, least, greatest, _ = feature.limits
        drawn[:] = chance.uniform(least, greatest, len(drawn)).tolist()
    elif feature.kind == "integer":
        _, least, greatest, _ = feature.limits
        drawn[:] = chance.integers(int(least), int(greatest), len(drawn), endpoint=True).tolist()
    else:
        known: list[Value] = list(feature.values or [each for each in values if each is not None])
        drawn[:] = [known[number] for number in chance.integers(len(known), size=len(drawn))]
    return drawn


def _changed(features: Sequence[Feature], points: Table, rows: Table, chance: np.random.Generator) -> Table:
    """Return points in each of which one or two values are at a limit, missing or unknown."""
    changed = points.copy()
    changes = [(column, value) for column, each in enumerate(features) for value in _changes(each, rows.dtype)]
    for _ in range(2):
        for number, change in enumerate(chance.integers(len(changes), size=len(changed))):
            column, value = changes[change]
            changed[number, column] = value
    return changed


def _changes(feature: Feature, dtype: Any) -> list[Any]:
    missing = [np.nan if dtype == np.float64 else None] if feature.nullable else []
    if feature.kind in NUMERIC:
        least, first, last, greatest = feature.limits
        values: list[Any] = [least, first, last, greatest]
        if feature.kind == "integer" and dtype != np.float64:
            values = [int(each) for each in values]
            values += [_EXACT + 1] if least <= _EXACT + 1 <= greatest else []
        return values + missing
    if feature.kind == "boolean":
        return [False, True, *missing]
    if feature.kind == "category":
        known: list[Any] = list(feature.values or [])
        unknown = UNKNOWN if isinstance(known[0], str) else max(int(each) for each in known) + 1
        return [*known, *([unknown] if feature.open else []), *missing]
    return [*_TEXTS, *missing] if feature.kind == "text" else missing


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


def _grid(least: Table, greatest: Table) -> Table:
    """Return evenly spaced points, as many a dimension as make about _GRID_POINTS in all."""
    steps = max(2, int(_GRID_POINTS ** (1 / len(least)) + 1e-9))
    if steps ** len(least) > 2 * _GRID_POINTS:
        # So many features that even the corners are too many.
        return np.vstack([least, greatest])
    axes = np.meshgrid(*(np.linspace(low, high, steps) for low, high in zip(least, greatest, strict=True)))
    points: Table = np.stack([axis.ravel() for axis in axes], axis=1)
    return points


def border_rows() -> int:
    """Return how many rows an estimator is asked for to find points beside borders."""
    return (HALVINGS + 1) * _BORDER_PAIRS


def beside_borders(features: Sequence[Feature], ask: Callable[[Table], Table], points: Table, answers: Table) -> Table:
    """Close in on where the answer turns, between pairs of points that are answered differently.

    Only numbers are changed on the way: what else is in a pair, and what is missing, is that of its first point.

    Args:
        features: those of the manifest.
        ask: answers rows by one number each; the class by its place.
        points: some of which are taken.
        answers: to them.
    """
    chance = np.random.default_rng(_SEED)
    first, second = chance.integers(len(points), size=(2, 20 * _BORDER_PAIRS))
    differ = np.flatnonzero(answers[first] != answers[second])[:_BORDER_PAIRS]
    near: Table = points[first[differ]].copy()
    if not len(near):
        return near
    numbers = [column for column, each in enumerate(features) if each.kind == "number" or points.dtype == np.float64]
    far = near.copy()
    far[:, numbers] = _between(near[:, numbers], points[second[differ]][:, numbers], 1.0)
    near_answers, far_answers = answers[first[differ]], ask(far)
    for _ in range(HALVINGS):
        middle = near.copy()
        middle[:, numbers] = _between(near[:, numbers], far[:, numbers], 0.5)
        middle_answers = ask(middle)
        # Of both halves the one in which the answer changes more.
        in_far_half = np.abs(far_answers - middle_answers) > np.abs(middle_answers - near_answers)
        near = np.where(in_far_half[:, None], middle, near)
        far = np.where(in_far_half[:, None], far, middle)
        near_answers = np.where(in_far_half, middle_answers, near_answers)
        far_answers = np.where(in_far_half, far_answers, middle_answers)
    return np.vstack([near, far])


def _between(near: Table, far: Table, share: float) -> Table:
    """Return numbers so far on the way from one to the other; where either is missing, the first."""
    start, end = near.astype(np.float64), far.astype(np.float64)
    found: Table = np.where(np.isnan(start) | np.isnan(end), start, start * (1 - share) + end * share)
    if near.dtype != object:
        return found
    objects = found.astype(object)
    objects[np.isnan(found)] = None
    return objects
