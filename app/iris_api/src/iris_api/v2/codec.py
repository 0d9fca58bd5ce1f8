"""The bodies of inference requests: rows and predictions as tensors, in JSON or in the binary tensor extension.

Rows are one tensor, `input`, of shape [rows, features]. Its values are judged by the validator of /predict.
"""

from functools import partial
from http import HTTPStatus
from math import isfinite
from typing import Any

import numpy as np
import orjson
from numpy.typing import NDArray
from pydantic import ValidationError
from pydantic_core import to_json

from iris_api.bundle.manifest import Manifest
from iris_api.engines.columns import Columns, Table
from iris_api.engines.model import Prediction, Row
from iris_api.predict.codec import Answered, Read
from iris_api.predict.errors import ApiError, not_json
from iris_api.predict.reply import Answer, Headers, header
from iris_api.predict.rows import RowParser, decode, inexact
from iris_api.predict.steps import LARGE, Steps, finished
from iris_api.predict.tables import LEAST_ROWS, without_data
from iris_api.v2.schemas import INPUT, InferRequest, InputTensor, RequestedOutput, TensorMetadata

# Numbers as they stand in a binary tensor: little-endian. BYTES is no number: each text comes after its length.
DTYPES = {
    "FP64": "<f8",
    "FP32": "<f4",
    "INT64": "<i8",
    "INT32": "<i4",
    "INT16": "<i2",
    "INT8": "i1",
    "UINT64": "<u8",
    "UINT32": "<u4",
    "UINT16": "<u2",
    "UINT8": "u1",
}
# Least and greatest value of each.
LIMITS: dict[str, tuple[Any, Any]] = {
    name: (float(np.finfo(code).min), float(np.finfo(code).max))
    if name.startswith("FP")
    else (np.iinfo(code).min, np.iinfo(code).max)
    for name, code in DTYPES.items()
}
_DATATYPES = {bool: "BOOL", int: "INT64", float: "FP64", str: "BYTES"}
_LONGEST_SHOWN = 40
_HEADER_LENGTH = "Inference-Header-Content-Length"


