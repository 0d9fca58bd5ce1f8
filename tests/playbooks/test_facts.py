"""A host that can't be asked, or whose clock differs: the run stops before a change, and says what to type."""

from __future__ import annotations

import re
import shutil
import sys
from pathlib import Path

import yaml

from tests import ROOT
from tests.controller import ansible

TIME = r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ"


def host_with_a_clock(folder: Path, ahead: int) -> Path:
    """Make an inventory of a host, this machine, on which Python's clock is so many seconds ahead."""
    inventory = Path(shutil.copytree(ROOT / "inventory" / "example", folder / "prod"))
    (folder / "sitecustomize.py").write_text(f"import time\nright = time.time\ntime.time = lambda: right() + {ahead}\n")
    python = folder / "python"
    python.write_text(f'#!/bin/sh\nPYTHONPATH={folder} exec {sys.executable} "$@"\n')
    python.chmod(0o755)
    hosts = yaml.safe_load((inventory / "hosts.yml").read_text())
    hosts["all"]["hosts"]["iris"] = {
        "ansible_connection": "local",
        "ansible_python_interpreter": str(python),
        "ansible_become": False,
        "fortress_address": "192.0.2.10",
    }
    (inventory / "hosts.yml").write_text(yaml.safe_dump(hosts))
    return inventory


def test_clocks_that_differ_stop_the_run_with_both_times(tmp_path: Path) -> None:
    inventory = host_with_a_clock(tmp_path, -420)
    done = ansible("ansible-playbook", "-i", str(inventory), "playbooks/preflight-gateway.yml", "--tags", "facts")
    said = " ".join(done.stdout.split())
    found = re.search(rf"On iris it is ({TIME}), on this machine ({TIME});", said)
    assert done.returncode != 0
    assert found, said
    assert found[1] < found[2]
    assert "sudo timedatectl set-ntp true" in said
    assert not (inventory / "secrets").exists()


def test_a_host_without_python_stops_the_run_with_what_to_type(tmp_path: Path) -> None:
    inventory = host_with_a_clock(tmp_path, 0)
    (tmp_path / "python").unlink()
    done = ansible("ansible-playbook", "-i", str(inventory), "playbooks/preflight-gateway.yml", "--tags", "facts")
    said = " ".join(done.stdout.split())
    assert done.returncode != 0
    assert f"iris can't be asked: The module interpreter '{tmp_path / 'python'}' was not found." in said
    assert "Type on that host: sudo apt-get install python3" in said
    assert not (inventory / "secrets").exists()


def test_a_login_whose_sudo_asks_for_a_password_stops_the_run_with_what_to_type(tmp_path: Path) -> None:
    """By a sudo that asks as the real one does."""
    inventory = host_with_a_clock(tmp_path, 0)
    sudo = tmp_path / "sudo"
    sudo.write_text('#!/bin/sh\necho "sudo: a password is required" >&2\nexit 1\n')
    sudo.chmod(0o755)
    hosts = yaml.safe_load((inventory / "hosts.yml").read_text())
    hosts["all"]["hosts"]["iris"] |= {"ansible_become": True, "ansible_become_exe": str(sudo)}
    # Nobody asks to become who they are.
    hosts["all"]["hosts"]["iris"]["ansible_become_user"] = "daemon"
    (inventory / "hosts.yml").write_text(yaml.safe_dump(hosts))
    done = ansible("ansible-playbook", "-i", str(inventory), "playbooks/preflight-gateway.yml", "--tags", "facts")
    said = " ".join(done.stdout.split())
    assert done.returncode != 0
    assert "sudo: a password is required. Type the same with ANSIBLE_BECOME_ASK_PASS=1 before it" in said
