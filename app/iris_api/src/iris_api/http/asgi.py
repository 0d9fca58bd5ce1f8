"""How a request that came by ASGI, in one piece or in several, gets its answer from an endpoint."""

import asyncio

from fastapi import Request, Response
from starlette.requests import ClientDisconnect
from starlette.types import Receive

from iris_api.predict.batching import Awaited
from iris_api.predict.endpoint import Endpoint
from iris_api.predict.reply import Answer


async def respond(endpoint: Endpoint, request: Request) -> Response:
    """Return an endpoint's answer to a request; raise ApiError if there is none, ClientDisconnect if nobody waits."""
    body = await _read_body(request.receive, endpoint.limits.body_bytes)
    awaited: Awaited[Answer] = Awaited()
    cancel = endpoint.submit(request.scope["headers"], body, awaited.settle)
    if cancel:
        await _settled_or_left(awaited.future, request.receive)
        if cancel():
            raise ClientDisconnect
    answer = await awaited.future
    response = Response(answer.body)
    response.raw_headers = list(answer.headers)
    return response


async def _read_body(receive: Receive, limit: int) -> bytes:
    """Return the body of a request, or as much of it as shows that it is longer than the limit."""
    body = bytearray()
    while len(body) <= limit:
        message = await receive()
        if message["type"] == "http.disconnect":
            raise ClientDisconnect
        body += message.get("body", b"")
        if not message.get("more_body", False):
            break
    return bytes(body)


async def _settled_or_left(answer: asyncio.Future[Answer], receive: Receive) -> None:
    """Return when there is an answer, or when the client has gone away without it."""
    message = asyncio.ensure_future(receive())
    try:
        await asyncio.wait((answer, message), return_when=asyncio.FIRST_COMPLETED)
        if not answer.done() and message.result()["type"] != "http.disconnect":
            await asyncio.wait((answer,))
    finally:
        message.cancel()
