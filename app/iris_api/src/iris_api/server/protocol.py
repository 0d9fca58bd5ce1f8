"""How the server speaks HTTP: as uvicorn does, but for a prediction that was asked for in one piece."""

from collections.abc import Callable
from functools import partial
from typing import Any

from uvicorn.protocols.http.httptools_impl import STATUS_LINE, HttpToolsProtocol, RequestResponseCycle

from iris_api.http.direct import Direct, Handler
from iris_api.predict.reply import Headers


class Protocol(HttpToolsProtocol):
    """uvicorn's protocol, with a short way for a request that an application answers directly.

    For each request uvicorn makes a task, an event and a coroutine that waits for the body, and it writes head and body
    of the answer apart, which is two system calls and wakes the gateway twice. None of that is needed where the body
    came with the head and the answer is there as a whole. Whatever else a client does is left to uvicorn's own code.
    """

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self._direct: Direct | None = getattr(self.app, "direct", None)
        self._undecided: tuple[RequestResponseCycle, Handler] | None = None
        self._give_up: Callable[[], object] | None = None

    def _start_asgi_task(self, cycle: RequestResponseCycle, app: Any) -> None:
        """Put the task off until all that has arrived is read; uvicorn calls this once it has the head of a request.

        Without a body there is nothing that the task could do. A client that waits for "100 Continue" or does not read
        what it asked for gets its task at once, and so does a request whose body was read while it waited for another.
        """
        if self._direct and app is self.app and cycle.more_body:
            handler = self._direct.handler(cycle.scope)  # type: ignore[arg-type]
            if handler and not cycle.waiting_for_100_continue and not self.flow.write_paused:
                self._undecided = cycle, handler
                return
        super()._start_asgi_task(cycle, app)

    def connection_lost(self, exc: Exception | None) -> None:
        """Give a request up whose client has gone away; uvicorn's loop calls this."""
        super().connection_lost(exc)
        if self._give_up:
            self._give_up()

    def data_received(self, data: bytes) -> None:
        """Read what arrived, and answer the request that has now arrived as a whole or give it its task."""
        super().data_received(data)
        if self._undecided:
            (cycle, handler), self._undecided = self._undecided, None
            if cycle.more_body:
                super()._start_asgi_task(cycle, self.app)
            else:
                reply = partial(self._reply, cycle)
                self._give_up = handler(cycle.scope, bytes(cycle.body), reply)  # type: ignore[arg-type]

    def send_400_response(self, msg: str) -> None:
        """Hand what is no HTTP to the application to answer; uvicorn calls this."""
        if not self._direct:
            super().send_400_response(msg)
            return

        def reply(status: int, headers: Headers, body: bytes) -> None:
            self.transport.write(self._rendered(status, headers, body, keep_alive=False))
            self.transport.close()

        self._direct.refuse_malformed(reply)

    def _reply(self, cycle: RequestResponseCycle, status: int, headers: Headers, body: bytes) -> None:
        """Do what `RequestResponseCycle.send` does, for an answer that is there as a whole."""
        self._give_up = None
        if cycle.disconnected:
            return
        cycle.response_started = cycle.response_complete = True
        self.transport.write(self._rendered(status, headers, body, keep_alive=cycle.keep_alive))
        if not cycle.keep_alive:
            self.transport.close()
        self.on_response_complete()

    def _rendered(self, status: int, headers: Headers, body: bytes, *, keep_alive: bool) -> bytes:
        content = [STATUS_LINE[status]]
        for name, value in (*self.server_state.default_headers, *headers):
            content += (name, b": ", value, b"\r\n")
        content += (b"\r\n" if keep_alive else b"connection: close\r\n\r\n", body)
        return b"".join(content)
