"""known_variables: a typo in an inventory stops the run and is told the nearest name."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from tests.controller import Run

CHECK: list[dict[str, object]] = [{"name": "Check", "known_variables": None}]


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


def test_another_roles_longer_prefix_is_left_to_that_role(play: Run) -> None:
    done = play(CHECK, demo_rate=10, demo_exporter_prt=1)
    assert done.returncode == 0, done.stdout
