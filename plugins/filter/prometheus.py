"""Labels that distinguish the targets of Prometheus, and which of them do not answer."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any

DOCUMENTATION = r"""
name: prometheus
short_description: Labels that distinguish the targets of Prometheus
description:
  - O(mixed_jobs) names the jobs that have two targets of the same labels.
  - O(not_scraped) lists the targets that Prometheus does not reach.
author: Fortress
"""


def mixed_jobs(jobs: Sequence[Mapping[str, Any]]) -> list[str]:
    """Return the names of those jobs of which two targets have the same labels."""
    series = {job["name"]: _series_labels(job["targets"]) for job in jobs}
    return [name for name, labels in series.items() if any(each in labels[:index] for index, each in enumerate(labels))]


def not_scraped(targets: Sequence[Mapping[str, Any]], left_out: Collection[str] = ()) -> list[Mapping[str, Any]]:
    """Return the targets that do not answer, of hosts that are not left out.

    Args:
        targets: `activeTargets` of Prometheus' /api/v1/targets: `{"health": "up", "labels": {"instance": ...}}` each.
            The host of an instance is in its label `host`; that of all others is their `instance`.
        left_out: Hosts of which nothing is expected.
    """
    return [
        target
        for target in targets
        if target["health"] != "up" and target["labels"].get("host", target["labels"]["instance"]) not in left_out
    ]


def _series_labels(targets: Sequence[Mapping[str, Any]]) -> list[dict[str, str]]:
    """Return the labels of each target's series: its own, and `instance`, which is its address unless it names another.

    Args:
        targets: `{"address": "127.0.0.1:8001", "labels": {...}}` each; labels may be missing.
    """
    return [{"instance": target["address"]} | dict((target.get("labels") or {}).items()) for target in targets]


class FilterModule:
    """What Ansible loads."""

    def filters(self) -> dict[str, Callable[..., Any]]:
        """Name the filters of this file."""
        return {"mixed_jobs": mixed_jobs, "not_scraped": not_scraped}
