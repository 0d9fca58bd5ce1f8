"""Programs of the application as forks of a process that has imported the libraries they use.

A fork has the application's own modules as well where it is to run by this tree's sources and nothing before them,
and imports them for itself elsewhere. What a test judges of imports, memory, or the time of a start needs a new Python:
`subprocess`.
"""

from __future__ import annotations

import gc
import importlib
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import IO

from tools import forks

ROOT = Path(__file__).parents[3]
SOURCE = Path(__file__).parents[1] / "src"
# Of the run of pytest: the number of its process, and a folder. `conftest.py` of the repository sets it.
RUN = "FORTRESS_PYTEST_RUN"

# What is imported once, with all that they import.
LOADED = (
    *("iris_api.local.predict", "iris_api.packing.cli", "iris_api.server.app", "iris_api.server.protocol"),
    *("gunicorn.app.wsgiapp", "uvicorn.main", "uvicorn_worker", "uvloop"),
    *("onnxruntime", "sklearn.linear_model", "sklearn.pipeline"),
)


class Program(forks.Program):
    """A module that runs as a program, in a session of its own, and is used like a `subprocess.Popen`."""

    def __init__(
        self,
        module: str,
        *arguments: str,
        env: Mapping[str, str],
        cwd: Path | None = None,
        stdin: IO[str] | IO[bytes] | None = None,
        stdout: IO[str] | IO[bytes] | None = None,
        stderr: IO[str] | IO[bytes] | None = None,
    ) -> None:
        """Start it. A stream that is not given is /dev/null."""
        job = forks.Job(module, arguments, str(cwd or Path.cwd()), dict(env))
        super().__init__(connect(), job, stdin, stdout, stderr)


def run(
    module: str, *arguments: str, env: Mapping[str, str], cwd: Path | None = None, text: str = ""
) -> subprocess.CompletedProcess[str]:
    """Run a program to its end; text: its standard input."""
    return forks.run_text(connect(), forks.Job(module, arguments, str(cwd or Path.cwd()), dict(env)), text)


def connect() -> socket.socket:
    """Return a connection to the process that forks, of which there is one for all workers of a run of pytest."""
    owner, folder = os.environ[RUN].split(":", 1)
    address = Path(folder, "programs")
    return forks.connect(address, partial(start, address, int(owner), *LOADED))


def start(address: Path, owner: int, *modules: str) -> None:
    """Start a process that forks, with modules imported, until another one ends; return when it listens."""
    # As in an instance, no calculation has further threads: a fork would not have them.
    threads = {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}
    environment = os.environ | {"PYTHONPATH": f"{ROOT}:{SOURCE}"} | threads
    command = [sys.executable, "-P", "-m", __name__, str(address), str(owner), *modules]
    subprocess.run(command, env=environment, check=True, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL)


def main() -> None:
    """Import modules, and fork for others until another process ends: the arguments."""
    address, owner, *modules = sys.argv[1:]
    own_paths = os.environ["PYTHONPATH"].split(os.pathsep)
    for name in modules:
        importlib.import_module(name)
    forget("app", "tools")
    sys.path[:] = [path for path in sys.path if path not in own_paths]
    # What a collection of garbage touches is copied: each fork would get a copy of all that was loaded.
    gc.collect()
    gc.freeze()
    listener = forks.listen(Path(address))
    if os.fork():
        os._exit(0)
    os.setsid()
    # Here, a fork goes on alone, and ends as any program does.
    job, streams = forks.serve(listener, int(owner))
    paths = job.environment.get("PYTHONPATH", "").split(os.pathsep)
    if str(SOURCE) in paths and set(paths) <= set(own_paths):
        # It runs as a program, and is not imported.
        sys.modules.pop(job.module, None)
    else:
        forget("iris_api")
    os.setsid()
    forks.become(job, streams)


def forget(*packages: str) -> None:
    """Forget what is imported of these."""
    for name in [name for name in sys.modules if name.partition(".")[0] in packages]:
        del sys.modules[name]


if __name__ == "__main__":
    signal.signal(signal.SIGINT, signal.default_int_handler)
    main()
