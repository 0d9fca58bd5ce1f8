"""How the server speaks HTTP: as uvicorn does, with one write less an answer, and telling who else asks."""

import asyncio

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

# In a scope: all requests that have been read and not answered.
REQUESTS = "iris_api.requests"


class Protocol(HttpToolsProtocol):
    """Sends head and body of an answer together.

    uvicorn writes the head as soon as it has it, so that an answer takes two system calls, travels in two segments and
    may wake the gateway twice. docs/benchmarks.md has a bare answer by either server.
    """

    def on_headers_complete(self) -> None:
        """Begin with a request whose head has been read; httptools calls this."""
        super().on_headers_complete()
        self.scope[REQUESTS] = self.tasks  # type: ignore[literal-required]
        # A client that waits for "100 Continue" must not wait for the answer.
        if not self.cycle.waiting_for_100_continue:
            self.cycle.transport = _HeadWaitsForBody(self.transport)


class _HeadWaitsForBody(asyncio.Transport):
    """What a request's cycle needs of a transport: keeps the first thing written until the second comes."""

    def __init__(self, transport: asyncio.Transport) -> None:
        self._transport = transport
        self._head: bytes | None = None
        self.is_closing = transport.is_closing  # type: ignore[method-assign]
        self.close = transport.close  # type: ignore[method-assign]

    def write(self, data: bytes) -> None:  # type: ignore[override]
        if self._head is None:
            self._head = data
        else:
            self._transport.write(self._head + data)
            self._head = b""
