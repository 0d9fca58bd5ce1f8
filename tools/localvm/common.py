"""What every part of localvm uses: its places on disk, its one error, its lock."""

from __future__ import annotations

import contextlib
import fcntl
import os
import shutil
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

CACHE = Path("/var/cache/fortress-localvm")
STATE = Path("/var/lib/fortress-localvm")
RUN = Path("/run/fortress-localvm")

#: Debian package -> something it brings along, by which its absence is seen.
HOST_PACKAGES = {
    "mmdebstrap": "mmdebstrap",
    "systemd-container": "systemd-nspawn",
    "nftables": "nft",
    "iproute2": "ip",
    "openssh-client": "ssh-keygen",
    "e2fsprogs": "mkfs.ext4",
    "debian-archive-keyring": "/usr/share/keyrings/debian-archive-keyring.gpg",
}


class Problem(Exception):
    """An error that the user can fix; the text says what is wrong and what to type next."""


def run(*argv: str | Path, stdin: str | None = None) -> str:
    """Run a command and return its output; failing, raise a Problem with what it said."""
    done = subprocess.run([str(word) for word in argv], input=stdin, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        said = (done.stderr or done.stdout).strip() or f"exit status {done.returncode}"
        raise Problem(f"`{' '.join(map(str, argv))}` failed: {said}")
    return done.stdout


def succeeds(*argv: str | Path) -> bool:
    """Run a command whose failure is an answer and not an error."""
    return subprocess.run([str(word) for word in argv], capture_output=True, check=False).returncode == 0


def missing_packages() -> list[str]:
    """The Debian packages this tool needs and the host lacks."""
    return [package for package, sign in HOST_PACKAGES.items() if not (shutil.which(sign) or Path(sign).exists())]


def require_free_space(directory: Path, megabytes: int) -> None:
    """Raise Problem if the disk has less space free."""
    free = shutil.disk_usage(directory).free // 2**20
    if free < megabytes:
        raise Problem(
            f"{directory} has {free} MB free and this needs {megabytes} MB: "
            "free some space; `localvm prune` deletes cached images that no machine uses"
        )


@contextlib.contextmanager
def locked(directory: Path) -> Iterator[None]:
    """Hold the directory for this process. The directory itself is the lock, so no lock file stays behind."""
    while True:
        # Guests' set-uid programs lie below: closed to the host's other users.
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        handle = os.open(directory, os.O_RDONLY)
        try:
            fcntl.flock(handle, fcntl.LOCK_EX)
            # The former holder may have removed it while we waited: then we hold a directory nobody else sees.
            if directory.exists() and os.path.samestat(os.fstat(handle), directory.stat()):
                yield
                return
        finally:
            os.close(handle)


def remove_tree(directory: Path) -> None:
    """Delete a guest's tree, never crossing into something mounted inside it."""
    command = ("rm", "-rf", "--one-file-system", "--", directory)
    # Processes that were killed just now may write for another moment.
    for _ in range(50):
        if succeeds(*command):
            return
        time.sleep(0.1)
    run(*command)


def last_lines(file: Path) -> str:
    """The end of a log, for an error message."""
    lines = file.read_text(errors="replace").splitlines()[-15:]
    return "\n".join(f"  {line[:300]}" for line in lines)
