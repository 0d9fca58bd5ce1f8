"""What an endpoint tells of the rows that it answers, and the one to which nobody listens."""

from typing import Protocol

from iris_api.engines.columns import Columns, Table
from iris_api.engines.model import Prediction, Row


class Counts(Protocol):
    """Counts rows and refusals: `metrics.Metrics`, or `Uncounted`."""

    def count_rejection(self, reason: str) -> None:
        """Count a request that got no prediction, by the `code` of its error."""

    def count_row(self, row: Row, prediction: Prediction) -> None:
        """Count a row's values and its prediction."""

    def count_table(self, table: Table, answers: Columns) -> None:
        """Count the values and predictions of many rows."""


class Uncounted:
    """Counts nothing. The probe sends one row again and again, which says nothing of what the model is asked."""

    def count_rejection(self, reason: str) -> None:
        """Count nothing."""

    def count_row(self, row: Row, prediction: Prediction) -> None:
        """Count nothing."""

    def count_table(self, table: Table, answers: Columns) -> None:
        """Count nothing."""
