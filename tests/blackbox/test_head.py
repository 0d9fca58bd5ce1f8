"""HEAD on what nginx itself answers, and on what it passes on to Grafana: GET's status and headers, and no body."""

from __future__ import annotations

import httpx
import pytest

from tests.blackbox.gateway import Gateway, exchange

# Differ from one answer to the next.
PER_REQUEST = {"date", "x-request-id"}
OWN = {
    "an unknown path": ("https", "/nothing", 404),
    "no password": ("https", "/predict", 401),
    "no password, the protocol": ("https", "/v2/models/iris", 401),
    "no password, MLflow's dialect": ("https", "/invocations", 401),
    "no password, the documentation": ("https", "/docs", 401),
    "an internal place": ("https", "/_error", 404),
    "to Grafana's folder": ("https", "/grafana", 301),
    "to https": ("http", "/predict?a=b", 308),
    "the status page": ("http", "/nginx_status", 200),
}


def compare(gateway: Gateway, url: str, version: bool) -> httpx.Response:
    """Send GET and HEAD over connections of their own; return the answer to GET."""
    with httpx.Client(http2=version, verify=gateway.trust(), timeout=10) as client:
        gateway.wait(2)
        get, head = client.get(url), client.head(url)
    assert head.status_code == get.status_code
    assert head.content == b""
    # The page is written while it is sent, so its length is not known before; RFC 9110, 9.3.2, allows that.
    written_late = {"content-length"} if "/nginx_status" in url else set()
    left, right = (dict(answer.headers) for answer in (get, head))
    for name in PER_REQUEST | written_late:
        left.pop(name, None), right.pop(name, None)
    assert right == left
    return get


@pytest.mark.parametrize("http2", [False, True], ids=["HTTP/1.1", "HTTP/2"])
@pytest.mark.parametrize("case", OWN)
def test_an_own_page(gateway: Gateway, case: str, http2: bool) -> None:
    scheme, path, status = OWN[case]
    if path == "/grafana" and gateway.client.get(path).status_code == 404:
        pytest.skip("this gateway has no Grafana")
    get = compare(gateway, f"{scheme}://{gateway.host}{path}", http2)
    if get.status_code == 403:
        pytest.skip("this machine's address is not in fortress_trusted_networks")
    assert get.status_code == status


@pytest.mark.parametrize("path", ["/", "/login", "/api/health", "/no/such/page"])
def test_grafana(gateway: Gateway, path: str) -> None:
    get = compare(gateway, f"{gateway.url}/grafana{path}", False)
    # The gateway's own answer, and not Grafana's.
    if get.status_code in (403, 404, 502) and b'"request_id"' in get.content:
        pytest.skip(f"no Grafana for this machine behind this gateway: {get.status_code}")


@pytest.mark.parametrize(
    "request_line",
    [b"HEAD /" + b"a" * 9000 + b" HTTP/1.1", b"HEAD / HTTP/9.9", b"HEAD /../x HTTP/1.1", b"HEAD /a%00 HTTP/1.1"],
    ids=["too long", "version", "upwards", "NUL"],
)
def test_a_malformed_request(gateway: Gateway, request_line: bytes) -> None:
    """Whatever else is wrong with it, no body is sent once the method is known."""

    def ask(line: bytes) -> tuple[bytes, bytes]:
        with gateway.connect_tls() as connection:
            answer = exchange(connection, line + f"\r\nHost: {gateway.host}\r\nConnection: close\r\n\r\n".encode())
        head, _, body = answer.partition(b"\r\n\r\n")
        return b"\n".join(line for line in head.splitlines() if not line.startswith((b"Date", b"X-Request-ID"))), body

    head, body = ask(request_line)
    assert (head, body) == (ask(request_line.replace(b"HEAD", b"GET", 1))[0], b"")
