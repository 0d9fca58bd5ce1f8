"""What every kind of test shares: where the running site is."""

from __future__ import annotations

import os
import shlex
import sys
from pathlib import Path


def pytest_configure() -> None:
    """Take FORTRESS_* from the file that `make env` prints, unless the shell has set them."""
    # Testinfra and the tests start Ansible's programs by name.
    os.environ["PATH"] = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    file = os.environ.get("FORTRESS_ENV_FILE")
    if not file:
        return
    for line in Path(file).read_text().splitlines():
        words = shlex.split(line)
        if len(words) == 2 and words[0] == "export":
            name, _, value = words[1].partition("=")
            os.environ.setdefault(name, value)
