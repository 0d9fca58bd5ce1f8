"""The instances as systemd and their clients see them."""

from __future__ import annotations

import json
import subprocess
import time
import urllib.error
import urllib.request
from typing import Any

from . import Failure

POLL_SECONDS = 0.1
PROBE_SECONDS = 2.0


class Deadline:
    """A moment by which all must be done."""

    def __init__(self, seconds: float) -> None:
        """Begin to count."""
        self.seconds = seconds
        self._end = time.monotonic() + seconds

    def wait(self, what: str) -> None:
        """Wait a moment for something, or fail if there is no time left."""
        if time.monotonic() > self._end:
            raise Failure(f"{self.seconds:g} s have passed, the deadline for all of it, while waiting for {what}")
        time.sleep(POLL_SECONDS)


def systemctl(*arguments: str) -> str:
    """Run systemctl and return what it says, or fail with its complaint."""
    done = subprocess.run(["systemctl", *arguments], capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise Failure(f"systemctl {' '.join(arguments)}: {done.stderr.strip() or done.stdout.strip()}")
    return done.stdout


def state(unit: str) -> dict[str, str]:
    """Return ActiveState, SubState and InvocationID of a unit."""
    shown = systemctl("show", "--property=ActiveState,SubState,InvocationID", unit)
    return dict(line.split("=", 1) for line in shown.splitlines())


def restart(unit: str, deadline: Deadline) -> None:
    """Stop a unit, which finishes what it is answering, start it, and return when it says that it can answer."""
    before = state(unit)["InvocationID"]
    systemctl("restart", "--no-block", unit)
    while True:
        now = state(unit)
        if now["InvocationID"] != before:
            if now["ActiveState"] == "active":
                return
            # Restart=always: what failed to start is about to be tried again, and would fail alike.
            if now["ActiveState"] in ("failed", "inactive") or now["SubState"] == "auto-restart":
                told = systemctl("show", "--property=StatusText", "--value", unit).strip()
                raise Failure(f"{unit} does not start: {told or 'its journal says why'}")
        deadline.wait(f"{unit} to say that it is ready")


def evidence(unit: str, since: float) -> str:
    """Return what an operator would look at first: status and journal of a unit."""
    status = _output("systemctl", "status", "--no-pager", "--lines=0", unit)
    journal = _output(
        "journalctl", f"--unit={unit}", f"--since=@{since:.0f}", "--lines=25", "--no-pager", "--output=cat"
    )
    return f"{status}\n--- journal of {unit}\n{journal}"


def _output(*command: str) -> str:
    return subprocess.run(command, capture_output=True, text=True, check=False).stdout.strip()


def ask(url: str, body: object = None) -> tuple[int, Any]:
    """Return status and body of an answer; 0 and a reason where there is none."""
    data = None if body is None else json.dumps(body).encode()
    request = urllib.request.Request(url, data, {"Content-Type": "application/json"})
    try:
        # No proxy of the environment has anything to say here.
        opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
        with opener.open(request, timeout=PROBE_SECONDS) as answer:
            return answer.status, json.load(answer)
    except urllib.error.HTTPError as error:
        return error.code, error.read(2000).decode(errors="replace")
    except (OSError, ValueError) as error:
        return 0, str(error)


def running(address: str) -> str:
    """Return the id of the deployment that the instance at an address runs; nothing where none is ready."""
    status, body = ask(f"http://{address}/health/ready")
    return str(body.get("deployment", "")) if status == 200 else ""
