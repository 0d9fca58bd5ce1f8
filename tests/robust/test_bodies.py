"""Whatever is sent through the gateway, the answer is right or says what is wrong with it, and comes at once.

The bodies are those that app/iris_api/tests/test_fuzz.py gives to the API in its process, FUZZ_EXAMPLES of each kind.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Iterator

import httpx
import pytest

from app.iris_api.tests.strategies import (
    EXAMPLES,
    any_binary_body_of_infer,
    any_body_of_infer,
    any_body_of_predict,
    send_to_infer,
    send_to_predict,
)
from tests.robust.site_under_test import Instance, Site

GROWTH_MB = 8
"""How much an instance may grow over all bodies of a test, however many; some of it is what the first ones load."""

Statuses = Counter[int]


@pytest.fixture
def statuses(site: Site, unharmed: list[Instance]) -> Iterator[Statuses]:
    """Counts answers by status; says at the end how many there were and what they left in memory."""
    counted: Statuses = Counter()
    started = time.monotonic()
    before = site.memory(unharmed)
    yield counted
    seconds = time.monotonic() - started
    after = site.memory(unharmed)
    growth = {name: round(after[name] - before[name], 1) for name in before}
    print(f"{counted.total()} bodies in {seconds:.0f} s, answered {dict(counted)}; memory grew by {growth} MB")
    assert counted.total() >= EXAMPLES, "fewer bodies were sent than were asked for"
    assert counted[200], "no body was a right one: what stands behind the checks was never reached"
    assert counted.total() > counted[200], "every body was a right one"
    assert max(growth.values()) <= GROWTH_MB


@any_body_of_predict
def test_no_body_of_predict(client: httpx.Client, statuses: Statuses, body: bytes) -> None:
    statuses[send_to_predict(client, body)] += 1


@any_body_of_infer
def test_no_body_of_the_protocol(client: httpx.Client, statuses: Statuses, body: bytes) -> None:
    statuses[send_to_infer(client, body)] += 1


@any_binary_body_of_infer
def test_no_binary_tensor(client: httpx.Client, statuses: Statuses, body: tuple[bytes, int]) -> None:
    statuses[send_to_infer(client, body)] += 1
