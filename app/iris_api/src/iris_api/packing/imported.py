"""Which packages a model is made of: the modules that its artifact names, and who brings them here."""

import functools
import importlib.metadata
import importlib.util
import json
import re
import sys
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

# What writes functions and classes into a pickle as code, instead of naming the module that has them.
_BY_VALUE = frozenset({"cloudpickle", "dill"})


class ImportedError(Exception):
    """Nobody can bring a module to a host as things are; the message says what to do."""


class Globals:
    """What an artifact names while it is opened: pairs of a module and a name in it."""

    def __init__(self) -> None:
        self.found: set[tuple[str, str]] = set()

    @property
    def modules(self) -> set[str]:
        """Names of the modules, without dots; none of the standard library or of this application."""
        roots = {module.split(".")[0] for module, _ in self.found}
        return roots - set(sys.stdlib_module_names) - {"iris_api"} | roots & {"__main__"}

    @property
    def by_value(self) -> bool:
        """Whether there is code in the artifact itself, which only the same minor version of Python can run."""
        return any(_BY_VALUE & set(module.split(".")) or name == "CodeType" for module, name in self.found)


_watching: list[Globals] = []


@functools.cache
def _install_hook() -> None:
    def hook(event: str, arguments: tuple[object, ...]) -> None:
        if event == "pickle.find_class" and _watching:
            module, name = arguments
            for each in _watching:
                each.found.add((str(module), str(name)))

    # It also sees pickles within the pickle, whatever reads them.
    sys.addaudithook(hook)


@contextmanager
def watched() -> Iterator[Globals]:
    """Yield what is named by the pickles that are opened meanwhile."""
    _install_hook()
    found = Globals()
    _watching.append(found)
    try:
        yield found
    finally:
        _watching.remove(found)


@functools.cache
def _distributions() -> dict[str, list[str]]:
    return dict(importlib.metadata.packages_distributions())


def distributions_of(modules: Iterable[str]) -> set[str]:
    """Return the normalized names of the packages that bring modules; raise ImportedError for one that none brings."""
    names = set()
    for module in sorted(modules):
        if module == "__main__":
            raise ImportedError(
                "The model has a class or a function of the script or notebook that saved it, which nothing else can "
                "import. Move it into a module of its own (features.py), import it from there, save the model again, "
                "and give the module: --code features.py"
            )
        found = {name for name in _distributions().get(module, []) if not _is_editable(name)}
        if not found:
            raise ImportedError(
                f"The model imports {module}, which no installed package brings ({_place_of(module)}). "
                f"If it is code of your own, give it: --code {_place_of(module)}"
            )
        names |= {str(canonicalize_name(name)) for name in found}
    return names


def outputs_of(estimator: Any) -> set[str]:
    """Return the modules of the tables that steps of an estimator are set to answer by: no artifact names them."""
    steps = [estimator, *(estimator.get_params().values() if hasattr(estimator, "get_params") else [])]
    configured = [getattr(step, "_sklearn_output_config", {}).get("transform") for step in steps]
    return {"pandas", "polars"} & {*configured}


def _place_of(module: str) -> str:
    try:
        spec = importlib.util.find_spec(module)
    except (ImportError, ValueError):
        spec = None
    if spec is None or not spec.origin:
        return f"{module}.py"
    path = Path(spec.origin)
    return str(path.parent if path.name == "__init__.py" else path)


def _is_editable(name: str) -> bool:
    """Return whether a package is a link to a folder of sources, which no index has."""
    text = importlib.metadata.distribution(name).read_text("direct_url.json")
    return bool(text and json.loads(text).get("dir_info", {}).get("editable"))


def closure(names: Iterable[str]) -> dict[str, str]:
    """Return the installed version of packages and of all that they require, by normalized name.

    Raises ImportedError where one of them is not installed.
    """
    versions: dict[str, str] = {}
    waiting = [(name, frozenset[str]()) for name in names]
    seen: set[tuple[str, frozenset[str]]] = set()
    while waiting:
        name, extras = waiting.pop()
        if (name, extras) in seen:
            continue
        seen.add((name, extras))
        try:
            found = importlib.metadata.distribution(name)
        except importlib.metadata.PackageNotFoundError:
            raise ImportedError(f"{name} is required here, but not installed: pip install {name}") from None
        # What comes after + names a build of this machine, which no index has.
        versions[name] = re.sub(r"\+.*", "", found.version)
        for text in found.requires or []:
            requirement = Requirement(text)
            marker = requirement.marker
            if marker is None or any(marker.evaluate({"extra": extra}) for extra in ("", *extras)):
                waiting.append((str(canonicalize_name(requirement.name)), frozenset(requirement.extras)))
    return versions
