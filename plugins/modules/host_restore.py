#!/usr/bin/python
"""Put a database of a backup on a host, in the place of the one that its service has begun."""

from __future__ import annotations

import contextlib
import hashlib
import os
import shutil
import subprocess
import tarfile
from collections.abc import Callable
from pathlib import Path

from ansible.module_utils.basic import AnsibleModule

DOCUMENTATION = r"""
module: host_restore
short_description: Put a database of a backup on a host
description:
  - The service is stopped, what it has begun is replaced in one step, and a service that ran is started again. Where the same archive was put
    there before, nothing happens, so that a restore that was cut short can be run again.
options:
  part:
    description: What it is.
    type: str
    choices: [grafana, prometheus]
    required: true
  archive:
    description: What the module C(host_backup) wrote, on this host; it is removed.
    type: path
    required: true
author: Fortress
"""

EXAMPLES = r"""
- name: Restore the database
  host_restore:
    part: prometheus
    archive: /var/lib/fortress/restore/prometheus.tar
"""

RETURN = r"""
"""

PLACES = {
    "grafana": ("grafana-server.service", "var/lib/grafana/grafana.db"),
    "prometheus": ("prometheus.service", "var/lib/prometheus/metrics2"),
}


class RestoreError(Exception):
    """What keeps a database from being put there."""


def systemctl(*arguments: str) -> bool:
    """Run systemctl; return whether it succeeded."""
    return subprocess.run(["systemctl", *arguments], capture_output=True, check=False).returncode == 0


class HostRestore:
    """Restores parts of one host; another root, and another systemd, are for tests."""

    def __init__(self, root: Path = Path("/"), systemctl: Callable[..., bool] = systemctl) -> None:
        self.root = root
        self.systemctl = systemctl

    def put(self, part: str, archive: Path) -> bool:
        """Put a part in its place; return whether it was not there already.

        Raises:
            RestoreError: The archive is damaged, or the service can't be stopped.
        """
        unit, path = PLACES[part]
        place = self.root / path
        with archive.open("rb") as file:
            sha256 = hashlib.file_digest(file, "sha256").hexdigest()
        done = self.root / "var/lib/fortress/restored" / part
        if done.exists() and done.read_text() == sha256:
            archive.unlink()
            return False
        draft, old = (place.with_name(f".{place.name}.{suffix}") for suffix in ("new", "old"))
        for path_left in (draft, old):
            remove(path_left)
        try:
            unpack(archive, draft) if part == "prometheus" else shutil.copyfile(archive, draft)
        except (OSError, tarfile.TarError) as error:
            remove(draft)
            raise RestoreError(f"{archive} could not be unpacked: {error}") from None
        self._give(draft)
        ran = self.systemctl("is-active", "--quiet", unit)
        if not self.systemctl("stop", unit):
            raise RestoreError(f"{unit} can't be stopped: systemctl status {unit}")
        # A journal of a database belongs to that one alone.
        for beside in place.parent.glob(f"{place.name}-*"):
            remove(beside)
        with contextlib.suppress(FileNotFoundError):
            place.rename(old)
        draft.rename(place)
        done.parent.mkdir(mode=0o755, parents=True, exist_ok=True)
        done.write_text(sha256)
        os.sync()
        if ran and not self.systemctl("start", unit):
            raise RestoreError(f"{unit} can't be started with what was restored: journalctl --unit={unit}")
        remove(old)
        archive.unlink()
        return True

    def _give(self, draft: Path) -> None:
        """Make it the service's own, as the folder is in which it lies."""
        owner = draft.parent.stat()
        for path in [draft, *draft.rglob("*")]:
            path.chmod(0o750 if path.is_dir() else 0o640)
            os.chown(path, owner.st_uid, owner.st_gid)


def remove(path: Path) -> None:
    """Remove a file or a folder, where it is there."""
    if path.is_dir():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def unpack(archive: Path, folder: Path) -> None:
    """Unpack an archive of regular files; the filters of tarfile do this, but Debian 12 has none."""
    with tarfile.open(archive) as tar:
        for member in tar:
            path, content = folder / member.name, tar.extractfile(member) if member.isreg() else None
            if not content or ".." in path.parts or not path.is_relative_to(folder):
                raise tarfile.TarError(f"{member.name!r} is no file of its own")
            path.parent.mkdir(parents=True, exist_ok=True)
            with path.open("wb") as file:
                shutil.copyfileobj(content, file)


def main() -> None:
    """Run as an Ansible module."""
    module = AnsibleModule(
        argument_spec={
            "part": {"type": "str", "choices": list(PLACES), "required": True},
            "archive": {"type": "path", "required": True},
        }
    )
    try:
        changed = HostRestore().put(module.params["part"], Path(module.params["archive"]))
    except (RestoreError, OSError) as error:
        module.fail_json(msg=str(error))
    module.exit_json(changed=changed)


if __name__ == "__main__":
    main()
