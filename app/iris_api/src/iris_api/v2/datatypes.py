"""The datatypes of the protocol: what a tensor of each holds, and by which of them a feature's values come."""

from collections.abc import Mapping
from math import isfinite
from typing import Any, NamedTuple

import numpy as np

from iris_api.bundle.manifest import NUMERIC, Feature

# Numbers as they stand in a binary tensor: little-endian.
DTYPES = {
    "FP64": "<f8",
    "FP32": "<f4",
    "FP16": "<f2",
    "INT64": "<i8",
    "INT32": "<i4",
    "INT16": "<i2",
    "INT8": "i1",
    "UINT64": "<u8",
    "UINT32": "<u4",
    "UINT16": "<u2",
    "UINT8": "u1",
}
FLOATS = ("FP64", "FP32", "FP16")
# Least and greatest value of each.
LIMITS: dict[str, tuple[Any, Any]] = {
    name: (float(np.finfo(code).min), float(np.finfo(code).max))
    if name in FLOATS
    else (np.iinfo(code).min, np.iinfo(code).max)
    for name, code in DTYPES.items()
}
OF_TYPE: Mapping[type, str] = {bool: "BOOL", int: "INT64", float: "FP64", str: "BYTES"}
"""The datatype of Python's values; in binary each text of BYTES comes after its length, and a truth takes a byte."""
_LONGEST_SHOWN = 40


class Accepted(NamedTuple):
    """The datatypes by which the values of a feature may come."""

    datatype: str
    """The one that holds each of them, and a missing value too; but for a text, for which see `model.MISSING`."""
    all: tuple[str, ...]
    words: str
    """What to send, for the message of a refusal."""
    type: type
    """What the values are in a row: float, int, bool or str."""


def accepted(feature: Feature) -> Accepted:
    """Return the datatypes by which the values of a feature may come."""
    kind = type_of(feature)
    if kind is str:
        return Accepted("BYTES", ("BYTES",), "BYTES", kind)
    if kind is bool and not feature.nullable:
        return Accepted("BOOL", ("BOOL",), "BOOL", kind)
    if kind is bool:
        return Accepted("FP64", ("BOOL", *FLOATS), "BOOL, or as FP64 with NaN for a missing value", kind)
    integer = "UINT64" if feature.maximum is not None and feature.maximum > LIMITS["INT64"][1] else "INT64"
    datatype = integer if kind is int and not feature.nullable else "FP64"
    return Accepted(datatype, tuple(DTYPES), f"{datatype} or another datatype of numbers", kind)


def type_of(feature: Feature) -> type:
    """Return what the values of a feature are in a row."""
    if feature.kind == "category":
        return type((feature.values or [""])[0])
    if feature.kind in NUMERIC:
        return int if feature.kind == "integer" else float
    return bool if feature.kind == "boolean" else str


def not_of(datatype: str, value: Any) -> str | None:
    """Return why a value is not of a datatype of numbers, or None if it is.

    What is no number at all is left to the validator, and so is a missing value.
    """
    if value is None:
        return None
    least, greatest = LIMITS[datatype]
    if datatype not in FLOATS:
        if type(value) is int and least <= value <= greatest:
            return None
        return f"{_shown(value)} is no {datatype}, an integer from {least} to {greatest}. Send it as another datatype."
    if type(value) is not int and (type(value) is not float or not isfinite(value)):
        return None
    if not least <= value <= greatest:
        return f"{_shown(value)} is beyond what {datatype} holds. Send what lies within, or as FP64."
    if type(value) is int and datatype != "FP64" and int(np.dtype(DTYPES[datatype]).type(value)) != value:
        return f"The integer {value} is not held exactly by {datatype}. Send it as FP64 or INT64."
    return None


def _shown(value: Any) -> str:
    if not isinstance(value, int | float | str | None):
        return "What is no number"
    text = repr(value)
    return text if len(text) <= _LONGEST_SHOWN else f"{text[:_LONGEST_SHOWN]}..."
