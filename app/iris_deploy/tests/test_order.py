"""In which order instances are switched, and how long between two: what serves is touched last, and never in haste."""

from __future__ import annotations

import itertools

import pytest

from .conftest import Site


def dies(site: Site, *numbers: int) -> None:
    """Let instances be dead."""
    for number in numbers:
        site.machine.units[f"iris-api@{number}.service"].active = "failed"


@pytest.mark.parametrize("alive", [1, 2, 3])
def test_the_last_one_that_serves_is_touched_last(site: Site, alive: int) -> None:
    """`make deploy` while two instances are dead, which is what one types to repair them."""
    site.deployed()
    site.settings(settle=7)
    dies(site, *({1, 2, 3} - {alive}))
    assert site.deploy(site.deployment(model="m2"))["changed"]
    assert site.started == ["candidate", *(str(number) for number in (1, 2, 3) if number != alive), str(alive)]
    times = [when for _, when in site.machine.starts[1:]]
    # Of the dead ones nobody waits for an answer; the living one waits until the gateway asks them again.
    assert times[1] - times[0] < 1
    assert times[2] - times[1] >= 7


def test_what_dies_meanwhile_is_next(site: Site) -> None:
    site.deployed()
    site.machine.when[("--no-block", "iris-api@1.service")] = lambda: dies(site, 3)
    assert site.deploy(site.deployment(model="m2"))["changed"]
    assert site.started == ["candidate", "1", "3", "2"]


def test_the_living_one_goes_on_where_the_dead_ones_do_not_come_up(site: Site) -> None:
    old = site.deployed()
    dies(site, 1, 2)
    assert site.deploy(site.deployment("r-second"))["failed"]
    assert "3" not in site.started
    assert site.serving[3] == ("active", old.id)


def test_what_serves_is_left_alone_for_a_while_after_anything_else_began_to(site: Site) -> None:
    """Somebody may have restarted an instance just before, so that the gateway still leaves it alone."""
    site.deployed()
    site.settings(settle=7)
    began = site.machine.time
    site.deploy(site.deployment(model="m2"))
    assert site.machine.starts[1][1] - began >= 7


def test_on_the_way_back_too_the_gateway_has_time_to_ask_again(site: Site) -> None:
    site.deployed()
    site.settings(settle=7)
    assert site.deploy(site.deployment("r-second"))["failed"]
    assert site.started == ["candidate", "1", "2", "2", "1"]
    one, two, two_back, one_back = (when for _, when in site.machine.starts[1:])
    assert two - one >= 7
    # It was dead.
    assert two_back - two < 1
    assert one_back - two_back >= 7


def test_where_nothing_serves_nobody_waits(site: Site) -> None:
    site.settings(settle=7)
    site.deploy(site.deployment())
    assert all(later - earlier < 1 for (_, earlier), (_, later) in itertools.pairwise(site.machine.starts))
