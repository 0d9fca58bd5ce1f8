"""A user's inventory: its settings win, its secrets are no hosts, its mistakes are named."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest
import yaml

from tests import ROOT
from tests.controller import ansible, check_inventory, variable, variables


@pytest.fixture
def inventory(tmp_path: Path) -> Path:
    return Path(shutil.copytree(ROOT / "inventory" / "example", tmp_path / "prod"))


def test_the_example_passes_the_checks_as_it_is(inventory: Path) -> None:
    done = check_inventory(inventory)
    assert done.returncode == 0, done.stdout + done.stderr


def test_a_setting_in_the_inventory_wins_over_the_projects(inventory: Path) -> None:
    found = variables(inventory, "fortress_domain", "fortress_api_instances")
    assert found == {"fortress_domain": "iris.example.com", "fortress_api_instances": "3"}
    (inventory / "group_vars" / "all.yml").write_text("fortress_api_instances: 5\n")
    found = variables(inventory, "fortress_api_instances", "iris_api_instances")
    assert found == {"fortress_api_instances": "5", "iris_api_instances": "5"}


def test_the_gateway_and_the_instances_have_the_same_limits(inventory: Path) -> None:
    """And the gateway waits longer than an instance's own deadline: whoever is silent for so long stands still."""
    (inventory / "group_vars" / "all.yml").write_text(
        "fortress_request_deadline: 9\nfortress_max_body_bytes: 5000\nfortress_max_rows: 70\nfortress_max_values: 800\n"
        "fortress_max_bytes_in_flight: 70000\n"
    )
    wired = {
        "iris_api_request_deadline": 9,
        "nginx_upstream_timeout": "10s",
        "iris_api_max_body_bytes": 5000,
        "nginx_client_max_body_size": 5000,
        "iris_api_max_rows": 70,
        "iris_api_max_values": 800,
        "iris_api_max_bytes_in_flight": 70000,
        "nginx_client_max_bytes_in_flight": 70000,
    }
    assert variables(inventory, *wired) == {name: str(value) for name, value in wired.items()}


@pytest.mark.parametrize(
    ("values", "body", "rows"), [(100_000, 4_004_096, 100_000), (500, 24_096, 500), (10_000_000, 16_777_216, 100_000)]
)
def test_one_limit_on_values_makes_those_on_bytes_and_rows(inventory: Path, values: int, body: int, rows: int) -> None:
    (inventory / "group_vars" / "all.yml").write_text(
        f"fortress_max_values: {values}\nfortress_max_body_bytes: 0\nfortress_max_rows: 0\n"
    )
    made = {"iris_api_max_body_bytes": body, "nginx_client_max_body_size": body, "iris_api_max_rows": rows}
    assert variables(inventory, *made) == {name: str(value) for name, value in made.items()}
    assert check_inventory(inventory).returncode == 0


@pytest.mark.parametrize("folder", ["secrets", "secrets.old", "old-secrets"])
def test_secrets_are_no_hosts(inventory: Path, folder: str) -> None:
    (inventory / folder / "users").mkdir(parents=True)
    (inventory / folder / "users" / "iris").write_text("swordfish\n")
    done = ansible("ansible-inventory", "-i", str(inventory), "--list")
    assert done.returncode == 0
    assert "iris" in done.stdout
    assert "swordfish" not in done.stdout + done.stderr


def test_what_else_is_read_as_hosts_is_noticed_and_not_printed(inventory: Path) -> None:
    (inventory / "backup" / "users").mkdir(parents=True)
    (inventory / "backup" / "users" / "iris").write_text("swordfish\n")
    done = check_inventory(inventory)
    assert done.returncode != 0
    assert "has hosts in no group (1)" in " ".join(done.stdout.split())
    assert "swordfish" not in done.stdout + done.stderr


def test_a_mistake_in_the_file_of_hosts_stops_the_run(inventory: Path) -> None:
    hosts = inventory / "hosts.yml"
    hosts.write_text(hosts.read_text().replace("      ansible_user", "     ansible_user"))
    for program, *arguments in (
        ("ansible-playbook", "playbooks/preflight-inventory.yml"),
        ("ansible", "all", "-m", "ping"),
    ):
        done = ansible(program, "-i", str(inventory), *arguments)
        assert done.returncode != 0
        assert "hosts.yml" in done.stdout + done.stderr


def test_an_inventory_that_is_not_there_stops_the_run(tmp_path: Path) -> None:
    done = check_inventory(tmp_path / "nonesuch")
    assert done.returncode != 0
    assert "nonesuch" in done.stdout + done.stderr


