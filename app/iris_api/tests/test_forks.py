"""A program as a fork is what a new Python would have run."""

from __future__ import annotations

import json
import os
import select
import signal
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from . import forks
from .paths import SOURCE

PROBE = """
import json, os, sys
imported = sorted(name for name in sys.modules if name.partition(".")[0] in ("iris_api", "app"))
import iris_api
found = [sys.argv[1:], __name__, os.getcwd(), dict(os.environ), sys.stdin.read(), imported, iris_api.__file__]
print(json.dumps(found))
print("complaint", file=sys.stderr)
sys.exit(json.loads(sys.argv[1]))
"""
ENVIRONMENT = {"PYTHONPATH": str(SOURCE), "PATH": os.environ["PATH"]}


@pytest.fixture
def environment(tmp_path: Path) -> dict[str, str]:
    """One in which there is a module `probe`."""
    (tmp_path / "probe.py").write_text(PROBE)
    return ENVIRONMENT | {"PYTHONPATH": f"{tmp_path}:{SOURCE}"}


@pytest.mark.parametrize("code", ["0", "3", "null", '"sorry"'])
def test_it_is_given_what_it_is_started_with_and_ends_as_it_says(
    environment: dict[str, str], tmp_path: Path, code: str
) -> None:
    found = forks.run("probe", code, "ä b", env=environment, cwd=tmp_path, text="two\nlines\n")
    command = [sys.executable, "-P", "-m", "probe", code, "ä b"]
    expected = subprocess.run(
        command, env=environment, cwd=tmp_path, input="two\nlines\n", capture_output=True, text=True, check=False
    )
    # Python adds it where the locale is none.
    said, told = (json.loads(done.stdout) for done in (found, expected))
    for each in (said, told):
        each[3].pop("LC_CTYPE", None)
    assert said == told
    assert said[:3] == [[code, "ä b"], "__main__", str(tmp_path)]
    assert (found.returncode, found.stderr) == (expected.returncode, expected.stderr)


def test_a_signal_that_ends_it_is_told(tmp_path: Path) -> None:
    (tmp_path / "sleeper.py").write_text("import time\ntime.sleep(60)\n")
    program = forks.Program("sleeper", env=ENVIRONMENT | {"PYTHONPATH": str(tmp_path)})
    assert program.poll() is None
    with pytest.raises(TimeoutError):
        program.wait(0.01)
    program.send_signal(signal.SIGTERM)
    assert program.wait(20) == program.poll() == -signal.SIGTERM


def test_what_nothing_catches_is_printed(tmp_path: Path) -> None:
    (tmp_path / "broken.py").write_text("1 / 0\n")
    done = forks.run("broken", env=ENVIRONMENT | {"PYTHONPATH": str(tmp_path)})
    assert done.returncode == 1
    assert done.stderr.rstrip().endswith("ZeroDivisionError: division by zero")


def test_the_process_that_forks_ends_with_the_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "parent.py").write_text("import os\nprint(os.getppid())\n")
    with tempfile.TemporaryDirectory() as folder, subprocess.Popen(["sleep", "60"]) as owner:
        monkeypatch.setenv(forks.RUN, f"{owner.pid}:{folder}")
        # Libraries would take their time.
        forks.start(Path(folder, "programs"), owner.pid)
        process = int(forks.run("parent", env=ENVIRONMENT | {"PYTHONPATH": str(tmp_path)}).stdout)
        with open(os.pidfd_open(process)) as end:
            assert not select.select([end], [], [], 0.05)[0]
            owner.kill()
            assert select.select([end], [], [], 20)[0]
