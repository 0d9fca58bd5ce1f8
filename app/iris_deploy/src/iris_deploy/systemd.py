"""The instances as systemd sees them."""

from __future__ import annotations

import re

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
    def unit(self) -> str:
        """Text of the unit of all instances; nothing where there is none yet."""
        return self._paths.unit.read_text() if self._paths.unit.exists() else ""

    def write_unit(self, text: str) -> None:
        """Replace the unit of all instances, in one step."""
        if self.unit != text:
            draft = self._paths.unit.with_name(f".{self._paths.unit.name}.new")
            draft.write_text(text)
            draft.chmod(0o644)
            draft.replace(self._paths.unit)
            self.run(commands.reload_units())
