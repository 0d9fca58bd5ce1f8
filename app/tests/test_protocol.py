"""What goes over the wire, of answers that this API does not give but the server must carry."""

from __future__ import annotations

import asyncio

import uvicorn
from starlette.types import Receive, Scope, Send

from iris_api.protocol import Protocol


async def in_pieces(scope: Scope, receive: Receive, send: Send) -> None:
    """Answer with a body of three pieces."""
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"6")]})
    for piece in (b"ab", b"cd", b"ef"):
        await send({"type": "http.response.body", "body": piece, "more_body": piece != b"ef"})


def test_an_answer_in_several_pieces_has_one_head() -> None:
    async def run() -> bytes:
        config = uvicorn.Config(in_pieces, http=Protocol, port=0, lifespan="off", log_config=None)
        server = uvicorn.Server(config)
        serving = asyncio.create_task(server.serve())
        while not server.started:
            await asyncio.sleep(0.01)
        reader, writer = await asyncio.open_connection(*server.servers[0].sockets[0].getsockname())
        writer.write(b"GET / HTTP/1.1\r\nHost: test\r\nConnection: close\r\n\r\n")
        answer = await reader.read()
        writer.close()
        server.should_exit = True
        await serving
        return answer

    head, _, body = asyncio.run(run()).partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 200 ")
    assert body == b"abcdef"
