"""Tables as people have them, small and made at random: numbers, gaps, categories, booleans, texts, large integers."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd

ROWS = 400
WORDS = ["late", "broken", "refund", "great", "fast", "thanks", "parcel", "invoice", "friendly", "never", "again"]
CITIES = ["Bern", "Köln", "Paris", "Rome"]
PLANS = ["basic", "plus", "pro", "trial"]


def make(kind: str, rows: int = ROWS, seed: int = 1) -> pd.DataFrame:
    """Return a table of a kind, one of TABLES."""
    return TABLES[kind](np.random.default_rng(seed), rows)


def numbers(chance: np.random.Generator, rows: int) -> pd.DataFrame:
    return pd.DataFrame(chance.normal(size=(rows, 4)) * [1, 10, 100, 0.1] + [0, 5, 1000, 1], columns=list("abcd"))


def gaps(chance: np.random.Generator, rows: int) -> pd.DataFrame:
    table = numbers(chance, rows)
    return table.mask(chance.random(table.shape) < 0.1)


def amounts(chance: np.random.Generator, rows: int) -> pd.DataFrame:
    """Return positive numbers, spread over some powers of ten."""
    return pd.DataFrame(chance.lognormal(3, 2, size=(rows, 3)), columns=["price", "area", "income"])


def mixed(chance: np.random.Generator, rows: int) -> pd.DataFrame:
    """Return numbers, one of them with gaps, an integer, a boolean and two categories, one of them with gaps."""
    table = pd.DataFrame(
        {
            "age": chance.integers(18, 90, rows),
            "income": chance.lognormal(10, 1, rows),
            "balance": chance.normal(0, 1000, rows),
            "city": chance.choice(CITIES, rows, p=[0.6, 0.25, 0.12, 0.03]),
            "plan": chance.choice(PLANS, rows),
            "member": chance.random(rows) < 0.3,
        }
    )
    table["income"] = table["income"].mask(chance.random(rows) < 0.1)
    table["plan"] = table["plan"].mask(chance.random(rows) < 0.1)
    return table


def nones(chance: np.random.Generator, rows: int) -> pd.DataFrame:
    """Return mixed columns where None stands for what is missing among the texts."""
    table = mixed(chance, rows)
    table["plan"] = table["plan"].astype(object).where(table["plan"].notna(), None)
    table["city"] = table["city"].astype(object)
    return table


def categories(chance: np.random.Generator, rows: int) -> pd.DataFrame:
    """Return mixed columns with pandas' own type of categories."""
    table = mixed(chance, rows)
    return table.astype({"city": "category", "plan": "category"})


def codes(chance: np.random.Generator, rows: int) -> pd.DataFrame:
    """Return categories that are integers, one of them beyond what a float of 64 bits holds."""
    large = 2**53 + np.array([1, 2, 3, 5])
    table = {
        "branch": chance.choice([10, 20, 30], rows),
        "account": chance.choice(large, rows),
        "x": chance.normal(size=rows),
    }
    return pd.DataFrame(table)


def texts(chance: np.random.Generator, rows: int) -> pd.DataFrame:
    return pd.DataFrame({"review": [" ".join(chance.choice(WORDS, chance.integers(2, 9))) for _ in range(rows)]})


def tickets(chance: np.random.Generator, rows: int) -> pd.DataFrame:
    """Return a text, a category and a number."""
    table = texts(chance, rows)
    table["plan"] = chance.choice(PLANS, rows)
    table["hours"] = chance.exponential(10, rows)
    return table


def dates(chance: np.random.Generator, rows: int) -> pd.DataFrame:
    table = mixed(chance, rows)
    table["since"] = pd.Timestamp("2020-01-01") + pd.to_timedelta(chance.integers(0, 2000, rows), unit="D")
    return table


TABLES: dict[str, Any] = {
    each.__name__: each for each in (numbers, gaps, amounts, mixed, nones, categories, codes, texts, tickets, dates)
}


def target(table: pd.DataFrame, kind: str, seed: int = 2) -> Any:
    """Return what to learn of a table.

    That is a `class` of three, a `flag` of two, a `number`, an `amount`, a `count`, two `numbers` or three `flags`.
    """
    chance = np.random.default_rng(seed)
    score = chance.normal(0, 0.7, len(table))
    for column in table.columns:
        values = table[column]
        found = (
            values.astype(float) if values.dtype.kind in "fiub" else pd.Series(pd.factorize(values)[0].astype(float))
        )
        found = found.fillna(found.mean())
        score += ((found - found.mean()) / (found.std() or 1)).to_numpy()
    if kind == "class":
        return np.array(["high", "low", "middle"])[np.digitize(score, np.quantile(score, [0.3, 0.7]))]
    if kind == "flag":
        return (score > np.median(score)).astype(int)
    if kind == "number":
        return score * 10 + 50
    if kind == "amount":
        return np.exp(score / 4) * 100
    if kind == "count":
        return chance.poisson(np.exp(np.clip(score / 4, -3, 3)))
    if kind == "numbers":
        return np.stack([score, score**2], axis=1)
    return np.stack([score > 0, score > 1, chance.random(len(table)) > 0.5], axis=1).astype(int)
