"""Three kinds of client: one connection a request, kept connections (HTTP/1.1), and HTTP/2.

Written on asyncio and h2 instead of an HTTP library, because what is asked here lies below it: whether the server had
closed a connection before the request, and whether a byte of the answer came.
"""

from __future__ import annotations

import asyncio
import ssl
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field

from h2.config import H2Configuration
from h2.connection import H2Connection
from h2.errors import ErrorCodes
from h2.events import DataReceived, Event, ResponseReceived, StreamEnded, StreamReset
from h2.exceptions import ProtocolError

CONNECTIONS = {"keep-alive": 8, "http2": 2}

# Of a frame of HTTP/2: the length of its head, and what h2 is not to see.
HEAD = 9
GOAWAY = 7


class Failed(Exception):
    """A request got no answer; the message says why."""


class Closed(Failed):
    """The server closed a connection that had been used before, and no byte of the answer had come.

    The one failure after which every client may ask again: see RFC 9110, section 9.2.2, and RFC 9113, section 6.8.
    """


@dataclass(frozen=True)
class Site:
    """Where to ask, and the parts of a request that are always the same."""

    address: str
    name: str
    trust: str
    authorization: str
    agent: str
    port: int = 443

    def tls(self, protocol: str) -> ssl.SSLContext:
        """Return a context that trusts this site's CA and no other, and speaks one protocol."""
        context = ssl.create_default_context(cafile=self.trust)
        context.set_alpn_protocols([protocol])
        return context

    def headers(self, identity: str, body: bytes) -> list[tuple[str, str]]:
        """Return the headers of a request, but for those that differ between the protocols."""
        return [
            ("authorization", self.authorization),
            ("user-agent", self.agent),
            ("x-request-id", identity),
            ("content-type", "application/json"),
            ("content-length", str(len(body))),
        ]


@dataclass
class Answer:
    """What came back."""

    status: int = 0
    headers: dict[str, str] = field(default_factory=dict)
    body: bytes = b""


@dataclass
class Closings:
    """Connections that the server closed: found so before a request was sent, or by a request that got lost."""

    idle: int = 0
    hit: int = 0


