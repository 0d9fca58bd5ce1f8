"""The environment that a bundle brings: what its model imports, locked with hashes, and tried before it is promised.

The lock has the versions that are installed here, where the model was trained. They are resolved together with what the
application requires, for each Python of a host. Then the golden samples are asked in a fresh environment that is made
of the lock alone: from wheels in a folder, without an index, in an empty folder.
"""

import hashlib
import importlib.metadata
import importlib.util
import json
import os
import platform
import shutil
import subprocess
import sys
import tempfile
import tomllib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

import iris_api
from iris_api.bundle.manifest import PYTHONS, Manifest
from iris_api.engines.table import needs_pandas
from iris_api.packing.code import Code
from iris_api.packing.imported import Globals, ImportedError, closure, distributions_of

# Of ONNX Runtime an environment has no need: a model that it serves needs no environment.
_NOT_REPLAYED = frozenset({"onnxruntime"})
# What every model is opened and asked by; its version must be the one that the model was trained with.
_ALWAYS = frozenset({"scikit-learn", "joblib"})
# The oldest C library of a host, of Debian 12.
_GLIBC = "2_36"
_HERE = ".".join(platform.python_version_tuple()[:2])
# A package that is imported only where it is used is found by the replay; each costs one.
_MOST_REPLAYS = 8
# To import everything from files that nobody has read yet, and to answer some rows.
_REPLAY_SECONDS = 180


class EnvironmentFailedError(Exception):
    """There can be no environment for the model; the message says which requirements conflict, or what is missing."""


@dataclass(frozen=True)
class Recorded:
    """An environment as a bundle has it."""

    about: dict[str, Any]
    """The manifest's `environment`."""
    files: Mapping[str, bytes]
    """Locks and wheels, by their names in the bundle."""


@dataclass
class Environment:
    """What a model needs to be imported, as it becomes known while it is packed."""

    code: Sequence[Code] = ()
    """The user's own."""
    wanted: bool = False
    """Whether the bundle gets one also where a release has all that the model imports."""
    further: set[str] = field(default_factory=set)
    """Modules that the model imports beside those that its artifact names."""
    failed: str = ""
    """Why there is none although it was looked for; ONNX Runtime serves the model without."""

    def packages(self, named: Globals, *, pandas: bool = False) -> dict[str, str]:
        """Return the version of each package that a model imports, and of what these require, as installed here.

        `pandas` says whether the tables by which the model is asked are made by it.

        Raises EnvironmentFailedError where a module can't be brought to a host.
        """
        own = {module for code in self.code for module in code.modules}
        modules = (
            named.modules
            | self.further
            | ({"pandas"} if pandas else set())
            | {module for code in self.code for module in code.imports}
        )
        try:
            named_by_it = distributions_of(modules - own - set(sys.stdlib_module_names) - {"iris_api"})
            return closure(named_by_it | _ALWAYS)
        except ImportedError as error:
            raise EnvironmentFailedError(str(error)) from None

    def is_needed(self, packages: Mapping[str, str]) -> bool:
        """Return whether a model imports more than every release has."""
        return self.wanted or bool(self.code) or bool(packages.keys() - _application_packages())

    def record(self, named: Globals, packages: Mapping[str, str]) -> Recorded:
        """Lock packages for each Python of a host; raise EnvironmentFailedError where no host could have them."""
        locks, files, not_for = {}, {code.name: code.content for code in self.code}, {}
        for python in PYTHONS:
            if named.by_value and python != _HERE:
                not_for[python] = (
                    f"the model holds code by value, written by Python {_HERE}, which no other runs. Code in a module "
                    "of its own runs on each: --code"
                )
                continue
            try:
                lock = compile_lock(packages, python)
            except EnvironmentFailedError as error:
                not_for[python] = str(error)
                continue
            name = f"environment-{python}.txt"
            files[name] = lock.encode()
            locks[python] = name
        if not locks:
            # What is wrong for the Python that the model was trained by is what its owner can change.
            raise EnvironmentFailedError(
                not_for.get(_HERE) or "; ".join(f"{key}: {why}" for key, why in not_for.items())
            )
        about = {
            "packages": dict(sorted(packages.items())),
            "locks": {python: {"file": name, "sha256": _sha256(files[name])} for python, name in locks.items()},
            "not_for": not_for,
            "code": {code.name: _sha256(code.content) for code in self.code},
        }
        return Recorded(about, files)

    def replay(self, bundle: Path, manifest: Manifest, skops_trusted: Sequence[str]) -> None:
        """Ask a bundle's golden samples in a fresh environment of its lock.

        It is made of this Python, for which the lock is resolved once more if it is no host's.

        Raises:
            MissingError: a module was missing that is installed here.
            EnvironmentFailedError: they are answered otherwise, or not at all.
        """
        about = manifest.environment
        if about is None:
            return
        lock = bundle / about.locks[_HERE].file if _HERE in about.locks else None
        text = lock.read_text() if lock else compile_lock(about.packages, _HERE)
        with tempfile.TemporaryDirectory(prefix="iris-model-") as folder:
            home = Path(folder)
            interpreter = _make_environment(home, text, bundle, list(about.code))
            empty = home / "empty"
            empty.mkdir()
            command = [str(interpreter), "-I", "-m", "iris_api.packing.replay", str(bundle.absolute()), *skops_trusted]
            # No variable of this environment leads to what is installed here.
            kept = {name: os.environ[name] for name in ("PATH", "OPENBLAS_CORETYPE") if name in os.environ}
            try:
                done = subprocess.run(
                    command, capture_output=True, text=True, check=False, cwd=empty, env=kept, timeout=_REPLAY_SECONDS
                )
            except subprocess.TimeoutExpired:
                raise EnvironmentFailedError(
                    f"In a fresh environment of its packages the model has not answered within {_REPLAY_SECONDS} s."
                ) from None
        try:
            told = json.loads(done.stdout.splitlines()[-1])
        except (ValueError, IndexError):
            raise EnvironmentFailedError(
                f"In a fresh environment of its packages the model ended its process: {done.stderr.strip()[-500:]}"
            ) from None
        missing = (told.get("missing") or "").split(".")[0]
        if missing and missing not in self.further and importlib.util.find_spec(missing):
            raise MissingError(missing)
        if "error" in told:
            raise EnvironmentFailedError(
                f"In a fresh environment of its packages the model does not answer as here: {told['error']}"
            )


