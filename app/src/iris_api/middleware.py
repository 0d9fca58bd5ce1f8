"""What every request gets, whatever becomes of it: an id, our headers, a place in the metrics, no traceback."""

import logging
import re
import uuid
from http import HTTPStatus
from time import perf_counter

from starlette.datastructures import Headers
from starlette.requests import ClientDisconnect
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from iris_api.errors import error_response
from iris_api.metrics import Metrics

logger = logging.getLogger(__name__)

_SANE_ID = re.compile(r"[A-Za-z0-9._-]{1,128}")
_CLIENT_GONE = 499


class RequestContext:
    """The outermost middleware, written against bare ASGI because it runs for every request."""

    def __init__(self, app: ASGIApp, *, metrics: Metrics, headers: dict[str, str]) -> None:
        """Wrap an application whose answers are counted and get these headers."""
        self.app = app
        self.metrics = metrics
        self.headers = [(name.lower().encode(), value.encode()) for name, value in headers.items()]

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle one request."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        started = perf_counter()
        request_id = Headers(scope=scope).get("x-request-id", "")
        if not _SANE_ID.fullmatch(request_id):
            request_id = uuid.uuid4().hex
        scope.setdefault("state", {})["request_id"] = request_id
        status = 0

        async def send_with_headers(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                message["headers"] = [*message["headers"], *self.headers, (b"x-request-id", request_id.encode())]
            await send(message)

        try:
            await self.app(scope, receive, send_with_headers)
        except ClientDisconnect:
            status = _CLIENT_GONE
        except Exception:
            logger.exception("Unexpected error", extra={"request_id": request_id, "path": scope["path"]})
            if not status:
                response = error_response(
                    request_id,
                    HTTPStatus.INTERNAL_SERVER_ERROR,
                    "internal_error",
                    "Something went wrong here, not with your request. The log has more under this request id.",
                )
                await response(scope, receive, send_with_headers)
        # The route's own path, or else a client could make up as many label values as it likes.
        path = getattr(scope.get("route"), "path", "other")
        self.metrics.requests.labels(path, str(status)).inc()
        self.metrics.latency.labels(path).observe(perf_counter() - started)
