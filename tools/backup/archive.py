"""The file of a backup: written in one step, and read only where every part of it is as it was written.

It is a compressed tar, or that encrypted by age. First comes `manifest.json`, then its sha256, then every file that the
manifest names.
"""

from __future__ import annotations

import contextlib
import gzip
import hashlib
import io
import json
import os
import shutil
import subprocess
import tarfile
import zlib
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path, PurePosixPath
from typing import IO, Any, cast

FORMAT = 1
KIND = "fortress-backup"
MANIFEST = "manifest.json"
MANIFEST_HASH = "manifest.json.sha256"
LARGEST_MANIFEST = 50_000_000
AGE = b"age-encryption.org/v1"
# Most of it is compressed already: wheels, and the blocks of Prometheus.
COMPRESSION = 1


class BackupError(Exception):
    """What can't be done, and what to do about it, in a sentence."""


@dataclass(frozen=True)
class File:
    """A file of a backup."""

    path: str
    sha256: str
    bytes: int
    mode: int


Source = Path | bytes
"""Where the content of a file is, or the content itself."""


def describe(path: str, source: Source, mode: int = 0o600) -> File:
    """Return what the manifest says of a file."""
    if isinstance(source, bytes):
        return File(path, hashlib.sha256(source).hexdigest(), len(source), mode)
    with source.open("rb") as stream:
        return File(path, hashlib.file_digest(stream, "sha256").hexdigest(), source.stat().st_size, mode)


def require_space(folder: Path, size: int, what: str) -> None:
    """Raise BackupError where so many bytes would fill more than nine tenths of what is free in a folder."""
    free = shutil.disk_usage(next(path for path in (folder, *folder.parents) if path.exists())).free
    if size > 0.9 * free:
        raise BackupError(
            f"{what} takes up to {size / 1e6:.0f} MB, and {folder} has {free / 1e6:.0f} MB free: make space there, or "
            "name another folder."
        )


