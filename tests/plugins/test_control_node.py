"""A control node without the collections is told so before anything runs."""

from __future__ import annotations

import ast
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from plugins.filter.control_node import missing_modules, missing_programs
from tests import ROOT

MISSING = "{{ wanted | missing_collections | join(', ') }}"


def missing(play: Callable[..., subprocess.CompletedProcess[str]], wanted: dict[str, Any]) -> str:
    done = play([{"ansible.builtin.debug": {"msg": f"missing: <{MISSING}>"}}], wanted=wanted)
    assert "missing: <" in done.stdout, done.stdout
    return " ".join(done.stdout.split("missing: <", 1)[1].split(">'")[0].split(">\n")[0].split())


@pytest.mark.parametrize(
    ("name", "version", "expected"),
    [
        ("community.crypto", ">=1.0.0", ""),
        ("community.crypto", ">=999.0.0", "community.crypto >=999.0.0"),
        ("community.nonesuch", ">=1.0.0", "community.nonesuch >=1.0.0"),
        ("nobody.nonesuch", ">=1.0.0", "nobody.nonesuch >=1.0.0"),
    ],
)
def test_a_collection_is_missing_if_it_is_not_there_or_too_old(
    play: Callable[..., subprocess.CompletedProcess[str]], name: str, version: str, expected: str
) -> None:
    assert missing(play, {"collections": [{"name": name, "version": version}]}) == expected


def test_a_module_is_missing_if_python_does_not_find_it() -> None:
    assert missing_modules(["json", "no_such_module", "pydantic"]) == ["no_such_module"]


def test_a_program_is_missing_if_the_path_does_not_have_it() -> None:
    assert missing_programs({"sh": "dash", "no-such-program": "none"}) == ["no-such-program"]


def test_a_control_node_without_curl_is_told_so_before_anything_runs(
    tmp_path: Path, play: Callable[..., subprocess.CompletedProcess[str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A converge would install everything, and say at its end that the site does not answer."""
    for program in ("sh", "bash", "env", "python3", "ssh"):
        (tmp_path / program).symlink_to(str(shutil.which(program)))
    monkeypatch.setenv("PATH", str(tmp_path))
    done = play([{"ansible.builtin.import_role": {"name": "fortress", "tasks_from": "groups"}}])
    assert done.returncode != 0
    said = " ".join(done.stdout.split())
    assert "There is no curl on this machine." in said, done.stdout
    assert "`sudo apt-get install curl`" in said


def test_every_module_that_the_plugins_import_is_looked_for() -> None:
    variables = yaml.safe_load((ROOT / "roles" / "fortress" / "vars" / "main.yml").read_text())
    looked_for = set(variables["_fortress_python_modules"])
    imported = {
        name.split(".")[0]
        for file in [*(ROOT / "plugins").rglob("*.py"), ROOT / "tools" / "build-release"]
        for node in ast.walk(ast.parse(file.read_text()))
        for name in (
            [alias.name for alias in node.names]
            if isinstance(node, ast.Import)
            else [node.module or ""]
            if isinstance(node, ast.ImportFrom) and not node.level
            else []
        )
    }
    others = imported - sys.stdlib_module_names - {"ansible", "ansible_collections", "iris_api", "yaml"}
    assert {"passlib", "zxcvbn", "packaging"} <= others <= looked_for
    # The first three are programs of the builder, the last what iris_api.bundle and community.crypto import.
    assert looked_for - others == {"build", "hatchling", "pip", "pydantic", "cryptography"}


def test_the_requirements_name_every_collection_that_is_used() -> None:
    used = {
        ".".join(word.split(".")[:2])
        for folder in ("roles", "playbooks")
        for file in (ROOT / folder).rglob("*.yml")
        for word in file.read_text().replace(":", " ").split()
        if word.count(".") == 2 and word.startswith(("community.", "ansible."))
    } - {"ansible.builtin"}
    required = yaml.safe_load((ROOT / "requirements.yml").read_text())["collections"]
    assert used == {each["name"] for each in required} == {"community.crypto"}
