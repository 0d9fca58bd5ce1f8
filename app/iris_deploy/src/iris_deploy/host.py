"""One host: what Ansible says of it, and what lies and runs there."""

from __future__ import annotations

import json
from dataclasses import dataclass, fields
from typing import Self

from . import Problem, commands
from .addresses import Address, Listeners
from .commands import Paths
from .history import Event, History
from .lock import Hold, Lock
from .machine import Machine, named
from .store import Store
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
    base_port: int = 8001
    """Port of instance 1; each further instance takes the next one."""
    bind_address: str = "127.0.0.1"
    clients: tuple[str, ...] = ()
    """Addresses and networks, beside loopback, that the instances talk with."""

    @classmethod
    def read(cls, text: str) -> Self:
        """Read what Ansible wrote, perhaps that of another release; raise ValueError or TypeError where it can't."""
        known = {field.name for field in fields(cls)}
        told = {name: value for name, value in json.loads(text).items() if name in known}
        return cls(**told | {"clients": tuple(told.get("clients", ()))})


class Host:
    """This host, or for a test one that lies in a folder."""

    def __init__(self, machine: Machine | None = None, paths: Paths | None = None) -> None:
        self.machine = machine or Machine()
        self.paths = paths or Paths()
        try:
            self.settings = Settings.read(self.paths.settings.read_text())
        except (OSError, ValueError, TypeError, AttributeError) as error:
            raise Problem(
                f"{self.paths.settings} can't be read ({error}): run the playbook site.yml for this host."
            ) from None
        self.store = Store(self.paths.home, self.machine)
        self.history = History(self.paths.home)
        self.systemd = Systemd(self.machine, self.paths)
        self.hold = Hold(self.paths.home / "hold.json", self.history)
        # Another deployment may take its whole time, and then as long again to put all back.
        self.lock = Lock(self.paths.run / "lock", self.hold, self.machine, 2 * self.settings.timeout)

    def wanted(self, instance: int) -> Address:
        """Return where Ansible wants an instance to listen."""
        return Address(self.settings.bind_address, self.settings.base_port + instance - 1)

    @property
    def expanded(self) -> str:
        """Say what is kept until the gateways know where the instances are to be; nothing where they are there."""
        if not self.store.current:
            return ""
        kept = []
        for number in sorted(self.store.instances):
            if number > self.settings.instances:
                kept.append(f"iris-api@{number} at {self.store.listeners(number)}, which is to stop")
            elif self.store.listeners(number) != Listeners((self.wanted(number),)):
                kept.append(f"iris-api@{number} at {self.store.listeners(number)}, wanted at {self.wanted(number)}")
        clients = {*self.settings.clients, self.settings.bind_address}
        if former := [client for client in self.systemd.clients if client not in clients]:
            kept.append(f"the clients {', '.join(former)}")
        return "; ".join(kept)

    @property
    def cut_short(self) -> Event | None:
        """The deployment that is under way, that a power cut, a reboot or a kill ended, or that was undone in part."""
        last, current = self.history.last, self.store.current
        runs = {self.store.of(number) for number in self.store.instances}
        # With nothing to go back to there is nothing to recover.
        left = current and last and last.left
        return last if last and (last.event == "begun" or left or not runs <= {current}) else None

    @property
    def mixed(self) -> list[str]:
        """Say what is not as the deployment that succeeded last; empty where all is."""
        current = self.store.current
        if not current:
            return ["Nothing is deployed."]
        wrong = []
        if (cut := self.cut_short) and not self.lock.owner:
            how = f"could not be undone ({cut.left})" if cut.left else "was cut short"
            what = "deployment" if cut.left else cut.why or "deployment"
            wrong.append(f"The {what} of {cut.deployment} by {cut.who} on {cut.time} {how}.")
        for number in sorted({*range(1, self.settings.instances + 1), *self.store.instances}):
            has, serves = self.store.of(number), self.serving(number)
            if has != current or serves != current.id:
                what = f"serves {serves}" if serves else "does not serve"
                wrong.append(
                    f"iris-api@{number} is to run {has.id if has else 'nothing'} and {what}; current is {current.id}."
                )
        return wrong

    def serving(self, instance: int) -> str:
        """Return the id of the deployment that answers wherever an instance listens; nothing where none is ready."""
        found = set()
        for address in self.store.listeners(instance).addresses:
            status, body = self.machine.ask(commands.readiness(str(address)))
            found.add(named(body) if status == 200 else "")
        return found.pop() if len(found) == 1 else ""
