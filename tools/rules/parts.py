"""What a file of rules is made of: groups of records and alerts, and how they are written."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import yaml

Severity = Literal["critical", "warning", "info"]
"""`critical` wakes somebody: users fail now, or will soon. `warning` is for working hours. `info` notifies nobody."""

RUNBOOKS = "docs/runbooks.md"
RUNBOOKS_PAGE = "consoles/runbooks.html"
"""The same as a page of Prometheus, below the address by which people reach it (prometheus_external_url)."""
HEADER = """\
# Managed by Fortress (role prometheus): changes made here are overwritten.
# Made by tools/rules: change them there, then `make rules`.
"""
HOST = {"host": "{{ $labels.instance }}"}
"""For alerts of targets whose label `instance` is the host; inhibition compares this label."""


def where(*matchers: str) -> str:
    """Return what stands behind the name of a metric: matchers in braces, or nothing.

    Expressions that a panel of tools/dashboards asks too are functions with the panel's own matcher as argument.
    """
    given = ", ".join(matcher for matcher in matchers if matcher)
    return f"{{{given}}}" if given else ""


def one_line(expr: str) -> str:
    """Return an expression on one line."""
    return " ".join(expr.split())


@dataclass(frozen=True)
class Record:
    """A series that is computed at each evaluation."""

    name: str
    expr: str
    labels: dict[str, str] = field(default_factory=dict)

    def built(self) -> dict[str, Any]:
        """Return it as Prometheus reads it."""
        labels = {"labels": self.labels} if self.labels else {}
        return {"record": self.name, "expr": one_line(self.expr)} | labels


@dataclass(frozen=True)
class Alert:
    """What somebody is told."""

    name: str
    severity: Severity
    expr: str
    summary: str
    """One sentence with the value, or with how many; templates of Prometheus."""
    description: str
    """What it means for users, and where to look first."""
    hold: str = ""
    """How long the expression must hold: what passes by itself in this time is nobody's business."""
    labels: dict[str, str] = field(default_factory=dict)

    @property
    def runbook(self) -> str:
        """Where its section of the runbooks stands in the repository."""
        return f"{RUNBOOKS}#{self.name.lower()}"

    def built(self) -> dict[str, Any]:
        """Return it as Prometheus reads it."""
        rule: dict[str, Any] = {"alert": self.name, "expr": one_line(self.expr)}
        if self.hold:
            rule["for"] = self.hold
        rule["labels"] = {"severity": self.severity, **self.labels}
        rule["annotations"] = {
            "summary": self.summary,
            "description": self.description,
            "runbook": self.runbook,
            # As receivers of others call a link to it.
            "runbook_url": f"{{{{ $externalURL }}}}/{RUNBOOKS_PAGE}#{self.name.lower()}",
        }
        return rule


@dataclass(frozen=True)
class Group:
    """Rules that are evaluated one after the other."""

    name: str
    rules: Sequence[Record | Alert]
    interval: str = ""
    """How often, where not as often as all others."""

    def built(self) -> dict[str, Any]:
        """Return it as Prometheus reads it."""
        interval = {"interval": self.interval} if self.interval else {}
        return {"name": self.name} | interval | {"rules": [rule.built() for rule in self.rules]}


class _Dumper(yaml.SafeDumper):
    """Indents lists as yamllint wants them."""

    def increase_indent(self, flow: bool = False, indentless: bool = False) -> None:
        super().increase_indent(flow, False)


def render(groups: Sequence[Group]) -> str:
    """Return a file of rules."""
    built = {"groups": [group.built() for group in groups]}
    return HEADER + yaml.dump(built, Dumper=_Dumper, sort_keys=False, width=90, allow_unicode=True)
