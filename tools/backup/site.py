"""What of a site is on the control node: its inventory, its secrets, and the bundles that the inventory names."""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import shutil
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from .archive import BackupError, File, Source, describe

SITE = "site.json"
# Ansible's `inventory_ignore_patterns` begins so: secrets, and copies of them.
SECRETS = "secrets"
# The end of every converge writes it.
DERIVED = {"fortress.env"}
# Of this control node: which keys the hosts have.
LOCAL = {"ssh/known_hosts"}
PARTS = ("inventory", "secrets", "models")


def files_below(folder: Path) -> dict[str, Path]:
    """Return the regular files below a folder by their paths; links are followed."""
    found = {}
    for parent, folders, names in os.walk(folder, followlinks=True):
        folders.sort()
        for name in sorted(names):
            path = Path(parent) / name
            if path.is_file():
                found[path.relative_to(folder).as_posix()] = path
    return found


def inventory_files(folder: Path) -> dict[str, Path]:
    """Return the files of an inventory, without secrets, by their paths."""
    return {name: path for name, path in files_below(folder).items() if not name.startswith(SECRETS)}


def secret_files(folder: Path) -> dict[str, Path]:
    """Return the files of a secrets folder, without what is made of them, by their paths."""
    return {
        name: path
        for name, path in files_below(folder).items()
        if name not in DERIVED and not (path.name.startswith(".") and path.name.endswith(".new"))
    }


def read_site(folder: Path) -> dict[str, Any]:
    """Return the id of a secrets folder's site and the marks of its changes; an empty id where it has none.

    Raises:
        BackupError: The file is damaged.
    """
    path = folder / SITE
    if not path.exists():
        return {"id": "", "changes": []}
    try:
        site = json.loads(path.read_text())
        return {"id": str(site["id"]), "changes": [str(change["mark"]) for change in site["changes"]]}
    except (ValueError, LookupError, TypeError):
        raise BackupError(f"{path} is damaged: bring it back from another copy of the folder.") from None


def make_folder(folder: Path, *, secret: bool = False) -> None:
    """Make a folder and those above it: of secrets for its owner alone, else to be read by all who share the checkout.

    By chmod, since the umask of a backup takes from what mkdir is told.
    """
    missing = [each for each in (folder, *folder.parents) if not each.exists()]
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    for each in missing:
        each.chmod(0o700 if secret else 0o755)


