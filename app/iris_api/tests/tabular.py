"""What engines of tests lack that answer rows alone."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from iris_api.engines.columns import Table


class Tabular:
    """Answers a table as its rows."""

    def run(self, rows: Table) -> tuple[NDArray[Any], NDArray[Any] | None]:
        values, probabilities, _ = self(rows.tolist())  # type: ignore[operator]
        return np.array(values), None if probabilities is None else np.array(probabilities)
