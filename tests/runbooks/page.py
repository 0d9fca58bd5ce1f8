"""The commands of docs/runbooks.md, as they stand on the page."""

from __future__ import annotations

import re

from tests import ROOT
from tests.runbooks.faults import Fault

PAGE = (ROOT / "docs" / "runbooks.md").read_text(encoding="utf-8")
SECTIONS = dict(re.findall(r"^## (\w+)\n(.*?)(?=^## |\Z)", PAGE, re.MULTILINE | re.DOTALL))
MAKE, PROMETHEUS = "make ", "In Prometheus: "
ON_CONTROL_NODE = ("openssl ", "mkdir ", ".venv/bin/")
ON_HOST = ("sudo ", "curl ", "df ", "free ", "uptime", "cat ", "timedatectl")
# They wait for somebody at the keyboard, or print passwords.
NOT_TYPED = ("make ssh", "make env")


def step(alert: str, name: str) -> str:
    """Return the text of a step. An alert that nobody is notified of has but one text, which is to act by."""
    if "**Act.**" not in SECTIONS[alert]:
        return SECTIONS[alert] if name == "Act" else ""
    [text] = re.findall(rf"^\*\*{name}\.\*\* (.*?)(?=^\*\*|\Z)", SECTIONS[alert], re.MULTILINE | re.DOTALL)
    return str(text)


def written(alert: str, name: str) -> list[str]:
    """Return what a step has the reader type: on a host, on the control node, or into Prometheus."""
    found = re.findall(rf"({PROMETHEUS})?`([^`]+)`", step(alert, name))
    return [
        before + command
        for before, command in found
        if before or (command.startswith((*ON_HOST, *ON_CONTROL_NODE, MAKE)) and not command.startswith(NOT_TYPED))
    ]


def commands(fault: Fault, name: str) -> list[str]:
    """Return what a step has the reader of this fault type."""
    found = []
    for command in written(fault.alert, name):
        if command.startswith(fault.elsewhere or ("\0",)):
            continue
        for placeholder, value in fault.names.items():
            command = command.replace(placeholder, value)
        found.append(command)
    return found
