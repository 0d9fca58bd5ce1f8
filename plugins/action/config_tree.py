"""Render a role's tree of templates on the control node and hand it to the host in one module call."""

from __future__ import annotations

from fnmatch import fnmatch
from pathlib import Path
from typing import Any

from ansible.errors import AnsibleActionFail, AnsibleError
from ansible.plugins.action import ActionBase
from ansible.template import trust_as_template

TEMPLATE_SUFFIX = ".j2"
JINJA_OPTIONS = {"trim_blocks": True, "lstrip_blocks": True}


class ActionModule(ActionBase):
    """The controller's half of config_tree: what is rendered or read here needs no round trip of its own."""

    def run(self, tmp: str | None = None, task_vars: dict[str, Any] | None = None) -> dict[str, Any]:
        """Collect the files and run the module of the same name on the host."""
        super().run(tmp, task_vars)
        args = dict(self._task.args)
        paths = _as_list(args.pop("path", None)) or ["."]
        exclude = _as_list(args.pop("exclude", None))
        contents: dict[str, str] = dict(args.pop("contents", None) or {})

        role = getattr(self._task, "_role", None)
        if role is None:
            if not contents:
                raise AnsibleActionFail("config_tree: outside a role there is no templates/ folder; give `contents`.")
        else:
            contents = self._collect(Path(role._role_path), paths, exclude, task_vars or {}) | contents
        if not contents:
            raise AnsibleActionFail(f"config_tree: nothing below {paths} in the role's templates/ or files/ folder.")

        args["files"] = [{"path": path, "content": text} for path, text in sorted(contents.items())]
        return self._execute_module(module_name="config_tree", module_args=args, task_vars=task_vars)

    def _collect(
        self, role_path: Path, paths: list[str], exclude: list[str], task_vars: dict[str, Any]
    ) -> dict[str, str]:
        """Map each absolute target path to its text: files/ verbatim, templates/ rendered."""
        contents: dict[str, str] = {}
        for folder, is_template in (("files", False), ("templates", True)):
            base = role_path / folder
            for source in _sources(base, paths):
                relative = source.relative_to(base).as_posix()
                if any(fnmatch(relative, pattern) for pattern in exclude):
                    continue
                text = source.read_text(encoding="utf-8")
                if is_template:
                    text = self._render(source, text, task_vars)
                    relative = relative.removesuffix(TEMPLATE_SUFFIX)
                contents[f"/{relative}"] = text
        return contents

    def _render(self, source: Path, text: str, task_vars: dict[str, Any]) -> str:
        templar = self._templar.copy_with_new_env(searchpath=[str(source.parent)], available_variables=task_vars)
        try:
            return str(templar.template(trust_as_template(text), escape_backslashes=False, overrides=JINJA_OPTIONS))
        except AnsibleError as error:
            raise AnsibleActionFail(f"config_tree: {source}: {error}") from error


def _sources(base: Path, paths: list[str]) -> list[Path]:
    found: set[Path] = set()
    for path in paths:
        start = base / path
        found |= {start} if start.is_file() else {p for p in start.rglob("*") if p.is_file() and p.suffix != ".pyc"}
    return sorted(found)


def _as_list(value: Any) -> list[str]:
    if value is None:
        return []
    return [str(value)] if isinstance(value, str) else [str(item) for item in value]
