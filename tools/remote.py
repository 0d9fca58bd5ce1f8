"""Run a command over SSH on hosts of an inventory, or open a shell on one of them, as Ansible reaches them.

    python -m tools.remote -i inventory/prod --hosts iris                    a shell
    python -m tools.remote -i inventory/prod --hosts api -- uptime           the output of several hosts side by side
    python -m tools.remote -i inventory/prod --variable fortress_secrets_dir what a variable is

What follows `--` is read by a shell there.
"""

from __future__ import annotations

import argparse
import contextlib
import functools
import os
import re
import shlex
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, NoReturn

from ansible import constants
from ansible.errors import AnsibleError
from ansible.inventory.manager import InventoryManager
from ansible.parsing.dataloader import DataLoader
from ansible.template import Templar
from ansible.vars.manager import VariableManager

CONNECTION = (
    "ansible_connection",
    "ansible_host",
    "ansible_port",
    "ansible_user",
    "ansible_private_key_file",
    "ansible_ssh_private_key_file",
    "ansible_ssh_common_args",
    "ansible_ssh_extra_args",
)


class InventoryError(SystemExit):
    """An inventory can't be read, or has no such host: ends whichever tool asked with one line and exit code 1."""


@functools.cache
def vault_secrets() -> list[Any]:
    """Return the passwords of Ansible Vault as ansible-playbook finds them; a process may set them up only once."""
    if not (constants.DEFAULT_VAULT_IDENTITY_LIST or constants.DEFAULT_VAULT_PASSWORD_FILE):
        return []
    # It ends a program whose locale is not UTF-8, which is no matter to whoever has no vault.
    from ansible.cli import CLI

    return list(CLI.setup_vault_secrets(DataLoader(), list(constants.DEFAULT_VAULT_IDENTITY_LIST), auto_prompt=False))


class Hosts:
    """An inventory as Ansible reads it: its groups, and how each host is reached.

    Raises:
        InventoryError: Ansible can't read it, which may show at any question, as variables are read late.
    """

    def __init__(self, source: str) -> None:
        self._source = source
        self._loader = DataLoader()
        with self._readable():
            self._loader.set_vault_secrets(vault_secrets())
            self._inventory = InventoryManager(loader=self._loader, sources=[source])
            self._variables = VariableManager(loader=self._loader, inventory=self._inventory)

    @contextlib.contextmanager
    def _readable(self) -> Iterator[None]:
        try:
            yield
        except AnsibleError as error:
            text = " ".join(str(error).split()).rstrip(".")
            is_vault = re.search("vault|crypt", text, re.IGNORECASE)
            hint = " Set ANSIBLE_VAULT_PASSWORD_FILE to the file of its password." if is_vault else ""
            raise InventoryError(f"{self._source} can't be read: {text}.{hint}") from error

    @property
    def groups(self) -> dict[str, list[str]]:
        """The hosts of each group, by its name."""
        return {group: list(hosts) for group, hosts in self._inventory.get_groups_dict().items()}

    def reach(self, pattern: str = "all") -> dict[str, dict[str, str]]:
        """Return how each host of a pattern is reached: those of CONNECTION that are set, with no templates left."""
        found = {}
        with self._readable():
            for host in self._inventory.get_hosts(pattern):
                known = self._variables.get_vars(host=host)
                templar = Templar(loader=self._loader, variables=known)
                found[host.name] = {name: str(templar.template(known[name])) for name in CONNECTION if name in known}
        return found

    def reach_some(self, pattern: str) -> dict[str, dict[str, str]]:
        """Return how each host of a pattern is reached, of which there is at least one.

        Raises:
            InventoryError: There is none.
        """
        return self.reach(pattern) or self._refuse(pattern)

    def require(self, name: str) -> None:
        """Check that a host has this very name, where a group or another pattern would mean nobody.

        Raises:
            InventoryError: None has.
        """
        if name not in self.reach():
            self._refuse(name)

    def _refuse(self, wanted: str) -> NoReturn:
        raise InventoryError(f"{self._source} has no host {wanted}: it has {', '.join(self.reach()) or 'none'}.")

    def variable(self, name: str, pattern: str = "all") -> str:
        """Return what a variable is for a pattern's first host: what the inventory says, or the project's group_vars/.

        What may differ from host to host, as ports do, is to be asked of the host that is concerned.
        """
        with self._readable():
            for host in self._inventory.get_hosts(pattern):
                known = self._variables.get_vars(host=host)
                if name in known:
                    return str(Templar(loader=self._loader, variables=known).template(known[name]))
        return ""


def ssh(name: str, reach: Mapping[str, str]) -> list[str]:
    """Return the command that connects to a host; nothing for one that Ansible does not connect to."""
    if reach.get("ansible_connection") == "local":
        return []
    options = []
    if port := reach.get("ansible_port"):
        options += ["-p", port]
    if key := reach.get("ansible_ssh_private_key_file") or reach.get("ansible_private_key_file"):
        options += ["-i", key]
    for more in ("ansible_ssh_common_args", "ansible_ssh_extra_args"):
        options += shlex.split(reach.get(more, ""))
    user = reach.get("ansible_user")
    return ["ssh", *options, *(["-l", user] if user else []), reach.get("ansible_host", name)]


def side_by_side(commands: Mapping[str, Sequence[str]]) -> int:
    """Run a command for each host at once, print their lines as they come, each behind its host's name.

    Return the greatest of their exit codes.
    """
    width = max(map(len, commands)) if len(commands) > 1 else 0
    running = {
        name: subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, text=True, errors="replace")
        for name, command in commands.items()
    }

    def follow(name: str, process: subprocess.Popen[str]) -> int:
        assert process.stdout is not None
        for line in process.stdout:
            print(f"{name:{width}}  {line}" if width else line, end="", flush=True)
        return process.wait()

    try:
        with ThreadPoolExecutor(len(running)) as threads:
            return max(threads.map(follow, running, running.values()))
    finally:
        for process in running.values():
            process.terminate()


def main(arguments: Sequence[str] | None = None) -> int:
    """Run as a program."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("-i", "--inventory", required=True, help="a folder or file, as for ansible-playbook")
    parser.add_argument("--hosts", default="all", help="a host, a group or any pattern of Ansible's; default: all")
    parser.add_argument("--variable", help="print what this variable is, and nothing else")
    parser.add_argument("command", nargs="*", help="run there by a shell; nothing: an interactive shell")
    options = parser.parse_args(arguments)
    if options.variable:
        print(Hosts(options.inventory).variable(options.variable))
        return 0
    hosts = Hosts(options.inventory).reach_some(options.hosts)
    if options.command:
        command = " ".join(options.command)
        argv = {name: [*(ssh(name, reach) or ["sh", "-c"]), command] for name, reach in hosts.items()}
        try:
            return side_by_side(argv)
        except KeyboardInterrupt:
            return 130
    if len(hosts) > 1:
        print(f"On which host? HOST= one of {', '.join(hosts)}", file=sys.stderr)
        return 1
    [(name, reach)] = hosts.items()
    shell = ssh(name, reach) or [os.environ.get("SHELL", "sh")]
    os.execvp(shell[0], shell)


if __name__ == "__main__":
    sys.exit(main())
