"""ansible-lint, with each of its syntax checks a fork of a process that has Ansible loaded.

It starts `ansible-playbook --syntax-check` for each role and playbook, some 40 times here, and nearly all of the time
of each goes into importing Ansible: all take 33 s of the processor, by forks 15. What is checked is its own affair.

    python -m tools.ansible_lint --offline -q
"""

from __future__ import annotations

import subprocess
import sys
from functools import cache
from pathlib import Path
from typing import Any

from ansiblelint.__main__ import _run_cli_entrypoint

from tools.ansible_forks import Forks

run = subprocess.run


@cache
def forks(environment: frozenset[tuple[str, str]]) -> Forks:
    """Return the process that forks where the environment is this one: Ansible reads it when it is imported."""
    return Forks(dict(environment))


def run_by_fork(command: list[str], **options: Any) -> subprocess.CompletedProcess[Any]:
    """Run a program as subprocess does; return what it said."""
    if command[:2] != ["ansible-playbook", "--syntax-check"]:
        return run(command, **options)
    program, *arguments = command
    folder = Path(options.get("cwd") or ".").absolute()
    return forks(frozenset(options["env"].items())).run(program, tuple(arguments), folder)


if __name__ == "__main__":
    subprocess.run = run_by_fork  # type: ignore[assignment]
    sys.argv[0] = "ansible-lint"
    _run_cli_entrypoint()
