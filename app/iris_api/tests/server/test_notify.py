from __future__ import annotations

import asyncio
import contextlib
import socket
import time
from pathlib import Path

import pytest

from iris_api.server.notify import heartbeat, notify


@pytest.mark.parametrize("kind", ["path", "abstract"])
def test_systemd_gets_each_assignment_on_a_line(kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    address = str(tmp_path / "notify")
    monkeypatch.setenv("NOTIFY_SOCKET", address if kind == "path" else f"@{address}")
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as systemd:
        systemd.bind(address if kind == "path" else f"\0{address}")
        systemd.settimeout(1)
        notify("READY=1", "STATUS=Serving")
        assert systemd.recv(4096) == b"READY=1\nSTATUS=Serving"


def test_a_heartbeat_never_waits_for_systemd(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NOTIFY_SOCKET", str(tmp_path / "notify"))
    monkeypatch.setenv("WATCHDOG_USEC", "4000")
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as systemd:
        systemd.bind(str(tmp_path / "notify"))
        started = time.monotonic()
        # More beats than the socket holds, and nobody reads them.
        with contextlib.suppress(TimeoutError):
            asyncio.run(asyncio.wait_for(heartbeat(), 2))
        assert time.monotonic() - started < 3


def test_outside_of_systemd_nothing_happens(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("NOTIFY_SOCKET", raising=False)
    notify("READY=1")


def test_a_systemd_that_does_not_listen_is_logged(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv("NOTIFY_SOCKET", str(tmp_path / "nobody"))
    notify("READY=1")
    assert "systemd did not get" in caplog.text
