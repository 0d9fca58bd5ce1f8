"""What an Ansible that is not that of .venv lacks: collections, modules of its Python, and programs."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterable, Mapping
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from ansible.errors import AnsibleFilterError
from ansible.module_utils.compat.version import LooseVersion

DOCUMENTATION = r"""
name: control_node
short_description: What is missing on the control node
description:
  - O(missing_collections) compares a requirements file of ansible-galaxy with what is installed.
  - O(missing_modules) lists the modules that this Python does not find.
  - O(missing_programs) lists the programs that are not on the PATH.
author: Fortress
"""


def missing_collections(requirements: Mapping[str, Any]) -> list[str]:
    """Return the collections that are not installed or too old, as `community.crypto >=3.0.0`.

    Args:
        requirements: The contents of a requirements.yml whose versions are of the form `>=1.2.3`.
    """
    return [
        f"{each['name']} {each['version']}"
        for each in requirements["collections"]
        if not _is_installed(str(each["name"]), str(each["version"]))
    ]


def missing_modules(names: Iterable[str]) -> list[str]:
    """Return the top-level modules that the Python of this Ansible does not find, in their order."""
    return [name for name in names if find_spec(name) is None]


def missing_programs(names: Iterable[str]) -> list[str]:
    """Return the programs that are not on the PATH, in their order."""
    return [name for name in names if shutil.which(name) is None]


def _is_installed(name: str, version: str) -> bool:
    if not version.startswith(">="):
        raise AnsibleFilterError(f"missing_collections: the version of {name} is {version!r}; write >= and a number.")
    try:
        found = find_spec(f"ansible_collections.{name}")
    except ModuleNotFoundError:
        return False
    if found is None or not found.submodule_search_locations:
        return False
    manifest = Path(next(iter(found.submodule_search_locations))) / "MANIFEST.json"
    # A checkout of a collection's sources has none, and whoever uses one knows what it is.
    if not manifest.exists():
        return True
    installed = json.loads(manifest.read_text(encoding="utf-8"))["collection_info"]["version"]
    return bool(LooseVersion(installed) >= LooseVersion(version.removeprefix(">=")))


class FilterModule:
    """What Ansible loads."""

    def filters(self) -> dict[str, Callable[..., Any]]:
        """Name the filters of this file."""
        return {
            "missing_collections": missing_collections,
            "missing_modules": missing_modules,
            "missing_programs": missing_programs,
        }
