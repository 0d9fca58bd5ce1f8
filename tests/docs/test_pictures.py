"""The committed pictures are what docs/pictures/draw.py draws."""

from __future__ import annotations

import runpy

import pytest

from tests import ROOT

FOLDER = ROOT / "docs" / "pictures"
PICTURES = runpy.run_path(str(FOLDER / "draw.py"))["PICTURES"]


def test_every_picture_has_a_source() -> None:
    assert {path.stem for path in FOLDER.glob("*.svg")} == set(PICTURES)


@pytest.mark.parametrize("name", PICTURES)
def test_a_picture_is_what_its_source_draws(name: str) -> None:
    committed = (FOLDER / f"{name}.svg").read_text(encoding="utf-8")
    assert committed == PICTURES[name]().svg(), "python3 docs/pictures/draw.py draws it anew"
