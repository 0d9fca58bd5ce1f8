"""POST /predict, from the body's bytes to the answer's: all that stands between a server and the model.

`Predict` takes ASGI's scope and receive, or a body that is there already, and needs no framework. FastAPI's route calls
it, and so does `middleware` on behalf of that route, because FastAPI's own way there takes longer than the prediction.
"""

from collections.abc import Callable
from http import HTTPStatus
from typing import Any

from pydantic_core import to_json
from starlette.requests import ClientDisconnect
from starlette.types import Receive, Scope

from iris_api.batching import Awaited, Batcher, Predictions
from iris_api.errors import ApiError, invalid
from iris_api.manifest import Manifest
from iris_api.metrics import Metrics
from iris_api.model import Prediction
from iris_api.rows import Row, RowParser


class Inference:
    """Rows in, predictions out, and counted."""

    def __init__(self, batcher: Batcher, metrics: Metrics) -> None:
        """Take what answers and what counts."""
        self._batcher = batcher
        self._metrics = metrics

    async def __call__(self, rows: list[Row]) -> list[Prediction]:
        """Answer validated rows, in their order."""
        return self.counted(rows, await self._batcher.predict(rows))

    def submit(self, rows: list[Row], done: Callable[[Predictions | Exception], None]) -> None:
        """Have done called in a later turn of the loop with what `counted` is to be called with, or with an error."""
        self._batcher.submit(rows, done)

    def counted(self, rows: list[Row], predictions: Predictions) -> list[Prediction]:
        """Count the answers of some rows and return them, or raise ApiError if the model does not have all of them."""
        answers = []
        for row, prediction in zip(rows, predictions, strict=True):
            if prediction is None:
                raise invalid("no_answer", "The model has no finite answer for these values.")
            self._metrics.count_row(row, prediction)
            answers.append(prediction)
        return answers


class Predict:
    """The endpoint of /predict."""

    def __init__(
        self, manifest: Manifest, parser: RowParser, inference: Inference, metrics: Metrics, max_body_bytes: int
    ) -> None:
        """Take what judges input, what answers it, what counts, and how long a body may be."""
        self._metrics = metrics
        self._parser = parser
        self._inference = inference
        self._max_body_bytes = max_body_bytes
        self._answers = Answers(manifest)

    async def __call__(self, scope: Scope, receive: Receive) -> bytes:
        """Return the body of the answer, or raise ApiError."""
        try:
            require_json(scope)
            body = await read_body(receive, self._max_body_bytes)
        except ApiError as error:
            self._metrics.count_rejection(error.code)
            raise
        answer: Awaited[bytes] = Awaited()
        self.begin(scope, body, answer.settle)
        return await answer.future

    def begin(self, scope: Scope, body: bytes, done: Callable[[bytes | Exception], None]) -> None:
        """Have done called, now or in a later turn of the loop, with the body of the answer or with an error."""

        def render(predictions: Predictions | Exception) -> None:
            try:
                if isinstance(predictions, Exception):
                    raise predictions
                answers = [self._answers.of(each) for each in self._inference.counted(rows, predictions)]
                result: bytes | Exception = to_json(answers if is_list else answers[0])
            except Exception as error:
                result = self._counted(error)
            done(result)

        try:
            require_json(scope)
            require_length(body, self._max_body_bytes)
            rows, is_list = self._parser.parse(body)
            self._inference.submit(rows, render)
        except Exception as error:
            done(self._counted(error))

    def _counted(self, error: Exception) -> Exception:
        if isinstance(error, ApiError):
            self._metrics.count_rejection(error.code)
        return error


class Answers:
    """Puts predictions into the words of /predict."""

    def __init__(self, manifest: Manifest) -> None:
        """Take the manifest whose model answers."""
        self._target = manifest.target.name
        self._model = {"model": manifest.name, "model_version": manifest.version}

    def of(self, prediction: Prediction) -> dict[str, Any]:
        """Return the answer for one row as clients see it."""
        answer: dict[str, Any] = {"prediction": prediction.value}
        if prediction.probabilities is not None:
            answer["prediction_proba"] = prediction.probabilities
        if prediction.name is not None:
            answer[self._target] = prediction.name
        answer.update(self._model)
        return answer


def header(scope: Scope, name: bytes) -> bytes:
    """Return the first header of a name in small letters, or nothing."""
    headers: list[tuple[bytes, bytes]] = scope["headers"]
    for key, value in headers:
        if key == name:
            return value
    return b""


def require_json(scope: Scope) -> None:
    """Refuse a body that does not say it is JSON."""
    content_type = header(scope, b"content-type")
    if content_type != b"application/json" and content_type.partition(b";")[0].strip().lower() != b"application/json":
        raise ApiError(
            HTTPStatus.UNSUPPORTED_MEDIA_TYPE,
            "unsupported_media_type",
            "The body must be JSON, with the header Content-Type: application/json.",
        )


async def read_body(receive: Receive, limit: int) -> bytes:
    """Return the body of a request without ever holding more than the limit and one piece."""
    body = b""
    while True:
        message = await receive()
        if message["type"] == "http.disconnect":
            raise ClientDisconnect
        piece: bytes = message.get("body", b"")
        body += piece
        require_length(body, limit)
        if not message.get("more_body", False):
            return body


def require_length(body: bytes, limit: int) -> None:
    """Refuse a body that is too long."""
    if len(body) > limit:
        raise ApiError(HTTPStatus.REQUEST_ENTITY_TOO_LARGE, "body_too_large", f"The body is longer than {limit} bytes.")
