"""A model: rows in, predictions out, whatever engine computes them."""

import logging
from collections.abc import Sequence
from math import isfinite
from pathlib import Path
from typing import Any, Literal, NamedTuple, Protocol, Self

from iris_api.bundle import BundleError, read_manifest
from iris_api.engine_choice import why_too_large
from iris_api.manifest import MANIFEST, Label, Manifest

logger = logging.getLogger(__name__)


class Engine(Protocol):
    """Computes the answers of many rows in one call."""

    name: str
    tolerance: float
    """How far its answers may be off."""
    turns: int
    """Of the event loop, that a request waits for others to share a call: see `batching`."""

    def __call__(self, rows: Sequence[Sequence[float]]) -> list[Any]:
        """Return a list of probabilities for each row, or its value where there are no probabilities."""


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
        self._classes = [(each.value, number, each.name) for number, each in enumerate(manifest.classes or [])]
        self._by_value = {each[0]: Prediction(*each) for each in self._classes}

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


def _load_engine(
    directory: Path, manifest: Manifest, choice: EngineChoice, skops_trusted: Sequence[str], memory_max: int | None
) -> Engine:
    """Load one engine and import nothing of the other: scikit-learn alone takes a second, and memory."""
    if choice != "sklearn":
        from iris_api.onnx_engine import OnnxEngine, why_unproven

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
    from iris_api.sklearn_engine import SklearnEngine

    return SklearnEngine.load(directory, manifest, skops_trusted)
