"""What goes over the wire where the server takes a shorter way than uvicorn; test_differential compares the two."""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import Awaitable, Callable, Sequence
from typing import Any

import pytest
import uvicorn
from starlette.types import ASGIApp, Receive, Scope, Send
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from iris_api.engines.model import Model
from iris_api.http.middleware import RequestContext
from iris_api.predict.endpoint import Endpoint
from iris_api.predict.metrics import Metrics
from iris_api.server.protocol import Protocol
from iris_api.settings import Settings

from ..apps import load, serving

Talk = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[bytes]]


def serve(app: ASGIApp, talk: Talk, keep_alive: Any = 30) -> bytes:
    """Run a server with this protocol, and a client."""

    async def run() -> bytes:
        options: dict[str, Any] = {"lifespan": "off", "log_config": None, "proxy_headers": False}
        config = uvicorn.Config(app, http=Protocol, port=0, timeout_keep_alive=keep_alive, **options)
        config.load()
        server = uvicorn.Server(config)
        server.lifespan = config.lifespan_class(config)
        # What its `serve` does, less the loop that looks ten times a second whether it is to end.
        await server.startup()
        await server.on_tick(0)
        reader, writer = await asyncio.open_connection(*server.servers[0].sockets[0].getsockname())
        answer = await asyncio.wait_for(talk(reader, writer), 10)
        writer.close()
        server.servers[0].close()
        return answer

    return asyncio.run(run())


def say(*pieces: bytes) -> Talk:
    """Send pieces apart from each other and return all that comes, until the server closes the connection."""

    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bytes:
        for piece in pieces:
            writer.write(piece)
            await writer.drain()
            await asyncio.sleep(0.05)
        return await reader.read()

    return talk


async def in_pieces(scope: Scope, receive: Receive, send: Send) -> None:
    """Answer with a body of three pieces."""
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"6")]})
    for piece in (b"ab", b"cd", b"ef"):
        await send({"type": "http.response.body", "body": piece, "more_body": piece != b"ef"})


def test_an_answer_in_several_pieces_has_one_head() -> None:
    answer = serve(in_pieces, say(b"GET / HTTP/1.1\r\nHost: test\r\nConnection: close\r\n\r\n"))
    head, _, body = answer.partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 200 ")
    assert body == b"abcdef"


def test_head_is_answered_at_once_and_its_connection_goes_on(settings: Settings, model: Model) -> None:
    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bytes:
        for path in (b"/health", b"/docs", b"/predict"):
            writer.write(b"HEAD %b HTTP/1.1\r\nHost: test\r\n\r\n" % path)
            head = await asyncio.wait_for(reader.readuntil(b"\r\n\r\n"), 1)
            assert head.startswith(b"HTTP/1.1 405 " if path == b"/predict" else b"HTTP/1.1 200 ")
            assert re.search(rb"\r\ncontent-length: [1-9]", head)
        return await say(b"GET /health HTTP/1.1\r\nHost: test\r\nConnection: close\r\n\r\n")(reader, writer)

    # What comes first is the next answer, not the body of the one before.
    assert serve(serving(settings, model), talk).startswith(b"HTTP/1.1 200 ")


@pytest.mark.parametrize(
    "malformed",
    [
        b"\x00\xff\r\n\r\n",
        b"GET /health HTTP/9.9\r\n\r\n",
        b"GET /health HTTP/1.1\r\nX-A: \x00\r\n\r\n",
        b"GET /health HTTP/1.1\r\nX\xff: a\r\n\r\n",
        b"GET /%b HTTP/1.1\r\n\r\n" % (b"a" * 70_000),
        b"GET /\xff HTTP/1.1\r\n\r\n",
        b"POST /predict HTTP/1.1\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\n",
    ],
)
def test_what_is_no_http_gets_the_one_shape_of_errors(settings: Settings, model: Model, malformed: bytes) -> None:
    head, _, body = serve(serving(settings, model), say(malformed)).partition(b"\r\n\r\n")
    headers = dict(line.split(": ", 1) for line in head.decode().splitlines()[1:])
    assert head.startswith(b"HTTP/1.1 400 ")
    assert (headers["connection"], headers["content-type"]) == ("close", "application/json")
    assert (headers["x-served-by"], int(headers["content-length"])) == ("iris-api@2", len(body))
    error = json.loads(body)
    assert (error["code"], error["request_id"]) == ("bad_request", headers["x-request-id"])


