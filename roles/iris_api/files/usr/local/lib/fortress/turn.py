#!/usr/bin/python3
"""Instances restart one after the other, whoever asks for it: systemctl, needrestart, a package, an operator.

systemd runs this as ExecStop= of iris-api@N. Where the instance is to be restarted, this returns, and the instance is
stopped, only when the instance that had its turn before serves again and the gateway has noticed. The instance answers
requests meanwhile. One that is stopped for good, at shutdown too, does not wait.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

SETTINGS = Path("/etc/iris-api/deploy.json")
TURN = Path("/run/iris-api.turn")
# An instance that does not come back keeps the others from their restart for so long.
PATIENCE_SECONDS = 90.0
POLL_SECONDS = 0.2
# Of TimeoutStopSec=, as long as an instance waits.
EXTENSION_SECONDS = 15


class Systemd:
    """What systemd says of units."""

    def restarts(self, unit: str) -> bool:
        """Return whether a unit that is being stopped will be started again."""
        done = subprocess.run(["systemctl", "list-jobs", "--no-legend", unit], capture_output=True, text=True)
        jobs = (line.split() for line in done.stdout.splitlines())
        return any(len(job) > 2 and job[1] == unit and job[2] == "restart" for job in jobs)

    def show(self, unit: str) -> dict[str, str]:
        """Return Job, ActiveState, InvocationID and ActiveEnterTimestampMonotonic of a unit."""
        names = "--property=Job,ActiveState,InvocationID,ActiveEnterTimestampMonotonic"
        done = subprocess.run(["systemctl", "show", names, unit], capture_output=True, text=True)
        return dict(line.split("=", 1) for line in done.stdout.splitlines() if "=" in line)


def wait(
    unit: str,
    systemd: Systemd,
    turn: Path,
    settle: float,
    patience: float = PATIENCE_SECONDS,
    extend: Callable[[], None] = lambda: None,
) -> None:
    """Return when a unit may stop; at once, unless it is to be restarted.

    Args:
        unit: The instance that asks.
        systemd: What is asked of units.
        turn: A file with the name and the InvocationID of the instance that had its turn last.
        settle: Seconds that an instance has to serve before the next one may stop.
        patience: Seconds after which it stops waiting.
        extend: Is called in each round, well within EXTENSION_SECONDS.
    """
    end = time.monotonic() + patience
    with turn.open("a+") as file:
        while systemd.restarts(unit) and time.monotonic() < end:
            with _locked(file.fileno()) as mine:
                if mine:
                    file.seek(0)
                    last = file.read().split()
                    if len(last) != 2 or last[0] == unit or has_settled(systemd.show(last[0]), last[1], settle):
                        file.truncate(0)
                        file.write(f"{unit} {systemd.show(unit).get('InvocationID', '')}")
                        file.flush()
                        return
            extend()
            time.sleep(POLL_SECONDS)


def has_settled(shown: dict[str, str], before: str, settle: float) -> bool:
    """Return whether an instance that had its turn is done with it.

    Args:
        shown: What `Systemd.show` says of it.
        before: Its InvocationID when it was told to stop.
        settle: Seconds that it has to have served.
    """
    state = shown.get("ActiveState")
    if state in ("inactive", "failed"):
        # Stopped for good, or never to be started: nobody waits for that. Between stop and start it has a job.
        return not shown.get("Job")
    if state != "active" or (shown.get("InvocationID") == before and shown.get("Job")):
        return False
    served = time.clock_gettime(time.CLOCK_MONOTONIC) - int(shown.get("ActiveEnterTimestampMonotonic") or 0) / 1e6
    return served >= settle


@contextlib.contextmanager
def _locked(handle: int) -> Iterator[bool]:
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        yield False
        return
    try:
        yield True
    finally:
        fcntl.flock(handle, fcntl.LOCK_UN)


def extend_timeout() -> None:
    """Have systemd wait longer for this program."""
    if address := os.environ.get("NOTIFY_SOCKET"):
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as notify:
            notify.connect(f"\0{address[1:]}" if address.startswith("@") else address)
            notify.send(f"EXTEND_TIMEOUT_USEC={EXTENSION_SECONDS * 1_000_000}".encode())


def main() -> None:
    """Run as a program: turn.py iris-api@1.service."""
    try:
        settle = float(json.loads(SETTINGS.read_text())["settle"])
    except (OSError, ValueError, KeyError, TypeError):
        settle = 2.0
    wait(sys.argv[1], Systemd(), TURN, settle, extend=extend_timeout)


if __name__ == "__main__":
    main()
