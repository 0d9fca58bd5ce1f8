"""Writes a bundle, and proves first that it answers as the estimator did."""

import contextlib
import json
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from pydantic import ValidationError

from iris_api.bundle.manifest import MANIFEST, EngineName, Manifest
from iris_api.engines.model import REFUSALS, Model
from iris_api.packing.asking import first_line
from iris_api.packing.card import CARD, model_card
from iris_api.packing.costs import MeasurementError, measure
from iris_api.packing.environment import Environment, EnvironmentFailedError, complete
from iris_api.packing.given import PackError
from iris_api.packing.imported import Globals
from iris_api.packing.preparation import Prepared
from iris_api.packing.replay import check
from iris_api.packing.tables import TOLERANCE, Answers

# Rows that are asked beside another one and beside themselves, and as many that lack a value; and for how long.
_BESIDE_OTHERS = 32
_BESIDE_OTHERS_SECONDS = 3.0


def validate(content: Mapping[str, Any]) -> Manifest:
    """Return a manifest of its content; raise PackError, which names the feature, for what is not valid."""
    try:
        return Manifest.model_validate(content)
    except ValidationError as error:
        problem = error.errors(include_url=False)[0]
        where, found = [str(each) for each in problem["loc"]], problem["input"]
        if where[:1] == ["features"] and len(where) > 1:
            # By its name, and not by its number.
            where[:2] = [f"feature {content['features'][int(where[1])]['name']!r}"]
        value = "" if isinstance(found, dict | list) else f", but is {found!r:.80}"
        raise PackError(f"{': '.join(where)}: {problem['msg']}{value}.") from None


def write(
    directory: Path,
    files: Mapping[str, bytes],
    content: Mapping[str, Any],
    skops_trusted: Sequence[str],
    prepared: Prepared,
    environment: tuple[Environment, Globals] | None = None,
) -> Manifest:
    """Write a bundle beside its place, check and measure it, move it there whole, and return its manifest.

    Whatever an engine answers is compared with the estimator's own answers, before and after it became a file.
    `environment` is what is known of the one that the bundle is to bring, and what its artifact names.
    """
    manifest = validate(content)
    engines: list[EngineName] = ["sklearn", "onnx"] if manifest.onnx else ["sklearn"]
    with _made(directory.parent), tempfile.TemporaryDirectory(prefix=".new-", dir=directory.parent) as staging:
        new, old = Path(staging, "new"), Path(staging, "old")
        new.mkdir()
        for name, data in files.items():
            (new / name).write_bytes(data)
        _write_manifest(new, content)
        for engine in engines:
            _compare(check(new, engine, skops_trusted), prepared)
        try:
            costs = {engine: measure(new, engine, skops_trusted).model_dump() for engine in engines}
        except MeasurementError as error:
            raise PackError(str(error)) from error
        content = {**content, "costs": costs}
        manifest = _write_manifest(new, content)
        if environment:
            wanted, named = environment

            def add(about: Mapping[str, Any]) -> Manifest:
                return _write_manifest(new, {**content, "environment": about})

            try:
                manifest = complete(wanted, named, new, manifest, skops_trusted, add)
            except EnvironmentFailedError as error:
                if wanted.wanted or not manifest.onnx:
                    raise PackError(f"{error} (--environment never packs without.)") from error
                wanted.failed = str(error)
                for path in new.iterdir():
                    if path.name not in (*files, CARD):
                        path.unlink()
                manifest = _write_manifest(new, content)
        try:
            if directory.exists():
                directory.rename(old)
            new.rename(directory)
        except BaseException:
            if old.exists() and not directory.exists():
                old.rename(directory)
            raise
    return manifest


def _compare(model: Model, prepared: Prepared) -> None:
    """Raise PackError if a model does not answer as its estimator did; of numbers by ONNX, its proof says so."""
    if model.engine.name == "onnx" and model.manifest.is_numeric:
        return
    found = _answers(model, prepared, prepared.compared)
    if difference := prepared.expected.difference(found, max(TOLERANCE, model.engine.tolerance)):
        raise PackError(
            f"By {model.engine.name} the bundle answers otherwise than the model did before it was packed: "
            f"{difference}."
        )
    if model.engine.name == "sklearn":
        _require_independent(model, prepared)


def _answers(model: Model, prepared: Prepared, rows: Any) -> Answers:
    answers = model.engine(rows)
    numbers = answers.probabilities if answers.scores is None else answers.scores
    shares = None if numbers is None else np.array(numbers)
    return Answers(np.array(answers.values, dtype=prepared.expected.values.dtype), shares)


def _require_independent(model: Model, prepared: Prepared) -> None:
    """Raise PackError if the answer to a row depends on those that are asked with it: requests share calls.

    As many rows are asked either time, so that nothing is rounded otherwise.
    """
    rows = prepared.compared
    count = len(rows)
    missing = [number for number in range(count) if any(value is None or value != value for value in rows[number])]
    chosen = [np.linspace(0, len(some) - 1, min(_BESIDE_OTHERS, len(some)), dtype=int) for some in (rows, missing)]
    until = time.monotonic() + _BESIDE_OTHERS_SECONDS
    for number in dict.fromkeys([*(missing[each] for each in chosen[1]), *chosen[0].tolist()]):
        row, other = rows[number], rows[(number + count // 2) % count]
        beside = _answers(model, prepared, [row, other])
        try:
            differs, refusal = _first(beside).difference(_first(_answers(model, prepared, [row, row]))), ""
        except REFUSALS as error:
            differs, refusal = "", f", or refuses it ({first_line(error)})"
        if differs is not None:
            raise PackError(
                f"The model answers a row otherwise{refusal}, depending on the rows beside it: {[*row]!s:.200}. A step "
                "of it computes something from all the rows that it gets, a mean say: have it learn that in fit. On a "
                "host, rows of several requests share a call."
            )
        if time.monotonic() > until:
            break


def _first(answers: Answers) -> Answers:
    return Answers(answers.values[:1], None if answers.shares is None else answers.shares[:1])


@contextlib.contextmanager
def _made(folder: Path) -> Iterator[None]:
    """Make a folder and those above it; remove those that were made if what follows fails."""
    made = [each for each in (folder, *folder.parents) if not each.exists()]
    folder.mkdir(parents=True, exist_ok=True)
    try:
        yield
    except BaseException:
        for each in made:
            with contextlib.suppress(OSError):
                each.rmdir()
        raise


def _write_manifest(directory: Path, content: Mapping[str, Any]) -> Manifest:
    """Write the manifest, and the model card made of it."""
    manifest = validate(content)
    (directory / MANIFEST).write_text(json.dumps(content, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
    (directory / CARD).write_text(model_card(manifest), encoding="utf-8")
    return manifest
