"""The playbooks as a table of contents: a tag for each role, every check before the first change, standard words."""

from __future__ import annotations

import json
import re
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml
from ansible.parsing.dataloader import DataLoader
from ansible.template import Templar, trust_as_template

from tests import ROOT
from tests.controller import ansible

ROLES = {path.parent.parent.name for path in (ROOT / "roles").glob("*/tasks/main.yml")} - {"fortress"}


@pytest.fixture(scope="module")
def listed() -> list[tuple[str, str, set[str]]]:
    """Every task of site.yml in its order: play, name and tags."""
    done = ansible("ansible-playbook", "-i", "inventory/example", "site.yml", "--list-tasks")
    assert done.returncode == 0, done.stderr
    found, play = [], ""
    for line in done.stdout.splitlines():
        if match := re.match(r"  play #\d+ \(.*?\): (.*?)\tTAGS: \[.*\]$", line):
            play = match[1]
        elif match := re.match(r"      (.*?)\tTAGS: \[(.*)\]$", line):
            found.append((play, match[1], {tag.strip() for tag in match[2].split(",")} - {""}))
    assert len(found) > 60, done.stdout
    return found


def made_of(plays: list[dict[str, Any]]) -> list[str]:
    """Return the roles that plays run from their beginning, in their order."""
    imports = [task.get("ansible.builtin.import_role", {}) for play in plays for task in play.get("tasks", [])]
    return [role["name"] for role in imports if role and "tasks_from" not in role]


def test_each_role_can_be_converged_alone(listed: list[tuple[str, str, set[str]]]) -> None:
    """Its tasks, its preflight's included, carry its name as a tag, and nobody else's; what all need is always run."""
    seen = set()
    for _, task, tags in listed:
        role = task.split(" : ")[0] if " : " in task else ""
        if role in ROLES:
            assert tags & ROLES == {role}, task
            seen.add(role)
        elif role == "fortress" or "facts" in tags:
            assert "always" in tags, task
        elif "gateway knows" in task:
            assert tags == {"nginx"}, task
        else:
            assert tags in ({"always", "fortress"}, {"always", "credentials"}, {"handover"}, {"check"}), task
    assert seen == ROLES


def test_every_preflight_comes_before_the_first_change(listed: list[tuple[str, str, set[str]]]) -> None:
    changing = [index for index, (play, _, _) in enumerate(listed) if not play.startswith("Check")]
    checking = [index for index, (play, _, tags) in enumerate(listed) if play.startswith("Check") and tags != {"check"}]
    assert max(checking) < min(changing)
    checked = {task.split(" : ")[0] for _, task, tags in listed if "preflight" in tags and " : " in task}
    assert checked == ROLES


def test_the_run_ends_with_the_question_whether_every_service_answers(listed: list[tuple[str, str, set[str]]]) -> None:
    plays = list(dict.fromkeys(play for play, _, _ in listed))
    assert plays[-2:] == ["Check that the gateways answer this machine", "Check that everything is scraped"]


def test_a_host_whose_packages_somebody_else_installs_is_waited_for() -> None:
    plays = yaml.safe_load((ROOT / "playbooks" / "site.yml").read_text())
    installing = [play for play in plays if made_of([play])]
    assert len(installing) == 4
    assert all(play["module_defaults"]["ansible.builtin.apt"]["lock_timeout"] >= 600 for play in installing)


def test_a_role_that_is_in_the_site_has_its_preflight_there() -> None:
    plays = yaml.safe_load((ROOT / "playbooks" / "site.yml").read_text())
    assert set(made_of(plays)) == ROLES


@pytest.mark.parametrize("playbook", ["site", "gateway"])
def test_what_a_preflight_has_validated_is_not_validated_again(playbook: str) -> None:
    """Ansible would, in a task before each role's first, and for every role of a run that is for one of them."""
    plays = yaml.safe_load((ROOT / "playbooks" / f"{playbook}.yml").read_text())
    assert not [play for play in plays if "roles" in play]
    imports = [task.get("ansible.builtin.import_role", {}) for play in plays for task in play.get("tasks", [])]
    assert {role["rolespec_validate"] for role in imports if "tasks_from" not in role and role} == {False}


