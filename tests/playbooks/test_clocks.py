"""A control node and a host whose clocks differ: the run stops before a certificate is issued."""

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
