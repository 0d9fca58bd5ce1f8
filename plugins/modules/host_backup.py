#!/usr/bin/python
"""Copy what only this host has into a folder from which the control node fetches it, while everything goes on."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import platform
import shutil
import sqlite3
import subprocess
import tarfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ansible.module_utils.basic import AnsibleModule

DOCUMENTATION = r"""
module: host_backup
short_description: Copy what only this host has into a folder from which the control node fetches it
description:
  - Nothing is stopped. The deployments are written by C(iris-deploy), under the lock of deployments; Grafana's database is copied by SQLite's own
    backup; of Prometheus' database the finished blocks, which never change, and the log of the newest samples are linked and then packed.
  - In check mode it only says how large the parts would be, and whether there is space for them.
options:
  parts:
    description: What of the host is meant. A part that the host has not got (Grafana was never started) is left out and noted.
    type: list
    elements: str
    choices: [deployments, grafana, prometheus]
    required: true
  folder:
    description: Where the parts are put; what an earlier run left there is removed.
    type: path
    default: /var/lib/fortress/backup
  owner:
    description: User id of the login, which is to fetch them.
    type: int
    default: 0
  state:
    description: V(absent) removes the folder.
    type: str
    choices: [present, absent]
    default: present
author: Fortress
"""

EXAMPLES = r"""
- name: Copy what only this host has
  host_backup:
    parts: [deployments]
    owner: 1000
"""

RETURN = r"""
kept:
  description: What was copied.
  returned: state is present
  type: dict
  contains:
    host:
      description: C(distribution), as in V(Debian 13), and C(python) and C(machine) of the host.
      type: dict
    parts:
      description: For each part C(file), the name in the folder, C(bytes) and C(sha256); in check mode C(bytes) alone, at most.
      type: dict
    deployments:
      description: What C(iris-deploy) says of the deployments.
      type: dict
    notes:
      description: What is not in it, and why.
      type: list
      elements: str
"""

PROGRAM = "usr/local/sbin/iris-deploy"
GRAFANA = "var/lib/grafana/grafana.db"
PROMETHEUS = "var/lib/prometheus/metrics2"
WAL = "wal"
# A block has its files under a name that sorts by time, a ULID.
BLOCK = "[0-9A-Z]" * 26
ATTEMPTS = 20


class BackupError(Exception):
    """What keeps a part from being copied, and what to do about it."""


@dataclass
class Part:
    """One part of what a host has."""

    file: str
    size: Callable[[], int | None]
    """Its size in bytes, at most; None where the host has no such part."""
    copy: Callable[[Path], dict[str, Any]]
    """Writes it to a file, and returns what else is to be known of it."""
    missing: str
    """What to say where the host has none."""


class HostBackup:
    """Copies parts of one host; another root is for tests."""

    def __init__(self, root: Path = Path("/")) -> None:
        self.root = root
        self.parts = {
            "deployments": Part(
                "deployments.tar",
                self._deployments_size,
                self._copy_deployments,
                "iris-deploy is not installed: nothing was deployed.",
            ),
            "grafana": Part(
                "grafana.db",
                lambda: size_of(root / GRAFANA),
                self._copy_grafana,
                f"Grafana has no database: /{GRAFANA} is not there.",
            ),
            "prometheus": Part(
                "prometheus.tar",
                lambda: size_of(root / PROMETHEUS),
                self._copy_prometheus,
                f"Prometheus has no database: /{PROMETHEUS} is not there.",
            ),
        }

    def take(self, names: list[str], folder: Path, owner: int, *, dry_run: bool) -> dict[str, Any]:
        """Copy parts into a folder that is its owner's alone; return what RETURN says."""
        kept: dict[str, Any] = {"host": self.host(), "parts": {}, "notes": []}
        sizes = {name: self.parts[name].size() for name in names}
        for name in [name for name, size in sizes.items() if size is None]:
            kept["notes"].append(self.parts[name].missing)
        found = {name: size for name, size in sizes.items() if size is not None}
        require_space(folder, sum(found.values()))
        if dry_run:
            return kept | {"parts": {name: {"bytes": size} for name, size in found.items()}}
        shutil.rmtree(folder, ignore_errors=True)
        # The login must come through it.
        folder.parent.mkdir(parents=True, exist_ok=True)
        folder.mkdir(mode=0o700)
        for name in found:
            part = self.parts[name]
            path = folder / part.file
            more = part.copy(path)
            kept["notes"] += more.pop("notes", [])
            kept |= more
            with path.open("rb") as file:
                sha256 = hashlib.file_digest(file, "sha256").hexdigest()
            kept["parts"][name] = {"file": part.file, "bytes": path.stat().st_size, "sha256": sha256}
            path.chmod(0o600)
            os.chown(path, owner, -1)
        os.chown(folder, owner, -1)
        return kept

    def host(self) -> dict[str, str]:
        """Return what a host must have in common with this one to be given its parts."""
        lines = (self.root / "etc/os-release").read_text().splitlines()
        release = {key: value.strip('"') for key, _, value in (line.partition("=") for line in lines)}
        return {
            "distribution": f"{release.get('NAME', '').split()[0]} {release.get('VERSION_ID', '')}",
            "python": ".".join(platform.python_version_tuple()[:2]),
            "machine": platform.machine(),
        }

    def _iris_deploy(self, *arguments: str) -> dict[str, Any]:
        command = [str(self.root / PROGRAM), "--json", "backup", *arguments]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if "invalid choice" in done.stderr:
            raise BackupError("The iris-deploy of this host is of an earlier release: run `make converge` first.")
        try:
            said: dict[str, Any] = json.loads(done.stdout)
        except ValueError:
            raise BackupError(f"{' '.join(command)}: {done.stderr.strip() or done.stdout.strip()}") from None
        if said.get("failed"):
            raise BackupError(str(said["message"]))
        return said

    def _deployments_size(self) -> int | None:
        if not (self.root / PROGRAM).exists():
            return None
        return int(self._iris_deploy("--dry-run", "nowhere")["bytes"])

    def _copy_deployments(self, path: Path) -> dict[str, Any]:
        said = self._iris_deploy(str(path))
        return {"deployments": {name: said[name] for name in ("current", "deployments", "releases", "hold")}} | {
            "notes": said["notes"]
        }

    def _copy_grafana(self, path: Path) -> dict[str, Any]:
        copy_sqlite(self.root / GRAFANA, path)
        return {}

    def _copy_prometheus(self, path: Path) -> dict[str, Any]:
        data = self.root / PROMETHEUS
        # Links need the same file system.
        with linked(data, data.with_name(".fortress-backup")) as links, tarfile.open(path, "w") as tar:
            for file in sorted(links.rglob("*")):
                if file.is_file():
                    # Of the segment that is still written to what it has now; Prometheus cuts off a sample that is torn.
                    tar.add(file, file.relative_to(links).as_posix())
        return {}