class MissingError(Exception):
    """A module that a model imports was missing; its name is the argument."""


def complete(
    environment: Environment,
    named: Globals,
    bundle: Path,
    manifest: Manifest,
    skops_trusted: Sequence[str],
    write: Any,
) -> Manifest:
    """Give a bundle that lies in a folder the environment that it needs, and return its manifest.

    `write` takes the manifest's `environment`, writes the manifest with it, and returns that.

    Raises EnvironmentFailedError where there can be none, and where the bundle is not answered by it as here.
    """
    for _ in range(_MOST_REPLAYS):
        packages = environment.packages(named, pandas=needs_pandas(manifest.table))
        if not environment.is_needed(packages):
            return manifest
        recorded = environment.record(named, packages)
        for name, content in recorded.files.items():
            (bundle / name).write_bytes(content)
        manifest = write(recorded.about)
        try:
            environment.replay(bundle, manifest, skops_trusted)
        except MissingError as missing:
            environment.further.add(missing.args[0])
        else:
            return manifest
    raise EnvironmentFailedError(f"The model imports one module after the other: {', '.join(environment.further)}.")


def application_requirements(extra: str = "") -> list[Requirement]:
    """Return what the application requires, with one of its extras."""
    try:
        texts = importlib.metadata.requires("iris-api") or []
    except importlib.metadata.PackageNotFoundError:
        # It runs from its sources.
        project = tomllib.loads((Path(iris_api.__file__).parents[2] / "pyproject.toml").read_text())["project"]
        texts = [*project["dependencies"]]
        for name, more in project["optional-dependencies"].items():
            texts += [f"{each}; extra == '{name}'" for each in more]
    found = [Requirement(text) for text in texts]
    return [
        each
        for each in found
        if each.marker is None
        or each.marker.evaluate({"extra": ""})
        or (extra and each.marker.evaluate({"extra": extra}))
    ]


def _application_packages() -> set[str]:
    """Return the names of what every release has."""
    try:
        return set(closure(str(canonicalize_name(each.name)) for each in application_requirements()))
    except ImportedError as error:
        raise EnvironmentFailedError(str(error)) from None


