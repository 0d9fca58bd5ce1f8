#!/usr/bin/python3
"""End nginx so that the next one can start at once, while its workers finish what clients have begun.

    nginx_drain.py MASTER

nginx itself ends when its last connection does. A client that has connected and sends nothing, or keeps an idle HTTP/2
connection, holds one for seconds: measured, each restart took 5.5 s, and every other client waited as long. So workers
that are not done at once move into a scope of their own (org.freedesktop.systemd1(5), StartTransientUnit), and the
master is killed. They end by themselves, by worker_shutdown_timeout at the latest; systemd ends those that hang.
"""

from __future__ import annotations

import contextlib
import os
import select
import signal
import subprocess
import sys
import time
from pathlib import Path

PID_FILE = Path("/run/nginx.pid")
AT_ONCE_SECONDS = 0.3
# Longer than worker_shutdown_timeout in nginx.conf.
HUNG_SECONDS = 15
MANAGER = ["org.freedesktop.systemd1", "/org/freedesktop/systemd1", "org.freedesktop.systemd1.Manager"]


def ended(process: int, seconds: float) -> bool:
    """Return whether a process, given as a pidfd, ends within this time."""
    poll = select.poll()
    poll.register(process, select.POLLIN)
    return bool(poll.poll(seconds * 1000))


def workers(master: int) -> list[int]:
    """Return the processes of a master."""
    return [int(child) for child in Path(f"/proc/{master}/task/{master}/children").read_text().split()]


def move(name: str, processes: list[int]) -> None:
    """Move processes into a new scope of this name, which ends with them.

    Raises:
        OSError: systemd can't be asked, as without D-Bus, or does not answer.
    """
    properties = {
        "Description": ["s", "Connections of an nginx that was stopped or restarted"],
        "PIDs": ["au", str(len(processes)), *map(str, processes)],
        "RuntimeMaxUSec": ["t", str(HUNG_SECONDS * 1_000_000)],
        "TimeoutStopUSec": ["t", "1000000"],
        # Where it had to end them: no unit that failed is left behind.
        "CollectMode": ["s", "inactive-or-failed"],
    }
    given = [word for name_and_value in properties.items() for word in (name_and_value[0], *name_and_value[1])]
    asked = ["StartTransientUnit", "ssa(sv)a(sa(sv))", name, "fail", str(len(properties)), *given, "0"]
    done = subprocess.run(["busctl", "call", "--quiet", *MANAGER, *asked], capture_output=True, text=True, check=False)
    if done.returncode:
        raise OSError(done.stderr.strip())
    for _ in range(100):
        if subprocess.run(["systemctl", "is-active", "--quiet", name], check=False).returncode == 0:
            return
        time.sleep(0.01)
    raise OSError(f"{name} did not start")


def drain(master: int) -> None:
    """Have nginx end; return when nothing of it is in its unit any more, or when systemd can't be asked."""
    process = os.pidfd_open(master)
    signal.pidfd_send_signal(process, signal.SIGQUIT)
    if ended(process, AT_ONCE_SECONDS):
        return
    # A worker that ends meanwhile can't be moved.
    for _ in range(3):
        try:
            move(f"fortress-nginx-drain-{master}.scope", workers(master))
        except OSError as error:
            failed = error
            if ended(process, 0):
                return
        else:
            signal.pidfd_send_signal(process, signal.SIGKILL)
            ended(process, 1)
            PID_FILE.unlink(missing_ok=True)
            return
    print(f"nginx restarts when its last connection has ended, after 5 s at most: {failed}", file=sys.stderr)


def main() -> int:
    """Run as a program."""
    # No process is named where it has ended by itself.
    for master in sys.argv[1:]:
        with contextlib.suppress(ProcessLookupError):
            drain(int(master))
    return 0


if __name__ == "__main__":
    sys.exit(main())
