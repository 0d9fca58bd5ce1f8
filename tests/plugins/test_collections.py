"""A control node without the collections is told so before anything runs."""

from __future__ import annotations

import subprocess
from collections.abc import Callable
from typing import Any

import pytest
import yaml

from tests import ROOT

MISSING = "{{ wanted | missing_collections | join(', ') }}"


def missing(play: Callable[..., subprocess.CompletedProcess[str]], wanted: dict[str, Any]) -> str:
    done = play([{"ansible.builtin.debug": {"msg": f"missing: <{MISSING}>"}}], wanted=wanted)
    assert "missing: <" in done.stdout, done.stdout
    return " ".join(done.stdout.split("missing: <", 1)[1].split(">'")[0].split(">\n")[0].split())


@pytest.mark.parametrize(
    ("name", "version", "expected"),
    [
        ("community.crypto", ">=1.0.0", ""),
        ("community.crypto", ">=999.0.0", "community.crypto >=999.0.0"),
        ("community.nonesuch", ">=1.0.0", "community.nonesuch >=1.0.0"),
        ("nobody.nonesuch", ">=1.0.0", "nobody.nonesuch >=1.0.0"),
    ],
)
def test_a_collection_is_missing_if_it_is_not_there_or_too_old(
    play: Callable[..., subprocess.CompletedProcess[str]], name: str, version: str, expected: str
) -> None:
    assert missing(play, {"collections": [{"name": name, "version": version}]}) == expected


def test_the_requirements_name_every_collection_that_is_used() -> None:
    used = {
        ".".join(word.split(".")[:2])
        for folder in ("roles", "playbooks")
        for file in (ROOT / folder).rglob("*.yml")
        for word in file.read_text().replace(":", " ").split()
        if word.count(".") == 2 and word.startswith(("community.", "ansible."))
    } - {"ansible.builtin"}
    required = yaml.safe_load((ROOT / "requirements.yml").read_text())["collections"]
    assert used == {each["name"] for each in required} == {"community.crypto"}