def compile_lock(packages: Mapping[str, str], python: str) -> str:
    """Return packages, each of this version, as requirements with hashes for a Python.

    They are resolved together with all that the application requires to serve.

    Raises EnvironmentFailedError, which names both sides, where they do not go together.
    """
    pins = [f"{name}=={version}" for name, version in sorted(packages.items())]
    application = application_requirements("serve")
    for each in application:
        version = packages.get(str(canonicalize_name(each.name)))
        if version and not each.specifier.contains(version, prereleases=True):
            raise EnvironmentFailedError(
                f"The application (iris-api {iris_api.__version__}) requires {each.name}{each.specifier}, but the "
                f"model was trained with {each.name} {version}. Train it by a version that satisfies both."
            )
    both = _compile([*pins, *(f"{each.name}{each.specifier}" for each in application)], python)
    return _compile(pins, python, constraints=both, hashes=True)


def _compile(requirements: Iterable[str], python: str, *, constraints: str = "", hashes: bool = False) -> str:
    """Resolve requirements for a Python of a host, from wheels alone."""
    machine = "aarch64" if platform.machine() in ("aarch64", "arm64") else "x86_64"
    with tempfile.TemporaryDirectory(prefix="iris-model-") as folder:
        given, bounds, result = (Path(folder, name) for name in ("given.in", "bounds.txt", "result.txt"))
        given.write_text("\n".join([*requirements, ""]))
        bounds.write_text(constraints)
        command = [sys.executable, "-m", "uv", "pip", "compile", "--quiet", "--no-header", "--no-annotate"]
        command += ["--no-emit-index-url", "--no-emit-find-links", "--no-config", "--only-binary=:all:"]
        command += [f"--python-version={python}", f"--python-platform={machine}-manylinux_{_GLIBC}"]
        command += [f"--constraints={bounds}", f"--output-file={result}", *(["--generate-hashes"] if hashes else [])]
        _run(
            [*command, str(given)], f"For Python {python} the model's packages and the application's can't be resolved"
        )
        return result.read_text()


def _make_environment(home: Path, lock: str, bundle: Path, code: Sequence[str]) -> Path:
    """Make an environment of a lock and of a bundle's own wheels; return its interpreter.

    The application's own requirements come with it, of versions that go with the lock.
    """
    core = [each for each in application_requirements() if each.name not in _NOT_REPLAYED]
    pins = [line.split(" ")[0] for line in lock.splitlines() if "==" in line]
    whole = _compile([*pins, *(f"{each.name}{each.specifier}" for each in core)], _HERE, hashes=True)
    requirements, made = home / "requirements.txt", home / "environment"
    requirements.write_text(whole)
    _run([sys.executable, "-m", "venv", "--without-pip", str(made)], "No virtual environment can be made here")
    interpreter = made / "bin" / "python"
    # By uv, which keeps wheels unpacked: the next model with some of these packages takes none of their time.
    install = [sys.executable, "-m", "uv", "pip", "install", "--quiet", "--no-config", "--no-deps"]
    install += [f"--python={interpreter}"]
    checked = ["--require-hashes", "--only-binary=:all:", "-r", str(requirements)]
    _run([*install, *checked], "The model's packages could not be installed")
    if code:
        own = [str(bundle / name) for name in code]
        _run([*install, "--offline", *own], "The model's own code could not be installed")
    place = next((made / "lib").glob("python3.*")) / "site-packages"
    shutil.copytree(Path(iris_api.__file__).parent, place / "iris_api", ignore=shutil.ignore_patterns("__pycache__"))
    return interpreter


def _run(command: Sequence[str], complaint: str) -> None:
    environment = os.environ | _index(os.environ)
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=environment)
    if done.returncode != 0:
        said = " ".join((done.stderr or done.stdout).split())
        raise EnvironmentFailedError(f"{complaint}: {said[:1500]}")


def _index(environment: Mapping[str, str]) -> dict[str, str]:
    """Return variables by which uv asks the index that pip is told of, unless it is told of one itself."""
    if any(name in environment for name in ("UV_DEFAULT_INDEX", "UV_INDEX_URL", "UV_INDEX")):
        return {}
    url = environment.get("PIP_INDEX_URL")
    if not url:
        pip = [sys.executable, "-m", "pip", "config", "get", "global.index-url"]
        url = subprocess.run(pip, capture_output=True, text=True, check=False).stdout.strip()
    return {"UV_DEFAULT_INDEX": url} if url else {}


def _sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()
