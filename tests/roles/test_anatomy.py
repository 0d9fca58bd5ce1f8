"""Every role has the same anatomy, so that whoever knows one finds their way in all of them."""

from __future__ import annotations

import fnmatch
import re
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import yaml
from ansible.parsing.dataloader import DataLoader
from ansible.template import Templar, trust_as_template

from tests import ROOT

ROLES = sorted(path.parents[1] for path in (ROOT / "roles").glob("*/tasks/main.yml"))
# Grafana comes from elsewhere, as far as it can be reached; logrotate's package starts its timer.
APART = {"_grafana_packages", "_grafana_key_packages", "_nginx_logrotate_packages"}
PHASES = ["preflight", "install", "configure", "service"]
SECTIONS = ["Requirements", "On the host", "Tags", "Example", "Variables"]
HEADER = re.compile(r"(?:[#;]|<!--) Managed by Fortress \(role (\w+)\): ")
# Ansible prints "ok: [host] => Refuse weak passwords" where nothing was refused.
UNUSUAL = {
    "Refuse",
    "Tell",
    "Say",
    "Look",
    "Ask",
    "See",
    "Guard",
    "Let",
    "Forget",
    "Find",
    "Use",
    "Put",
    "Make",
    "Keep",
    "Trust",
}

each_role = pytest.mark.parametrize("role", ROLES, ids=lambda role: role.name)


@cache
def load(path: Path) -> Any:
    return (yaml.safe_load(path.read_text()) if path.exists() else None) or []


def tasks(role: Path, folder: str = "tasks") -> Iterator[dict[str, Any]]:
    """Yield every task of a role, those inside of blocks too."""
    waiting = [task for path in sorted((role / folder).glob("*.yml")) for task in load(path)]
    while waiting:
        task = waiting.pop(0)
        yield task
        waiting = [*task.get("block", []), *task.get("rescue", []), *task.get("always", []), *waiting]


def module(task: dict[str, Any], name: str) -> Any:
    """Return the arguments of a task of this module, None where it is another's."""
    return (task[name] or {}) if name in task else None


@each_role
def test_main_is_a_table_of_contents(role: Path) -> None:
    contents = load(role / "tasks" / "main.yml")
    phases = []
    for entry in contents:
        [file] = [entry[key] for key in entry if key.endswith(("import_tasks", "include_tasks"))]
        phases.append(file.removesuffix(".yml"))
        assert entry["name"].replace(" ", "").lower() == phases[-1].replace("_", "")
    assert phases[0] == "preflight"
    # Another's would have passed, and this one's be run twice.
    assert role.name == "fortress" or contents[0]["when"] == f"__{role.name}_preflight is not defined"
    assert [phase for phase in phases if phase in PHASES] == [phase for phase in PHASES if phase in phases]


@each_role
def test_the_preflight_begins_with_the_names_of_variables(role: Path) -> None:
    assert "preflight" in load(role / "tasks" / "preflight.yml")[0]


@pytest.fixture(scope="module")
def survey() -> dict[str, list[str]]:
    """Return what every host is asked before anything else."""
    [gather, *_] = load(ROOT / "playbooks/tasks/facts.yml")
    [task] = gather["block"]
    asked: dict[str, list[str]] = task["host_survey"]
    return asked


@each_role
def test_a_service_is_asked_for_only_where_the_facts_do_not_say_that_it_runs(
    role: Path, survey: dict[str, list[str]]
) -> None:
    """A question to the host costs half a second; a unit that the facts leave out would be asked for at each run."""
    for task in tasks(role):
        service = module(task, "ansible.builtin.systemd_service")
        if service is not None:
            assert service["name"] in survey["units"], task["name"]
            assert f"'{service['name']}' not in ansible_facts['survey'].running | default([])" in task["when"], task[
                "name"
            ]


@each_role
def test_what_is_in_use_is_asked_by_the_facts(role: Path, survey: dict[str, list[str]]) -> None:
    """A command that they leave out would be a question to the host at each run."""
    for task in tasks(role):
        commands = (module(task, "config_tree") or {}).get("in_use", {}).values()
        assert set(commands) <= set(survey["commands"]), task["name"]


