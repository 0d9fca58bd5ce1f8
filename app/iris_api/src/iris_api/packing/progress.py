"""How far a proof is: a bar on a terminal, and an end where it takes too long."""

import math
import sys
import time
from collections.abc import Callable
from types import TracebackType
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

Table = NDArray[np.float64]

# Rows that are computed between two looks at the clock.
PIECE = 1000


class TooLongError(Exception):
    """A proof is not done within its seconds, but only a share of it, above 0."""

    def __init__(self, seconds: float, share: float) -> None:
        super().__init__(f"{share:.0%} of it is done after {seconds:g} s")
        self.enough = math.ceil(seconds / share * 1.5)
        """Seconds that would do, by what was seen and half as much again."""


class Progress:
    """Counts the rows of a proof that are done; `seconds` limits the time that it may take."""

    def __init__(self, seconds: float | None = None) -> None:
        # It comes with the extra `pack`, and so does what converts: without it there is nothing to show.
        import click

        self._seconds = seconds
        self._started = time.monotonic()
        self._expected = self._done = 0
        self._bar = click.progressbar(length=1, label="Proving ONNX", file=sys.stderr, hidden=not sys.stderr.isatty())

    def __enter__(self) -> Self:
        """Show the bar, if this is a terminal."""
        self._bar.__enter__()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """End its line."""
        self._bar.__exit__(kind, error, trace)

    def expect(self, rows: int) -> None:
        """Count rows that are to be done, beside those counted before."""
        self._expected += rows
        self._bar.length = self._expected

    def advance(self, rows: int) -> None:
        """Count rows that are done; raise TooLongError if the time is over."""
        self._done += rows
        self._bar.update(rows)
        if self._seconds is not None and time.monotonic() - self._started > self._seconds:
            raise TooLongError(self._seconds, self._done / max(self._expected, self._done, 1))


# Which answer rows.
_METHODS = frozenset({"predict", "predict_proba", "decision_function", "score_samples", "transform"})


class Watched:
    """An estimator that answers piece by piece and reports each to a Progress: no row depends on another."""

    def __init__(self, estimator: Any, progress: Progress) -> None:
        self._estimator = estimator
        self._progress = progress

    def __getattr__(self, name: str) -> Any:
        """Return what the estimator has."""
        found = getattr(self._estimator, name)
        return self._in_pieces(found) if name in _METHODS else found

    def _in_pieces(self, method: Callable[[Table], Any]) -> Callable[[Table], NDArray[Any]]:
        def answer(rows: Table) -> NDArray[Any]:
            answers = []
            for start in range(0, len(rows), PIECE):
                piece = rows[start : start + PIECE]
                answers.append(np.asarray(method(piece)))
                self._progress.advance(len(piece))
            return np.concatenate(answers) if answers else np.asarray(method(rows))

        return answer