@contextlib.contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Keep a run that changes credentials waiting."""
    handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX)
        yield
    finally:
        os.close(handle)


def collect(inventory: Path, secrets: Path, bundles: list[Path]) -> tuple[dict[str, Any], dict[File, Source]]:
    """Return the site of a secrets folder, and what of the control node a backup has.

    Secrets are read as they are: what Ansible Vault has encrypted stays encrypted.

    Raises:
        BackupError: The folder is of no site yet.
    """
    if not inventory.is_dir():
        raise BackupError(f"{inventory} is no folder; an inventory of one file has no place for secrets beside it.")
    if not secrets.is_dir() or not read_site(secrets)["id"]:
        raise BackupError(f"{secrets} is of no site yet: `make converge` makes its secrets.")
    sources: dict[File, Source] = {}

    def add(name: str, path: Path, mode: int) -> None:
        content = path.read_bytes()
        sources[describe(name, content, mode)] = content

    for name, path in inventory_files(inventory).items():
        add(f"inventory/{name}", path, path.stat().st_mode & 0o777)
    with locked(secrets):
        for name, path in secret_files(secrets).items():
            add(f"secrets/{name}", path, 0o600)
        site = read_site(secrets)
    # One that comes with the project is in the revision too, if not changed; an operator's own is nowhere else.
    for bundle in bundles:
        for name, path in files_below(bundle).items():
            add(f"models/{bundle.parent.name}/{bundle.name}/{name}", path, 0o644)
    return site, sources


@dataclass
class Return:
    """What of a backup is to be brought back to this control node, and where."""

    staged: Path
    """Where the backup was unpacked."""
    files: Mapping[str, int]
    """The modes of its files, by their paths there."""
    inventory: Path
    secrets: Path
    models: Path

    def bring_back(self, use: str, say: Callable[[str], None]) -> None:
        """Write what is missing here. What is there stays, and where it must not, nothing is written.

        Args:
            use: Where both have the inventory and they differ, which is meant: `here`, `backup`, or nothing.
            say: Told what people should know.

        Raises:
            BackupError: Inventory or secrets here are others.
        """
        self._check_inventory(use, say)
        self._check_secrets(say)
        # Secrets are written first, and mostly into it.
        make_folder(self.inventory)
        self._write("secrets", self.secrets, secret_files(self.staged / "secrets"), replace=False)
        self._write("inventory", self.inventory, files_below(self.staged / "inventory"), replace=use == "backup")
        self._bring_models(say)

    def _check_inventory(self, use: str, say: Callable[[str], None]) -> None:
        here, there = inventory_files(self.inventory), files_below(self.staged / "inventory")
        differ = sorted(
            {name for name in here.keys() & there.keys() if here[name].read_bytes() != there[name].read_bytes()}
            | (here.keys() ^ there.keys() if here else set())
        )
        if not here or not differ:
            return
        if use not in ("here", "backup"):
            raise BackupError(
                f"{self.inventory} differs from that of the backup in {', '.join(differ)}. Say which is meant: "
                "USE=here (where the fresh host has another address, say) or USE=backup."
            )
        extra = sorted(here.keys() - there.keys())
        if use == "backup" and extra:
            raise BackupError(
                f"{self.inventory} has {', '.join(extra)}, which the backup has not: move it away, or say USE=here."
            )
        say(f"The inventory {'here' if use == 'here' else 'of the backup'} is used: {', '.join(differ)} differ.")

    def _check_secrets(self, say: Callable[[str], None]) -> None:
        here = secret_files(self.secrets) if self.secrets.exists() else {}
        there = secret_files(self.staged / "secrets")
        mine, theirs = read_site(self.secrets), read_site(self.staged / "secrets")
        move = f"Nothing was changed. Move {self.secrets} away if those of the backup are meant."
        if not mine["id"]:
            differ = [
                name
                for name in sorted(here.keys() & there.keys() - LOCAL)
                if here[name].read_bytes() != there[name].read_bytes()
            ]
            if differ:
                raise BackupError(f"{self.secrets} has others than the backup: {', '.join(differ)}. {move}")
            return
        if mine["id"] != theirs["id"]:
            raise BackupError(f"The backup is of another site than the secrets in {self.secrets}. {move}")
        if mine["changes"] != theirs["changes"]:
            if mine["changes"][: len(theirs["changes"])] != theirs["changes"]:
                raise BackupError(
                    f"{self.secrets} is not of a later state than the backup: of generation {len(mine['changes'])}, "
                    f"and the backup of {len(theirs['changes'])}. {move}"
                )
            say(f"The secrets in {self.secrets} are of a later generation than those of the backup, and stay.")

    def _write(self, part: str, target: Path, files: Mapping[str, Path], *, replace: bool) -> None:
        secret = part == "secrets"
        make_folder(target, secret=secret)
        for name, source in files.items():
            path = target / name
            if path.exists() and not replace:
                continue
            make_folder(path.parent, secret=secret)
            draft = path.with_name(f".{path.name}.new")
            draft.unlink(missing_ok=True)
            with os.fdopen(os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as stream:
                stream.write(source.read_bytes())
                os.fsync(stream.fileno())
            draft.chmod(self.files[f"{part}/{name}"] & 0o755 | 0o600)
            draft.replace(path)

    def _bring_models(self, say: Callable[[str], None]) -> None:
        for bundle in sorted((self.staged / "models").glob("*/*")):
            name = bundle.relative_to(self.staged / "models").as_posix()
            target, draft = self.models / name, self.models / f".{bundle.name}.new"
            if target.exists():
                there, here = files_below(bundle), files_below(target)
                if any(name not in here or here[name].read_bytes() != there[name].read_bytes() for name in there):
                    say(f"{target} is another than the backup's, and stays.")
                continue
            shutil.rmtree(draft, ignore_errors=True)
            make_folder(target.parent)
            shutil.copytree(bundle, draft, copy_function=shutil.copyfile)
            for path in [draft, *draft.rglob("*")]:
                path.chmod(0o755 if path.is_dir() else 0o644)
            draft.rename(target)
