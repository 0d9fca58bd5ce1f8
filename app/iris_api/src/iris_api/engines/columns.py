"""Answers to many rows as arrays: what a large batch gets in place of a `Prediction` for each row."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

Table = NDArray[np.float64]
"""Rows of a model whose features are all numbers: rows x features."""


@dataclass(frozen=True, slots=True)
class Columns:
    """The answers to the rows of a table, in their order; which of them are finite is not known yet."""

    values: NDArray[Any]
    """What the estimator's own `predict` answers, one value a row."""
    numbers: NDArray[np.intp] | None = None
    """Numbers of the classes in the manifest, from 0; None for a regressor."""
    probabilities: NDArray[Any] | None = None
    """Rows x classes, in the order of the manifest; None where the manifest promises none."""

    def __len__(self) -> int:
        """Return how many rows are answered."""
        return len(self.values)

    def part(self, first: int, last: int) -> "Columns":
        """Return the answers to some of the rows."""
        return Columns(
            self.values[first:last],
            None if self.numbers is None else self.numbers[first:last],
            None if self.probabilities is None else self.probabilities[first:last],
        )

    @classmethod
    def joined(cls, parts: Sequence["Columns"]) -> "Columns":
        """Return the answers to the rows of several tables, one after the other."""
        if len(parts) == 1:
            return parts[0]
        numbers = [part.numbers for part in parts if part.numbers is not None]
        probabilities = [part.probabilities for part in parts if part.probabilities is not None]
        return cls(
            np.concatenate([part.values for part in parts]),
            np.concatenate(numbers) if numbers else None,
            np.concatenate(probabilities) if probabilities else None,
        )

    @property
    def finite(self) -> bool:
        """Whether the model has a finite answer to each row."""
        found = self.values if self.numbers is None else self.probabilities
        return found is None or bool(np.isfinite(found).all())


class Numbering:
    """Finds the numbers of classes by their values."""

    def __init__(self, values: Sequence[Any]) -> None:
        self._numbers = {value: number for number, value in enumerate(values)}
        self._plain = not any(isinstance(value, str) for value in values)
        self._order = np.argsort(np.array(values)) if self._plain else None
        self._sorted = np.array(values)[self._order] if self._plain else None

    def __call__(self, values: NDArray[Any]) -> NDArray[np.intp]:
        """Return the number of each value's class, from 0; raise KeyError for what is no class."""
        if self._order is None or self._sorted is None or values.dtype.kind not in "biuf":
            return np.fromiter(map(self._numbers.__getitem__, values.tolist()), np.intp, len(values))
        places = np.minimum(np.searchsorted(self._sorted, values), len(self._sorted) - 1)
        if not (known := self._sorted[places] == values).all():
            raise KeyError(values[~known][0])
        return self._order[places]
