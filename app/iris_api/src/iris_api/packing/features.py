"""What the manifest says about a feature, from its values in the sample."""

import sys
from typing import Any

import numpy as np
from numpy.typing import NDArray

from iris_api.bundle.manifest import MOST_CATEGORIES, NUMERIC, Reference
from iris_api.packing.given import PackError
from iris_api.packing.samples import FeatureText
from iris_api.packing.tables import TypedColumn

Table = NDArray[np.float64]

BINS = 5
# How far beyond the sample a value may lie, in widths of the sample's range, where nobody says what is possible.
HEADROOM = 10
# Of what a number can be.
LARGEST = sys.float_info.max


def typed_feature(column: TypedColumn, text: FeatureText) -> dict[str, Any]:
    """Return what the manifest says about a feature."""
    count = len(column.values)
    given = [value for value in column.values if value is not None]
    missing = (count - len(given)) / count
    if column.kind in NUMERIC:
        return number_feature(column.name, np.array(given), text, column)
    about: dict[str, Any] = {
        "name": column.name,
        "description": text.description or _words(column.name),
        "unit": text.unit,
        "kind": column.kind,
    }
    if column.nullable:
        about |= {"nullable": True, "missing": missing}
    if column.kind == "category":
        about["values"] = column.known[:MOST_CATEGORIES] if column.open and not text.values else column.known
        about["open"] = column.open
    if column.kind in {"category", "boolean"}:
        frequent = list(column.counts.items())[:MOST_CATEGORIES]
        about["shares"] = [{"value": value, "share": times / count} for value, times in frequent]
    return about


def number_feature(name: str, values: Table, text: FeatureText, column: TypedColumn | None = None) -> dict[str, Any]:
    """Return what the manifest says about a number or an integer; what is missing among the values is NaN."""
    gaps = np.isnan(values) if values.dtype.kind == "f" else np.zeros(len(values), dtype=bool)
    values = values[~gaps]
    if not len(values):
        raise PackError(f"The sample has no value at all for {name}. Leave it out of the model, or fill it.")
    if gaps.any() and text.nullable is False:
        raise PackError(f"{name} is not nullable, as --features says, but the sample has rows without it.")
    least, greatest = values.min().item(), values.max().item()
    headroom = HEADROOM * ((greatest - least) or max(1, abs(greatest)))
    lowest, highest = _limits(column)
    about = {
        "name": name,
        "description": text.description or _words(name),
        "unit": text.unit,
        "minimum": max(least - headroom, lowest) if text.minimum is None else text.minimum,
        "maximum": min(greatest + headroom, highest) if text.maximum is None else text.maximum,
        "training_minimum": least,
        "training_maximum": greatest,
        "reference": reference(values.astype(np.float64)),
    }
    count = len(gaps) if column is None else len(column.values)
    nullable = bool(gaps.any()) if text.nullable is None else text.nullable
    if column is not None:
        nullable = column.nullable
        if column.kind != "number":
            about["kind"] = column.kind
    if nullable:
        about |= {"nullable": True, "missing": (count - len(values)) / count}
    return about


def _limits(column: TypedColumn | None) -> tuple[float, float]:
    """Return the least and the greatest number that a column holds."""
    dtype = column.column.dtype.lower() if column else ""
    if dtype.startswith(("int", "uint")) and dtype[-1].isdigit():
        about = np.iinfo(dtype)
        return int(about.min), int(about.max)
    if dtype in {"float32", "float16"}:
        return float(np.finfo(dtype).min), float(np.finfo(dtype).max)
    return -LARGEST, LARGEST


def reference(values: Table) -> dict[str, list[float]]:
    """Return the `Reference` of values: at most BINS bins of about equal share, fewer where values repeat often."""
    edges = np.unique(np.quantile(values, np.linspace(0, 1, BINS + 1)[1:-1])).tolist()
    empty = Reference(edges=edges, shares=[1.0] + [0.0] * len(edges))
    counts = np.bincount([empty.bin_of(value) for value in values], minlength=len(edges) + 1)
    return {"edges": edges, "shares": (counts / len(values)).tolist()}


def _words(name: str) -> str:
    words = name.replace("_", " ").strip()
    return words[:1].upper() + words[1:]