@pytest.mark.parametrize("pieces", [1, 2])
@pytest.mark.parametrize(
    "before",
    [
        [b"POST /predict"],
        [b"GET /health"],
        [b"POST /predict", b"GET /health", b"POST /predict"],
        [b"POST /v2/models/iris/infer", b"POST /predict"],
    ],
    ids=lambda before: f"{len(before)} {before[0].decode()}",
)
def test_requests_are_answered_before_what_is_no_http_behind_them(
    settings: Settings, model: Model, before: list[bytes], pieces: int
) -> None:
    """Or else the refusal would be taken for the answer to the first of them."""
    body = b'{"petal_length": 1.4, "petal_width": 0.2}'
    requests = b"".join(
        b"%b HTTP/1.1\r\nHost: test\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n%b"
        % ((line, len(body), body) if line.startswith(b"POST") else (line, 0, b""))
        for line in before
    )
    said = [requests + b"\x00\r\n\r\n", b"GET /health HTTP/1.1\r\n\r\n"][:pieces]
    answer = serve(serving(settings, model), say(*said))
    statuses = [int(status) for status in re.findall(rb"HTTP/1.1 (\d+) ", answer)]
    expected = [400 if line.startswith(b"POST /v2") else 200 for line in before]
    assert statuses == [*expected, 400]
    assert answer.count(b"This is no HTTP request") == 1


# --- The way without a task

ROW = {"petal_length": 1.4, "petal_width": 0.2}
BODY = json.dumps(ROW).encode()
JSON = "Content-Type: application/json"


def request(body: object, *headers: str, close: bool = True, path: str = "/predict", version: str = "1.1") -> bytes:
    content = body if isinstance(body, bytes) else json.dumps(body).encode()
    lines = [f"POST {path} HTTP/{version}", "Host: test", "X-Request-ID: same", f"Content-Length: {len(content)}"]
    lines += [*headers, *(["Connection: close"] if close else [])]
    return "\r\n".join(lines).encode() + b"\r\n\r\n" + content


def both_ways(
    settings: Settings, model: Model, talk: Talk, monkeypatch: pytest.MonkeyPatch
) -> tuple[list[bytes], list[list[str]]]:
    """Return what is answered with and without tasks, and what is counted."""
    answers, counts = [], []
    for directly in (True, False):
        if not directly:
            monkeypatch.setattr(RequestContext, "handler", lambda *_: None)
        app = serving(settings, model)
        answer = serve(app, talk)
        answers.append(re.sub(rb"date: [^\r]*", b"date: now", answer))
        lines = app.state.metrics.render().decode().splitlines()
        counts.append([line for line in lines if line.startswith("iris_api") and "_total" in line])
    return answers, counts


