"""Keys of Grafana's package repository, queries of its panels, and the operator's note."""

from __future__ import annotations

import io
import re
import shlex
import tarfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from email import message_from_bytes
from pathlib import Path, PurePosixPath
from typing import Any

from ansible.errors import AnsibleFilterError

DOCUMENTATION = r"""
name: grafana
short_description: Keys of Grafana's repository, queries of its panels
description:
  - O(key_ids) shortens fingerprints of OpenPGP keys to the keys' ids.
  - O(primary_fingerprints) reads the fingerprints of the primary keys from what C(gpg --with-colons) lists.
  - O(panel_queries) makes the queries of a panel as a page sends them.
  - O(queries_with_data) lists the queries that returned data.
  - O(deb_version) reads the version of a package from its file.
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


def deb_version(path: str) -> str:
    """Return the version of a Debian package, read from its file: deb(5), with control plain or by gzip, xz or bzip2.

    Raises:
        AnsibleFilterError: It is no such file.
    """
    try:
        control = next(content for name, content in _members(Path(path)) if name.startswith("control.tar"))
        with tarfile.open(fileobj=io.BytesIO(control)) as archive:
            file = next(member for member in archive if PurePosixPath(member.name).name == "control")
            text = archive.extractfile(file)
            assert text is not None
            return message_from_bytes(text.read())["Version"].strip()
    except (OSError, tarfile.TarError, StopIteration, ValueError, AssertionError, AttributeError) as error:
        raise AnsibleFilterError(
            f"{path} can't be read as a Debian package whose control archive is plain or packed by gzip, xz or bzip2"
            f" ({error or type(error).__name__}). `dpkg-deb --info {path}` says what it is."
        ) from error


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


def _members(path: Path) -> Iterator[tuple[str, bytes]]:
    """Yield the members of an archive of ar(5), up to the one that is asked for: the last one is large."""
    with path.open("rb") as file:
        if file.read(8) != b"!<arch>\n":
            raise ValueError("it does not begin as one")
        while len(head := file.read(60)) == 60:
            size = int(head[48:58])
            yield head[:16].decode("ascii").strip().rstrip("/"), file.read(size)
            file.seek(size % 2, 1)


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
            "deb_version": deb_version,
            "grafana_note": grafana_note,
        }
