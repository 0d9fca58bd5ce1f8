"""`iris-model serve` is an instance on a laptop: one process that says how to ask it, until Ctrl-C."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import tomllib
import urllib.request
from pathlib import Path

import pytest

from iris_api.local.bundle import FOR_ROWS
from iris_api.local.serve import NEEDED

from ..instance import free_port
from ..paths import BUNDLE, SOURCE

SERVE = [sys.executable, "-P", "-m", "iris_api.packing.cli", "serve"]
ENVIRONMENT = os.environ | {"PYTHONPATH": str(SOURCE)}


def until_ready(program: subprocess.Popen[str]) -> str:
    """Return what is printed until the last line that says how to ask."""
    assert program.stdout
    told = ""
    for line in program.stdout:
        told += line
        if "/metrics" in line:
            return told
    raise AssertionError(f"it ended: {told}")


def test_it_says_how_to_ask_it_answers_and_ends_with_ctrl_c(tmp_path: Path) -> None:
    port = free_port()
    command = [*SERVE, str(BUNDLE), f"--port={port}"]
    # A module of the folder where somebody happens to be is not meant.
    (tmp_path / "random.py").write_text("raise SystemExit('the wrong one')")
    with subprocess.Popen(
        command, env=ENVIRONMENT, cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as program:
        try:
            told = until_ready(program)
            assert told.startswith(f"iris 1.0.0 is served by ONNX Runtime on http://127.0.0.1:{port}\n")
            curl = next(line.strip() for line in told.splitlines() if "curl" in line)
            answer = subprocess.run(["sh", "-c", f"{curl} --silent --fail"], capture_output=True, text=True, check=True)
            assert '"species":"virginica"' in answer.stdout
            for address in re.findall(r"http://\S+/(?:docs|metrics)", told):
                with urllib.request.urlopen(address, timeout=5) as page:
                    content = page.read().decode()
                assert page.status == 200
            # The golden samples were no traffic.
            assert 'iris_api_requests_total{path="/predict",status="200"} 1.0' in content
            taken = subprocess.run(command, env=ENVIRONMENT, capture_output=True, text=True, check=False)
            assert (taken.returncode, taken.stdout) == (1, "")
            assert taken.stderr == (
                f"iris-model: port {port} is in use by another program: take another one, --port {port + 1}\n"
            )
            # One process has it all.
            children = Path(f"/proc/{program.pid}/task/{program.pid}/children").read_text()
            assert children == ""
        finally:
            program.send_signal(signal.SIGINT)
            out, err = program.communicate(timeout=20)
    assert (program.returncode, out.strip(), err) == (0, "Stopped.", "")


@pytest.mark.parametrize(
    ("arguments", "part"),
    [
        (["/nowhere"], "/nowhere/manifest.json: cannot be read"),
        ([str(BUNDLE), "--host=nobody"], "IRIS_API_BIND_ADDRESS='nobody': "),
        ([str(BUNDLE), "--host=203.0.113.1"], "cannot serve on 203.0.113.1:8000 ("),
    ],
)
def test_what_cannot_be_served_is_said_in_one_line(arguments: list[str], part: str) -> None:
    done = subprocess.run([*SERVE, *arguments], env=ENVIRONMENT, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.startswith(f"iris-model: {part}") and done.stderr.count("\n") == 1, done.stderr


def test_what_it_needs_is_part_of_the_extra_that_it_names() -> None:
    project = tomllib.loads((SOURCE.parent / "pyproject.toml").read_text())["project"]
    extra = {re.split(r"[>=]", each)[0] for each in project["optional-dependencies"]["serve"]}
    assert set(FOR_ROWS.values()) < set(NEEDED.values()) < extra