@each_role
def test_tasks_and_handlers_are_named_in_the_usual_words(role: Path) -> None:
    for folder in ("tasks", "handlers"):
        for task in tasks(role, folder):
            assert task["name"].split()[0] not in UNUSUAL, task["name"]


@each_role
def test_assertions_name_a_remedy_and_do_not_print_what_holds(role: Path) -> None:
    for task in tasks(role):
        assertion = module(task, "ansible.builtin.assert")
        if assertion is not None:
            assert task["name"].startswith("Assert that "), task["name"]
            assert assertion["quiet"] is True, task["name"]


@each_role
def test_packages_are_named_in_vars_and_installed_without_recommendations(role: Path) -> None:
    lists = {name for name in load(role / "vars" / "main.yml") if name.endswith("_packages")}
    used = set()
    for task in tasks(role):
        apt = module(task, "ansible.builtin.apt")
        if apt is None or set(apt) == {"update_cache"}:
            continue
        assert apt["install_recommends"] is False, task["name"]
        if "deb" not in apt and apt["name"] != "{{ _base_to_install }}":
            [name] = re.findall(r"^{{ (_\w+_packages) }}$", apt["name"])
            used.add(name)
    assert used == lists - {"_base_packages"}


@each_role
def test_a_preflight_names_what_the_role_installs(role: Path) -> None:
    """Base installs those of all roles in one transaction, and has none of them started."""
    [check, *_] = load(role / "tasks" / "preflight.yml")
    lists = {name for name in load(role / "vars" / "main.yml") if name.endswith("_packages")}
    named = set(re.findall(r"_\w+_packages", check["preflight"].get("packages", "")))
    assert named == lists - APART


@each_role
def test_what_a_role_installs_and_makes_it_also_removes(role: Path) -> None:
    """All but what config_tree writes from its folders, which need not be named."""
    written = [path.relative_to(role / "templates") for path in (role / "templates").rglob("*") if path.is_file()]
    units = {path.name for path in written if path.parent == Path("etc/systemd/system")}
    services = {path.parent.name.removesuffix(".d") for path in written if path.name == "fortress.conf"}
    if role.name == "fortress":  # It only checks.
        assert not written
        return
    [task] = load(role / "tasks" / "remove.yml")
    removal = task["host_removal"]
    assert units == {unit for unit in removal.get("units", []) if "*" not in unit}
    assert services - {"dashboards", "datasources"} <= {*removal.get("services", [])}
    for name in load(role / "vars" / "main.yml"):
        # A version may be pinned by that of Grafana.
        assert not name.endswith("_packages") or name in str(removal["packages"]) or name == "_grafana_packages"
    for each in tasks(role):
        if user := module(each, "ansible.builtin.user"):
            assert user["name"] in removal["users"]


@each_role
def test_handlers_validate_before_they_reload_and_restart_only_for_what_a_reload_does_not_apply(role: Path) -> None:
    handlers = load(role / "handlers" / "main.yml")
    verbs = [handler["name"].split()[0] for handler in handlers]
    assert set(verbs) <= {"Validate", "Restart", "Reload", "Update", "Set", "Report", "Record"}
    order = [verb for verb in verbs if verb in ("Validate", "Restart", "Reload")]
    assert order == sorted(order, key=["Validate", "Restart", "Reload"].index)
    for handler in handlers:
        if handler["name"].startswith("Restart") and "Reload" in verbs:
            assert "when" in handler, handler["name"]


@each_role
def test_what_is_written_for_a_service_is_remembered_until_the_service_has_it(role: Path) -> None:
    """A run that is cut between the two is finished by the next one."""
    applying = [module(task, "config_tree") or {} for other in ROLES for task in tasks(other, "handlers")]
    applied = {name for tree in applying for name in [tree.get("applied", [])] if isinstance(name, str)}
    applied |= {name for tree in applying if isinstance(tree.get("applied"), list) for name in tree["applied"]}
    for task in tasks(role):
        tree = module(task, "config_tree")
        if tree is not None and "notify" in task:
            name = str(tree.get("unapplied"))
            assert name in applied or any(f"'{each}' if" in name for each in applied), task["name"]
    last = [handler["name"].split()[0] for handler in load(role / "handlers" / "main.yml")]
    assert last == sorted(last, key="Record".__eq__), "what comes after it may fail"


