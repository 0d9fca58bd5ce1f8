"""`iris-model`: make, check and show model bundles."""

import argparse
import errno
import importlib.util
import io
import os
import signal
import sys
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter, ValidationError

from iris_api.bundle.files import BundleError, read_manifest
from iris_api.bundle.manifest import Name, json_schema
from iris_api.bundle.signature import sign
from iris_api.packing.card import model_card
from iris_api.packing.code import CodeError, make_importable, read_code
from iris_api.packing.mlflow import read_saved_model
from iris_api.packing.samples import SampleError, read_features, read_parquet, read_sample
from iris_api.settings import Settings

_TRUSTED: tuple[str, ...] = Settings.model_fields["skops_trusted"].default


class UsageError(Exception):
    """What was asked for cannot be done as it was asked; the message says what to give instead."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Do what the command line says; return its exit code: 0, 1 if that cannot be done, 130 if it was interrupted."""
    parser = _parser()
    given = parser.parse_args(arguments)
    # A name or a file's name may have letters that the terminal has not.
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")
    ended = signal.signal(signal.SIGTERM, _interrupt)
    try:
        with warnings.catch_warnings():
            # What matters is written below, in one line.
            warnings.simplefilter("ignore")
            given.run(given)
        sys.stdout.flush()
    except BrokenPipeError:
        # The reader has closed the pipe. Python would report the same once more at its end.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    except KeyboardInterrupt:
        return _complain("interrupted; nothing was written.", 130)
    except (UsageError, SampleError, BundleError, CodeError) as error:
        return _complain(str(error))
    except SystemExit as error:
        return _complain(f"the model ended the program while it was loaded or asked (exit code {error.code}).")
    except (Exception, RecursionError) as error:
        if given.traceback:
            raise
        what = (
            "it needs more memory than there is"
            if isinstance(error, MemoryError)
            else f"{type(error).__name__}: {error}"
        )
        return _complain(f"failed unexpectedly: {what}. `iris-model --traceback {given.command} ...` says where.")
    finally:
        signal.signal(signal.SIGTERM, ended)
    return 0


def _complain(text: str, code: int = 1) -> int:
    print(f"iris-model: {' '.join(text.split())}", file=sys.stderr)
    return code


def _interrupt(_signal: int, _frame: object) -> None:
    raise KeyboardInterrupt


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="iris-model", description="Make, check and show model bundles.")
    parser.add_argument("--traceback", action="store_true", help="show where an unexpected error came from")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")

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
    pack.add_argument(
        "artifact",
        type=Path,
        metavar="MODEL",
        help="a file that ends in .joblib or .skops, or the folder of a model that MLflow has saved",
    )
    pack.add_argument(
        "sample",
        type=Path,
        nargs="?",
        metavar="SAMPLE",
        help="rows the model was trained on, as CSV, whose header names the features in the model's order, or as "
        ".parquet, which keeps their dtypes; without it, the input example of MLflow's folder",
    )
    pack.add_argument("--name", required=True, help="name of the model: small letters, digits, - _ .")
    pack.add_argument("--version", required=True, help="its version, say 1.0.0")
    pack.add_argument("--target", metavar="COLUMN", help="column of the sample that holds what is to be predicted")
    pack.add_argument("--description", metavar="TEXT", help="one sentence for the model card and the documentation")
    pack.add_argument("--classes", metavar="A,B,C", help="names of the classes, in the order of the model's classes_")
    pack.add_argument("--outputs", metavar="A,B,C", help="names of several targets, or of what a transformer makes")
    pack.add_argument(
        "--scores",
        action="store_true",
        help="add decision_function to the answers of a classifier without probabilities",
    )
    pack.add_argument(
        "--features",
        type=Path,
        metavar="FILE.json",
        help='what is known of features: {"NAME": {"description": "", "unit": "", "minimum": 0, "maximum": 9, '
        '"kind": "category", "nullable": true, "values": ["a", "b"], "open": false}}',
    )
    pack.add_argument("--models-dir", type=Path, default=Path("models"), metavar="DIR", help="default: ./models")
    pack.add_argument("--replace", action="store_true", help="write over a bundle of the same name and version")
    pack.add_argument("--no-onnx", action="store_true", help="leave out the conversion to ONNX")
    pack.add_argument(
        "--proof-seconds",
        type=float,
        default=300,
        metavar="N",
        help="give up after so long if it is not proven yet that ONNX Runtime answers alike; default: %(default)s",
    )
    pack.add_argument(
        "--code",
        type=Path,
        action="append",
        default=[],
        metavar="PATH",
        help="a module, the folder of a package, or a wheel of your own that the model imports; can be repeated",
    )
    pack.add_argument(
        "--environment",
        choices=["auto", "always", "never"],
        default="auto",
        help="whether the bundle brings the packages that its model imports, in the versions installed here; auto: if "
        "a release lacks one; default: %(default)s",
    )
    _add_trusted(pack)
    pack.set_defaults(run=_pack)

    check = commands.add_parser("check", help="load bundles as an instance does, and ask their golden samples")
    check.add_argument("bundles", nargs="+", type=Path, metavar="BUNDLE", help="say models/iris/1.0.0")
    _add_trusted(check)
    check.set_defaults(run=_check)

    sign = commands.add_parser("sign", help="sign a bundle by a key of SSH, for sites that demand it")
    sign.add_argument("bundle", type=Path, metavar="BUNDLE", help="say models/iris/1.0.0")
    sign.add_argument("--key", type=Path, required=True, help="say ~/.ssh/id_ed25519; its .pub where an agent has it")
    sign.set_defaults(run=_sign)

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
    from iris_api.packing.given import PackError
    from iris_api.packing.recipes import RECIPES, train

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
        except OSError as error:
            raise _unwritable(directory, error) from None
        print(f"{directory}: {_summary(manifest.metrics)}")


