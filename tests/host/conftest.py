"""On a failure a test on a host prints what an operator would look at first: the journal of our units."""

from __future__ import annotations

from collections.abc import Generator
from typing import Any

import pytest

UNITS = " ".join(f"--unit='{unit}'" for unit in ("iris-api@*", "nginx", "prometheus*", "grafana-server", "init.scope"))


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item, call: pytest.CallInfo[None]) -> Generator[None, Any, Any]:
    """Add the last lines of the journal, and the failed units, to the report of a failed test."""
    report = yield
    host = getattr(item, "funcargs", {}).get("host")
    if report.when == "call" and report.failed and host is not None:
        for title, command in (
            ("failed units", "systemctl --failed --no-legend --plain"),
            ("journal, last lines", f"journalctl --no-pager --lines=60 --output=short-iso {UNITS}"),
        ):
            report.sections.append((f"{host.backend.hostname}: {title}", host.run(command).stdout))
    return report
