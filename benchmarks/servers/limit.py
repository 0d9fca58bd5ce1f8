"""The least that a server can do: read the body, send an answer that is ready. No model, no framework."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

ANSWER = (
    b'{"prediction":2,"prediction_proba":[1.2871073412521729e-05,0.15970350208560846,0.8402836268409791],'
    b'"species":"virginica","model":"iris","model_version":"1.0.0"}'
)
HEADERS = [(b"content-length", str(len(ANSWER)).encode()), (b"content-type", b"application/json")]

Message = dict[str, Any]


async def app(
    scope: Message, receive: Callable[[], Awaitable[Message]], send: Callable[[Message], Awaitable[None]]
) -> None:
    """Answer whatever is asked."""
    while scope["type"] == "lifespan":
        event = (await receive())["type"]
        await send({"type": f"{event}.complete"})
        if event == "lifespan.shutdown":
            return
    while (await receive()).get("more_body"):
        pass
    await send({"type": "http.response.start", "status": 200, "headers": HEADERS})
    await send({"type": "http.response.body", "body": ANSWER})
