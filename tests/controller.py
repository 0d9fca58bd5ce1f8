"""Ansible on the control node: what a template becomes, what a variable is, what a playbook says without a host."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import yaml
from ansible.parsing.dataloader import DataLoader
from ansible.template import Templar, trust_as_template

from tests import ROOT

BIN = Path(sys.executable).parent
Run = Callable[..., subprocess.CompletedProcess[str]]


def ansible(
    program: str, *arguments: str, cwd: Path = ROOT, roles: Path = ROOT / "roles"
) -> subprocess.CompletedProcess[str]:
    """Run one of Ansible's programs with the project's ansible.cfg."""
    environment = os.environ | {
        "ANSIBLE_CONFIG": str(ROOT / "ansible.cfg"),
        "ANSIBLE_ROLES_PATH": str(roles),
        "ANSIBLE_NOCOLOR": "1",
    }
    command = [str(BIN / program), *arguments]
    return subprocess.run(command, cwd=cwd, env=environment, capture_output=True, text=True, check=False)


def guard(inventory: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run the checks that come before any other play."""
    return ansible("ansible-playbook", "-i", str(inventory), "playbooks/guard.yml", *arguments)


def variable(inventory: Path, name: str) -> str:
    """Print a variable as the playbooks of the project see it."""
    play = [{"hosts": "all", "gather_facts": False, "tasks": [{"ansible.builtin.debug": {"var": name}}]}]
    playbook = ROOT / "playbooks" / f".test-{os.getpid()}.yml"
    playbook.write_text(yaml.safe_dump(play))
    try:
        done = ansible("ansible-playbook", "-i", str(inventory), str(playbook))
    finally:
        playbook.unlink()
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout.split(f"{name}:", 1)[1].split("\n\n")[0].strip()


def render(role: str, path: str, **settings: Any) -> str:
    """Render a template of a role with its defaults and these settings, as config_tree does."""
    loader = DataLoader()
    variables: dict[str, Any] = {}
    for part in ("defaults", "vars"):
        variables |= loader.load_from_file(str(ROOT / "roles" / role / part / "main.yml"), trusted_as_template=True)
    templar = Templar(loader, variables | settings)
    text = (ROOT / "roles" / role / "templates" / path).read_text(encoding="utf-8")
    return str(templar.template(trust_as_template(text), overrides={"trim_blocks": True, "lstrip_blocks": True}))
