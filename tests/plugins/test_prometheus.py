"""Labels that distinguish the targets of Prometheus: plugins/filter/prometheus.py."""

from __future__ import annotations

from typing import Any

from ansible.plugins.loader import filter_loader

from tests import ROOT

filter_loader.add_directory(str(ROOT / "plugins" / "filter"))
mixed_jobs, not_scraped = (filter_loader.get(name).j2_function for name in ("mixed_jobs", "not_scraped"))


def test_a_job_is_mixed_where_two_of_its_targets_have_the_same_labels() -> None:
    """Its address is a target's instance, unless a label says otherwise."""
    two: list[dict[str, Any]] = [{"address": "192.0.2.1:9100"}, {"address": "192.0.2.2:9100", "labels": None}]
    same = [{"address": each["address"], "labels": {"instance": "a"}} for each in two]
    apart = [{"address": each["address"], "labels": {"instance": "a", "host": each["address"]}} for each in two]
    named = [two[0], {"address": "192.0.2.3:9100", "labels": {"instance": "192.0.2.1:9100"}}]
    jobs = {"two": two, "same": same, "apart": apart, "named": named}
    assert mixed_jobs([{"name": name, "targets": targets} for name, targets in jobs.items()]) == ["same", "named"]


def test_a_target_that_does_not_answer_is_named_unless_its_host_is_left_out() -> None:
    up, down, of_lost, lost = (
        {"health": health, "labels": labels}
        for health, labels in (
            ("up", {"job": "node", "instance": "m1"}),
            ("down", {"job": "iris-api", "instance": "iris-api@1", "host": "a2"}),
            ("down", {"job": "iris-api", "instance": "iris-api@1", "host": "a1"}),
            ("unknown", {"job": "node", "instance": "a1"}),
        )
    )
    assert not_scraped([up, down, of_lost, lost], ["a1"]) == [down]
    assert not_scraped([up, down, of_lost, lost]) == [down, of_lost, lost]
