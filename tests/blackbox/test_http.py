"""Port 80, names that are not ours, and clients that send too much or too slowly."""

from __future__ import annotations

import re
import time

import httpx
import pytest

from tests.blackbox.gateway import IRIS, Gateway, exchange, is_error

HUNG_UP = (httpx.RemoteProtocolError, httpx.ReadError)


def plain(gateway: Gateway, path: str, method: str = "GET", host: str | None = None) -> httpx.Response:
    return httpx.request(method, f"http://{gateway.host}{path}", headers={"Host": host or gateway.host}, timeout=10)


def test_plain_http_is_sent_to_https(gateway: Gateway) -> None:
    by_address = plain(gateway, "/predict?a=b")
    assert (by_address.status_code, by_address.headers["location"]) == (308, f"https://{gateway.host}/predict?a=b")
    by_name = plain(gateway, "/predict?a=b", host=gateway.domain)
    assert (by_name.status_code, by_name.headers["location"]) == (308, f"https://{gateway.domain}/predict?a=b")


def test_a_post_that_is_redirected_stays_a_post(gateway: Gateway) -> None:
    """The original answered 301, and clients came back with a GET."""
    gateway.wait()
    with httpx.Client(verify=gateway.trust(), follow_redirects=True, auth=gateway.auth) as client:
        response = client.post(f"http://{gateway.host}/predict", json=IRIS)
    assert [step.status_code for step in response.history] == [308]
    assert response.request.method == "POST"
    assert response.json()["prediction"] == 2


@pytest.mark.parametrize("name", ["evil.example", "127.0.0.1.evil.example", "192.0.2.1"])
def test_a_foreign_name_gets_no_answer_and_is_never_sent_anywhere(gateway: Gateway, name: str) -> None:
    with pytest.raises(HUNG_UP):
        plain(gateway, "/", host=name)
    with pytest.raises(HUNG_UP):
        gateway.client.get("/health", headers={"Host": name})


def test_a_client_without_a_name_is_served_as_one_of_ours(gateway: Gateway) -> None:
    with gateway.connect(80) as connection:
        answer = exchange(connection, b"GET /x HTTP/1.0\r\n\r\n")
    assert b" 308 " in answer.splitlines()[0]
    assert f"Location: https://{gateway.domain}/x\r\n".encode() in answer


def test_the_status_page_is_shown_to_the_trusted(gateway: Gateway) -> None:
    response = plain(gateway, "/nginx_status")
    if response.status_code == 403:
        pytest.skip("this machine's address is not in fortress_trusted_networks")
    assert re.match(r"Active connections: \d+", response.text)
    assert plain(gateway, "/nginx_statusx").status_code == 308
    assert is_error(gateway.client.get("/nginx_status"), 404, "not_found")


def test_grafana_answers_or_is_missed_in_json(gateway: Gateway) -> None:
    response = gateway.client.get("/grafana/login")
    if response.status_code == 403:
        pytest.skip("this machine's address is not in fortress_trusted_networks")
    if response.status_code == 502:
        assert is_error(response, 502, "bad_gateway")
        pytest.skip("no Grafana behind this gateway")
    assert response.status_code == 200
    assert "default-src 'none'" not in response.headers.get("content-security-policy", "")


def test_a_body_that_is_too_large_is_refused(gateway: Gateway) -> None:
    assert is_error(gateway.predict(content=b" " * 64_000), 413, "body_too_large")
    with httpx.Client(verify=gateway.trust(), base_url=gateway.url, auth=gateway.auth) as client:
        gateway.wait()
        assert is_error(client.post("/predict", content=b" " * 1_000_000), 413, "body_too_large")


def test_headers_that_are_too_large_end_a_connection_of_http_2(gateway: Gateway) -> None:
    large = {f"X-{n}": "Zz~9" * 2000 for n in range(8)}
    with (
        httpx.Client(http2=True, verify=gateway.trust(), base_url=gateway.url) as client,
        pytest.raises(httpx.RemoteProtocolError, match="ConnectionTerminated"),
    ):
        client.get("/health", headers=large)


def test_a_client_that_dawdles_is_hung_up_on(gateway: Gateway) -> None:
    """Ten seconds are enough for the headers of a request; who takes longer holds a connection for nothing."""
    with gateway.connect_tls() as connection:
        started = time.monotonic()
        exchange(connection, f"GET /health HTTP/1.1\r\nHost: {gateway.host}\r\nX-Slow: ".encode())
        assert 9 < time.monotonic() - started < 13