def test_what_a_site_is_made_of_is_removed_from_its_end() -> None:
    site, removal = (yaml.safe_load((ROOT / "playbooks" / f"{name}.yml").read_text()) for name in ("site", "remove"))
    made = made_of(site)
    [tasks] = [task["block"] for play in removal for task in play["tasks"] if "block" in task]
    removed = [task["ansible.builtin.import_role"] for task in tasks if "ansible.builtin.import_role" in task]
    assert [role["name"] for role in removed] == made[::-1]
    assert {role["tasks_from"] for role in removed} == {"remove"}


@pytest.mark.parametrize("playbook", ["site", "deploy", "rollback"])
def test_one_host_after_the_other_changes_what_it_serves(playbook: str) -> None:
    """And where one fails, the next is left as it is."""
    plays = yaml.safe_load((ROOT / "playbooks" / f"{playbook}.yml").read_text())
    changing = [play for play in plays if play.get("hosts") == "api" and not play["name"].startswith("Check")]
    assert {play.get("serial") for play in changing} == {1}


def test_what_a_gateway_may_still_ask_is_removed_after_all_of_them_were_configured() -> None:
    """Expand, switch, contract; a gateway that failed, or was left out by --limit, keeps the old ones alive."""
    plays = yaml.safe_load((ROOT / "playbooks" / "site.yml").read_text())
    names = [play["name"] for play in plays]
    serve, gateways, remove = (
        next(index for index, name in enumerate(names) if name.startswith(start))
        for start in ("Serve the model", "Configure one gateway", "Remove what the gateways")
    )
    assert serve < gateways < remove
    # After the handlers, which reload nginx.
    [known] = plays[gateways]["post_tasks"]
    [task] = plays[remove]["tasks"]
    assert list(known["ansible.builtin.set_fact"]) == ["_fortress_knows_instances"]
    assert any("groups['gateway']" in each and "_fortress_knows_instances" in each for each in task["when"])


@pytest.mark.parametrize("playbook", ["site", "gateway"])
def test_one_gateway_after_the_other_is_reloaded_or_restarted(playbook: str) -> None:
    plays = yaml.safe_load((ROOT / "playbooks" / f"{playbook}.yml").read_text())
    assert [play.get("serial") for play in plays if play.get("hosts") == "gateway"] == [1]


def test_each_phase_of_the_role_is_one_of_a_deployment_in_its_order() -> None:
    """What `make deploy` does is what site.yml does, without the installation, and also with what was left before."""
    plays = yaml.safe_load((ROOT / "playbooks" / "deploy.yml").read_text())
    role = yaml.safe_load((ROOT / "roles" / "iris_api" / "tasks" / "main.yml").read_text())
    imports = [task.get("ansible.builtin.import_role", {}).get("tasks_from") for task in plays[-1]["tasks"]]
    phases = [
        str(task["ansible.builtin.import_tasks"]).removesuffix(".yml")
        for task in role
        # A restore comes to a fresh host alone.
        if "ansible.builtin.import_tasks" in task
    ]
    assert [phase for phase in imports if phase] == phases[phases.index("install") + 1 :]
    assert plays[-1]["vars"] == {"iris_api_redeploy": True}


def steps(playbook: str) -> list[str]:
    """Return the playbooks that one imports, and the steps of the credentials between them."""
    found = []
    for play in yaml.safe_load((ROOT / "playbooks" / f"{playbook}.yml").read_text()):
        if imported := play.get("import_playbook"):
            found.append(imported.removesuffix(".yml"))
        found += [task["credentials"]["step"] for task in play.get("tasks", []) if "credentials" in task]
    return found


def test_a_password_is_replaced_on_the_gateways_before_it_may_expire() -> None:
    checks = ["preflight-inventory", "preflight-gateway"]
    assert steps("rotate-credentials") == [*checks, "rotate", "gateway", "set_expiry", "handover"]
    assert steps("retire-credentials") == [*checks, "retire", "gateway", "handover"]
    # What has expired is removed where the gateways know it no more.
    assert steps("handover") == ["expire"]


def test_a_certificate_is_renewed_on_request_alone() -> None:
    plays = yaml.safe_load((ROOT / "playbooks" / "renew-certificates.yml").read_text())
    assert steps("renew-certificates") == ["preflight-inventory", "preflight-gateway", "gateway", "handover"]
    assert [play["vars"] for play in plays if play.get("import_playbook") == "gateway.yml"] == [{"pki_renew_now": True}]


