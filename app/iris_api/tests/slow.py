"""An estimator that takes its time, in each way in which one can."""

from __future__ import annotations

import signal
import time
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn.base import BaseEstimator, ClassifierMixin, RegressorMixin

# A first feature for whose sake a call does not end.
ENDLESS = 77.0
# A first feature that a call cannot bear.
POISON = 66.0


class Slow(ClassifierMixin, BaseEstimator):  # type: ignore[misc]
    """Answers as another classifier does, and later: call_seconds for a call and row_seconds for each of its rows."""

    def __init__(self, inner: Any, call_seconds: float = 0.0, row_seconds: float = 0.0, how: str = "sleep") -> None:
        self.inner = inner
        self.call_seconds = call_seconds
        self.row_seconds = row_seconds
        self.how = how
        self.classes_ = inner.classes_
        self.n_features_in_ = inner.n_features_in_

    def predict(self, rows: NDArray[Any]) -> NDArray[Any]:
        # Whoever wants probabilities asks for both, and is to wait once.
        answers: NDArray[Any] = self.inner.predict(rows)
        return answers

    def predict_proba(self, rows: NDArray[Any]) -> NDArray[Any]:
        rows = np.asarray(rows)
        if (rows[:, 0] == ENDLESS).any():
            time.sleep(3600)
        if (rows[:, 0] == POISON).any():
            raise RuntimeError("poison")
        self._spend(self.call_seconds + self.row_seconds * len(rows))
        answers: NDArray[Any] = self.inner.predict_proba(rows)
        return answers

    def _spend(self, seconds: float) -> None:
        if self.how == "sleep":
            time.sleep(seconds)
            return
        until = time.perf_counter() + seconds
        table = np.ones((120, 120))
        while time.perf_counter() < until:
            # The interpreter's lock is held all the time by the one, and mostly free by the other.
            _ = sum(range(200)) if self.how == "python" else table @ table


class Endless(RegressorMixin, BaseEstimator):  # type: ignore[misc]
    """Takes a tenth of a second for each call, and says that it was called; or sends its own process a signal."""

    def __init__(self, called: str = "", number: int = 0) -> None:
        self.called, self.number = called, number

    def fit(self, X: Any, y: Any) -> Endless:
        self.n_features_in_ = X.shape[1]
        return self

    def predict(self, X: Any) -> Any:
        if self.number:
            signal.raise_signal(self.number)
        with open(self.called, "a") as file:
            file.write("called\n")
        time.sleep(0.1)
        return np.asarray(X)[:, 0]
