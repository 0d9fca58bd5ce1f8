"""After a renewal each gateway is asked for its certificate, by the name that clients use."""

from __future__ import annotations

import socket
import ssl
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests import ROOT

NAME = "iris.example.com"


@pytest.fixture
def gateway(tmp_path: Path) -> Iterator[tuple[int, str]]:
    """Port and certificate of a TLS server that refuses the handshake under any other name, as nginx does."""
    key, certificate = tmp_path / "key", tmp_path / "certificate"
    command = ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"]
    command += ["-subj", f"/CN={NAME}", "-keyout", str(key), "-out", str(certificate)]
    subprocess.run(command, check=True, capture_output=True)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, key)

    def refuse(_: ssl.SSLObject, asked: str | None, __: ssl.SSLContext) -> int | None:
        return None if asked in (None, NAME) else ssl.ALERT_DESCRIPTION_UNRECOGNIZED_NAME

    context.sni_callback = refuse
    with socket.create_server(("127.0.0.1", 0)) as listening:

        def answer() -> None:
            while True:
                try:
                    client, _ = listening.accept()
                except OSError:
                    return
                try:
                    context.wrap_socket(client, server_side=True).close()
                except OSError:
                    client.close()

        threading.Thread(target=answer, daemon=True).start()
        yield listening.getsockname()[1], certificate.read_text()
        listening.shutdown(socket.SHUT_RDWR)


def test_a_gateway_that_is_known_by_its_own_name_is_asked_by_that_of_the_site(gateway: tuple[int, str]) -> None:
    port, certificate = gateway
    plays: list[dict[str, Any]] = yaml.safe_load((ROOT / "playbooks" / "renew-certificates.yml").read_text())
    [program] = [play["vars"]["_program"] for play in plays if "_program" in play.get("vars", {})]

    def served(name: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-c", program, "localhost", str(port), name]
        return subprocess.run(command, capture_output=True, text=True, check=False, timeout=20)

    assert served(NAME).stdout.strip() == certificate.strip()
    assert served("web1.example.com").returncode != 0