@pytest.mark.parametrize("target", ["converge", "deploy", "verify", "links", "logs", "ssh"])
def test_make_names_the_inventories_that_there_are(target: str) -> None:
    done = subprocess.run(["make", target, "INVENTORY=nonesuch"], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode != 0
    assert "There is no inventory/nonesuch" in done.stderr
    assert "example" in done.stderr and "cp -r inventory/example inventory/nonesuch" in done.stderr


def test_an_unknown_setting_is_told_the_nearest_name(inventory: Path) -> None:
    done = check_inventory(inventory, "-e", "fortress_domian=x")
    assert done.returncode != 0
    assert "Did you mean fortress_domain?" in done.stdout + done.stderr


@pytest.mark.parametrize(
    "settings",
    [
        {
            "fortress_request_deadline: 4s": "a whole number of seconds from 1 to 60",
            "fortress_max_body_bytes: 60k": "a whole number of bytes from 1024 to 16777216",
            "fortress_users: alice": "is 'alice', and must be a list",
            "fortress_prometheus_port: '9090'": "is '9090', and must be a whole number, written without",
            "fortress_model_version: 1.10": "is 1.1, and must be a text, written in quotes",
        },
        {"fortress_users: [alice, 7]": "has 7, and each must be a text"},
        {
            "fortress_grafana_when_unreachable: wait": "must be one of: fail, skip, got: wait",
            "fortress_no_log: perhaps": "is of type",
        },
        {
            "fortress_api_instances: 0": "a whole number from 1 to 64",
            "fortress_request_deadline: 0": "a whole number of seconds from 1 to 60",
            "fortress_max_body_bytes: 100": "a whole number of bytes from 1024 to 16777216",
            "fortress_max_rows: -1": "a whole number from 0 to 100000",
            "fortress_max_bytes_in_flight: 0": "a whole number of bytes from 65536 to 1073741824",
            "fortress_max_values: 0": "a whole number from 1 to 10000000",
            "fortress_grafana_port: 70000": "a whole number from 1 to 65535",
        },
        {
            "fortress_domain: Iris": "is no DNS name",
            "fortress_users: []": "Name at least one user",
            "fortress_api_base_port: 65534": "would listen on port 65536; give at most 65533",
            "fortress_trusted_networks: [office.example.com]": "has office.example.com; give",
        },
    ],
    ids=["types", "elements", "choices", "ranges", "sense"],
)
def test_settings_that_can_not_work_are_refused_by_name(inventory: Path, settings: dict[str, str]) -> None:
    """All those of a kind in one run."""
    (inventory / "group_vars" / "all.yml").write_text("\n".join(settings) + "\n")
    done = check_inventory(inventory)
    assert done.returncode != 0
    said = " ".join((done.stdout + done.stderr).split())
    for setting, complaint in settings.items():
        name, _, _ = setting.partition(":")
        assert re.search(rf"\b{name}\b((?!\bfortress_).)*{re.escape(complaint)}", said), setting


def test_settings_that_can_not_work_are_all_named_in_one_run(inventory: Path) -> None:
    (inventory / "group_vars" / "all.yml").write_text(
        """
fortress_users: [iris, "a b", iris, .rosa]
fortress_passwords: {iris: 123456789012, rosa: Plenty-of-9-Zebras}
fortress_trusted_networks: [172.16.0.0/12, office.example.com]
fortress_address: https://192.0.2.10
fortress_secrets_dir: secrets
fortress_api_base_port: 9098
fortress_grafana_port: 443
"""
    )
    done = check_inventory(inventory)
    assert done.returncode != 0
    said = " ".join((done.stdout + done.stderr).split())
    for complaint in (
        "fortress_users has 'a b', iris, .rosa; each name may stand there once",
        "fortress_passwords has rosa, who is not in fortress_users",
        "gives iris something else than a text",
        "fortress_trusted_networks has office.example.com; give addresses or networks in numbers",
        "fortress_address of iris is https://192.0.2.10; give an address or a name alone",
        "fortress_secrets_dir is secrets; give the whole path",
        "collide: 443 by HTTPS and fortress_grafana_port, 9100 by fortress_node_exporter_port and an instance (",
    ):
        assert complaint in said, complaint
    assert "Zebras" not in said
    assert "123456789012" not in said


def test_a_password_of_ones_own_may_be_encrypted_by_ansible_vault(inventory: Path, tmp_path: Path) -> None:
    (tmp_path / "vault").write_text("a password of Vault")
    options = ("--vault-password-file", str(tmp_path / "vault"))
    program = Path(sys.executable).parent / "ansible-vault"
    command = [str(program), "encrypt_string", *options, "--name", "iris", "Plenty-of-9-Zebras"]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    (inventory / "group_vars" / "all.yml").write_text("fortress_passwords:\n" + textwrap.indent(done.stdout, "  "))
    assert check_inventory(inventory, *options).returncode == 0
    assert check_inventory(inventory).returncode != 0


def test_a_number_on_the_command_line_is_a_text_and_is_told_how_it_is_written(inventory: Path) -> None:
    done = check_inventory(inventory, "-e", "fortress_api_instances=5")
    assert done.returncode != 0
    said = " ".join((done.stdout + done.stderr).split())
    assert """on the command line as JSON: -e '{"fortress_api_instances": ...}'""" in said
    assert check_inventory(inventory, "-e", '{"fortress_api_instances": 5}').returncode == 0


def test_a_mistyped_setting_with_a_secret_in_it_is_not_printed(inventory: Path) -> None:
    (inventory / "group_vars" / "all.yml").write_text("fortress_passwords: swordfish\n")
    done = check_inventory(inventory)
    assert done.returncode != 0
    assert "fortress_passwords is not shown" in " ".join((done.stdout + done.stderr).split())
    assert "swordfish" not in done.stdout + done.stderr


def test_a_group_without_a_host_is_named(inventory: Path) -> None:
    hosts = yaml.safe_load((inventory / "hosts.yml").read_text())
    del hosts["all"]["children"]["monitoring"]
    (inventory / "hosts.yml").write_text(yaml.safe_dump(hosts))
    done = check_inventory(inventory)
    assert done.returncode != 0
    assert 'no host in the group "monitoring"' in " ".join((done.stdout + done.stderr).split())


def of_two_hosts(inventory: Path, **settings: str) -> Path:
    """Add another host that serves the model; return the inventory."""
    hosts = yaml.safe_load((inventory / "hosts.yml").read_text())
    hosts["all"]["hosts"]["second"] = {"ansible_host": "192.0.2.11"} | settings
    hosts["all"]["children"]["api"]["hosts"]["second"] = None
    (inventory / "hosts.yml").write_text(yaml.safe_dump(hosts))
    return inventory


def test_another_host_listens_and_is_trusted_where_there_are_two(inventory: Path) -> None:
    of_two_hosts(inventory)
    found = variables(inventory, "iris_api_bind_address", "base_port_clients")
    assert "192.0.2.11" in found["iris_api_bind_address"]
    assert "192.0.2.10" in found["base_port_clients"]


@pytest.mark.parametrize(
    "settings",
    [{"ansible_host": "an-alias-of-ssh"}, {"ansible_host": "127.0.0.1"}, {"fortress_address": "nonesuch.invalid"}],
)
def test_a_host_that_the_others_would_not_find_is_named(inventory: Path, settings: dict[str, str]) -> None:
    done = check_inventory(of_two_hosts(inventory, **settings))
    said = " ".join(done.stdout.split())
    assert done.returncode != 0
    assert f"fortress_address of second is {next(iter(settings.values()))}" in said
    assert "Set fortress_address to its IP address" in said
    assert "fortress_address of iris" not in said


def test_a_host_that_is_alone_may_be_known_by_an_alias(inventory: Path) -> None:
    hosts = inventory / "hosts.yml"
    hosts.write_text(hosts.read_text().replace("192.0.2.10", "an-alias-of-ssh"))
    done = check_inventory(inventory)
    assert done.returncode == 0, done.stdout
    assert "https://iris.example.com" in variable(inventory, "_fortress_url")


def test_a_host_is_behind_a_bastion_where_ssh_says_so(inventory: Path, tmp_path: Path) -> None:
    """Then this machine reaches it by SSH alone. An alias may say it in the configuration of SSH."""
    config = tmp_path / "config of ssh"
    config.write_text("Host prod-*\n  ProxyJump bastion.example.com\n")
    hosts: dict[str, dict[str, str]] = {
        "direct": {"ansible_host": "192.0.2.10"},
        "jumps": {"ansible_host": "192.0.2.10", "ansible_ssh_common_args": "-o ProxyJump=bastion.example.com"},
        "command": {"ansible_host": "192.0.2.10", "ansible_ssh_extra_args": "-o 'ProxyCommand=ssh -W %h:%p bastion'"},
        "alias": {"ansible_host": "prod-1", "ansible_ssh_common_args": f"-F '{config}'"},
        "other": {"ansible_host": "iris-1", "ansible_ssh_common_args": f"-F '{config}'"},
    }
    (inventory / "hosts.yml").write_text(yaml.safe_dump({"all": {"hosts": hosts}}))
    show = ["-m", "ansible.builtin.debug", "-a", "var=_fortress_behind_bastion"]
    done = ansible("ansible", "-i", str(inventory), "all", "--playbook-dir", str(ROOT), *show)
    found = re.findall(r"(\w+) \| SUCCESS => *\n? +_fortress_behind_bastion: (\w+)", done.stdout)
    assert dict(found) == {"direct": "false", "jumps": "true", "command": "true", "alias": "true", "other": "false"}


def test_all_hosts_may_have_a_key_beside_the_inventory(inventory: Path) -> None:
    """The first check runs on the control node, which is in no inventory, and yet has the variables of all hosts."""
    settings = inventory / "group_vars" / "all.yml"
    settings.write_text('ansible_ssh_private_key_file: "{{ inventory_dir }}/secrets/ssh/id_ed25519"\n')
    done = check_inventory(inventory)
    assert done.returncode == 0, done.stdout


def test_two_hosts_at_one_address_are_named(inventory: Path) -> None:
    done = check_inventory(of_two_hosts(inventory, ansible_host="192.0.2.10"))
    assert done.returncode != 0
    assert "fortress_address is 192.0.2.10 for more than one host" in " ".join(done.stdout.split())
