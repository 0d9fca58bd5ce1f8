"""A model: rows in, predictions out, whatever engine computes them."""

from collections.abc import Sequence
from math import isfinite
from pathlib import Path
from typing import Any, NamedTuple, Protocol, Self

from iris_api.bundle import read_manifest
from iris_api.manifest import Label, Manifest


class Engine(Protocol):
    """Computes the answers of many rows in one call."""

    name: str

    def __call__(self, rows: Sequence[Sequence[float]]) -> list[Any]:
        """Return a list of probabilities for each row, or its value where there are no probabilities."""


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
        self._classes = [(each.value, number, each.name) for number, each in enumerate(manifest.classes or [])]
        self._by_value = {each[0]: Prediction(*each) for each in self._classes}

    @classmethod
    def load(cls, directory: Path, skops_trusted: Sequence[str] = ()) -> Self:
        """Load the bundle in a directory, or raise BundleError."""
        from iris_api.sklearn_engine import SklearnEngine

        manifest = read_manifest(directory)
        return cls(manifest, SklearnEngine.load(directory, manifest, skops_trusted))

    def predict(self, rows: Sequence[Sequence[float]]) -> list[Prediction | None]:
        """Answer all rows with one call of the engine, in their order.

        None stands for a row to which the model has no finite answer although each of its values was acceptable.
        """
        answers = self.engine(rows)
        if self.manifest.probabilities:
            return [self._most_probable(answer) for answer in answers]
        if self.manifest.classes:
            return [self._by_value[answer] for answer in answers]
        return [Prediction(answer) if isfinite(answer) else None for answer in answers]

    def _most_probable(self, probabilities: list[float]) -> Prediction | None:
        # A sum of probabilities cannot overflow: it is finite if and only if all of them are.
        if not isfinite(sum(probabilities)):
            return None
        return Prediction(*self._classes[probabilities.index(max(probabilities))], probabilities)
