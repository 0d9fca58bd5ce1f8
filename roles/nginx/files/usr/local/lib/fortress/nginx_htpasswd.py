#!/usr/bin/python3
"""Put nginx' files of passwords back where they are empty, cut short, garbled or gone: nobody could log in.

systemd runs it as soon as one of them changes. The copy is what Ansible wrote last. A file that somebody has edited and
that is still whole stays as it is, until the next converge.
"""

from __future__ import annotations

import os
import re
import sys
import tempfile
from pathlib import Path

NAMES = ("fortress.htpasswd", "fortress-previous.htpasswd")
LIVE = Path("/etc/nginx")
COPIES = Path("/etc/fortress/htpasswd")
LINE = re.compile(rb"[^:\s]+:\S+|#.*|")


def damaged(live: bytes | None, copy: bytes) -> bool:
    """Return whether a file, None where it is gone, can't be what somebody wanted, while its copy can be.

    A copy without a user is right too: there may be no previous passwords.
    """
    if not copy.strip():
        return False
    if live is None or not live.strip():
        return True
    cut = not live.endswith(b"\n") and copy.startswith(live) and live != copy
    return cut or not all(LINE.fullmatch(line) for line in live.splitlines())


def put_back(live: Path, copy: Path) -> bool:
    """Replace a damaged file by its copy, in one step, with its mode and owner; return whether it was damaged."""
    good = copy.read_bytes()
    if not damaged(live.read_bytes() if live.exists() else None, good):
        return False
    status = copy.stat()
    handle, draft = tempfile.mkstemp(dir=live.parent, prefix=f".{live.name}.")
    try:
        with os.fdopen(handle, "wb") as file:
            os.fchown(file.fileno(), status.st_uid, status.st_gid)
            os.fchmod(file.fileno(), status.st_mode & 0o7777)
            file.write(good)
            file.flush()
            os.fsync(file.fileno())
        os.replace(draft, live)
    except BaseException:
        os.unlink(draft)
        raise
    return True


def main() -> None:
    """Run as a program."""
    for name in NAMES:
        if (COPIES / name).exists() and put_back(LIVE / name, COPIES / name):
            print(f"{LIVE / name} was damaged, and is as Ansible wrote it again", file=sys.stderr)


if __name__ == "__main__":
    main()
