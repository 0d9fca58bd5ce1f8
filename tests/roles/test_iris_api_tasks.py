"""How the role iris_api brings a deployment to a host, and what it tells the program that deploys there."""

from __future__ import annotations

import json
import shlex
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml
from ansible.parsing.dataloader import DataLoader
from ansible.template import Templar, trust_as_template
from iris_deploy.host import Settings

from tests import ROOT
from tests.controller import render


def task(phase: str, name: str) -> dict[str, Any]:
    """Return a task of a phase of the role, also one in a block."""
    contents = yaml.safe_load((ROOT / "roles" / "iris_api" / "tasks" / f"{phase}.yml").read_text())
    [found] = [each for entry in contents for each in entry.get("block", [entry]) if each["name"] == name]
    return dict(found)


def command(arguments: dict[str, Any], **variables: Any) -> list[str]:
    """Return the command that a task runs."""
    argv = arguments["ansible.builtin.command"]["argv"]
    return list(Templar(DataLoader(), variables).template(trust_as_template(argv)))


@pytest.mark.parametrize(
    ("checks", "again", "options"),
    [
        (False, False, []),
        (False, True, ["--again"]),
        (True, False, ["--dry-run"]),
        (True, True, ["--again", "--dry-run"]),
    ],
)
def test_check_mode_deploys_nothing(checks: bool, again: bool, options: list[str]) -> None:
    """The command runs in check mode too: it says what would happen."""
    deploys = task("rollout", "Roll the deployment out, one instance after the other")
    known = {"_iris_api_deployer": "ana@laptop", "iris_api_redeploy": again, "ansible_check_mode": checks}
    assert command(deploys, **known) == [
        "/usr/local/sbin/iris-deploy",
        "--json",
        "deploy",
        "--who",
        "ana@laptop",
        *options,
    ]
    assert deploys["check_mode"] is False


def test_on_a_host_nothing_is_installed_that_the_lock_does_not_name_by_its_hash() -> None:
    installs = task("prepare", "Install the locked wheels, each by its hash, from the release alone")
    options = {option for option in installs["ansible.builtin.command"]["argv"] if option.startswith("--")}
    assert {"--no-index", "--no-deps", "--require-hashes"} <= options
    assert "--find-links={{ _iris_api_release_dir }}/wheels" in options


def test_what_was_not_installed_whole_is_not_marked_as_complete() -> None:
    contents = yaml.safe_load((ROOT / "roles" / "iris_api" / "tasks" / "prepare.yml").read_text())
    release = [each["name"] for each in contents[0]["block"]]
    assert release[-1] == "Mark the release as complete"
    upload = yaml.safe_load((ROOT / "roles" / "iris_api" / "tasks" / "upload.yml").read_text())
    names = [each["name"] for entry in upload for each in entry.get("block", [entry])]
    assert names.index("Remove what an interrupted run left") < names.index("Unpack the release")


def test_nobody_logs_in_as_the_user_of_the_instances() -> None:
    user = task("install", "Create the user that the instances run as")["ansible.builtin.user"]
    assert (user["shell"], user["home"], user["create_home"]) == ("/usr/sbin/nologin", "/nonexistent", False)
    assert user["system"] is True


def test_what_belongs_to_root_is_written_by_root_alone() -> None:
    """The instances run from these folders, and root runs the program."""
    assert task("upload", "Upload the deployment program")["ansible.builtin.copy"]["mode"] == "0755"
    for name in ("release", "model"):
        assert task("upload", f"Create the {name}'s folder")["ansible.builtin.file"]["mode"] == "0755"
        unpacks = task("upload", f"Unpack the {name}")["ansible.builtin.unarchive"]
        assert (unpacks["owner"], unpacks["group"]) == ("root", "root")


def test_the_program_is_told_how_to_deploy() -> None:
    told = json.loads(
        render(
            "iris_api",
            "etc/iris-api/deploy.json",
            iris_api_instances=2,
            iris_api_keep_deployments=7,
            iris_api_deploy_timeout=90,
            iris_api_deploy_settle=4,
            iris_api_check_memory=False,
        )
    )
    assert Settings(**told) == Settings(instances=2, keep=7, timeout=90, settle=4, check_memory=False)


@pytest.mark.parametrize(
    "name", ["Create the virtual environment", "Install the locked wheels, each by its hash, from the release alone"]
)
def test_the_instances_can_read_what_is_installed_by_a_login_with_a_strict_umask(name: str, tmp_path: Path) -> None:
    """The command as it is, but for the program that it ends in."""
    arguments = task("prepare", name)["ansible.builtin.command"]
    words = [str(word) for word in arguments.get("argv") or shlex.split(arguments["cmd"])]
    assert words[:2] == ["sh", "-c"]
    script = words[2].partition("&&")[0] + "&& umask"
    done = subprocess.run(["sh", "-c", f"umask 077; {script}"], capture_output=True, text=True, check=True)
    assert done.stdout == "0022\n"