@pytest.mark.parametrize("checks", [False, True])
def test_check_mode_rolls_nothing_back(checks: bool) -> None:
    *_, play = yaml.safe_load((ROOT / "playbooks" / "rollback.yml").read_text())
    known = {"rollback_who": "ana@laptop", "rollback_part": "model", "rollback_to": "", "ansible_check_mode": checks}
    argv = play["tasks"][0]["ansible.builtin.command"]["argv"]
    assert Templar(DataLoader(), known).template(trust_as_template(argv)) == [
        "/usr/local/sbin/iris-deploy", "--json", "rollback", "--who", "ana@laptop", "--part", "model", "--to", "",
        *(["--dry-run"] if checks else []),
    ]  # fmt: skip


@pytest.fixture
def two_hosts(tmp_path: Path) -> Path:
    """Two hosts, both of them this machine, both with the monitoring."""
    here = {"ansible_connection": "local", "ansible_python_interpreter": sys.executable}
    hosts = {name: here | {"fortress_address": f"192.0.2.{number}"} for number, name in enumerate("ab", 1)}
    groups = {"gateway": "a", "api": "a", "monitoring": "ab"}
    children = {group: {"hosts": dict.fromkeys(members)} for group, members in groups.items()}
    (tmp_path / "hosts.yml").write_text(yaml.safe_dump({"all": {"hosts": hosts, "children": children}}))
    return tmp_path


@pytest.mark.parametrize(
    ("variables", "complaint"),
    [
        ({"grafana_apt_key_fingerprints": ["none"]}, "a fingerprint is 40 digits"),
        ({"grafana_cookie_secure": "perhaps"}, "grafana_cookie_secure"),
        ({"fortress_grafana_when_unreachable": "wait"}, "fortress_grafana_when_unreachable"),
    ],
    ids=["a value", "a type", "a setting of the site"],
)
def test_one_bad_variable_on_one_host_stops_the_run_on_all_of_them(
    two_hosts: Path, variables: dict[str, Any], complaint: str
) -> None:
    """In check mode, with two roles that need no facts of a Debian host: were the order wrong, nothing would change."""
    (two_hosts / "host_vars").mkdir()
    (two_hosts / "host_vars" / "b.yml").write_text(yaml.safe_dump(variables))
    done = ansible(
        "ansible-playbook",
        "-i",
        str(two_hosts),
        "site.yml",
        "--check",
        "--tags",
        "node_exporter,grafana",
        "-e",
        json.dumps({"ansible_become": False}),
    )
    assert done.returncode != 0
    assert complaint in " ".join(done.stdout.split()), done.stdout
    assert "node_exporter : Install" not in done.stdout
    assert "Create the credentials" not in done.stdout
    recap = re.findall(r"^([ab]) +: ok=\d+ +changed=(\d+)", done.stdout, re.MULTILINE)
    assert sorted(recap) == [("a", "0"), ("b", "0")]
    assert not (two_hosts / "secrets").exists()


def names(node: Any) -> list[str]:
    if not isinstance(node, list):
        return []
    found = [entry["name"] for entry in node]
    for entry in node:
        for inner in ("tasks", "pre_tasks", "post_tasks", "block"):
            found += names(entry.get(inner))
    return found


@pytest.mark.parametrize(
    "path",
    [*ROOT.glob("playbooks/**/*.yml"), *ROOT.glob("roles/fortress/tasks/*.yml"), *ROOT.glob("molecule/*/*.yml")],
    ids=lambda path: str(path.relative_to(ROOT)),
)
def test_names_say_what_is_done_in_the_words_that_people_look_for(path: Path) -> None:
    # fmt: off
    verbs = {
        "Assert", "Boot", "Build", "Check", "Configure", "Copy", "Create", "Deploy", "Finish", "Gather", "Install",
        "Issue", "Monitor", "Preflight", "Prepare", "Print", "Provision", "Read", "Reboot", "Remove", "Report",
        "Request", "Retire", "Roll", "Rotate", "Serve", "Set", "Skip", "Start", "Upload", "Wait", "Write",
    }
    # fmt: on
    for name in names(yaml.safe_load(path.read_text())):
        assert name.split(",")[0].split()[0] in verbs, name
