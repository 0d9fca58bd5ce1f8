"""Releases, models, environments on the disk: each is put there in one step, and what was damaged since is found.

A list of all files, with sizes, times and hashes, is written when a folder is made. A look at sizes and times finds
what a person or a program changed; after a boot, which may follow a power cut, all is hashed once.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import json
import lzma
import os
import shutil
import tarfile
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Literal

from . import Failure, Problem, commands
from .commands import Command
from .host import Host
from .store import COMPLETE, NAME

# What comes of an archive that was cut or damaged, however it is compressed.
UNREADABLE = (OSError, EOFError, tarfile.TarError, zlib.error, lzma.LZMAError, ValueError, LookupError)
Kind = Literal["releases", "models", "environments"]
FILES = "files.json"
ABOUT = "release.json"
ABOUT_ENVIRONMENT = "environment.json"
REQUIREMENTS = "requirements.txt"
# An instance of a release, and of an environment, starts by it.
LAUNCHER = Path("bin/iris-api")


def folder_of(host: Host, kind: Kind, name: str) -> Path:
    """Return where a release or a model lies; raise Problem where its name is no folder's."""
    if not NAME.fullmatch(name):
        raise Problem(f"{name!r:.100} is no name of a folder in {host.store.home / kind}.")
    return host.store.home / kind / name


def damaged(host: Host, kind: Kind, name: str) -> str:
    """Say what of a release or a model is missing or damaged; nothing where all is whole.

    Of what an earlier release of this program put there nothing is known, and it is taken as whole.
    """
    folder = folder_of(host, kind, name)
    if not (folder / COMPLETE).exists():
        return f"{folder} is not there, or not whole"
    try:
        expected = json.loads((folder / FILES).read_text())
    except FileNotFoundError:
        return ""
    except (OSError, ValueError) as error:
        return f"{folder / FILES} can't be read ({error})"
    thorough = not (checked := _checked(host, kind, name)).exists()
    for each, (*known, sha256) in expected.items():
        path = f"{folder}/{each}"
        try:
            state = _state(path)
            if (thorough or state != known) and (state[0] != known[0] or _sha256(path) != sha256):
                return f"{path} was damaged"
        except OSError as error:
            return f"{path} can't be read ({error.strerror})"
    checked.touch()
    return ""


def _checked(host: Host, kind: Kind, name: str) -> Path:
    """Return the file that says that all of a release or a model was hashed since the last boot."""
    path = host.paths.run / "checked" / f"{kind}-{name}"
    path.parent.mkdir(parents=True, exist_ok=True)
    return path


def install(host: Host, kind: Kind, name: str, archive: Path) -> bool:
    """Make a release or a model of an archive unless it is there, whole; return whether it was made.

    It is made in a folder of its own, which then takes the place of what may be there, so that instances that run from
    it go on. A second process that wants the same waits, and finds it made.
    """
    folder = folder_of(host, kind, name)
    folder.parent.mkdir(parents=True, exist_ok=True)
    with _alone(host.paths.run / "install" / f"{kind}-{name}"):
        made = bool(damaged(host, kind, name))
        if made:
            _make(host, kind, folder, archive)
            # Just now all of it was hashed.
            _checked(host, kind, name).touch()
        # Not to be removed as one that nobody uses, before it is deployed.
        os.utime(folder)
    archive.unlink(missing_ok=True)
    return made


def _make(host: Host, kind: Kind, folder: Path, archive: Path) -> None:
    draft = folder.with_name(f".{folder.name}.new")
    shutil.rmtree(draft, ignore_errors=True)
    try:
        _fill(host, kind, draft, folder, archive)
    except UNREADABLE as error:
        shutil.rmtree(draft, ignore_errors=True)
        raise Failure(f"{folder} could not be made: {error}") from None
    old = folder.with_name(f".{folder.name}.old")
    shutil.rmtree(old, ignore_errors=True)
    with contextlib.suppress(FileNotFoundError):
        folder.rename(old)
    draft.rename(folder)
    shutil.rmtree(old, ignore_errors=True)


def _fill(host: Host, kind: Kind, draft: Path, folder: Path, archive: Path) -> None:
    """Make in a draft what becomes a folder."""
    _unpack(archive, draft)
    twin = None
    if kind == "releases":
        twin = _install_release(host, draft, folder)
        shutil.copyfile(draft / ABOUT, draft / COMPLETE)
    elif kind == "environments":
        _layer(host, draft, folder)
        shutil.copyfile(draft / ABOUT_ENVIRONMENT, draft / COMPLETE)
    else:
        (draft / COMPLETE).touch()
    # The instances read it, whatever the umask is.
    paths = [path for path in (draft, *sorted(draft.rglob("*"))) if not path.is_symlink()]
    for path in paths:
        path.chmod(0o755 if path.is_dir() or path.stat().st_mode & 0o100 else 0o644)
    # Of what was copied as it was, the hash is known.
    before = json.loads((twin / FILES).read_text()) if twin else {}
    known = {}
    for path in (path for path in paths if path.is_file()):
        name, state = str(path.relative_to(draft)), _state(path)
        *same, sha256 = before.get(name, [""])
        known[name] = [*state, sha256 if same == state else _sha256(path)]
    (draft / FILES).write_text(json.dumps(known))
    (draft / FILES).chmod(0o644)
    # A power cut must leave nothing that looks complete and is not.
    _run(host, commands.sync(draft))


