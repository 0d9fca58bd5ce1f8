"""Limits that a test can reach, and who reaches them: runs on the host until it is stopped.

python3 limits_on_host.py FOLDER WHAT, one of the functions below; FOLDER is where the view's files lie.
"""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

FOLDER = Path(sys.argv[1]) if len(sys.argv) > 1 else Path()
MEMORY, DESCRIPTORS = Path("/proc/meminfo"), Path("/proc/sys/fs/file-nr")
HERE: list[str] = []
LEFT = 0.03
"""The share that is left where somebody takes nearly all."""


def view() -> None:
    """Put two files over the kernel's, as lxcfs does for a container: what this host's processes take, and a limit.

    A local VM shares the kernel of the machine it runs on, of whose memory and descriptors no test may take nine
    tenths. What is taken is what this host's processes really take at that moment; the limit alone is made up, half as
    much again as they took in the beginning. Nothing else that the kernel says is replaced.
    """
    # What is open before the mount stays the kernel's.
    with MEMORY.open() as kernel:
        limits = memory() * 3 // 2, descriptors() * 3 // 2
        # The exporter's sandbox has a /proc of its own.
        exporter = ["nsenter", f"--mount=/proc/{main_pid('prometheus-node-exporter')}/ns/mnt", "--"]
        places = {FOLDER / "meminfo": MEMORY, FOLDER / "file-nr": DESCRIPTORS}
        signal.signal(signal.SIGTERM, lambda *_: sys.exit())
        try:
            tell(kernel.read(), *limits)
            for namespace in (HERE, exporter):
                for file, place in places.items():
                    subprocess.run([*namespace, "mount", "--bind", file, place], check=True)
            while True:
                time.sleep(1)
                kernel.seek(0)
                tell(kernel.read(), *limits)
        finally:
            for namespace in (exporter, HERE):
                for place in places.values():
                    subprocess.run([*namespace, "umount", "--lazy", place], check=False)


def main_pid(unit: str) -> str:
    """Return the process id of a service."""
    command = ["systemctl", "show", "--property=MainPID", "--value", unit]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()


def tell(kernel: str, all_memory: int, all_descriptors: int) -> None:
    """Write both files, each in one step: somebody may be reading."""
    left = max(all_memory - memory(), 0)
    numbers = {"MemTotal": all_memory, "MemFree": left, "MemAvailable": left}
    numbers |= dict.fromkeys(("Buffers", "Cached", "SReclaimable"), 0)
    for name, kb in numbers.items():
        kernel = re.sub(rf"^{name}: .*", f"{f'{name}:':<16}{kb:8} kB", kernel, flags=re.MULTILINE)
    for name, text in (("meminfo", kernel), ("file-nr", f"{descriptors()}\t0\t{all_descriptors}\n")):
        file = os.open(FOLDER / name, os.O_WRONLY | os.O_CREAT, 0o644)
        os.pwrite(file, text.encode(), 0)
        os.ftruncate(file, len(text))
        os.close(file)


def takes_memory() -> None:
    """Take what the view says is left, and what it says is left later; never the machine's."""
    taken: list[bytes] = []
    while True:
        says = {name: int(kb) for name, kb in re.findall(r"^(\w+): +(\d+) kB", told("meminfo"), re.MULTILINE)}
        more = min(says["MemAvailable"] - int(LEFT * says["MemTotal"]), says["MemTotal"] - sum(map(len, taken)) // 1024)
        taken.append(b"x" * (1024 * max(more, 0)))
        time.sleep(3)


def takes_descriptors() -> None:
    """Open files as long as the view says that more may be open, and FOLDER has leaks; close none."""
    opened: list[int] = []
    while True:
        now_open, _, limit = map(int, told("file-nr").split())
        more = min(int((1 - LEFT) * limit) - now_open, limit - len(opened)) * (FOLDER / "leaks").exists()
        opened += [os.open("/dev/null", os.O_RDONLY) for _ in range(more)]
        time.sleep(3)


def told(name: str) -> str:
    """Return what the view says."""
    return (FOLDER / name).read_text()


def memory() -> int:
    """Return the kB that this host's processes have to themselves."""
    found = (re.search(r"^RssAnon:\s+(\d+)", status, re.MULTILINE) for status in of_each_process("status"))
    return sum(int(each[1]) for each in found if each)


def descriptors() -> int:
    """Return how many descriptors they have open."""
    return sum(len(each.split()) for each in of_each_process("fd"))


def of_each_process(name: str) -> Iterator[str]:
    """Yield what each process has in a file below /proc, or the names in a folder there."""
    for process in Path("/proc").glob("[0-9]*"):
        try:
            yield " ".join(os.listdir(process / name)) if name == "fd" else (process / name).read_text()
        except OSError:
            continue  # It has ended meanwhile.


if __name__ == "__main__":
    every = (view, takes_memory, takes_descriptors)
    {each.__name__: each for each in every}[sys.argv[2]]()
