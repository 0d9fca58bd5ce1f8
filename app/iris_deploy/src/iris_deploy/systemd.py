"""The instances as systemd sees them."""

from __future__ import annotations

import re
from collections.abc import Iterable
from pathlib import Path

from . import Failure, commands
from .commands import Command, Paths
from .machine import Machine
from .transaction import Deadline


class Systemd:
    """Runs commands of `commands`, and waits for what comes of them."""

    def __init__(self, machine: Machine, paths: Paths) -> None:
        self._machine = machine
        self._paths = paths

    def run(self, command: Command) -> str:
        """Run a command and return what it says, or fail with its complaint."""
        done = self._machine.run(command)
        if done.returncode != 0:
            raise Failure(f"{' '.join(command.argv)}: {done.stderr.strip() or done.stdout.strip()}")
        return done.stdout

    def state(self, unit: str) -> dict[str, str]:
        """Return ActiveState, SubState, InvocationID and StatusText of a unit."""
        return dict(line.split("=", 1) for line in self.run(commands.show(unit)).splitlines())

    def restart(self, unit: str, deadline: Deadline) -> None:
        """Restart a unit, and return when it says that it is ready."""
        before = self.state(unit)["InvocationID"]
        self.run(commands.restart(unit))
        while True:
            now = self.state(unit)
            if now["InvocationID"] != before:
                if now["ActiveState"] == "active":
                    return
                # Restart=always: what failed to start is about to be tried again, and would fail alike.
                if now["ActiveState"] in ("failed", "inactive") or now["SubState"] == "auto-restart":
                    raise Failure(f"{unit} does not start: {now['StatusText'].strip() or 'its journal says why'}")
            deadline.wait(f"{unit} to say that it is ready")

    def outdated(self, instances: Iterable[int]) -> bool:
        """Return whether systemd has not read what now lies on the disk of the units of instances."""
        units = [commands.unit_of(instance) for instance in instances]
        return "yes" in self.run(commands.outdated(*units)).split()

    def evidence(self, unit: str, since: float) -> str:
        """Return what an operator would look at first: status and journal of a unit."""
        status = self._machine.run(commands.status(unit)).stdout.strip()
        journal = self._machine.run(commands.journal(unit, since)).stdout.strip()
        return f"{status}\n--- journal of {unit}\n{journal}"

    @property
    def enabled(self) -> set[int]:
        """The instances that come up at boot."""
        found = (re.fullmatch(r"iris-api@(\d+)\.service", path.name) for path in self._paths.wants.glob("iris-api@*"))
        return {int(each[1]) for each in found if each}

    @property
    def clients(self) -> list[str]:
        """Whom instances may talk with beside loopback, as the host says or, up to release 1.0.0, the unit."""
        found = " ".join(re.findall(r"^IPAddressAllow=(.*)$", self.host_unit or self.unit, re.MULTILINE)).split()
        return [client for client in found if client != "localhost"]

    @property
    def unit(self) -> str:
        """Text of the unit of all instances; nothing where there is none yet."""
        return _read(self._paths.unit)

    @property
    def host_unit(self) -> str:
        """Text of what the host adds to that unit; nothing where there is none yet."""
        return _read(self._paths.host_unit)

    def write_units(self, unit: str, host_unit: str) -> None:
        """Replace both, each in one step, where they are others; nothing instead of a text removes it."""
        changed = [(path, text) for path, text in ((self._paths.unit, unit), (self._paths.host_unit, host_unit))]
        changed = [(path, text) for path, text in changed if _read(path) != text]
        for path, text in changed:
            if not text:
                path.unlink()
                continue
            path.parent.mkdir(exist_ok=True)
            draft = path.with_name(f".{path.name}.new")
            draft.write_text(text)
            draft.chmod(0o644)
            draft.replace(path)
        if changed:
            self.run(commands.reload_units())


def _read(path: Path) -> str:
    return path.read_text() if path.exists() else ""
