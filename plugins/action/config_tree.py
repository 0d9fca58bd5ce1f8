"""Render a role's tree of templates on the control node and hand it to the host in one module call."""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Callable, Mapping, Sequence
from fnmatch import fnmatch
from pathlib import Path
from typing import Any

from ansible.errors import AnsibleActionFail, AnsibleError
from ansible.plugins.action import ActionBase
from ansible.template import trust_as_template

TEMPLATE_SUFFIX = ".j2"
# By which host_survey has seen what not everybody may read.
KEY = "_fortress_survey_key"
# Of a file, beside its content.
KEYS = ("owner", "group", "mode")
JINJA_OPTIONS = {"trim_blocks": True, "lstrip_blocks": True}


class ActionModule(ActionBase):
    """The controller's half of config_tree: what is rendered or read here needs no round trip of its own."""

    def run(self, tmp: str | None = None, task_vars: dict[str, Any] | None = None) -> dict[str, Any]:
        """Collect the files and run the module of the same name on the host."""
        super().run(tmp, task_vars)
        args = dict(self._task.args)
        paths = _as_list(args.pop("path", None))
        exclude = _as_list(args.pop("exclude", None))
        contents: dict[str, str] | None = args.pop("contents", None)
        role = getattr(self._task, "_role", None)

        if "applied" in args:
            if unknown := sorted(self._task.args.keys() - {"applied"}):
                raise AnsibleActionFail(
                    f"config_tree: `applied` writes no file, so {', '.join(unknown)} means nothing beside it."
                )
            args["applied"] = _as_list(args["applied"])
            return self._execute_module(
                module_name="config_tree", module_args=args | {"files": []}, task_vars=task_vars
            )

        if contents is not None:
            if paths or exclude:
                raise AnsibleActionFail(
                    "config_tree: `contents` stands instead of the role's folders, so `path` and `exclude` mean nothing"
                    " beside it. Write both in two tasks."
                )
        elif role is None:
            raise AnsibleActionFail("config_tree: outside a role there is no templates/ folder; give `contents`.")
        else:
            contents = self.render_tree(Path(role._role_path), self._templar, task_vars or {}, paths or ["."], exclude)
        if not contents:
            where = f"below {paths or ['.']} in the role's templates/ or files/ folder"
            raise AnsibleActionFail(
                f"config_tree: there is no file {'in `contents`' if 'contents' in self._task.args else where}."
            )

        variables = task_vars or {}
        survey = variables.get("ansible_facts", {}).get("survey", {})
        if is_in_place(contents, args, survey, lambda: str(self._templar.template(variables.get(KEY, "")))):
            return {"changed": False, "changed_paths": []}
        args["files"] = [{"path": path, "content": text} for path, text in sorted(contents.items())]
        result: dict[str, Any] = self._execute_module(module_name="config_tree", module_args=args, task_vars=task_vars)
        if result.get("changed") and survey.get("written"):
            # What the survey has seen of these files holds no longer, for the rest of the run.
            kept = {path: seen for path, seen in survey["written"].items() if path not in contents}
            result["ansible_facts"] = {"survey": survey | {"written": kept}}
        return result

    @staticmethod
    def render_tree(
        role: Path, templar: Any, variables: dict[str, Any], paths: Sequence[str] = (".",), exclude: Sequence[str] = ()
    ) -> dict[str, str]:
        """Render what a role would write, without a host.

        Args:
            role: The role's folder.
            templar: Ansible's engine; its loader and its trust in templates are used.
            variables: What templates may refer to.
            paths: Sub-trees or files below the role's files/ and templates/ folders.
            exclude: Shell patterns of relative paths to leave out.

        Returns:
            Absolute path on the host to text: files/ verbatim, templates/ rendered.

        Raises:
            AnsibleActionFail: A template can't be rendered; the message names its file.
        """
        contents: dict[str, str] = {}
        for folder, is_template in (("files", False), ("templates", True)):
            base = role / folder
            for source in _sources(base, paths):
                relative = source.relative_to(base).as_posix()
                if any(fnmatch(relative, pattern) for pattern in exclude):
                    continue
                text = source.read_text(encoding="utf-8")
                if is_template:
                    text = _render(source, text, templar, variables, [source.parent, shared_templates(role)])
                    relative = relative.removesuffix(TEMPLATE_SUFFIX)
                contents[f"/{relative}"] = text
        return contents


def is_in_place(
    contents: Mapping[str, str], args: Mapping[str, Any], survey: Mapping[str, Any], key: Callable[[], str]
) -> bool:
    """Return whether host_survey has seen that a tree is on the host as it should be: then nothing asks the host.

    Args:
        contents: Absolute path to text.
        args: The other options of the task.
        survey: The fact of host_survey; what it does not have (a host that keeps no list, a file that was not there)
            has to be asked for.
        key: Returns the key that the survey was given for files that not everybody may read.
    """
    written = survey.get("written") or {}
    record, absent = args.get("unapplied") or "", args.get("absent") or []
    # A record by its absolute path is not where the survey looks.
    if not written or record.startswith("/") or survey.get("unapplied", {}).get(record):
        return False
    if set(absent) - set(survey.get("missing", [])):
        return False
    if set((args.get("in_use") or {}).values()) - set(survey.get("succeeding", [])):
        return False
    for path, text in contents.items():
        wanted = {"owner": "root", "group": "root", "mode": "0644", **{k: args[k] for k in KEYS if k in args}}
        for pattern, exception in (args.get("attributes") or {}).items():
            if fnmatch(path, pattern):
                wanted |= {name: value for name, value in exception.items() if name in KEYS}
        seen = written.get(path)
        if seen is None:
            return False
        wanted["mode"] = f"{int(str(wanted['mode']), 8):04o}"
        content = text.encode()
        if "hmac" in seen:
            wanted["hmac"] = hmac.digest(key().encode(), content, "sha256").hex()
        else:
            wanted["sha256"] = hashlib.sha256(content).hexdigest()
        if seen != wanted:
            return False
    return True


def shared_templates(role: Path) -> Path:
    """Return the folder of what templates of several roles include: templates/ beside the folder of the roles."""
    return role.parent.parent / "templates"


def _render(source: Path, text: str, templar: Any, variables: dict[str, Any], includes: list[Path]) -> str:
    engine = templar.copy_with_new_env(searchpath=[str(path) for path in includes], available_variables=variables)
    try:
        return str(engine.template(trust_as_template(text), escape_backslashes=False, overrides=JINJA_OPTIONS))
    except AnsibleError as error:
        raise AnsibleActionFail(f"config_tree: {source}: {error}") from error


def _sources(base: Path, paths: Sequence[str]) -> list[Path]:
    found: set[Path] = set()
    for path in paths:
        start = base / path
        # Beside a role's programs Python keeps what it has compiled of them, or is just writing it.
        below = (file for file in start.rglob("*") if file.is_file() and file.parent.name != "__pycache__")
        found |= {start} if start.is_file() else set(below)
    return sorted(found)


def _as_list(value: Any) -> list[str]:
    if value is None:
        return []
    return [str(value)] if isinstance(value, str) else [str(item) for item in value]
