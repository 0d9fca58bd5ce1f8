"""What is deployed here in one archive, from which a fresh host makes the same.

In it are the deployments that could run, with their releases and models, what the inventory wanted last, and the
history. Of a release it has the wheels, and not the virtual environment that is made of them. A file that several
releases share, as they do most wheels, is in it once.

    index.json          what belongs where
    files/SHA256        each file
"""

from __future__ import annotations

import contextlib
import hashlib
import io
import json
import os
import shutil
import tarfile
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

from . import Failure, Problem, artifacts
from .artifacts import Kind
from .host import Host
from .store import COMPLETE, Deployment, python

FORMAT = 2
# Of an archive without environments, which earlier releases read.
PLAIN_FORMAT = 1
INDEX = "index.json"
FILES = "files"
# Made on the host.
DERIVED = {"venv", COMPLETE, artifacts.FILES}
# An environment is made beside its release.
KINDS: tuple[Kind, ...] = ("releases", "models", "environments")
Files = dict[str, tuple[int, str]]
"""Of each file of a release or a model its mode and its sha256, by its path."""


def write(host: Host, path: Path) -> dict[str, Any]:
    """Write what is deployed here as an archive; return what of it people want to know.

    Raises:
        Problem: Nothing is deployed, or a deployment was cut short.
    """
    with host.lock.acquired("A backup", despite_hold=True):
        current = host.store.current
        if not current:
            raise Problem("Nothing is deployed here.")
        if host.cut_short:
            raise Problem("A deployment was cut short here: `sudo iris-deploy recover`, and run the same again.")
        found, notes = host.store.all(), []
        pool: dict[str, Path] = {}
        contents: dict[str, dict[str, Files]] = {kind: {} for kind in KINDS}
        for kind in KINDS:
            for name in sorted({part for each in found if (part := _part(host, kind, each))}):
                contents[kind][name] = _contents(host.store.home / kind / name, pool)
        # What release 1.0.0 put there may lack what it was made of.
        poor = {name for name, files in contents["releases"].items() if "requirements.txt" not in files}
        contents["environments"] = {
            name: files for name, files in contents["environments"].items() if name.rpartition("+")[0] not in poor
        }
        for name in sorted(poor):
            del contents["releases"][name]
            notes.append(f"The release {name} is not in it: an earlier version put it there without its wheels.")
        if current.release in poor:
            raise Problem(
                f"{current.release} has no wheels here, so it can't be kept: `make deploy` brings one that has."
            )
        held, good = host.hold.owner, [each for each in found if each.release not in poor]
        index = {
            "format": FORMAT if contents["environments"] else PLAIN_FORMAT,
            "python": python(),
            "current": current.id,
            "deployments": [asdict(each) for each in good],
            "last_applied": asdict(applied) if (applied := host.store.last_applied) else None,
            "history": host.history.text,
            **contents,
        }
        _write(path, index, pool)
    return {
        "current": str(current),
        "deployments": len(good),
        "releases": len(contents["releases"]),
        "hold": asdict(held) if held else None,
        "notes": notes,
    }


def size(host: Host) -> int:
    """Return how many bytes an archive takes at most."""
    folders = (folder for kind in KINDS for folder in (host.store.home / kind).glob("[!.]*"))
    return sum(path.stat().st_size for folder in folders for path in _files(folder))


def _part(host: Host, kind: Kind, deployment: Deployment) -> str:
    """Return the name of a deployment's release, model or environment; nothing where it has none."""
    match kind:
        case "releases":
            return deployment.release
        case "models":
            return deployment.model
        case _:
            return host.store.environment_of(deployment)


def _files(folder: Path) -> Iterator[Path]:
    """Yield what a release or a model was made of."""
    for part in sorted(folder.iterdir()):
        if part.name not in DERIVED:
            yield from (path for path in (sorted(part.rglob("*")) if part.is_dir() else [part]) if path.is_file())


def _contents(folder: Path, pool: dict[str, Path]) -> Files:
    """Return what a release or a model was made of, and add each file to the pool."""
    contents = {}
    for path in _files(folder):
        with path.open("rb") as file:
            sha256 = hashlib.file_digest(file, "sha256").hexdigest()
        pool[sha256] = path
        contents[str(path.relative_to(folder))] = (path.stat().st_mode & 0o777, sha256)
    return contents


