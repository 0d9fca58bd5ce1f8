"""Labels that distinguish the targets of Prometheus."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

DOCUMENTATION = r"""
name: prometheus
short_description: Labels that distinguish the targets of Prometheus
description:
  - O(series_labels) lists the labels that the series of each target get.
author: Fortress
"""


def series_labels(targets: Sequence[Mapping[str, Any]]) -> list[dict[str, str]]:
    """Return the labels of each target's series: its own, and `instance`, which is its address unless it names another.

    Args:
        targets: `{"address": "127.0.0.1:8001", "labels": {...}}` each; labels may be missing.
    """
    return [{"instance": target["address"]} | dict((target.get("labels") or {}).items()) for target in targets]


class FilterModule:
    """What Ansible loads."""

    def filters(self) -> dict[str, Callable[..., Any]]:
        """Name the filters of this file."""
        return {"series_labels": series_labels}
