"""What the bodies of an API mean: rows in a request's, predictions in an answer's.

Here of `POST /predict`; the Open Inference Protocol has a codec of its own, in `iris_api.v2`.
"""

from collections.abc import Callable
from typing import Any, Protocol

import numpy as np
import orjson
from pydantic_core import to_json

from iris_api.bundle.manifest import Manifest
from iris_api.engines.columns import Columns
from iris_api.engines.model import Prediction
from iris_api.predict.batching import Rows
from iris_api.predict.errors import ApiError, unsupported
from iris_api.predict.lines import LineParser
from iris_api.predict.reply import JSON, Answer, Headers, header
from iris_api.predict.rows import RowParser
from iris_api.predict.steps import LARGE, Steps, finished

Answered = list[Prediction] | Columns
Write = Callable[[Any], Answer | Steps[Answer]]
"""Makes the answer to a request of its predictions, `Answered`, in the order of its rows; of a long list in steps."""
MANY = 256
"""Predictions of a list that are counted and written at a time."""
# Classes up to which what stands between the answers of two of them is kept for each pair.
_MOST_PAIRED = 32

Read = tuple[Rows, Write]
"""The rows of a request, and what makes an answer of their predictions."""

_NDJSON = (b"application/x-ndjson", b"application/jsonl", b"application/x-jsonlines")


class Codec(Protocol):
    """Reads the requests of an API and writes its answers."""

    def read(self, headers: Headers, body: bytes) -> Read | Steps[Read]:
        """Return what a request is, or raise ApiError; of a large body return the steps that do so."""

    def refusal(self, error: ApiError) -> ApiError:
        """Return an error in the terms of the API."""


class RowCodec:
    """The bodies of `POST /predict`: a row as an object, a list of rows, or rows as lines, which a list answers."""

    def __init__(self, manifest: Manifest, parser: RowParser) -> None:
        self._parser = parser
        self._lines = LineParser(manifest, parser)
        self._target = manifest.target.name
        self._outputs = [output.name for output in manifest.outputs or []]
        self._model = {"model": manifest.name, "model_version": manifest.version}
        self._columns = _ColumnWriter(self.answer, manifest) if parser.tables else None

    def read(self, headers: Headers, body: bytes) -> Read | Steps[Read]:
        """Return the rows of a request, and what writes the answer to it; raise ApiError if it has none."""
        content_type = header(headers, b"content-type")
        if content_type != JSON:
            content_type = content_type.partition(b";")[0].strip().lower()
            if content_type in _NDJSON:
                return self._taken(self._lines.ndjson(body), body)
            if content_type == b"text/csv":
                return self._taken(self._lines.csv(body), body)
            if content_type != JSON:
                raise unsupported(
                    "The body must be JSON, with the header Content-Type: application/json, or rows as lines: text/csv "
                    "or application/x-ndjson."
                )
        if len(body) >= LARGE:
            return self._parsed(body)
        rows, is_list = self._parser.parse(body)
        return rows, self._write_list if is_list else self._write_one

    def _parsed(self, body: bytes) -> Steps[Read]:
        rows, is_list = yield from self._parser.parsed(body)
        return rows, self._write_list if is_list else self._write_one

    def _taken(self, lines: Steps[Rows], body: bytes) -> Read | Steps[Read]:
        """Return rows that came as lines, of a large body in steps."""

        def taken() -> Steps[Read]:
            return (yield from lines), self._write_list

        return taken() if len(body) >= LARGE else finished(taken())

    def refusal(self, error: ApiError) -> ApiError:
        """Return the error as it is."""
        return error

    def answer(self, prediction: Prediction) -> dict[str, Any]:
        """Return the answer for one row as clients see it."""
        answer: dict[str, Any] = {"prediction": prediction.value}
        if prediction.probabilities is not None:
            answer["prediction_proba"] = prediction.probabilities
        if prediction.scores is not None:
            answer["scores"] = prediction.scores
        if self._outputs:
            answer["outputs"] = dict(zip(self._outputs, prediction.value, strict=True))  # type: ignore[arg-type]
        if prediction.name is not None:
            answer[self._target] = prediction.name
        answer.update(self._model)
        return answer

    def _write_one(self, predictions: list[Prediction]) -> Answer:
        return Answer.of(to_json(self.answer(predictions[0])))

    def _write_list(self, predictions: Answered) -> Answer | Steps[Answer]:
        if isinstance(predictions, Columns):
            # Of rows that came as a table, which the parser takes.
            assert self._columns
            return Answer.of(self._columns.write(predictions))
        steps = self._written(predictions)
        return steps if len(predictions) > MANY else finished(steps)

    def _written(self, predictions: list[Prediction]) -> Steps[Answer]:
        parts = []
        for first in range(0, len(predictions), MANY):
            some = [self.answer(prediction) for prediction in predictions[first : first + MANY]]
            parts.append(to_json(some)[1:-1])
            yield
        return Answer.of(b"[%b]" % b",".join(parts))


class _ColumnWriter:
    """Writes a list of answers from columns: what is the same in all answers of a class is written once.

    Args:
        answer: what an answer is for one row.
        manifest: of the model.
    """

    # No number is written so.
    _PLACE = "\x00number"

    def __init__(self, answer: Callable[[Prediction], dict[str, Any]], manifest: Manifest) -> None:
        place: Any = self._PLACE
        if manifest.classes is None:
            templates = [Prediction(place)]
        else:
            templates = [
                Prediction(each.value, number, each.name, place if manifest.probabilities else None)
                for number, each in enumerate(manifest.classes)
            ]
        parts = [to_json(answer(template)).partition(to_json(self._PLACE)) for template in templates]
        self._before, self._after = [part[0] for part in parts], [part[2] for part in parts]
        # What stands between the numbers of a row and those of the next, for each pair of classes if there are few.
        afters = self._after if len(self._after) <= _MOST_PAIRED else []
        self._between = [b"]%b,%b[" % (after, before) for after in afters for before in self._before]

    def write(self, columns: Columns) -> bytes:
        """Return the answers as a list in JSON."""
        if columns.numbers is None:
            texts = written(columns.values)[1:-1].split(b",")
            return b"[%b%b%b]" % (
                self._before[0],
                (self._after[0] + b"," + self._before[0]).join(texts),
                self._after[0],
            )
        numbers = columns.numbers
        if columns.probabilities is None:
            return b"[%b]" % b",".join(map(self._before.__getitem__, numbers.tolist()))
        texts = written(columns.probabilities)[2:-2].split(b"],[")
        parts = [b""] * (2 * len(texts) + 1)
        parts[0] = b"[%b[" % self._before[numbers[0]]
        parts[1::2] = texts
        if self._between:
            pairs = (numbers[:-1] * len(self._before) + numbers[1:]).tolist()
            parts[2:-1:2] = map(self._between.__getitem__, pairs)
        else:
            of_rows = numbers.tolist()
            afters = map(self._after.__getitem__, of_rows[:-1])
            befores = map(self._before.__getitem__, of_rows[1:])
            parts[2:-1:2] = [b"]%b,%b[" % pair for pair in zip(afters, befores, strict=True)]
        parts[-1] = b"]%b]" % self._after[numbers[-1]]
        return b"".join(parts)


def written(numbers: Any) -> bytes:
    """Return an array in JSON."""
    if numbers.dtype.kind == "f":
        numbers = numbers.astype(np.float64, copy=False)
    return orjson.dumps(np.ascontiguousarray(numbers), option=orjson.OPT_SERIALIZE_NUMPY)
