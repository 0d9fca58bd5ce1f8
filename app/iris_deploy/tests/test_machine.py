"""What answers nonsense does not serve, and is told as that."""

from __future__ import annotations

import socket
import threading

import pytest
from iris_deploy.addresses import Address, Listeners
from iris_deploy.commands import Command, readiness
from iris_deploy.host import Host
from iris_deploy.machine import Machine

from .conftest import Site


def answers(answer: bytes) -> Address:
    """Return where somebody answers one request so."""
    server = socket.create_server(("127.0.0.1", 0))

    def answer_once() -> None:
        with server, server.accept()[0] as client:
            client.recv(10_000)
            client.sendall(answer)

    threading.Thread(target=answer_once, daemon=True).start()
    return Address("127.0.0.1", server.getsockname()[1])


@pytest.mark.parametrize(
    ("answer", "status", "reason"),
    [
        (b"nonsense\r\n\r\n", 0, "nonsense"),
        (b'HTTP/1.1 200 OK\r\nContent-Length: 99\r\n\r\n{"deployment"', 0, "IncompleteRead"),
        (b"HTTP/1.1 500 No\r\nContent-Length: 3\r\n\r\nno\xff", 500, "no\ufffd"),
    ],
)
def test_an_answer_that_is_none_has_a_reason(answer: bytes, status: int, reason: str) -> None:
    found, why = Machine().ask(readiness(str(answers(answer))))
    assert found == status and reason in why


@pytest.mark.parametrize("body", [b"[]", b'"ok"', b"null", b"1", b"{}"])
def test_who_names_no_deployment_does_not_serve(site: Site, body: bytes) -> None:
    host = Host(Machine(), site.paths)
    host.store.listen(1, Listeners((answers(b"HTTP/1.1 200 OK\r\n\r\n" + body),)))
    assert host.serving(1) == ""


def test_what_a_command_prints_is_read_whatever_it_is() -> None:
    assert Machine().run(Command(("printf", r"a\377"))).stdout == "a\ufffd"
