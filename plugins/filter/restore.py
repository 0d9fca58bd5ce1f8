"""What a backup can't have, which hosts it is put back on, and why not on others."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any

DOCUMENTATION = r"""
name: restore
short_description: Which hosts a backup is put back on
description:
  - O(restore_plan) says which hosts of an inventory are fresh and in a backup, and what keeps the restore from
    beginning; O(restore_needs_mb) what one needs.
  - O(files_named) lists the files of the control node that an inventory names.
author: Fortress
"""

FILES = (
    "base_extra_ca_certificates",
    "fortress_ca_file",
    "grafana_deb_file",
    "pki_certificate_file",
    "pki_private_key_file",
)
"""Variables that name files of the control node, which may lie anywhere."""
OTHER_KEY = re.compile(r"HOST IDENTIFICATION HAS CHANGED.*remove with: (ssh-keygen .*? -R \S+)")
# What a virtual environment takes beside its wheels, and both archives while they are unpacked.
RELEASE_MB = 600


def restore_plan(
    hosts: Mapping[str, Mapping[str, Any]], manifest: Mapping[str, Any], wanted: Sequence[str]
) -> dict[str, Any]:
    """Return the hosts to restore, and why nothing can be restored, a sentence for each reason.

    Args:
        hosts: Of each host of the inventory what is known: `reached`, `error` (of the connection), `site` and
            `restore`, which are its records in /etc/fortress, if any, and `distribution`, as in `Debian 13`.
        manifest: The backup's: tools/backup/README.md.
        wanted: The hosts that were named; none: all that are fresh.

    Returns:
        `hosts` and `errors`, both lists.
    """
    kept, site = manifest["hosts"], manifest["site"]["id"]
    known = [name for name in hosts if name in kept]
    errors = [f"The inventory has no host {name}." for name in wanted if name not in hosts]
    errors += [
        f"The backup has nothing of {name}; it is of {', '.join(kept)}."
        for name in wanted
        if name in hosts and name not in kept
    ]
    candidates = [name for name in known if not wanted or name in wanted]
    plan = []
    for name in candidates:
        host = hosts[name]
        if not host["reached"]:
            errors.append(_unreached(name, host, named=bool(wanted)))
        elif host["site"] and not isinstance(host["site"], Mapping):
            errors.append(
                f"/etc/fortress/site.fact on {name} is damaged, and nobody knows whose it is: nothing is restored."
            )
        elif host["site"] and host["site"].get("id") != site:
            errors.append(f"{name} belongs to another site than the backup: nothing is restored to it.")
        elif host["site"] and host["restore"] != {"backup": manifest["id"]}:
            # One of several that lives is not meant, where nobody named it.
            if wanted:
                errors.append(_lives(name))
        elif host["distribution"] != kept[name]["host"]["distribution"]:
            errors.append(
                f"{name} is {host['distribution']}, and the backup is of {kept[name]['host']['distribution']}: restore "
                "to that release, and upgrade it afterwards."
            )
        else:
            plan.append(name)
    if not plan and not errors:
        errors = [_lives(name) for name in candidates] or ["The inventory has none of the hosts that the backup is of."]
    return {"hosts": [] if errors else plan, "errors": errors}


def _unreached(name: str, host: Mapping[str, Any], *, named: bool) -> str:
    error = " ".join(str(host["error"]).split())
    if known := OTHER_KEY.search(error):
        why = (
            f"it has another SSH key than the host before it, as a fresh one does. `{known[1]}` forgets the old one; "
            "where the inventory asks for a known key (StrictHostKeyChecking=yes), add the new one, which "
            "`ssh-keyscan` prints"
        )
    else:
        why = f"{error.rpartition('over ssh: ')[2].rstrip('.')}. If it has another address now, write it into hosts.yml"
    hint = "" if named else " Where it is not to be restored now, name those that are: HOST=."
    return f"{name} can't be reached: {why}.{hint}"


def _lives(name: str) -> str:
    return (
        f"{name} lives and is of this site: a restore is for a fresh host, and nothing was changed. After a wrong "
        "deployment `make rollback` goes back; `make converge` repairs the rest."
    )


def restore_needs_mb(kept: Mapping[str, Any]) -> dict[str, int]:
    """Return what the parts of a host need in its folders, in 10^6 bytes."""
    parts = {name: part["bytes"] / 1e6 for name, part in kept["parts"].items()}
    # An archive is there twice while it comes, and once unpacked.
    needs = {
        "/opt": parts.get("deployments", 0) + RELEASE_MB * kept.get("deployments", {}).get("releases", 0),
        "/var": 2 * sum(parts.values()) + parts.get("prometheus", 0) + parts.get("grafana", 0),
    }
    return {folder: round(size) for folder, size in needs.items() if size}


def files_named(hostvars: Mapping[str, Mapping[str, Any]], hosts: Sequence[str]) -> dict[str, str]:
    """Return the files of the control node that the variables of some hosts name, with the name of the variable."""
    found: dict[str, str] = {}
    for host in hosts:
        for name in FILES:
            value = hostvars[host].get(name) or []
            found |= {str(path): name for path in ([value] if isinstance(value, str) else value)}
    return found


class FilterModule:
    """What Ansible loads."""

    def filters(self) -> dict[str, Callable[..., Any]]:
        """Name the filters of this file."""
        return {"files_named": files_named, "restore_needs_mb": restore_needs_mb, "restore_plan": restore_plan}
