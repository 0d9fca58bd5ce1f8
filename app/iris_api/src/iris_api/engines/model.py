"""A model: rows in, predictions out, whatever engine computes them."""

import logging
from collections.abc import Callable, Sequence
from math import isfinite
from pathlib import Path
from typing import Any, Literal, NamedTuple, Protocol, Self

from iris_api.bundle.files import BundleError, read_manifest
from iris_api.bundle.manifest import MANIFEST, Label, Manifest
from iris_api.engines.choice import why_too_large

logger = logging.getLogger(__name__)


Row = Sequence[float]
# What an estimator, or a step of its own in front of it, raises where a value is not for it. Anything else is an error
# of this program or of its machine.
REFUSALS = (ValueError, ArithmeticError, LookupError, AssertionError)
_LONGEST_REASON = 200


class RefusedError(Exception):
    """The estimator refuses a row although each of its values is within what the manifest accepts."""

    def __init__(self, row: int, field: str | None, reason: str) -> None:
        """Take the number of the row, from 0; the feature whose value alone is refused, if it is one; and why."""
        super().__init__(row, field, reason)
        self.row = row
        self.field = field
        self.reason = reason

    def __str__(self) -> str:
        """Say it in a line of a log."""
        return f"row {self.row}{f', {self.field}' if self.field else ''}: {self.reason}"


class Answers(NamedTuple):
    """What an engine answers, row by row."""

    values: list[Any]
    """What the estimator's own `predict` answers."""
    probabilities: list[list[float]] | None = None
    """What its `predict_proba` answers, if the manifest promises probabilities."""


class Engine(Protocol):
    """Computes the answers of many rows in one call."""

    name: str
    tolerance: float
    """How far its answers may be off."""
    turns: int
    """Of the event loop, that a request waits for others to share a call: see `batching`."""

    def __call__(self, rows: Sequence[Row]) -> Answers:
        """Answer all rows, or raise what the estimator raises; one of REFUSALS if a value is not for it."""


EngineChoice = Literal["auto", "sklearn", "onnx"]


class Prediction(NamedTuple):
    """The answer for one row."""

    value: Label
    """What the estimator's own `predict` answers."""
    number: int | None = None
    """Of the class, from 0; None for a regressor."""
    name: str | None = None
    """Of the class."""
    probabilities: list[float] | None = None


class Model:
    """A loaded model bundle."""

    def __init__(self, manifest: Manifest, engine: Engine) -> None:
        """Take a checked manifest and an engine that serves it."""
        self.manifest = manifest
        self.engine = engine
        self._classes = {
            each.value: (each.value, number, each.name) for number, each in enumerate(manifest.classes or [])
        }

    @classmethod
    def load(
        cls,
        directory: Path,
        engine: EngineChoice = "auto",
        skops_trusted: Sequence[str] = (),
        memory_max: int | None = None,
    ) -> Self:
        """Load the bundle in a directory, or raise BundleError; `auto` heeds how many bytes of memory there may be."""
        manifest = read_manifest(directory)
        return cls(manifest, _load_engine(directory, manifest, engine, skops_trusted, memory_max))

    def predict(self, rows: Sequence[Row]) -> list[Prediction | None]:
        """Answer all rows with one call of the engine, in their order.

        None stands for a row to which the model has no finite answer although each of its values was acceptable. If the
        estimator refuses a row, RefusedError names the first one, by its number within these rows.
        """
        try:
            values, probabilities = self.engine(rows)
        except REFUSALS as error:
            raise self._explained(rows, error) from error
        if probabilities is not None:
            # A sum of probabilities cannot overflow: it is finite if and only if all of them are.
            return [
                Prediction(*self._classes[value], shares) if isfinite(sum(shares)) else None
                for value, shares in zip(values, probabilities, strict=True)
            ]
        if self.manifest.classes:
            return [Prediction(*self._classes[value]) for value in values]
        return [Prediction(value) if isfinite(value) else None for value in values]

    def _explained(self, rows: Sequence[Row], error: Exception) -> Exception:
        """Return whose fault it is that the engine answers not all rows, or the error if it is not a row's."""
        sample = self.manifest.golden_samples[0].input
        accepted = [sample[name] for name in self.manifest.feature_names]
        found = find_refused(self.engine, rows, accepted)
        if found is None:
            return error
        row, column, reason = found
        return RefusedError(row, None if column is None else self.manifest.feature_names[column], reason)


def find_refused(
    answer: Callable[[Sequence[Row]], object], rows: Sequence[Row], accepted: Row
) -> tuple[int, int | None, str] | None:
    """Return the first of some rows that is refused, the number of the value that alone is to blame, and the reason.

    It is to blame if the row is answered once the value is that of an accepted row. This takes twice the logarithm of
    the number of values in calls of one row each, and before that as many rows once more as were refused together.
    None: it is no row's fault, for even the accepted one is refused, or each is answered if it comes alone.
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
