"""The program that ends nginx while clients hold connections; a process in its place, and commands in systemd's."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests import ROOT

PROGRAM = ROOT / "roles/nginx/files/usr/local/lib/fortress/nginx_drain.py"
# A master and its worker; the master ends when the worker does.
MASTER = """
import signal, subprocess, sys
worker = subprocess.Popen(["sleep", sys.argv[1]], stdin=subprocess.DEVNULL)
signal.signal(signal.SIGQUIT, lambda *_: None)
print(worker.pid, flush=True)
worker.wait()
"""
BUSCTL = """#!/bin/sh
echo "$@" >> "$ASKED"
echo 'no bus' >&2
exit $BUS
"""


class Master:
    """What stands for nginx' master, its worker, and what systemd was asked for."""

    def __init__(self, folder: Path, seconds: float) -> None:
        self.asked = folder / "asked"
        command = [sys.executable, "-c", MASTER, str(seconds)]
        self.process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        assert self.process.stdout is not None
        self.worker = int(self.process.stdout.readline())
        for name, text in (("busctl", BUSCTL), ("systemctl", "#!/bin/sh\n")):
            (folder / name).write_text(text)
            (folder / name).chmod(0o755)

    def end(self, *, bus: int = 0) -> subprocess.CompletedProcess[str]:
        """Run the program."""
        path = f"{self.asked.parent}:{os.environ['PATH']}"
        environment = os.environ | {"PATH": path, "ASKED": str(self.asked), "BUS": str(bus)}
        command = [sys.executable, "-I", "-S", str(PROGRAM), str(self.process.pid)]
        return subprocess.run(command, env=environment, capture_output=True, text=True, check=False)

    def works(self) -> bool:
        """Return whether the worker goes on."""
        try:
            return "Z" not in Path(f"/proc/{self.worker}/stat").read_text().rpartition(")")[2].split()[0]
        except OSError:
            return False


@pytest.fixture
def busy(tmp_path: Path) -> Iterator[Master]:
    master = Master(tmp_path, 30)
    yield master
    os.kill(master.worker, signal.SIGKILL)
    master.process.kill()
    master.process.wait()


def test_what_ends_at_once_is_left_to_end(tmp_path: Path) -> None:
    master = Master(tmp_path, 0.1)
    done = master.end()
    assert (done.returncode, done.stderr) == (0, "")
    assert not master.asked.exists()


def test_a_worker_with_connections_moves_out_and_the_master_is_killed(busy: Master) -> None:
    done = busy.end()
    assert (done.returncode, done.stderr) == (0, "")
    assert busy.process.wait(5) == -signal.SIGKILL
    assert busy.works()
    [asked] = busy.asked.read_text().splitlines()
    assert f" StartTransientUnit ssa(sv)a(sa(sv)) fortress-nginx-drain-{busy.process.pid}.scope fail 5 " in asked
    assert f" PIDs au 1 {busy.worker} RuntimeMaxUSec t 15000000 " in asked


def test_where_systemd_can_not_be_asked_nginx_is_left_to_its_package(busy: Master) -> None:
    done = busy.end(bus=1)
    assert done.returncode == 0
    assert done.stderr == "nginx restarts when its last connection has ended, after 5 s at most: no bus\n"
    assert busy.process.poll() is None


def test_a_process_that_is_gone_is_no_error(tmp_path: Path) -> None:
    master = Master(tmp_path, 0)
    master.process.wait()
    done = master.end()
    assert (done.returncode, done.stderr) == (0, "")