def _write(path: Path, index: dict[str, Any], pool: dict[str, Path]) -> None:
    """Write an archive; where that fails, an earlier one of its name stays."""
    text = json.dumps(index).encode()
    draft = path.with_name(f".{path.name}.new")
    try:
        draft.unlink(missing_ok=True)
        handle = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(handle, "wb") as file:
            with tarfile.open(fileobj=file, mode="w") as tar:
                first = tarfile.TarInfo(INDEX)
                first.size = len(text)
                tar.addfile(first, io.BytesIO(text))
                for sha256, source in sorted(pool.items()):
                    tar.add(source, f"{FILES}/{sha256}")
            # A power cut must not leave an empty one in the place of the earlier.
            file.flush()
            os.fsync(file.fileno())
        draft.replace(path)
    except OSError as error:
        raise Failure(f"{path} could not be written: {error}") from None
    finally:
        with contextlib.suppress(OSError):
            draft.unlink()


def restore(host: Host, path: Path) -> bool:
    """Put on a host on which nothing was deployed what an archive has; return whether that is not there already.

    Nothing is started: the next deployment finds what was in force, and starts that.

    Raises:
        Problem: Something else was deployed here, or the archive is for another Python or of a later format.
        Failure: It could not be put there.
    """
    with host.lock.acquired("A restore", despite_hold=True), _open(path) as tar:
        index = _index(tar, path)
        happened = host.history.text
        is_this = happened.startswith(index["history"])
        if (host.store.current or happened) and not is_this:
            raise Problem("This host has deployments of its own. They stay: a restore is for a fresh host.")
        if host.store.current:
            return False
        if index["python"] != python():
            raise Problem(
                f"The releases in it are for Python {index['python']} and this host has {python()}: restore to the "
                "release of Debian that the backup is of, and upgrade that."
            )
        scratch = host.store.home / ".restore"
        shutil.rmtree(scratch, ignore_errors=True)
        try:
            for kind in KINDS:
                for name, files in index.get(kind, {}).items():
                    artifacts.install(host, kind, name, _repack(tar, files, scratch / name))
        finally:
            shutil.rmtree(scratch, ignore_errors=True)
        found = [Deployment(**each) for each in index["deployments"]]
        for deployment in found:
            host.store.write(deployment)
        if applied := index["last_applied"]:
            host.store.apply(Deployment(**applied))
        draft = host.history.path.with_name(".history.new")
        draft.write_text(index["history"])
        draft.replace(host.history.path)
        # The link last: with it all is there.
        host.store.make_current(next(each for each in found if each.id == index["current"]))
    return True


@contextlib.contextmanager
def _open(path: Path) -> Iterator[tarfile.TarFile]:
    try:
        with tarfile.open(path) as tar:
            yield tar
    except (*artifacts.UNREADABLE, TypeError, AttributeError, StopIteration) as error:
        raise Failure(f"{path} could not be restored: {error}") from None


def _index(tar: tarfile.TarFile, path: Path) -> dict[str, Any]:
    index: dict[str, Any] = json.loads(_read(tar, INDEX))
    if index["format"] > FORMAT:
        raise Problem(
            f"{path} is of format {index['format']}, and this program reads {FORMAT}: take the later release."
        )
    return index


def _read(tar: tarfile.TarFile, name: str) -> bytes:
    content = tar.extractfile(name)
    if content is None:
        raise tarfile.TarError(f"{name} is no file")
    return content.read()


def _repack(tar: tarfile.TarFile, files: Files, archive: Path) -> Path:
    """Write a release or a model as the archive that Ansible would upload."""
    archive.parent.mkdir(mode=0o700, exist_ok=True)
    with tarfile.open(archive, "w") as new:
        for name, (mode, sha256) in files.items():
            source = tar.getmember(f"{FILES}/{sha256}")
            member = tarfile.TarInfo(name)
            member.size, member.mode = source.size, mode
            new.addfile(member, tar.extractfile(source))
    return archive
