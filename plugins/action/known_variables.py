"""Stop the run on a variable that a role does not know, or of a wrong type: a typo is never silently ignored."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from ansible.errors import AnsibleActionFail
from ansible.module_utils.common.arg_spec import ArgumentSpecValidator
from ansible.module_utils.common.yaml import yaml_load
from ansible.plugins.action import ActionBase

NOUNS = {"int": "a whole number", "list": "a list", "dict": "a dictionary", "str": "a text"}
# A text would be read a letter at a time where a list is meant: no role can do with one.
CONTAINERS = frozenset({"list", "dict"})


class ActionModule(ActionBase):
    """Runs on the control node only; the source of truth is each role's meta/argument_specs.yml."""

    _VALID_ARGS = frozenset({"strict"})

    def run(self, tmp: str | None = None, task_vars: dict[str, Any] | None = None) -> dict[str, Any]:
        """Check the variables with the prefix of the role that calls.

        Names first, then types. Ansible itself checks types only where a role's tasks/main.yml begins, and accepts a
        text for a list or a number. For a list that is an error: to whatever reads the variable, it stays a text. With
        `strict` it is one for a number, too.
        """
        result: dict[str, Any] = super().run(tmp, task_vars)
        role = self._task._role
        if role is None:
            raise AnsibleActionFail("known_variables: checks the variables of the role that it is called in.")
        variables = task_vars or {}
        roles = Path(role._role_path).parent
        # Of the others their names are enough, and reading all specifications took most of the time.
        names = [spec.parts[-3] for spec in roles.glob("*/meta/argument_specs.yml")]
        options = role_options(roles / role._role_name)
        complaints = [
            _unknown(name, list(options))
            for name in sorted(variables)
            if _belongs(name, role._role_name, names) and name not in options
        ]
        if not complaints:
            values = {name: self._templar.template(variables[name]) for name in options if name in variables}
            complaints = mistyped(options, values, frozenset(NOUNS) if self._task.args.get("strict") else CONTAINERS)
            complaints = complaints or ArgumentSpecValidator(options).validate(values).error_messages
        if complaints:
            result["failed"] = True
            result["msg"] = " ".join(complaints)
        result["changed"] = False
        return result


def role_options(role: Path) -> dict[str, dict[str, Any]]:
    """Read the public variables of a role, by name."""
    document = yaml_load((role / "meta" / "argument_specs.yml").read_text(encoding="utf-8")) or {}
    return dict(document.get("argument_specs", {}).get("main", {}).get("options") or {})


def mistyped(
    options: Mapping[str, Mapping[str, Any]], values: Mapping[str, Any], kinds: frozenset[str] = frozenset(NOUNS)
) -> list[str]:
    """Return a message for each value of another type than specified, or with such an element or part.

    A number or a list in quotes is a text; so is what stands behind `-e NAME=` on the command line. A number without
    quotes is no text: YAML reads the version 1.10 as 1.1.

    Args:
        options: Specifications of variables by their names, as in meta/argument_specs.yml.
        values: What the variables are; others than `options` has may not be among them.
        kinds: Of which types values are judged: some of NOUNS.
    """
    complaints: list[str] = []
    for name, value in values.items():
        option = options[name]
        kind = str(option.get("type"))
        if kind in kinds and not _is(value, kind):
            shown, how = _shown(value, option), "in quotes" if kind == "str" else "without quotes"
            if isinstance(value, str) and name.isidentifier():
                how += f""", on the command line as JSON: -e '{{"{name}": ...}}'"""
            complaints.append(f"{name} is {shown}, and must be {NOUNS[kind]}, written {how}. {option['description']}")
        elif kind == "list" and option.get("elements") == "str" and "str" in kinds:
            complaints += [
                f"{name} has {_shown(element, option)}, and each must be a text, written in quotes. "
                f"{option['description']}"
                for element in value
                if not isinstance(element, str)
            ]
        elif parts := option.get("options"):
            for number, whole in enumerate([value] if kind == "dict" else value):
                given = {key: part for key, part in _items(whole) if key in parts and part is not None}
                path = f"{name}." if kind == "dict" else f"{name}[{number}]."
                complaints += mistyped(
                    {f"{path}{key}": parts[key] for key in given},
                    {f"{path}{key}": part for key, part in given.items()},
                    kinds,
                )
    return complaints


def _items(value: Any) -> Iterable[tuple[str, Any]]:
    return value.items() if isinstance(value, Mapping) else ()


def _shown(value: Any, option: Mapping[str, Any]) -> str:
    secret = option.get("no_log") or any(part.get("no_log") for part in option.get("options", {}).values())
    return "not shown, since it may hold a secret" if secret else repr(value)


def _is(value: Any, kind: str) -> bool:
    if kind == "str":
        return isinstance(value, str)
    if kind == "int":
        return isinstance(value, int) and not isinstance(value, bool)
    if kind == "list":
        return isinstance(value, Sequence) and not isinstance(value, str)
    return isinstance(value, Mapping)


def _belongs(name: str, role: str, roles: Iterable[str]) -> bool:
    # A role's name may be the beginning of another's.
    longer = tuple(f"{other}_" for other in roles if other.startswith(f"{role}_"))
    return name.startswith(f"{role}_") and not name.startswith(longer)


def _unknown(name: str, known: list[str]) -> str:
    nearest = difflib.get_close_matches(name, known, n=1)
    hint = f"Did you mean {nearest[0]}?" if nearest else f"Known are: {', '.join(sorted(known))}."
    return f"Unknown variable {name}: nothing reads it. {hint} Rename or remove it in your inventory."
