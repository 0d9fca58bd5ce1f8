"""The committed pictures are what docs/pictures/draw.py and tools/status/picture.py draw."""

from __future__ import annotations

import runpy

import pytest

from tests import ROOT
from tools.status import picture

FOLDER = ROOT / "docs" / "pictures"
PICTURES = runpy.run_path(str(FOLDER / "draw.py"))["PICTURES"]


def test_every_picture_has_a_source() -> None:
    assert {path.stem for path in FOLDER.glob("*.svg")} == {*PICTURES, picture.PICTURE.stem}


@pytest.mark.parametrize("name", PICTURES)
def test_a_picture_is_what_its_source_draws(name: str) -> None:
    committed = (FOLDER / f"{name}.svg").read_text(encoding="utf-8")
    assert committed == PICTURES[name]().svg(), "python3 docs/pictures/draw.py draws it anew"


def test_the_picture_of_make_status_is_what_it_shows() -> None:
    """That a site still answers as the recorded one did, tests/host/test_status.py says."""
    assert picture.PICTURE.read_text(encoding="utf-8") == picture.draw(), "python -m tools.status.picture draws it anew"
    assert "http" not in picture.draw().replace("http://www.w3.org/", "").replace("https://www.textualize.io", "")
