"""What observing costs at full load, by the load generator's own processor time."""

from __future__ import annotations

import os
import time
from types import SimpleNamespace

import pytest

from benchmarks import observing


def test_of_any_interval_it_is_known_what_a_process_took() -> None:
    spent = observing.Spent()
    spent._seen = [(10.0, 1.0), (20.0, 5.0), (30.0, 5.0)]
    assert spent.share(12, 17) == pytest.approx(0.4)
    assert spent.share(15, 25) == pytest.approx(0.2)


def test_a_process_is_looked_at_until_it_has_ended() -> None:
    child = os.fork()
    if child == 0:
        end = time.process_time() + 0.5
        while time.process_time() < end:
            pass
        os._exit(0)
    spent = observing.Spent()
    spent.watch(child)
    os.waitpid(child, 0)
    time.sleep(0.2)
    seen = list(spent._seen)
    # It was looked at each tenth of a second, the last time before it ended.
    assert 0.2 <= seen[-1][1] <= 0.6
    time.sleep(0.2)
    assert spent._seen == seen


def test_a_slower_processor_changes_the_requests_and_not_the_share() -> None:
    """In the second round it was slower by half while the parts were stopped."""
    full = [observing.Round(950, 1000, 0.38, 0.4), observing.Round(950, 500, 0.38, 0.4)]
    steady = SimpleNamespace(requests=500, parts={"mtail": (0.01, 2**20)}, samples=0, bytes_a_day=0)
    said = observing.report({"iris": steady}, full)  # type: ignore[dict-item]
    assert "which had 95% to 190%" in said
    assert "it is 95.0%, and the rounds had 95% to 95%" in said
