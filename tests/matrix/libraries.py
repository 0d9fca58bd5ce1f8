"""Fetches what estimators of the matrix import beside a release, for the Python of a host.

    python -m tests.matrix.libraries 3.13 FOLDER

Versions are those by which the bundles are packed, hashes those of requirements/test.txt.
"""

from __future__ import annotations

import re
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

from tests import ROOT

# What they import: CatBoost's plots, say, need more.
NAMES = (
    "catboost",
    "imbalanced-learn",
    "lightgbm",
    "pandas",
    "python-dateutil",
    "six",
    "sklearn-compat",
    "tzdata",
    "xgboost-cpu",
)


def fetch(python: str, folder: Path) -> None:
    """Install them into a folder, which is there only once it is whole.

    Args:
        python: version of the host's, as in `3.13`; its architecture is this machine's.
        folder: to be put on PYTHONPATH there.
    """
    locked = re.split(r"\n(?=[a-z0-9])", (ROOT / "requirements" / "test.txt").read_text())
    wanted = [each for each in locked if re.split(r"[=\[ ]", each, maxsplit=1)[0] in NAMES]
    new = folder.with_name(f"{folder.name}.new")
    with tempfile.NamedTemporaryFile("w", suffix=".txt") as requirements:
        requirements.write("\n".join(wanted))
        requirements.flush()
        options = ["--no-deps", "--require-hashes", "--only-binary=:all:", "--no-compile", "--quiet"]
        command = [sys.executable, "-m", "pip", "install", *options, f"--python-version={python}", f"--target={new}"]
        subprocess.run([*command, "--requirement", requirements.name], check=True)
    new.rename(folder)


def main(arguments: Sequence[str]) -> int:
    """Fetch them for a Python into a folder."""
    fetch(arguments[0], Path(arguments[1]))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
