"""POST /predict, from the body's bytes to the answer's: all that stands between a server and the model.

`Predict` takes ASGI's scope and receive and needs no framework. FastAPI's route calls it, and so does `middleware`
on behalf of that route, because FastAPI's own way there takes longer than the prediction.
"""

from http import HTTPStatus
from typing import Any

from pydantic_core import to_json
from starlette.requests import ClientDisconnect
from starlette.types import Receive, Scope

from iris_api.batching import Batcher
from iris_api.errors import ApiError, invalid
from iris_api.manifest import Manifest
from iris_api.metrics import Metrics
from iris_api.model import Prediction
from iris_api.protocol import REQUESTS
from iris_api.rows import Row, RowParser


class Inference:
    """Rows in, predictions out, and counted."""

    def __init__(self, batcher: Batcher, metrics: Metrics) -> None:
        """Take what answers and what counts."""
        self._batcher = batcher
        self._metrics = metrics

    async def __call__(self, rows: list[Row], *, alone: bool = False) -> list[Prediction]:
        """Answer validated rows, in their order; alone means that no other request has been read."""
        predictions = []
        for row, prediction in zip(rows, await self._batcher.predict(rows, alone=alone), strict=True):
            if prediction is None:
                raise invalid("no_answer", "The model has no finite answer for these values.")
            self._metrics.count_row(row, prediction)
            predictions.append(prediction)
        return predictions


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
            rows, is_list = self._parser.parse(await read_body(receive, self._max_body_bytes))
            alone = len(scope.get(REQUESTS, ())) == 1
            answers = [self._answers.of(prediction) for prediction in await self._inference(rows, alone=alone)]
        except ApiError as error:
            self._metrics.count_rejection(error.code)
            raise
        rendered: bytes = to_json(answers if is_list else answers[0])
        return rendered


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
        if len(body) > limit:
            raise ApiError(
                HTTPStatus.REQUEST_ENTITY_TOO_LARGE, "body_too_large", f"The body is longer than {limit} bytes."
            )
        if not message.get("more_body", False):
            return body