def _pack(given: argparse.Namespace) -> None:
    # Not a number is not above 0, either.
    if not given.proof_seconds > 0:
        raise UsageError(f"--proof-seconds is {given.proof_seconds:g}: give more than 0, or leave ONNX out: --no-onnx.")
    directory = _directory(given)
    saved = read_saved_model(given.artifact, needs_sample=given.sample is None) if given.artifact.is_dir() else None
    frame: Any
    targets: Sequence[Any] | None
    if given.sample is None:
        if saved is None:
            raise UsageError("SAMPLE is missing: give rows that the model was trained on, as a CSV or .parquet.")
        names, frame, targets, cells = saved.names, saved.sample, None, None
    elif given.sample.suffix in {".parquet", ".pq"}:
        frame, targets = read_parquet(given.sample, given.target)
        names, cells = [str(name) for name in frame.columns], None
    else:
        cells = read_sample(given.sample, given.target)
        names, targets = cells.names, cells.targets
    features = read_features(given.features, names) if given.features else {}
    if saved:
        features = saved.nullable(features)
    kinds, columns = cells.typed(saved.typed(features) if saved else features) if cells is not None else ([], [])
    try:
        artifact = saved.artifact if saved else given.artifact.read_bytes()
    except OSError as error:
        raise UsageError(f"{given.artifact}: cannot be read ({error.strerror}). Give the file of your model.") from None
    if not artifact:
        raise UsageError(
            f"{given.artifact}: it is empty. Save the model again: joblib.dump(model, {given.artifact.name!r})."
        )
    if not given.no_onnx and importlib.util.find_spec("skl2onnx") is None:
        raise UsageError("skl2onnx, which converts, is not installed: pip install 'iris-api[pack]', or --no-onnx.")
    # scikit-learn takes a second to import: what is wrong above is said at once.
    import numpy as np

    from iris_api.packing.environment import Environment
    from iris_api.packing.pack import About, PackError, Sample, pack
    from iris_api.packing.tables import frame_of

    if cells is None:
        sample = Sample(names, frame, targets)
    elif set(kinds) == {"number"}:
        sample = Sample(names, np.array(columns, dtype=np.float64).T, targets, cells.where)
    else:
        sample = Sample(names, frame_of(names, kinds, columns), targets, cells.where)

    code = [read_code(path) for path in [*(saved.code if saved else []), *given.code]]
    make_importable(code)
    environment = None if given.environment == "never" else Environment(code, given.environment == "always")
    about = About(
        given.name,
        given.version,
        given.description or f"The model {given.name}.",
        target=given.target or "label",
        features=features,
        class_names=_class_names(given.classes),
        outputs=[name.strip() for name in given.outputs.split(",")] if given.outputs else None,
        scores=given.scores,
        training={"data": given.sample.name if given.sample else "input example", "samples": len(sample.rows)},
    )
    try:
        manifest = pack(
            directory,
            about,
            f"model{saved.suffix if saved else given.artifact.suffix}",
            artifact,
            sample,
            source=saved.path if saved else given.artifact,
            skops_trusted=given.skops_trusted,
            onnx=not given.no_onnx,
            proof_seconds=given.proof_seconds,
            environment=environment,
        )
    except PackError as error:
        raise UsageError(str(error)) from error
    except OSError as error:
        raise _unwritable(directory, error) from None
    print(f"{directory}: {manifest.task}, {len(names)} features. {_summary(manifest.metrics)}".rstrip())
    print(f"ONNX: {'proven equal' if manifest.onnx else manifest.no_onnx_reason}")
    if environment and environment.failed:
        print(f"Environment: none, so that ONNX Runtime alone serves it. {environment.failed}")
    if manifest.environment:
        brought = manifest.environment
        print(f"Environment: {len(brought.packages)} packages, for Python {' and '.join(brought.locks)}, tried afresh")
        for python, why in brought.not_for.items():
            print(f"Not for Python {python}: {why}")
    for note in saved.notes if saved else []:
        print(f"Note: {note}")
    print(f"Deploy it: fortress_model_name: {given.name}, fortress_model_version: {given.version}")


