"""The tables of these tests, for the programs of the clients."""

import numpy as np
import pandas as pd

ROWS = 90


def customers() -> pd.DataFrame:
    """Return a table with a gap in two columns."""
    numbers = np.arange(ROWS)
    frame = pd.DataFrame(
        {
            "age": numbers * 1.0,
            "visits": numbers % 7,
            "city": ["Aarau", "Bern", "Zug"] * (ROWS // 3),
            "vip": numbers % 2 == 0,
            "since": pd.date_range("2026-01-01", periods=ROWS, freq="D"),
        }
    )
    frame.loc[::7, "age"] = np.nan
    frame.loc[::11, "since"] = pd.NaT
    return frame


def measures() -> pd.DataFrame:
    """Return a table of numbers."""
    return pd.DataFrame(np.random.default_rng(0).uniform(0, 1, (ROWS, 4)), columns=list("abcd"))
