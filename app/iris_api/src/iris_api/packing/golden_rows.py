"""Which rows of a sample become golden samples, and what stands in them."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from iris_api.bundle.manifest import MOST_CATEGORIES, Value
from iris_api.engines.sklearn import task_of
from iris_api.packing.asking import is_answered
from iris_api.packing.samples import FeatureText
from iris_api.packing.tables import INVENTED_TEXT, Answers, TypedColumn

Table = NDArray[np.float64]

# Golden samples in which a value is missing, unknown or at a limit.
_CHANGED_GOLDEN = 8


def choose_golden(estimator: Any, rows: Table, predicted: NDArray[Any], probabilities: bool) -> list[list[float]]:
    """Choose a row of each class, or of low, middle and high value; the least certain; and the range's corners."""
    shares = estimator.predict_proba(rows) if probabilities else None
    picked = [rows[number].tolist() for number in _choose_rows(estimator, predicted, shares)]
    corners = [np.nanmin(rows, axis=0), np.nanmax(rows, axis=0)]
    return [*picked, *(corner.tolist() for corner in corners if is_answered(estimator, corner[None]))]


def choose_points(estimator: Any, expected: Answers, unchanged: int) -> list[int]:
    """Choose a row of each class, or of low, middle and high value; the least certain; and some that were changed."""
    chosen = _choose_rows(estimator, expected.values[:unchanged], expected.shares)
    return list(dict.fromkeys([*chosen, *range(unchanged, min(unchanged + _CHANGED_GOLDEN, len(expected.values)))]))


def _choose_rows(estimator: Any, predicted: NDArray[Any], shares: NDArray[Any] | None) -> list[int]:
    if predicted.ndim == 2:
        # By what it answers first.
        predicted = predicted[:, 0]
    elif task_of(estimator) not in {"regression", "transformation"}:
        return _choose_classes(predicted, shares)
    order = np.argsort(predicted, kind="stable")
    return list(dict.fromkeys([int(order[len(order) // 2]), int(order[0]), int(order[-1])]))


def _choose_classes(predicted: NDArray[Any], shares: NDArray[Any] | None) -> list[int]:
    chosen = [int(np.flatnonzero(predicted == value)[0]) for value in np.unique(predicted)[:10]]
    if shares is not None and shares.shape[1] > 1:
        highest_two = np.sort(shares[: len(predicted)], axis=1)[:, -2:]
        chosen.append(int((highest_two[:, 1] - highest_two[:, 0]).argmin()))
    return list(dict.fromkeys(chosen))


def stand_in(column: TypedColumn, value: Value, number: int, text: FeatureText) -> Value:
    """Return what stands in a golden sample for a value: texts of people, and rare categories, stay where they are."""
    if value is None:
        return value
    if column.kind == "text":
        return text.examples[number % len(text.examples)] if text.examples else INVENTED_TEXT
    if column.kind == "category" and value in column.counts and not text.values:
        frequent = list(column.counts)[:MOST_CATEGORIES]
        return value if value in frequent else frequent[0]
    return value
