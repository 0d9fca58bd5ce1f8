"""The rules with shorter durations. What these are is proven by promtool (tests/rules), and not again by waiting."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import replace

from tools.rules.__main__ import FILES
from tools.rules.parts import Alert, Group, Record, render

EVALUATED = "5s"
HOLD = "10s"
# What is written every 15 s changes three times within a minute.
LONG, SHORT = "1m", "30s"
AGE = {"HostMetricsOld": ("> 120", "> 40")}
SECONDS = {"s": 1, "m": 60, "h": 3600, "d": 86400, "w": 604800}


def hurried() -> dict[str, str]:
    """Return each file of rules: as it is, but for durations, of which none is more than a minute."""
    return {name: render(_groups(groups)) for name, groups in FILES.items()}


def in_a_hurry(expr: str) -> str:
    """Return an expression over shorter windows."""

    def window(found: re.Match[str]) -> str:
        number, unit, every = found.groups()
        seconds = int(number) * SECONDS[unit]
        if every:
            # Of a day, or of a week before this hour, as many values as the rule wants.
            return "[1m:2s]" if unit == "w" else "[10s:5s]"
        return f"[{LONG}]" if seconds > 300 else f"[{SHORT}]"

    return re.sub(r"\[(\d+)([smhdw])(:\w+)?\]", window, expr).replace("offset 1h", "offset 1m")


def _groups(groups: Sequence[Group]) -> list[Group]:
    return [replace(group, interval=EVALUATED, rules=[_rule(rule) for rule in group.rules]) for group in groups]


def _rule(rule: Record | Alert) -> Record | Alert:
    rule = replace(rule, expr=in_a_hurry(rule.expr))
    if isinstance(rule, Alert):
        before, after = AGE.get(rule.name, ("", ""))
        rule = replace(
            rule, hold=HOLD if rule.hold else "", expr=rule.expr.replace(before, after) if before else rule.expr
        )
    return rule
