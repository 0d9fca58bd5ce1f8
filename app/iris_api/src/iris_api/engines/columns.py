"""Large batches as arrays: their rows, and the answers to these in place of a `Prediction` for each row."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from iris_api.bundle.manifest import NUMERIC, Kind, Value

Floats = NDArray[np.float64]
"""Rows of a model whose features are all numbers: rows x features, NaN for what is missing."""


class _Numbers(dict[Any, int]):
    """Numbers values in the order in which it is asked for them."""

    def __missing__(self, value: Any) -> int:
        number = self[value] = len(self) - 1
        return number


@dataclass(frozen=True, slots=True)
class Coded:
    """A feature of rows that is no number: few values or many, and which of them each row has."""

    values: Sequence[Any]
    """Texts, integers or booleans, each of them once; some may be in no row."""
    numbers: NDArray[np.intp]
    """For each row the number of its value, from 0; -1 for one that is missing."""

    @classmethod
    def of(cls, values: Sequence[Value]) -> "Coded":
        """Return the values of some rows as a column; None is a missing one."""
        known = _Numbers({None: -1})
        numbers = np.fromiter(map(known.__getitem__, values), np.intp, len(values))
        return cls(list(known)[1:], numbers)

    def taken(self, values: NDArray[Any]) -> NDArray[Any]:
        """Return for each row what stands for its value, of one more than there are: the last for a missing one."""
        return values[self.numbers]

    def tolist(self) -> list[Value]:
        """Return the values of all rows, None for a missing one."""
        return list(map([*self.values, None].__getitem__, self.numbers.tolist()))


@dataclass(frozen=True, slots=True)
class Mixed:
    """Rows of a model whose features are of several kinds, feature by feature."""

    kinds: Sequence[Kind]
    columns: Sequence[NDArray[np.float64] | Coded]
    """Numbers and integers as floats, NaN for what is missing: integers that these hold exactly."""

    @classmethod
    def of(cls, kinds: Sequence[Kind], rows: Sequence[Sequence[Value]]) -> "Mixed":
        """Return some rows as a table; their integers must be within 2^53."""
        return cls(
            kinds,
            [
                np.array(values, np.float64) if kind in NUMERIC else Coded.of(values)
                for kind, values in zip(kinds, zip(*rows, strict=True), strict=True)
            ],
        )

    def __len__(self) -> int:
        """Return how many rows there are."""
        first = self.columns[0]
        return len(first.numbers if isinstance(first, Coded) else first)

    def __getitem__(self, some: slice) -> "Mixed":
        """Return some of the rows."""
        columns = [
            Coded(each.values, each.numbers[some]) if isinstance(each, Coded) else each[some] for each in self.columns
        ]
        return Mixed(self.kinds, columns)

    @property
    def floats(self) -> Floats:
        """The rows as floats, NaN for what is missing; no text may be among their values."""
        columns = [
            each.taken(np.array([*each.values, np.nan], np.float64)) if isinstance(each, Coded) else each
            for each in self.columns
        ]
        return np.stack(columns, axis=1)

    def values(self, column: int) -> list[Value]:
        """Return the values of a feature, as rows have them."""
        found = self.columns[column]
        if isinstance(found, Coded):
            return found.tolist()
        whole = self.kinds[column] == "integer"
        return [None if value != value else int(value) if whole else value for value in found.tolist()]

    def tolist(self) -> list[list[Value]]:
        """Return the rows, each as a list of its values."""
        return [list(row) for row in zip(*map(self.values, range(len(self.columns))), strict=True)]


Table = Floats | Mixed
"""A large batch."""
TABLES = (np.ndarray, Mixed)
"""The types of what is a large batch and no list of rows."""


def joined(tables: Sequence[Table]) -> Table:
    """Return the rows of several tables of one model, one after the other."""
    if len(tables) == 1:
        return tables[0]
    first = tables[0]
    if not isinstance(first, Mixed):
        return np.concatenate(tables)  # type: ignore[arg-type]  # all of them are of one kind
    columns: list[Any] = []
    for number, column in enumerate(first.columns):
        parts: list[Any] = [table.columns[number] for table in tables]  # type: ignore[union-attr]
        if isinstance(column, Coded):
            columns.append(Coded.of([value for part in parts for value in part.tolist()]))
        else:
            columns.append(np.concatenate(parts))
    return Mixed(first.kinds, columns)


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
