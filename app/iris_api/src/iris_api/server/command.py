"""`iris-api`: serves a model bundle, as the unit iris-api@ does and as a person on a laptop may."""

import argparse
import json
import os
import sys
import textwrap
from collections.abc import Sequence

from iris_api import __version__
from iris_api.settings import PREFIX, Settings, SettingsError

_CONFIGURATION = "python:iris_api.server.gunicorn_conf"
_DESCRIPTION = """\
Serve a model bundle over HTTP until a signal ends it. In the folder of the project, say,
    IRIS_API_MODEL_DIR=models/iris/1.0.0 iris-api
serves on http://127.0.0.1:8001, with its documentation at /docs."""
_WIDTH = 100


def main(arguments: Sequence[str] | None = None) -> int:
    """Serve in this very process, by gunicorn; return an exit code where nothing is served."""
    parser = argparse.ArgumentParser(
        prog="iris-api",
        usage="iris-api [--help] [--version] [--need] [OPTION OF GUNICORN ...]",
        description=_DESCRIPTION,
        epilog=_describe_settings(),
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    parser.add_argument("--version", action="version", version=__version__)
    parser.add_argument(
        "--need",
        action="store_true",
        help="start nothing; print, as JSON, which engine would answer and how many megabytes (10^6 bytes) an instance "
        "takes by it and by each engine that could, null where it is unknown",
    )
    given, options = parser.parse_known_args(arguments)
    if given.need:
        return _print_need()
    try:
        from gunicorn.app.wsgiapp import run
    except ModuleNotFoundError:
        print("iris-api: gunicorn, which serves, is not installed: pip install 'iris-api[serve]'.", file=sys.stderr)
        return 1

    # gunicorn reads its options from here, and starts itself anew by them on SIGUSR2.
    sys.argv[1:] = ["--config", _CONFIGURATION, *options]
    run(prog="iris-api")
    return 0


def _print_need() -> int:
    # The process that watches over the worker has no use for these: they would be memory.
    from iris_api.bundle.files import BundleError
    from iris_api.engines.choice import need

    try:
        print(json.dumps(need(Settings.from_environ(os.environ))))
    except (SettingsError, BundleError) as error:
        print(error, file=sys.stderr)
        return 1
    return 0


def _describe_settings() -> str:
    """Return a list of the variables of the environment that count, each with its default and its meaning."""
    lines = ["variables of the environment:"]
    for name, field in Settings.model_fields.items():
        default = ",".join(field.default) if isinstance(field.default, tuple) else field.default
        about = "must be set" if field.is_required() else f"default: {'none' if default in (None, '') else default}"
        lines.append(f"  {PREFIX}{name.upper()} ({about})")
        lines += textwrap.wrap(field.description or "", _WIDTH, initial_indent=" " * 6, subsequent_indent=" " * 6)
    return "\n".join(lines)


if __name__ == "__main__":
    sys.exit(main())
