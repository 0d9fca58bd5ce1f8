"""Print what a host is like, as JSON. Runs on the host as root, before it is provisioned and after it was removed."""

from __future__ import annotations

import hashlib
import json
import os
import stat
import subprocess

ROOTS = ["/etc", "/usr/local", "/opt", "/var/lib", "/usr/lib/systemd"]
RUNNING = "--state=running,waiting,listening"
# A copy that outlives the package, with the libraries beside it.
NFT = ["env", "LD_LIBRARY_PATH=/run/nft-copy", "/run/nft-copy/nft"]
LISTED = ["--no-legend", "--no-pager", "--plain"]


def lines(*command: str) -> list[str]:
    """Return what a program prints, sorted; nothing where it is missing."""
    try:
        return sorted(subprocess.run(command, capture_output=True, text=True, check=False).stdout.splitlines())
    except FileNotFoundError:
        return []


def entry(path: str) -> str:
    """Return mode, owner and content of a file."""
    status = os.lstat(path)
    said = f"{stat.filemode(status.st_mode)} {status.st_uid}:{status.st_gid}"
    if stat.S_ISLNK(status.st_mode):
        return f"{said} -> {os.readlink(path)}"
    if stat.S_ISREG(status.st_mode):
        with open(path, "rb") as stream:
            return f"{said} {hashlib.sha256(stream.read()).hexdigest()[:16]}"
    return said


def tree() -> list[str]:
    """Return a line for each file and folder."""
    paths = []
    for root in ROOTS:
        for folder, folders, files in os.walk(root):
            paths += [os.path.join(folder, name) for name in [*folders, *files]]
    return sorted(f"{path} {entry(path)}" for path in paths)


def main() -> None:
    """Print it."""
    enabled = [line.split() for line in lines("systemctl", "list-unit-files", *LISTED)]
    state = {
        "packages": lines("dpkg-query", "--show", "--showformat=${Package} ${Version} ${db:Status-Abbrev}\\n"),
        "marked manual": lines("apt-mark", "showmanual"),
        "users": lines("getent", "passwd"),
        "groups": lines("getent", "group"),
        "unit files": [" ".join(fields[:2]) for fields in enabled],
        # What has only run once, because something asked for it, is no state of the host.
        "running units": [line.split()[0] for line in lines("systemctl", "list-units", RUNNING, *LISTED)],
        "failed units": lines("systemctl", "list-units", "--state=failed", *LISTED),
        "nftables": lines(*(NFT if os.path.exists(NFT[-1]) else ["nft"]), "list", "ruleset"),
        "listeners": [line.split()[3] for line in lines("ss", "--no-header", "--listening", "--numeric", "--tcp")],
        "files": tree(),
    }
    print(json.dumps(state))


if __name__ == "__main__":
    main()
