"""Writes what the tests measured into docs/faults.md, between its markers: `python -m tests.faults.table RECORD`."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from tests import ROOT
from tests.faults.siege import Attack, Polite
from tests.faults.traffic import Kind
from tools import pages

PAGE = ROOT / "docs" / "faults.md"
BEGIN = "<!-- written by make faults -->\n"
ATTACKS_BEGIN = "<!-- attacks, written by make attacks -->\n"
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
    "longest gap (s)",
    "recovery (s)",
)
ATTACK_HEAD = (
    "attack",
    "requests begun",
    "connections (held)",
    "MB",
    "what came back",
    "polite: sent",
    "failed",
    "p99 (ms)",
    "longest gap (s)",
    "late (ms)",
    "run",
)
# Of what came back, that is.
MOST_ANSWERS = 4


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
            " / ".join(f"{kind.gap_s:.1f}" for kind in self.kinds.values()),
            "" if self.recovery is None else f"{self.recovery:.1f}",
        ]


def apart(numbers: Iterable[float]) -> str:
    """Return numbers of the three kinds of client, or one if they are all 0."""
    numbers = list(numbers)
    return " / ".join(f"{number:.0f}" for number in numbers) if any(numbers) else "0"


@dataclass(frozen=True)
class AttackRow:
    """What one attack sent, and what a polite client noticed of it."""

    name: str
    model: str
    attack: Attack
    polite: Polite
    run: int = 1
    """Which it was: one in which only times were wrong is done again."""

    def as_json(self) -> dict[str, Any]:
        """Return it for the record."""
        return asdict(self)

    @classmethod
    def from_json(cls, given: dict[str, Any]) -> AttackRow:
        """Return it from the record."""
        return cls(**given | {"attack": Attack(**given["attack"]), "polite": Polite(**given["polite"])})

    def cells(self) -> list[str]:
        """Return it as a line of the table."""
        attack, polite = self.attack, self.polite
        common = sorted(attack.answers.items(), key=lambda answer: -answer[1])
        others = sum(count for _, count in common[MOST_ANSWERS:])
        answers = [f"{answer}: {count}" for answer, count in common[:MOST_ANSWERS]]
        return [
            self.name,
            str(attack.requests),
            f"{attack.connections} ({attack.held})",
            f"{attack.bytes / 1e6:.1f}",
            ", ".join([*answers, *([f"others: {others}"] if others else [])]),
            str(polite.sent),
            str(polite.failed),
            f"{polite.p99_ms:.0f}",
            f"{polite.gap_s:.1f}",
            f"{polite.late_ms:.0f}",
            str(self.run),
        ]


def table(rows: Iterable[Row | AttackRow], head: Sequence[str] = HEAD) -> str:
    """Return the table in Markdown."""
    lines = [list(head), ["---", *["---:"] * (len(head) - 1)], *(row.cells() for row in rows)]
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)


def summary(rows: list[Row]) -> str:
    """Return the sentence above the table."""
    sent = sum(kind.sent for row in rows for kind in row.kinds.values())
    alive = [row for row in rows if row.note not in OUTAGES]
    lost = sum(sum(row.failed.values()) for row in alive)
    return (
        f"{sent} requests in {len(rows)} rows. Where an instance and nginx were alive, "
        f"{lost} of {sum(kind.sent for row in alive for kind in row.kinds.values())} failed. "
        f"Three numbers are those of {', '.join(rows[0].kinds)}.\n"
    )


def write(rows: list[Row], page: Path = PAGE) -> None:
    """Put the table of the faults between its markers."""
    pages.put(page, BEGIN, f"{summary(rows)}\n{table(rows)}")


def write_attacks(rows: list[AttackRow], page: Path = PAGE) -> None:
    """Put the tables of the attacks, one for each model, between their markers."""
    polite = [row.polite for row in rows]
    lines = [f"{sum(each.failed for each in polite)} of {sum(each.sent for each in polite)} polite requests failed.\n"]
    for model in dict.fromkeys(row.model for row in rows):
        lines.append(f"Served is the model `{model}`:\n")
        lines.append(table([row for row in rows if row.model == model], ATTACK_HEAD))
    pages.put(page, ATTACKS_BEGIN, "\n".join(lines))


if __name__ == "__main__":
    record = json.loads(Path(sys.argv[1]).read_text())
    # `make faults` has nothing to say about the attacks, and `make attacks` nothing about the faults.
    if record["faults"]:
        write([Row.from_json(row) for row in record["faults"]])
    if record["attacks"]:
        write_attacks([AttackRow.from_json(row) for row in record["attacks"]])
    print(f"{PAGE} is written.")
