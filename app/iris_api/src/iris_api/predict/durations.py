"""How long a call of the model takes: predicted from what its bundle says and from what calls took here."""

from collections.abc import Sequence
from itertools import cycle, islice
from time import perf_counter
from typing import Any, Self

from iris_api.bundle.manifest import Cost
from iris_api.engines.model import Model, Row
from iris_api.predict.tables import LEAST_ROWS, is_tabular, may_be_of_table, table_of

# Seconds of a short call, for which the event loop may be held up. A forest of 100 trees takes 4 ms, and more beside
# other instances.
SHORT = 0.02
# What the latest call counts in what is predicted for the next one of its size. A quick one counts more: others on the
# processor can make a call slower than the model is, and nothing makes it quicker.
_WEIGHT_OF_SLOWER = 1 / 16
_WEIGHT_OF_QUICKER = 1 / 4
# How far a refusal takes a prediction back to what it was at first.
_RELAXATION = 1 / 8
# Seconds for which calls are tried before the first request. Of a slow model whose bundle names no costs two sizes are
# tried all the same, and for longer further ones, as long as they tell nothing of what a row costs.
_BUDGET = 0.5
# Rows of a call that tell what a row costs, whatever the bundle says.
_MANY = 8
_PATIENCE = 3.0
# Sizes of calls by the number of their binary digits, as far as any batch goes.
_SIZES = 64


class Durations:
    """Predicts how long calls take, from the seconds of a call with one row, above 0, and those of each further row.

    A call with n rows takes a factor times (a call with one row + n - 1 times a further row). There is a factor for 1,
    for 2 and 3, for 4 to 7 rows and so on: what a call costs is no straight line, and traffic of one size is not to say
    what another size takes.
    """

    def __init__(self, call: float, row: float) -> None:
        self._call = call
        self._row = row
        self._factors = [1.0] * _SIZES
        self._first_factors = self._factors[:]
        self._settle()

    @classmethod
    def measured(cls, model: Model, most_rows: int) -> Self:
        """Try calls with 1, 2, 4, ... rows, `most_rows` at most; predict others by them and by the bundle's costs."""
        manifest = model.manifest
        golden = manifest.golden_rows
        cost = (manifest.costs or {}).get(model.engine.name)  # type: ignore[call-overload]
        found: dict[int, float] = {}
        started = perf_counter()
        rows = 1
        while True:
            batch = list(islice(cycle(golden), rows))
            # The better of two: the first call may have had something to prepare, and either may have been disturbed.
            found[rows] = _seconds_of(model, batch)
            if perf_counter() - started < _BUDGET:
                found[rows] = min(found[rows], _seconds_of(model, batch))
            tried = perf_counter() - started
            untold = not cost and (rows == 1 or (found[rows] < 1.5 * found[1] and tried < _PATIENCE))
            if rows >= most_rows or (tried >= _BUDGET and not untold):
                break
            rows = min(2 * rows, most_rows)
        durations = cls(*_call_and_row(cost, found, rows))
        for rows, seconds in found.items():
            first = rows.bit_length()
            durations._factors[first:] = [seconds / durations._by_line(rows)] * (_SIZES - first)
        durations._first_factors = durations._factors[:]
        durations._settle()
        return durations

    def predict(self, rows: int) -> float:
        """Return the seconds that a call with so many rows is predicted to take."""
        return self._factors[rows.bit_length()] * (self._call + self._row * (rows - 1))

    def observe(self, rows: int, seconds: float) -> None:
        """Learn from a call with so many rows, which took some seconds."""
        size = rows.bit_length()
        more = seconds / self._by_line(rows) - self._factors[size]
        self._factors[size] += more * (_WEIGHT_OF_SLOWER if more > 0 else _WEIGHT_OF_QUICKER)
        self._settle()

    def relax(self) -> None:
        """Move what is predicted nearer to what was predicted at first.

        To be called whenever a prediction keeps a call from being made: otherwise one call that was disturbed badly
        enough would keep all others from being made, and so from correcting it.
        """
        self._factors = [
            now + (first - now) * _RELAXATION for now, first in zip(self._factors, self._first_factors, strict=True)
        ]
        self._settle()

    def rows_within(self, seconds: float) -> int:
        """Return how many rows a call may have to be predicted to take at most so long; at least 1."""
        most = 1
        for size in range(1, _SIZES):
            least = 1 << (size - 1)
            allowed = seconds / self._factors[size] - self._call
            if allowed < self._row * (least - 1):
                break
            greatest = 2 * least - 1
            if self._row * (greatest - 1) > allowed:
                return max(most, int(allowed / self._row) + 1)
            most = greatest
        return most

    def _settle(self) -> None:
        self.short_rows = self.rows_within(SHORT) if self.predict(1) <= SHORT else 0
        """How many rows a short call may have; 0 if not even one."""

    def _by_line(self, rows: int) -> float:
        return self._call + self._row * (rows - 1)


def _seconds_of(model: Model, rows: Sequence[Row]) -> float:
    # As a request of so many rows is answered.
    as_table = len(rows) >= LEAST_ROWS and is_tabular(model.manifest)
    held = [row for row in rows if may_be_of_table(row)] if as_table else []
    asked: Any = table_of(model.manifest, list(islice(cycle(held), len(rows)))) if held else rows
    started = perf_counter()
    model.predict(asked)
    return perf_counter() - started


def _call_and_row(cost: Cost | None, found: dict[int, float], most: int) -> tuple[float, float]:
    """Return the seconds of a call with one row and of each further one, as tried here or else as the bundle says."""
    if cost and most < _MANY:
        return cost.call_us / 1e6, cost.row_us / 1e6
    # A single row takes no longer than many: if it seems so, it was disturbed.
    call = min(found.values())
    return call, (found[most] - call) / max(1, most - 1)
