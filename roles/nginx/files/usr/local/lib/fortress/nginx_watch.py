#!/usr/bin/python3
"""Replace nginx' workers where every one of them is frozen: stopped by a signal, and not merely slow.

Every second it reads from /proc which state the workers are in. Where each is stopped (T), at two looks in a row,
it kills them, and nginx' master starts new ones. Where the master is stopped too, it is killed with them, and systemd
starts nginx again. As long as one worker is not stopped, it does nothing.
"""

from __future__ import annotations

import os
import signal
import sys
import time
from pathlib import Path

PROC = Path("/proc")
PID_FILE = Path("/run/nginx.pid")
INTERVAL_SECONDS = 1.0


def state(proc: Path, process: int) -> str:
    """Return the state of a process, nothing where there is none: proc(5)."""
    try:
        return (proc / str(process) / "stat").read_text().rpartition(")")[2].split()[0]
    except (OSError, IndexError):
        return ""


def frozen(proc: Path, pid_file: Path) -> frozenset[int]:
    """Return nginx' workers where all of them are stopped, with the master where it is too; else nothing."""
    try:
        master = int(pid_file.read_text())
        children = (proc / str(master) / "task" / str(master) / "children").read_text().split()
    except (OSError, ValueError):
        return frozenset()
    states = {int(child): state(proc, int(child)) for child in children}
    workers = {child: shown for child, shown in states.items() if shown not in ("", "Z")}
    if not workers or set(workers.values()) != {"T"}:
        return frozenset()
    return frozenset(workers) | ({master} if state(proc, master) == "T" else frozenset())


def look(proc: Path, pid_file: Path, before: frozenset[int]) -> frozenset[int]:
    """Kill what is frozen and was so at the look before; return what is frozen now."""
    now = frozen(proc, pid_file)
    if now and now == before:
        print(
            f"every worker of nginx is stopped: killing {', '.join(map(str, sorted(now)))}", file=sys.stderr, flush=True
        )
        for process in now:
            os.kill(process, signal.SIGKILL)
        return frozenset()
    return now


def main() -> None:
    """Run as a program, for ever."""
    found: frozenset[int] = frozenset()
    while True:
        found = look(PROC, PID_FILE, found)
        time.sleep(INTERVAL_SECONDS)


if __name__ == "__main__":
    main()
