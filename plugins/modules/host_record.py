#!/usr/bin/python
"""Record what a host has before the first change, so that `make remove` can leave it like that."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

from ansible.module_utils.basic import AnsibleModule

DOCUMENTATION = r"""
module: host_record
short_description: Record what a host has before the first change
description:
  - Writes which packages are installed and which of them by hand, the state of systemd's units, the users and the groups, in
    C(/var/lib/fortress/before/host.json). A record that is there stays as it is.
  - From then on config_tree keeps, beside it, the original of each file that it replaces.
author: Fortress
"""

EXAMPLES = r"""
- name: Write what the host has before the first change
  host_record:
"""

RETURN = r"""
path:
  description: The record.
  returned: always
  type: str
"""

Lines = Callable[..., list[str]]
RECORD = "var/lib/fortress/before/host.json"


def lines(*command: str) -> list[str]:
    """Return what a program prints. Raises subprocess.CalledProcessError, OSError."""
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout.splitlines()


def state(root: Path = Path("/"), lines: Lines = lines) -> dict[str, Any]:
    """Return what a host has; another root and other programs are for tests.

    Returns:
        `packages` and `manual`, names of Debian packages, some with their architecture (`libc6:amd64`) too; `units`, unit to
        its state (`enabled`, ...); `active`, units that run; `users`, `groups`; `folders`, those whose data may outlive the
        package that made them.
    """
    # apt names one of this architecture without it, dpkg some of them with it.
    installed = lines("dpkg-query", "--show", "--showformat=${db:Status-Abbrev} ${Package} ${binary:Package}\\n")
    listed = ("--no-legend", "--no-pager", "--plain")
    return {
        "packages": sorted({name for line in installed if line[1:2] == "i" for name in line.split()[1:]}),
        "manual": sorted(lines("apt-mark", "showmanual")),
        "units": dict(line.split()[:2] for line in lines("systemctl", "list-unit-files", *listed)),
        "active": sorted(line.split()[0] for line in lines("systemctl", "list-units", "--state=active", *listed)),
        "users": names(root / "etc/passwd"),
        "groups": names(root / "etc/group"),
        "folders": sorted(
            f"/{found.relative_to(root)}"
            for place in ("etc", "opt", "var/lib", "var/log")
            for found in (root / place).glob("*")
        ),
    }


def names(file: Path) -> list[str]:
    """Return the first field of each line of /etc/passwd or /etc/group."""
    return sorted(line.split(":")[0] for line in file.read_text().splitlines() if line)


def write(root: Path, found: dict[str, Any]) -> None:
    """Write the record whole or not at all, also where the power is cut."""
    record = root / RECORD
    record.parent.mkdir(parents=True, mode=0o755, exist_ok=True)
    draft = record.with_suffix(".new")
    with draft.open("w", encoding="utf-8") as stream:
        json.dump(found, stream)
        stream.flush()
        os.fsync(stream.fileno())
    draft.replace(record)


def main() -> None:
    """Run as a module."""
    module = AnsibleModule(argument_spec={}, supports_check_mode=True)
    os.umask(0o022)
    root = Path("/")
    missing = not (root / RECORD).exists()
    if missing and not module.check_mode:
        try:
            write(root, state(root))
        except (OSError, subprocess.CalledProcessError) as error:
            module.fail_json(msg=f"What the host has can't be recorded: {error}. Nothing was changed.")
    module.exit_json(changed=missing, path=f"/{RECORD}")


if __name__ == "__main__":
    main()
