"""Programs as forks of a process that has imported what they use.

Importing that takes longer than most of them run. A fork has arguments, folder, environment, inputs, outputs and end of
its own. Who asks for one and the process that forks have a socket in common, on which there is a connection for each.
"""

from __future__ import annotations

import atexit
import fcntl
import json
import os
import runpy
import select
import signal
import socket
import subprocess
import sys
import tempfile
import traceback
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import IO, NamedTuple, NoReturn


class Job(NamedTuple):
    """A module that is to be run as a program, `python -P -m MODULE`."""

    module: str
    arguments: tuple[str, ...]
    cwd: str
    environment: dict[str, str]


class Program:
    """A job that runs, used like a `subprocess.Popen`."""

    def __init__(
        self,
        server: socket.socket,
        job: Job,
        stdin: IO[str] | IO[bytes] | None = None,
        stdout: IO[str] | IO[bytes] | None = None,
        stderr: IO[str] | IO[bytes] | None = None,
    ) -> None:
        """Start it; server: a connection to who forks. A stream that is not given is /dev/null."""
        self.returncode: int | None = None
        self._server = server
        with Path(os.devnull).open("r+") as nothing:
            streams = [(stream or nothing).fileno() for stream in (stdin, stdout, stderr)]
            socket.send_fds(server, [b"."], streams)
        server.sendall(json.dumps(job).encode())
        server.shutdown(socket.SHUT_WR)
        self._told = server.makefile()
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


def run(server: socket.socket, job: Job, given: bytes = b"") -> subprocess.CompletedProcess[bytes]:
    """Run a job to its end; server: a connection to who forks, given: its standard input."""
    with tempfile.TemporaryFile() as stdin, tempfile.TemporaryFile() as out, tempfile.TemporaryFile() as err:
        stdin.write(given)
        stdin.seek(0)
        status = Program(server, job, stdin, out, err).wait()
        out.seek(0)
        err.seek(0)
        return subprocess.CompletedProcess([job.module, *job.arguments], status, out.read(), err.read())


def run_text(server: socket.socket, job: Job, given: str = "") -> subprocess.CompletedProcess[str]:
    """Run a job to its end, as `run` does."""
    done = run(server, job, given.encode())
    return subprocess.CompletedProcess(done.args, done.returncode, done.stdout.decode(), done.stderr.decode())


def connect(address: Path, start: Callable[[], object]) -> socket.socket:
    """Return a connection to a process that forks; the first one starts it, for all who want it at this address."""
    with address.with_suffix(".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not address.exists():
            start()
    connection = socket.socket(socket.AF_UNIX)
    connection.connect(str(address))
    return connection


def listen(address: Path) -> socket.socket:
    """Return what a process listens on that forks."""
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(str(address))
    listener.listen(socket.SOMAXCONN)
    return listener


def nothing_more() -> None:
    """Do nothing."""


def serve(
    listener: socket.socket,
    owner: int,
    before: Callable[[], object] = nothing_more,
    after: Callable[[], object] = nothing_more,
) -> tuple[Job, list[int]]:
    """Fork for each job that is asked for, and tell how it ended, until another process ends.

    Args:
        listener: Where jobs are asked for.
        owner: The number of the other process. What still runs when it ends is killed.
        before: Is done before each fork.
        after: Is done when a fork has ended.

    Returns:
        In each fork, and nowhere else: what is to be done in it, and its streams.
    """
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
                for process in running:
                    signal.pidfd_send_signal(process, signal.SIGKILL)
                os._exit(0)
            elif ready == listener.fileno():
                asked, _ = listener.accept()
                _, streams, _, _ = socket.recv_fds(asked, 1, 3)
                with asked.makefile() as words:
                    text = words.read()
                # Who asked may be gone.
                if not text:
                    asked.close()
                    continue
                before()
                if not (pid := os.fork()):
                    for connection in (listener, asked, *(each for _, each in running.values())):
                        connection.close()
                    for number in (end, *running):
                        os.close(number)
                    return Job(*json.loads(text)), streams
                for number in streams:
                    os.close(number)
                running[ended := os.pidfd_open(pid)] = pid, asked
                watched.register(ended, select.POLLIN)
                with suppress(OSError):
                    asked.sendall(f"{pid}\n".encode())
            else:
                watched.unregister(ready)
                os.close(ready)
                pid, asked = running.pop(ready)
                status = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
                after()
                with asked, suppress(OSError):
                    asked.sendall(f"{status}\n".encode())


def become(job: Job, streams: list[int]) -> NoReturn:
    """Run a module as a program."""
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
    try:
        runpy.run_module(job.module, run_name="__main__", alter_sys=True)
        sys.exit()
    except SystemExit as end:
        leave.status = end.code if isinstance(end.code, int) else int(end.code is not None)
        raise


def become_part(job: Job, streams: list[int]) -> NoReturn:
    """Run a module as a program that leaves to the process that forks what is to be done at the exit of Python."""
    try:
        become(job, streams)
    except SystemExit as end:
        assert leave.status is not None
        # As Python does at the end of a program.
        if not isinstance(end.code, int | None):
            print(end.code, file=sys.stderr)
    except BaseException:
        traceback.print_exc()
        leave.status = 1
    leave()
    os._exit(1)


class Leave:
    """End a fork when Python has done what it does at the exit of a program, but for tearing down all objects.

    That takes 0.1 s where a fork shares the memory of a process that has imported much: of each page that it looks at
    for the last time it would get a copy.
    """

    status: int | None = None
    """With which the program ends, once it has come to an end of its own."""

    def __call__(self) -> None:
        """End here, if nothing is wrong with the outputs."""
        if self.status is not None:
            with suppress(OSError, ValueError):
                sys.stdout.flush()
                sys.stderr.flush()
                os._exit(self.status & 0xFF)


leave = Leave()
# What is registered first is done last.
atexit.register(leave)
