"""The playbooks over several hosts, with roles that only report: which host's turn it is, and what a lost one holds up.

The plays and the settings are the project's own; the hosts are this machine under several names.
"""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests import ROOT
from tests.controller import ansible

GROUPS = {"gateway": ["g1", "g2"], "api": ["a1", "a2"], "monitoring": ["m1"]}
HOSTS = [host for members in GROUPS.values() for host in members]
LOST = {"ansible_connection": "ssh", "ansible_host": "127.0.0.1", "ansible_port": 1}
"""Nobody listens there: Ansible reports such a host as unreachable at once."""


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """The playbooks beside roles that report, and an inventory of five hosts."""
    playbooks = Path(shutil.copytree(ROOT / "playbooks", tmp_path / "playbooks", ignore=lambda *_: ["group_vars"]))
    (playbooks / "group_vars").symlink_to(ROOT / "group_vars")
    for tasks in (ROOT / "roles").glob("*/tasks/*.yml"):
        told = f"<{tasks.parents[1].name} {tasks.stem} {{{{ inventory_hostname }}}}>"
        stub = playbooks / tasks.relative_to(ROOT)
        stub.parent.mkdir(parents=True, exist_ok=True)
        stub.write_text(yaml.safe_dump([{"ansible.builtin.debug": {"msg": told}}]))
    # What writes on a host, which is this machine, and what asks services that nobody has installed.
    for beside in ("tasks/identity.yml", "tasks/record.yml", "tasks/verify-targets.yml"):
        (playbooks / beside).write_text(yaml.safe_dump([{"ansible.builtin.debug": {"msg": beside}}]))
    (playbooks / "check.yml").write_text(yaml.safe_dump([{"hosts": "all", "gather_facts": False}]))
    (tmp_path / "inventory").mkdir()
    inventory(tmp_path)
    return tmp_path


def inventory(project: Path, **own: dict[str, Any]) -> None:
    """Write the list of hosts; `own` are settings of one of them."""
    here = {"ansible_connection": "local", "ansible_python_interpreter": sys.executable, "ansible_become": False}
    hosts = {
        host: here | {"fortress_address": f"192.0.2.{number}"} | own.get(host, {})
        for number, host in enumerate(HOSTS, 1)
    }
    children = {group: {"hosts": dict.fromkeys(members)} for group, members in GROUPS.items()}
    content = {"all": {"hosts": hosts, "children": children}}
    (project / "inventory" / "hosts.yml").write_text(yaml.safe_dump(content, sort_keys=False))


def run(project: Path, playbook: str, *options: str) -> tuple[subprocess.CompletedProcess[str], list[str]]:
    """Run a playbook; return how it ended, and "role phase host" of what was reached, in order."""
    done = ansible(
        "ansible-playbook", "-i", str(project / "inventory"), str(project / "playbooks" / playbook), *options
    )
    return done, re.findall(r"<(\w+ \w+ \w+)>", done.stdout)


def test_a_lost_host_holds_up_no_other(project: Path) -> None:
    """Nor do two, the first of their groups. The others are converged, and the run is red for those."""
    inventory(project, a1=LOST, g1=LOST)
    done, reached = run(project, "site.yml")
    assert done.returncode != 0
    for host in ("a1", "g1"):
        assert re.search(rf"^{host} .*unreachable=1 +failed=0", done.stdout, re.MULTILINE), done.stdout
    assert not re.search(r"failed=[1-9]", done.stdout), done.stdout
    changed = [each.replace(" main", "") for each in reached if " main " in each]
    everybody = sorted(f"{role} {host}" for role in ("base", "node_exporter") for host in ("a2", "g2", "m1"))
    assert sorted(changed[: len(everybody)]) == everybody
    assert changed[len(everybody) :] == [
        "iris_api a2", "pki g2", "nginx g2", "nginx_exporter g2", "mtail g2",
        "blackbox_exporter m1", "alertmanager m1", "prometheus m1", "grafana m1",
    ]  # fmt: skip
    settings = (project / "inventory" / "secrets" / "fortress.env").read_text()
    assert "FORTRESS_HOST=192.0.2.2\n" in settings, "the gateway that is there"


def test_a_lost_host_keeps_no_other_from_a_deployment(project: Path) -> None:
    """It ends where the real program is asked what runs, which is not here."""
    inventory(project, a1=LOST)
    done, reached = run(project, "deploy.yml", "--skip-tags", "preflight")
    assert done.returncode != 0
    phases = {"configure", "build", "upload", "prepare", "rollout", "finish"}
    assert {each for each in reached if each.startswith("iris_api ")} == {f"iris_api {phase} a2" for phase in phases}


def test_a_lost_host_keeps_no_other_from_a_rollback(project: Path) -> None:
    """In check mode, and there is nothing to roll back here: that it was asked is what counts."""
    inventory(project, a1=LOST)
    done, _ = run(project, "rollback.yml", "--check")
    assert done.returncode != 0
    assert re.search(r"^a1 .*unreachable=1 +failed=0", done.stdout, re.MULTILINE), done.stdout
    assert re.search(r"^a2 .*unreachable=0 +failed=1", done.stdout, re.MULTILINE), done.stdout


def test_an_old_password_has_no_end_before_every_gateway_has_the_new_one(project: Path) -> None:
    secrets = project / "inventory" / "secrets"
    (secrets / "users").mkdir(parents=True)
    (secrets / "users" / "iris").write_text("anOldPasswordOf32CharactersOrSo1\n")
    kept = secrets / "previous_passwords" / "iris"
    inventory(project, g1=LOST)
    done, reached = run(project, "rotate-credentials.yml", "--skip-tags", "handover")
    assert done.returncode != 0
    assert "nginx main g2" in reached
    assert "The new passwords are not on g1 yet" in " ".join(done.stdout.split()), done.stdout
    assert json.loads(kept.read_text()) == {"password": "anOldPasswordOf32CharactersOrSo1"}

    inventory(project)
    done, reached = run(project, "rotate-credentials.yml", "--skip-tags", "handover")
    assert done.returncode == 0, done.stdout
    assert [each for each in reached if each.startswith("nginx main")] == ["nginx main g1", "nginx main g2"]
    assert json.loads(kept.read_text()).keys() == {"password", "until"}
