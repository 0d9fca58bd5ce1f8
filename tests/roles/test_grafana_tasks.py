"""What the role grafana installs, and how it sets a changed password."""

from __future__ import annotations

import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml
from ansible.parsing.dataloader import DataLoader
from ansible.plugins.loader import filter_loader
from ansible.template import Templar, trust_as_template

from tests import ROOT

ROLE = ROOT / "roles" / "grafana"


@pytest.fixture
def package(tmp_path: Path) -> str:
    """A package of version 12.1.0."""
    control = tmp_path / "package" / "DEBIAN" / "control"
    control.parent.mkdir(parents=True, mode=0o755)
    control.write_text(
        "Package: grafana\nVersion: 12.1.0\nArchitecture: all\nMaintainer: a <a@example.com>\nDescription: a\n"
    )
    command = ["dpkg-deb", "--build", str(control.parent.parent), str(tmp_path / "grafana.deb")]
    subprocess.run(command, check=True, capture_output=True)
    return str(tmp_path / "grafana.deb")


@pytest.mark.parametrize(
    ("installed", "installs"), [({}, True), ({"grafana": "12.0.0"}, True), ({"grafana": "12.1.0"}, False)]
)
def test_another_version_in_the_file_is_installed_without_naming_it(
    package: str, installed: dict[str, str], installs: bool
) -> None:
    filter_loader.add_directory(str(ROOT / "plugins" / "filter"))
    loader = DataLoader()
    variables: dict[str, Any] = {}
    for part in ("defaults", "vars"):
        variables |= loader.load_from_file(str(ROLE / part / "main.yml"), trusted_as_template=True)
    facts = {"survey": {"installed": {"nginx": "12.1.0"} | installed}}
    variables |= {"grafana_deb_file": package, "ansible_facts": facts}
    assert Templar(loader, variables).template(trust_as_template("{{ _grafana_to_install }}")) is installs


def test_a_file_of_another_version_than_the_one_that_is_named_stops_the_run(
    package: str, preflights: Callable[..., list[str]]
) -> None:
    settings = {"grafana_admin_password": "x" * 20, "grafana_secret_key": "y" * 20, "grafana_deb_file": package}
    other, same = preflights("grafana", {"grafana_version": "12.0.0"}, {"grafana_version": "12.1.0"}, **settings)
    assert "is version 12.1.0, and grafana_version says 12.0.0" in other
    assert same == ""


def test_grafanas_program_has_a_working_directory_that_its_user_can_read() -> None:
    """It ends in another: `error getting work directory`, seen with Grafana 9.4."""
    password, start = yaml.safe_load((ROLE / "tasks" / "service.yml").read_text())
    assert password["ansible.builtin.command"]["chdir"] == "/usr/share/grafana"
    # After it Grafana may just be creating its database: "database is locked", seen with Grafana 9.4.
    assert "ansible.builtin.systemd_service" in start
