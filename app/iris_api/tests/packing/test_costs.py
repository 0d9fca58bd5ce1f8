"""What packing measures of an engine: right where time and memory are known, and in bounded time."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from sklearn.base import BaseEstimator, RegressorMixin
from sklearn.datasets import load_diabetes

from iris_api.bundle.manifest import Cost, EngineName
from iris_api.packing import costs, writing
from iris_api.packing.costs import measure
from iris_api.packing.pack import About, PackError, Sample, dump, pack

from ..forks import Program
from ..paths import BUNDLE, SOURCE

ENGINES: tuple[EngineName, ...] = ("sklearn", "onnx")
ROWS = load_diabetes().data[:50, :2]
# Seconds for which calls of a size are repeated here.
BRIEFLY = 0.05


@pytest.fixture(autouse=True)
def brief(monkeypatch: pytest.MonkeyPatch) -> None:
    """Known times need no long look."""
    monkeypatch.setattr(costs, "REPEAT_SECONDS", BRIEFLY)


class Paced(RegressorMixin, BaseEstimator):  # type: ignore[misc]
    """Takes so long as it is told, by another process than the one that fitted it, and holds so much memory."""

    def __init__(self, call: float = 0, row: float = 0, megabytes: int = 0, load: float = 0) -> None:
        self.call, self.row, self.megabytes, self.load = call, row, megabytes, load
        self.process = os.getpid()

    def fit(self, X: Any, y: Any) -> Paced:
        self.n_features_in_ = X.shape[1]
        self.ballast_ = np.ones(self.megabytes * 125_000)
        return self

    def predict(self, X: Any) -> Any:
        if self.process != os.getpid():
            time.sleep(self.call + self.row * (len(X) - 1))
        return np.asarray(X)[:, 0] * 2

    def __setstate__(self, state: dict[str, Any]) -> None:
        super().__setstate__(state)
        if self.process != os.getpid():
            self.load_elsewhere()

    def load_elsewhere(self) -> None:
        """Take so long as it is told to be loaded."""
        time.sleep(self.load)


class Disturbed(Paced):
    """Is quick, but for one call in the middle of those that are measured."""

    def predict(self, X: Any) -> Any:
        if self.process != os.getpid() and len(X) == 1:
            now = time.monotonic()
            self.first_ = getattr(self, "first_", now)
            # The calls that fill caches end after so long; this is the second one after them.
            self.measured_ = getattr(self, "measured_", 0) + (now - self.first_ > BRIEFLY)
            if self.measured_ == 2:
                time.sleep(0.12)
        return np.asarray(X)[:, 0] * 2


class Settled(Paced):
    """Can be loaded by the process that fitted it alone."""

    def load_elsewhere(self) -> None:
        raise OSError("gone")


@pytest.fixture
def by_fork(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let another process measure that need not import scikit-learn, where nothing of what it measures is looked at."""

    def run(
        command: list[str], *, env: dict[str, str], timeout: float, **_: object
    ) -> subprocess.CompletedProcess[str]:
        assert command[:3] == [sys.executable, "-P", "-m"]
        with tempfile.TemporaryFile("w+") as out, tempfile.TemporaryFile("w+") as err:
            program = Program(*command[3:], env=env, stdout=out, stderr=err)
            try:
                status = program.wait(timeout)
            except TimeoutError:
                program.send_signal(signal.SIGKILL)
                raise subprocess.TimeoutExpired(command, timeout) from None
            out.seek(0)
            err.seek(0)
            return subprocess.CompletedProcess(command, status, out.read(), err.read())

    seam = SimpleNamespace(run=run, TimeoutExpired=subprocess.TimeoutExpired)
    monkeypatch.setattr(costs, "subprocess", seam)


@pytest.fixture
def here(monkeypatch: pytest.MonkeyPatch) -> Callable[[float], None]:
    """Let this process measure, which is another than the one that fitted as far as an estimator can tell.

    It spares a process that imports scikit-learn, where neither that nor memory is what a test is about.
    """

    def measure_in(seconds: float) -> None:
        def measured(*bundle: Any) -> Cost:
            with pytest.MonkeyPatch.context() as patch:
                patch.setattr(os, "getpid", lambda: -1)
                return costs.measure_here(*bundle, seconds=seconds, repeat_seconds=BRIEFLY)

        monkeypatch.setattr(writing, "measure", measured)

    return measure_in


