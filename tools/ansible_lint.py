"""ansible-lint, with each of Ansible's programs that it starts a fork of a process that has Ansible loaded.

It starts `ansible-playbook --syntax-check` for each role and playbook, some 40 times here, and nearly all of the time
of each goes into importing Ansible: all take 33 s of the processor, by forks 15. It also finds out for each rule anew
what each task does, and each time that it meets a path what kind of file it is: remembered, that is 4 s less. It reads
each file once more by another parser, for comments that skip a rule: where there is none, that is 1 s less. What is
checked is its own affair.

    python -m tools.ansible_lint --offline -q
"""

from __future__ import annotations

import atexit
import os
import subprocess
import sys
import tempfile
from functools import cache
from pathlib import Path
from typing import Any

from ansiblelint import file_utils, skip_utils, utils
from ansiblelint.__main__ import _run_cli_entrypoint

from tools import ansible_forks

run = subprocess.run
normalize = utils.normalize_task_v2
normalized: dict[int, tuple[Any, dict[str, Any]]] = {}
"""What each task does, by where it is in memory; with the task, so that no other one comes to be there."""
append_skips = skip_utils._append_skipped_rules
# In this ansible-lint's two ways to start a program differ. It is about no playbook, and one process for all does.
LIKE = {"PYTHONWARNINGS": "ignore", "ANSIBLE_INVENTORY_ANY_UNPARSED_IS_FAILED": "False"}


@cache
def folder(environment: frozenset[tuple[str, str]]) -> tempfile.TemporaryDirectory[str]:
    """Return where the process that forks is asked where the environment is this one."""
    made = tempfile.TemporaryDirectory(prefix="fortress-lint-")
    atexit.register(made.cleanup)
    return made


def run_by_fork(command: list[str], **options: Any) -> subprocess.CompletedProcess[Any]:
    """Run a program as subprocess does; return what it said."""
    if command[0] not in ansible_forks.PROGRAMS:
        return run(command, **options)
    program, *arguments = command
    environment = options["env"] | LIKE
    server = ansible_forks.connect(Path(folder(frozenset(environment.items())).name), os.getpid(), environment)
    return ansible_forks.run(server, program, tuple(arguments), Path(options.get("cwd") or ".").absolute(), environment)


def normalize_once(task: utils.Task) -> dict[str, Any]:
    """Return what a task does, in a copy: a caller adds to it."""
    known = normalized.get(id(task.raw_task))
    if known is None:
        known = normalized[id(task.raw_task)] = (task.raw_task, dict(normalize(task)))
    return known[1] | {"action": dict(known[1]["action"])}


def append_skips_where_some_are(pyyaml_data: Any, lintable: file_utils.Lintable) -> Any:
    """Look for the rules that a comment skips where there is such a comment, which takes another parser."""
    return append_skips(pyyaml_data, lintable) if "noqa" in lintable.content else None


if __name__ == "__main__":
    utils.normalize_task_v2 = normalize_once
    file_utils.kind_from_path = cache(file_utils.kind_from_path)
    skip_utils._append_skipped_rules = append_skips_where_some_are
    subprocess.run = run_by_fork  # type: ignore[assignment]
    sys.argv[0] = "ansible-lint"
    _run_cli_entrypoint()