INFER = "/v2/models/iris/infer"
TENSOR = {"name": "input", "shape": [1, 2], "datatype": "FP64", "data": [1.4, 0.2]}
ASKED = {"id": "r7", "inputs": [TENSOR]}
OCTETS = {"inputs": [TENSOR], "parameters": {"binary_data_output": True}}
WHOLE = request(ROW, JSON)
CHUNKED = b"POST /predict HTTP/1.1\r\nHost: test\r\nX-Request-ID: same\r\nContent-Type: application/json\r\n"
CHUNKED += b"Connection: close\r\nTransfer-Encoding: chunked\r\n\r\n"
TALKS: dict[str, tuple[Sequence[bytes], str]] = {
    "a row": ([WHOLE], "200"),
    "a list": ([request([ROW, ROW], JSON)], "200"),
    "a kept connection": ([request(ROW, JSON, close=False), WHOLE], "200 200"),
    "an old client": ([request(ROW, JSON, close=False, version="1.0")], "200"),
    "no fields": ([request({}, JSON)], "422"),
    "no JSON": ([request(b"{", JSON)], "422"),
    "another type": ([request(ROW, "Content-Type: text/plain")], "415"),
    "a long body": ([request(b" " * 2000, JSON)], "413"),
    "too many rows": ([request([1] * 300, JSON)], "413"),
    "a long body of another type": ([request(b" " * 2000)], "413"),
    "a path in disguise": ([request(ROW, JSON, path="/%70redict?x=1")], "200"),
    "another path": ([request(ROW, JSON, path="/predictX")], "404"),
    "a body in pieces": ([WHOLE[:-30], WHOLE[-30:-5], WHOLE[-5:]], "200"),
    "a long body in pieces": ([request(b" " * 2000, JSON)[:-1500], b" " * 1500], "413"),
    "chunks": ([CHUNKED + b"%x\r\n%b\r\n0\r\n\r\n" % (len(BODY), BODY)], "200"),
    "a client that asks first": ([request(ROW, JSON, "Expect: 100-continue")[: -len(BODY)], BODY], "100 200"),
    "requests in one piece": ([request(ROW, JSON, close=False) * 3 + WHOLE], "200 200 200 200"),
    "requests cut in the middle": ([request({}, JSON, close=False) + WHOLE[:-7], WHOLE[-7:]], "422 200"),
    "a tensor": ([request(ASKED, path=INFER)], "200"),
    "a tensor for a version": ([request(ASKED, JSON, path="/v2/models/iris/versions/1.0.0/infer")], "200"),
    "a tensor for octets": ([request(OCTETS, path=INFER)], "200"),
    "a wrong tensor": ([request({"inputs": []}, path=INFER)], "400"),
    "a tensor of another type": ([request(ASKED, "Content-Type: text/plain", path=INFER)], "415"),
    "a long tensor": ([request(b" " * 2000, JSON, path=INFER)], "413"),
    "a tensor in pieces": ([request(ASKED, path=INFER)[:-9], request(ASKED, path=INFER)[-9:]], "200"),
    "a tensor and rows": ([request(ASKED, path=INFER, close=False) + WHOLE], "200 200"),
    "requests of two kinds": ([b"GET /health HTTP/1.1\r\nHost: a\r\nX-Request-ID: b\r\n\r\n" + WHOLE], "200 200"),
}


