"""Writes what the tests measured into docs/faults.md, between the markers: `python tests/faults/table.py RECORD`."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from traffic import Kind

PAGE = Path(__file__).resolve().parents[2] / "docs" / "faults.md"
BEGIN, END = "<!-- written by make faults -->\n", "<!-- until here -->\n"
# What the tests note where nothing was left that could have answered.
OUTAGES = ("nothing else can answer", "answered with 502")
HEAD = (
    "fault",
    "sent",
    "failed",
    "asked twice by nginx",
    "kept connections found closed",
    "of them hit by a request",
    "slowest (ms)",
    "recovery (s)",
)


@dataclass(frozen=True)
class Row:
    """What one fault did."""

    fault: str
    kinds: dict[str, Kind]
    failed: dict[str, int]
    recovery: float | None
    note: str

    def as_json(self) -> dict[str, Any]:
        """Return it for the record."""
        return asdict(self)

    @classmethod
    def from_json(cls, given: dict[str, Any]) -> Row:
        """Return it from the record."""
        return cls(**given | {"kinds": {name: Kind(**kind) for name, kind in given["kinds"].items()}})

    def cells(self) -> list[str]:
        """Return it as a line of the table; what differs between the kinds of client as three numbers."""

        def each(number: Callable[[Kind], float]) -> str:
            return apart(number(kind) for kind in self.kinds.values())

        failed = apart(self.failed.values())
        return [
            self.fault,
            str(sum(kind.sent for kind in self.kinds.values())),
            f"{failed}: {self.note}"
            if self.note and failed != "0"
            else f"{failed} ({self.note})"
            if self.note
            else failed,
            "?" if "no log" in self.note else str(sum(kind.retried for kind in self.kinds.values())),
            each(lambda kind: kind.found_closed + kind.hit_closed),
            each(lambda kind: kind.hit_closed),
            each(lambda kind: round(kind.slowest_ms)),
            "" if self.recovery is None else f"{self.recovery:.1f}",
        ]


def apart(numbers: Iterable[float]) -> str:
    """Return numbers of the three kinds of client, or one if they are all 0."""
    numbers = list(numbers)
    return " / ".join(f"{number:.0f}" for number in numbers) if any(numbers) else "0"


def table(rows: list[Row]) -> str:
    """Return the table in Markdown."""
    lines = [list(HEAD), ["---", *["---:"] * (len(HEAD) - 1)], *(row.cells() for row in rows)]
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)


def summary(rows: list[Row]) -> str:
    """Return the sentence above the table."""
    sent = sum(kind.sent for row in rows for kind in row.kinds.values())
    alive = [row for row in rows if row.note not in OUTAGES]
    lost = sum(sum(row.failed.values()) for row in alive)
    return (
        f"{sent} requests in {len(rows)} tests. Where an instance and nginx were alive, "
        f"{lost} of {sum(kind.sent for row in alive for kind in row.kinds.values())} failed. "
        f"Three numbers are those of {', '.join(rows[0].kinds)}.\n"
    )


def write(rows: list[Row], page: Path = PAGE) -> None:
    """Put the table between the markers."""
    before, begin, rest = page.read_text().partition(BEGIN)
    _, end, after = rest.partition(END)
    if not begin or not end:
        raise SystemExit(f"{page} has lost its markers {BEGIN.strip()} and {END.strip()}: the table has no place.")
    page.write_text(f"{before}{BEGIN}\n{summary(rows)}\n{table(rows)}\n{END}{after}")


if __name__ == "__main__":
    write([Row.from_json(row) for row in json.loads(Path(sys.argv[1]).read_text())])
    print(f"{PAGE} is written.")
