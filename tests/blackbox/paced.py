"""A way to the gateway for programs that open more connections at once than its firewall lets one address open."""

from __future__ import annotations

import contextlib
import socket
import threading
from collections.abc import Iterator

from tests.blackbox.gateway import Gateway


@contextlib.contextmanager
def paced(gateway: Gateway, port: int = 443) -> Iterator[int]:
    """Forward a port of loopback to the gateway's, where connections wait for their turn; yield the port."""
    turn = threading.Lock()

    def forward(client: socket.socket) -> None:
        try:
            with turn:
                server = gateway.connect(port)
        except OSError:
            client.close()
            return
        with client, server:
            back = threading.Thread(target=_copy, args=(server, client), daemon=True)
            back.start()
            _copy(client, server)
            back.join()

    def accept() -> None:
        with contextlib.suppress(OSError):
            while True:
                threading.Thread(target=forward, args=(listener.accept()[0],), daemon=True).start()

    with socket.create_server(("127.0.0.1", 0), backlog=512) as listener:
        threading.Thread(target=accept, daemon=True).start()
        yield listener.getsockname()[1]
        # Else a thread that waits for a connection keeps the port.
        listener.shutdown(socket.SHUT_RDWR)


def _copy(source: socket.socket, target: socket.socket) -> None:
    with contextlib.suppress(OSError):
        while piece := source.recv(65536):
            target.sendall(piece)
        target.shutdown(socket.SHUT_WR)
