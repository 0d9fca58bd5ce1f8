"""What the unit tests share: where the repository is, and a way to run a play on this machine."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml
from ansible.parsing.dataloader import DataLoader
from ansible.plugins.loader import action_loader
from ansible.template import Templar

ROOT = Path(__file__).resolve().parents[2]
Run = Callable[..., subprocess.CompletedProcess[str]]


def render(role: str, path: str, **settings: Any) -> str:
    """Render a template of a role with its defaults and these settings, as config_tree does."""
    loader = DataLoader()
    variables: dict[str, Any] = {}
    for part in ("defaults", "vars"):
        variables |= loader.load_from_file(str(ROOT / "roles" / role / part / "main.yml"), trusted_as_template=True)
    variables |= settings
    action_loader.add_directory(str(ROOT / "plugins" / "action"))
    config_tree = action_loader.get("config_tree", class_only=True)
    files = config_tree.render_tree(ROOT / "roles" / role, Templar(loader, variables), variables, [path])
    return str(files[f"/{path}"])


@pytest.fixture
def play(tmp_path: Path) -> Run:
    """Run tasks as the role `demo` in tmp_path/roles, connection local, with the project's plugins and ansible.cfg."""

    def run(tasks: list[dict[str, object]], *options: str, **variables: object) -> subprocess.CompletedProcess[str]:
        role = tmp_path / "roles" / "demo"
        (role / "tasks").mkdir(parents=True, exist_ok=True)
        (role / "tasks" / "main.yml").write_text(yaml.safe_dump(tasks))
        play = {
            "hosts": "localhost",
            "connection": "local",
            "gather_facts": False,
            "vars": {"ansible_python_interpreter": sys.executable, **variables},
            "roles": ["demo"],
        }
        (tmp_path / "play.yml").write_text(yaml.safe_dump([play]))
        command = [str(Path(sys.executable).with_name("ansible-playbook")), "-i", "localhost,", "play.yml", *options]
        environment = os.environ | {
            "ANSIBLE_CONFIG": str(ROOT / "ansible.cfg"),
            "ANSIBLE_ROLES_PATH": str(tmp_path / "roles"),
            "ANSIBLE_NOCOLOR": "1",
        }
        return subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False)

    return run


@pytest.fixture
def preflight(tmp_path: Path) -> Callable[..., str]:
    """Run the preflight of a role on the control node; return what it said, or nothing if it passed."""

    def run(role: str, **settings: Any) -> str:
        task = {"ansible.builtin.include_role": {"name": role, "tasks_from": "preflight.yml"}}
        play = {"hosts": "localhost", "gather_facts": False, "vars": settings, "tasks": [task]}
        (tmp_path / "play.yml").write_text(json.dumps([play]))
        command = [
            str(Path(sys.executable).with_name("ansible-playbook")),
            "-i",
            "localhost,",
            "-c",
            "local",
            "play.yml",
        ]
        environment = os.environ | {
            "ANSIBLE_CONFIG": str(ROOT / "ansible.cfg"),
            "ANSIBLE_ROLES_PATH": str(ROOT / "roles"),
            "ANSIBLE_NOCOLOR": "1",
        }
        done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False)
        return " ".join(done.stdout.split()) if done.returncode else ""

    return run
