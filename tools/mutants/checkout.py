"""A copy of the repository in which modules are mutated, so that the working tree never is."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
from pathlib import Path

KILLED, SURVIVED, TIMEOUT = "killed", "survived", "timeout"
# pytest's exit statuses: tests failed, or could not be collected or run.
OUTCOMES = {0: SURVIVED, 1: KILLED, 2: KILLED, 3: KILLED, 4: KILLED}


class Checkout:
    """What is committed and what is not, in a folder of its own; the virtual environment and the cache are shared."""

    def __init__(self, root: Path, folder: Path) -> None:
        self.root, self.folder = root, folder
        git(root, "clone", "--quiet", "--shared", str(root), str(folder))
        for name in git(root, "ls-files", "-z", "--modified", "--others", "--exclude-standard").split("\0")[:-1]:
            (folder / name).unlink(missing_ok=True)
            if (root / name).is_file():
                (folder / name).parent.mkdir(parents=True, exist_ok=True)
                shutil.copy2(root / name, folder / name)
        for name in (".venv", ".cache"):
            (folder / name).symlink_to((root / name).resolve())

    def test(self, tests: tuple[str, ...], timeout: float) -> str:
        """Run tests until one fails, at most for so many seconds; return what became of them."""
        command = [str(self.folder / ".venv/bin/python"), "-m", "pytest", "-x", "-q", "-p", "no:cacheprovider", *tests]
        # Compiled modules are known by second and size: two mutants of one moment would be taken for each other.
        environment = os.environ | {"PYTHONDONTWRITEBYTECODE": "1"}
        process = subprocess.Popen(
            command,
            cwd=self.folder,
            env=environment,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )
        try:
            return OUTCOMES[process.wait(timeout)]
        except subprocess.TimeoutExpired:
            return TIMEOUT
        finally:
            # With all that the tests have started.
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()


def git(folder: Path, *arguments: str) -> str:
    """Run git; return what it printed."""
    return subprocess.run(["git", *arguments], cwd=folder, check=True, stdout=subprocess.PIPE, text=True).stdout
