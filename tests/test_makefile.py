"""The Makefile: what each target runs, as `make --dry-run` prints it."""

from __future__ import annotations

import getpass
import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests import ROOT


def recipe(*arguments: str) -> str:
    """Return the commands that make would run."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("MAKE", "MFLAGS"))}
    command = ["make", "--dry-run", *arguments]
    return subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=True).stdout


@pytest.mark.parametrize(
    ("arguments", "command"),
    [
        (["converge"], "-i inventory/local site.yml"),
        (["deploy"], "playbooks/deploy.yml"),
        (["deploy"], "-e iris_api_is_inventory=true"),
        (["deploy", "MODEL=wine"], "playbooks/deploy.yml -e fortress_model_name='wine'"),
        (["deploy", "MODEL_VERSION=2.0.0"], "-e fortress_model_version='2.0.0'"),
        (["deploy", "APP=v1.2.0"], "-e iris_api_revision='v1.2.0'"),
        (["rollback", "PART=model"], "playbooks/rollback.yml -e rollback_part=model"),
        (["rollback", "TO=iris-1.0.0"], "-e rollback_to=iris-1.0.0"),
        (["rotate-credentials", "FOR=iris"], "playbooks/rotate-credentials.yml --extra-vars rotate_user=iris"),
        (["retire-credentials", "FOR=iris"], "playbooks/retire-credentials.yml --extra-vars retire_user=iris"),
        (["remove", "SITE=iris.example.com"], "playbooks/remove.yml -e remove_site='iris.example.com'"),
        (["remove", "HOST=api2", "CHECK=1"], "playbooks/remove.yml --limit 'api2' --check"),
        (["hold", "WHY=the fair is on"], '"argv": ["iris-deploy", "hold", "--who", '),
        (["unlock"], "'iris-deploy unlock --who "),
        (["notify"], "-m tools.notify --inventory inventory/local"),
        (["notify", "SEVERITY=warning", "HOST=gate1"], "--severity 'warning' --host 'gate1'"),
        (["silence"], "-m tools.silence --inventory inventory/local"),
        (["silence", "ALERT=NginxDown"], "--inventory inventory/local --alert 'NginxDown'"),
        (["silence", "HOST=gate1", "FOR=2h", "WHY=it is mine"], "--for '2h' --why \"$WHY\""),
        (["silence", "END=8d7f"], "--end '8d7f'"),
        (["history"], "'iris-deploy history'"),
        (["backup", "TO=/mnt/b"], 'playbooks/backup.yml -e \'{"backup_to": "/mnt/b"}\''),
        (["backup", "RECIPIENTS=/r"], '-e \'{"backup_recipients": "/r"}\''),
        (["restore", "FROM=x"], "unpack 'x'  ) && "),
        (["restore", "FROM=x", "INVENTORY=new"], "unpack 'x' --inventory 'new' ) &&"),
        (["restore", "FROM=x", "USE=here", "KEY=k"], "unpack 'x' --use 'here' --key 'k')"),
        (["restore", "FROM=x", "HOST=api1"], "\"inventory/$name\" playbooks/restore.yml -e restore_hosts='api1'"),
        (["status"], "-m tools.status --inventory inventory/local"),
        (["status", "JSON=1"], "-m tools.status --inventory inventory/local --json"),
        (["trace", "ID=0123abcd"], "-m tools.trace --inventory inventory/local '0123abcd'"),
        (["logs", "HOST=gate1"], "--hosts gate1 -- sudo journalctl --follow"),
        (["logs"], "tail --follow=name --retry --quiet --lines=20 /var/log/nginx/access.log"),
        (["test-unit", "T=tests/roles/test_pki.py"], "pytest tests/roles/test_pki.py"),
    ],
    ids=lambda value: value if isinstance(value, str) else " ".join(value),
)
def test_what_is_given_reaches_the_command(arguments: list[str], command: str) -> None:
    assert command in recipe(*arguments).rstrip().replace("  ", " ")


def test_the_reason_of_a_hold_reaches_the_host_as_it_was_typed(tmp_path: Path) -> None:
    why = '-- it\'s "the fair"; $(id) {{ 6 * 7 }} `id`'
    program = tmp_path / "iris-deploy"
    program.write_text(f"#!{sys.executable}\nimport json, sys\nprint(json.dumps(sys.argv[1:]))\n")
    program.chmod(0o755)
    here = f"-i localhost, localhost -c local -e ansible_python_interpreter={sys.executable}"
    on_api = f"ON_API=.venv/bin/ansible {here} -m ansible.builtin.command -a"
    # A dollar is make's own in what it is told, as everywhere in it.
    command = ["make", "hold", on_api, f"WHY={why.replace('$', '$$')}"]
    environment = os.environ | {"PATH": f"{tmp_path}:{os.environ['PATH']}", "ANSIBLE_LOAD_CALLBACK_PLUGINS": "0"}
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    who = f"{getpass.getuser()}@{os.uname().nodename}"
    assert json.loads(done.stdout.splitlines()[-1]) == ["hold", "--who", who, "--", why]


def test_a_hold_needs_a_reason() -> None:
    environment = {name: value for name, value in os.environ.items() if name != "WHY"}
    command = ["make", "hold", "ON_API=echo"]
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode != 0
    assert 'make hold WHY="the fair is on"' in done.stderr
    assert done.stdout == ""


@pytest.mark.parametrize(
    "target",
    ["converge", "deploy", "rollback", "history", "hold", "unlock", "verify", "rotate-credentials",
     "retire-credentials", "renew-certificates", "backup", "remove", "logs", "ssh", "status", "trace"],
)  # fmt: skip
def test_another_inventory_is_meant_by_every_target(target: str) -> None:
    """Or what is meant for one site would happen to another."""
    said = recipe(target, "INVENTORY=example")
    assert re.search(r"(-i|--inventory) inventory/example ", said)
    assert "inventory/local" not in said


def test_an_inventory_that_is_not_there_is_named_with_those_that_are() -> None:
    with pytest.raises(subprocess.CalledProcessError) as raised:
        recipe("converge", "INVENTORY=prdo")
    assert "There is no inventory/prdo; there are: " in raised.value.stderr


def test_the_key_of_the_local_machine_is_for_its_owner_alone() -> None:
    assert "mkdir -p -m 0700 inventory/local/secrets/ssh/" in recipe("--always-make", "vm")


@pytest.mark.parametrize(
    ("target", "commands"),
    [
        (
            "lint",
            ["ruff check", "ruff format --check", "typecheck", "lint-imports", "yamllint --strict", "ansible_lint",
             "shellcheck", "tools/reference --check", "sphinx-build"],
        ),
        ("docs", ["--fail-on-warning", "--nitpicky"]),
        ("test-fast", ["ruff check", "pytest"]),
        ("test", ["ruff check", "pytest", "tests/kernels", "tests/localvm", "tests/matrix", "tests/clients",
                  "scenario-name default", "scenario-name debian12", "scenario-name alerts",
                  "scenario-name deployments", "scenario-name cluster"]),
    ],
)  # fmt: skip
def test_a_check_has_all_its_parts(target: str, commands: list[str]) -> None:
    said = recipe(target)
    assert [command for command in commands if command not in said] == []


def test_a_role_is_tested_by_files_that_are_there() -> None:
    named = re.findall(r"^HOST_TESTS_\w+ := (.+)", (ROOT / "Makefile").read_text(), re.MULTILINE)
    files = [word for line in named for word in line.split() if not word.startswith("$")]
    assert len(files) >= 7
    assert [file for file in files if not (ROOT / file).is_file()] == []


def test_a_locale_that_is_not_there_is_no_end_of_ansible() -> None:
    environment = os.environ | {"LC_ALL": "xx_YY.UTF-8"}
    command = ["make", "converge", "INVENTORY=example", "PLAYBOOK=.venv/bin/ansible-playbook --version"]
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "ansible-playbook [core" in done.stdout


@pytest.fixture
def team() -> Iterator[Path]:
    """An inventory whose secrets are in another folder; it is not among the others, which are linted meanwhile."""
    folder = ROOT / "build" / f"test-{os.getpid()}"
    shutil.copytree(ROOT / "inventory" / "example", folder)
    (folder / "group_vars" / "all.yml").write_text('fortress_secrets_dir: "{{ inventory_dir }}/team"\n')
    yield folder
    shutil.rmtree(folder)


def test_settings_are_read_where_the_inventory_has_its_secrets(team: Path) -> None:
    assert f"cat {team}/team/fortress.env" in recipe("env", f"INVENTORY=../build/{team.name}", "--always-make")
    assert "cat inventory/example/secrets/fortress.env" in recipe("env", "INVENTORY=example", "--always-make")


def test_secrets_whose_folder_is_not_known_are_not_looked_for_in_another(team: Path) -> None:
    (team / "group_vars" / "all.yml").write_text('fortress_secrets_dir: "{{ nothing_of_that_name }}"\n')
    command = ["make", "env", f"INVENTORY=../build/{team.name}"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode != 0
    assert "nothing_of_that_name" in done.stderr
    assert f"Where inventory/../build/{team.name} has its secrets can't be found out" in done.stderr
    assert f"{team.name}/secrets/" not in done.stdout + done.stderr


def test_help_shows_commands_as_they_are_typed() -> None:
    shown = subprocess.run(["make", "help"], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    assert 'eval "$(make -s env)"' in shown
    assert "$$" not in shown
