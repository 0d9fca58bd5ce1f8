"""`iris-model`: makes bundles of models, checks them, and tries them out."""

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
from iris_api.packing.export import ExportError, add_export
from iris_api.packing.mlflow import read_saved_model
from iris_api.packing.programs import add_predict, add_serve
from iris_api.packing.samples import SampleError, read_features, read_parquet, read_sample
from iris_api.settings import Settings

_TRUSTED: tuple[str, ...] = Settings.model_fields["skops_trusted"].default
_BUNDLE = "its folder, say models/iris/1.0.0"
_MODELS_DIR = "default: ./models"
_EXAMPLE = """\
from a model to its answers:
  iris-model pack model.joblib sample.csv --name churn --version 1.0.0 --target left
  iris-model show models/churn/1.0.0
  iris-model predict models/churn/1.0.0 customers.csv
  iris-model serve models/churn/1.0.0

`iris-model COMMAND --help` tells more of each."""
_PACK_EXAMPLE = """\
in the notebook:
  joblib.dump(model, "model.joblib")
  frame.to_parquet("sample.parquet")       # the features, and the target as one more column
then:
  iris-model pack model.joblib sample.parquet --name churn --version 1.0.0 --target left"""


class UsageError(Exception):
    """What was asked for cannot be done as it was asked; the message says what to give instead."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Do what the command line says; return its exit code: 0, 1 if that cannot be done, 130 if it was interrupted.

    It is 2, and the help is printed, if nothing was asked for.
    """
    parser = _parser()
    if not (sys.argv[1:] if arguments is None else arguments):
        parser.print_help(sys.stderr)
        return 2
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
    except (UsageError, SampleError, BundleError, CodeError, ExportError) as error:
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
    parser = argparse.ArgumentParser(
        prog="iris-model",
        description="Turn a trained model into a bundle, a folder that is checked and can be served, and try it out.",
        epilog=_EXAMPLE,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--traceback", action="store_true", help="show where an unexpected error came from")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND", title="commands")

    pack = commands.add_parser(
        "pack",
        help="make a bundle of your model",
        description="Make a bundle, the folder MODELS_DIR/NAME/VERSION, of a trained model and a sample of its\n"
        "training data. Run it in the environment in which the model was trained. A joblib file\n"
        "runs code when it is opened: pack only what you trust.",
        epilog=_PACK_EXAMPLE,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    pack.add_argument(
        "artifact",
        type=Path,
        metavar="MODEL",
        help="the estimator or pipeline, saved by joblib.dump (.joblib) or skops (.skops), or the folder of a model "
        "that MLflow has saved",
    )
    pack.add_argument(
        "sample",
        type=Path,
        nargs="?",
        metavar="SAMPLE",
        help="rows the model was trained on: .parquet, which keeps the dtypes of a DataFrame, or a CSV, whose header "
        "names the features; the columns in the model's order; without it, the input example of MLflow's folder",
    )
    pack.add_argument("--name", required=True, help="name of the model: small letters, digits, - _ .")
    pack.add_argument("--version", required=True, help="its version, say 1.0.0")
    pack.add_argument(
        "--models-dir", type=Path, default=Path("models"), metavar="DIR", help=f"where bundles go; {_MODELS_DIR}"
    )
    pack.add_argument("--replace", action="store_true", help="write over a bundle of the same name and version")

    told = pack.add_argument_group("what the model and its sample don't tell")
    told.add_argument("--target", metavar="COLUMN", help="column of the sample that holds what is predicted")
    told.add_argument(
        "--description", metavar="TEXT", help="one sentence for the model card and the API's documentation"
    )
    told.add_argument("--classes", metavar="A,B,C", help="names of the classes, in the order of the model's classes_")
    told.add_argument("--outputs", metavar="A,B,C", help="names of several targets, or of a transformer's columns")
    told.add_argument(
        "--features",
        type=Path,
        metavar="FILE.json",
        help="what you know of features, each key optional: "
        '{"NAME": {"description": "", "unit": "", "minimum": 0, "maximum": 9, "kind": "category", "nullable": true, '
        '"values": ["a", "b"], "open": false}}; kinds: number, integer, boolean, category, text, date, datetime',
    )
    told.add_argument(
        "--scores",
        action="store_true",
        help="answer decision_function too, for a classifier without predict_proba",
    )

    brought = pack.add_argument_group("what the model imports")
    brought.add_argument(
        "--code",
        type=Path,
        action="append",
        default=[],
        metavar="PATH",
        help="your own module (features.py), folder of a package, or wheel; can be repeated",
    )
    brought.add_argument(
        "--environment",
        choices=["auto", "always", "never"],
        default="auto",
        help="whether the bundle records the packages that the model imports, in the versions installed here, for the "
        "hosts to install; auto: if it imports more than scikit-learn (XGBoost, ...); default: %(default)s",
    )
    _add_trusted(brought)

    onnx = pack.add_argument_group("ONNX, which answers faster where packing proves that it answers alike")
    onnx.add_argument("--no-onnx", action="store_true", help="don't convert the model")
    onnx.add_argument(
        "--proof-seconds",
        type=float,
        default=300,
        metavar="N",
        help="most seconds that the proof may take; default: %(default)s",
    )
    pack.set_defaults(run=_pack)

    show = commands.add_parser(
        "show",
        help="print what a bundle takes and answers, and how it was tested",
        description="Print the model card of a bundle: its features, what it answers, its metrics, what it takes in "
        "time and memory.",
    )
    show.add_argument("bundle", type=Path, metavar="BUNDLE", help=_BUNDLE)
    show.add_argument("--json", action="store_true", help="print manifest.json, which has all of it, instead")
    show.set_defaults(run=_show)

    add_predict(commands.add_parser("predict", help="print the answers to the rows of a file"), _add_trusted)
    add_serve(commands.add_parser("serve", help="serve a bundle on this machine, to try it with curl"), _add_trusted)

    add_export(commands.add_parser("export", help="write a bundle as MLServer or KServe serves it"), _add_trusted)

    check = commands.add_parser(
        "check",
        help="test that bundles can be served here",
        description="Load bundles as a server does, by each engine, and compare their answers to the golden samples, "
        "which were answered where the model was trained.",
    )
    check.add_argument("bundles", nargs="+", type=Path, metavar="BUNDLE", help=_BUNDLE)
    _add_trusted(check)
    check.set_defaults(run=_check)

    sign = commands.add_parser(
        "sign",
        help="sign a bundle with your SSH key, for sites that demand it",
        description="Sign the manifest of a bundle, which has the sha256 of all its other files, and write the "
        "signature beside it.",
    )
    sign.add_argument("bundle", type=Path, metavar="BUNDLE", help=_BUNDLE)
    sign.add_argument(
        "--key",
        type=Path,
        required=True,
        metavar="FILE",
        help="your private key, say ~/.ssh/id_ed25519, or the .pub of one that ssh-agent has",
    )
    sign.set_defaults(run=_sign)

    train = commands.add_parser(
        "train",
        help="train the models that come with the project",
        description="Train models that come with the project, and pack them into bundles.",
    )
    train.add_argument(
        "names", nargs="*", default=["iris"], metavar="NAME", help="iris, iris-forest, ..., or all; default: iris"
    )
    train.add_argument("--models-dir", type=Path, default=Path("models"), metavar="DIR", help=_MODELS_DIR)
    train.set_defaults(run=_train)

    schema = commands.add_parser("schema", help="print the JSON Schema of a bundle's manifest.json")
    schema.set_defaults(run=_schema)
    return parser


def _add_trusted(parser: argparse._ActionsContainer) -> None:
    parser.add_argument(
        "--skops-trusted",
        action="extend",
        nargs="+",
        default=list(_TRUSTED),
        metavar="TYPE",
        help="types that a .skops file may hold beside those that skops trusts; the hosts need them too, in "
        "iris_api_skops_trusted",
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
    if given.code and given.environment == "never":
        raise UsageError("--environment never leaves out what --code gives, without which the model cannot be loaded.")
    directory = _directory(given)
    saved = read_saved_model(given.artifact, needs_sample=given.sample is None) if given.artifact.is_dir() else None
    frame: Any
    targets: Sequence[Any] | None
    if given.sample is None:
        if saved is None:
            raise UsageError("SAMPLE is missing: give rows that the model was trained on, as a CSV or .parquet.")
        names, frame, targets, cells = saved.names, saved.sample, None, None
    elif given.sample.suffix.lower() in {".parquet", ".pq"}:
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
    print(f"{directory}: {manifest.task}, {len(manifest.features)} features. {_summary(manifest.metrics)}".rstrip())
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
    print(f"Try it: iris-model serve {directory}")
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
    from iris_api.packing.replay import check, own_code

    for bundle in given.bundles:
        manifest = read_manifest(bundle)
        engines = "scikit-learn"
        with own_code(bundle, manifest):
            check(bundle, "sklearn", given.skops_trusted)
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