class Http1:
    """One connection that speaks HTTP/1.1."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader, self.writer = reader, writer
        self.used = False
        self.reusable = True

    @classmethod
    async def open(cls, site: Site, context: ssl.SSLContext) -> Http1:
        """Connect."""
        try:
            return cls(*await asyncio.open_connection(site.address, site.port, ssl=context, server_hostname=site.name))
        except (OSError, EOFError) as error:
            raise Failed(f"no connection: {describe(error)}") from None

    @property
    def closed(self) -> bool:
        """Whether the server has closed the connection, as far as is known."""
        return self.reader.at_eof() or self.writer.is_closing()

    async def ask(self, site: Site, identity: str, body: bytes) -> Answer:
        """Send a request and read the answer."""
        head = [f"POST /predict HTTP/1.1\r\nhost: {site.name}"]
        head += [f"{name}: {value}" for name, value in site.headers(identity, body)]
        used, self.used = self.used, True
        answer = Answer()
        try:
            self.writer.write("\r\n".join([*head, "", ""]).encode() + body)
            line = await self.reader.readline()
            if not line:
                raise ConnectionResetError("closed")
            answer.status = int(line.split()[1])
            while line := (await self.reader.readline()).strip():
                name, _, value = line.decode("latin-1").partition(":")
                answer.headers[name.lower()] = value.strip()
            answer.body = await self.reader.readexactly(int(answer.headers["content-length"]))
        except (OSError, EOFError, ValueError, LookupError) as error:
            self.reusable = False
            if used and not answer.status and isinstance(error, OSError):
                raise Closed(describe(error)) from None
            raise Failed(f"{'half an answer' if answer.status else 'no answer'}: {describe(error)}") from None
        except BaseException:
            self.reusable = False
            raise
        if answer.headers.get("connection") == "close":
            self.reusable = False
        return answer

    def close(self) -> None:
        """Close the connection."""
        # Not the polite way round: a lost peer would never answer it.
        self.writer.transport.abort() if self.closed else self.writer.close()


class Http2(asyncio.Protocol):
    """One connection that speaks HTTP/2."""

    def __init__(self) -> None:
        self.h2 = H2Connection(H2Configuration(client_side=True, header_encoding="utf-8"))
        self.waiting: dict[int, tuple[asyncio.Future[Answer], Answer, bool]] = {}
        self.buffer = b""
        self.usable = True
        self.used = False
        self.lost = 0
        self.transport: asyncio.Transport

    @classmethod
    async def open(cls, site: Site, context: ssl.SSLContext) -> Http2:
        """Connect."""
        loop = asyncio.get_running_loop()
        try:
            _, protocol = await loop.create_connection(
                cls, site.address, site.port, ssl=context, server_hostname=site.name
            )
        except (OSError, EOFError) as error:
            raise Failed(f"no connection: {describe(error)}") from None
        return protocol

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Send the preface."""
        assert isinstance(transport, asyncio.Transport)
        self.transport = transport
        self.h2.initiate_connection()
        self.flush()

    @property
    def full(self) -> bool:
        """Whether as many streams are open as the server wants to have."""
        return self.h2.open_outbound_streams >= self.h2.remote_settings.max_concurrent_streams

    def flush(self) -> None:
        """Send what h2 has made ready."""
        if data := self.h2.data_to_send():
            self.transport.write(data)

    async def ask(self, site: Site, identity: str, body: bytes) -> Answer:
        """Send a request and read the answer."""
        future: asyncio.Future[Answer] = asyncio.get_running_loop().create_future()
        stream = self.h2.get_next_available_stream_id()
        head = [(":method", "POST"), (":scheme", "https"), (":authority", site.name), (":path", "/predict")]
        self.h2.send_headers(stream, head + site.headers(identity, body))
        self.h2.send_data(stream, body, end_stream=True)
        self.waiting[stream] = future, Answer(), self.used
        self.used = True
        self.flush()
        try:
            return await future
        finally:
            self.waiting.pop(stream, None)
            if not self.usable and not self.waiting:
                self.transport.close()

    def data_received(self, data: bytes) -> None:
        """Hand the pieces of the answers to those who wait for them."""
        self.buffer += data
        while len(self.buffer) >= HEAD and len(self.buffer) >= (end := HEAD + int.from_bytes(self.buffer[:3], "big")):
            frame, self.buffer = self.buffer[:end], self.buffer[end:]
            if frame[3] == GOAWAY:
                # h2 would take no answer after it, not even to the requests that the server still answers.
                self.go_away(int.from_bytes(frame[HEAD : HEAD + 4], "big"))
                continue
            try:
                for event in self.h2.receive_data(frame):
                    self.handle(event)
            except ProtocolError as error:
                self.lose(error)
                return
        if not self.transport.is_closing():
            self.flush()

    def handle(self, event: Event) -> None:
        """Take one event of the connection."""
        if (stream := getattr(event, "stream_id", None)) not in self.waiting:
            return
        future, answer, _ = self.waiting[stream]
        match event:
            case ResponseReceived():
                answer.headers = {str(name): str(value) for name, value in event.headers or ()}
                answer.status = int(answer.headers[":status"])
            case DataReceived():
                answer.body += event.data or b""
                self.h2.acknowledge_received_data(event.flow_controlled_length or 0, stream)
            case StreamEnded():
                if not future.done():
                    future.set_result(answer)
            case StreamReset():
                # REFUSED_STREAM: the server says that it has done nothing with it.
                self.fail(
                    stream,
                    f"stream reset with {event.error_code!r}",
                    safe=event.error_code == ErrorCodes.REFUSED_STREAM,
                )

    def go_away(self, last: int) -> None:
        """Send nothing more over this connection, and fail what the server says it has not looked at."""
        self.usable = False
        for stream in [stream for stream in self.waiting if stream > last]:
            self.fail(stream, "not processed: the connection was closed before", safe=True)
        if not self.waiting:
            self.transport.close()

    def fail(self, stream: int, reason: str, *, safe: bool = False) -> None:
        """Fail the request that waits for a stream."""
        if stream not in self.waiting:
            return
        future, answer, used = self.waiting[stream]
        if not future.done():
            what = "half an answer" if answer.status else "no answer"
            closed = used and not answer.status and safe
            self.lost += closed
            future.set_exception(Closed(reason) if closed else Failed(f"{what}: {reason}"))

    def lose(self, error: Exception | None) -> None:
        """Fail all streams."""
        self.usable = False
        for stream in list(self.waiting):
            self.fail(stream, describe(error) if error else "closed", safe=not isinstance(error, ProtocolError))
        self.transport.abort()

    def connection_lost(self, error: Exception | None) -> None:
        """Fail all streams."""
        self.lose(error)


