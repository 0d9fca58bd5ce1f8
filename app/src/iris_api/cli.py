"""`iris-model`: make, check and show model bundles."""

import argparse
import csv
import importlib.util
import json
import sys
from collections.abc import Sequence
from dataclasses import fields
from pathlib import Path
from typing import Any

from iris_api.bundle import BundleError, read_manifest
from iris_api.card import model_card
from iris_api.manifest import Label, json_schema
from iris_api.settings import Settings

_TRUSTED: tuple[str, ...] = Settings.model_fields["skops_trusted"].default


class UsageError(Exception):
    """What was asked for cannot be done as it was asked; the message says what to give instead."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Do what the command line says; return its exit code."""
    given = _parser().parse_args(arguments)
    try:
        given.run(given)
    except (UsageError, BundleError) as error:
        print(f"iris-model: {error}", file=sys.stderr)
        return 1
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="iris-model", description="Make, check and show model bundles.")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")

    train = commands.add_parser(
        "train", help="train the models that come with the project, the default one if none is named"
    )
    train.add_argument("names", nargs="*", default=["iris"], metavar="NAME", help="iris, iris-forest, ... or all")
    train.add_argument("--models-dir", type=Path, default=Path("models"), metavar="DIR", help="default: ./models")
    train.set_defaults(run=_train)

    pack = commands.add_parser(
        "pack",
        help="turn a model of your own into a bundle",
        description="Turn model.joblib or model.skops and a sample of its training data into the bundle "
        "MODELS_DIR/NAME/VERSION. A joblib file runs code when it is opened: pack only what you trust.",
    )
    pack.add_argument("artifact", type=Path, metavar="MODEL", help="a file that ends in .joblib or .skops")
    pack.add_argument(
        "sample",
        type=Path,
        metavar="SAMPLE.csv",
        help="rows the model was trained on; the header names the features, in the model's order",
    )
    pack.add_argument("--name", required=True, help="name of the model: small letters, digits, - _ .")
    pack.add_argument("--version", required=True, help="its version, say 1.0.0")
    pack.add_argument("--target", metavar="COLUMN", help="column of the sample that holds what is to be predicted")
    pack.add_argument("--description", metavar="TEXT", help="one sentence for the model card and the documentation")
    pack.add_argument("--classes", metavar="A,B,C", help="names of the classes, in the order of the model's classes_")
    pack.add_argument(
        "--features",
        type=Path,
        metavar="FILE.json",
        help='what is known of features: {"NAME": {"description": "", "unit": "", "minimum": 0, "maximum": 9}}',
    )
    pack.add_argument("--models-dir", type=Path, default=Path("models"), metavar="DIR", help="default: ./models")
    pack.add_argument("--replace", action="store_true", help="write over a bundle of the same name and version")
    pack.add_argument("--no-onnx", action="store_true", help="leave out the conversion to ONNX")
    _add_trusted(pack)
    pack.set_defaults(run=_pack)

    check = commands.add_parser("check", help="load bundles as an instance does, and ask their golden samples")
    check.add_argument("bundles", nargs="+", type=Path, metavar="BUNDLE", help="say models/iris/1.0.0")
    _add_trusted(check)
    check.set_defaults(run=_check)

    show = commands.add_parser("show", help="print the model card of a bundle")
    show.add_argument("bundle", type=Path, metavar="BUNDLE", help="say models/iris/1.0.0")
    show.add_argument("--json", action="store_true", help="the manifest instead")
    show.set_defaults(run=_show)

    schema = commands.add_parser("schema", help="print the JSON Schema of manifest.json")
    schema.set_defaults(run=_schema)
    return parser


def _add_trusted(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--skops-trusted",
        action="extend",
        nargs="+",
        default=list(_TRUSTED),
        metavar="TYPE",
        help="further types that a skops file may hold; the hosts need them in IRIS_API_SKOPS_TRUSTED too",
    )


def _train(given: argparse.Namespace) -> None:
    # scikit-learn takes a second to import: only what needs it waits.
    from iris_api.packing import PackError
    from iris_api.recipes import RECIPES, train

    names = list(RECIPES) if given.names == ["all"] else given.names
    for name in names:
        if name not in RECIPES:
            raise UsageError(f"There is no model {name!r} to train; there are {', '.join(RECIPES)}, all.")
    for name in names:
        directory = given.models_dir / name / RECIPES[name].about.version
        try:
            manifest = train(name, directory)
        except PackError as error:
            raise UsageError(f"{name}: {error}") from error
        print(f"{directory}: {_summary(manifest.metrics)}")


