"""Pages of docs/ that hold what a program measured, each part between a mark of its own and the next END."""

from __future__ import annotations

from pathlib import Path

END = "<!-- until here -->\n"


def put(page: Path, begin: str, text: str) -> None:
    """Replace what stands in a page between a mark and the next END.

    Raises:
        SystemExit: The page has lost its marks; it stays as it is.
    """
    before, found, rest = page.read_text(encoding="utf-8").partition(begin)
    _, end, after = rest.partition(END)
    if not (found and end):
        raise SystemExit(f"{page} has lost its marks {begin.strip()} and {END.strip()}: put them where the text goes.")
    page.write_text(f"{before}{begin}\n{text.rstrip()}\n\n{END}{after}", encoding="utf-8")
