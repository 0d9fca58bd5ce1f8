"""A model bundle: a directory with an artifact and the manifest.json that describes it and vouches for it."""

import hashlib
from pathlib import Path

from pydantic import ValidationError

from iris_api.manifest import MANIFEST, Manifest


class BundleError(Exception):
    """The bundle must not be served; the message names the file, what was expected and found, and what to do."""


def read_manifest(directory: Path) -> Manifest:
    """Read and check the manifest of a bundle."""
    path = directory / MANIFEST
    try:
        return Manifest.model_validate_json(path.read_bytes())
    except OSError as error:
        raise BundleError(
            f"{path}: cannot be read ({error.strerror}). IRIS_API_MODEL_DIR must name the directory of a model bundle."
        ) from None
    except ValidationError as error:
        problem = error.errors(include_url=False)[0]
        where = ".".join(map(str, problem["loc"])) or "the file"
        raise BundleError(
            f"{path}: {where}: {problem['msg']}. Make the bundle anew: iris-model pack, or make model for ours."
        ) from None


def read_file(directory: Path, name: str, sha256: str) -> bytes:
    """Return the content of a file of a bundle if it is the one that its manifest vouches for.

    Whoever opens it opens these very bytes: a pickle runs code, and the file could be exchanged in between.
    """
    path = directory / name
    try:
        content = path.read_bytes()
    except OSError as error:
        raise BundleError(f"{path}: cannot be read ({error.strerror}). Install the whole bundle again.") from None
    if (found := hashlib.sha256(content).hexdigest()) != sha256:
        raise BundleError(
            f"{path}: its sha256 is {found}, but {MANIFEST} says {sha256}: it was damaged or exchanged "
            "and has not been opened. Install the whole bundle again."
        )
    return content
