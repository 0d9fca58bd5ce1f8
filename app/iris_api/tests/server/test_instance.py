"""What systemd and the gateway feel of a real instance: gunicorn, its worker, signals, READY=1 and WATCHDOG=1."""

from __future__ import annotations

import itertools
import json
import os
import signal
import socket
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from pydantic_core import from_json

from ..instance import EXAMPLE, WATCHDOG_SECONDS, Instance, free_port
from ..paths import BUNDLE

Start = Callable[..., Instance]
EditManifest = Callable[[Callable[[dict[str, Any]], None]], Path]

# The longest that clients may be left to a worker that stands still.
PATIENCE = 15


# Seconds for which the instance that tests share keeps an idle connection: no default of anybody.
KEEPALIVE = 3


class Served(NamedTuple):
    """An instance that tests only ask, its worker, and what it told before anybody asked."""

    instance: Instance
    worker: int
    metrics: str


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    instance = Instance(tmp_path_factory.mktemp("served"), BUNDLE, IRIS_API_KEEPALIVE=str(KEEPALIVE))
    try:
        worker = instance.wait_until_ready()
        yield Served(instance, worker, instance.metrics())
    finally:
        instance.close()


def test_an_instance_that_says_ready_answers(served: Served) -> None:
    instance, worker, _ = served
    status, answer, headers = instance.request("POST", "/predict", EXAMPLE)
    assert (status, answer["species"]) == (200, "virginica")
    assert headers["x-served-by"] == "iris-api@1"
    assert instance.request("GET", "/health/ready")[0] == 200
    loading, ready, *_ = (message.text for message in instance.messages)
    assert loading.startswith("STATUS=Loading ")
    assert ready == f"READY=1\nSTATUS=Serving iris 1.0.0 by onnx on 127.0.0.1:{instance.port}"
    # The master, which knows nothing of the model, has said nothing.
    assert {message.pid for message in instance.messages} == {worker} != {instance.master.pid}


REQUEST = (
    b"POST /predict HTTP/1.1\r\nHost: test\r\nContent-Type: application/json\r\n%sContent-Length: 42\r\n\r\n"
    b'{"petal_length": 6.5, "petal_width": 0.80}'
)


def test_an_answer_comes_in_one_piece(served: Served) -> None:
    with socket.create_connection(("127.0.0.1", served.instance.port), timeout=5) as connection:
        for _ in range(20):
            connection.sendall(REQUEST % b"")
            answer = connection.recv(65536)
            assert answer.startswith(b"HTTP/1.1 200 ") and answer.endswith(b"}"), answer


def test_requests_sent_without_waiting_are_answered_in_turn(served: Served) -> None:
    with socket.create_connection(("127.0.0.1", served.instance.port), timeout=5) as connection:
        connection.sendall(REQUEST % b"" + REQUEST % b"" + REQUEST % b"Connection: close\r\n")
        answers = b"".join(iter(lambda: connection.recv(65536), b""))
    assert answers.count(b"HTTP/1.1 200 ") == answers.count(b'"species":"virginica"') == 3


def test_a_client_that_asks_whether_to_go_on_is_told_so_before_it_sends_a_body(served: Served) -> None:
    with socket.create_connection(("127.0.0.1", served.instance.port), timeout=5) as connection:
        head, _, body = (REQUEST % b"Expect: 100-continue\r\n").partition(b"\r\n\r\n")
        connection.sendall(head + b"\r\n\r\n")
        assert connection.recv(65536) == b"HTTP/1.1 100 Continue\r\n\r\n"
        connection.sendall(body)
        assert connection.recv(65536).startswith(b"HTTP/1.1 200 ")


def test_the_golden_samples_do_not_count_as_traffic(served: Served) -> None:
    assert 'iris_api_requests_total{path="/predict",status="200"} 0.0' in served.metrics
    assert 'iris_api_predictions_total{class="setosa",model="iris",version="1.0.0"} 0.0' in served.metrics


def test_a_damaged_model_is_never_ready_and_says_why_in_one_line(start: Start, copied_bundle: Path) -> None:
    artifact = copied_bundle / "model.joblib"
    artifact.write_bytes(artifact.read_bytes() + b"x")
    instance = start(copied_bundle)
    assert instance.wait_until_gone() == 3
    assert not any("READY=1" in message.text for message in instance.listen(0.2))
    assert any(message.text.startswith("STATUS=Model refused: ") for message in instance.messages)
    (refusal,) = (event["message"] for event in instance.log if event["level"] == "critical")
    assert str(artifact) in refusal and "sha256" in refusal and "Install the whole bundle again." in refusal
    assert "Traceback" not in instance.log_text


