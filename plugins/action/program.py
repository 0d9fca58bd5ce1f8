"""Run a program where the task is run, without a module around it."""

from __future__ import annotations

import shlex
from typing import Any

from ansible.errors import AnsibleActionFail
from ansible.plugins.action import ActionBase

DOCUMENTATION = r"""
module: program
short_description: Run a program, without the module that would start it
description:
  - As C(ansible.builtin.command) with C(argv) and C(stdin), and with its results. That one starts Python on the host to
    unpack itself, and then the program, which takes longer than most programs that are asked something.
  - In check mode it does nothing, unless the task says C(check_mode=false). It does not apply C(environment).
options:
  argv:
    description: The program and its arguments.
    type: list
    elements: str
    required: true
  stdin:
    description: What the program reads; without it, an empty line.
    type: str
    default: ""
author: Fortress
"""

EXAMPLES = r"""
- name: Request the state of the instances
  program:
    argv: [/usr/local/sbin/iris-deploy, --json, status]
  changed_when: false
  check_mode: false
"""


class ActionModule(ActionBase):
    """Hands the program to the connection."""

    _VALID_ARGS = frozenset({"argv", "stdin"})

    def run(self, tmp: str | None = None, task_vars: dict[str, Any] | None = None) -> dict[str, Any]:
        """Run it, and return C(rc), C(stdout) and C(stderr)."""
        result: dict[str, Any] = super().run(tmp, task_vars)
        argv = self._task.args.get("argv")
        if not isinstance(argv, list) or not argv:
            raise AnsibleActionFail("program: give a program and its arguments as the list `argv`.")
        command = shlex.join(str(each) for each in argv)
        result["cmd"] = argv
        if self._task.check_mode:
            return result | {"skipped": True, "changed": False, "msg": "Check mode runs no program."}
        # Without anything to read a program would get a terminal, which writes what is wrong into its output.
        stdin = str(self._task.args.get("stdin") or "\n")
        result |= self._low_level_execute_command(command, in_data=stdin.encode())
        result |= {stream: result[stream].strip("\r\n") for stream in ("stdout", "stderr")} | {"changed": True}
        if result["rc"] != 0:
            result |= {"failed": True, "msg": "non-zero return code"}
        return result
