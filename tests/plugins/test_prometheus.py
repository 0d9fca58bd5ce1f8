"""Labels that distinguish the targets of Prometheus: plugins/filter/prometheus.py."""

from __future__ import annotations

from ansible.plugins.loader import filter_loader

from tests import ROOT

filter_loader.add_directory(str(ROOT / "plugins" / "filter"))
series_labels, not_scraped = (filter_loader.get(name).j2_function for name in ("series_labels", "not_scraped"))


def test_a_target_has_its_address_as_its_instance_unless_a_label_says_otherwise() -> None:
    targets = [
        {"address": "192.0.2.1:9100"},
        {"address": "192.0.2.2:9100", "labels": None},
        {"address": "192.0.2.3:9100", "labels": {"host": "a3"}},
        {"address": "192.0.2.4:9100", "labels": {"instance": "a4"}},
    ]
    assert series_labels(targets) == [
        {"instance": "192.0.2.1:9100"},
        {"instance": "192.0.2.2:9100"},
        {"instance": "192.0.2.3:9100", "host": "a3"},
        {"instance": "a4"},
    ]


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