def size_of(path: Path) -> int | None:
    """Return the bytes of a file or of all in a folder, also where some vanish meanwhile; None where there is none."""
    if not path.exists():
        return None
    total = 0
    for file in [path] if path.is_file() else path.rglob("*"):
        with contextlib.suppress(FileNotFoundError):
            total += file.lstat().st_size if not file.is_dir() else 0
    return total


def require_space(folder: Path, size: int) -> None:
    """Raise BackupError where so many bytes would fill more than nine tenths of what is free where a folder is to be."""
    there = next(path for path in (folder, *folder.parents) if path.exists())
    free = shutil.disk_usage(there).free
    if size > 0.9 * free:
        raise BackupError(
            f"The copies take up to {size / 1e6:.0f} MB, and where {folder} is to be {free / 1e6:.0f} MB are free: make space there."
        )


def copy_sqlite(source: Path, path: Path) -> None:
    """Copy a database as it is at one moment, while others write to it, and check the copy.

    Raises:
        BackupError: The database can't be read, or is damaged.
    """
    try:
        with (
            # Not read-only: what a Grafana that was killed has left half written is undone first, as by its next start.
            contextlib.closing(sqlite3.connect(f"file:{source}?mode=rw", uri=True, timeout=30)) as database,
            contextlib.closing(sqlite3.connect(path)) as copy,
        ):
            # In one step: it takes milliseconds, and one in several begins anew whenever somebody writes.
            database.backup(copy)
            [(state,)] = copy.execute("PRAGMA integrity_check(1)").fetchall()
    except sqlite3.Error as error:
        raise BackupError(f"{source} can't be copied: {error}.") from None
    if state != "ok":
        raise BackupError(f"{source} is damaged: {state}.")


@contextlib.contextmanager
def linked(data: Path, links: Path) -> Iterator[Path]:
    """Link the blocks and the log of Prometheus' database into a folder, as they are at one moment, and remove that at the end.

    Blocks never change, but compaction replaces several by one, and segments of the log by a checkpoint. Where that
    happened meanwhile it is done again. The log is first: samples that go from there into a block are in both.

    Raises:
        BackupError: It changed each time.
    """
    try:
        for attempt in range(ATTEMPTS):
            time.sleep(0.5 if attempt else 0)
            shutil.rmtree(links, ignore_errors=True)
            before = _what_is_there(data)
            try:
                for path in before:
                    (links / path).parent.mkdir(parents=True, exist_ok=True)
                    os.link(data / path, links / path)
                if _what_is_there(data) == before:
                    break
            except FileNotFoundError:
                continue
        else:
            raise BackupError(f"{data} changed {ATTEMPTS} times while it was copied: run the same again.")
        yield links
    finally:
        shutil.rmtree(links, ignore_errors=True)


def _what_is_there(data: Path) -> list[Path]:
    # What is under construction has a suffix.
    log = [path for path in (data / WAL).rglob("*") if ".tmp" not in str(path.relative_to(data))]
    blocks = [path for block in data.glob(BLOCK) for path in block.rglob("*")]
    return [path.relative_to(data) for path in [*sorted(log), *sorted(blocks)] if path.is_file()]


def main() -> None:
    """Run as an Ansible module."""
    module = AnsibleModule(
        argument_spec={
            "parts": {
                "type": "list",
                "elements": "str",
                "required": True,
                "choices": ["deployments", "grafana", "prometheus"],
            },
            "folder": {"type": "path", "default": "/var/lib/fortress/backup"},
            "owner": {"type": "int", "default": 0},
            "state": {"type": "str", "choices": ["present", "absent"], "default": "present"},
        },
        supports_check_mode=True,
    )
    folder = Path(module.params["folder"])
    if module.params["state"] == "absent":
        there = folder.exists()
        if not module.check_mode:
            shutil.rmtree(folder, ignore_errors=True)
        module.exit_json(changed=there)
    # The site comes first.
    os.nice(19)
    os.umask(0o022)
    try:
        kept = HostBackup().take(module.params["parts"], folder, module.params["owner"], dry_run=module.check_mode)
    except (BackupError, OSError) as error:
        if not module.check_mode:
            shutil.rmtree(folder, ignore_errors=True)
        module.fail_json(msg=str(error))
    # What a backup leaves behind on the host is nothing.
    module.exit_json(changed=False, kept=kept)


if __name__ == "__main__":
    main()
