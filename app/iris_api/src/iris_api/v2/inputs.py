"""The rows of an inference request: one tensor of rows x features, or a tensor for each feature.

What a value may be is judged by the validator of /predict; here, whether a tensor is what it says.
"""

from collections import Counter
from collections.abc import Iterable, Sequence
from http import HTTPStatus
from math import prod
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydantic import ValidationError

from iris_api.bundle.manifest import NUMERIC, Feature, Manifest
from iris_api.engines.columns import Floats, Table
from iris_api.engines.model import MISSING, Row
from iris_api.predict.batching import Rows
from iris_api.predict.errors import ApiError
from iris_api.predict.rows import RowParser, decode, inexact
from iris_api.predict.steps import Steps
from iris_api.predict.tables import LEAST_ROWS, without_data
from iris_api.v2.datatypes import DTYPES, FLOATS, accepted, not_of, type_of
from iris_api.v2.schemas import INPUT, InferRequest, InputTensor, TensorMetadata

# Bytes of a value.
_SIZES = {"BOOL": 1} | {name: np.dtype(code).itemsize for name, code in DTYPES.items()}
# Bytes that say how long a text is.
_LENGTH = 4
_LONGEST_NAME = 64
_Column = list[Any] | NDArray[Any]
_MOST_NAMES = 20
_TRUTHS = {0: False, 1: True}


def is_described_as_one(manifest: Manifest) -> bool:
    """Return whether the metadata describe one tensor of rows x features: that of a model whose features are numbers.

    Requests may have a tensor for each feature as well.
    """
    return all(feature.kind in NUMERIC for feature in manifest.features)


def describe_inputs(manifest: Manifest, names: str) -> list[TensorMetadata]:
    """Return what a request has, as the metadata say it; `names` are those of the features as a line."""
    if is_described_as_one(manifest):
        shape = [-1, len(manifest.features)]
        return [TensorMetadata(name=INPUT, datatype="FP64", shape=shape, parameters={"features": names})]
    return [
        TensorMetadata(
            name=feature.name,
            datatype=accepted(feature).datatype,
            shape=[-1, 1],
            parameters={"kind": feature.kind, "nullable": str(feature.nullable).lower()},
        )
        for feature in manifest.features
    ]


def example_inputs(manifest: Manifest) -> list[dict[str, Any]]:
    """Return the tensors of a request of one row, as the metadata describe them."""
    sample = manifest.golden_samples[0].input
    if is_described_as_one(manifest):
        data = [sample[name] for name in manifest.feature_names]
        return [{"name": INPUT, "shape": [1, len(data)], "datatype": "FP64", "data": data}]
    return [
        {"name": each.name, "shape": [1, 1], "datatype": accepted(each).datatype, "data": [sample[each.name]]}
        for each in manifest.features
    ]