def packed(directory: Path, estimator: Paced) -> Path:
    sample = Sample(["a", "b"], ROWS)
    artifact = dump(estimator.fit(ROWS, ROWS[:, 0]))
    pack(directory, About("paced", "1", "Known times."), "model.joblib", artifact, sample, onnx=False)
    return directory


@pytest.mark.long
def test_time_and_memory_are_those_of_the_estimator(tmp_path: Path) -> None:
    bundle = packed(tmp_path / "bundle", Paced(call=0.002, row=50e-6, megabytes=80))
    manifest = json.loads((bundle / "manifest.json").read_text())
    assert manifest["format"] == 3
    assert list(manifest["costs"]) == ["sklearn"]
    cost = Cost(**manifest["costs"]["sklearn"])
    # It never takes less, and on a busy machine many times as much; in another unit it were a thousand times.
    assert 2000 <= cost.call_us < 200_000
    assert 45 < cost.row_us < 5_000
    # The ballast is there twice while it is loaded: as the file's bytes and as the array.
    # scikit-learn imports pandas where that is installed, as it is here.
    assert 220 < cost.memory_mb < 460
    assert "us a call" in (bundle / "MODEL_CARD.md").read_text()


def test_a_call_that_was_disturbed_does_not_count(tmp_path: Path, here: Callable[[float], None]) -> None:
    here(costs.SECONDS)
    cost = json.loads((packed(tmp_path / "bundle", Disturbed()) / "manifest.json").read_text())["costs"]["sklearn"]
    assert cost["call_us"] < 10_000


@pytest.mark.long
def test_the_engine_without_scikit_learn_is_smaller_and_quicker() -> None:
    found = {engine: measure(BUNDLE, engine, ()) for engine in ENGINES}
    assert found["onnx"].memory_mb < found["sklearn"].memory_mb
    assert found["onnx"].call_us < found["sklearn"].call_us


SERVER = """
import sys
from pathlib import Path
from types import SimpleNamespace
from iris_api.engines.model import Model

def peak_mb():
    lines = Path("/proc/self/status").read_text().splitlines()
    return int(next(line.split()[1] for line in lines if line.startswith("VmHWM:"))) * 1024 / 1e6

Model.load(Path(sys.argv[1]), "onnx")
before = peak_mb()
import iris_api.server.app
print(peak_mb() - before)
"""


def test_what_the_server_adds_is_what_is_counted_for_it() -> None:
    """It is a constant, because no server need be installed where models are packed."""
    environment = os.environ | {"PYTHONPATH": str(SOURCE)}
    done = subprocess.run(
        [sys.executable, "-c", SERVER, str(BUNDLE)], env=environment, capture_output=True, text=True, check=True
    )
    assert float(done.stdout) == pytest.approx(costs.SERVER_MB, abs=4)


def test_a_batch_that_would_last_too_long_is_not_tried(tmp_path: Path, here: Callable[[float], None]) -> None:
    here(20)
    # A thousand rows would take 21 s.
    bundle = packed(tmp_path / "bundle", Paced(row=0.021))
    assert 20_900 < json.loads((bundle / "manifest.json").read_text())["costs"]["sklearn"]["row_us"] < 64_000


def test_a_model_that_does_not_load_in_time_is_refused_and_nothing_is_left(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, by_fork: None
) -> None:
    monkeypatch.setattr(costs, "SECONDS", 1)
    with pytest.raises(PackError, match=r"takes more than 1 s: it is too slow"):
        packed(tmp_path / "bundle", Paced(load=60))
    assert list(tmp_path.iterdir()) == []


def test_what_another_process_cannot_load_is_refused_and_nothing_is_left(tmp_path: Path, by_fork: None) -> None:
    with pytest.raises(PackError, match=r"OSError: gone.*Train it again"):
        packed(tmp_path / "bundle", Settled())
    assert list(tmp_path.iterdir()) == []
