"""What every request gets, whatever becomes of it: an id, our headers, a place in the metrics, no traceback."""

import logging
import re
from collections.abc import Callable, Mapping
from http import HTTPStatus
from os import urandom
from time import perf_counter
from typing import Protocol as Interface

from starlette.requests import ClientDisconnect
from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from iris_api.errors import ApiError, error_response
from iris_api.inference import header
from iris_api.metrics import Metrics
from iris_api.protocol import Headers, Reply

logger = logging.getLogger(__name__)

_SANE_ID = re.compile(rb"[A-Za-z0-9._-]{1,128}")
_CLIENT_GONE = 499


class Shortcut(Interface):
    """Answers one method and path with JSON in place of the application.

    It must be what the application's own route calls, so that the two differ in nothing but the time they take.
    """

    async def __call__(self, scope: Scope, receive: Receive) -> bytes:
        """Return the body of the answer, or raise ApiError."""

    def begin(self, scope: Scope, body: bytes, done: Callable[[bytes | Exception], None]) -> None:
        """Have done called, now or in a later turn of the loop, with the body of the answer or with an error."""


class RequestContext:
    """The outermost middleware, written against bare ASGI because it runs for every request.

    To our own server it is more: `protocol.Direct`, which answers a request that has a shortcut without ASGI.
    """

    def __init__(
        self,
        app: ASGIApp,
        *,
        metrics: Metrics,
        headers: Mapping[str, str],
        shortcuts: Mapping[tuple[str, str], Shortcut],
    ) -> None:
        """Wrap an application whose answers are counted and get these headers."""
        self.app = app
        self.metrics = metrics
        self.headers = [(name.lower().encode(), value.encode()) for name, value in headers.items()]
        self.shortcuts = shortcuts

    def takes(self, scope: Scope) -> bool:
        """Tell whether a request has a shortcut."""
        return (scope["method"], scope["path"]) in self.shortcuts

    def answer(self, scope: Scope, body: bytes, reply: Reply) -> None:
        """Answer a request that has a shortcut and whose body is there."""
        started = perf_counter()
        request_id = _request_id(scope)
        path = scope["path"]

        def done(result: bytes | Exception) -> None:
            status, headers, content = _rendered(result, request_id, path)
            reply(status, (*headers, *self.headers, (b"x-request-id", request_id)), content)
            self.metrics.count_request(path, status, perf_counter() - started)

        self.shortcuts[scope["method"], path].begin(scope, body, done)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle one request."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        started = perf_counter()
        request_id = _request_id(scope)
        scope.setdefault("state", {})["request_id"] = request_id.decode()
        status = 0

        async def send_with_headers(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                message["headers"] = [*message["headers"], *self.headers, (b"x-request-id", request_id)]
            await send(message)

        shortcut = self.shortcuts.get((scope["method"], scope["path"]))
        try:
            if shortcut:
                await _take(shortcut, scope, receive, send_with_headers)
            else:
                await self.app(scope, receive, send_with_headers)
        except ClientDisconnect:
            status = _CLIENT_GONE
        except Exception as error:
            response = _unexpected(error, request_id, scope["path"])
            if not status:
                await response(scope, receive, send_with_headers)
        # The route's own path, or else a client could make up as many label values as it likes.
        path = scope["path"] if shortcut else getattr(scope.get("route"), "path", "other")
        self.metrics.count_request(path, status, perf_counter() - started)


def _request_id(scope: Scope) -> bytes:
    """Return the id that a request brought, or a new one if that is none to put into logs and headers."""
    request_id = header(scope, b"x-request-id")
    return request_id if _SANE_ID.fullmatch(request_id) else urandom(16).hex().encode()


async def _take(shortcut: Shortcut, scope: Scope, receive: Receive, send: Send) -> None:
    try:
        result: bytes | Exception = await shortcut(scope, receive)
    except ApiError as error:
        result = error
    status, headers, body = _rendered(result, scope["state"]["request_id"].encode(), scope["path"])
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": body})


def _rendered(result: bytes | Exception, request_id: bytes, path: str) -> tuple[int, Headers, bytes]:
    """Return status, headers and body of the answer to what came of a shortcut."""
    if isinstance(result, bytes):
        return 200, ((b"content-length", b"%d" % len(result)), (b"content-type", b"application/json")), result
    if isinstance(result, ApiError):
        response: Response = result.response(request_id.decode())
    else:
        response = _unexpected(result, request_id, path)
    return response.status_code, response.raw_headers, bytes(response.body)


def _unexpected(error: Exception, request_id: bytes, path: str) -> Response:
    """Log an exception that nobody expected, and return the answer that does not tell of it."""
    logger.error("Unexpected error", exc_info=error, extra={"request_id": request_id.decode(), "path": path})
    return error_response(
        request_id.decode(),
        HTTPStatus.INTERNAL_SERVER_ERROR,
        "internal_error",
        "Something went wrong here, not with your request. The log has more under this request id.",
    )
