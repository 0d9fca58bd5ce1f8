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


class _Direct:
    """The same without ASGI, as our own server lets an application answer: see iris_api.server.protocol."""

    direct: _Direct

    async def __call__(self, scope: Message, *channels: Any) -> None:
        await app(scope, *channels)

    def handler(self, _scope: Message) -> Callable[[Message, bytes, Callable[..., None]], None]:
        return self._answer

    @staticmethod
    def _answer(_scope: Message, _body: bytes, reply: Callable[..., None]) -> None:
        reply(200, HEADERS, ANSWER)


direct = _Direct()
direct.direct = direct
