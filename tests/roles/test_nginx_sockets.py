"""The program that starts nginx with sockets that systemd keeps."""

from __future__ import annotations

import importlib.util
import os
import socket
import subprocess
import sys
import threading
from pathlib import Path
from types import ModuleType

import pytest

from tests import ROOT
from tests.controller import render

PROGRAM = ROOT / "roles/nginx/files/usr/local/lib/fortress/nginx_sockets.py"
UNIT = "etc/systemd/system/nginx.service.d/fortress-sockets.conf"
# In place of nginx: it says which sockets it was given, and serves one connection of the first.
SERVER = """
import os, socket, sys
numbers = [int(number) for number in os.environ["NGINX"].split(";") if number]
open(sys.argv[1], "w").write(f"{os.getpid()}\\n")
listening = socket.socket(fileno=numbers[0])
listening.setblocking(True)
connection, _ = listening.accept()
connection.sendall(b"served")
connection.recv(1)
"""


@pytest.fixture
def program() -> ModuleType:
    spec = importlib.util.spec_from_file_location("nginx_sockets", PROGRAM)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return int(free.getsockname()[1])


def test_a_connection_made_while_nobody_serves_is_served_by_the_next(
    program: ModuleType, tmp_path: Path, port: int
) -> None:
    [kept] = program.sockets([f"127.0.0.1:{port}"], [])
    with socket.create_connection(("127.0.0.1", port), timeout=5) as client:
        again = program.sockets([f"127.0.0.1:{port}"], [kept])
        assert again == [kept]
        command = [sys.executable, "-c", SERVER, str(tmp_path / "pid")]
        assert program.start(command, again, tmp_path / "pid") == 0
        assert client.recv(10) == b"served"
    kept.close()


def test_a_server_that_does_not_start_is_told_to_systemd(program: ModuleType, tmp_path: Path, port: int) -> None:
    made = program.sockets([f"127.0.0.1:{port}"], [])
    assert program.start([sys.executable, "-c", "raise SystemExit(3)"], made, tmp_path / "pid") == 3
    made[0].close()


def test_the_sockets_of_a_server_that_was_started_without_it_are_taken(program: ModuleType, port: int) -> None:
    """As of an nginx of release 1.0.0: who connects while it is replaced is served by the next one."""
    before = (
        "import socket, time\n"
        "connected = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)\n"
        f"listening = socket.create_server(('127.0.0.1', {port}))\n"
        "print('listening', flush=True)\n"
        "time.sleep(60)\n"
    )
    with subprocess.Popen([sys.executable, "-c", before], stdout=subprocess.PIPE, text=True) as server:
        try:
            assert server.stdout is not None
            assert server.stdout.readline() == "listening\n"
            try:
                [taken] = program.listening(server.pid)
            except PermissionError as error:
                pytest.skip(f"this machine lets nobody take over the sockets of a process: {error}")
        finally:
            server.kill()
    assert taken.getsockname() == ("127.0.0.1", port)
    with taken, socket.create_connection(("127.0.0.1", port), timeout=5):
        taken.accept()[0].close()


def test_a_server_that_is_gone_has_no_sockets_to_take(
    program: ModuleType, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    with subprocess.Popen(["true"]) as gone:
        pass
    with pytest.raises(OSError):
        program.listening(gone.pid)
    # systemd names no process where it has ended by itself.
    monkeypatch.setattr(sys, "argv", ["nginx_sockets.py", "--take"])
    assert program.main() == 0
    assert capsys.readouterr().err == ""


def test_a_socket_of_an_address_that_is_no_longer_wanted_is_closed(program: ModuleType, port: int) -> None:
    [every] = program.sockets([f"0.0.0.0:{port}"], [])
    [one] = program.sockets([f"127.0.0.1:{port}"], [every])
    assert every.fileno() == -1
    assert one.getsockname() == ("127.0.0.1", port)
    one.close()


def test_all_addresses_include_each(program: ModuleType, port: int) -> None:
    made = program.sockets([f"0.0.0.0:{port}", f"127.0.0.1:{port}", f"[::]:{port}", f"[::1]:{port}"], [])
    assert [one.getsockname()[:2] for one in made] == [("0.0.0.0", port), ("::", port)]
    assert not any(one.getblocking() for one in made), "nginx would stand still in accept()"
    for one in made:
        one.close()


def test_systemd_is_given_what_to_keep(
    program: ModuleType, tmp_path: Path, port: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = program.sockets([f"127.0.0.1:{port}"], [])
    said: list[str] = []
    kept: list[tuple[str, int]] = []
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as systemd:
        systemd.bind(str(tmp_path / "notify"))

        def read() -> None:
            for _ in range(4):
                text, numbers, _, _ = socket.recv_fds(systemd, 1000, 8)
                said.append(text.decode().splitlines()[0])
                for number in numbers:
                    if said[-1] == "FDSTORE=1":
                        with socket.socket(fileno=number) as one:
                            kept.append(one.getsockname())
                    else:
                        os.close(number)

        reader = threading.Thread(target=read)
        reader.start()
        monkeypatch.setenv("NOTIFY_SOCKET", str(tmp_path / "notify"))
        program.release()
        program.keep(made)
        reader.join(5)
    assert said == ["FDSTOREREMOVE=1", "BARRIER=1", "FDSTORE=1", "BARRIER=1"]
    assert kept == [("127.0.0.1", port)]
    made[0].close()


def test_before_nginx_is_stopped_its_sockets_are_taken_and_its_connections_kept() -> None:
    lines = [line for line in render("nginx", UNIT).splitlines() if line.startswith("ExecStop=")]
    assert lines[0] == "ExecStop="
    for line, words in zip(lines[1:3], (["nginx_sockets.py", "--take"], ["nginx_drain.py"]), strict=True):
        program, *arguments = words
        assert line.split()[0] == "ExecStop=-+/usr/bin/python3"
        assert line.split()[3:] == [f"/usr/local/lib/fortress/{program}", *arguments, "$MAINPID"]
    # Where that can't be done nginx is stopped as its package does it.
    assert lines[3:] == ["ExecStop=-/sbin/start-stop-daemon --quiet --stop --retry QUIT/5 --pidfile /run/nginx.pid"]


def test_the_unit_names_every_address_that_nginx_listens_on() -> None:
    [_, command] = [
        line
        for line in render("nginx", UNIT, nginx_listen_addresses=["192.0.2.1", "[::]"]).splitlines()
        if line.startswith("ExecStart=")
    ]
    before, _, after = command.partition(" -- ")
    assert before.split()[-4:] == ["192.0.2.1:80", "192.0.2.1:443", "[::]:80", "[::]:443"]
    # A log that has its full size must not end nginx.
    assert after.startswith("/usr/bin/env --ignore-signal=XFSZ /usr/sbin/nginx ")
