"""The bodies of KServe's protocol, version 1: `{"instances": [...]}`, answered by `{"predictions": [...]}`."""

import re
from http import HTTPStatus

from iris_api.bundle.manifest import Manifest
from iris_api.dialects.shapes import PredictionWriter, Shapes, refused, sentence
from iris_api.predict.codec import Read
from iris_api.predict.errors import ApiError, not_json
from iris_api.predict.reply import JSON, Headers, header
from iris_api.predict.rows import RowParser, decoded
from iris_api.predict.steps import LARGE, Steps, finished

INSTANCES = "instances"
_ONLY = re.compile(rb'[ \t\r\n]*\{[ \t\r\n]*"instances"[ \t\r\n]*:[ \t\r\n]*(?=\[)')


class InstancesCodec:
    """The bodies of `POST /v1/models/MODEL:predict`; errors are its `{"error": "..."}` with status 400."""

    def __init__(self, manifest: Manifest, parser: RowParser) -> None:
        self._shapes = Shapes(manifest, parser)
        self._writer = PredictionWriter(manifest)

    def read(self, headers: Headers, body: bytes) -> Read | Steps[Read]:
        """Return the rows of a request, and what writes the answer to it; raise ApiError if it has none."""
        steps = self._read(headers, body)
        return steps if len(body) >= LARGE else finished(steps)

    def _read(self, headers: Headers, body: bytes) -> Steps[Read]:
        if header(headers, b"content-type").partition(b";")[0].strip().lower() not in {b"", JSON}:
            raise not_json()
        table = yield from self._shapes.only_list(body, _ONLY)
        if table is not None:
            return table, self._writer.write
        content = yield from decoded(body)
        if not isinstance(content, dict) or INSTANCES not in content:
            raise refused("body", f"must be an object with {INSTANCES}, a list of rows")
        return (yield from self._shapes.rows(content[INSTANCES], INSTANCES)), self._writer.write

    def refusal(self, error: ApiError) -> ApiError:
        """Return 422, which the protocol does not know, as 400, with its details in the sentence."""
        if error.status != HTTPStatus.UNPROCESSABLE_ENTITY:
            return error
        return ApiError(HTTPStatus.BAD_REQUEST, error.code, sentence(error))
