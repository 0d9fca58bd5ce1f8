"""`make ssh` and `make logs` reach the hosts of the inventory that was named, as Ansible reaches them."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml
from ansible.parsing.vault import VaultLib, VaultSecret

from tests import ROOT
from tests.controller import ansible
from tools import notify, observing, remote, silence, top
from tools.status import __main__ as status


@pytest.fixture
def inventory(tmp_path: Path) -> Path:
    hosts = {
        "behind": {
            "ansible_host": "192.0.2.7",
            "ansible_port": 2222,
            "ansible_user": "debian",
            "ansible_ssh_private_key_file": "{{ inventory_dir }}/a key",
            "ansible_ssh_common_args": "-o ProxyJump=bastion -o UserKnownHostsFile={{ inventory_dir }}/known",
        },
        "alias": {},
        "here": {"ansible_connection": "local"},
        "too": {"ansible_connection": "local"},
    }
    groups = {
        "api": {"hosts": dict.fromkeys(["here", "too"])},
        "gateway": {"hosts": dict.fromkeys(["behind", "alias"])},
        "monitoring": {"hosts": {"here": None}},
    }
    file = tmp_path / "hosts.yml"
    file.write_text(yaml.safe_dump({"all": {"hosts": hosts, "children": groups}}))
    return file


def run(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
    return ansible("tools.remote", *map(str, arguments))


def test_port_key_user_and_jump_host_are_those_of_the_inventory(inventory: Path) -> None:
    reach = remote.Hosts(str(inventory)).reach()
    folder = inventory.parent
    jump = ["-o", "ProxyJump=bastion", "-o", f"UserKnownHostsFile={folder}/known"]
    expected = ["ssh", "-p", "2222", "-i", f"{folder}/a key", *jump, "-l", "debian", "192.0.2.7"]
    assert remote.ssh("behind", reach["behind"]) == expected
    assert remote.ssh("alias", reach["alias"]) == ["ssh", "alias"]


def test_each_line_of_several_hosts_says_whose_it_is(inventory: Path) -> None:
    done = run("-i", inventory, "--hosts", "api", "--", "echo one; echo two")
    assert done.returncode == 0, done.stderr
    assert sorted(done.stdout.splitlines()) == ["here  one", "here  two", "too   one", "too   two"]


def test_a_single_host_says_it_as_it_is_and_its_exit_code_is_passed_on(inventory: Path) -> None:
    done = run("-i", inventory, "--hosts", "here", "--", "echo one; exit 7")
    assert (done.stdout, done.returncode) == ("one\n", 7)


def test_a_shell_needs_one_host_and_says_which_there_are(inventory: Path) -> None:
    done = run("-i", inventory, "--hosts", "api")
    assert done.returncode == 1
    assert "HOST= one of here, too" in done.stderr


def test_a_host_that_is_not_there_is_named_with_those_that_are(inventory: Path) -> None:
    done = run("-i", inventory, "--hosts", "nobody", "--", "true")
    assert done.returncode == 1
    assert "has no host nobody: it has alias, behind, here, too" in done.stderr


def test_ssh_itself_finds_the_known_hosts_of_a_checkout_whose_path_has_a_space(tmp_path: Path) -> None:
    folder = tmp_path / "a checkout"
    shutil.copytree(ROOT / "inventory" / "local", folder / "local", ignore=shutil.ignore_patterns("secrets"))
    [(name, reach)] = remote.Hosts(str(folder / "local")).reach().items()
    program, *arguments = remote.ssh(name, reach)
    done = subprocess.run([program, "-G", *arguments], capture_output=True, text=True, check=True)
    assert f"userknownhostsfile {folder}/local/secrets/ssh/known_hosts" in done.stdout
    assert "hostname 172.30.0.10" in done.stdout


def test_a_variable_is_what_the_inventory_sets_with_its_templates_filled_in(inventory: Path) -> None:
    (inventory.parent / "group_vars").mkdir()
    (inventory.parent / "group_vars" / "all.yml").write_text('fortress_secrets_dir: "{{ inventory_dir }}/../team"\n')
    done = run("-i", inventory, "--variable", "fortress_secrets_dir")
    assert done.stdout == f"{inventory.parent}/../team\n"
    assert run("-i", inventory, "--variable", "fortress_domain").stdout == "iris.fortress.test\n", "the default"


def test_a_variable_is_asked_of_the_host_that_is_concerned(inventory: Path) -> None:
    (inventory.parent / "group_vars").mkdir()
    (inventory.parent / "group_vars" / "api.yml").write_text("fortress_prometheus_port: 19090\n")
    hosts = remote.Hosts(str(inventory))
    assert [hosts.variable("fortress_prometheus_port", name) for name in ("alias", "here", "api")] == [
        "9090", "19090", "19090"
    ]  # fmt: skip


@pytest.fixture
def vault(inventory: Path) -> Path:
    """The file of the password of an inventory, whose variables Ansible Vault has encrypted."""
    password = inventory.parent / "password"
    password.write_text("correct horse\n")
    file = inventory.parent / "group_vars" / "all.yml"
    file.parent.mkdir()
    encrypt = VaultLib([("default", VaultSecret(b"correct horse"))]).encrypt
    file.write_bytes(encrypt(b"fortress_domain: vault.example.com"))
    return password


def tool(name: str, inventory: Path, *arguments: str, password: Path | None = None) -> subprocess.CompletedProcess[str]:
    """Run a tool in a process of its own: Ansible reads the environment, and sets a vault up, once in each."""
    environment = {each: value for each, value in os.environ.items() if not each.startswith("ANSIBLE_VAULT")}
    if password:
        environment["ANSIBLE_VAULT_PASSWORD_FILE"] = str(password)
    command = [sys.executable, "-m", f"tools.{name}", "-i", str(inventory), *arguments]
    return subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)


def test_what_ansible_vault_has_encrypted_is_read_with_the_password_that_ansible_has(
    inventory: Path, vault: Path
) -> None:
    done = tool("remote", inventory, "--variable", "fortress_domain", password=vault)
    assert (done.stdout, done.returncode) == ("vault.example.com\n", 0), done.stderr


def test_without_the_password_a_line_says_what_to_set(inventory: Path, vault: Path) -> None:
    done = tool("remote", inventory, "--variable", "fortress_domain")
    [line] = done.stderr.splitlines()
    assert line.startswith(f"{inventory} can't be read: ")
    assert line.endswith("Set ANSIBLE_VAULT_PASSWORD_FILE to the file of its password.")
    assert (done.stdout, done.returncode) == ("", 1)


@pytest.mark.parametrize("main", [silence.main, notify.main, top.main, observing.main])
def test_every_tool_ends_so(inventory: Path, vault: Path, main: Callable[[list[str]], int]) -> None:
    with pytest.raises(SystemExit, match=r"can't be read: .* Set ANSIBLE_VAULT_PASSWORD_FILE"):
        main(["-i", str(inventory)])


def test_how_a_site_is_whose_inventory_cannot_be_read_is_not_known(
    inventory: Path, vault: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert status.main(["-i", str(inventory)]) == 3
    assert "Set ANSIBLE_VAULT_PASSWORD_FILE" in capsys.readouterr().err


def test_a_template_or_a_file_that_is_broken_is_one_line_too(inventory: Path) -> None:
    (inventory.parent / "group_vars").mkdir()
    (inventory.parent / "group_vars" / "all.yml").write_text('fortress_domain: "{{ nothing_of_that_name }}"\n')
    done = run("-i", inventory, "--variable", "fortress_domain")
    assert done.returncode == 1
    [line] = done.stderr.splitlines()
    assert "can't be read" in line and "nothing_of_that_name" in line and "VAULT" not in line
    inventory.write_text("all: [\n")
    done = run("-i", inventory, "--variable", "fortress_domain")
    assert done.returncode == 1
    assert done.stderr.splitlines()[-1].startswith(f"{inventory} can't be read: ") and "Traceback" not in done.stderr
