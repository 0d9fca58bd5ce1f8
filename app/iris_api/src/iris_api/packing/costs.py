"""Measures what serving a bundle takes by an engine: time of a call and of a row, and memory.

A fresh process loads the bundle as an instance does, so that nothing is counted that an instance would not need too.
"""

import json
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Sequence
from itertools import cycle, islice
from pathlib import Path

from iris_api.bundle.files import BundleError
from iris_api.bundle.manifest import Cost, EngineName
from iris_api.engines.model import Model
from iris_api.settings import Settings

# As many rows as an instance hands to an engine at once, where nobody sets another limit.
LARGEST_BATCH = max(int(Settings.model_fields[name].default) for name in ("max_rows", "max_batch_rows"))
LARGEST_VALUES = int(Settings.model_fields["max_values"].default)
# What an instance has loaded beside its model and its engine, FastAPI above all, in 10^6 bytes: it need not be there
# where models are packed.
SERVER_MB = 16
# Within which a model must be loaded and have answered, by each engine.
SECONDS = 60
# Calls of a size are repeated for so long.
REPEAT_SECONDS = 0.2
# And for longer until there are so many, unless they are slow.
_FEWEST = 5
_PATIENCE_SECONDS = 1
# Rows of a call; each is measured only if it will end within the time that is left.
_SIZES = (10, 100)


class MeasurementError(Exception):
    """An engine cannot serve the model in reasonable time or memory; the message says which and what to do."""


def measure(directory: Path, engine: EngineName, skops_trusted: Sequence[str], *, seconds: float | None = None) -> Cost:
    """Return what serving a bundle by an engine takes, or raise MeasurementError.

    Within `seconds`, by default SECONDS, the model must be loaded and have answered; a batch that would not end within
    half of them is not tried, and its time follows from that of smaller ones.
    """
    seconds = seconds or SECONDS
    command = [sys.executable, "-P", "-m", "iris_api.packing.costs", str(directory), engine]
    command += [str(seconds / 2), str(REPEAT_SECONDS), *skops_trusted]
    # Whatever this process can import, the estimator's own module for one.
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(path or os.getcwd() for path in sys.path)}
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=seconds, env=environment)
    except subprocess.TimeoutExpired:
        raise MeasurementError(
            f"Loading the model by {engine} and answering a few requests takes more than {seconds:g} s: it is too slow "
            "to be served. Make it smaller, say with fewer or less deep trees."
        ) from None
    if done.returncode < 0:
        raise MeasurementError(
            f"The process that served the model by {engine} was ended by signal {-done.returncode}; 9 means that this "
            "machine's memory did not suffice. Pack on a machine with more, or make the model smaller."
        )
    if done.returncode != 0:
        raise MeasurementError((done.stderr.strip().splitlines() or [f"The model is not served by {engine}."])[-1])
    return Cost(**json.loads(done.stdout.splitlines()[-1]))


def measure_here(
    directory: Path, engine: EngineName, skops_trusted: Sequence[str], *, seconds: float, repeat_seconds: float
) -> Cost:
    """Measure in this process, whose greatest memory is that of model and engine if it has done nothing else.

    A batch is tried if it will end within `seconds`; calls of a size are repeated for `repeat_seconds`.
    """
    end = time.monotonic() + seconds
    model = Model.load(directory, engine, skops_trusted)
    manifest = model.manifest
    golden = manifest.golden_rows
    largest = max(1, min(LARGEST_BATCH, LARGEST_VALUES // len(manifest.features)))

    def times_of(rows: int) -> list[float]:
        """Return the seconds that calls with so many rows take."""
        batch = list(islice(cycle(golden), rows))
        found: list[float] = []
        enough = time.monotonic() + repeat_seconds
        # A call that was disturbed is no reason to end here, with a median that is its own or half so.
        while (
            not found
            or (len(found) < _FEWEST and sum(found) < _PATIENCE_SECONDS)
            or time.monotonic() + min(found) < enough
        ):
            started = time.perf_counter()
            model.predict(batch)
            found.append(time.perf_counter() - started)
        return found

    # The first calls fill caches.
    times_of(1)
    single, slope = times_of(1), 0.0
    for rows in sorted({*(size for size in _SIZES if size < largest), largest} - {1}):
        if time.monotonic() + min(single) + (slope or min(single)) * rows > end:
            break
        # The least of each, since a difference of medians would be mostly what else this machine does.
        slope = max(0.0, min(times_of(rows)) - min(single)) / (rows - 1)
    return Cost(
        call_us=round(statistics.median(single) * 1e6, 1),
        row_us=round(slope * 1e6, 3),
        memory_mb=round(_peak_mb() + SERVER_MB, 1),
    )


def _peak_mb() -> float:
    """Return the most memory that this process has had, in 10^6 bytes.

    Not by getrusage: its figure outlives exec and would be the parent's.
    """
    lines = Path("/proc/self/status").read_text().splitlines()
    kilobytes = next(line.split()[1] for line in lines if line.startswith("VmHWM:"))
    return int(kilobytes) * 1024 / 1e6


def main(arguments: Sequence[str]) -> int:
    """Print the cost of `DIRECTORY ENGINE SECONDS REPEAT_SECONDS [TRUSTED...]` as a line of JSON."""
    directory, engine, seconds, repeat_seconds, *trusted = arguments
    name: EngineName = "onnx" if engine == "onnx" else "sklearn"
    try:
        cost = measure_here(
            Path(directory), name, trusted, seconds=float(seconds), repeat_seconds=float(repeat_seconds)
        )
    except BundleError as error:
        print(error, file=sys.stderr)
        return 1
    print(cost.model_dump_json())
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