class InputReader:
    """Reads the rows of one model's features."""

    def __init__(self, manifest: Manifest, parser: RowParser) -> None:
        self._parser = parser
        self._features = manifest.features
        self._names = manifest.feature_names
        self._known = {feature.name: feature for feature in manifest.features}
        self._accepted = {feature.name: accepted(feature) for feature in manifest.features}
        self._types: list[set[type]] = [
            {type(None), *((float, int) if each.kind in NUMERIC else (type_of(each),))} for each in manifest.features
        ]
        self._nullable = any(feature.nullable for feature in manifest.features)
        self._are_numbers = is_described_as_one(manifest)
        self.least_table = LEAST_ROWS * 2 * len(self._names)
        """Bytes below which no request has a table."""

    def table(self, head: bytes) -> Steps[tuple[InferRequest, Table] | None]:
        """Return a request in JSON without its data, and these as a table; None if both are to be judged otherwise."""
        tables = self._parser.tables
        if not tables or not tables.takes_floats or not (parts := without_data(head)):
            return None
        rest, places = parts
        try:
            request = validated(decode(rest))
        except ApiError:
            return None
        tensors = request.inputs
        # As many lists as there are tensors, and none has another one: each is that of its tensor.
        if len(tensors) != len(places) or any(each.data != [] or _claimed(each) is not None for each in tensors):
            return None
        if any(each.datatype not in DTYPES for each in tensors):
            return None
        table: Table | None
        if len(tensors) == 1:
            rows, width = self._shape(tensors[0])
            if rows < LEAST_ROWS or width != len(self._names):
                return None
            table = yield from tables.numbers(head, places[0], rows, tensors[0].datatype)
        else:
            rows = tensors[0].shape[0]
            if rows < LEAST_ROWS or self._why_not_columns(tensors):
                return None
            found: dict[str, Floats] = {}
            for tensor, place in zip(tensors, places, strict=True):
                column = yield from tables.column(head, place, rows, tensor.datatype)
                if column is None:
                    return None
                found[tensor.name] = column
            table = yield from tables.columns([found[name] for name in self._names])
        if table is None:
            return None
        self._parser.check_rows(rows)
        return request, table

    def row(self, tensors: Sequence[InputTensor], binary: bytes) -> list[Row] | None:
        """Return the row of one tensor of floats in JSON, which is what nearly always comes; None for anything else.

        Of what it takes nothing is to be judged but by the validator, and no step takes long: `rows` is for all else.
        """
        tensor = tensors[0]
        data = tensor.data
        if len(tensors) > 1 or binary or tensor.parameters or data is None or not self._are_numbers:
            return None
        width = len(self._names)
        if tensor.shape not in ([1, width], [width]) or len(data) != width:
            return None
        if tensor.datatype != "FP64" or not all(type(value) is float for value in data):
            return None
        row = self._parser.row(dict(zip(self._names, data, strict=True)))
        return [row] if row else None

    def rows(self, tensors: Sequence[InputTensor], binary: bytes) -> Steps[Rows]:
        """Return the rows of a request's tensors, and of the bytes after its JSON; raise ApiError for what is wrong."""
        parts = _parts(tensors, binary)
        if len(tensors) == 1:
            return (yield from self._of_one(tensors[0], parts[0]))
        if reason := self._why_not_columns(tensors):
            raise refusal(reason)
        count = tensors[0].shape[0]
        self._parser.check_rows(count)
        found = {tensor.name: (tensor, part) for tensor, part in zip(tensors, parts, strict=True)}
        columns: list[_Column] = []
        for feature in self._features:
            tensor, part = found[feature.name]
            # Of numbers a large tensor stays an array.
            if feature.kind in NUMERIC and part is not None and count >= LEAST_ROWS:
                columns.append(_array(tensor, part))
            else:
                values = yield from _values(tensor, part, count, 1)
                columns.append(self._of_kind(feature, tensor.datatype, values, part is not None))
            yield
        return (yield from self._of_columns(columns, count))

    def _of_columns(self, columns: Sequence[_Column], count: int) -> Steps[Rows]:
        """Return the rows of the values of each feature, in the order of the features."""
        tables = self._parser.tables
        if tables and count >= LEAST_ROWS and all(map(_are_of_types, self._types, columns)):
            table = yield from tables.columns([_floats(each) for each in columns])
            if table is not None:
                return table
        lists = [
            self._without_nan(feature, each.tolist()) if isinstance(each, np.ndarray) else each
            for feature, each in zip(self._features, columns, strict=True)
        ]
        return (yield from self._judged(zip(*lists, strict=True)))

    def _of_one(self, tensor: InputTensor, part: bytes | None) -> Steps[Rows]:
        """Return the rows of one tensor, whatever its name: rows x features, or a single row, or a single column."""
        count, width = self._shape(tensor)
        if width != len(self._names):
            raise refusal(
                f"{_shown(tensor.name)}: the shape is {tensor.shape}, but a row of this model has {len(self._names)} "
                f"values: {_listed(self._names)}. Send one tensor of that many columns, or one for each of them."
            )
        if not self._are_numbers:
            return (yield from self._of_kinds(tensor, part, count))
        if tensor.datatype not in DTYPES:
            raise refusal(f"{_shown(tensor.name)}: {self._wrong_datatype(self._features[0], tensor.datatype)}")
        if part is not None:
            array = _array(tensor, part)
            tables = self._parser.tables if count >= LEAST_ROWS else None
            if tables and (table := tables.values(array, tensor.datatype)) is not None:
                self._parser.check_rows(count)
                return table
            values = array.tolist()
            if self._nullable and tensor.datatype in FLOATS:
                # Binary has no null: there, NaN is a missing value.
                values = [None if value != value else value for value in values]
        else:
            values = _from_json(tensor, count, width)
        rows = []
        for first in range(0, count * width, width):
            row = values[first : first + width]
            self._require_datatype(tensor, first, row)
            rows.append(dict(zip(self._names, row, strict=True)))
            yield
        return (yield from self._parser.validated(rows))

    def _of_kinds(self, tensor: InputTensor, part: bytes | None, count: int) -> Steps[Rows]:
        """Return the rows of one tensor for features that are not all numbers."""
        # JSON may have texts among numbers, and each is judged: of any other tensor the datatype says what all are.
        if part is not None or tensor.datatype not in DTYPES:
            for feature in self._features:
                if tensor.datatype not in self._accepted[feature.name].all:
                    wrong = self._wrong_datatype(feature, tensor.datatype)
                    raise refusal(f"{_shown(tensor.name)}: {wrong} Send a tensor for each feature.")
        self._parser.check_rows(count)
        width = len(self._names)
        values = yield from _values(tensor, part, count, width)
        columns = []
        for number, feature in enumerate(self._features):
            columns.append(self._of_kind(feature, tensor.datatype, values[number::width], part is not None))
            yield
        return (yield from self._of_columns(columns, count))

    def _shape(self, tensor: InputTensor) -> tuple[int, int]:
        """Return how many rows and columns a lone tensor has; with one number as its shape it is a row or a column."""
        shape = tensor.shape
        if len(shape) == 2:
            return shape[0], shape[1]
        return (shape[0], 1) if len(self._names) == 1 else (1, shape[0])

    def _why_not_columns(self, tensors: Sequence[InputTensor]) -> str | None:
        """Return why tensors are not one for each feature, all of as many rows; None if they are."""
        names = [tensor.name for tensor in tensors]
        given = set(names)
        unknown = [name for name in dict.fromkeys(names) if name not in self._known]
        missing = [name for name in self._names if name not in given]
        if unknown:
            return (
                f"{_listed(unknown)}: the model has no such feature. Send one tensor for each of "
                f"{_listed(self._names)}, or one alone of {len(self._names)} columns."
            )
        if missing:
            return f"{_listed(missing)}: there is no tensor of this name, and the model needs one for each feature."
        if len(names) > len(given):
            twice = [name for name, count in Counter(names).items() if count > 1]
            return f"{_listed(twice)}: there is more than one tensor of this name."
        first = tensors[0]
        for tensor in tensors:
            if len(tensor.shape) == 2 and tensor.shape[1] != 1:
                return (
                    f"{tensor.name}: the shape is {tensor.shape}, but a tensor of one feature has [rows] or [rows, 1]."
                )
            if tensor.shape[0] != first.shape[0]:
                return (
                    f"{tensor.name}: the shape is {tensor.shape}, but {first.name} has {first.shape}. "
                    "Each tensor has as many rows."
                )
            if tensor.datatype not in self._accepted[tensor.name].all:
                return f"{tensor.name}: {self._wrong_datatype(self._known[tensor.name], tensor.datatype)}"
        return None

    def _wrong_datatype(self, feature: Feature, datatype: str) -> str:
        article = "an" if feature.kind == "integer" else "a"
        words = self._accepted[feature.name].words
        return f"the datatype is {datatype}, but {feature.name} is {article} {feature.kind}, which is sent as {words}."

    def _of_kind(self, feature: Feature, datatype: str, values: list[Any], binary: bool) -> list[Any]:
        """Return the values of a feature as they stand in a row; what they can't be is left to the validator."""
        if datatype == "BOOL":
            return values
        if datatype == "BYTES":
            return [None if value == MISSING else value for value in values]
        if binary:
            values = self._without_nan(feature, values)
        else:
            for number, value in enumerate(values):
                if reason := not_of(datatype, value):
                    raise refusal(f"{feature.name}: row {number}: {reason}")
        kind = self._accepted[feature.name].type
        if kind is bool:
            # A value of JSON may be a list or an object, which is no key.
            return [_TRUTHS.get(value, value) if type(value) in (int, float) else value for value in values]
        if kind is int and datatype in FLOATS:
            return [int(value) if type(value) is float and value.is_integer() else value for value in values]
        return values

    def _without_nan(self, feature: Feature, values: list[Any]) -> list[Any]:
        """Return the values of a binary tensor, which has no null: there, NaN is a missing value."""
        return [None if value != value else value for value in values] if feature.nullable else values

    def _judged(self, rows: Iterable[Sequence[Any]]) -> Steps[list[Row]]:
        content = []
        for row in rows:
            content.append(dict(zip(self._names, row, strict=True)))
            yield
        return (yield from self._parser.validated(content))

    def _require_datatype(self, tensor: InputTensor, first: int, values: list[Any]) -> None:
        """Raise ApiError for a value that its datatype, or the model's floats of 64 bits, do not hold as it is.

        What is no number, or no possible one, is left to the validator. A decimal is read as the nearest float of 64
        bits whatever the datatype: nothing is rounded to fewer bits.
        """
        datatype = tensor.datatype
        for number, value in enumerate(values, first):
            if type(value) is float and datatype == "FP64":
                continue
            if reason := not_of(datatype, value) or inexact(value):
                row, feature = divmod(number, len(self._names))
                name = self._names[feature]
                if self._parser.may_round(name) or not_of(datatype, value):
                    raise refusal(f"{_shown(tensor.name)}: {row}.{name}: {reason}")


