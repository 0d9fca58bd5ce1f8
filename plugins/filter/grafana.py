"""Keys of Grafana's package repository, queries of its panels, and the operator's note."""

from __future__ import annotations

import re
import shlex
from collections.abc import Callable, Mapping, Sequence
from typing import Any

DOCUMENTATION = r"""
name: grafana
short_description: Keys of Grafana's repository, queries of its panels
description:
  - O(key_ids) shortens fingerprints of OpenPGP keys to the keys' ids.
  - O(primary_fingerprints) reads the fingerprints of the primary keys from what C(gpg --with-colons) lists.
  - O(panel_queries) makes the queries of a panel as a page sends them.
  - O(queries_with_data) lists the queries that returned data.
  - O(grafana_note) says why there is no Grafana, as a value for the shell.
author: Fortress
"""

NOTE = "FORTRESS_GRAFANA_NOTE"
UNREACHABLE = "not installed: its package repository could not be reached"


def key_ids(fingerprints: Sequence[str]) -> list[str]:
    """Return the long id of each key, the last 16 digits of its fingerprint."""
    return [fingerprint[-16:] for fingerprint in fingerprints]


def primary_fingerprints(listing: str) -> list[str]:
    """Return the fingerprint of each primary key, 40 digits, in what `gpg --show-keys --with-colons` prints.

    The first `fpr` line after a `pub` line is the primary key's; later ones belong to its subkeys.
    """
    return re.findall(r"pub:.*\nfpr:+([0-9A-F]{40}):", listing)


def panel_queries(targets: Sequence[Mapping[str, Any]], chosen: str = ".*") -> list[dict[str, Any]]:
    """Return the queries of a panel as a page sends them to `/api/ds/query`.

    Args:
        targets: The panel's `targets` in the dashboard.
        chosen: What takes the place of the dashboards' variables `$instance` and `$host`: a regular expression.
    """
    asked = [_replace(_replace(target, "$instance", chosen), "$host", chosen) for target in targets]
    return [target | {"intervalMs": 3000, "maxDataPoints": 500} for target in asked]


def queries_with_data(results: Mapping[str, Any]) -> list[str]:
    """Return the `refId` of each query whose first frame has at least one value.

    Args:
        results: `results` of an answer of `/api/ds/query`: `{refId: {"frames": [{"data": {"values": [[...], ...]}}]}}`.
    """
    return [name for name, result in results.items() if _first_column(result)]


def grafana_note(settings: str, probe: Mapping[str, Any] | None, service: Mapping[str, Any] | None) -> str:
    """Return why there is no Grafana, as a value of a shell variable: `''` where there is one.

    Args:
        settings: The settings file of an earlier run; a run without the role grafana keeps what it says.
        probe: The role's result of probing the package repository, None without the role.
        service: The role's result of starting the service, None without the role or where it was left out.
    """
    if probe is None and service is None:
        kept = re.search(f"{NOTE}=(.+)", settings)
        return kept[1] if kept else "''"
    return shlex.quote(UNREACHABLE if (probe or {}).get("rc", 0) != 0 else "")


def _replace(value: Any, old: str, new: str) -> Any:
    if isinstance(value, str):
        return value.replace(old, new)
    if isinstance(value, Mapping):
        return {name: _replace(item, old, new) for name, item in value.items()}
    if isinstance(value, Sequence):
        return [_replace(item, old, new) for item in value]
    return value


def _first_column(result: Mapping[str, Any]) -> Sequence[Any]:
    """Return the first column of the first frame, in which Grafana has the times; empty where there is none."""
    frames = result.get("frames") or [{}]
    columns: Sequence[Sequence[Any]] = (frames[0].get("data") or {}).get("values") or [[]]
    return columns[0]


class FilterModule:
    """What Ansible loads."""

    def filters(self) -> dict[str, Callable[..., Any]]:
        """Name the filters of this file."""
        return {
            "key_ids": key_ids,
            "primary_fingerprints": primary_fingerprints,
            "panel_queries": panel_queries,
            "queries_with_data": queries_with_data,
            "grafana_note": grafana_note,
        }
