"""One host: what Ansible says of it, and what lies and runs there."""

from __future__ import annotations

import json
from dataclasses import dataclass

from . import Problem, commands
from .commands import Paths
from .history import History
from .lock import Hold, Lock
from .machine import Machine
from .store import Deployment, Store
from .systemd import Systemd


@dataclass(frozen=True)
class Settings:
    """What Ansible says of this host."""

    instances: int
    keep: int
    """How many deployments that went through stay on the disk."""
    timeout: float
    """Seconds that a deployment may take."""
    settle: float
    """Seconds between two instances."""
    check_memory: bool
    """Whether a deployment that needs more memory than there is is refused."""


class Host:
    """This host, or for a test one that lies in a folder."""

    def __init__(self, machine: Machine | None = None, paths: Paths | None = None) -> None:
        self.machine = machine or Machine()
        self.paths = paths or Paths()
        try:
            self.settings = Settings(**json.loads(self.paths.settings.read_text()))
        except (OSError, ValueError, TypeError) as error:
            raise Problem(
                f"{self.paths.settings} can't be read ({error}): run the playbook site.yml for this host."
            ) from None
        self.store = Store(self.paths.home, self.machine)
        self.history = History(self.paths.home)
        self.systemd = Systemd(self.machine, self.paths)
        self.hold = Hold(self.paths.home / "hold.json", self.history)
        # Another deployment may take its whole time, and then as long again to put all back.
        self.lock = Lock(self.paths.run / "lock", self.hold, self.machine, 2 * self.settings.timeout)

    def running(self, deployment: Deployment, instance: int) -> str:
        """Return the id of what answers where an instance of a deployment would; nothing where none is ready."""
        status, body = self.machine.ask(commands.readiness(deployment.address(instance)))
        return str(body.get("deployment", "")) if status == 200 else ""
