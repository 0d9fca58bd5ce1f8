"""List what a role writes by its templates and files, and collect over all roles what goes and what stays."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from ansible.plugins.action import ActionBase

COLLECTED = ("after", "packages", "in_use", "users", "package_users", "package_folders")


class ActionModule(ActionBase):
    """The controller's half of host_removal. It renders nothing, so it needs no password of the site."""

    def run(self, tmp: str | None = None, task_vars: dict[str, Any] | None = None) -> dict[str, Any]:
        """Run the module of the same name on the host, and add to the fact `removal`."""
        super().run(tmp, task_vars)
        args = dict(self._task.args)
        facts: dict[str, Any] = (task_vars or {}).get("ansible_facts", {})
        so_far: dict[str, Any] = facts.get("removal", {})
        role = getattr(self._task, "_role", None)
        named = {name: args[name] for name in COLLECTED if name in args}
        if args.get("last"):
            args |= {name: so_far[name] for name in COLLECTED if name in so_far}
        elif role is not None and not args.get("look"):
            args["tree"] = tree(Path(role._role_path))
        result: dict[str, Any] = self._execute_module(module_name="host_removal", module_args=args, task_vars=task_vars)
        if not result.get("failed"):
            found = {name: result[name] for name in ("removed", "left", "ours", "recorded", "losses") if name in result}
            result["ansible_facts"] = {"removal": merged(so_far, named | found)}
        return result


def tree(role: Path) -> list[str]:
    """Return the paths on a host of what a role's templates/ and files/ folders hold."""
    found = {
        f"/{path.relative_to(base)}"
        for base in (role / "files", role / "templates")
        for path in base.rglob("*")
        if path.is_file() and path.suffix != ".pyc"
    }
    return sorted(found)


def merged(so_far: dict[str, Any], new: dict[str, Any]) -> dict[str, Any]:
    """Return both: lists and dictionaries grow, all else is replaced."""
    found = dict(so_far)
    for name, value in new.items():
        before = found.get(name)
        if isinstance(value, list) and isinstance(before, list):
            found[name] = before + [item for item in value if item not in before]
        elif isinstance(value, dict) and isinstance(before, dict):
            found[name] = before | value
        else:
            found[name] = value
    return found
