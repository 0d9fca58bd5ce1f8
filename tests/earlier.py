"""An earlier release of the project, from the history of this clone, with a control node of its own beside this one."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

from tests import ROOT

RELEASES = {"1.0.0": "a678789"}


class Failed(Exception):
    """The release can't be had or run; the message says why."""


class Release:
    """A release that users may have on their hosts; its folder is kept, since its environment takes half a minute."""

    def __init__(self, version: str) -> None:
        self.version = version
        self.folder = ROOT / ".cache" / f"release-{version}"

    def prepare(self) -> None:
        """Check it out, and install its control node by its own tool.

        Raises:
            Failed: the clone hasn't got its commit, as a shallow one, or a step failed.
        """
        commit = RELEASES[self.version]
        known = subprocess.run(
            ["git", "cat-file", "-e", f"{commit}^{{commit}}"], cwd=ROOT, check=False, stderr=subprocess.DEVNULL
        )
        if known.returncode:
            raise Failed(
                f"This clone has no commit {commit}, release {self.version}: `git fetch --unshallow` brings it."
            )
        if not (self.folder / "Makefile").exists():
            draft = self.folder.with_suffix(".draft")
            shutil.rmtree(draft, ignore_errors=True)
            self.run("git", "clone", "--quiet", "--no-checkout", str(ROOT), str(draft), cwd=ROOT)
            self.run("git", "checkout", "--quiet", "--detach", commit, cwd=draft)
            draft.rename(self.folder)
        self.run("make", "control", cwd=self.folder)

    def converge(self, inventory: str) -> str:
        """Run its site.yml; return what it said, also where it failed to the exception's reader."""
        playbook = str(self.folder / ".venv" / "bin" / "ansible-playbook")
        return self.run(playbook, "-i", str(Path(inventory).absolute()), "site.yml", cwd=self.folder)

    def run(self, *command: str, cwd: Path) -> str:
        """Run a command as a user of that release would, without what this one and Molecule tell Ansible."""
        ours = ("ANSIBLE_", "MOLECULE_", "FORTRESS_", "MAKE", "MFLAGS")
        environment = {name: value for name, value in os.environ.items() if not name.startswith(ours)}
        environment["PATH"] = f"{self.folder}/.venv/bin:{environment['PATH']}"
        done = subprocess.run(
            command,
            cwd=cwd,
            env=environment | {"ANSIBLE_NOCOLOR": "1", "LC_ALL": "C.UTF-8"},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            check=False,
        )
        if done.returncode:
            raise Failed(f"{' '.join(command)} of release {self.version} failed:\n{done.stdout}")
        return done.stdout


def main() -> int:
    """Provision an inventory's hosts by a release: `python -m tests.earlier 1.0.0 INVENTORY`."""
    version, inventory = sys.argv[1:]
    release = Release(version)
    try:
        release.prepare()
        print(release.converge(inventory))
    except Failed as error:
        print(error, file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
