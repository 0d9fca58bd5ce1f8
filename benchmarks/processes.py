"""Processes that end with us, and what they cost: read from /proc, whole trees at a time."""

from __future__ import annotations

import contextlib
import ctypes
import os
import signal
import subprocess
import time
from collections import defaultdict
from collections.abc import Iterator, Mapping
from pathlib import Path

PATIENCE_SECONDS = 10
_PR_SET_CHILD_SUBREAPER = 36
_TICKS = os.sysconf("SC_CLK_TCK")


class Process:
    """A program and all that it starts."""

    def __init__(self, command: list[str], environ: Mapping[str, str], folder: Path, log: Path) -> None:
        self.log = log
        with log.open("a") as stream:
            self._process = subprocess.Popen(
                command,
                env=environ,
                cwd=folder,
                stdin=subprocess.DEVNULL,
                stdout=stream,
                stderr=subprocess.STDOUT,
                # Ctrl-C reaches us alone, and we end it in order.
                start_new_session=True,
            )

    @property
    def ended(self) -> bool:
        """Whether the program is no more."""
        return self._process.poll() is not None

    def tree(self) -> list[int]:
        """Return its process id and those of all its descendants."""
        return [self._process.pid, *descendants(self._process.pid)]

    def cpu_seconds(self) -> float:
        """Return the processor time that the tree has taken so far, in user and kernel mode."""
        total = 0
        for pid in self.tree():
            with contextlib.suppress(OSError):
                fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
                total += int(fields[11]) + int(fields[12])
        return total / _TICKS

    def running_seconds(self) -> float:
        """Return the processor time that the first threads of the tree have taken so far, to the nanosecond."""
        total = 0
        for pid in self.tree():
            with contextlib.suppress(OSError):
                total += int(Path(f"/proc/{pid}/schedstat").read_text().split()[0])
        return total / 1e9

    def pss_bytes(self) -> int:
        """Return the memory of the tree; what processes share counts by parts."""
        total = 0
        for pid in self.tree():
            with contextlib.suppress(OSError):
                for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
                    if line.startswith("Pss:"):
                        total += int(line.split()[1]) * 1024
        return total

    def end(self) -> None:
        """Terminate it, and wait for it."""
        with contextlib.suppress(ProcessLookupError):
            os.kill(self._process.pid, signal.SIGTERM)
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._process.wait(PATIENCE_SECONDS)


@contextlib.contextmanager
def nothing_left_behind() -> Iterator[None]:
    """Kill every process below us at the end, those included whose parents went before them."""
    ctypes.CDLL(None).prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
    try:
        yield
    finally:
        while children := descendants(os.getpid()):
            for pid in children:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
            with contextlib.suppress(ChildProcessError):
                while os.waitpid(-1, os.WNOHANG)[0]:
                    pass
            time.sleep(0.01)


def machine_seconds() -> tuple[float, float]:
    """Return for how long processes, or other guests of the host, had the cores, and how long there was at all.

    The kernel's time for interrupts is apart: with it goes the loopback's traffic, which is nobody's in particular.
    """
    line = Path("/proc/stat").read_text().split("\n")[0]
    user, nice, system, idle, waiting, interrupts, traffic, stolen = map(int, line.split()[1:9])
    busy = user + nice + system + stolen
    return busy / _TICKS, (busy + idle + waiting + interrupts + traffic) / _TICKS


def descendants(ancestor: int) -> list[int]:
    """Return the processes below a process."""
    children = defaultdict(list)
    for stat in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError):
            children[int(stat.read_text().rpartition(")")[2].split()[1])].append(int(stat.parent.name))
    found: list[int] = []
    waiting = [ancestor]
    while waiting:
        below = children[waiting.pop()]
        found += below
        waiting += below
    return found
