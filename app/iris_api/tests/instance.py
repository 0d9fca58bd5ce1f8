"""A real instance for tests: gunicorn as the unit starts it, with a socket in systemd's place."""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import signal
import socket
import struct
import time
import urllib.request
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from .forks import Program
from .paths import ROOT, SOURCE

WATCHDOG_SECONDS = 2
EXAMPLE = {"petal_length": 6.5, "petal_width": 0.8}


class Message(NamedTuple):
    """What a process told systemd."""

    when: float
    pid: int
    text: str


class Instance:
    """One instance and all it says to systemd and to the log."""

    def __init__(self, directory: Path, model_dir: Path, *arguments: str, **settings: str) -> None:
        self._log = directory / "log"
        # An abstract socket, as systemd itself uses in some places, has no path to remove.
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        address = f"iris-api-test-{os.getpid()}-{id(self)}"
        self._socket.bind("\0" + address)
        self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_PASSCRED, 1)
        self.port = free_port()
        environment = {
            **{key: value for key, value in os.environ.items() if not key.startswith("IRIS_API_")},
            "PYTHONPATH": f"{ROOT}:{SOURCE}",
            "NOTIFY_SOCKET": "@" + address,
            "WATCHDOG_USEC": str(WATCHDOG_SECONDS * 1_000_000),
            "IRIS_API_INSTANCE": "1",
            "IRIS_API_BASE_PORT": str(self.port),
            "IRIS_API_MODEL_DIR": str(model_dir),
            **settings,
        }
        self.messages: list[Message] = []
        self.started = time.monotonic()
        with self._log.open("w") as log:
            # Its session is its own, so that nothing is left behind when the master is killed.
            self.master = Program("iris_api.server.command", *arguments, env=environment, stdout=log, stderr=log)

    def listen(self, seconds: float) -> Iterator[Message]:
        """Yield what is told to systemd within some seconds."""
        end = time.monotonic() + seconds
        while (left := end - time.monotonic()) > 0:
            self._socket.settimeout(left)
            try:
                data, ancillary, _, _ = self._socket.recvmsg(4096, socket.CMSG_SPACE(12))
            except TimeoutError:
                return
            (_, _, credentials), *_ = ancillary
            pid, _, _ = struct.unpack("3i", credentials)
            message = Message(time.monotonic(), pid, data.decode())
            self.messages.append(message)
            yield message

    def wait_until(self, text: str, seconds: float = 20, where: Callable[[Message], bool] = lambda _: True) -> Message:
        """Return the first message from now on that has a line, or fail with the log."""
        for message in self.listen(seconds):
            if text in message.text.splitlines() and where(message):
                return message
        raise AssertionError(f"no {text} within {seconds} s; systemd was told {self.messages}\n{self.log_text}")

    def wait_until_status(self, text: str, seconds: float = 20) -> None:
        """Wait until a status line has a text, or fail with the log."""
        for message in self.listen(seconds):
            if "STATUS=" in message.text and text in message.text:
                return
        raise AssertionError(f"no status {text!r}; systemd was told {self.messages}\n{self.log_text}")

    def wait_until_ready(self, *, other_than: int = 0) -> int:
        """Return the process id of the worker that says it is ready."""
        return self.wait_until("READY=1", where=lambda message: message.pid != other_than).pid

    def wait_until_gone(self, seconds: float = 20) -> int:
        """Return the exit code of the master."""
        return self.master.wait(seconds)

    def request(self, method: str, path: str, content: object = None) -> tuple[int, Any, Mapping[str, str]]:
        """Send a request on a connection of its own; return status, content and headers."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=5)
        try:
            body = None if content is None else json.dumps(content)
            connection.request(method, path, body, {"Content-Type": "application/json"})
            response = connection.getresponse()
            return response.status, json.loads(response.read()), dict(response.getheaders())
        finally:
            connection.close()

    def metrics(self) -> str:
        """Return what Prometheus reads."""
        with urllib.request.urlopen(f"http://127.0.0.1:{self.port}/metrics", timeout=5) as response:
            text: str = response.read().decode()
        return text

    @property
    def log_text(self) -> str:
        """All that was logged."""
        return self._log.read_text()

    @property
    def log(self) -> list[dict[str, Any]]:
        """The events that were logged; a line that is not JSON fails."""
        return [json.loads(line) for line in self.log_text.splitlines()]

    def close(self) -> None:
        """End all its processes, frozen ones too."""
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.master.pid, signal.SIGKILL)
        self.master.wait()
        self._socket.close()


def free_port() -> int:
    """Return a port nobody listens on just now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port
