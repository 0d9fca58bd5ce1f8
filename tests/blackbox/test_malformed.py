"""What is no proper HTTP is refused in the one shape of every error, with a request id, where an answer can exist."""

from __future__ import annotations

import json

import httpx
import pytest

from tests.blackbox.gateway import Gateway, exchange
from tests.blackbox.malformed import BAD_REQUEST, HTTP_1, HTTP_2, RESET_BY_DEBIAN_12, ask_http2


def assert_error(status: int, headers: dict[str, str], body: bytes, expected: tuple[int, str]) -> None:
    assert headers["content-type"] == "application/json"
    assert headers["x-content-type-options"] == "nosniff"
    answer = json.loads(body)
    assert set(answer) == {"error", "code", "request_id"}
    assert (status, answer["code"]) == expected
    assert answer["request_id"] == headers["x-request-id"] != ""


def parse(answer: bytes) -> tuple[int, dict[str, str], bytes]:
    head, _, body = answer.partition(b"\r\n\r\n")
    first, *lines = head.decode("ascii").split("\r\n")
    return int(first.split()[1]), {key.lower(): value for key, _, value in (x.partition(": ") for x in lines)}, body


@pytest.mark.parametrize("case", HTTP_1)
def test_over_tls(gateway: Gateway, case: str) -> None:
    request, expected = HTTP_1[case]
    with gateway.connect_tls() as connection:
        answer = exchange(connection, request.replace(b"HOST", gateway.host.encode()))
    assert_error(*parse(answer), expected)


@pytest.mark.parametrize("case", [case for case, (_, (status, _)) in HTTP_1.items() if status not in (404, 405)])
def test_over_plain_http(gateway: Gateway, case: str) -> None:
    """Who has sent a proper request is sent to https instead."""
    request, expected = HTTP_1[case]
    with gateway.connect(80) as connection:
        answer = exchange(connection, request.replace(b"HOST", gateway.host.encode()))
    assert_error(*parse(answer), expected)


@pytest.mark.parametrize("case", ["garbage", "a path too long"])
def test_plain_http_on_the_port_of_https(gateway: Gateway, case: str) -> None:
    request, expected = HTTP_1[case]
    with gateway.connect(443) as connection:
        answer = exchange(connection, request)
    assert_error(*parse(answer), expected)


def test_a_proper_request_on_the_port_of_https(gateway: Gateway) -> None:
    response = httpx.get(f"http://{gateway.host}:443/")
    assert_error(response.status_code, dict(response.headers), response.content, BAD_REQUEST)


@pytest.mark.parametrize("condition", ['If-Match: "x"', "If-Unmodified-Since: Mon, 01 Jan 2001 00:00:00 GMT"])
def test_a_condition_that_is_not_met(gateway: Gateway, condition: str) -> None:
    name, _, value = condition.partition(": ")
    response = httpx.get(f"http://{gateway.host}/nginx_status", headers={name: value})
    if response.status_code == 403:
        pytest.skip("this machine's address is not in fortress_trusted_networks")
    expected = 412, "precondition_failed"
    assert_error(response.status_code, dict(response.headers), response.content, expected)


def test_http_0_9_is_answered_with_the_body_alone(gateway: Gateway) -> None:
    """It knows no head, so the request id is in the body only."""
    with gateway.connect_tls() as connection:
        answer = json.loads(exchange(connection, b"GET /nothing\r\n"))
    assert (answer["code"], set(answer)) == ("not_found", {"error", "code", "request_id"})


@pytest.mark.parametrize("case", HTTP_2)
def test_over_http_2(gateway: Gateway, case: str) -> None:
    headers, expected = HTTP_2[case]
    with gateway.connect_tls(None, "h2") as connection:
        answer = ask_http2(connection, [(name, v.replace(b"HOST", gateway.host.encode())) for name, v in headers])
    if answer is None:
        assert expected is None or case in RESET_BY_DEBIAN_12
    else:
        assert expected is not None
        assert_error(*answer, expected)