def _directory(given: argparse.Namespace) -> Path:
    """Return where the bundle goes; raise UsageError, before anything is read, for what could not become one."""
    for option, value in (("--name", given.name), ("--version", given.version)):
        try:
            TypeAdapter(Name).validate_python(value)
        except ValidationError:
            raise UsageError(
                f"{option} is {value!r:.100}: it becomes a folder's name, so give at most 64 small letters, digits and "
                ". _ -, of which the first is a letter or digit."
            ) from None
    if given.artifact.suffix not in {".joblib", ".skops"} and not given.artifact.is_dir():
        raise UsageError(
            f"{given.artifact}: the model must be a file that ends in .joblib or .skops. Of a pickle make one: "
            "joblib.dump(pickle.load(open('model.pkl', 'rb')), 'model.joblib')."
        )
    directory: Path = given.models_dir / given.name / given.version
    if os.path.lexists(directory) and not given.replace:
        raise UsageError(f"{directory} is there already. Give another --version, or --replace.")
    above = next(folder for folder in directory.parents if os.path.lexists(folder))
    if not above.is_dir() or not os.access(above, os.W_OK | os.X_OK):
        why = "you may not write there" if above.is_dir() else "it is no folder"
        raise UsageError(f"{above}: the bundle cannot be written ({why}). Give another --models-dir.")
    return directory


def _class_names(given: str | None) -> list[str] | None:
    names = [name.strip() for name in given.split(",")] if given else None
    if names and (len(set(names)) != len(names) or "" in names):
        raise UsageError(f"--classes is {given!r}: each class needs a name of its own, say no,yes.")
    return names


def _unwritable(directory: Path, error: OSError) -> UsageError:
    remedy = "Make room" if error.errno == errno.ENOSPC else "Give another --models-dir, or change whose it is"
    return UsageError(f"{directory}: cannot be written ({error.strerror}: {error.filename}). {remedy}. Nothing was.")


def _check(given: argparse.Namespace) -> None:
    from iris_api.engines.onnx import why_unproven
    from iris_api.packing.replay import check

    for bundle in given.bundles:
        manifest = check(bundle, "sklearn", given.skops_trusted).manifest
        engines = "scikit-learn"
        if (unproven := why_unproven(manifest)) is None:
            check(bundle, "onnx")
            engines += " and ONNX Runtime"
        elif manifest.onnx:
            engines += f" alone; not by ONNX Runtime: {unproven}"
        samples = f"{len(manifest.golden_samples)} golden samples"
        print(f"{bundle}: good, {manifest.name} {manifest.version}, {samples} answered by {engines}")


def _sign(given: argparse.Namespace) -> None:
    # Of what can't be read nobody vouches for.
    read_manifest(given.bundle)
    print(f"{sign(given.bundle, given.key)}: signed by {given.key}")


def _show(given: argparse.Namespace) -> None:
    manifest = read_manifest(given.bundle)
    print(manifest.model_dump_json(indent=2) if given.json else model_card(manifest).rstrip())


def _schema(_given: argparse.Namespace) -> None:
    print(json_schema(), end="")


def _summary(metrics: dict[str, float]) -> str:
    return ", ".join(f"{name.replace('_', ' ')} {value:g}" for name, value in metrics.items())


if __name__ == "__main__":
    sys.exit(main())
