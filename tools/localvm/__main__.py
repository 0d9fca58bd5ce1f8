"""`python3 tools/localvm --help`: local Debian machines for development and tests."""

import importlib
import sys
from pathlib import Path


def main() -> int:
    """Run the command line of the package that this folder is."""
    # Under sudo, bytecode would be root's files in the user's clone.
    sys.dont_write_bytecode = True
    # Python was given the folder, and puts it on the path itself; its parent makes a package of it.
    sys.path[0] = str(Path(__file__).resolve().parents[1])
    status: int = importlib.import_module("localvm.cli").main()
    return status


sys.exit(main())
