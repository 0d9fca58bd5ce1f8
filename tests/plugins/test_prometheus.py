"""Labels that distinguish the targets of Prometheus: plugins/filter/prometheus.py."""

from __future__ import annotations

from ansible.plugins.loader import filter_loader

from tests import ROOT

filter_loader.add_directory(str(ROOT / "plugins" / "filter"))
series_labels = filter_loader.get("series_labels").j2_function


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
