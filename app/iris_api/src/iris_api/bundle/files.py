"""Reads the files of a bundle, each only if it is the one that the manifest vouches for."""

import errno
import hashlib
import os
import stat
from pathlib import Path

from pydantic import ValidationError

from iris_api.bundle.manifest import MANIFEST, Manifest

# Bytes; a manifest of a thousand features has less than one million.
LARGEST_MANIFEST = 16_000_000


class BundleError(Exception):
    """The bundle must not be served; the message names the file, what was expected and found, and what to do."""


def read_manifest(directory: Path) -> Manifest:
    """Return the manifest of the bundle in a directory; raise BundleError if it cannot be read or is not valid."""
    path = directory / MANIFEST
    return parse_manifest(
        path,
        _read(path, LARGEST_MANIFEST, _instead_of(directory)),
    )


def _instead_of(directory: Path) -> str:
    """Return what to give in place of what may be no bundle."""
    if directory.is_file():
        return "A bundle is a folder: iris-model pack makes one of a model."
    if versions := sorted(str(path.parent) for path in directory.glob(f"*/{MANIFEST}")):
        return f"Name the version, too: {' or '.join(versions)}."
    return "A bundle is a folder such as models/iris/1.0.0; an instance is told it by IRIS_API_MODEL_DIR."


def parse_manifest(path: Path, content: bytes) -> Manifest:
    """Return the manifest with this content, which was read from `path`; raise BundleError if it is not valid."""
    try:
        return Manifest.model_validate_json(content)
    except ValidationError as error:
        problem = error.errors(include_url=False)[0]
        where = ".".join(map(str, problem["loc"])) or "the file"
        found = "" if isinstance(problem["input"], dict | list | bytes) else f", and not {problem['input']!r:.80}"
        raise BundleError(
            f"{path}: {where}: {problem['msg']}{found}. Make the bundle anew: iris-model pack, or make model for ours."
        ) from None


def read_file(directory: Path, name: str, sha256: str) -> bytes:
    """Return the content of a file of a bundle; raise BundleError if it has not the sha256 that its manifest says.

    Open these very bytes and not the file once more: a pickle runs code, and the file may be exchanged in between.
    """
    path = directory / name
    content = _read(path, None, "Install the whole bundle again.")
    if (found := hashlib.sha256(content).hexdigest()) != sha256:
        raise BundleError(
            f"{path}: its sha256 is {found}, but {MANIFEST} says {sha256}: it was damaged or exchanged "
            "and has not been opened. Install the whole bundle again."
        )
    return content


def read_regular(path: Path, largest: int | None = None) -> bytes:
    """Return the content of a regular file of at most `largest` bytes; raise OSError for anything else.

    A bundle may come from anywhere: a link would show a file that is not its own, a pipe would never end.
    """
    # A pipe must not be waited for.
    descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    with open(descriptor, "rb") as file:
        about = os.fstat(descriptor)
        if not stat.S_ISREG(about.st_mode):
            raise OSError(errno.EINVAL, "it is no regular file")
        if largest is not None and about.st_size > largest:
            raise OSError(errno.EFBIG, f"it has {about.st_size} bytes, and {largest} are allowed")
        return file.read()


def _read(path: Path, largest: int | None, remedy: str) -> bytes:
    try:
        return read_regular(path, largest)
    except OSError as error:
        reason = "it is a symbolic link" if error.errno == errno.ELOOP else error.strerror
        raise BundleError(f"{path}: cannot be read ({reason}). {remedy}") from None
