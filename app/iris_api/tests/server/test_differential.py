"""The same bytes to an instance and to plain uvicorn with the same application: nobody can tell which is which.

A conversation goes over a real socket to either server, in one piece, cut at random places and byte by byte; what comes
back must be the same to the byte, but for what PERMITTED names.
"""

from __future__ import annotations

import asyncio
import itertools
import json
import os
import random
import re
import signal
from collections.abc import Callable, Iterator
from typing import NamedTuple

import pytest

from ..forks import Program
from ..instance import Instance, free_port
from ..paths import BUNDLE, ROOT, SOURCE

# Seconds of silence after which a server has said all it had to say.
PATIENCE = 1.5
# A server that closes while a client still speaks resets the connection, and what it said last may be lost: by chance.
TRIES = 5
# Seconds between two pieces; three times as many at each further try.
PAUSE = 0.001
# Conversations that are carried on side by side: most of them wait.
AT_ONCE = 32
SEED = int(os.environ.get("DIFFERENTIAL_SEED", "1"))


class Permitted(NamedTuple):
    """A difference, as what the two may say in its place."""

    reason: str
    pattern: bytes
    """Of an answer by either server."""
    stands_for: bytes


PERMITTED = [
    Permitted("the clock goes on between the two", rb"\r\ndate: [^\r]{29}\r\n", b"\r\ndate: NOW\r\n"),
    Permitted("each makes up ids of its own", rb"(?<=x-request-id: )[0-9a-f]{32}(?=\r\n)", b"ID"),
    Permitted("each makes up ids of its own", rb'(?<="request_id":")[0-9a-f]{32}(?=")', b"ID"),
    Permitted(
        "every answer of an instance has the one shape of errors and an id, also to what is no HTTP: uvicorn's",
        rb"HTTP/1.1 400 Bad Request\r\ndate: NOW\r\nserver: uvicorn\r\ncontent-type: text/plain; charset=utf-8\r\n"
        rb"content-length: 30\r\nconnection: close\r\n\r\nInvalid HTTP request received\.",
        b"MALFORMED",
    ),
    Permitted(
        "every answer of an instance has the one shape of errors and an id, also to what is no HTTP: ours",
        rb"HTTP/1.1 400 Bad Request\r\ndate: NOW\r\ncontent-length: \d+\r\ncontent-type: application/json\r\n"
        rb"x-served-by: iris-api@1\r\nx-model-version: 1.0.0\r\nx-request-id: ID\r\nconnection: close\r\n\r\n"
        rb'{"error":"This is no HTTP request[^"]*","code":"bad_request","request_id":"ID"}',
        b"MALFORMED",
    ),
    Permitted("the gunicorn configuration leaves this header out", rb"\r\nserver: uvicorn(?=\r\n)", b""),
    Permitted(
        "what came as a whole before something malformed is answered by an instance, by uvicorn if it had the time",
        rb"(?s)^HTTP/1.1 .*(?=MALFORMED)",
        b"",
    ),
]


def without_permitted(answer: bytes) -> bytes:
    for permitted in PERMITTED:
        answer = re.sub(permitted.pattern, permitted.stands_for, answer)
    return answer


# --- What is said

ROW = b'{"petal_length": 1.4, "petal_width": 0.2}'
TENSOR = json.dumps({"inputs": [{"name": "input", "shape": [1, 2], "datatype": "FP64", "data": [1.4, 0.2]}]}).encode()
PREDICT, INFER = "/predict", "/v2/models/iris/infer"
BODIES = {PREDICT: ROW, INFER: TENSOR}
JSON = "Content-Type: application/json"
# The last request of a conversation: once it is answered, so is everything before it.
LAST = b"GET /health HTTP/1.1\r\nHost: test\r\nConnection: close\r\n\r\n"


def head(first: str, *headers: str) -> bytes:
    return "\r\n".join([first, "Host: test", *headers]).encode("latin-1") + b"\r\n\r\n"


