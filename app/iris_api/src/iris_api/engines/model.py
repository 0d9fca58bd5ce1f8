"""A model: rows in, predictions out, whatever engine computes them."""

import logging
from collections.abc import Callable, Sequence
from math import isfinite
from pathlib import Path
from typing import Any, Literal, NamedTuple, Protocol, Self, overload

from numpy.typing import NDArray

from iris_api.bundle.files import BundleError, read_manifest
from iris_api.bundle.manifest import MANIFEST, Label, Manifest
from iris_api.engines.choice import why_too_large
from iris_api.engines.columns import TABLES, Columns, Numbering, Table

logger = logging.getLogger(__name__)


Row = Sequence[Any]
"""Values of the features, in the order of the manifest: float for a number, int, bool, str (which a date or a time is
too, in ISO 8601), and None for a missing value."""
MISSING = "\ufdd0missing"
"""Stands for a missing value in a tensor of texts, which has no other way to say so. Its first code point is none of a
character, so nobody means it."""
# What an estimator, or a step of its own in front of it, raises for a value that it does not accept. Anything else is
# an error of this program or of its machine.
REFUSALS = (ValueError, ArithmeticError, LookupError, AssertionError)
_LONGEST_REASON = 200


class RefusedError(Exception):
    """The estimator refuses a row although each of its values is within what the manifest accepts.

    Attributes:
        row: number of the row within those that were asked, from 0.
        field: name of the feature whose value alone is to blame, or None if it is no single one.
        reason: what the estimator says, a line of at most 200 characters.
    """

    def __init__(self, row: int, field: str | None, reason: str) -> None:
        super().__init__(row, field, reason)
        self.row = row
        self.field = field
        self.reason = reason

    def __str__(self) -> str:
        """Return a line for the log."""
        return f"row {self.row}{f', {self.field}' if self.field else ''}: {self.reason}"


class Answers(NamedTuple):
    """What an engine answers, row by row."""

    values: list[Any]
    """What the estimator's own `predict` answers."""
    probabilities: list[list[float]] | None = None
    """What its `predict_proba` answers, if the manifest promises probabilities."""
    scores: list[list[float]] | None = None
    """Scores of each row, if the manifest promises them."""


class Engine(Protocol):
    """Computes the answers of many rows in one call: `SklearnEngine` or `OnnxEngine`."""

    name: str
    tolerance: float
    """How far its answers to golden samples may be off: see `bundle.golden`."""
    turns: int
    """How many turns of the event loop a request waits for others to join its batch: see `predict.batching`."""

    def __call__(self, rows: Sequence[Row]) -> Answers:
        """Answer all rows in their order; raise what the estimator raises, one of REFUSALS for a value it refuses."""

    def run(self, rows: Table) -> tuple[NDArray[Any], NDArray[Any] | None]:
        """Answer a table as a call answers rows: values, and rows x classes of probabilities or None."""


EngineChoice = Literal["auto", "sklearn", "onnx"]


class Prediction(NamedTuple):
    """The answer to one row."""

    value: Label | list[Label]
    """What the estimator's own `predict` answers; a list where it answers several values."""
    number: int | None = None
    """Number of the class in the manifest, from 0; None for a regressor."""
    name: str | None = None
    """Name of the class; None for a regressor."""
    probabilities: list[float] | None = None
    """Of each class, in the order of the manifest; None where the manifest promises none."""
    scores: list[float] | None = None
    """None where the manifest promises none."""


