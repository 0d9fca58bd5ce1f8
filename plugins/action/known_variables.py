"""Stop the run on a variable with a role's prefix that the role does not know: a typo is never silently ignored."""

from __future__ import annotations

import difflib
from pathlib import Path
from typing import Any

import yaml
from ansible.errors import AnsibleActionFail
from ansible.plugins.action import ActionBase


class ActionModule(ActionBase):
    """Runs on the control node only; the source of truth is each role's meta/argument_specs.yml."""

    _VALID_ARGS = frozenset({"prefix", "known"})

    def run(self, tmp: str | None = None, task_vars: dict[str, Any] | None = None) -> dict[str, Any]:
        """Without arguments check the prefix of the role that calls; else `prefix` against the names in `known`."""
        result: dict[str, Any] = super().run(tmp, task_vars)
        prefix, known = self._task.args.get("prefix"), self._task.args.get("known")
        if prefix is None:
            role = self._task._role
            if role is None:
                raise AnsibleActionFail("known_variables: outside a role, give `prefix` and `known`.")
            specs = role_options(Path(role._role_path).parent)
            prefix, known = f"{role._role_name}_", specs[role._role_name]
            longer = [f"{name}_" for name in specs if name.startswith(prefix)]
        else:
            longer = []
        unknown = sorted(
            name
            for name in task_vars or {}
            if name.startswith(prefix) and name not in known and not name.startswith(tuple(longer))
        )
        if unknown:
            result["failed"] = True
            result["msg"] = " ".join(_complaint(name, list(known)) for name in unknown)
        result["changed"] = False
        return result


def role_options(roles: Path) -> dict[str, list[str]]:
    """Read the public variables of every role beside each other, by role name."""
    options: dict[str, list[str]] = {}
    for spec in roles.glob("*/meta/argument_specs.yml"):
        document = yaml.safe_load(spec.read_text(encoding="utf-8")) or {}
        main = document.get("argument_specs", {}).get("main", {})
        options[spec.parent.parent.name] = list(main.get("options") or {})
    return options


def _complaint(name: str, known: list[str]) -> str:
    nearest = difflib.get_close_matches(name, known, n=1)
    hint = f"Did you mean {nearest[0]}?" if nearest else f"Known are: {', '.join(sorted(known))}."
    return f"Unknown variable {name}: nothing reads it. {hint} Rename or remove it in your inventory."
