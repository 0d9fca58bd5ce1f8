"""Check all that a role needs before anything is changed, in one task: its variables, their values, and the host."""

from __future__ import annotations

from typing import Any

from ansible.plugins.action import ActionBase
from ansible.template import trust_as_template

DOCUMENTATION = r"""
module: preflight
short_description: Check a role's variables, their values, and that the host has room for it
description:
  - Runs on the control node alone, and changes nothing. A task costs 35 ms a host, whatever it checks.
  - First the names and types of the role's variables, as C(known_variables) does; then its settings; then the host,
    as C(unoccupied) does. What fails first is reported alone, because what comes after it may rely on it.
  - O(settings) and O(host) name variables of the task. Ansible would template what they hold before anything is
    checked, and say of a variable of another type only that some filter can't take it.
options:
  strict:
    description: Whether a text for a number is an error, too.
    type: bool
    default: false
  settings:
    description:
      - Names of variables, each a list of C(that), which must hold, and C(message), which says what is wrong and
        what to do.
    type: list
    elements: str
    default: []
  host:
    description: Name of a variable with the options of C(unoccupied).
    type: str
  packages:
    description:
      - Debian packages that the role installs. The fact C(wanted_packages) has those of all preflights so far.
        The role base installs them in one transaction.
    type: list
    elements: str
    default: []
author: Fortress
"""

EXAMPLES = r"""
- name: Check the settings of demo, and that the host is free for it
  preflight:
    settings: [_demo_checks]
    host: _demo_needs
    packages: [demo]
  vars:
    _demo_checks:
      - that: "{{ demo_rate > 0 }}"
        message: demo_rate is {{ demo_rate }}; give at least 1.
    _demo_needs: {unit: demo.service, ports: ["{{ demo_port }}"]}
"""

COMPLAINTS = "{{{{ {} | rejectattr('that') | map(attribute='message') | join(' ') }}}}"


class ActionModule(ActionBase):
    """Runs on the control node only."""

    _VALID_ARGS = frozenset({"strict", "settings", "host", "packages"})

    def run(self, tmp: str | None = None, task_vars: dict[str, Any] | None = None) -> dict[str, Any]:
        """Return the first failure, or that there is none."""
        result: dict[str, Any] = super().run(tmp, task_vars)
        variables = task_vars or {}
        args = self._task.args
        result |= self._checked_by("known_variables", {"strict": True} if args.get("strict") else {}, variables)
        for name in args.get("settings", []):
            if not result.get("failed"):
                complaints = self._templar.template(trust_as_template(COMPLAINTS.format(name)))
                result |= {"failed": True, "msg": complaints} if complaints else {}
        if "host" in args and not result.get("failed"):
            needs = self._templar.template(variables[args["host"]])
            result |= self._checked_by("unoccupied", needs, variables)
        if args.get("packages") and not result.get("failed"):
            so_far: list[str] = variables.get("ansible_facts", {}).get("wanted_packages", [])
            result["ansible_facts"] = {"wanted_packages": list(dict.fromkeys([*so_far, *args["packages"]]))}
        return result | {"changed": False}

    def _checked_by(self, action: str, args: dict[str, Any], variables: dict[str, Any]) -> dict[str, Any]:
        task = self._task.copy()
        task.args = args
        plugin = self._shared_loader_obj.action_loader.get(
            action,
            task=task,
            connection=self._connection,
            play_context=self._play_context,
            loader=self._loader,
            templar=self._templar,
            shared_loader_obj=self._shared_loader_obj,
        )
        found: dict[str, Any] = plugin.run(task_vars=variables)
        return found
