"""What every request gets: an id, our headers, a place in the metrics, and an answer without a traceback."""

import logging
import re
from collections.abc import Callable, Mapping
from functools import partial
from http import HTTPStatus
from os import urandom
from time import perf_counter

from starlette.requests import ClientDisconnect
from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from iris_api.http.direct import Handler, Reply
from iris_api.http.errors import api_error_response, error_response
from iris_api.predict.endpoint import Endpoint
from iris_api.predict.errors import ApiError, too_many_bytes
from iris_api.predict.metrics import Metrics
from iris_api.predict.reply import Answer, Headers, header

logger = logging.getLogger(__name__)

_SANE_ID = re.compile(rb"[A-Za-z0-9._-]{1,128}")
_CLIENT_GONE = 499
_OTHER = "other"


class RequestContext:
    """The outermost middleware, written against bare ASGI because it runs for every request.

    It is `direct.Direct` too: our own server takes a whole request to an endpoint by it, without ASGI and FastAPI.

    Args:
        app: the application within, whose routes call the same endpoints.
        metrics: what counts answers.
        headers: what every answer has, beside its request id.
        endpoints: what answers a POST, by its path.
        bytes_in_flight: how many bytes of bodies that do not come at once may be held at a time.
    """

    def __init__(
        self,
        app: ASGIApp,
        *,
        metrics: Metrics,
        headers: Mapping[str, str],
        endpoints: Mapping[str, Endpoint],
        bytes_in_flight: int,
    ) -> None:
        self.app = app
        self.metrics = metrics
        self.headers = [(name.lower().encode(), value.encode()) for name, value in headers.items()]
        self.bytes_in_flight = bytes_in_flight
        self.body_bytes = max(endpoint.limits.body_bytes for endpoint in endpoints.values())
        self._endpoints = endpoints
        self._handlers = {path: partial(self._answer, endpoint) for path, endpoint in endpoints.items()}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle one request as ASGI says."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        started = perf_counter()
        request_id = _request_id(scope["headers"])
        scope.setdefault("state", {})["request_id"] = request_id.decode()
        status = 0
        # FastAPI's routes know no HEAD: they answer it as a GET, and what they answer loses its body here.
        is_head = scope["method"] == "HEAD"
        inner = {**scope, "method": "GET"} if is_head else scope

        async def send_on(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                message["headers"] = [*message["headers"], *self._common_headers(request_id)]
            elif is_head and message["type"] == "http.response.body":
                message = {**message, "body": b""}
            await send(message)

        try:
            await self.app(inner, receive, send_on)
        except ClientDisconnect:
            status = _CLIENT_GONE
        except Exception as error:
            response = _unexpected(error, request_id, scope["path"])
            # Once an answer has begun nothing else can be said; the server then cuts it off.
            if not status:
                await response(inner, receive, send_on)
        # The route's own path, or else a client could make up as many label values as it likes.
        path = getattr(inner.get("route"), "path", _OTHER)
        self.metrics.count_request(path, status, perf_counter() - started)

    def handler(self, scope: Scope) -> Handler | None:
        """Return what answers a request to an endpoint, or None for any other request."""
        return self._handlers.get(scope["path"]) if scope["method"] == "POST" else None

    def refuse_beyond(self, scope: Scope, reply: Reply) -> None:
        """Answer a request whose body would be more than may be held: 503."""
        error = self._endpoints[scope["path"]].rejected(too_many_bytes())
        request_id = _request_id(scope["headers"])
        response = api_error_response(request_id.decode(), error)
        reply(response.status_code, (*response.raw_headers, *self._common_headers(request_id)), bytes(response.body))
        self.metrics.count_request(scope["path"], response.status_code, 0)

    def refuse_malformed(self, reply: Reply) -> None:
        """Answer what is no HTTP request: 400."""
        request_id = _request_id(())
        message = "This is no HTTP request: its first line, a header or the length of its body is malformed."
        logger.warning("Refused what is no HTTP request", extra={"request_id": request_id.decode()})
        response = error_response(request_id.decode(), HTTPStatus.BAD_REQUEST, "bad_request", message)
        headers = (*response.raw_headers, *self._common_headers(request_id))
        reply(response.status_code, headers, bytes(response.body))
        self.metrics.count_request(_OTHER, response.status_code, 0)

    def _answer(self, endpoint: Endpoint, scope: Scope, body: bytes, reply: Reply) -> Callable[[], object] | None:
        """Answer a request to an endpoint as `__call__` does, without FastAPI and without tasks."""
        started = perf_counter()
        headers = scope["headers"]
        request_id = _request_id(headers)

        def done(result: Answer | Exception) -> None:
            if isinstance(result, Answer):
                status = 200
                reply(status, (*result.headers, *self._common_headers(request_id)), result.body)
            else:
                if isinstance(result, ApiError):
                    response: Response = api_error_response(request_id.decode(), result)
                else:
                    response = _unexpected(result, request_id, scope["path"])
                status = response.status_code
                reply(status, (*response.raw_headers, *self._common_headers(request_id)), bytes(response.body))
            self.metrics.count_request(scope["path"], status, perf_counter() - started)

        cancel = endpoint.submit(headers, body, done)
        if cancel is None:
            return None

        def give_up() -> None:
            if cancel():
                self.metrics.count_request(scope["path"], _CLIENT_GONE, perf_counter() - started)

        return give_up

    def _common_headers(self, request_id: bytes) -> Headers:
        return (*self.headers, (b"x-request-id", request_id))


def _request_id(headers: Headers) -> bytes:
    """Return the id that a request brought, or a new one if that is not safe to put into logs and headers."""
    request_id = header(headers, b"x-request-id")
    return request_id if _SANE_ID.fullmatch(request_id) else urandom(16).hex().encode()


def _unexpected(error: Exception, request_id: bytes, path: str) -> Response:
    """Log an exception that nobody expected, and return the answer, which does not show it."""
    logger.error("Unexpected error", exc_info=error, extra={"request_id": request_id.decode(), "path": path})
    return error_response(
        request_id.decode(),
        HTTPStatus.INTERNAL_SERVER_ERROR,
        "internal_error",
        "Something went wrong here, not with your request. The log has more under this request id.",
    )
