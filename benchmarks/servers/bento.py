"""BentoML: a service with adaptive batching and three workers."""

from __future__ import annotations

import os

import bentoml
import joblib
import numpy


@bentoml.service(workers=int(os.environ["WORKERS"]))
class Iris:
    """The model."""

    def __init__(self) -> None:
        self.model = joblib.load(os.environ["MODEL"])

    @bentoml.api(batchable=True)
    def predict(self, rows: numpy.ndarray) -> numpy.ndarray:
        """Answer rows."""
        return self.model.predict_proba(rows)
