"""Makes the table that an estimator takes of rows as requests carry them.

Nearly always that is an array of 64-bit floats. A bundle says so where its estimator answers otherwise by one: then it
is an array of objects, or a DataFrame with the names and dtypes that it was fitted on. pandas is imported for that.
"""

import json
from collections.abc import Callable, Mapping, Sequence
from datetime import date, datetime
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from iris_api.bundle.files import BundleError, read_file
from iris_api.bundle.manifest import MANIFEST, Column, Kind, Manifest, Table, Value
from iris_api.engines.columns import Coded, Mixed
from iris_api.engines.columns import Table as Batch
from iris_api.engines.model import Row

MakeTable = Callable[[Sequence[Row] | Batch], Any]
"""Makes the table of some rows: rows x features, and nobody else's, for an estimator may write into it."""
Categories = Mapping[str, Sequence[Any]]
"""Of each column of dtype category, by its name."""


def table_maker(manifest: Manifest, categories: Categories) -> MakeTable:
    """Return what makes the tables that the estimator of a bundle takes; raise BundleError if that needs more here."""
    names, kinds = manifest.feature_names, [feature.kind for feature in manifest.features]
    return maker(names, kinds, manifest.table, categories)


def needs_pandas(table: Table | None) -> bool:
    """Return whether tables of this form are made by pandas: arrays of Python's own objects are not."""
    if table is None:
        return False
    return table.form == "frame" or any(each.dtype != "object" or each.missing == "NA" for each in table.columns)


def maker(names: Sequence[str], kinds: Sequence[Kind], table: Table | None, categories: Categories) -> MakeTable:
    """Return what makes tables of features with these names and kinds."""
    if table is None:
        # A missing value, which is None, becomes NaN.
        return lambda rows: rows.floats if isinstance(rows, Mixed) else np.array(rows, dtype=np.float64)
    pd: Any = None
    if needs_pandas(table):
        try:
            import pandas
        except ImportError:
            raise BundleError(
                f"{MANIFEST}: the estimator takes its rows as {table.form} with the data types of pandas, which is not "
                "installed here. Install the packages that the bundle names: pandas is one of them."
            ) from None
        pd = pandas
    columns = [
        _categorical(pd, column, categories[name]) if column.dtype == "category" else partial(_column, pd, kind, column)
        for name, kind, column in zip(names, kinds, table.columns, strict=True)
    ]
    if table.form == "objects":

        def array_of_objects(rows: Sequence[Row] | Batch) -> NDArray[Any]:
            made = np.empty((len(rows), len(columns)), dtype=object)
            for number, (column, values) in enumerate(zip(columns, _transposed(rows), strict=True)):
                made[:, number] = column(values)
            return made

        return array_of_objects
    assert pd
    # Made once: to make it for every request takes longer than a column does.
    index = pd.Index(names)

    def frame(rows: Sequence[Row] | Batch) -> Any:
        made = [column(values) for column, values in zip(columns, _transposed(rows), strict=True)]
        return pd.DataFrame(dict(enumerate(made))).set_axis(index, axis=1)

    return frame


def read_categories(directory: Path, manifest: Manifest) -> Categories:
    """Return the categories that a bundle has beside its manifest; raise BundleError if they cannot be read."""
    table = manifest.table
    if table is None or table.categories is None or table.categories_sha256 is None:
        return {}
    try:
        content = json.loads(read_file(directory, table.categories, table.categories_sha256))
        return {str(name): list(values) for name, values in content.items()}
    except (ValueError, TypeError, AttributeError) as error:
        raise BundleError(f"{directory / table.categories}: cannot be read ({error}). Pack the model again.") from None


Given = Sequence[Value] | NDArray[np.float64] | Coded
"""The values of a feature: as rows have them, None for what is missing, or as a large batch has them."""


def _transposed(rows: Sequence[Row] | Batch) -> Sequence[Given]:
    """Return the values of each feature."""
    if isinstance(rows, Mixed):
        return rows.columns
    if isinstance(rows, np.ndarray):
        return list(rows.T)
    return list(zip(*rows, strict=True))


def _categorical(pd: Any, about: Column, categories: Sequence[Any]) -> Callable[[Given], Any]:
    """Return what makes columns of these categories; what is none of them is missing, as pandas has it."""
    places = {value: place for place, value in enumerate(categories)}
    dtype = pd.CategoricalDtype(categories, ordered=about.ordered)

    def made(values: Given) -> Any:
        if isinstance(values, Coded):
            codes: Any = values.taken(np.array([*(places.get(value, -1) for value in values.values), -1]))
        else:
            # None and NaN are no categories.
            codes = [places.get(value, -1) for value in values]
        return pd.Categorical.from_codes(codes, dtype=dtype)

    return made


def _column(pd: Any, kind: Kind, about: Column, values: Given) -> Any:
    """Return the values of a feature in the dtype of its column."""
    if isinstance(values, Coded):
        # Each of the values is read once, and a missing one if there is any.
        more = [None] if (values.numbers < 0).any() else []
        taken = _column(pd, kind, about, [*values.values, *more]).take(values.numbers)
        # A series takes its index along.
        return taken.reset_index(drop=True) if hasattr(taken, "reset_index") else taken
    dtype = about.dtype
    if isinstance(values, np.ndarray):
        if dtype.startswith("float") and dtype[-1].isdigit():
            return values.astype(dtype)
        whole = kind == "integer"
        values = [None if value != value else int(value) if whole else value for value in values.tolist()]
    if dtype.startswith("datetime64"):
        # ISO 8601 has small letters too, and pandas has not.
        texts = [None if value is None else str(value).upper() for value in values]
        times = pd.DatetimeIndex(pd.to_datetime(texts, utc=True, format="ISO8601"))
        if "," not in dtype:
            times = times.tz_localize(None)
        return times.astype(dtype)
    if dtype == "object":
        missing = {"nan": np.nan, "none": None}.get(about.missing, pd and pd.NA)
        read = {"date": date.fromisoformat, "datetime": _datetime}.get(kind)
        made = np.empty(len(values), dtype=object)
        made[:] = [missing if value is None else read(str(value)) if read else value for value in values]
        # Of an array pandas would guess the dtype, and make NaN of a None among texts.
        return made if pd is None else pd.Series(made, dtype=object)
    if dtype.startswith(("float", "int", "uint")) and dtype[-1].isdigit():
        return np.array(values, dtype=dtype)
    if dtype == "bool":
        return np.array(values, dtype=bool)
    return pd.array(list(values), dtype=dtype)


def _datetime(text: str) -> datetime:
    return datetime.fromisoformat(text.upper())
