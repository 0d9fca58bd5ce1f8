"""What a rollback says of a host on which nothing can be rolled back."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
import yaml

from tests.controller import ansible


@pytest.mark.skipif(Path("/usr/local/sbin/iris-deploy").exists(), reason="this machine is a host of a site")
def test_a_host_that_was_never_provisioned_is_named_with_what_to_type(tmp_path: Path) -> None:
    here = {"ansible_connection": "local", "ansible_python_interpreter": sys.executable, "ansible_become": False}
    (tmp_path / "hosts.yml").write_text(yaml.safe_dump({"api": {"hosts": {"api1": here}}}))
    done = ansible("ansible-playbook", "-i", str(tmp_path / "hosts.yml"), "playbooks/rollback.yml")
    assert done.returncode != 0
    said = " ".join((done.stdout + done.stderr).split())
    assert "iris-deploy could not be run" in said, said
    assert "If api1 was never provisioned: run `make converge`" in said, said