@pytest.mark.parametrize("name", TALKS)
@pytest.mark.parametrize("engine", ["sklearn", "onnx"])
def test_an_answer_without_a_task_is_the_same_to_the_byte(
    settings: Settings, engine: Any, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = settings.model_copy(update={"max_rows": 200})
    pieces, statuses = TALKS[name]
    model = load(settings.model_dir, engine)
    answers, counts = both_ways(settings, model, say(*pieces), monkeypatch)
    assert answers[0] == answers[1]
    assert " ".join(re.findall(r"HTTP/1.1 (\d+)", answers[0].decode(errors="replace"))) == statuses
    assert counts[0] == counts[1]


def test_a_request_takes_no_task_and_one_that_is_too_long_does(
    settings: Settings, model: Model, monkeypatch: pytest.MonkeyPatch
) -> None:
    tasks: list[object] = []
    start = HttpToolsProtocol._start_asgi_task

    def count(self: Protocol, cycle: Any, app: Any) -> None:
        tasks.append(app)
        start(self, cycle, app)

    monkeypatch.setattr(HttpToolsProtocol, "_start_asgi_task", count)
    for pieces in ([WHOLE], [request(ASKED, path=INFER)], [WHOLE[:-9], WHOLE[-9:]]):
        serve(serving(settings, model), say(*pieces))
        assert tasks == []
    long = request([ROW] * settings.max_body_bytes, JSON)
    assert serve(serving(settings, model), say(long[:3000], long[3000:])).startswith(b"HTTP/1.1 413 ")
    assert len(tasks) == 1


def test_large_bodies_are_refused_while_too_much_is_on_its_way(settings: Settings, model: Model) -> None:
    """One always may, whatever its length; and what has ended counts no more."""
    app = serving(settings.model_copy(update={"max_bytes_in_flight": 300, "max_body_bytes": 4096}), model)
    long = request([ROW] * 20, JSON)

    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bytes:
        answers = []
        for ends in (True, False):
            first, leaving = await asyncio.open_connection(*writer.get_extra_info("peername"))
            leaving.write(long[:300])
            while not Protocol.held:
                await asyncio.sleep(0.001)
            second, other = await asyncio.open_connection(*writer.get_extra_info("peername"))
            other.write(long[:300])
            answers.append(await second.read())
            # What comes at once is not held.
            third, single = await asyncio.open_connection(*writer.get_extra_info("peername"))
            single.write(WHOLE)
            answers.append(await third.read())
            if ends:
                leaving.write(long[300:])
                answers.append(await first.read())
            else:
                leaving.transport.abort()
            while Protocol.held:
                await asyncio.sleep(0.001)
            other.close()
            single.close()
        answers.append(await say(long[:300], long[300:])(reader, writer))
        return b"".join(answers)

    answers = serve(app, talk)
    assert re.findall(rb"HTTP/1.1 (\d+)", answers) == [b"503", b"200", b"200", b"503", b"200", b"200"]
    assert b'"code":"overloaded"' in answers and b"retry-after: 1" in answers
    assert 'iris_api_rejected_requests_total{reason="overloaded"} 2.0' in app.state.metrics.render().decode()


def test_an_unexpected_error_is_answered_logged_and_nobody_elses(
    settings: Settings, model: Model, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def fail(metrics: Metrics, row: list[float], prediction: object) -> None:
        if row[0] == 6.9:
            raise RuntimeError("secret")

    monkeypatch.setattr(Metrics, "count_row", fail)
    bad = request(ROW | {"petal_length": 6.9}, JSON, close=False)
    answers, counts = both_ways(settings, model, say(bad + WHOLE), monkeypatch)
    assert answers[0] == answers[1]
    assert re.findall(rb"HTTP/1.1 (\d+)", answers[0]) == [b"500", b"200"]
    assert b"secret" not in answers[0]
    assert 'iris_api_requests_total{path="/predict",status="500"} 1.0' in counts[0]
    assert counts[0] == counts[1]
    assert sum("Unexpected error" in record.message for record in caplog.records) == 2


def test_a_client_that_went_away_hurts_nobody(settings: Settings, model: Model) -> None:
    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bytes:
        for _ in range(20):
            _, leaving = await asyncio.open_connection(*writer.get_extra_info("peername"))
            leaving.write(request(ROW, JSON, close=False))
            leaving.transport.abort()
        return await say(WHOLE)(reader, writer)

    assert serve(serving(settings, model), talk).startswith(b"HTTP/1.1 200 ")


def test_a_client_that_does_not_read_is_not_answered_without_end(
    settings: Settings, model: Model, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is written ahead for it has a bound."""
    begun = 0
    submit = Endpoint.submit

    def count(self: Any, *arguments: Any) -> None:
        nonlocal begun
        begun += 1
        submit(self, *arguments)

    monkeypatch.setattr(Endpoint, "submit", count)
    settings = settings.model_copy(update={"max_body_bytes": 100_000})
    ask = request([ROW] * 900, JSON, close=False)

    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bytes:
        writer.transport.pause_reading()  # type: ignore[attr-defined]
        for number in range(150):
            writer.write(ask)
            for _ in range(50):
                if begun > number:
                    break
                await asyncio.sleep(0.01)
            else:
                return b"stopped"
        return b"went on"

    # The kernel keeps a few MB on either side, and each answer has some 140 kB.
    assert serve(serving(settings, model), talk) == b"stopped"


def test_a_client_that_asks_first_is_told_to_go_on_before_it_sends(settings: Settings, model: Model) -> None:
    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bytes:
        writer.write(request(ROW, JSON, "Expect: 100-continue")[: -len(BODY)])
        assert await reader.readuntil(b"\r\n\r\n") == b"HTTP/1.1 100 Continue\r\n\r\n"
        return await say(BODY)(reader, writer)

    assert serve(serving(settings, model), talk).startswith(b"HTTP/1.1 200 ")


@pytest.mark.parametrize("directly", [True, False])
def test_a_connection_is_closed_once_it_was_idle_for_long_enough_and_not_before(
    settings: Settings, model: Model, monkeypatch: pytest.MonkeyPatch, directly: bool
) -> None:
    if not directly:
        monkeypatch.setattr(RequestContext, "handler", lambda *_: None)

    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bytes:
        clock = asyncio.get_running_loop().time
        for _ in range(4):
            writer.write(request(ROW, JSON, close=False))
            assert (await reader.readuntil(b"\r\n\r\n")).startswith(b"HTTP/1.1 200 ")
            await reader.readuntil(b"}")
            answered = clock()
            await asyncio.sleep(0.3)
        assert await reader.read() == b""
        assert 0.4 < clock() - answered < 2
        return b"closed"

    assert serve(serving(settings, model), talk, keep_alive=0.5) == b"closed"
