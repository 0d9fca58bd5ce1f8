"""Asks a bundle's golden samples in a fresh environment: `python -m iris_api.packing.replay BUNDLE [TRUSTED ...]`.

It needs no more than an instance that serves by the model's own library.
"""

import json
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from iris_api.bundle.files import BundleError, read_file
from iris_api.bundle.golden import is_golden
from iris_api.bundle.manifest import MANIFEST, Manifest
from iris_api.engines.model import EngineChoice, Model


def import_code(directory: Path, manifest: Manifest) -> list[str]:
    """Let this process import the code that a bundle brings, and return its places; raise BundleError if it is another.

    Code of one's own is pure Python: it is imported from the wheel as it is.
    """
    places = []
    for name, sha256 in (manifest.environment.code if manifest.environment else {}).items():
        read_file(directory, name, sha256)
        places.append(str(directory.absolute() / name))
    sys.path[:0] = places
    return places


@contextmanager
def own_code(directory: Path, manifest: Manifest) -> Iterator[None]:
    """Have a bundle loaded, within the block, with the code that it brings, and another one behind it with its own."""
    places = import_code(directory, manifest)
    try:
        yield
    finally:
        sys.path[:] = [each for each in sys.path if each not in places]
        for name, module in list(sys.modules.items()):
            if str(getattr(module, "__file__", None)).startswith(tuple(f"{each}/" for each in places)):
                del sys.modules[name]


def check(directory: Path, engine: EngineChoice = "auto", skops_trusted: Sequence[str] = ()) -> Model:
    """Return the model of a bundle, loaded as an instance does; raise BundleError if a golden sample does not agree."""
    model = Model.load(directory, engine, skops_trusted)
    manifest = model.manifest
    rows = manifest.golden_rows
    for number, (sample, answer) in enumerate(zip(manifest.golden_samples, model.predict(rows), strict=True), 1):
        found: dict[str, Any] = {}
        if answer:
            found = {"prediction": answer.value, "prediction_proba": answer.probabilities, "scores": answer.scores}
        classification, tolerance = manifest.classes is not None, model.engine.tolerance
        if not is_golden(sample.model_dump(), found, classification=classification, tolerance=tolerance):
            raise BundleError(
                f"{directory / MANIFEST}: golden sample {number}, {sample.input}, is answered {answer} and not "
                f"{sample.prediction!r} {sample.probabilities or ''}. Train the model again."
            )
    return model


def _missing(error: BaseException) -> str | None:
    """Return the name of the module for the lack of which an error was raised, if that is its cause."""
    cause: BaseException | None = error
    seen: list[BaseException] = []
    while cause and cause not in seen:
        if isinstance(cause, ModuleNotFoundError):
            return cause.name
        seen.append(cause)
        cause = cause.__cause__ or cause.__context__
    return None


def main(arguments: Sequence[str]) -> int:
    """Print a line of JSON: how many samples were answered, or why not and which module is missing, if one is."""
    directory, *trusted = arguments
    try:
        model = check(Path(directory), "sklearn", trusted)
    except Exception as error:
        print(json.dumps({"error": f"{type(error).__name__}: {error}", "missing": _missing(error)}))
        return 1
    print(json.dumps({"samples": len(model.manifest.golden_samples)}))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