def validated(content: Any) -> InferRequest:
    """Return a request of what its JSON holds; raise ApiError for what is none."""
    try:
        return InferRequest.model_validate(content)
    except ValidationError as error:
        problem = error.errors(include_url=False, include_context=False, include_input=False)[0]
        raise refusal(f"{'.'.join(map(str, problem['loc'])) or 'The body'}: {problem['msg']}.") from None


def refusal(message: str) -> ApiError:
    """Return the error for a request that is not what it must be: 400."""
    return ApiError(HTTPStatus.BAD_REQUEST, "invalid_input", message)


def _claimed(tensor: InputTensor) -> int | None:
    """Return how many of the bytes after the JSON are said to be a tensor's; None if it has its data in the JSON."""
    return tensor.parameters.binary_data_size if tensor.parameters else None


def _parts(tensors: Sequence[InputTensor], binary: bytes) -> list[bytes | None]:
    """Return of each tensor the bytes after the JSON that are its data, which stand there in their order."""
    parts: list[bytes | None] = []
    start = 0
    for tensor in tensors:
        claimed = _claimed(tensor)
        if claimed is None:
            parts.append(None)
            continue
        size = prod(tensor.shape) * _SIZES[tensor.datatype] if tensor.datatype in _SIZES else claimed
        if tensor.data is not None or claimed != size or start + claimed > len(binary):
            raise refusal(
                f"{_shown(tensor.name)}: {tensor.shape} of {tensor.datatype} are {size} bytes after the JSON and no "
                f"data in it, but binary_data_size is {claimed} and {len(binary) - start} bytes came."
            )
        parts.append(binary[start : start + claimed])
        start += claimed
    if start != len(binary):
        raise refusal("There are bytes after the JSON that no input claims with binary_data_size.")
    return parts


