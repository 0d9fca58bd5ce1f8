"""Draw docs/pictures/status.svg: what `make status` shows of a site whose answer was recorded beside it.

    .venv/bin/python -m tools.status.picture

The answer is that of `python -m tools.status --json` for a site on whose host an instance was stopped.
"""

from __future__ import annotations

import io
import json
import re
import sys
from pathlib import Path

from rich._export_format import CONSOLE_SVG_FORMAT
from rich.console import Console

from tools.status.judge import judge
from tools.status.screen import show

PICTURE = Path(__file__).resolve().parents[2] / "docs" / "pictures" / "status.svg"
RECORDED = PICTURE.with_suffix(".json")
INVENTORY = "inventory/local"
WIDTH = 80


def draw() -> str:
    """Return the picture as SVG, with the fonts of the reader's machine: rich's own come from elsewhere."""
    hosts = json.loads(RECORDED.read_text(encoding="utf-8"))["hosts"]
    console = Console(record=True, width=WIDTH, file=io.StringIO(), force_terminal=True, color_system="truecolor")
    show(console, INVENTORY, hosts, judge(hosts))
    plain = re.sub(r"\s*@font-face \{\{.*?\}\}", "", CONSOLE_SVG_FORMAT, flags=re.DOTALL)
    return console.export_svg(title="make status", code_format=plain, unique_id="status")


def main() -> int:
    """Run as a program."""
    PICTURE.write_text(draw(), encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
