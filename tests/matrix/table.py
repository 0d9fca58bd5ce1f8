"""Writes what `cases` says is served how into docs/models.md, between two markers.

    python -m tests.matrix.table             writes it, if it has changed
    python -m tests.matrix.table --check     writes nothing, fails where the page is stale

That it is so is what `make test-matrix` tests.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence

from tests import ROOT
from tests.matrix.cases import CASES, Case
from tools import pages

PAGE = ROOT / "docs" / "models.md"
BEGIN = "<!-- written by make docs-matrix -->\n"
HEAD = ("estimator", "table", "ONNX Runtime", "its own library")
TABLES = {
    "numbers": "numbers",
    "amounts": "numbers above 0",
    "gaps": "numbers with gaps",
    "mixed": "numbers, categories, a boolean, gaps",
    "nones": "the same, with None for gaps",
    "categories": "the same, with pandas' categories",
    "codes": "integers as categories, beyond 2^53",
    "texts": "texts",
    "tickets": "a text, a category, a number",
}


def main(arguments: Sequence[str]) -> int:
    """Write or check the page; return how the program ends."""
    text = table()
    if f"{BEGIN}\n{text}\n\n{pages.END}" in PAGE.read_text(encoding="utf-8"):
        return 0
    if "--check" in arguments:
        print(f"{PAGE.relative_to(ROOT)}: stale, run `make docs-matrix`")
        return 1
    pages.put(PAGE, BEGIN, text)
    return 0


def table() -> str:
    """Return the text between the markers."""
    proven = sum(case.onnx for case in CASES)
    lines = [
        f"All {len(CASES)} are served by the estimator's own library, {proven} of them by ONNX Runtime too:",
        "",
        *(f"| {' | '.join(cells)} |" for cells in (HEAD, ["---"] * len(HEAD), *map(row, CASES))),
    ]
    return "\n".join(lines)


def row(case: Case) -> tuple[str, ...]:
    """Return the cells of a case."""
    return case.name, TABLES[case.table], "proven" if case.onnx else "", case.library


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