def topics(task: dict[str, Any], word: str) -> set[str]:
    """Return what a task notifies, or what a handler listens to."""
    given = task.get(word) or []
    return {given} if isinstance(given, str) else set(given)


@each_role
def test_each_handler_is_notified(role: Path) -> None:
    """What is configured anew and never applied looks right on the disk, while the service goes on as before."""
    notified = set().union(
        *(topics(task, "notify") for other in ROLES for part in ("tasks", "handlers") for task in tasks(other, part))
    )
    for handler in tasks(role, "handlers"):
        assert (topics(handler, "listen") or {handler["name"]}) <= notified, handler["name"]


@each_role
def test_every_file_on_a_host_says_who_writes_it(role: Path) -> None:
    for folder in ("templates", "files"):
        for path in (role / folder).rglob("*"):
            # JSON has no comments; a program says in its docstring what it is.
            if not path.is_file() or path.suffix in (".json", ".py") or path.parent.name == "__pycache__":
                continue
            first, *rest = path.read_text().splitlines()
            if first.startswith("#!"):
                if "python" in first:
                    continue
                first = rest[0]
            found = HEADER.match(first)
            assert found, f"{path.relative_to(ROOT)}: {first}"
            assert found[1] == role.name, path


@each_role
def test_the_readme_has_the_same_sections_and_explains_the_role_first(role: Path) -> None:
    title, *lines = (role / "README.md").read_text().splitlines()
    assert title == f"# Role {role.name}"
    assert re.match(r"[A-Z]", "\n".join(lines).strip())
    assert [line[3:] for line in lines if line.startswith("## ") and line[3:] in SECTIONS] == SECTIONS


@pytest.mark.parametrize(
    ("role", "path", "group", "mode"),
    [
        ("nginx", "/etc/nginx/fortress.htpasswd", "www-data", "0640"),
        ("nginx", "/etc/nginx/fortress-previous.htpasswd", "www-data", "0640"),
        ("nginx", "/etc/nginx/fortress-probe.htpasswd", "www-data", "0640"),
        ("pki", "/etc/ssl/fortress/privkey.pem", "root", "0600"),
        ("blackbox_exporter", "/etc/fortress/probe-password", "root", "0600"),
        ("grafana", "/etc/grafana/secrets/admin_password", "grafana", "0640"),
        ("grafana", "/etc/grafana/secrets/secret_key", "grafana", "0640"),
        ("alertmanager", "/etc/prometheus/alertmanager-secrets/smtp_password", "prometheus", "0640"),
        ("alertmanager", "/etc/prometheus/alertmanager.yml", "prometheus", "0640"),
    ],
)
def test_a_secret_is_for_its_service_alone_and_in_no_output(role: str, path: str, group: str, mode: str) -> None:
    loader = DataLoader()
    folder = ROOT / "roles" / role
    variables: dict[str, Any] = {"inventory_dir": "/nowhere", "inventory_hostname": "host"}
    for part in ("defaults", "vars"):
        variables |= loader.load_from_file(str(folder / part / "main.yml"), trusted_as_template=True) or {}
    # Without an address it has no secret.
    variables["alertmanager_heartbeat_url"] = "https://example.com/ping"

    def evaluate(value: Any) -> Any:
        return Templar(loader, variables).template(trust_as_template(value)) if isinstance(value, str) else value

    found = []
    for task in tasks(folder):
        tree = module(task, "config_tree") or {}
        exceptions = evaluate(tree.get("attributes", {}))
        matching = [exceptions[pattern] for pattern in exceptions if fnmatch.fnmatch(path, pattern)]
        if any(exception.get("secret") for exception in matching):
            found.append(({"owner": "root", "group": "root", "mode": "0644"} | tree, matching, task))
    [(wanted, exceptions, task)] = found
    for exception in exceptions:
        wanted |= exception
    assert (wanted["owner"], wanted["group"], wanted["mode"]) == ("root", group, mode)
    assert task["no_log"] == "{{ fortress_no_log | default(true) }}"