def post(path: str, *headers: str, body: bytes | None = None, version: str = "1.1") -> bytes:
    content = BODIES[path] if body is None else body
    return head(f"POST {path} HTTP/{version}", JSON, f"Content-Length: {len(content)}", *headers) + content


def chunked(path: str, *chunks: bytes, trailer: bytes = b"", extension: bytes = b"") -> bytes:
    content = b"".join(b"%x%b\r\n%b\r\n" % (len(chunk), extension, chunk) for chunk in chunks)
    return head(f"POST {path} HTTP/1.1", JSON, "Transfer-Encoding: chunked") + content + b"0\r\n" + trailer + b"\r\n"


METHODS = ["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "TRACE", "PROPFIND", "M-SEARCH", "PURGE", "LINK"]
PATHS = ["/predict", "/health", "/health/ready", INFER, "/v2", "/docs", "/docs/start.js", "/openapi.json", "/no"]
UPGRADE = ("Connection: Upgrade", "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==", "Sec-WebSocket-Version: 13")
H2C = ("Connection: Upgrade, HTTP2-Settings", "Upgrade: h2c", "HTTP2-Settings: AAMAAABkAARAAAAAAAIAAAAA")

# Each ends with LAST, unless the server is to close the connection of its own accord.
WHOLE: dict[str, bytes] = {
    **{f"{method} {path}": head(f"{method} {path} HTTP/1.1") for method in METHODS for path in PATHS},
    **{f"{method} {path} with a body": head(f"{method} {path} HTTP/1.1", JSON, "Content-Length: 2") + b"{}"
       for method in METHODS for path in (PREDICT, "/health")},
    "CONNECT": b"CONNECT test:443 HTTP/1.1\r\nHost: test\r\n\r\n",
    "OPTIONS *": head("OPTIONS * HTTP/1.1"),
    "absolute form": head("POST http://other/predict HTTP/1.1", JSON, "Content-Length: 41") + ROW,
    "a path in disguise": head("POST /%70redict?x=%ff&y HTTP/1.1", JSON, "Content-Length: 41") + ROW,
    "a path that is no text": head("GET /docs/%ff%00%ed%a0%80 HTTP/1.1"),
    "a path with dots": head("GET /docs/../../../etc/passwd HTTP/1.1"),
    "a path of 60000 bytes": head(f"GET /{'a' * 60_000} HTTP/1.1"),
    "a path of 70000 bytes": head(f"GET /{'a' * 70_000} HTTP/1.1"),
    "a fragment": head("GET /health#x HTTP/1.1"),
    **{f"{kind} {path}": message for path in (PREDICT, INFER) for kind, message in {
        "length": post(path),
        "length and a request id": post(path, "X-Request-ID: same"),
        "no body": head(f"POST {path} HTTP/1.1", JSON),
        "an empty body": post(path, body=b""),
        "another type": head(f"POST {path} HTTP/1.1", "Content-Type: text/plain", "Content-Length: 2") + b"{}",
        "no JSON": post(path, body=b"{"),
        "not UTF-8": post(path, body=b'{"\xff": 1}'),
        "no character": post(path, body=b'{"id": "\\ud800"}'),
        "no fields": post(path, body=b"{}"),
        "a body just too long": post(path, body=b" " * 65_537),
        "a body far too long": post(path, body=b" " * 400_000),
        "a length too long for a number": head(f"POST {path} HTTP/1.1", JSON, f"Content-Length: {10**30}"),
        "one chunk": chunked(path, BODIES[path]),
        "chunks": chunked(path, BODIES[path][:9], BODIES[path][9:10], BODIES[path][10:]),
        "chunks with extensions": chunked(path, BODIES[path], extension=b';name="value"'),
        "chunks with a trailer": chunked(path, BODIES[path], trailer=b"X-Trailer: x\r\n"),
        "no chunks": head(f"POST {path} HTTP/1.1", JSON, "Transfer-Encoding: chunked") + b"nonsense\r\n",
        "a chunk too long": chunked(path, BODIES[path]).replace(b"\r\n0\r\n", b"x\r\n0\r\n"),
        "too many bytes in chunks": chunked(path, *[b" " * 1000] * 70),
        "asks first": post(path, "Expect: 100-continue"),
        "asks first in capitals": post(path, "Expect: 100-Continue"),
        "asks first, chunked": chunked(path, BODIES[path]).replace(b"\r\n\r\n", b"\r\nExpect: 100-continue\r\n\r\n", 1),
        "expects something else": post(path, "Expect: miracles"),
        "an old client": post(path, version="1.0"),
        "an old client that stays": post(path, "Connection: keep-alive", version="1.0"),
        "the last of its connection": post(path, "Connection: close"),
        "the last of its connection, wrong": post(path, "Connection: close", body=b"{}"),
        "stays": post(path, "Connection: keep-alive"),
        "upgrade to websocket": post(path, "Upgrade: websocket", *UPGRADE),
        "upgrade to h2c": post(path, *H2C),
        "four in a row": post(path) * 4,
        "wrong and right": post(path, body=b"{}") + post(path) + post(path, body=b"[") + post(path),
        "before a GET": post(path) + head("GET /health HTTP/1.1"),
        "after a GET": head("GET /v2 HTTP/1.1") + post(path),
        "after a HEAD": head("HEAD /docs HTTP/1.1") + post(path) + head("HEAD /predict HTTP/1.1"),
        "with chunks in a row": chunked(path, BODIES[path]) + post(path) + chunked(path, b"{") + post(path),
        "before what is malformed": post(path) + b"\x00\r\n\r\n",
        "wrong and before what is malformed": post(path, body=b"{}") + b"\x00\r\n\r\n",
        "after its connection was to close": post(path, "Connection: close") + post(path),
        "long ones in a row": post(path, body=b" " * 60_000 + BODIES[path]) * 4,
    }.items()},
    "upgrade to websocket": head("GET /health HTTP/1.1", "Upgrade: websocket", *UPGRADE),
    "upgrade to h2c": head("GET /health HTTP/1.1", *H2C),
    "the preface of HTTP/2": b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
    "an old client": b"GET /health HTTP/1.0\r\n\r\n",
    "an old HEAD": b"HEAD /openapi.json HTTP/1.0\r\n\r\n",
    "an ancient client": b"GET /health\r\n\r\n",
    "no host": b"GET /health HTTP/1.1\r\n\r\n",
    "two hosts": head("GET /health HTTP/1.1", "Host: other"),
}  # fmt: skip

# What is refused, or not, at its first line or at one of its headers.
STARTS = {
    "garbage": b"\x00\xff\xfe garbage \r\n\r\n",
    "a TLS handshake": bytes.fromhex("16030100a5010000a10303") + bytes(60) + b"\r\n\r\n",
    "empty lines": b"\r\n\r\n\r\n",
    "a small method": b"get /health HTTP/1.1\r\nHost: test\r\n\r\n",
    "no such method": b"FETCH /health HTTP/1.1\r\nHost: test\r\n\r\n",
    "a method with a control byte": b"GE\x01T /health HTTP/1.1\r\n\r\n",
    "a version that is none": b"GET /health HTTP/9.9\r\nHost: test\r\n\r\n",
    "another protocol": b"GET /health SPDY/1.1\r\nHost: test\r\n\r\n",
    "something after the version": b"GET /health HTTP/1.1 x\r\nHost: test\r\n\r\n",
    "a path with a space": b"GET /a b HTTP/1.1\r\nHost: test\r\n\r\n",
    "a path with a control byte": b"GET /a\x01b HTTP/1.1\r\nHost: test\r\n\r\n",
    "a path with 0xff": b"GET /a\xffb HTTP/1.1\r\nHost: test\r\n\r\n",
    "a path without a slash": b"GET health HTTP/1.1\r\nHost: test\r\n\r\n",
    "lines without CR": b"GET /health HTTP/1.1\nHost: test\n\n",
}
HEADERS = {
    "a NUL": b"X-A: a\x00b",
    "a control byte": b"X-A: a\x01b",
    "DEL": b"X-A: a\x7fb",
    "0xff": b"X-A: \xff\xfe",
    "a newline alone": b"X-A: a\nX-B: b",
    "a CR alone": b"X-A: a\rX-B: b",
    "a control byte in its name": b"X\x01A: a",
    "a space in its name": b"X A: a",
    "a space before the colon": b"X-A : a",
    "no colon": b"nonsense",
    "no name": b": a",
    "no value": b"X-A:",
    "a folded line": b"X-A: a\r\n b",
    "100000 bytes": b"X-A: " + b"a" * 100_000,
    "3000 of them": b"\r\n".join(b"X-%d: a" % number for number in range(3000)),
    "a second length, the same": b"Content-Length: 41",
    "a second length": b"Content-Length: 40",
    "a length with a sign": b"Content-Length: +41",
    "a negative length": b"Content-Length: -41",
    "a length in hexadecimal": b"Content-Length: 0x29",
    "a length twice in one": b"Content-Length: 41, 41",
    "chunks and a length": b"Transfer-Encoding: chunked",
    "another encoding": b"Transfer-Encoding: gzip",
    "chunks twice": b"Transfer-Encoding: chunked, chunked",
    "chunks and then another": b"Transfer-Encoding: chunked, identity",
    "an encoding in disguise": b"Transfer-Encoding: xchunked",
    "a connection header of many": b"Connection: keep-alive, close, x",
    "an id that is none": b"X-Request-ID: a b",
    "an id with quotes": b'X-Request-ID: "}',
    "two ids": b"X-Request-ID: one\r\nX-Request-ID: two",
}
WHOLE |= {f"start: {name}": start for name, start in STARTS.items()}
for name, line in HEADERS.items():
    WHOLE[f"header: {name}"] = b"GET /health HTTP/1.1\r\nHost: test\r\n" + line + b"\r\n\r\n"
    WHOLE[f"header of {PREDICT}: {name}"] = post(PREDICT).replace(b"\r\n\r\n", b"\r\n" + line + b"\r\n\r\n")

# Clients that go away: in the middle of what they say, so that neither server can have answered it.
BROKEN = {
    **{f"{message[:30]!r} cut at {part}/4": message[: len(message) * part // 4]
       for message in (post(PREDICT), post(INFER), chunked(PREDICT, ROW), LAST) for part in (1, 2, 3)},
    "asked first": post(PREDICT, "Expect: 100-continue")[: -len(ROW)],
    "asked first, and sent a part": post(INFER, "Expect: 100-continue")[:-9],
    "nothing at all": b"",
}  # fmt: skip


# --- To whom


class Servers(NamedTuple):
    """Where the two listen."""

    ours: int
    plain: int


@pytest.fixture(scope="module")
def servers(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Servers]:
    folder = tmp_path_factory.mktemp("differential")
    port = free_port()
    environ = os.environ | {
        "PYTHONPATH": f"{ROOT}:{SOURCE}",
        "IRIS_API_MODEL_DIR": str(BUNDLE),
        "IRIS_API_MAX_BODY_BYTES": "65536",
    }
    log = (folder / "uvicorn.log").open("w")
    plain = Program("app.iris_api.tests.plain", str(port), env=environ, stdout=log, stderr=log)
    ours = Instance(folder, BUNDLE, IRIS_API_MAX_BODY_BYTES="65536")
    try:
        ours.wait_until_ready()
        asyncio.run(wait_until_it_listens(port))
        yield Servers(ours.port, port)
        # Whatever was said to it, its log is JSON.
        assert ours.log
    finally:
        ours.close()
        plain.send_signal(signal.SIGTERM)
        plain.wait(20)
        log.close()


async def wait_until_it_listens(port: int) -> None:
    for _ in range(200):
        try:
            _, writer = await asyncio.open_connection("127.0.0.1", port)
        except OSError:
            await asyncio.sleep(0.1)
        else:
            writer.close()
            return
    raise AssertionError("uvicorn does not listen")


async def answer(port: int, pieces: list[bytes], *, leaves: bool = False, pause: float = PAUSE) -> bytes:
    """Say something piece by piece and return all that comes, until the server closes or says no more."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    heard = bytearray()

    async def listen() -> None:
        while piece := await reader.read(65536):
            heard.extend(piece)

    listening = asyncio.create_task(listen())
    try:
        for piece in pieces:
            writer.write(piece)
            # Long enough for the server to have read it, mostly: where not, it is tried again with more time.
            await asyncio.sleep(pause if len(pieces) > 1 else 0)
            if listening.done():
                break
        if leaves:
            await asyncio.sleep(0.05)
            writer.write_eof()
        heard_before = -1
        while not listening.done() and len(heard) > heard_before:
            heard_before = len(heard)
            await asyncio.wait({listening}, timeout=PATIENCE)
        if listening.done():
            await listening
        else:
            heard += b"STAYS OPEN"
    except ConnectionError:
        heard += b"RESET"
    finally:
        listening.cancel()
        writer.close()
    return bytes(heard)


def in_one_piece(message: bytes) -> list[bytes]:
    return [message]


def at_random_places(message: bytes) -> list[bytes]:
    chance = random.Random(f"{SEED} {message[:2000]!r}")
    cuts = sorted({0, len(message), *(chance.randrange(len(message) + 1) for _ in range(4))})
    return [message[first:last] for first, last in itertools.pairwise(cuts)]


def byte_by_byte(message: bytes) -> list[bytes]:
    # Of long ones the end is cut up, and enough of the beginning.
    middle = max(len(message) - 300, 0)
    return (
        [bytes([byte]) for byte in message[: min(150, middle)]]
        + [message[150:middle]][: middle > 150]
        + [bytes([byte]) for byte in message[middle:]]
    )


CUTS = [in_one_piece, at_random_places, byte_by_byte]


# --- The comparison


async def differences(servers: Servers, said: dict[str, list[bytes]], *, leaves: bool = False) -> dict[str, object]:
    """Return by name the conversations that the two servers do not carry on alike, with what each said."""
    found: dict[str, object] = {}
    at_once = asyncio.Semaphore(AT_ONCE)

    async def compare(name: str, pieces: list[bytes]) -> None:
        async with at_once:
            heard: list[bytes] = []
            for number in range(TRIES):
                pause = PAUSE * 3**number
                both = await asyncio.gather(*(answer(port, pieces, leaves=leaves, pause=pause) for port in servers))
                heard = [without_permitted(each) for each in both]
                if heard[0] == heard[1] and b"RESET" not in heard[0]:
                    return
            found[name] = heard

    await asyncio.gather(*(compare(name, pieces) for name, pieces in said.items()))
    return found


@pytest.mark.parametrize("cut", CUTS)
def test_an_instance_answers_as_plain_uvicorn_does(servers: Servers, cut: Callable[[bytes], list[bytes]]) -> None:
    said = {name: cut(message + LAST) for name, message in WHOLE.items()}
    assert asyncio.run(differences(servers, said)) == {}


def test_an_instance_takes_leave_as_plain_uvicorn_does(servers: Servers) -> None:
    said = {name: cut(message) for name, message in BROKEN.items() for cut in CUTS}
    assert asyncio.run(differences(servers, said, leaves=True)) == {}


def test_the_comparison_sees_every_kind_of_answer(servers: Servers) -> None:
    """Two servers that say nothing would be alike as well."""

    async def listen() -> list[bytes]:
        at_once = asyncio.Semaphore(AT_ONCE)

        async def one(message: bytes) -> bytes:
            async with at_once:
                return await answer(servers.ours, [message + LAST])

        return await asyncio.gather(*map(one, WHOLE.values()))

    answers = asyncio.run(listen())
    assert all(each.startswith(b"HTTP/1.1 ") for each in answers)
    statuses = {int(status) for each in answers for status in re.findall(rb"HTTP/1.1 (\d+) ", each)}
    assert statuses == {100, 200, 400, 404, 405, 413, 415, 422}
