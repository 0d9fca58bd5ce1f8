"""What the bodies of an API mean: rows in a request's, predictions in an answer's.

Here of `POST /predict`; the Open Inference Protocol has a codec of its own, in `iris_api.v2`.
"""

from collections.abc import Callable
from typing import Any, Protocol

from pydantic_core import to_json

from iris_api.bundle.manifest import Manifest
from iris_api.engines.model import Prediction, Row
from iris_api.predict.errors import ApiError, not_json
from iris_api.predict.reply import JSON, Answer, Headers, header
from iris_api.predict.rows import RowParser

Write = Callable[[list[Prediction]], Answer]
"""Makes the answer to a request of the predictions for its rows, in their order."""


class Codec(Protocol):
    """Reads the requests of an API and writes its answers."""

    def read(self, headers: Headers, body: bytes) -> tuple[list[Row], Write]:
        """Return the rows of a request, and what makes an answer of their predictions; or raise ApiError."""

    def refusal(self, error: ApiError) -> ApiError:
        """Return an error in the terms of the API."""


class RowCodec:
    """The bodies of `POST /predict`: a row as an object, or a list of rows."""

    def __init__(self, manifest: Manifest, parser: RowParser) -> None:
        self._parser = parser
        self._target = manifest.target.name
        self._outputs = [output.name for output in manifest.outputs or []]
        self._model = {"model": manifest.name, "model_version": manifest.version}

    def read(self, headers: Headers, body: bytes) -> tuple[list[Row], Write]:
        """Return the rows of a request, and what writes the answer to it; raise ApiError if it has none."""
        content_type = header(headers, b"content-type")
        if content_type != JSON and content_type.partition(b";")[0].strip().lower() != JSON:
            raise not_json()
        rows, is_list = self._parser.parse(body)
        return rows, self._write_list if is_list else self._write_one

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

    def _write_list(self, predictions: list[Prediction]) -> Answer:
        return Answer.of(to_json([self.answer(prediction) for prediction in predictions]))
