"""Runbooks of what a deployment may bring or leave behind: what they say ends the alert while its fault stands.

At the end is deployed what the inventory says: the runbooks say so.
"""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from testinfra.host import Host

from tests.operator import deploy
from tests.runbooks.faults import TOGETHER, Fault
from tests.runbooks.trial import asked, try_runbooks

testinfra_hosts = ["ansible://monitoring"]
pytestmark = pytest.mark.one_release


@pytest.fixture(scope="module", autouse=True)
def site_that_is_asked(host: Host, inventory: str, one_host: None) -> Iterator[None]:
    # The model of the test before has an environment, and other columns than clients would ask for.
    done = deploy(inventory)
    assert done.returncode == 0, done.stdout
    with asked(host):
        yield


@pytest.mark.parametrize("faults", TOGETHER["deployments"].values(), ids=TOGETHER["deployments"])
def test_what_a_runbook_says_ends_the_alert(host: Host, inventory: str, faults: list[Fault]) -> None:
    try_runbooks(host, inventory, faults)
