"""What holds for all tests, those of the application too."""

import gc
import os
import tempfile
from pathlib import Path

import pytest

from app.iris_api.tests import forks
from tests import workers

# A million objects are imported and collected, and all of them stay.
gc.disable()


def pytest_cmdline_main(config: pytest.Config) -> None:
    """Give all workers of a run a folder in which they find what they share, and what they import."""
    if not hasattr(config, "workerinput"):
        folder = tempfile.TemporaryDirectory(prefix="fortress-run-")
        config.add_cleanup(folder.cleanup)
        os.environ[forks.RUN] = f"{os.getpid()}:{folder.name}"
        # Of a fork, nobody would write down which lines it reached.
        if set(config.getoption("tx", None) or ()) == {"popen"} and not config.getoption("cov_source", None):
            workers.fork_workers(config, Path(folder.name))


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Let each worker begin with some of the long tests; what each has at first is a piece of the list."""
    workers = int(os.environ.get("PYTEST_XDIST_WORKER_COUNT", "1"))
    long, others = ([item for item in items if bool(item.get_closest_marker("long")) == kind] for kind in (True, False))
    ends = [round(len(others) * number / workers) for number in range(workers + 1)]
    items[:] = [
        item for number in range(workers) for item in long[number::workers] + others[ends[number] : ends[number + 1]]
    ]


def pytest_runtestloop() -> None:
    """Collect garbage seldom: the million objects that tests import would be looked through again and again."""
    gc.freeze()
    gc.set_threshold(50_000, 20, 20)
    gc.enable()
