"""The gateway as its clients see it: an address, a name, a CA to trust, a user and a password."""

from __future__ import annotations

import os
import socket
import ssl
import time
from typing import Any

import httpx

IRIS = {"petal_length": 6.5, "petal_width": 0.8}
RATE = 10.0  # requests a second that one address may send to /predict
BURST = 5
CONNECTIONS = 90.0
"""New connections a second, of the 100 that the firewall lets one address open."""


class Gateway:
    """Where the site is and how to get in, from FORTRESS_*; and requests that stay below the limit."""

    def __init__(self) -> None:
        self.url = os.environ["FORTRESS_URL"].rstrip("/")
        self.host = os.environ["FORTRESS_HOST"]
        self.domain = os.environ["FORTRESS_DOMAIN"]
        self.ca = os.environ["FORTRESS_CA"]
        self.auth = (os.environ["FORTRESS_USER"], os.environ["FORTRESS_PASSWORD"])
        self.client = httpx.Client(http2=True, verify=self.trust(), base_url=self.url, timeout=20)
        self._next_predict = self._next_connect = 0.0

    def trust(self) -> ssl.SSLContext:
        """Return a TLS context that trusts this site's CA and no other."""
        return ssl.create_default_context(cafile=self.ca)

    def predict(self, json: Any = IRIS, *, method: str = "POST", **options: Any) -> httpx.Response:
        """Request a prediction, with the password unless told otherwise, never faster than the limit allows."""
        if "content" not in options and method == "POST":
            options["json"] = json
        self.wait()
        return self.client.request(method, "/predict", auth=options.pop("auth", self.auth), **options)

    def wait(self, requests: float = 1) -> None:
        """Wait for one's turn, and take the time that the limit gives this many requests."""
        time.sleep(max(0.0, self._next_predict - time.monotonic()))
        self._next_predict = time.monotonic() + requests * 1.05 / RATE

    def connect(self, port: int) -> socket.socket:
        """Open a bare connection, never faster than the firewall allows."""
        time.sleep(max(0.0, self._next_connect - time.monotonic()))
        self._next_connect = time.monotonic() + 1 / CONNECTIONS
        return socket.create_connection((self.host, port), timeout=15)

    def connect_tls(
        self, name: str | None = None, *protocols: str, context: ssl.SSLContext | None = None
    ) -> ssl.SSLSocket:
        """Open a TLS connection, for a name (sent as SNI) or for the address (without SNI)."""
        context = context or self.trust()
        if protocols:
            context.set_alpn_protocols(list(protocols))
        return context.wrap_socket(self.connect(443), server_hostname=name or self.host)


def exchange(connection: socket.socket, request: bytes) -> bytes:
    """Send bytes, and return what comes until the other side closes the connection."""
    connection.sendall(request)
    answer = b""
    try:
        while piece := connection.recv(65536):
            answer += piece
    except ConnectionResetError:
        pass
    return answer


def is_error(response: httpx.Response, status: int, code: str) -> bool:
    """Assert the one shape of every error, and return true so that it can be asserted itself."""
    assert response.status_code == status, response.text
    assert response.headers["content-type"].startswith("application/json")
    body = response.json()
    assert set(body) - {"details"} == {"error", "code", "request_id"}, body
    assert body["code"] == code, body
    assert body["error"].endswith("."), body
    assert body["request_id"] == response.headers["x-request-id"]
    return True