def describe(error: BaseException) -> str:
    """Return in a few words what an exception means."""
    return f"{type(error).__name__}: {error}" if str(error) else type(error).__name__


class FreshClient:
    """Connects anew for each request."""

    def __init__(self, site: Site, closings: Closings) -> None:
        self.site, self.context = site, site.tls("http/1.1")

    async def ask(self, identity: str, body: bytes) -> Answer:
        """Send the request once."""
        connection = await Http1.open(self.site, self.context)
        try:
            return await connection.ask(self.site, identity, body)
        finally:
            connection.close()


class KeepAliveClient:
    """Keeps its connections, takes the one that was idle longest, and looks whether the server has closed it."""

    def __init__(self, site: Site, closings: Closings) -> None:
        self.site, self.context, self.closings = site, site.tls("http/1.1"), closings
        self.idle: deque[Http1] = deque()

    async def ask(self, identity: str, body: bytes) -> Answer:
        """Ask, and once more where the connection turned out to be closed."""
        try:
            return await self.ask_over(await self.connection(), identity, body)
        except Closed:
            self.closings.hit += 1
        return await self.ask_over(await Http1.open(self.site, self.context), identity, body)

    async def connection(self) -> Http1:
        """Return an open connection."""
        while len(self.idle) >= CONNECTIONS["keep-alive"]:
            connection = self.idle.popleft()
            if not connection.closed:
                return connection
            self.closings.idle += 1
            connection.close()
        return await Http1.open(self.site, self.context)

    async def ask_over(self, connection: Http1, identity: str, body: bytes) -> Answer:
        try:
            answer = await connection.ask(self.site, identity, body)
        except BaseException:
            connection.close()
            raise
        if connection.reusable:
            self.idle.append(connection)
        else:
            connection.close()
        return answer


class Http2Client:
    """Sends many requests over few connections, in turn; where all are full, it opens another one."""

    def __init__(self, site: Site, closings: Closings) -> None:
        self.site, self.context, self.closings = site, site.tls("h2"), closings
        self.open: deque[Http2] = deque()

    async def ask(self, identity: str, body: bytes) -> Answer:
        """Ask, and once more where the server closed the connection without having looked at the request."""
        try:
            return await (await self.connection()).ask(self.site, identity, body)
        except Closed:
            self.closings.hit += 1
        return await (await self.connection()).ask(self.site, identity, body)

    async def connection(self) -> Http2:
        """Return a usable connection."""
        for connection in [connection for connection in self.open if not connection.usable]:
            self.open.remove(connection)
            self.closings.idle += not connection.lost
        for _ in range(len(self.open) if len(self.open) >= CONNECTIONS["http2"] else 0):
            self.open.rotate()
            if not self.open[0].full:
                return self.open[0]
        connection = await Http2.open(self.site, self.context)
        self.open.appendleft(connection)
        return connection


Client = FreshClient | KeepAliveClient | Http2Client
KINDS: dict[str, Callable[[Site, Closings], Client]] = {
    "new connection": FreshClient,
    "keep-alive": KeepAliveClient,
    "http2": Http2Client,
}
