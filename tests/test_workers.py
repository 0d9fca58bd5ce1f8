"""Workers of pytest-xdist as forks: tests are imported once, and all that xdist says of a worker is said of a fork."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from tests import ROOT

CONFTEST = """
from tests import workers

def pytest_cmdline_main(config):
    if config.getoption("tx"):
        workers.fork_workers(config, config.rootpath)
"""
TESTS = """
import os
import pathlib
import signal

import pytest

with pathlib.Path("imported").open("a") as told:
    print(os.getpid(), file=told)

@pytest.mark.parametrize("number", range(4))
def test_it_is_a_fork(number):
    assert os.getppid() == int(pathlib.Path("imported").read_text())
    assert os.environ["PYTEST_XDIST_WORKER"] in ("gw0", "gw1", "gw2")
    assert os.environ["GIVEN"] == "in the folder " + os.getcwd()

def test_of_a_worker_that_is_killed():
    os.kill(os.getpid(), signal.SIGKILL)

def test_that_fails():
    assert [1, 2] == [1, 3]
"""


def test_workers_are_forks_and_xdist_tells_what_becomes_of_them(tmp_path: Path) -> None:
    (tmp_path / "conftest.py").write_text(CONFTEST)
    (tmp_path / "test_it.py").write_text(TESTS)
    command = [sys.executable, "-m", "pytest", "--numprocesses=2", "-p", "xdist", "-p", "no:cacheprovider"]
    own = {"PYTHONPATH": str(ROOT), "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1", "GIVEN": f"in the folder {tmp_path}"}
    done = subprocess.run(command, cwd=tmp_path, env=os.environ | own, capture_output=True, text=True, check=False)
    assert "2 failed, 4 passed" in done.stdout, done.stdout + done.stderr
    assert "crashed while running 'test_it.py::test_of_a_worker_that_is_killed'" in done.stdout
    assert "At index 1 diff: 2 != 3" in done.stdout
    assert done.returncode == 1
    process = int((tmp_path / "imported").read_text())
    assert not Path(f"/proc/{process}").exists(), "it ends with the run"
