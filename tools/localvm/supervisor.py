"""Who keeps a machine running: a transient unit where systemd is PID 1, a small daemon of ours where it is not.

Both start the same command again when it ends with status 133, which is how systemd-nspawn says that the guest
rebooted. A guest's processes are found by their control group, whoever runs it.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Protocol

from .common import STATE, Problem, run, succeeds

REBOOT = 133
GROUP = "fortress-localvm"


def hierarchies() -> list[Path]:
    """Where the control group trees that track processes are mounted: systemd's own, the unified one, or both."""
    found = []
    for line in Path("/proc/self/mountinfo").read_text().splitlines():
        before, after = (half.split() for half in line.split(" - ", 1))
        if after[0] == "cgroup2" or (after[0] == "cgroup" and "name=systemd" in after[2].split(",")):
            found.append(Path(before[4]))
    return found


def _processes(groups: Sequence[Path]) -> list[int]:
    """Every process in these control groups and below."""
    pids: set[int] = set()
    for group in groups:
        # Groups come and go while a machine dies. os.walk() bears that, Path.glob() does not.
        for path, _, _ in os.walk(group):
            with contextlib.suppress(OSError):
                pids.update(map(int, Path(path, "cgroup.procs").read_text().split()))
    return sorted(pids)


def _namespace_depth_and_pid(pid: int | str) -> tuple[int, int]:
    """How many process namespaces deep a process lives, and its number in the innermost."""
    with contextlib.suppress(OSError):
        for line in Path("/proc", str(pid), "status").read_text().splitlines():
            if line.startswith("NSpid:"):
                numbers = line.split()[1:]
                return len(numbers), int(numbers[-1])
    return 0, 0


class Supervisor(Protocol):
    """What the two kinds have in common."""

    def groups(self, name: str) -> list[Path]:
        """The machine's control groups."""

    def alive(self, name: str) -> bool:
        """Whether the machine is kept running; true through a reboot as well."""

    def start(self, name: str, command: list[str], log: Path) -> None:
        """Run the command until it ends with something else than a reboot. Returns at once."""

    def release(self, name: str) -> None:
        """Start nothing again and clear away what is left of a machine whose processes are gone."""


class SystemdUnit:
    """The host's own systemd does the work."""

    def unit(self, name: str) -> str:
        """The name of the machine's unit."""
        return f"fortress-vm-{name}.service"

    def groups(self, name: str) -> list[Path]:
        """See Supervisor."""
        group = run("systemctl", "show", "--property=ControlGroup", "--value", self.unit(name)).strip()
        return [tree / group.lstrip("/") for tree in hierarchies()] if group else []

    def alive(self, name: str) -> bool:
        """See Supervisor."""
        state = run("systemctl", "show", "--property=ActiveState", "--value", self.unit(name)).strip()
        return state not in {"inactive", "failed"}

    def start(self, name: str, command: list[str], log: Path) -> None:
        """See Supervisor."""
        properties = {
            "Delegate": "yes",
            "KillMode": "mixed",
            "RestartForceExitStatus": REBOOT,
            "SuccessExitStatus": REBOOT,
            "StandardOutput": f"append:{log}",
            "StandardError": f"append:{log}",
            "Description": f"Fortress local machine {name}",
        }
        options = [f"--property={key}={value}" for key, value in properties.items()]
        environment = [f"--setenv={key}={value}" for key, value in ENVIRONMENT.items()]
        run("systemd-run", "--quiet", "--collect", f"--unit={self.unit(name)}", *options, *environment, *command)

    def release(self, name: str) -> None:
        """See Supervisor."""
        succeeds("systemctl", "stop", self.unit(name))
        succeeds("systemctl", "reset-failed", self.unit(name))