def test_a_wrong_golden_sample_keeps_an_instance_from_being_ready(start: Start, edit_manifest: EditManifest) -> None:
    def swap(manifest: dict[str, Any]) -> None:
        manifest["golden_samples"][0]["probabilities"].reverse()

    instance = start(edit_manifest(swap))
    assert instance.wait_until_gone() == 3
    assert not any("READY=1" in message.text for message in instance.listen(0.2))
    (refusal,) = (event["message"] for event in instance.log if event["level"] == "critical")
    assert "golden sample 1" in refusal


@pytest.mark.parametrize(
    ("variable", "value", "complaint"),
    [
        ("IRIS_API_BASE_PROT", "8001", "IRIS_API_BASE_PROT is not a setting; did you mean IRIS_API_BASE_PORT?"),
        ("IRIS_API_KEEPALIVE", "soon", "IRIS_API_KEEPALIVE='soon': "),
    ],
)
def test_a_bad_setting_is_named_in_one_line(start: Start, variable: str, value: str, complaint: str) -> None:
    instance = start(**{variable: value})
    assert instance.wait_until_gone() == os.EX_CONFIG
    (event,) = instance.log
    assert complaint in event["message"]


def test_the_watchdog_is_fed_in_time_and_by_the_worker(served: Served) -> None:
    # What was told before waits in the socket.
    list(served.instance.listen(0.1))
    beats = [message for message in served.instance.listen(1.7 * WATCHDOG_SECONDS) if message.text == "WATCHDOG=1"]
    assert {message.pid for message in beats} == {served.worker}
    gaps = [later.when - earlier.when for earlier, later in itertools.pairwise(beats)]
    assert len(gaps) >= 4 and max(gaps) < WATCHDOG_SECONDS / 2


def test_the_watchdog_is_not_fed_while_the_master_is_frozen(start: Start) -> None:
    """The worker still answers, but nobody would replace it: systemd is to start both anew."""
    instance = start()
    instance.wait_until_ready()
    os.kill(instance.master.pid, signal.SIGSTOP)
    time.sleep(WATCHDOG_SECONDS / 2)
    list(instance.listen(0.1))
    assert not list(instance.listen(WATCHDOG_SECONDS))
    assert instance.request("POST", "/predict", EXAMPLE)[0] == 200
    os.kill(instance.master.pid, signal.SIGCONT)
    instance.wait_until("WATCHDOG=1")


def test_a_killed_worker_is_replaced(start: Start) -> None:
    instance = start()
    worker = instance.wait_until_ready()
    os.kill(worker, signal.SIGKILL)
    replacement = instance.wait_until_ready(other_than=worker)
    assert replacement != instance.master.pid
    assert instance.request("POST", "/predict", EXAMPLE)[0] == 200


def test_a_frozen_worker_is_replaced(start: Start) -> None:
    instance = start(IRIS_API_WORKER_TIMEOUT="3")
    worker = instance.wait_until_ready()
    # Let the worker tell its master that it lives, or else the master grants it all the time in the world.
    next(instance.listen(3))
    time.sleep(1)
    os.kill(worker, signal.SIGSTOP)
    frozen = time.monotonic()
    instance.wait_until_ready(other_than=worker)
    assert time.monotonic() - frozen < PATIENCE
    assert instance.request("POST", "/predict", EXAMPLE)[0] == 200


def test_a_blocked_event_loop_is_replaced_and_says_where_it_stood(start: Start) -> None:
    instance = start(arguments=["app.iris_api.tests.blocking:create()"], IRIS_API_WORKER_TIMEOUT="3")
    worker = instance.wait_until_ready()
    next(instance.listen(3))
    time.sleep(1)
    with socket.create_connection(("127.0.0.1", instance.port)) as connection:
        connection.sendall(b"GET /block HTTP/1.1\r\nHost: test\r\n\r\n")
        blocked = time.monotonic()
        instance.wait_until_ready(other_than=worker)
    assert time.monotonic() - blocked < PATIENCE
    assert instance.request("POST", "/predict", EXAMPLE)[0] == 200
    (event,) = (event for event in instance.log if "stack" in event)
    assert "time.sleep(600)" in "".join(event["stack"])


NASTY = [
    *(b"\xff\xfe", b"%ff%fe", b"%0a%7b%22level%22:1%7d", b"%ed%a0%80", b"\x00"),
    *(b"%00", b'"}', b"\\ud800", b"%e2%80%a8"),
]


