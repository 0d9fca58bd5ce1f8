"""How the server speaks HTTP: as uvicorn does, with one write less an answer, and no task where none is needed."""

import asyncio
from collections.abc import Callable, Iterable
from functools import partial
from typing import Any
from typing import Protocol as Interface

from starlette.types import Scope
from uvicorn.protocols.http.httptools_impl import STATUS_LINE, HttpToolsProtocol, RequestResponseCycle

Headers = Iterable[tuple[bytes, bytes]]
Reply = Callable[[int, Headers, bytes], None]


class Direct(Interface):
    """What an application offers as its attribute `direct` to answer some requests by a call, in place of ASGI."""

    def takes(self, scope: Scope) -> bool:
        """Tell whether a request is one of them."""

    def answer(self, scope: Scope, body: bytes, reply: Reply) -> None:
        """Answer a request whose body is there: call reply once, with status, headers and body, now or later."""


class Protocol(HttpToolsProtocol):
    """Sends head and body of an answer together, and calls an application directly where that is the same.

    uvicorn writes the head as soon as it has it, so that an answer takes two system calls, travels in two segments and
    may wake the gateway twice. It also makes a task, an event and a coroutine for each request, to wait for a body
    that nearly always came with the head. docs/benchmarks.md has a bare answer by either server, and a profile.
    """

    def __init__(self, *arguments: Any, **options: Any) -> None:
        """Take what uvicorn gives."""
        super().__init__(*arguments, **options)
        self._direct: Direct | None = getattr(self.app, "direct", None)
        self._held: RequestResponseCycle | None = None
        self._idle_since: float | None = None

    def _start_asgi_task(self, cycle: RequestResponseCycle, app: Any) -> None:
        """Hold a request back that may be answered without a task; uvicorn calls this once it has the head.

        A client that waits for "100 Continue", or does not read what it asked for, is left to uvicorn. So is a request
        whose body has been read already: it had to wait for another one of its connection.
        """
        direct = self._direct if app is self.app else None
        if (
            direct is not None
            and cycle.more_body
            and not cycle.waiting_for_100_continue
            and not self.flow.write_paused
            and direct.takes(cycle.scope)  # type: ignore[arg-type]
        ):
            self._held = cycle
            return
        if not cycle.waiting_for_100_continue:
            cycle.transport = _HeadWaitsForBody(self.transport)
        super()._start_asgi_task(cycle, app)

    def on_message_complete(self) -> None:
        """Answer a request that was held back and is there as a whole; httptools calls this."""
        super().on_message_complete()
        cycle, self._held = self._held, None
        if cycle is not None:
            assert self._direct
            scope: Scope = cycle.scope  # type: ignore[assignment]
            self._direct.answer(scope, bytes(cycle.body), partial(self._reply, cycle))

    def data_received(self, data: bytes) -> None:
        """Read what arrived; a request that was held back, and is not there as a whole, becomes a task after all."""
        super().data_received(data)
        if self._held is not None:
            cycle, self._held = self._held, None
            cycle.transport = _HeadWaitsForBody(self.transport)
            super()._start_asgi_task(cycle, self.app)

    def _unset_keepalive_if_required(self) -> None:
        """Note that the connection is in use; uvicorn calls this when something was read.

        uvicorn ends a timer with each request and starts another one with each answer, which takes longer than to make
        room for the answer. Ours goes on, and looks when it rings whether the connection has been idle for that long.
        """
        self._idle_since = None

    def on_response_complete(self) -> None:
        """Go on after an answer; uvicorn calls this."""
        if self.pipeline:
            super().on_response_complete()
            return
        self.server_state.total_requests += 1
        if self.transport.is_closing():
            return
        self.flow.resume_reading()
        self._idle_since = self.loop.time()
        if self.timeout_keep_alive_task is None:
            self.timeout_keep_alive_task = self.loop.call_later(
                self.timeout_keep_alive, self.timeout_keep_alive_handler
            )

    def timeout_keep_alive_handler(self) -> None:
        """Close a connection that has been idle for long enough, or look again when it may have been."""
        self.timeout_keep_alive_task = None
        if self._idle_since is None or self.transport.is_closing():
            return
        left = self._idle_since + self.timeout_keep_alive - self.loop.time()
        if left > 0:
            self.timeout_keep_alive_task = self.loop.call_later(left, self.timeout_keep_alive_handler)
        else:
            super().timeout_keep_alive_handler()

    def connection_lost(self, exc: Exception | None) -> None:
        """Forget the timer."""
        super().connection_lost(exc)
        if self.timeout_keep_alive_task is not None:
            self.timeout_keep_alive_task.cancel()

    def _reply(self, cycle: RequestResponseCycle, status: int, headers: Headers, body: bytes) -> None:
        """Do what `RequestResponseCycle.send` does for an answer that is there as a whole."""
        if cycle.disconnected:
            return
        cycle.response_started = cycle.response_complete = True
        content = [STATUS_LINE[status]]
        for name, value in (*cycle.default_headers, *headers):
            content += (name, b": ", value, b"\r\n")
        content += (b"\r\n" if cycle.keep_alive else b"connection: close\r\n\r\n", body)
        self.transport.write(b"".join(content))
        if not cycle.keep_alive:
            self.transport.close()
        self.on_response_complete()


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
