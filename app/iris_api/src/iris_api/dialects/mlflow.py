"""The bodies of MLflow's scoring server, `POST /invocations`, as its version 2 and 3 read and write them.

Source: mlflow/pyfunc/scoring_server/__init__.py and mlflow/utils/proto_json_utils.py of MLflow 3.17.
"""

import re
from http import HTTPStatus

from iris_api.bundle.manifest import Manifest
from iris_api.dialects.shapes import PredictionWriter, Shapes, refused, sentence
from iris_api.predict.batching import Rows
from iris_api.predict.codec import Read
from iris_api.predict.errors import ApiError, unsupported
from iris_api.predict.lines import LineParser
from iris_api.predict.reply import JSON, Headers, header
from iris_api.predict.rows import RowParser, decoded
from iris_api.predict.steps import LARGE, Steps, finished

RECORDS, SPLIT, INSTANCES, INPUTS = "dataframe_records", "dataframe_split", "instances", "inputs"
FORMS = (RECORDS, SPLIT, INSTANCES, INPUTS)
_ONLY = re.compile(rb'[ \t\r\n]*\{[ \t\r\n]*"(dataframe_records|instances|inputs)"[ \t\r\n]*:[ \t\r\n]*(?=\[)')
_BAD_REQUEST, _INVALID_VALUE = "BAD_REQUEST", "INVALID_PARAMETER_VALUE"
# MLflow's names of errors by ours; what is not among them is a BAD_REQUEST.
_ERROR_CODES = {
    "invalid_input": _INVALID_VALUE,
    "no_answer": _INVALID_VALUE,
    "overloaded": "TEMPORARILY_UNAVAILABLE",
    "deadline_exceeded": "DEADLINE_EXCEEDED",
}
_PARAMS = "params"


class InvocationsCodec:
    """The bodies of `POST /invocations`; errors have MLflow's `error_code` and `message`."""

    def __init__(self, manifest: Manifest, parser: RowParser) -> None:
        self._shapes = Shapes(manifest, parser, loose=True)
        self._lines = LineParser(manifest, parser)
        self._writer = PredictionWriter(manifest)

    def read(self, headers: Headers, body: bytes) -> Read | Steps[Read]:
        """Return the rows of a request, and what writes the answer to it; raise ApiError if it has none."""
        steps = self._read(headers, body)
        return steps if len(body) >= LARGE else finished(steps)

    def _read(self, headers: Headers, body: bytes) -> Steps[Read]:
        content_type, _, parameters = header(headers, b"content-type").partition(b";")
        content_type = content_type.strip().lower()
        if parameters.strip().lower() not in {b"", b"charset=utf-8", b'charset="utf-8"'}:
            # Up to version 1, format=pandas-split stood here, and the table without the name of its form in the body.
            raise unsupported("Content-Type may have the parameter charset=utf-8 alone.")
        if content_type == b"text/csv":
            return (yield from self._lines.csv(body)), self._writer.write
        if content_type != JSON:
            raise unsupported("The body must be JSON (Content-Type: application/json) or CSV (text/csv).")
        table = yield from self._shapes.only_list(body, _ONLY)
        if table is None:
            table = yield from self._shapes.only_split(body, SPLIT)
        if table is not None:
            return table, self._writer.write
        return (yield from self._judge(body)), self._writer.write

    def _judge(self, body: bytes) -> Steps[Rows]:
        content = yield from decoded(body, nan=True)
        forms = [form for form in FORMS if isinstance(content, dict) and form in content]
        if len(forms) != 1:
            found = f", and has {' and '.join(forms)}" if forms else ""
            raise refused("body", f"must be an object with exactly one of {', '.join(FORMS)}{found}")
        if content.get(_PARAMS):
            raise refused(_PARAMS, "this model takes none; leave them out")
        (form,) = forms
        given = content[form]
        if form == SPLIT:
            return (yield from self._shapes.split(given, SPLIT))
        if isinstance(given, dict) and form != RECORDS:
            return (yield from self._shapes.columns(given, form))
        return (yield from self._shapes.rows(given, form))

    def refusal(self, error: ApiError) -> ApiError:
        """Return an error in MLflow's form; a body that is not what it must be is 400 there."""
        status = HTTPStatus.BAD_REQUEST if error.status == HTTPStatus.UNPROCESSABLE_ENTITY else error.status
        message = sentence(error)
        body = {"error_code": _ERROR_CODES.get(error.code, _BAD_REQUEST), "message": message, "code": error.code}
        return ApiError(status, error.code, message, headers=error.headers, body=body)
