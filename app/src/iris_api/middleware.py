"""What every request gets, whatever becomes of it: an id, our headers, a place in the metrics, no traceback."""

import logging
import re
from collections.abc import Awaitable, Callable, Mapping
from http import HTTPStatus
from os import urandom
from time import perf_counter

from starlette.requests import ClientDisconnect
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from iris_api.errors import ApiError, error_response
from iris_api.inference import header
from iris_api.metrics import Metrics

logger = logging.getLogger(__name__)

_SANE_ID = re.compile(rb"[A-Za-z0-9._-]{1,128}")
_CLIENT_GONE = 499

Shortcut = Callable[[Scope, Receive], Awaitable[bytes]]


class RequestContext:
    """The outermost middleware, written against bare ASGI because it runs for every request.

    A shortcut answers a method and path with JSON in place of the application. It must be what the application's own
    route calls, so that the two differ in nothing but the time they take.
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

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle one request."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        started = perf_counter()
        request_id = header(scope, b"x-request-id")
        if not _SANE_ID.fullmatch(request_id):
            request_id = urandom(16).hex().encode()
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
        except Exception:
            logger.exception("Unexpected error", extra={"request_id": request_id.decode(), "path": scope["path"]})
            if not status:
                response = error_response(
                    request_id.decode(),
                    HTTPStatus.INTERNAL_SERVER_ERROR,
                    "internal_error",
                    "Something went wrong here, not with your request. The log has more under this request id.",
                )
                await response(scope, receive, send_with_headers)
        # The route's own path, or else a client could make up as many label values as it likes.
        path = scope["path"] if shortcut else getattr(scope.get("route"), "path", "other")
        self.metrics.count_request(path, status, perf_counter() - started)


async def _take(shortcut: Shortcut, scope: Scope, receive: Receive, send: Send) -> None:
    try:
        body = await shortcut(scope, receive)
    except ApiError as error:
        await error.response(scope["state"]["request_id"])(scope, receive, send)
        return
    headers = [(b"content-length", str(len(body)).encode()), (b"content-type", b"application/json")]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    await send({"type": "http.response.body", "body": body})