class TensorCodec:
    """The bodies of an inference request: tensors, as JSON or in binary."""

    def __init__(self, manifest: Manifest, parser: RowParser) -> None:
        self._manifest = manifest
        self._parser = parser
        self._names = manifest.feature_names
        self._nullable = any(feature.nullable for feature in manifest.features)
        self._places = {output.name: place for place, output in enumerate(manifest.outputs or [])}
        self.outputs = self._describe_outputs()
        self._described = {output.name: output for output in self.outputs}
        self._least_table = LEAST_ROWS * 2 * len(self._names)
        self._all_outputs = [RequestedOutput(name=name) for name in self._described]

    def _describe_outputs(self) -> list[TensorMetadata]:
        classes, manifest = self._manifest.classes, self._manifest
        first = manifest.golden_samples[0].prediction
        if isinstance(first, list):
            return [
                TensorMetadata(name=output.name, datatype=_DATATYPES[type(value)], shape=[-1])
                for output, value in zip(manifest.outputs or [], first, strict=True)
            ]
        kind: Any = type(classes[0].value) if classes else float
        datatype = _DATATYPES[kind]
        if datatype == "INT64" and any(each.value > LIMITS["INT64"][1] for each in classes or []):
            datatype = "UINT64"
        outputs = [TensorMetadata(name="prediction", datatype=datatype, shape=[-1])]
        if classes and self._manifest.probabilities:
            outputs.append(TensorMetadata(name="prediction_proba", datatype="FP64", shape=[-1, len(classes)]))
        if manifest.scores:
            outputs.append(TensorMetadata(name="scores", datatype="FP64", shape=[-1, manifest.scores.width]))
        if classes:
            outputs.append(TensorMetadata(name=self._manifest.target.name, datatype="BYTES", shape=[-1]))
        return outputs

    def read(self, headers: Headers, body: bytes) -> Read | Steps[Read]:
        """Return the rows of a request, and what writes the answer to it; raise ApiError if it has none."""
        steps = self._read(headers, body)
        return steps if len(body) >= LARGE else finished(steps)

    def _read(self, headers: Headers, body: bytes) -> Steps[Read]:
        json_length = _json_length(headers)
        head, binary = (body, b"") if json_length is None else (body[:json_length], body[json_length:])
        if not binary and len(head) >= self._least_table and (found := (yield from self._table(head))):
            request, table = found
            self._require_outputs(request)
            return table, partial(self._write, request)
        request = _validated(head)
        self._require_outputs(request)
        rows = yield from self._rows(request.inputs[0], binary)
        return rows, partial(self._write, request)

    def _table(self, head: bytes) -> Steps[tuple[InferRequest, Table] | None]:
        """Return a request without its data, and these as a table; None if both are to be judged otherwise."""
        tables = self._parser.tables
        if not tables or not (parts := without_data(head)):
            return None
        try:
            request = _validated(parts[0])
        except ApiError:
            return None
        tensor = request.inputs[0]
        rows, width = tensor.shape
        claimed = tensor.parameters and tensor.parameters.binary_data_size is not None
        if rows < LEAST_ROWS or width != len(self._names) or claimed or tensor.data != []:
            return None
        table = yield from tables.numbers(head, parts[1], rows, tensor.datatype)
        if table is None:
            return None
        self._parser.check_rows(rows)
        return request, table

    def _require_outputs(self, request: InferRequest) -> None:
        for output in request.outputs or []:
            if output.name not in self._described:
                raise _refusal(f"There is no output of this name; there are {', '.join(self._described)}.")

    def refusal(self, error: ApiError) -> ApiError:
        """Return 422, which the protocol does not know, as 400, with its details in the sentence."""
        if error.status != HTTPStatus.UNPROCESSABLE_ENTITY:
            return error
        reasons = "; ".join(f"{detail.field}: {detail.reason}" for detail in error.details or [])
        message = f"{error.message} {reasons}".strip()
        return ApiError(HTTPStatus.BAD_REQUEST, error.code, message)

    def _rows(self, tensor: InputTensor, binary: bytes) -> Steps[list[Row] | Table]:
        count, width = tensor.shape
        if width != len(self._names):
            raise _refusal(
                f"{INPUT}: the shape is {tensor.shape}, but a row of this model has {len(self._names)} values: "
                f"{', '.join(self._names)}."
            )
        claimed = tensor.parameters.binary_data_size if tensor.parameters else None
        if claimed is not None:
            array = _from_binary(tensor, claimed, binary)
            tables = self._parser.tables if count >= LEAST_ROWS else None
            if tables and (table := tables.values(array, tensor.datatype)) is not None:
                self._parser.check_rows(count)
                return table
            values = array.tolist()
        elif binary:
            raise _refusal("There are bytes after the JSON that no input claims with binary_data_size.")
        else:
            values = _from_json(tensor)
        if claimed is not None and tensor.datatype.startswith("FP") and self._nullable:
            # Binary has no null: there, NaN is a missing value.
            values = [None if value != value else value for value in values]
        rows = []
        for first in range(0, count * width, width):
            row = values[first : first + width]
            self._require_datatype(tensor.datatype, first, row)
            rows.append(dict(zip(self._names, row, strict=True)))
            yield
        return (yield from self._parser.validated(rows))

    def _require_datatype(self, datatype: str, first: int, values: list[Any]) -> None:
        """Raise ApiError for a value that its datatype, or the model's floats of 64 bits, do not hold as it is.

        What is no number, or no possible one, is left to the validator. A decimal is read as the nearest float of 64
        bits whatever the datatype: nothing is rounded to fewer bits.
        """
        for number, value in enumerate(values, first):
            if type(value) is float and datatype == "FP64":
                continue
            if reason := _not_of(datatype, value) or inexact(value):
                row, feature = divmod(number, len(self._names))
                raise _refusal(f"{INPUT}: {row}.{self._names[feature]}: {reason}")

    def _write(self, request: InferRequest, predictions: Answered) -> Answer:
        binary_by_default = request.parameters is not None and request.parameters.binary_data_output
        tensors, binary = [], b""
        for output in request.outputs or self._all_outputs:
            about = self._described[output.name]
            shape = [len(predictions), *about.shape[1:]]
            if isinstance(predictions, Columns):
                data = self._array(about.name, predictions)
            else:
                data = self._data(about.name, predictions)
            tensor: dict[str, Any] = {"name": about.name, "datatype": about.datatype, "shape": shape}
            as_binary = output.parameters and output.parameters.binary_data
            if binary_by_default if as_binary is None else as_binary:
                part = _to_binary(about.datatype, data)
                tensor["parameters"] = {"binary_data_size": len(part)}
                binary += part
            else:
                tensor["data"] = data
            tensors.append(tensor)
        answer: dict[str, Any] = {"model_name": self._manifest.name, "model_version": self._manifest.version}
        if request.id is not None:
            answer["id"] = request.id
        content = {**answer, "outputs": tensors}
        if isinstance(predictions, Columns):
            head = orjson.dumps(content, option=orjson.OPT_SERIALIZE_NUMPY)
        else:
            head = to_json(content)
        if not any("parameters" in tensor for tensor in tensors):
            return Answer.of(head)
        length = (_HEADER_LENGTH.lower().encode(), b"%d" % len(head))
        return Answer.of(head + binary, b"application/octet-stream", length)

    def _array(self, name: str, columns: Columns) -> Any:
        """Return an output's data as an array, or as a list of texts."""
        if name == "prediction_proba":
            assert columns.probabilities is not None
            return np.ascontiguousarray(columns.probabilities, np.float64).ravel()
        if columns.numbers is None:
            return np.ascontiguousarray(columns.values, np.float64)
        classes = self._manifest.classes or []
        labels = [each.value if name == "prediction" else each.name for each in classes]
        if isinstance(labels[0], str):
            return [labels[number] for number in columns.numbers.tolist()]
        return np.array(labels)[columns.numbers]

    def _data(self, name: str, predictions: list[Prediction]) -> list[Any]:
        if name in self._places:
            place = self._places[name]
            return [prediction.value[place] for prediction in predictions]  # type: ignore[index]
        if name == "scores" and self._manifest.scores:
            return [score for prediction in predictions for score in prediction.scores or []]
        if name == "prediction":
            return [prediction.value for prediction in predictions]
        if name == "prediction_proba":
            return [share for prediction in predictions for share in prediction.probabilities or []]
        return [prediction.name for prediction in predictions]


def _json_length(headers: Headers) -> int | None:
    """Return how many bytes of the body are JSON, or None if all of it is."""
    content_type = header(headers, b"content-type").partition(b";")[0].strip().lower()
    # Triton's client declares nothing at all.
    if content_type not in {b"", b"application/json", b"application/octet-stream"}:
        raise not_json()
    length = header(headers, _HEADER_LENGTH.lower().encode())
    if not length:
        return None
    if not length.isdigit() or len(length) > 9:
        raise _refusal(f"The header {_HEADER_LENGTH} must be the number of bytes of the JSON.")
    return int(length)


def _validated(head: bytes) -> InferRequest:
    """Return a request; raise ApiError for what is none."""
    try:
        return InferRequest.model_validate(decode(head))
    except ValidationError as error:
        problem = error.errors(include_url=False, include_context=False, include_input=False)[0]
        raise _refusal(f"{'.'.join(map(str, problem['loc'])) or 'The body'}: {problem['msg']}.") from None


def _from_binary(tensor: InputTensor, claimed: int, binary: bytes) -> NDArray[Any]:
    dtype = np.dtype(DTYPES[tensor.datatype])
    size = tensor.shape[0] * tensor.shape[1] * dtype.itemsize
    if tensor.data is not None or not len(binary) == claimed == size:
        raise _refusal(
            f"{INPUT}: {tensor.shape} of {tensor.datatype} are {size} bytes after the JSON and no data in it, but "
            f"binary_data_size is {claimed} and {len(binary)} bytes came."
        )
    return np.frombuffer(binary, dtype)


def _from_json(tensor: InputTensor) -> list[Any]:
    """Return the values row after row; they may have come as a list for each row."""
    count, width = tensor.shape
    data = tensor.data
    if data is None:
        raise _refusal(f"{INPUT}: there is no data.")
    if any(isinstance(row, list) for row in data):
        if len(data) != count or any(not isinstance(row, list) or len(row) != width for row in data):
            raise _refusal(f"{INPUT}: the data are not {count} lists of {width} numbers, as its shape says.")
        data = [value for row in data for value in row]
    elif len(data) != count * width:
        raise _refusal(f"{INPUT}: the shape {tensor.shape} has {count * width} values, but {len(data)} came.")
    return data


def _not_of(datatype: str, value: Any) -> str | None:
    """Return why a value is not of a datatype, or None if it is; what is no number at all is left to the validator."""
    least, greatest = LIMITS[datatype]
    if not datatype.startswith("FP"):
        if type(value) is int and least <= value <= greatest:
            return None
        return f"{_shown(value)} is no {datatype}, an integer from {least} to {greatest}. Send it as another datatype."
    if type(value) is not int and (type(value) is not float or not isfinite(value)):
        return None
    if not least <= value <= greatest:
        return f"{_shown(value)} is beyond what {datatype} holds. Send what lies within, or as FP64."
    if type(value) is int and datatype == "FP32" and int(np.float32(value)) != value:
        return f"The integer {value} is not held exactly by FP32. Send it as FP64 or INT64."
    return None


def _shown(value: Any) -> str:
    if not isinstance(value, int | float | str | None):
        return "What is no number"
    text = repr(value)
    return text if len(text) <= _LONGEST_SHOWN else f"{text[:_LONGEST_SHOWN]}..."


def _to_binary(datatype: str, data: Any) -> bytes:
    if datatype == "BYTES":
        texts = [text.encode() for text in data]
        return b"".join(len(text).to_bytes(4, "little") + text for text in texts)
    return np.array(data, dtype=DTYPES.get(datatype, "?")).tobytes()


def _refusal(message: str) -> ApiError:
    return ApiError(HTTPStatus.BAD_REQUEST, "invalid_input", message)