def _install_release(host: Host, draft: Path, folder: Path) -> Path | None:
    """Make in a draft the environment of a release; return the release that all but the application was copied from.

    Most releases differ by the application alone, and to copy some 450 MB is a sixth of the work of installing them.
    """
    requirements, pip = draft / REQUIREMENTS, _pip(host)
    if twin := _twin(host, draft):
        # Not to be removed meanwhile, as one that nobody uses.
        os.utime(twin)
        shutil.copytree(twin / "venv", draft / "venv", symlinks=True)
        own = draft / "own.txt"
        own.write_text(requirements.read_text().splitlines()[-1])
        _run(host, commands.pip_install(draft, pip, own))
        own.unlink()
    else:
        _run(host, commands.virtual_environment(draft))
        _run(host, commands.pip_install(draft, pip, requirements))
    _compile(host, draft, folder)
    # Programs of the environment name the folder that they were made in.
    for path in (draft / "venv" / "pyvenv.cfg", *(draft / "venv" / "bin").iterdir()):
        if path.is_file() and not path.is_symlink():
            text = path.read_bytes()
            for made in filter(None, (draft, twin)):
                text = text.replace(os.fsencode(made / "venv"), os.fsencode(folder / "venv"))
            path.write_bytes(text)
    return twin


def _twin(host: Host, draft: Path) -> Path | None:
    """Return a whole release with the same packages for the same Python, beside the application; None if there is none.

    The one that was used last, as it is most likely to be looked at anyway.
    """
    wanted = _packages(draft)
    folders = [folder for folder in draft.parent.glob("[!.]*") if wanted and _packages(folder) == wanted]
    for folder in sorted(folders, key=lambda folder: folder.stat().st_mtime, reverse=True):
        # Of one that an earlier program made it is not known whether it is whole.
        if (folder / FILES).exists() and not damaged(host, "releases", folder.name):
            return folder
    return None


def _packages(release: Path) -> tuple[str, list[str]] | None:
    """Return for which Python a release is, and its requirements but for the last one, which is the application."""
    try:
        python = json.loads((release / ABOUT).read_text())["python"]
        *packages, _ = (release / REQUIREMENTS).read_text().splitlines()
    except (OSError, ValueError, LookupError):
        return None
    return str(python), packages


def _pip(host: Host) -> Path:
    """Return the wheel of pip, by which pip itself can be run."""
    for wheel in sorted(host.paths.wheels.glob("pip-*.whl")):
        return wheel
    raise Failure(f"There is no pip in {host.paths.wheels}: apt-get install python3-venv")


def _compile(host: Host, draft: Path, folder: Path) -> None:
    """Compile what an environment has; what can't be compiled, in a package of whatever age, is no module of ours."""
    host.machine.run(commands.byte_compile(draft, folder))


def _layer(host: Host, draft: Path, folder: Path) -> None:
    """Make in a draft an environment that has its own packages first, and all others of its release.

    A model that is trained with the packages of the release and one more costs the space of that one.
    """
    name = str(json.loads((draft / ABOUT_ENVIRONMENT).read_text())["release"])
    release = folder_of(host, "releases", name)
    if why := damaged(host, "releases", name):
        raise Problem(f"{why}, so there can be no {folder}. Deploy it from the control node.")
    _run(host, commands.virtual_environment(draft))
    _run(host, commands.pip_install(draft, _pip(host), draft / REQUIREMENTS))
    _compile(host, draft, folder)
    (packages,) = (release / "venv" / "lib").glob("python3*/site-packages")
    own = draft / packages.relative_to(release)
    own.mkdir(parents=True, exist_ok=True)
    # Last: pip must not take what the release has for what it is to replace.
    (own / "release.pth").write_text(f"{packages}\n")
    (draft / LAUNCHER).parent.mkdir(exist_ok=True)
    shutil.copyfile(release / LAUNCHER, draft / LAUNCHER)
    program = Path("venv") / LAUNCHER
    text = (release / program).read_bytes().replace(os.fsencode(release / "venv"), os.fsencode(folder / "venv"))
    (draft / program).write_bytes(text)
    for path in (draft / LAUNCHER, draft / program):
        path.chmod(0o755)


def _unpack(archive: Path, folder: Path) -> None:
    """Unpack an archive of regular files; the filters of tarfile do this, but Debian 12 has none."""
    with tarfile.open(archive) as tar:
        # Builders of earlier releases wrote folders of their own, too.
        for member in (each for each in tar if not each.isdir()):
            path, content = folder / member.name, tar.extractfile(member) if member.isreg() else None
            if not content or ".." in path.parts or not path.is_relative_to(folder):
                raise tarfile.TarError(f"{archive} has {member.name!r}, which is no file of its own")
            path.parent.mkdir(parents=True, exist_ok=True)
            with path.open("wb") as file:
                shutil.copyfileobj(content, file)
            path.chmod(member.mode)
        # Where it is cut between two files, tarfile takes that for its end: the end is a block of zeros.
        if tar.fileobj is not None:
            tar.fileobj.seek(tar.offset)
            if tar.fileobj.read(tarfile.BLOCKSIZE) != bytes(tarfile.BLOCKSIZE):
                raise tarfile.TarError(f"{archive} was cut off")


def _run(host: Host, command: Command) -> None:
    done = host.machine.run(command)
    if done.returncode != 0:
        raise Failure(f"{' '.join(command.argv)}: {done.stderr.strip() or done.stdout.strip()}")


def _state(path: Path | str) -> list[int]:
    """Return size and time of the last change of a file."""
    state = os.lstat(path)
    return [state.st_size, state.st_mtime_ns]


def _sha256(path: Path | str) -> str:
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


@contextlib.contextmanager
def _alone(path: Path) -> Iterator[None]:
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield
