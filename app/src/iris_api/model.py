"""Inference, behind one class: the routes know rows and predictions, never an estimator."""

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any, NamedTuple, Self

import numpy as np
import sklearn
from pydantic import BaseModel, ConfigDict, Field, create_model

from iris_api import bundle

# Every row has been validated before it gets here: that scikit-learn looks again takes a sixth of a prediction's time.
sklearn.set_config(assume_finite=True)


class NoAnswerError(Exception):
    """The model has no finite answer for a row, although each of its values was acceptable."""


class Prediction(NamedTuple):
    """The answer for one row."""

    label: int
    probabilities: list[float]


class Model:
    """A loaded model bundle."""

    def __init__(self, manifest: bundle.Manifest, estimator: Any) -> None:
        """Take what `bundle.load` has checked."""
        self.manifest = manifest
        self.row = _row_model(manifest)
        """Pydantic model of a request's body."""
        self._estimator = estimator

    @classmethod
    def load(cls, directory: Path) -> Self:
        """Load the bundle in a directory, or raise BundleError."""
        return cls(*bundle.load(directory))

    def predict(self, rows: Sequence[Sequence[float]]) -> list[Prediction]:
        """Answer all rows with one call of the estimator, in their order."""
        probabilities = self._estimator.predict_proba(np.array(rows, dtype=np.float64))
        if not np.isfinite(probabilities).all():
            raise NoAnswerError
        return [Prediction(int(row.argmax()), row.tolist()) for row in probabilities]


def _row_model(manifest: bundle.Manifest) -> type[BaseModel]:
    """Build the request model: exactly the manifest's features, each a number within its physical limits.

    Strict: integers are numbers, strings and booleans are not. The limits keep values such as 1e308, finite in
    themselves, from overflowing inside of the model.
    """
    fields: dict[str, Any] = {
        feature.name: Annotated[
            float,
            Field(
                strict=True,
                allow_inf_nan=False,
                ge=feature.minimum,
                le=feature.maximum,
                description=f"{feature.description}, in {feature.unit}; "
                f"the training data spans {feature.training_minimum} to {feature.training_maximum}",
                examples=[manifest.golden_samples[0].input[feature.name]],
            ),
        ]
        for feature in manifest.features
    }
    return create_model("Features", __config__=ConfigDict(extra="forbid"), **fields)
