"""The rate limit, counted exactly."""

from __future__ import annotations

import base64
import json
import re
import time
from collections import Counter
from dataclasses import dataclass, field

import h2.config
import h2.connection
import h2.events
import pytest

from tests.blackbox.gateway import BURST, IRIS, RATE, Gateway, exchange

# As many as the gateway lets one connection of HTTP/2 have open.
FLOOD = 8


@dataclass
class Answer:
    """What came back on one stream."""

    headers: dict[str, str] = field(default_factory=dict)
    body: bytes = b""


@dataclass
class Flood:
    """The answers to requests that were sent as one write, and how long it took until the last answer."""

    answers: list[Answer]
    seconds: float

    @property
    def statuses(self) -> Counter[int]:
        return Counter(int(answer.headers[":status"]) for answer in self.answers)


def flood(gateway: Gateway, password: str) -> Flood:
    """Send all requests in one write over one HTTP/2 connection, so that they arrive together."""
    body = json.dumps(IRIS).encode()
    login = base64.b64encode(f"{gateway.auth[0]}:{password}".encode()).decode()
    headers = [
        (":method", "POST"),
        (":scheme", "https"),
        (":authority", gateway.host),
        (":path", "/predict"),
        ("authorization", f"Basic {login}"),
        ("content-type", "application/json"),
        ("content-length", str(len(body))),
    ]
    gateway.wait(FLOOD)
    with gateway.connect_tls(None, "h2") as connection:
        protocol = h2.connection.H2Connection(h2.config.H2Configuration(header_encoding="utf-8"))
        protocol.initiate_connection()
        connection.sendall(protocol.data_to_send())
        answers = {}
        for _ in range(FLOOD):
            stream = protocol.get_next_available_stream_id()
            protocol.send_headers(stream, headers)
            protocol.send_data(stream, body, end_stream=True)
            answers[stream] = Answer()
        started = time.monotonic()
        connection.sendall(protocol.data_to_send())
        waiting = set(answers)
        while waiting:
            data = connection.recv(65536)
            assert data, "the gateway hung up"
            for event in protocol.receive_data(data):
                if isinstance(event, h2.events.ResponseReceived):
                    answers[event.stream_id].headers = {str(name): str(value) for name, value in event.headers}
                elif isinstance(event, h2.events.DataReceived):
                    answers[event.stream_id].body += event.data
                elif isinstance(event, (h2.events.StreamEnded, h2.events.StreamReset)):
                    waiting.discard(event.stream_id)
            connection.sendall(protocol.data_to_send())
        return Flood(list(answers.values()), time.monotonic() - started)


def exact_flood(gateway: Gateway, password: str) -> Flood:
    """Flood until one was so short that the rate could let none through beside the burst."""
    for _ in range(8):
        time.sleep((BURST + 2) / RATE)  # whatever the address has used up is forgotten
        result = flood(gateway, password)
        passed = FLOOD - result.statuses[503]
        assert BURST + 1 <= passed <= BURST + 1 + result.seconds * RATE, result
        if result.seconds < 1 / RATE:
            return result
    pytest.fail(f"{FLOOD} requests took {result.seconds:.2f} s each time: this machine is too busy to count exactly")


def test_of_20_requests_at_once_exactly_6_pass(gateway: Gateway) -> None:
    """One at the rate of 10 a second, and a burst of 5."""
    result = exact_flood(gateway, gateway.auth[1])
    assert result.statuses == {200: BURST + 1, 503: FLOOD - BURST - 1}


def test_a_limited_request_is_told_why_and_when_to_come_back(gateway: Gateway) -> None:
    limited = [answer for answer in flood(gateway, gateway.auth[1]).answers if answer.headers[":status"] == "503"]
    assert limited
    for answer in limited:
        body = json.loads(answer.body)
        assert body["code"] == "rate_limited"
        assert body["request_id"] == answer.headers["x-request-id"]
        assert answer.headers["retry-after"] == "1"
        assert answer.headers["content-type"] == "application/json"
        assert answer.headers["strict-transport-security"] == "max-age=63072000"
        assert answer.headers["x-content-type-options"] == "nosniff"


def test_a_connection_that_is_over_the_limit_ends(gateway: Gateway) -> None:
    """However many requests are pipelined on it: nginx would answer all of them before it serves anybody else."""
    request = f"GET /predict HTTP/1.1\r\nHost: {gateway.host}\r\n\r\n".encode()
    gateway.wait(50)
    with gateway.connect_tls() as connection:
        answers = exchange(connection, 50 * request)
    statuses = re.findall(rb"HTTP/1\.1 (\d+)", answers)
    assert set(statuses[:-1]) == {b"401"} and statuses[-1] == b"503", statuses
    assert b"Connection: close" in answers.rpartition(b"HTTP/1.1 503")[2]


def test_who_waits_as_told_is_served_again(gateway: Gateway) -> None:
    assert flood(gateway, gateway.auth[1]).statuses[503]
    time.sleep(1)
    assert gateway.client.post("/predict", json=IRIS, auth=gateway.auth).status_code == 200


def test_guessing_passwords_is_limited_before_they_are_looked_at(gateway: Gateway) -> None:
    result = exact_flood(gateway, "a-wrong-password")
    assert result.statuses == {401: BURST + 1, 503: FLOOD - BURST - 1}


def test_who_stays_below_the_limit_is_never_refused(gateway: Gateway) -> None:
    assert {gateway.predict().status_code for _ in range(20)} == {200}


def test_health_is_not_held_back_by_predictions(gateway: Gateway) -> None:
    assert flood(gateway, gateway.auth[1]).statuses[503]
    assert gateway.client.get("/health").status_code == 200
