"""Files and folders that are there as a whole or not at all, whatever ends the process in between."""

from __future__ import annotations

import shutil
from pathlib import Path

# Of a folder that is being removed.
GONE = ".gone"


def write(path: Path, text: str) -> None:
    """Replace a file in one step; where that fails, what was there stays."""
    draft = path.with_name(f".{path.name}.new")
    try:
        draft.write_text(text)
        draft.replace(path)
    finally:
        draft.unlink(missing_ok=True)


def remove(folder: Path) -> None:
    """Remove a folder, its name first: cut in the middle, what is left is hidden and passes for nothing.

    One that can't be removed stays, and so does what somebody put beside the folders.
    """
    if not folder.name.startswith(".") and folder.is_dir() and not folder.is_symlink():
        gone = folder.with_name(f".{folder.name}{GONE}")
        shutil.rmtree(gone, ignore_errors=True)
        try:
            folder = folder.rename(gone)
        except OSError:
            return
    shutil.rmtree(folder, ignore_errors=True)


def is_left(folder: Path) -> bool:
    """Whether a folder is what a removal that was cut short has left."""
    return folder.name.startswith(".") and folder.name.endswith(GONE)