def _array(tensor: InputTensor, part: bytes) -> NDArray[Any]:
    """Return the numbers of a binary tensor."""
    return np.frombuffer(part, DTYPES[tensor.datatype])


def _floats(values: _Column) -> Any:
    """Return numbers as floats of 64 bits; others as they are."""
    return values.astype(np.float64) if isinstance(values, np.ndarray) else values


def _are_of_types(types: set[type], values: _Column) -> bool:
    """Return whether all values of a feature are of its types: True counts as 1 elsewhere, and a text as a number."""
    return isinstance(values, np.ndarray) or set(map(type, values)) <= types


def _values(tensor: InputTensor, part: bytes | None, count: int, width: int) -> Steps[list[Any]]:
    """Return the values of a tensor of any datatype, row after row."""
    if part is None:
        return _from_json(tensor, count, width)
    if tensor.datatype == "BYTES":
        return (yield from _texts(tensor, part, count * width))
    if tensor.datatype == "BOOL":
        # What is neither 0 nor 1 is no truth, and refused as what it is.
        return [_TRUTHS.get(value, value) for value in part]
    values: list[Any] = _array(tensor, part).tolist()
    return values


def _texts(tensor: InputTensor, part: bytes, count: int) -> Steps[list[str]]:
    """Return the texts of a binary tensor: each comes after its length, as a little-endian number of four bytes."""
    texts: list[str] = []
    start = 0
    while start < len(part) and len(texts) < count:
        length = int.from_bytes(part[start : start + _LENGTH], "little")
        end = start + _LENGTH + length
        if end > len(part) or start + _LENGTH > len(part):
            raise refusal(
                f"{_shown(tensor.name)}: row {len(texts)}: {length} bytes of text are announced, but there are "
                f"{max(0, len(part) - start - _LENGTH)}. In BYTES each text comes after its length, 4 bytes "
                "(little-endian)."
            )
        try:
            texts.append(part[start + _LENGTH : end].decode())
        except UnicodeDecodeError:
            raise refusal(f"{_shown(tensor.name)}: row {len(texts)}: this is no text in UTF-8.") from None
        start = end
        yield
    if len(texts) != count or start != len(part):
        some = "more" if start != len(part) else f"{len(texts)}"
        raise refusal(
            f"{_shown(tensor.name)}: the shape {tensor.shape} has {count} texts, but there are {some} in the "
            f"{len(part)} bytes."
        )
    return texts


def _from_json(tensor: InputTensor, count: int, width: int) -> list[Any]:
    """Return the values row after row; they may have come as a list for each row."""
    data, name = tensor.data, _shown(tensor.name)
    if data is None:
        raise refusal(f"{name}: there is no data.")
    if any(isinstance(row, list) for row in data):
        if len(data) != count or any(not isinstance(row, list) or len(row) != width for row in data):
            raise refusal(f"{name}: the data are not {count} lists of {width} numbers, as its shape says.")
        data = [value for row in data for value in row]
    elif len(data) != count * width:
        raise refusal(f"{name}: the shape {tensor.shape} has {count * width} values, but {len(data)} came.")
    return data


def _shown(name: str) -> str:
    """Return a name that a client chose: it may be of any length."""
    return name if len(name) <= _LONGEST_NAME else f"{name[:_LONGEST_NAME]}..."


def _listed(names: Sequence[str]) -> str:
    some = ", ".join(map(_shown, names[:_MOST_NAMES]))
    return some if len(names) <= _MOST_NAMES else f"{some} and {len(names) - _MOST_NAMES} more"
