"""The hosts behind the gateway as the tests here look at them."""

from __future__ import annotations

import json
import subprocess
from dataclasses import dataclass
from functools import cached_property

import pytest
import testinfra
from testinfra.host import Host

from tests import ROOT

# By which role's tag a setting becomes the host's.
ROLES = {"nginx_rate_limit_enabled": "nginx", "iris_api_engine": "iris_api"}
# Name, process id, status; the status of an instance that serves names its engine and address.
STATES = "systemctl show 'iris-api@*' --state=active --property=Id,MainPID,StatusText"


@dataclass(frozen=True)
class Instance:
    """One instance of the API, as it is now."""

    host: str
    name: str
    master: int
    worker: int
    engine: str
    address: str


class Site:
    """What an inventory describes."""

    def __init__(self, config: pytest.Config) -> None:
        self._config = config
        self._changed: set[str] = set()

    @cached_property
    def hosts(self) -> dict[str, Host]:
        """The hosts of the group api."""
        option = self._config.option
        found = testinfra.get_hosts(
            ["ansible://api"],
            connection=option.connection,
            ssh_config=option.ssh_config,
            sudo=option.sudo,
            ansible_inventory=option.ansible_inventory,
            force_ansible=option.force_ansible,
        )
        return {str(host.backend.hostname): host for host in found}

    def run(self, host: str, command: str) -> str:
        """Run a command on a host; it must succeed."""
        return str(self.hosts[host].run_expect([0], command).stdout)

    def instances(self) -> list[Instance]:
        """Return all instances that serve."""
        found = []
        for host in self.hosts:
            for block in self.run(host, STATES).strip().split("\n\n"):
                state = dict(line.split("=", 1) for line in block.splitlines())
                _, _, engine_and_address = state["StatusText"].rpartition(" by ")
                engine, _, address = engine_and_address.partition(" on ")
                master = int(state["MainPID"])
                worker = int(self.run(host, f"pgrep --parent {master}"))
                found.append(Instance(host, state["Id"].removesuffix(".service"), master, worker, engine, address))
        assert found, "no instance of the API is active"
        return found

    def memory(self, instances: list[Instance]) -> dict[str, float]:
        """Return the memory of each instance in MB, master and worker; what processes share counts by parts (PSS)."""
        memory = {}
        for host in self.hosts:
            here = [instance for instance in instances if instance.host == host]
            files = [f"/proc/{pid}/smaps_rollup" for each in here for pid in (each.master, each.worker)]
            lines = self.run(host, f"grep --no-filename ^Pss: {' '.join(files)}").splitlines()
            sizes = [int(line.split()[1]) * 1024 / 1e6 for line in lines]
            for number, instance in enumerate(here):
                memory[f"{host} {instance.name}"] = sum(sizes[2 * number : 2 * number + 2])
        return memory

    def answered_5xx(self, instance: Instance) -> float:
        """Return how many of its answers were its own failures: the gateway hides some by asking another instance."""
        text = self.run(instance.host, f"curl --silent --fail http://{instance.address}/metrics")
        lines = [line for line in text.splitlines() if line.startswith("iris_api_requests_total{")]
        assert lines, text
        return sum(float(line.split()[-1]) for line in lines if 'status="5' in line)

    def errors_logged(self) -> list[str]:
        """Return what the instances have logged as errors since they were started."""
        found = []
        for host in self.hosts:
            log = self.run(host, "journalctl --boot --unit='iris-api@*' --output=cat --quiet")
            events = [json.loads(line) for line in log.splitlines() if line.startswith("{")]
            found += [json.dumps(event) for event in events if event["level"] in ("error", "critical")]
        return found

    def converge(self, **settings: object) -> None:
        """Run site.yml with some of ROLES' settings, which win over the inventory's, and for those roles alone."""
        roles = {ROLES[name] for name in settings}
        self._changed |= roles
        self._run(roles, "-e", json.dumps(settings))

    def restore(self) -> None:
        """Restore the inventory's settings."""
        if self._changed:
            self._run(self._changed)

    def _run(self, roles: set[str], *options: str) -> None:
        inventory = str(self._config.fortress_inventory)  # type: ignore[attr-defined]
        command = [str(ROOT / "tools" / "converge-cost"), "-i", inventory, "--tags", ",".join(roles), *options]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
