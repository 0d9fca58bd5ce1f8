"""Ansible, imported once: each run of one of its programs is a fork of a process that has all of it loaded.

Importing Ansible and packing its modules for transport is most of what a small play costs. What runs is the program
itself, in a process and a working directory of its own.
"""

from __future__ import annotations

import atexit
import json
import os
import subprocess
import sys
import tempfile
import traceback
from functools import cache
from importlib import import_module
from pathlib import Path
from typing import IO

from tests import ROOT

PROGRAMS = {"ansible": "adhoc", "ansible-playbook": "playbook", "ansible-inventory": "inventory"}


class Forks:
    """The process that forks, as the tests see it."""

    def __init__(self) -> None:
        environment = os.environ | {"ANSIBLE_CONFIG": str(ROOT / "ansible.cfg"), "ANSIBLE_NOCOLOR": "1"}
        command = [sys.executable, "-m", __name__]
        pipe = subprocess.PIPE
        self.process = subprocess.Popen(command, cwd=ROOT, env=environment, stdin=pipe, stdout=pipe, text=True)

    def run(self, program: str, arguments: tuple[str, ...], cwd: Path) -> subprocess.CompletedProcess[str]:
        """Run a program to its end."""
        assert self.process.stdin and self.process.stdout
        with tempfile.TemporaryDirectory() as folder:
            outputs = [str(Path(folder, name)) for name in ("stdout", "stderr")]
            print(json.dumps([program, arguments, str(cwd), *outputs]), file=self.process.stdin, flush=True)
            status = int(self.process.stdout.readline())
            stdout, stderr = (Path(output).read_text() for output in outputs)
        return subprocess.CompletedProcess([program, *arguments], status, stdout, stderr)

    def end(self) -> None:
        """End it, with the temporary folder that Ansible made."""
        self.process.communicate()


@cache
def forks() -> Forks:
    """Return the one that all tests of this process share."""
    started = Forks()
    atexit.register(started.end)
    return started


def serve(jobs: IO[str]) -> None:
    """Fork for each job that is asked for, and print how it ended."""
    programs = {name: import_module(f"ansible.cli.{module}") for name, module in PROGRAMS.items()}
    for module in ("executor.playbook_executor", "executor.task_executor", "executor.module_common", "vars.manager"):
        import_module(f"ansible.{module}")
    for job in jobs:
        program, arguments, cwd, stdout, stderr = json.loads(job)
        pid = os.fork()
        if pid == 0:
            for number, name in ((0, os.devnull), (1, stdout), (2, stderr)):
                os.dup2(os.open(name, os.O_RDWR | os.O_CREAT), number)
            os.chdir(cwd)
            status = 1
            try:
                programs[program].main([program, *arguments])
            except SystemExit as end:
                status = end.code if isinstance(end.code, int) else 1
            except BaseException:
                traceback.print_exc()
            sys.stdout.flush()
            sys.stderr.flush()
            # Ansible's temporary folder, with the modules that are packed already, is for all forks.
            os._exit(status)
        _, ended = os.waitpid(pid, 0)
        print(os.waitstatus_to_exitcode(ended), flush=True)


if __name__ == "__main__":
    serve(sys.stdin)
