"""Ansible on the control node: what a template becomes, what a variable is, what a playbook says without a host."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import yaml
from ansible.parsing.dataloader import DataLoader
from ansible.plugins.loader import action_loader
from ansible.template import Templar

from app.iris_api.tests.forks import RUN
from tests import ROOT
from tools import ansible_forks

Run = Callable[..., subprocess.CompletedProcess[str]]


def environment() -> dict[str, str]:
    """Return the environment for Ansible: whoever runs the tests (Molecule does) may have set how it talks."""
    return os.environ | {
        "ANSIBLE_CONFIG": str(ROOT / "ansible.cfg"),
        "ANSIBLE_NOCOLOR": "1",
        "ANSIBLE_FORCE_COLOR": "0",
        "ANSIBLE_PIPELINING": "1",
    }


def ansible(program: str, *arguments: str, cwd: Path = ROOT) -> subprocess.CompletedProcess[str]:
    """Run one of Ansible's programs, or a module that uses Ansible, with the project's ansible.cfg."""
    settings = environment()
    owner, folder = os.environ[RUN].split(":", 1)
    server = ansible_forks.connect(Path(folder), int(owner), settings)
    return ansible_forks.run(server, program, arguments, cwd, settings)


def check_inventory(inventory: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run the checks that come before any other play."""
    return ansible("ansible-playbook", "-i", str(inventory), "playbooks/preflight-inventory.yml", *arguments)


def variable(inventory: Path, name: str) -> str:
    """Return a variable as the playbooks of the project see it, as it is printed."""
    return variables(inventory, name)[name]


def variables(inventory: Path, *names: str) -> dict[str, str]:
    """Return several variables, of one run."""
    tasks = [{"ansible.builtin.debug": {"var": name}} for name in names]
    done = run_play({"hosts": "all", "gather_facts": False, "tasks": tasks}, "-i", str(inventory))
    assert done.returncode == 0, done.stdout + done.stderr
    return {name: done.stdout.split(f" {name}:", 1)[1].split("\n\n")[0].strip() for name in names}


def run_play(play: dict[str, Any], *options: str) -> subprocess.CompletedProcess[str]:
    """Run a play as one of the project's playbooks: with its group_vars, which Ansible looks for beside the playbook.

    It is outside of the checkout, whose files other tests read and copy at the same time.
    """
    with tempfile.TemporaryDirectory() as folder:
        playbook = Path(folder, "play.yml")
        playbook.write_text(yaml.safe_dump([play]))
        playbook.with_name("group_vars").symlink_to(ROOT / "group_vars")
        return ansible("ansible-playbook", *options, str(playbook))


def run_tasks(
    folder: Path, tasks: list[dict[str, object]], *options: str, **variables: object
) -> subprocess.CompletedProcess[str]:
    """Run tasks as the role `demo` in folder/roles, connection local, with the project's plugins and ansible.cfg."""
    role = folder / "roles" / "demo"
    (role / "tasks").mkdir(parents=True, exist_ok=True)
    (role / "tasks" / "main.yml").write_text(yaml.safe_dump(tasks))
    play = {
        "hosts": "localhost",
        "connection": "local",
        "gather_facts": False,
        "vars": {"ansible_python_interpreter": sys.executable, **variables},
        "roles": ["demo"],
    }
    (folder / "play.yml").write_text(yaml.safe_dump([play]))
    return ansible("ansible-playbook", "-i", "localhost,", "play.yml", *options, cwd=folder)


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
