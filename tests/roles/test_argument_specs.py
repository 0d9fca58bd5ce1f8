"""Every role: meta/argument_specs.yml is the source of truth, defaults/main.yml agrees with it."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests import ROOT

ROLES = sorted(path.parent.parent for path in (ROOT / "roles").glob("*/tasks/main.yml"))


DEFAULTS = {"fortress": ROOT / "group_vars" / "all" / "fortress.yml"}
"""Where a role's defaults stand if not in its own folder: the settings of a site belong to no play."""


def load(path: Path) -> Any:
    return yaml.safe_load(path.read_text()) if path.exists() else {}


def options(role: Path) -> dict[str, dict[str, Any]]:
    spec = load(role / "meta" / "argument_specs.yml")["argument_specs"]["main"]
    assert spec["short_description"]
    return spec.get("options") or {}


def test_there_are_roles() -> None:
    assert len(ROLES) >= 8


@pytest.mark.parametrize("role", ROLES, ids=lambda role: role.name)
def test_defaults_agree_with_the_specs_in_names_and_values(role: Path) -> None:
    specified = {name: option["default"] for name, option in options(role).items() if "default" in option}
    assert (load(DEFAULTS.get(role.name, role / "defaults" / "main.yml")) or {}) == specified


@pytest.mark.parametrize("role", ROLES, ids=lambda role: role.name)
def test_each_option_is_typed_described_and_carries_the_roles_prefix(role: Path) -> None:
    for name, option in options(role).items():
        assert name.startswith(f"{role.name}_"), name
        assert option.get("type"), name
        assert option.get("description"), name
        assert "default" in option or option.get("required"), f"{name}: neither a default nor required"


@pytest.mark.parametrize("role", ROLES, ids=lambda role: role.name)
def test_variables_that_are_not_public_begin_with_an_underscore(role: Path) -> None:
    for name in load(role / "vars" / "main.yml") or {}:
        assert name.startswith(f"_{role.name}_"), name


@pytest.mark.parametrize("role", ROLES, ids=lambda role: role.name)
def test_every_role_has_the_same_anatomy(role: Path) -> None:
    contents = load(role / "tasks" / "main.yml")
    phases = [
        str(task.get("ansible.builtin.import_tasks", task.get("ansible.builtin.include_tasks", ""))).split(".")[0]
        for task in contents
    ]
    known = ["preflight", "install", "configure", "service"]
    assert [phase for phase in phases if phase in known] == [phase for phase in known if phase in phases]
    assert phases[0] == "preflight"
    first = load(role / "tasks" / "preflight.yml")[0]
    assert "preflight" in first, "preflight.yml begins with the check of its variables"


SAFE: dict[str, Any] = {
    # Who gets in.
    "base_port_clients": [],
    "blackbox_exporter_gateways": [],
    "blackbox_exporter_listen_address": "127.0.0.1:9115",
    "base_trusted_networks": [],
    "fortress_trusted_networks": ["172.16.0.0/12"],
    "grafana_trusted_networks": [],
    "iris_api_bind_address": "127.0.0.1",
    "iris_api_clients": [],
    "mtail_clients": [],
    "nginx_basic_auth_allow_weak_passwords": False,
    "nginx_basic_auth_users": [],
    "nginx_exporter_trusted_networks": [],
    "nginx_probe_users": [],
    "nginx_trusted_networks": ["172.16.0.0/12"],
    "node_exporter_trusted_networks": [],
    "prometheus_trusted_networks": [],
    # What one of them may do to the others.
    "base_connections_per_address": 256,
    "base_new_connections_per_second": 100,
    "base_unlimited_networks": [],
    "iris_api_memory_max": "512M",
    "iris_api_request_deadline": 4,
    "iris_api_tasks_max": 64,
    "nginx_client_max_body_size": "60k",
    "nginx_client_timeout": "10s",
    "nginx_rate_limit_enabled": True,
    # Which code is run, and which secret is seen.
    "fortress_no_log": True,
    "fortress_previous_password_days": 7,
    "grafana_apt_key_fingerprints": ["B53AE77BADB630A683046005963FA27710458545"],
    "iris_api_skops_trusted": ["sklearn.tree._tree.Tree"],
    # What a deployment asks first, and where it can go back to.
    "iris_api_check_memory": True,
    "iris_api_keep_deployments": 5,
    "iris_api_redeploy": False,
}


def test_a_site_that_sets_nothing_is_a_safe_one() -> None:
    """Another default of one of these is a decision, to be made here as well and told to whoever upgrades."""
    specified = {name: option.get("default") for role in ROLES for name, option in options(role).items()}
    assert {name: specified[name] for name in SAFE} == SAFE
    # A new list of who is trusted belongs here, too.
    assert {name for name in specified if name.endswith("_networks")} <= SAFE.keys()


def test_what_holds_a_secret_is_not_shown_where_it_is_mistyped() -> None:
    known = {name: option for role in ROLES for name, option in options(role).items()}
    secret = {name for name in known if re.search(r"passwords?$|secret_key$", name) and known[name]["type"] != "bool"}
    assert len(secret) == 6
    assert {name for name in secret if not known[name].get("no_log")} == set()


def test_the_wiring_names_only_what_roles_know() -> None:
    wiring = load(ROOT / "group_vars" / "all" / "wiring.yml")
    known = {name for role in ROLES for name in options(role)}
    public = {name for name in wiring if not name.startswith("_fortress_")}
    assert public <= known, public - known


def test_no_role_reads_what_is_shared_or_anothers() -> None:
    for role in [role for role in ROLES if role.name != "fortress"]:
        for path in role.rglob("*"):
            if path.is_file() and path.parent.name not in ("__pycache__", "dashboards", "consoles"):
                for number, line in enumerate(path.read_text().splitlines(), 1):
                    names = set(line.replace("fortress_no_log", "").split("fortress_")[1:])
                    jinja = "{{" in line or "{%" in line
                    assert not (names and jinja), f"{path.relative_to(ROOT)}:{number}: {line.strip()}"