class Model:
    """A loaded model bundle: a checked manifest and an engine that computes its answers."""

    def __init__(self, manifest: Manifest, engine: Engine) -> None:
        self.manifest = manifest
        self.engine = engine
        self._classes = {
            each.value: (each.value, number, each.name) for number, each in enumerate(manifest.classes or [])
        }
        self._number = Numbering(list(self._classes)) if self._classes else None

    @classmethod
    def load(
        cls,
        directory: Path,
        engine: EngineChoice = "auto",
        skops_trusted: Sequence[str] = (),
        memory_max: int | None = None,
    ) -> Self:
        """Load the bundle in a directory; raise BundleError if it must not be served.

        Args:
            directory: with manifest.json and the artifacts that it names.
            engine: `auto` takes ONNX Runtime where it is proven and not too large: see `choice`.
            skops_trusted: types that a skops artifact may hold beside those that skops itself trusts.
            memory_max: bytes that an instance may take, or None if nobody says; for `auto`.
        """
        manifest = read_manifest(directory)
        return cls(manifest, _load_engine(directory, manifest, engine, skops_trusted, memory_max))

    @overload
    def predict(self, rows: Table) -> Columns: ...

    @overload
    def predict(self, rows: Sequence[Row]) -> list[Prediction | None]: ...

    def predict(self, rows: Sequence[Row] | Table) -> list[Prediction | None] | Columns:
        """Return the answers to all rows, in their order, by one call of the engine; to a table as columns.

        None stands for a row to which the model has no finite answer although each of its values was acceptable. If the
        estimator refuses a row, RefusedError names the first one, by its number within these rows.
        """
        if isinstance(rows, TABLES):
            return self._predict_table(rows)
        try:
            values, probabilities, scores = self.engine(rows)
        except REFUSALS as error:
            raise self._explained(rows, error) from error
        if scores is not None:
            return [
                Prediction(*self._classes[value], scores=some) if isfinite(sum(some)) else None
                for value, some in zip(values, scores, strict=True)
            ]
        if self.manifest.outputs:
            return [Prediction(value) if all(map(_is_finite, value)) else None for value in values]
        if probabilities is not None:
            # A sum of probabilities cannot overflow: it is finite if and only if all of them are.
            return [
                Prediction(*self._classes[value], shares) if isfinite(sum(shares)) else None
                for value, shares in zip(values, probabilities, strict=True)
            ]
        if self.manifest.classes:
            return [Prediction(*self._classes[value]) for value in values]
        return [Prediction(value) if isfinite(value) else None for value in values]

    def _predict_table(self, rows: Table) -> Columns:
        try:
            values, probabilities = self.engine.run(rows)
        except REFUSALS as error:
            raise self._explained(rows.tolist(), error) from error
        return Columns(values, self._number(values) if self._number else None, probabilities)

    def _explained(self, rows: Sequence[Row], error: Exception) -> Exception:
        """Return RefusedError for the first row that the engine refuses, or the error itself if no row is to blame."""
        accepted = self.manifest.golden_rows[0]
        found = find_refused(self.engine, rows, accepted)
        if found is None:
            return error
        row, column, reason = found
        return RefusedError(row, None if column is None else self.manifest.feature_names[column], reason)


def _is_finite(value: Label) -> bool:
    return isinstance(value, str) or isfinite(value)


def find_refused(
    answer: Callable[[Sequence[Row]], object], rows: Sequence[Row], accepted: Row
) -> tuple[int, int | None, str] | None:
    """Return the number of the first row that is refused, that of the one value to blame, if it is one, and the reason.

    A value is to blame if the row is answered once the value is that of the accepted row. The search takes twice the
    logarithm of the number of values in calls of one row each, and before that as many rows once more as were refused.
    None: no row is to blame, for even the accepted one is refused, or each is answered if it comes alone.
    """

    def refusal(some: Sequence[Row]) -> Exception | None:
        try:
            answer(some)
        except REFUSALS as error:
            return error
        return None

    if refusal([accepted]):
        return None
    first, last = 0, len(rows)
    while last - first > 1:
        middle = (first + last) // 2
        if refusal(rows[first:middle]):
            last = middle
        else:
            first = middle
    row = rows[first]
    error = refusal([row])
    if error is None:
        return None
    suspects: Sequence[int] | None = range(len(row))
    while suspects is not None and len(suspects) > 1:
        middle = len(suspects) // 2
        halves = suspects[:middle], suspects[middle:]
        suspects = next(
            (
                half
                for half in halves
                if not refusal([[accepted[n] if n in half else value for n, value in enumerate(row)]])
            ),
            None,
        )
    reason = (str(error).strip().splitlines() or [type(error).__name__])[0][:_LONGEST_REASON]
    return first, suspects[0] if suspects else None, reason


def _load_engine(
    directory: Path, manifest: Manifest, choice: EngineChoice, skops_trusted: Sequence[str], memory_max: int | None
) -> Engine:
    """Load one engine and import nothing of the other: scikit-learn alone takes a second, and memory."""
    if choice != "sklearn":
        from iris_api.engines.onnx import OnnxEngine, why_unproven

        reason = why_unproven(manifest)
        if reason is None and choice == "auto":
            reason = why_too_large(manifest, memory_max)
        if reason is None:
            return OnnxEngine.load(directory, manifest)
        if choice == "onnx":
            raise BundleError(
                f"{directory / MANIFEST}: the model cannot be served by ONNX Runtime: {reason}. Pack it again, or set "
                "IRIS_API_ENGINE=sklearn (or auto, which takes what there is)."
            )
        logger.info("Serving by scikit-learn, and not by ONNX Runtime: %s", reason)
    from iris_api.engines.sklearn import SklearnEngine

    return SklearnEngine.load(directory, manifest, skops_trusted)
