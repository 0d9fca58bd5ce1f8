"""Programs of the application as forks of a process that has imported the libraries they use.

Importing these takes longer than most programs run. A fork imports the application's own code for itself, and has
arguments, folder, environment, outputs and end of its own. What a test judges of imports, memory, or the time of a
start needs a new Python: `subprocess`.
"""

from __future__ import annotations

import fcntl
import gc
import importlib
import json
import os
import runpy
import select
import signal
import socket
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import IO, NamedTuple, NoReturn

SOURCE = Path(__file__).parents[1] / "src"
# Of the run of pytest: the number of its process, and a folder. `conftest.py` of the repository sets it.
RUN = "FORTRESS_PYTEST_RUN"

# What they import is kept; the application's own modules are forgotten.
LOADED = (
    *("iris_api.local.predict", "iris_api.packing.cli", "iris_api.server.app", "iris_api.server.protocol"),
    *("gunicorn.app.wsgiapp", "uvicorn.main", "uvicorn_worker", "uvloop"),
    *("onnxruntime", "sklearn.linear_model", "sklearn.pipeline"),
)


class Program:
    """A module that runs as a program, `python -P -m MODULE`, and is used like a `subprocess.Popen`."""

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
        """Start it, in a session of its own. A stream that is not given is /dev/null."""
        job = Job(module, arguments, str(cwd or Path.cwd()), dict(env))
        self.returncode: int | None = None
        self._server = connect()
        with Path(os.devnull).open("r+") as nothing:
            streams = [(stream or nothing).fileno() for stream in (stdin, stdout, stderr)]
            socket.send_fds(self._server, [b"."], streams)
        self._server.sendall(json.dumps(job).encode())
        self._server.shutdown(socket.SHUT_WR)
        self._told = self._server.makefile()
        self.pid = int(self._told.readline())

    def poll(self) -> int | None:
        """Return its exit code, or nothing while it runs."""
        with suppress(TimeoutError):
            return self.wait(0)
        return None

    def wait(self, timeout: float | None = None) -> int:
        """Return its exit code; of a signal that ended it, less than 0. A program that does not end: TimeoutError."""
        if self.returncode is None:
            ended, _, _ = select.select([self._server], [], [], timeout)
            if not ended:
                raise TimeoutError(f"process {self.pid} has not ended within {timeout} s")
            self.returncode = int(self._told.readline())
            self._told.close()
            self._server.close()
        return self.returncode

    def send_signal(self, number: int) -> None:
        """Send it a signal, if it has not ended."""
        if self.poll() is None:
            os.kill(self.pid, number)


def run(
    module: str, *arguments: str, env: Mapping[str, str], cwd: Path | None = None, text: str = ""
) -> subprocess.CompletedProcess[str]:
    """Run a program to its end; text: its standard input."""
    with (
        tempfile.TemporaryFile("w+") as stdin,
        tempfile.TemporaryFile("w+") as out,
        tempfile.TemporaryFile("w+") as err,
    ):
        stdin.write(text)
        stdin.seek(0)
        status = Program(module, *arguments, env=env, cwd=cwd, stdin=stdin, stdout=out, stderr=err).wait()
        out.seek(0)
        err.seek(0)
        return subprocess.CompletedProcess([module, *arguments], status, out.read(), err.read())


def connect() -> socket.socket:
    """Return a connection to the process that forks; the first one of a run of pytest starts it for all workers."""
    owner, folder = os.environ[RUN].split(":", 1)
    address = Path(folder, "forks")
    with Path(folder, "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not address.exists():
            start(address, int(owner), *LOADED)
    connection = socket.socket(socket.AF_UNIX)
    connection.connect(str(address))
    return connection


def start(address: Path, owner: int, *modules: str) -> None:
    """Start a process that forks, with modules imported, until another one ends; return when it listens."""
    # As in an instance, no calculation has further threads: a fork would not have them.
    environment = os.environ | {"PYTHONPATH": str(SOURCE), "OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}
    command = [sys.executable, "-P", __file__, str(address), str(owner), *modules]
    subprocess.run(command, env=environment, check=True, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL)


class Job(NamedTuple):
    """What is to be run."""

    module: str
    arguments: tuple[str, ...]
    cwd: str
    environment: dict[str, str]


def main() -> None:
    """Import modules, and fork for others until another process ends: the arguments."""
    address, owner, *modules = sys.argv[1:]
    own_paths = os.environ["PYTHONPATH"].split(os.pathsep)
    for name in modules:
        importlib.import_module(name)
    for name in [name for name in sys.modules if name.partition(".")[0] == "iris_api"]:
        del sys.modules[name]
    sys.path[:] = [path for path in sys.path if path not in own_paths]
    # What a collection of garbage touches is copied: each fork would get a copy of all that was loaded.
    gc.collect()
    gc.freeze()
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(address)
    listener.listen(socket.SOMAXCONN)
    if os.fork():
        os._exit(0)
    os.setsid()
    # Here, a fork goes on alone, and ends as any program does.
    become(*serve(listener, int(owner)))


def serve(listener: socket.socket, owner: int) -> tuple[Job, list[int]]:
    """Fork for each job that is asked for, and tell how it ended; return what is to be done in the fork."""
    watched = select.poll()
    try:
        end = os.pidfd_open(owner)
    except ProcessLookupError:
        os._exit(0)
    watched.register(end, select.POLLIN)
    watched.register(listener, select.POLLIN)
    running: dict[int, tuple[int, socket.socket]] = {}
    while True:
        for ready, _ in watched.poll():
            if ready == end:
                os._exit(0)
            elif ready == listener.fileno():
                asked, _ = listener.accept()
                _, streams, _, _ = socket.recv_fds(asked, 1, 3)
                with asked.makefile() as words:
                    job = Job(*json.load(words))
                if not (pid := os.fork()):
                    for connection in (listener, asked, *(each for _, each in running.values())):
                        connection.close()
                    for number in (end, *running):
                        os.close(number)
                    return job, streams
                for number in streams:
                    os.close(number)
                asked.sendall(f"{pid}\n".encode())
                running[ended := os.pidfd_open(pid)] = pid, asked
                watched.register(ended, select.POLLIN)
            else:
                watched.unregister(ready)
                os.close(ready)
                pid, asked = running.pop(ready)
                status = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
                # Who asked may be gone.
                with asked, suppress(OSError):
                    asked.sendall(f"{status}\n".encode())


def become(job: Job, streams: list[int]) -> NoReturn:
    """Run a module as a program."""
    os.setsid()
    for number, stream in enumerate(streams):
        os.dup2(stream, number)
        os.close(stream)
    # The old ones keep in mind what they wrote to, /dev/null, where one can seek.
    sys.stdin = os.fdopen(0, closefd=False)
    sys.stdout = os.fdopen(1, "w", closefd=False)
    sys.stderr = os.fdopen(2, "w", closefd=False, errors="backslashreplace", buffering=1)
    os.chdir(job.cwd)
    os.environ.clear()
    os.environ.update(job.environment)
    sys.path[:0] = filter(None, job.environment.get("PYTHONPATH", "").split(os.pathsep))
    sys.argv[1:] = job.arguments
    runpy.run_module(job.module, run_name="__main__", alter_sys=True)
    sys.exit()


if __name__ == "__main__":
    signal.signal(signal.SIGINT, signal.default_int_handler)
    main()
