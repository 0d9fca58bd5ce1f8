"""known_variables: a typo in an inventory stops the run and is told the nearest name."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest
import yaml
from ansible.plugins.loader import action_loader

from tests import ROOT
from tests.controller import Run

action_loader.add_directory(str(ROOT / "plugins" / "action"))
CHECK: list[dict[str, object]] = [{"name": "Check", "known_variables": None}]


def function(name: str) -> Any:
    """Return a function of the module that Ansible has loaded."""
    return getattr(sys.modules[action_loader.get("known_variables", class_only=True).__module__], name)


@pytest.fixture(autouse=True)
def roles(tmp_path: Path) -> None:
    """Two roles, one's name the beginning of the other's."""
    for role, option in (("demo", "demo_rate"), ("demo_exporter", "demo_exporter_port")):
        spec = tmp_path / "roles" / role / "meta" / "argument_specs.yml"
        spec.parent.mkdir(parents=True)
        spec.write_text(yaml.safe_dump({"argument_specs": {"main": {"options": {option: {"type": "int"}}}}}))


def test_a_typo_stops_the_run_and_is_told_the_nearest_name(play: Run) -> None:
    done = play(CHECK, demo_rat=10)
    assert done.returncode != 0
    assert "Unknown variable demo_rat" in done.stdout + done.stderr
    assert "Did you mean demo_rate?" in done.stdout + done.stderr


def test_known_names_pass(play: Run) -> None:
    done = play(CHECK, demo_rate=10)
    assert done.returncode == 0, done.stdout


@pytest.mark.parametrize(
    ("kind", "right", "wrong"),
    [
        ("int", 10, ["10", True, 1.5]),
        ("list", ["a"], ["['a']", {"a": 1}, 1]),
        ("dict", {"a": 1}, ["{'a': 1}", ["a"]]),
        ("str", "1.10", [1.1, 1, True, None, ["a"]]),
    ],
)
def test_a_text_is_no_number_and_no_list_and_a_number_no_text(kind: str, right: object, wrong: list[object]) -> None:
    mistyped = function("mistyped")
    option = {"demo": {"type": kind, "description": "What it is."}}
    assert mistyped(option, {"demo": right}) == []
    for value in wrong:
        (complaint,) = mistyped(option, {"demo": value})
        assert complaint.startswith(f"demo is {value!r}, and must be")
        how = "in quotes" if kind == "str" else "without quotes"
        if isinstance(value, str):
            how += """, on the command line as JSON: -e '{"demo": ...}'"""
        assert complaint.endswith(f"written {how}. What it is.")


def test_each_element_that_is_no_text_is_named() -> None:
    option = {"users": {"type": "list", "elements": "str", "description": "Who may log in."}}
    complaints = function("mistyped")(option, {"users": ["iris", 7, ["rosa"]]})
    assert complaints == [
        "users has 7, and each must be a text, written in quotes. Who may log in.",
        "users has ['rosa'], and each must be a text, written in quotes. Who may log in.",
    ]


RECEIVERS: dict[str, Any] = {
    "type": "list",
    "elements": "dict",
    "description": "Who is told.",
    "options": {
        "name": {"type": "str", "description": "How it is called."},
        "email_to": {"type": "list", "elements": "str", "description": "Addresses."},
        "token": {"type": "str", "description": "A token.", "no_log": True},
    },
}


def test_a_part_of_another_type_is_named_by_its_place() -> None:
    mistyped, options = function("mistyped"), {"receivers": RECEIVERS, "smtp": RECEIVERS | {"type": "dict"}}
    assert mistyped(options, {"receivers": [{"name": "a", "email_to": ["a@example.com"], "token": None}]}) == []
    assert mistyped(options, {"receivers": [{"name": "a"}, {"name": 5, "email_to": "a@example.com"}]}) == [
        "receivers[1].name is 5, and must be a text, written in quotes. How it is called.",
        "receivers[1].email_to is 'a@example.com', and must be a list, written without quotes. Addresses.",
    ]
    (complaint,) = mistyped(options, {"smtp": {"email_to": [], "token": 5}})
    assert complaint.startswith("smtp.token is not shown, since it may hold a secret, and must be a text")


def test_a_text_is_no_list_for_a_role_whose_types_are_not_strict(play: Run, tmp_path: Path) -> None:
    options = {
        "demo_rate": {"type": "int"},
        "demo_users": {"type": "list", "elements": "str", "description": "Who may log in."},
    }
    spec = tmp_path / "roles" / "demo" / "meta" / "argument_specs.yml"
    spec.write_text(yaml.safe_dump({"argument_specs": {"main": {"options": options}}}))
    done = play(CHECK, demo_rate="10", demo_users=["iris", 7])
    assert done.returncode == 0, done.stdout
    done = play(CHECK, demo_users="iris")
    assert done.returncode != 0
    assert "demo_users is 'iris', and must be a list" in " ".join((done.stdout + done.stderr).split())


def test_a_mistyped_whole_whose_parts_are_secret_is_not_shown() -> None:
    (complaint,) = function("mistyped")({"receivers": RECEIVERS}, {"receivers": {"name": "a", "token": "Zebras"}})
    assert "Zebras" not in complaint
    assert complaint.startswith("receivers is not shown, since it may hold a secret, and must be a list")


def test_a_mistyped_secret_is_not_shown() -> None:
    option = {"users": {"type": "list", "description": "Who may log in.", "no_log": True}}
    (complaint,) = function("mistyped")(option, {"users": "iris:Plenty-of-9-Zebras"})
    assert "Zebras" not in complaint
    assert complaint.startswith("users is not shown, since it may hold a secret, and must be a list")


def test_a_role_without_variables_has_none(tmp_path: Path) -> None:
    (tmp_path / "roles" / "plain" / "meta").mkdir(parents=True)
    (tmp_path / "roles" / "plain" / "meta" / "argument_specs.yml").write_text("---\n")
    options = function("role_options")
    assert options(tmp_path / "roles" / "plain") == {}
    assert list(options(tmp_path / "roles" / "demo")) == ["demo_rate"]


def test_another_roles_longer_prefix_is_left_to_that_role(play: Run) -> None:
    done = play(CHECK, demo_rate=10, demo_exporter_prt=1)
    assert done.returncode == 0, done.stdout