def write(path: Path, manifest: Mapping[str, Any], sources: Mapping[File, Source], recipients: Path | None) -> None:
    """Write an archive for its owner alone, in one step; what is there under its name already stays.

    Args:
        path: The archive.
        manifest: What it says beside its files.
        sources: Where each file is.
        recipients: A file of age's recipients, who alone can read it; None: it is not encrypted.

    Raises:
        BackupError: There is such an archive, or it can't be encrypted.
    """
    text = json.dumps(
        {"kind": KIND, "format": FORMAT} | dict(manifest) | {"files": [asdict(file) for file in sources]}, indent=1
    ).encode()
    draft = path.with_name(f".{path.name}.partial")
    draft.unlink(missing_ok=True)
    try:
        with os.fdopen(os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as stream:
            with _encrypted(stream, recipients) as target, gzip.GzipFile("", "wb", COMPRESSION, target) as packed:
                _pack(cast(IO[bytes], packed), text, sources)
            stream.flush()
            os.fsync(stream.fileno())
        _name(draft, path)
    finally:
        draft.unlink(missing_ok=True)


def _name(draft: Path, path: Path) -> None:
    """Give a file its name, durably, unless another has it."""
    try:
        # Unlike a rename, it never replaces another.
        os.link(draft, path)
    except FileExistsError:
        raise BackupError(f"{path} is there already: run the same again.") from None
    except OSError:
        # A file system without links, as that of a NAS may be.
        if path.exists():
            raise BackupError(f"{path} is there already: run the same again.") from None
        draft.rename(path)
    handle = os.open(path.parent, os.O_RDONLY)
    with contextlib.suppress(OSError):
        os.fsync(handle)
    os.close(handle)


def _pack(stream: IO[bytes], manifest: bytes, sources: Mapping[File, Source]) -> None:
    with tarfile.open(fileobj=stream, mode="w|") as tar:

        def add(name: str, content: IO[bytes], size: int) -> None:
            member = tarfile.TarInfo(name)
            member.size, member.mode = size, 0o600
            tar.addfile(member, content)

        add(MANIFEST, io.BytesIO(manifest), len(manifest))
        sha256 = hashlib.sha256(manifest).hexdigest().encode()
        add(MANIFEST_HASH, io.BytesIO(sha256), len(sha256))
        for file, source in sources.items():
            with io.BytesIO(source) if isinstance(source, bytes) else source.open("rb") as content:
                add(file.path, content, file.bytes)


@contextlib.contextmanager
def _encrypted(stream: IO[bytes], recipients: Path | None) -> Iterator[IO[bytes]]:
    if not recipients:
        yield stream
        return
    with _age(["--encrypt", "--recipients-file", str(recipients)], stdin=subprocess.PIPE, stdout=stream) as process:
        assert process.stdin
        try:
            yield process.stdin
            process.stdin.close()
        except BrokenPipeError:
            pass
        _check(process, "can't encrypt")


@contextlib.contextmanager
def _age(arguments: list[str], **streams: Any) -> Iterator[subprocess.Popen[bytes]]:
    try:
        process = subprocess.Popen(["age", *arguments], stderr=subprocess.PIPE, **streams)
    except FileNotFoundError:
        raise BackupError("age is not installed here: `sudo apt-get install age`.") from None
    try:
        yield process
    finally:
        process.kill()
        process.wait()
        for stream in (process.stdin, process.stdout, process.stderr):
            with contextlib.suppress(BrokenPipeError):
                if stream:
                    stream.close()


def _check(process: subprocess.Popen[bytes], what: str) -> None:
    assert process.stderr
    said = process.stderr.read().decode(errors="replace").strip()
    if process.wait() != 0:
        raise BackupError(f"age {what}: {said.splitlines()[0] if said else 'it gives no reason'}")


def read(path: Path, folder: Path, key: Path | None) -> dict[str, Any]:
    """Unpack an archive into a folder that is made anew, and return its manifest.

    Args:
        path: The archive.
        folder: Where it is unpacked, for its owner alone. It is removed where the archive is not whole.
        key: A file of age's identities, where the archive is encrypted.

    Raises:
        BackupError: It is no backup, of a later format, or damaged; or there is no space.
    """
    if not path.is_file():
        raise BackupError(f"There is no {path}.")
    remove(folder)
    try:
        folder.mkdir(mode=0o700, parents=True)
        with _opened(path, key) as tar:
            manifest = _unpack(tar, folder, path)
    except (tarfile.TarError, zlib.error, gzip.BadGzipFile, EOFError, ValueError, LookupError, TypeError) as error:
        remove(folder)
        raise BackupError(f"{path} is damaged, or no backup: {error}. Nothing was changed; take another.") from None
    except BaseException:
        remove(folder)
        raise
    return manifest


def remove(folder: Path) -> None:
    """Remove a folder, where it is there."""
    if folder.exists():
        shutil.rmtree(folder)


@contextlib.contextmanager
def _opened(path: Path, key: Path | None) -> Iterator[tarfile.TarFile]:
    # Without a buffer, since age is to read on where this one ends.
    with path.open("rb", buffering=0) as stream:
        encrypted = stream.read(len(AGE)) == AGE
        stream.seek(0)
        if not encrypted:
            with _tar(stream) as tar:
                yield tar
            return
        if not key:
            raise BackupError(f"{path} is encrypted by age: name the file of the key, KEY=...")
        with _age(["--decrypt", "--identity", str(key)], stdin=stream, stdout=subprocess.PIPE) as process:
            assert process.stdout
            try:
                with _tar(process.stdout) as tar:
                    yield tar
                # What follows the end of the archive, so that age ends well.
                while process.stdout.read(1 << 20):
                    pass
            except (tarfile.TarError, zlib.error, gzip.BadGzipFile, EOFError):
                _check(process, f"can't decrypt {path}")
                raise
            _check(process, f"can't decrypt {path}")


@contextlib.contextmanager
def _tar(stream: IO[bytes]) -> Iterator[tarfile.TarFile]:
    with gzip.GzipFile(fileobj=stream, mode="rb") as packed:
        with tarfile.open(fileobj=cast(IO[bytes], packed), mode="r|") as tar:
            yield tar
        # To the checksum at the end.
        while packed.read(1 << 20):
            pass


def _unpack(tar: tarfile.TarFile, folder: Path, path: Path) -> dict[str, Any]:
    members = iter(tar)

    def content(name: str) -> bytes:
        member = next(members, None)
        if member is None or member.name != name or member.size > LARGEST_MANIFEST:
            raise ValueError(f"it has no {name}")
        stream = tar.extractfile(member)
        return stream.read() if stream else b""

    text = content(MANIFEST)
    if content(MANIFEST_HASH).decode() != hashlib.sha256(text).hexdigest():
        raise ValueError(f"{MANIFEST} is not as it was written")
    manifest: dict[str, Any] = json.loads(text)
    if manifest["kind"] != KIND:
        raise ValueError(f"it is a {manifest['kind']}")
    if manifest["format"] > FORMAT:
        raise BackupError(
            f"{path} is of format {manifest['format']}, and this revision reads {FORMAT}: `git checkout "
            f"{manifest['project']['revision']}`, by which it was made, or a later one."
        )
    files = {file["path"]: File(**file) for file in manifest["files"]}
    require_space(folder, sum(file.bytes for file in files.values()), f"What is in {path}")
    (folder / MANIFEST).write_bytes(text)
    for member in members:
        file = files.pop(member.name, None)
        stream = tar.extractfile(member) if member.isreg() else None
        if file is None or stream is None:
            raise ValueError(f"its manifest has no {member.name}")
        if (found := _extract(stream, folder / _own(file.path))) != file.sha256:
            raise ValueError(f"the sha256 of {file.path} is {found}, and was {file.sha256}")
    if files:
        raise ValueError(f"{next(iter(files))} is missing")
    return manifest


def _own(name: str) -> PurePosixPath:
    path = PurePosixPath(name)
    if path.is_absolute() or ".." in path.parts:
        raise ValueError(f"it has {name!r}, which lies elsewhere")
    return path


def _extract(stream: IO[bytes], path: Path) -> str:
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    sha256 = hashlib.sha256()
    with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as target:
        while block := stream.read(1 << 20):
            sha256.update(block)
            target.write(block)
    return sha256.hexdigest()
