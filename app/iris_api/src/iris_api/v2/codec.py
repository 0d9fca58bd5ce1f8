"""The bodies of inference requests: rows and predictions as tensors, in JSON or in the binary tensor extension."""

from functools import partial
from http import HTTPStatus
from typing import Any

import numpy as np
import orjson
from pydantic_core import to_json

from iris_api.bundle.manifest import Manifest
from iris_api.engines.columns import Columns
from iris_api.engines.model import Prediction
from iris_api.predict.codec import Answered, Read
from iris_api.predict.errors import ApiError, not_json
from iris_api.predict.reply import Answer, Headers, header
from iris_api.predict.rows import RowParser, decoded
from iris_api.predict.steps import LARGE, Steps, finished
from iris_api.v2.datatypes import DTYPES, LIMITS, OF_TYPE
from iris_api.v2.inputs import InputReader, refusal, validated
from iris_api.v2.schemas import InferRequest, RequestedOutput, TensorMetadata

_HEADER_LENGTH = "Inference-Header-Content-Length"


class TensorCodec:
    """The bodies of an inference request: tensors, as JSON or in binary."""

    def __init__(self, manifest: Manifest, parser: RowParser) -> None:
        self._manifest = manifest
        self._inputs = InputReader(manifest, parser)
        self._places = {output.name: place for place, output in enumerate(manifest.outputs or [])}
        self.outputs = self._describe_outputs()
        self._described = {output.name: output for output in self.outputs}
        self._all_outputs = [RequestedOutput(name=name) for name in self._described]

    def _describe_outputs(self) -> list[TensorMetadata]:
        classes, manifest = self._manifest.classes, self._manifest
        first = manifest.golden_samples[0].prediction
        if isinstance(first, list):
            return [
                TensorMetadata(name=output.name, datatype=OF_TYPE[type(value)], shape=[-1])
                for output, value in zip(manifest.outputs or [], first, strict=True)
            ]
        kind: Any = type(classes[0].value) if classes else float
        datatype = OF_TYPE[kind]
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
        if not binary and len(head) >= self._inputs.least_table and (found := (yield from self._inputs.table(head))):
            request, table = found
            self._require_outputs(request)
            return table, partial(self._write, request)
        request = validated((yield from decoded(head)))
        self._require_outputs(request)
        rows = self._inputs.row(request.inputs, binary) or (yield from self._inputs.rows(request.inputs, binary))
        return rows, partial(self._write, request)

    def _require_outputs(self, request: InferRequest) -> None:
        if not request.outputs:
            return
        asked = [output.name for output in request.outputs]
        # Each has as many rows as the request: a few KB that ask many times would be answered by hundreds of MB.
        if len(set(asked)) < len(asked):
            raise refusal("An output is asked for more than once.")
        for output in request.outputs:
            if output.name not in self._described:
                raise refusal(f"There is no output of this name; there are {', '.join(self._described)}.")

    def refusal(self, error: ApiError) -> ApiError:
        """Return 422, which the protocol does not know, as 400, with its details in the sentence."""
        if error.status != HTTPStatus.UNPROCESSABLE_ENTITY:
            return error
        reasons = "; ".join(f"{detail.field}: {detail.reason}" for detail in error.details or [])
        message = f"{error.message} {reasons}".strip()
        return ApiError(HTTPStatus.BAD_REQUEST, error.code, message)

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
        raise refusal(f"The header {_HEADER_LENGTH} must be the number of bytes of the JSON.")
    return int(length)


def _to_binary(datatype: str, data: Any) -> bytes:
    if datatype == "BYTES":
        texts = [text.encode() for text in data]
        return b"".join(len(text).to_bytes(4, "little") + text for text in texts)
    return np.array(data, dtype=DTYPES.get(datatype, "?")).tobytes()
