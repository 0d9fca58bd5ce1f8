"""Passwords are in no output and no journal, and a failure leaves nothing half applied."""

from __future__ import annotations

import configparser
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests import ROOT
from tests.controller import Run

SECRETS = ("_fortress_passwords[", "_fortress_grafana_password")
PLAYBOOKS = sorted(path for path in (ROOT / "playbooks").rglob("*.yml") if "group_vars" not in path.parts)


def tasks(items: Any) -> Iterator[dict[str, Any]]:
    """Yield every task of a playbook or a file of tasks, those in blocks too."""
    for item in items or []:
        nested = [
            item.get(part) for part in ("tasks", "pre_tasks", "post_tasks", "handlers", "block", "rescue", "always")
        ]
        if any(nested):
            for part in nested:
                yield from tasks(part)
        else:
            yield item


def gives_a_secret(task: dict[str, Any]) -> bool:
    """Return whether a secret is in what a task gives to its module; Ansible itself hides `url_password`."""
    given = {
        name: value for name, value in task.items() if "." in name or name in ("args", "vars", "loop", "environment")
    }
    for arguments in given.values():
        if isinstance(arguments, dict):
            arguments.pop("url_password", None)
    return any(secret in json.dumps(given) for secret in SECRETS)


def test_there_are_tasks_that_give_a_secret() -> None:
    assert sum(gives_a_secret(task) for path in PLAYBOOKS for task in tasks(yaml.safe_load(path.read_text()))) >= 3


@pytest.mark.parametrize("path", PLAYBOOKS, ids=lambda path: str(path.relative_to(ROOT)))
def test_a_task_that_gives_a_secret_to_its_module_is_not_printed(path: Path) -> None:
    shown = [
        task["name"]
        for task in tasks(yaml.safe_load(path.read_text()))
        if gives_a_secret(task) and "no_log" not in task
    ]
    assert shown == []


def test_a_file_with_passwords_is_for_its_owner_alone() -> None:
    written = {
        f"{path.name}: {task['name']}": task["ansible.builtin.copy"].get("mode")
        for path in PLAYBOOKS
        for task in tasks(yaml.safe_load(path.read_text()))
        if "ansible.builtin.copy" in task and gives_a_secret(task)
    }
    assert written == {"handover.yml: Write the settings that `make env` prints": "0600"}


def test_modules_leave_their_arguments_out_of_the_hosts_journal() -> None:
    """Whole configuration files are among them."""
    settings = configparser.ConfigParser()
    settings.read(ROOT / "ansible.cfg")
    assert settings["defaults"].getboolean("no_target_syslog")


def test_what_was_changed_is_applied_although_a_later_task_fails(play: Run, tmp_path: Path) -> None:
    """A certificate that was renewed must not wait for the next run."""
    handlers = tmp_path / "roles" / "demo" / "handlers" / "main.yml"
    handlers.parent.mkdir(parents=True)
    handlers.write_text(yaml.safe_dump([{"name": "Reload", "ansible.builtin.debug": {"msg": "it is reloaded"}}]))
    changed: dict[str, object] = {"ansible.builtin.debug": {"msg": "changed"}, "changed_when": True, "notify": "Reload"}
    done = play([changed | {"name": "Change"}, {"name": "Fail", "ansible.builtin.fail": {"msg": "broken"}}])
    assert done.returncode != 0
    assert "it is reloaded" in done.stdout
