"""How the server speaks HTTP: as uvicorn does, but for a prediction that was asked for in one piece."""

from collections.abc import Callable
from functools import partial
from typing import Any

from uvicorn.protocols.http.httptools_impl import STATUS_LINE, HttpToolsProtocol, RequestResponseCycle

from iris_api.http.direct import Direct, Handler
from iris_api.predict.reply import Headers, header

# Bytes of a body that is cheaper to write beside its head than to copy behind it.
_LARGE = 1 << 16


class Protocol(HttpToolsProtocol):
    """uvicorn's protocol, with a short way for a request that an application answers directly.

    For each request uvicorn makes a task, an event and a coroutine that waits for the body, and it writes head and body
    of the answer apart, which is two system calls and wakes the gateway twice; of a large body it takes 64 KiB at a
    time. None of that is needed where the body is no longer than it may be and the answer is there as a whole. Whatever
    else a client does is left to uvicorn's own code.
    """

    held = 0
    """Bytes of the bodies that have not come as a whole, or are not answered, in this process."""

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self._direct: Direct | None = getattr(self.app, "direct", None)
        self._undecided: tuple[RequestResponseCycle, Handler] | None = None
        # What has come of its body.
        self._parts: list[bytes] = []
        self._length = 0
        self._reserved = 0
        self._give_up: Callable[[], object] | None = None
        # Whether what followed the last request is no HTTP, and is refused once that is answered.
        self._malformed = False

    def _start_asgi_task(self, cycle: RequestResponseCycle, app: Any) -> None:
        """Put the task off until all that has arrived is read; uvicorn calls this once it has the head of a request.

        Without a body there is nothing that the task could do. A client that waits for "100 Continue" or does not read
        what it asked for gets its task at once, and so does a request whose body was read while it waited for another.
        """
        if self._direct and app is self.app and cycle.more_body:
            handler = self._direct.handler(cycle.scope)  # type: ignore[arg-type]
            if handler and not cycle.waiting_for_100_continue and not self.flow.write_paused:
                self._undecided = cycle, handler
                # Some of it may have been read while another request was answered.
                self._parts, self._length = [bytes(cycle.body)], len(cycle.body)
                return
        super()._start_asgi_task(cycle, app)

    def on_body(self, body: bytes) -> None:
        """Take a part of a body; uvicorn's parser calls this."""
        # A client may have sent the next request behind this one already.
        if self._undecided and self._undecided[0] is self.cycle:
            self._parts.append(body)
            self._length += len(body)
        else:
            super().on_body(body)

    def connection_lost(self, exc: Exception | None) -> None:
        """Give a request up whose client has gone away; uvicorn's loop calls this."""
        super().connection_lost(exc)
        self._release()
        if self._give_up:
            self._give_up()

    def data_received(self, data: bytes) -> None:
        """Read what arrived, and answer the request that has now arrived as a whole, or give it its task."""
        if self._malformed:
            return
        super().data_received(data)
        if self._undecided:
            cycle, handler = self._undecided
            if not cycle.more_body:
                self._undecided = None
                body, self._parts = b"".join(self._parts), []
                self._give_up = handler(cycle.scope, body, partial(self._reply, cycle))  # type: ignore[arg-type]
            elif self._length > self._direct.body_bytes:  # type: ignore[union-attr]  # who gave the handler
                # It is refused, without the rest of it.
                self._undecided = None
                self._release()
                cycle.body = bytearray().join(self._parts)
                self._parts = []
                super()._start_asgi_task(cycle, self.app)
            elif not self._reserved:
                self._reserve(cycle)

    def _reserve(self, cycle: RequestResponseCycle) -> None:
        """Count what is to come of a body, or refuse it if that is more than may be held."""
        assert self._direct
        announced = header(list(cycle.scope["headers"]), b"content-length")
        # A length that is none the parser has refused; without one a body may be as long as any.
        length = min(int(announced) if announced else self._direct.body_bytes, self._direct.body_bytes)
        if Protocol.held and Protocol.held + length > self._direct.bytes_in_flight:
            self._undecided, self._parts = None, []
            # What else comes of it is not read.
            cycle.keep_alive = False
            self._direct.refuse_beyond(cycle.scope, partial(self._reply, cycle))  # type: ignore[arg-type]
            return
        self._reserved = length
        Protocol.held += length

    def _release(self) -> None:
        Protocol.held -= self._reserved
        self._reserved = 0

    def send_400_response(self, msg: str) -> None:
        """Hand what is no HTTP to the application to answer; uvicorn calls this.

        A request that came as a whole before it is answered first: its client would take the refusal for the answer.
        """
        if not self._direct:
            super().send_400_response(msg)
        elif self.cycle and not (self.cycle.response_complete or self.cycle.more_body):
            self._malformed = True
        else:
            self._refuse_malformed()

    def on_response_complete(self) -> None:
        """Go on to the next request; uvicorn calls this once an answer is written."""
        super().on_response_complete()
        if self._malformed and self.cycle.response_complete and not self.transport.is_closing():
            self._refuse_malformed()

    def _refuse_malformed(self) -> None:
        def reply(status: int, headers: Headers, body: bytes) -> None:
            self.transport.write(self._rendered(status, headers, body, keep_alive=False))
            self.transport.close()

        assert self._direct
        self._direct.refuse_malformed(reply)

    def _reply(self, cycle: RequestResponseCycle, status: int, headers: Headers, body: bytes) -> None:
        """Do what `RequestResponseCycle.send` does, for an answer that is there as a whole."""
        self._give_up = None
        if self._reserved:
            self._release()
        if cycle.disconnected:
            return
        cycle.response_started = cycle.response_complete = True
        head = self._rendered(status, headers, body if len(body) < _LARGE else b"", keep_alive=cycle.keep_alive)
        if len(body) < _LARGE:
            self.transport.write(head)
        else:
            # Together they would be copied once more.
            self.transport.writelines((head, body))
        if not cycle.keep_alive:
            self.transport.close()
        self.on_response_complete()

    def _rendered(self, status: int, headers: Headers, body: bytes, *, keep_alive: bool) -> bytes:
        content = [STATUS_LINE[status]]
        for name, value in (*self.server_state.default_headers, *headers):
            content += (name, b": ", value, b"\r\n")
        content += (b"\r\n" if keep_alive else b"connection: close\r\n\r\n", body)
        return b"".join(content)
