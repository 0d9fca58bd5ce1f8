"""`iris-model serve` and `iris-model predict`: programs of their own, which this process becomes.

Packing imports nothing that serves: where a model is trained none of that need be installed. So these commands don't
call what they need, they run it, and Ctrl-C, signals and the exit code are those of the one process that there is.
"""

import argparse
import json
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import NoReturn

from iris_api.bundle.files import read_manifest
from iris_api.settings import PREFIX

_ENGINE = (
    "what computes the answers: onnx (ONNX Runtime), sklearn (the estimator itself), or auto: onnx where packing has "
    "proven that it answers alike; default: %(default)s"
)


def add_serve(parser: argparse.ArgumentParser, add_trusted: Callable[[argparse._ActionsContainer], None]) -> None:
    """Add the arguments of `serve`."""
    parser.description = (
        "Serve a bundle on this machine until Ctrl-C, by the same application as on a host, and print a curl command "
        "that asks it. There is neither TLS nor a password: it is for trying."
    )
    parser.add_argument("bundle", type=Path, metavar="BUNDLE", help="its folder, say models/iris/1.0.0")
    parser.add_argument("--port", type=_port, default=8000, help="default: %(default)s")
    parser.add_argument(
        "--host",
        default="127.0.0.1",
        metavar="ADDRESS",
        help="address to listen on; 0.0.0.0 lets other machines ask too; default: %(default)s",
    )
    parser.add_argument("--engine", choices=["auto", "sklearn", "onnx"], default="auto", help=_ENGINE)
    add_trusted(parser)
    parser.epilog = "The limits of a request and the like are set by the variables that `iris-api --help` lists."
    parser.set_defaults(run=_serve)


def add_predict(parser: argparse.ArgumentParser, add_trusted: Callable[[argparse._ActionsContainer], None]) -> None:
    """Add the arguments of `predict`."""
    parser.description = (
        "Print the answers of a bundle to the rows of a file, one line a row in the same order. Values are judged as a "
        "server judges them: what it would refuse is named, with its row. Columns that the model does not take are "
        "left out."
    )
    parser.add_argument("bundle", type=Path, metavar="BUNDLE", help="its folder, say models/iris/1.0.0")
    parser.add_argument(
        "file",
        metavar="FILE",
        help="rows as .csv (the first line names the columns, an empty cell is a missing value), .parquet, .json (a "
        "list of objects) or .ndjson (an object a line), or - for the standard input, of which the first letter tells",
    )
    parser.add_argument(
        "--format", choices=["csv", "ndjson", "json"], default="csv", help="of the answers; default: %(default)s"
    )
    parser.add_argument(
        "--scores", action="store_true", help="add the probability of each class, or the scores of decision_function"
    )
    parser.add_argument("--engine", choices=["auto", "sklearn", "onnx"], default="auto", help=_ENGINE)
    add_trusted(parser)
    parser.set_defaults(run=_predict)


def _port(text: str) -> int:
    if not text.isdecimal() or not 1 <= int(text) <= 65535:
        raise argparse.ArgumentTypeError(f"{text!r} is no port: give a number from 1 to 65535")
    return int(text)


def _serve(given: argparse.Namespace) -> NoReturn:
    # What is no bundle is said at once.
    read_manifest(given.bundle)
    settings = {
        "model_dir": given.bundle,
        "base_port": given.port,
        "instance": 1,
        "bind_address": given.host,
        "engine": given.engine,
        "skops_trusted": ",".join(given.skops_trusted),
    }
    # As on a host; see server/gunicorn_conf.py.
    threads = {name: os.environ.get(name, "1") for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS")}
    variables = {PREFIX + name.upper(): str(value) for name, value in settings.items()}
    _become("iris_api.local.serve", environment=os.environ | threads | variables)


def _predict(given: argparse.Namespace) -> NoReturn:
    read_manifest(given.bundle)
    request = {
        "bundle": str(given.bundle),
        "file": given.file,
        "format": given.format,
        "scores": given.scores,
        "engine": given.engine,
        "skops_trusted": given.skops_trusted,
    }
    _become("iris_api.local.predict", json.dumps(request), environment=dict(os.environ))


def _become(module: str, *arguments: str, environment: dict[str, str]) -> NoReturn:
    """Run a module in place of this program."""
    # -P: a random.py in the folder where somebody happens to be is not meant.
    os.execve(sys.executable, [sys.executable, "-P", "-m", module, *arguments], environment)
