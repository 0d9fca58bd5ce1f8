"""A prediction, from a request's headers and body to the answer's: all that stands between a server and the model.

`Endpoint.submit` is the one way there, and says what it consists of. FastAPI's routes take it, and so does our server,
without them, for a request that has arrived as a whole (`protocol`). What bodies mean is the codec's part: `RowCodec`
here, of /predict, and `v2.TensorCodec`.
"""

import asyncio
from collections.abc import Callable, Sequence
from http import HTTPStatus
from typing import Any, NamedTuple, Self
from typing import Protocol as Interface

from fastapi import Request, Response
from pydantic_core import to_json
from starlette.requests import ClientDisconnect
from starlette.types import Receive

from iris_api.bundle.manifest import Manifest
from iris_api.engines.model import Prediction, RefusedError
from iris_api.http.errors import ApiError, Detail, invalid
from iris_api.predict.batching import Awaited, Batcher, Cancel, Predictions
from iris_api.predict.metrics import Metrics
from iris_api.predict.rows import Row, RowParser

Headers = Sequence[tuple[bytes, bytes]]
JSON = b"application/json"


class Answer(NamedTuple):
    """The answer to a request that got its predictions; its status is 200."""

    headers: Headers
    body: bytes

    @classmethod
    def of(cls, body: bytes, media_type: bytes = JSON, *headers: tuple[bytes, bytes]) -> Self:
        """Return an answer with the headers that every one has."""
        return cls(((b"content-length", b"%d" % len(body)), (b"content-type", media_type), *headers), body)


class Codec(Interface):
    """What the bodies of an API mean."""

    def read(self, headers: Headers, body: bytes) -> tuple[list[Row], Callable[[list[Prediction]], Answer]]:
        """Return the rows of a request, and what makes an answer of their predictions; or raise ApiError."""

    def refusal(self, error: ApiError) -> ApiError:
        """Return an error in the terms of the API."""


class Endpoint:
    """Answers the requests of one API."""

    def __init__(self, codec: Codec, batcher: Batcher, metrics: Metrics, max_body_bytes: int) -> None:
        """Take what reads and writes bodies, what answers rows, what counts, and how many bytes a body may have."""
        self._codec = codec
        self._batcher = batcher
        self._metrics = metrics
        self._max_body_bytes = max_body_bytes

    def submit(self, headers: Headers, body: bytes, done: Callable[[Answer | Exception], None]) -> Cancel | None:
        """Have done called, now or in a later turn of the loop, with the answer or with an error to answer with.

        What is returned gives the request up, if it will take a while.
        """

        def finish(predictions: Predictions | Exception) -> None:
            try:
                if isinstance(predictions, RefusedError):
                    raise _no_answer(predictions, len(rows))
                if isinstance(predictions, Exception):
                    raise predictions
                result: Answer | Exception = write(self._counted(rows, predictions))
            except Exception as error:
                result = self._refusal(error)
            done(result)

        try:
            if len(body) > self._max_body_bytes:
                raise ApiError(
                    HTTPStatus.REQUEST_ENTITY_TOO_LARGE,
                    "body_too_large",
                    f"The body is longer than the {self._max_body_bytes} bytes that one request may have.",
                )
            rows, write = self._codec.read(headers, body)
            return self._batcher.submit(rows, finish)
        except Exception as error:
            done(self._refusal(error))
            return None

    async def __call__(self, request: Request) -> Response:
        """Answer a request of ASGI, or raise ApiError."""
        body = await _read_body(request.receive, self._max_body_bytes)
        awaited: Awaited[Answer] = Awaited()
        cancel = self.submit(request.scope["headers"], body, awaited.settle)
        if cancel:
            await _settled_or_left(awaited.future, request.receive)
            if cancel():
                raise ClientDisconnect
        answer = await awaited.future
        response = Response(answer.body)
        response.raw_headers = list(answer.headers)
        return response

    def _counted(self, rows: list[Row], predictions: Predictions) -> list[Prediction]:
        """Count the predictions and return them, or raise ApiError if the model does not have all of them."""
        counted = []
        for row, prediction in zip(rows, predictions, strict=True):
            if prediction is None:
                raise invalid("no_answer", "The model has no finite answer for these values.")
            self._metrics.count_row(row, prediction)
            counted.append(prediction)
        return counted

    def _refusal(self, error: Exception) -> Exception:
        """Count an error that we expect, and put it in the terms of the API."""
        if not isinstance(error, ApiError):
            return error
        self._metrics.count_rejection(error.code)
        return self._codec.refusal(error)


class RowCodec:
    """The bodies of /predict: a row as an object, or a list of rows."""

    def __init__(self, manifest: Manifest, parser: RowParser) -> None:
        """Take the manifest whose model answers, and the judge of input."""
        self._parser = parser
        self._target = manifest.target.name
        self._model = {"model": manifest.name, "model_version": manifest.version}

    def read(self, headers: Headers, body: bytes) -> tuple[list[Row], Callable[[list[Prediction]], Answer]]:
        """Return the rows of a request, and what writes the answer to it."""
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
        if prediction.name is not None:
            answer[self._target] = prediction.name
        answer.update(self._model)
        return answer

    def _write_one(self, predictions: list[Prediction]) -> Answer:
        return Answer.of(to_json(self.answer(predictions[0])))

    def _write_list(self, predictions: list[Prediction]) -> Answer:
        return Answer.of(to_json([self.answer(prediction) for prediction in predictions]))


def _no_answer(error: RefusedError, rows: int) -> ApiError:
    """Return the error for a value that is a possible one, but not for this model."""
    places = [*([str(error.row)] if rows > 1 else []), *([error.field] if error.field else [])]
    detail = Detail(field=".".join(places) or "body", reason=f"The model refuses it: {error.reason}")
    return invalid("no_answer", "The model has no answer for these values.", detail)


def header(headers: Headers, name: bytes) -> bytes:
    """Return the first header of a name in small letters, or nothing."""
    for key, value in headers:
        if key == name:
            return value
    return b""


def not_json() -> ApiError:
    """Return the error for a body that is not declared as JSON."""
    return ApiError(
        HTTPStatus.UNSUPPORTED_MEDIA_TYPE,
        "unsupported_media_type",
        "The body must be JSON, with the header Content-Type: application/json.",
    )


async def _settled_or_left(answer: asyncio.Future[Answer], receive: Receive) -> None:
    """Return when there is an answer, or when the client has gone away without it."""
    message = asyncio.ensure_future(receive())
    try:
        await asyncio.wait((answer, message), return_when=asyncio.FIRST_COMPLETED)
        if not answer.done() and message.result()["type"] != "http.disconnect":
            await asyncio.wait((answer,))
    finally:
        message.cancel()


async def _read_body(receive: Receive, limit: int) -> bytes:
    """Return the body of a request, or as much of it as shows that it is longer than the limit."""
    body = b""
    while len(body) <= limit:
        message = await receive()
        if message["type"] == "http.disconnect":
            raise ClientDisconnect
        body += message.get("body", b"")
        if not message.get("more_body", False):
            break
    return body
