"""Runbooks: while a fault stands, their commands are run as they stand on the page, and the alert ends."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from testinfra.host import Host

from tests.alerts.conftest import SETTINGS, Received
from tests.runbooks.faults import TOGETHER, Fault
from tests.runbooks.trial import asked, try_runbooks

testinfra_hosts = ["ansible://monitoring"]


@pytest.fixture(scope="module", autouse=True)
def site_that_is_asked(host: Host, one_host: None, received: Received) -> Iterator[None]:
    with asked(host):
        yield


@pytest.mark.parametrize("faults", TOGETHER["alerts"].values(), ids=TOGETHER["alerts"])
def test_what_a_runbook_says_ends_the_alert(host: Host, inventory: str, tmp_path: Path, faults: list[Fault]) -> None:
    settings = tmp_path / "settings.json"
    settings.write_text(json.dumps(SETTINGS))
    try_runbooks(host, inventory, faults, "-e", f"@{settings}")
