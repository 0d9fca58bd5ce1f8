"""Writes what the tests measured into docs/faults.md, between the markers: `python tests/faults/table.py RECORD`."""

from __future__ import annotations

import json
import sys
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from traffic import Kind

PAGE = Path(__file__).resolve().parents[2] / "docs" / "faults.md"
BEGIN, END = "<!-- written by make faults -->\n", "<!-- until here -->\n"


@dataclass(frozen=True)
class Row:
    """What one fault did."""

    fault: str
    kinds: list[Kind]
    failed: int
    recovery: float | None
    note: str

    def as_json(self) -> dict[str, Any]:
        """Return it for the record."""
        return asdict(self)

    @classmethod
    def from_json(cls, given: dict[str, Any]) -> Row:
        """Return it from the record."""
        return cls(**given | {"kinds": [Kind(**kind) for kind in given["kinds"]]})
