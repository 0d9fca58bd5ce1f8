"""What is shown, apart from how: Grafana draws it by panels.py, Prometheus' console page by console.py."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from tools.rules.__main__ import FILES
from tools.rules.parts import Alert

Unit = Literal["none", "reqps", "percentunit", "s", "bytes"]
"""As Grafana calls them. `percentunit` is a share of 1, also of a core."""
Colour = Literal["green", "orange", "red"]
GREEN: Colour = "green"
ORANGE: Colour = "orange"
RED: Colour = "red"
Steps = tuple[tuple[float | None, Colour], ...]
"""From which value on which colour; the first one, None, is that of all below."""

LESS_IS_BETTER: Steps = ((None, GREEN),)
ALERTS: dict[str, Alert] = {
    rule.name: rule for groups in FILES.values() for group in groups for rule in group.rules if isinstance(rule, Alert)
}
"""By its name; those of severity `info` are for other alerts, and nobody's business."""


@dataclass(frozen=True)
class Figure:
    """One number as it is now."""

    title: str
    description: str
    unit: Unit
    expr: str
    steps: Steps = LESS_IS_BETTER
    alerts: tuple[str, ...] = ()
    """The alerts that go by it, whose runbooks are linked."""
    none: str = ""
    """What it means where there is no number; without, there always is one."""
    words: dict[str, str] = field(default_factory=dict)
    """Words instead of certain values."""
    decimals: int = 0
    """Of a number without a unit: pieces have none."""


@dataclass(frozen=True)
class Column:
    """A number for each row of a table."""

    title: str
    unit: Unit
    expr: str
    steps: Steps = LESS_IS_BETTER
    full: float = 0
    """What fills a bar; 0 for none."""
    words: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Table:
    """Numbers by labels: a row for each that the first column has."""

    title: str
    description: str
    labels: dict[str, str]
    """The label that makes a row, and how its column is called."""
    columns: tuple[Column, ...]
    alerts: tuple[str, ...] = ()
    none: str = "none"