def test_every_line_of_the_log_is_json_whatever_a_client_sends(start: Start) -> None:
    """Parsed by a strict parser: one that takes neither NaN nor half of a surrogate pair."""
    instance = start(arguments=["app.iris_api.tests.noisy:create()"])
    instance.wait_until_ready()
    asked = 0
    for nasty in NASTY:
        for message in (
            b"GET /noise/%b HTTP/1.1\r\nHost: test\r\nUser-Agent: x\r\n" % nasty,
            b"GET /noise/?%b HTTP/1.1\r\nHost: test\r\nUser-Agent: x\r\n" % nasty,
            b"GET /noise/ HTTP/1.1\r\nHost: test\r\nUser-Agent: %b\r\n" % nasty,
            b"GET /health HTTP/1.1\r\nHost: %b\r\nUpgrade: %b\r\nConnection: upgrade\r\n" % (nasty, nasty),
            b"POST /predict HTTP/1.1\r\nHost: test\r\nX-Request-ID: %b\r\nContent-Length: 0\r\n" % nasty,
            b"%b / HTTP/1.1\r\n" % nasty,
        ):
            with socket.create_connection(("127.0.0.1", instance.port), timeout=5) as connection:
                connection.sendall(message + b"Connection: close\r\n\r\n")
                answer = b"".join(iter(lambda: connection.recv(65536), b""))
            head, _, body = answer.partition(b"\r\n\r\n")
            assert b"\r\nx-request-id: " in head, answer
            assert b" 200 OK" in head or from_json(body).keys() >= {"error", "code", "request_id"}, answer
            asked += 1
    instance.master.send_signal(signal.SIGTERM)
    instance.wait_until_gone()
    lines = instance.log_text.splitlines()
    events = [from_json(line) for line in lines]
    assert all(event.keys() >= {"time", "level", "logger", "message"} for event in events)
    assert {"py.warnings", "stderr", "library", "uvicorn.error", "iris_api.http.middleware"} <= {
        event["logger"] for event in events
    }
    assert len(lines) > asked


def seconds_until_closed(connection: socket.socket) -> float:
    began = time.monotonic()
    assert connection.recv(65536) == b""
    return time.monotonic() - began


def test_a_connection_is_kept_for_as_long_as_the_setting_says(served: Served) -> None:
    """Left to itself gunicorn closes it after 2 s, while the gateway believes it open."""
    with socket.create_connection(("127.0.0.1", served.instance.port), timeout=20) as connection:
        for _ in range(2):
            connection.sendall(REQUEST % b"")
            assert connection.recv(65536).startswith(b"HTTP/1.1 200 ")
            time.sleep(0.4)
        assert 2.1 < seconds_until_closed(connection) < 10


def test_an_instance_that_stops_waits_for_as_long_as_the_setting_says(start: Start) -> None:
    """Left to itself gunicorn waits for 30 s, and systemd kills what is not gone after 20."""
    instance = start(IRIS_API_GRACEFUL_TIMEOUT="2", IRIS_API_REQUEST_DEADLINE="1")
    instance.wait_until_ready()
    with socket.create_connection(("127.0.0.1", instance.port), timeout=20) as connection:
        connection.sendall((REQUEST % b"")[:-9])
        time.sleep(0.3)
        instance.master.send_signal(signal.SIGTERM)
        asked = time.monotonic()
        instance.wait_until_gone(40)
        assert 1.5 < time.monotonic() - asked < 12


def test_a_request_in_flight_is_answered_when_the_instance_stops(start: Start) -> None:
    instance = start()
    instance.wait_until_ready()
    body = json.dumps(EXAMPLE).encode()
    with socket.create_connection(("127.0.0.1", instance.port), timeout=5) as connection:
        head = f"POST /predict HTTP/1.1\r\nHost: test\r\nContent-Type: application/json\r\nContent-Length: {len(body)}"
        connection.sendall(head.encode() + b"\r\n\r\n" + body[:10])
        time.sleep(0.3)
        instance.master.send_signal(signal.SIGTERM)
        time.sleep(0.7)
        connection.sendall(body[10:])
        answer = connection.recv(65536).decode()
    assert answer.startswith("HTTP/1.1 200 OK")
    assert instance.wait_until_gone() == 0
    stopping = [message for message in instance.listen(0.2) if message.text == "STOPPING=1"]
    assert [message.pid for message in stopping] == [instance.master.pid]


def test_an_instance_with_two_addresses_stops_at_one_after_the_other(start: Start) -> None:
    """The gateway, which may ask two servers, must find a living one behind the second address."""
    second = free_port()
    instance = start(
        GUNICORN_CMD_ARGS=f"--reuse-port --bind=127.0.0.1:{(first := free_port())} --bind=127.0.0.1:{second}"
    )
    instance.wait_until_ready()
    with (
        socket.create_connection(("127.0.0.1", first), timeout=5) as kept,
        socket.create_connection(("127.0.0.1", second), timeout=5) as closed,
    ):
        for connection in (kept, closed):
            connection.sendall(REQUEST % b"")
            assert connection.recv(65536).startswith(b"HTTP/1.1 200 ")
        instance.master.send_signal(signal.SIGTERM)
        assert closed.recv(65536) == b""
        # It is open still, and answers.
        kept.sendall(REQUEST % b"")
        assert kept.recv(65536).startswith(b"HTTP/1.1 200 ")
        with pytest.raises(ConnectionRefusedError):
            socket.create_connection(("127.0.0.1", second), timeout=5)
        assert kept.recv(65536) == b""
    assert instance.wait_until_gone() == 0
