"""Workers of pytest-xdist as forks of a process that has collected the tests.

What the tests import takes some five seconds of the processor, and each worker would import it for itself. Here all of
it is imported once; what a worker collects, runs and tells is its own and xdist's.
"""

from __future__ import annotations

import gc
import os
import shlex
import signal
import socket
import sys
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn

from tests import ROOT
from tools import forks

if TYPE_CHECKING:
    import pytest

# What the application imports when it needs it, and most of its tests do.
LATER = ("onnxruntime", "pyarrow.parquet", "pydantic.v1", "skl2onnx", "skops.io")
# What execnet starts as the Python of a worker, with the arguments of a Python, which are the same for all.
PYTHON = "import sys; sys.path.insert(0, {root!r}); from tests import workers; workers.be_worker({address!r})"


def fork_workers(config: pytest.Config, folder: Path) -> None:
    """Let the workers of a run be forks of a fork of this process; folder: of the run."""
    address, owner = folder / "workers", os.getpid()
    listener = forks.listen(address)
    server = os.fork()
    if not server:
        serve(listener, owner, [str(argument) for argument in config.invocation_params.args])
    listener.close()

    def end() -> None:
        os.kill(server, signal.SIGTERM)
        os.waitpid(server, 0)

    config.add_cleanup(end)
    python = shlex.join([sys.executable, "-S", "-c", PYTHON.format(root=str(ROOT), address=str(address))])
    config.option.tx = [f"popen//python={python}" for _ in config.option.tx]


def serve(listener: socket.socket, owner: int, arguments: list[str]) -> NoReturn:
    """Import what the tests import, and be a worker in each fork that is asked for."""
    import pytest

    # Ctrl-C is for the workers.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    with Path(os.devnull).open("r+") as nothing:
        for number in range(3):
            os.dup2(nothing.fileno(), number)
    # A test that cannot be imported is told by each worker, which tries it again.
    pytest.main([*arguments, "--numprocesses=0", "--dist=no", "--collect-only", "--quiet"])
    if "iris_api.packing" in sys.modules:
        for name in LATER:
            import_module(name)
    gc.freeze()
    job, streams = forks.serve(listener, owner)
    signal.signal(signal.SIGINT, signal.default_int_handler)
    forks.become_part(job, streams)


def be_worker(address: str) -> NoReturn:
    """Have a fork do what execnet asks of this process, by its inputs and outputs; end as the fork does."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    server = socket.socket(socket.AF_UNIX)
    server.connect(address)
    job = forks.Job("tests.bootstrap", (), os.getcwd(), dict(os.environ))
    sys.exit(forks.Program(server, job, sys.stdin, sys.stdout, sys.stderr).wait())
