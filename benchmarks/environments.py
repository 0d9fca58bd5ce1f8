"""What is installed for the benchmarks, all of it below .cache/bench: nothing on the machine changes."""

from __future__ import annotations

import functools
import hashlib
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

from benchmarks import CACHE, ROOT

# wrk and nginx as Debian builds them, with what wrk needs beyond a minimal system.
DEBIAN_PACKAGES = ("nginx", "wrk", "libluajit-5.1-2")


class UnavailableError(Exception):
    """Something could not be installed; the message says why."""


def python(name: str) -> Path:
    """Return the interpreter of an environment, made from its lock if it is not there."""
    # Where it is, and not by which link: the programs of an environment name their interpreter by its path.
    folder, lock = (CACHE / name).resolve(), _lock(name)
    stamp = folder / f".{hashlib.sha256(lock.read_bytes()).hexdigest()[:16]}"
    if not stamp.exists():
        print(f"==> Installing {lock.relative_to(ROOT)}", flush=True)
        shutil.rmtree(folder, ignore_errors=True)
        _run([sys.executable, "-m", "venv", str(folder)])
        pip = [str(folder / "bin" / "python"), "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
        _run([*pip, "--require-hashes", "--no-deps", f"--requirement={lock}"])
        stamp.touch()
    return folder / "bin" / "python"


def version(name: str) -> str:
    """Return the version of a package that has an environment to itself."""
    found = re.search(rf"^{name}(?:\[.*\])?==(\S+)", _lock(name).read_text(), re.MULTILINE)
    assert found, f"{name} is not in its own lock"
    return found[1]


@functools.cache
def debian() -> Path:
    """Return the folder with Debian's nginx and wrk, unpacked and not installed: no service starts, no root needed."""
    folder = CACHE / "debian"
    if not (folder / "usr" / "bin" / "wrk").exists():
        print(f"==> Unpacking Debian's {', '.join(DEBIAN_PACKAGES)}", flush=True)
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        try:
            _run(["apt-get", "download", *DEBIAN_PACKAGES], folder)
        except UnavailableError:
            # The lists of packages are missing or old.
            _run([*([] if os.geteuid() == 0 else ["sudo"]), "apt-get", "update"])
            _run(["apt-get", "download", *DEBIAN_PACKAGES], folder)
        for package in folder.glob("*.deb"):
            _run(["dpkg-deb", "--extract", str(package), str(folder)])
    return folder


def debian_environ() -> dict[str, str]:
    """Return the environment in which the unpacked programs find their libraries."""
    return os.environ | {"LD_LIBRARY_PATH": ":".join(map(str, (debian() / "usr" / "lib").iterdir()))}


def _lock(name: str) -> Path:
    return ROOT / "requirements" / ("app.txt" if name == "app" else f"bench-{name}.txt")


def _run(command: list[str], folder: Path | None = None) -> None:
    try:
        subprocess.run(command, cwd=folder, capture_output=True, text=True, check=True)
    except FileNotFoundError as error:
        raise UnavailableError(str(error)) from None
    except subprocess.CalledProcessError as error:
        raise UnavailableError((error.stderr or error.stdout).strip()) from None