class Daemon:
    """A loop in a process of its own, and control groups made by hand: one machine must not share another's."""

    def groups(self, name: str) -> list[Path]:
        """See Supervisor."""
        return [tree / GROUP / name for tree in hierarchies()]

    def _lock_file(self, name: str) -> Path:
        return STATE / name / "supervisor"

    def alive(self, name: str) -> bool:
        """See Supervisor. The daemon holds a lock for as long as it lives, which no reused pid can fake."""
        try:
            with self._lock_file(name).open() as file:
                fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except FileNotFoundError:
            return False
        except BlockingIOError:
            return True
        return False

    def start(self, name: str, command: list[str], log: Path) -> None:
        """See Supervisor. The daemon inherits the lock, so there is no moment at which nobody holds it."""
        with self._lock_file(name).open("w") as lock, log.open("a") as output:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            process = subprocess.Popen(
                [sys.executable, str(Path(__file__).parent), "_supervise", name, *command],
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                cwd="/",
                start_new_session=True,
                pass_fds=[lock.fileno()],
                env={"PATH": os.environ["PATH"], **ENVIRONMENT},
            )
            lock.write(str(process.pid))

    def release(self, name: str) -> None:
        """See Supervisor."""
        if self.alive(name):
            os.kill(int(self._lock_file(name).read_text()), signal.SIGTERM)
        deadline = time.monotonic() + 30
        while self.alive(name):
            if time.monotonic() > deadline:
                raise Problem(
                    f"the supervisor of {name} does not end: {self._lock_file(name)} holds its process number"
                )
            # A guest in the middle of a reboot may have been started once more.
            kill_all(self.groups(name))
            time.sleep(0.02)
        self._remove_groups(name)

    def supervise(self, name: str, command: list[str]) -> None:
        """The loop itself; runs in the daemon."""
        stopping = False

        def stop(*_: object) -> None:
            nonlocal stopping
            stopping = True

        signal.signal(signal.SIGTERM, stop)
        while not stopping:
            # What the former boot left in them would break the units of this one.
            self._remove_groups(name)
            status = subprocess.call(command, stdin=subprocess.DEVNULL, preexec_fn=lambda: self._join(name))
            if status != REBOOT:
                break
        self._remove_groups(name)

    def _join(self, name: str) -> None:
        for group in self.groups(name):
            group.mkdir(parents=True, exist_ok=True)
            (group / "cgroup.procs").write_text(str(os.getpid()))

    def _remove_groups(self, name: str) -> None:
        """Remove the machine's control groups, innermost first."""
        kill_all(self.groups(name))
        for group in self.groups(name):
            for path, _, _ in os.walk(group, topdown=False):
                _remove_group(Path(path))
            # Shared by all machines: goes with the last.
            with contextlib.suppress(OSError):
                group.parent.rmdir()


ENVIRONMENT = {"SYSTEMD_NSPAWN_UNIFIED_HIERARCHY": "1"}


def supervisor() -> Supervisor:
    """The kind of supervisor this host wants."""
    return SystemdUnit() if Path("/run/systemd/system").is_dir() else Daemon()


def leader(groups: Sequence[Path]) -> int | None:
    """The guest's PID 1, by its number on the host."""
    depth, _ = _namespace_depth_and_pid("self")
    for pid in _processes(groups):
        if _namespace_depth_and_pid(pid) == (depth + 1, 1):
            return pid
    return None


def kill_all(groups: Sequence[Path]) -> None:
    """Kill a machine like a power cut: its PID 1 takes every guest process with it, in one step of the kernel."""
    if pid := leader(groups):
        _stop_all(groups, pid)
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
    started = time.monotonic()
    while pids := _processes(groups):
        waited = time.monotonic() - started
        if waited > 20:
            raise Problem(f"processes {pids} do not die: look at them with `ps`")
        # systemd-nspawn sees its guest die and clears up after itself, if it is given the time.
        if waited > 3:
            for pid in pids:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
        time.sleep(0.02)


def _stop_all(groups: Sequence[Path], leader: int) -> None:
    """Stop every process of a guest: in that step PID 1's own connections close before the others die.

    Without it a program had a moment in which systemd did not answer it, and could write that down.
    """
    outside, stopped = _namespace_depth_and_pid("self")[0], set[int]()
    while new := {pid for pid in _processes(groups) if _namespace_depth_and_pid(pid)[0] > outside} - stopped:
        # It first, so that it starts none of what is about to be stopped anew.
        for pid in sorted(new, key=lambda pid: pid != leader):
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGSTOP)
        stopped |= new


def _remove_group(path: Path) -> None:
    """Remove one control group; the kernel may take a moment to see it empty."""
    for _ in range(100):
        try:
            path.rmdir()
        except FileNotFoundError:
            return
        except OSError:
            time.sleep(0.02)
        else:
            return