def _pack(given: argparse.Namespace) -> None:
    from iris_api.packing import About, PackError, Sample, pack

    directory: Path = given.models_dir / given.name / given.version
    if given.artifact.suffix not in {".joblib", ".skops"}:
        raise UsageError(f"{given.artifact}: the model must be a file that ends in .joblib or .skops.")
    if directory.exists() and not given.replace:
        raise UsageError(f"{directory} is there already. Give another --version, or --replace.")
    names, rows, targets = _read_sample(given.sample, given.target)
    about = About(
        given.name,
        given.version,
        given.description or f"The model {given.name}.",
        target=given.target or "label",
        features=_read_features(given.features, names) if given.features else {},
        class_names=given.classes.split(",") if given.classes else None,
        training={"data": given.sample.name, "samples": len(rows)},
    )
    try:
        artifact = given.artifact.read_bytes()
    except OSError as error:
        raise UsageError(f"{given.artifact}: cannot be read ({error.strerror}).") from None
    import numpy as np

    sample = Sample(names, np.array(rows, dtype=np.float64), targets)
    name = f"model{given.artifact.suffix}"
    if not given.no_onnx and importlib.util.find_spec("skl2onnx") is None:
        raise UsageError("skl2onnx, which converts, is not installed: pip install 'iris-api[pack]', or --no-onnx.")
    try:
        manifest = pack(
            directory, about, name, artifact, sample, skops_trusted=given.skops_trusted, onnx=not given.no_onnx
        )
    except PackError as error:
        raise UsageError(str(error)) from error
    print(f"{directory}: {manifest.task}, {len(names)} features. {_summary(manifest.metrics)}".rstrip())
    print(f"ONNX: {'proven equal' if manifest.onnx else manifest.no_onnx_reason}")
    print(f"Deploy it: fortress_model_name: {given.name}, fortress_model_version: {given.version}")


def _check(given: argparse.Namespace) -> None:
    from iris_api.packing import check

    for bundle in given.bundles:
        manifest = check(bundle, "sklearn", given.skops_trusted).manifest
        engines = "scikit-learn"
        if manifest.onnx:
            check(bundle, "onnx")
            engines += " and ONNX Runtime"
        samples = f"{len(manifest.golden_samples)} golden samples"
        print(f"{bundle}: good, {manifest.name} {manifest.version}, {samples} answered by {engines}")


def _show(given: argparse.Namespace) -> None:
    manifest = read_manifest(given.bundle)
    print(manifest.model_dump_json(indent=2) if given.json else model_card(manifest).rstrip())


def _schema(_given: argparse.Namespace) -> None:
    print(json_schema(), end="")


def _read_sample(path: Path, target: str | None) -> tuple[list[str], list[list[float]], list[Label] | None]:
    """Read names, rows and, if there is such a column, targets."""
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            head, *lines = [line for line in csv.reader(file) if line] or [[]]
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise UsageError(f"{path}: cannot be read as CSV ({error}).") from None
    head = [name.strip() for name in head]
    if len(lines) < 2:
        raise UsageError(f"{path}: it needs a header with the features' names and at least two rows.")
    if len(set(head)) != len(head):
        raise UsageError(f"{path}: two columns have the same name.")
    if target is not None and target not in head:
        raise UsageError(f"{path}: there is no column {target!r}; there are {', '.join(head)}.")
    rows: list[list[float]] = []
    targets: list[Label] = []
    for number, line in enumerate(lines, 2):
        if len(line) != len(head):
            raise UsageError(f"{path}: row {number} has {len(line)} values, the header has {len(head)}.")
        cells = dict(zip(head, line, strict=True))
        if target is not None:
            targets.append(_label(cells.pop(target)))
        rows.append([_number(path, number, name, text) for name, text in cells.items()])
    return [name for name in head if name != target], rows, targets if target is not None else None


def _number(path: Path, row: int, name: str, text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = float("nan")
    if value - value != 0:
        raise UsageError(
            f"{path}: row {row} has {text!r} for {name}, which is no finite number. If it is what is to be predicted: "
            f"--target {name}"
        )
    return value


def _label(text: str) -> Label:
    """Return a number where the text is one: the model's classes may be 0 and 1, or no and yes."""
    for kind in (int, float):
        try:
            return kind(text)
        except ValueError:
            continue
    return text.strip()


def _read_features(path: Path, names: Sequence[str]) -> dict[str, Any]:
    from iris_api.packing import FeatureText

    known = {each.name for each in fields(FeatureText)}
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        features = {name: FeatureText(**about) for name, about in content.items()}
    except (OSError, ValueError, AttributeError) as error:
        raise UsageError(f"{path}: cannot be read as a JSON object ({error}).") from None
    except TypeError:
        raise UsageError(f"{path}: each feature takes an object with some of {', '.join(sorted(known))}.") from None
    if unknown := [name for name in features if name not in names]:
        raise UsageError(f"{path}: the sample has no feature {unknown[0]!r}; it has {', '.join(names)}.")
    return features


def _summary(metrics: dict[str, float]) -> str:
    return ", ".join(f"{name.replace('_', ' ')} {value:g}" for name, value in metrics.items())


if __name__ == "__main__":
    sys.exit(main())
