"""Clients that keep connections to the gateway open: for them alone nginx would not end for seconds."""

from __future__ import annotations

import os
import socket
import ssl
from contextlib import ExitStack
from typing import Self

import httpx
from h2.config import H2Configuration
from h2.connection import H2Connection

BODY = b'{"petal_length": 6.5, "petal_width": 0.8}'


class Holders:
    """One has connected and says nothing, one has an idle HTTP/2 connection, and one has sent half of a request."""

    def __enter__(self) -> Self:
        """Connect all of them."""
        self._closing = ExitStack()
        self._connect()
        second = self._tls("h2")
        talk = H2Connection(H2Configuration())
        talk.initiate_connection()
        second.sendall(talk.data_to_send())
        assert second.recv(65536), "nginx has sent its settings"
        auth = httpx.BasicAuth(os.environ["FORTRESS_USER"], os.environ["FORTRESS_PASSWORD"])
        request = next(auth.auth_flow(httpx.Request("POST", f"https://{os.environ['FORTRESS_DOMAIN']}/predict")))
        self._third = self._tls("http/1.1")
        lines = [
            "POST /predict HTTP/1.1",
            f"Host: {os.environ['FORTRESS_DOMAIN']}",
            f"Authorization: {request.headers['Authorization']}",
            "Content-Type: application/json",
            f"Content-Length: {len(BODY)}",
        ]
        self._third.sendall("\r\n".join([*lines, "", ""]).encode() + BODY[:10])
        return self

    def __exit__(self, *_: object) -> None:
        """Close all connections."""
        self._closing.close()

    def finish(self) -> bytes:
        """Send the other half, and return the first line of the answer."""
        self._third.sendall(BODY[10:])
        return self._third.recv(65536).partition(b"\r\n")[0]

    def _connect(self) -> socket.socket:
        return self._closing.enter_context(socket.create_connection((os.environ["FORTRESS_HOST"], 443), timeout=10))

    def _tls(self, protocol: str) -> ssl.SSLSocket:
        context = ssl.create_default_context(cafile=os.environ["FORTRESS_CA"])
        context.set_alpn_protocols([protocol])
        made = context.wrap_socket(self._connect(), server_hostname=os.environ["FORTRESS_DOMAIN"])
        return self._closing.enter_context(made)
