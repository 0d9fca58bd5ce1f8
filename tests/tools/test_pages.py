"""What is measured is written between its marks, and nothing else of a page changes."""

from __future__ import annotations

from pathlib import Path

import pytest

from tools import pages

BEGIN, OTHER = "<!-- one -->\n", "<!-- another -->\n"


def test_a_text_takes_the_place_of_the_last_one_behind_its_own_mark(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text(f"a\n{BEGIN}b\n{pages.END}c\n{OTHER}d\n{pages.END}e\n")
    for _ in range(2):
        pages.put(page, OTHER, "new\n")
        assert page.read_text() == f"a\n{BEGIN}b\n{pages.END}c\n{OTHER}\nnew\n\n{pages.END}e\n"


@pytest.mark.parametrize("text", ["something else\n", f"a\n{BEGIN}b\n", f"a\n{pages.END}{BEGIN}b\n"])
def test_a_page_without_a_place_for_it_is_left_alone(text: str, tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text(text)
    with pytest.raises(SystemExit, match="has lost its marks"):
        pages.put(page, BEGIN, "new")
    assert page.read_text() == text
