"""Bundles on a machine that is no host: their environment is the user's own, if that has what they need."""

import importlib.metadata
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path

from iris_api.bundle.files import BundleError, read_file, read_manifest
from iris_api.bundle.manifest import Manifest
from iris_api.engines.model import Model

# To read and to judge rows; what an application needs beside: see `serve`.
FOR_ROWS = {"msgspec": "msgspec", "orjson": "orjson", "simdjson": "pysimdjson"}
_PYTHON = f"{sys.version_info.major}.{sys.version_info.minor}"


def missing_packages(modules: dict[str, str]) -> list[str]:
    """Return the packages that are not installed here, of those that bring some modules."""

    def is_missing(module: str) -> bool:
        try:
            return find_spec(module) is None
        except ImportError:
            return True

    return [package for module, package in modules.items() if is_missing(module)]


def complain(text: str, code: int = 1) -> int:
    """Print what is wrong in one line, as all of `iris-model` does; return the exit code."""
    print(f"iris-model: {' '.join(text.split())}", file=sys.stderr)
    return code


def complain_of_missing(command: str, packages: Sequence[str]) -> int:
    """Print which packages a command lacks and what to type; return the exit code."""
    return complain(f"{command} needs {', '.join(packages)}, not installed here: pip install 'iris-api[serve]'")


@contextmanager
def user_environment(directory: Path) -> Iterator[None]:
    """Have a bundle loaded, within the block, by what is installed here and the code that it brings.

    Raises BundleError: what is raised within the block, and in which package this environment is another than the one
    that the bundle was packed in.
    """
    manifest = read_manifest(directory)
    for name, sha256 in (manifest.environment.code if manifest.environment else {}).items():
        # Code of one's own is pure Python: it is imported from the wheel as it is.
        read_file(directory, name, sha256)
        sys.path.insert(0, str(directory.absolute() / name))
    try:
        yield
    except BundleError as error:
        if not (differences := _differences(manifest)):
            raise
        raise BundleError(f"{error} {_remedy(directory, manifest, differences)}") from error


def say_what_differs(directory: Path, model: Model) -> None:
    """Warn, on standard error, of a model whose own library answers in other versions than it was packed with."""
    if model.engine.name == "sklearn" and (differences := _differences(model.manifest)):
        complain(f"its golden samples are answered as promised. {_remedy(directory, model.manifest, differences)}")


def _differences(manifest: Manifest) -> list[str]:
    """Return in which versions this environment differs from what a bundle brings."""
    if manifest.environment is None:
        return []
    found = {}
    for name in manifest.environment.packages:
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            found[name] = "not installed"
    packed = manifest.environment.packages.items()
    return [f"{name} {version} ({found[name]} here)" for name, version in packed if found[name] != version]


def _remedy(directory: Path, manifest: Manifest, differences: Sequence[str]) -> str:
    assert manifest.environment
    lock = manifest.environment.locks.get(_PYTHON)
    if lock:
        remedy = f"In a virtual environment: pip install --no-deps -r {directory / lock.file}"
    else:
        remedy = f"It was packed for Python {' and '.join(manifest.environment.locks)}, and this is {_PYTHON}."
    return f"The bundle was packed with {', '.join(differences)}. {remedy}"
