"""preflight: what a role needs is checked in one task, and what fails first is reported alone."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.controller import Run

FREE: dict[str, Any] = {"listeners": [], "nginx_sites": [], "changed_files": [], "addresses": [], "file_systems": {}}
TAKEN = FREE | {"listeners": [{"address": "0.0.0.0", "port": 9090, "program": "python3", "unit": "demo.service"}]}


def check(**settings: Any) -> list[dict[str, object]]:
    """Return a role's preflight, as the roles of the project have it."""
    variables = {
        "_demo_checks": [{"that": "{{ demo_users | length < 3 }}", "message": "demo_users has {{ demo_users[2] }}."}],
        "_demo_later": [{"that": "{{ demo_users | first | length > 0 }}", "message": "The first has no name."}],
        "_demo_needs": {"unit": "other.service", "ports": ["{{ demo_port }}"], "port_variable": "demo_port"},
    }
    args = {"settings": ["_demo_checks", "_demo_later"], "host": "_demo_needs"} | settings
    return [{"name": "Check", "preflight": args, "vars": variables}]


def said(play: Run, tasks: list[dict[str, object]], survey: dict[str, Any] = FREE, **variables: Any) -> str:
    """Return what the check complains of, nothing where it passes."""
    known = {"demo_users": ["iris"], "demo_port": 9090} | variables
    done = play(tasks, ansible_facts={"survey": survey}, **known)
    text = " ".join(done.stdout.replace("''", "'").split())
    assert bool(done.returncode) == ("fatal:" in text), text
    return text.partition("fatal: ")[2]


@pytest.fixture(autouse=True)
def roles(tmp_path: Path) -> None:
    users, port = {"type": "list", "description": "Who."}, {"type": "int", "description": "Where."}
    options = {"demo_users": users, "demo_port": port}
    spec = tmp_path / "roles" / "demo" / "meta" / "argument_specs.yml"
    spec.parent.mkdir(parents=True)
    spec.write_text(yaml.safe_dump({"argument_specs": {"main": {"options": options}}}))


def test_what_is_right_passes(play: Run) -> None:
    """And a message is not made where what it is of holds: there may be no third user."""
    assert said(play, check()) == ""


def test_a_variable_of_another_type_is_named_before_anything_reads_it(play: Run) -> None:
    complaint = said(play, check(), demo_users=7, survey=TAKEN)
    assert "demo_users is 7, and must be a list" in complaint
    assert "taken" not in complaint


def test_a_typo_is_told_the_nearest_name(play: Run) -> None:
    assert "Did you mean demo_port?" in said(play, check(), demo_prt=1)


def test_a_text_is_a_number_unless_the_check_is_strict(play: Run) -> None:
    assert said(play, check(), demo_port="9090") == ""
    assert "demo_port is '9090', and must be a whole number" in said(play, check(strict=True), demo_port="9090")


def test_what_fails_first_is_reported_alone(play: Run) -> None:
    complaint = said(play, check(), demo_users=["", "b", "c"], survey=TAKEN)
    assert "demo_users has c." in complaint
    assert "The first has no name." not in complaint
    assert "taken" not in complaint
    assert "The first has no name." in said(play, check(), demo_users=[""], survey=TAKEN)


def test_a_host_that_has_something_in_the_way_is_refused(play: Run) -> None:
    assert "Port 9090 (python3, demo.service) is taken." in said(play, check(), survey=TAKEN)
    assert said(play, check(), survey=TAKEN, demo_port=9091) == ""


def test_the_packages_of_all_roles_are_collected(play: Run) -> None:
    """For base, which installs them at once. A role whose preflight fails ends the run."""
    known = {"name": "Survey", "ansible.builtin.set_fact": {"survey": FREE, "cacheable": True}}
    tasks = [*check(packages=["nginx", "curl"]), *check(), *check(packages=["curl", "mtail"])]
    tell = {"ansible.builtin.debug": {"msg": "{{ ansible_facts['wanted_packages'] | join(' ') }}"}}
    done = play([known, *tasks, tell], demo_users=["iris"], demo_port=9090)
    assert "msg: nginx curl mtail" in done.stdout, done.stdout
