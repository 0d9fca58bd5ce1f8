from __future__ import annotations

import fcntl
import hashlib
import json
import shutil
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import joblib
import pytest
from fastapi import FastAPI
from starlette.testclient import TestClient

from iris_api.engines.model import Model
from iris_api.settings import Settings

from .apps import serving
from .instance import Instance
from .paths import BUNDLE


@pytest.fixture(scope="session")
def model() -> Model:
    """The default model, by the engine that an instance takes of its own accord."""
    return Model.load(BUNDLE)


@pytest.fixture(scope="session")
def joblib_model() -> Model:
    return Model.load(BUNDLE, "sklearn")


@pytest.fixture(scope="session")
def settings() -> Settings:
    return Settings(instance=2, model_dir=BUNDLE, release="r42", deployment="d7", max_body_bytes=1024)


@pytest.fixture
def app(settings: Settings, model: Model) -> FastAPI:
    return serving(settings, model)


@pytest.fixture
def client(app: FastAPI) -> Iterator[TestClient]:
    with TestClient(app) as client:
        yield client


@pytest.fixture
def copied_bundle(tmp_path: Path) -> Path:
    return Path(shutil.copytree(BUNDLE, tmp_path / "bundle"))


@pytest.fixture
def edit_manifest(copied_bundle: Path) -> Callable[[Callable[[dict[str, Any]], None]], Path]:
    """Change the manifest of a copy of the bundle and return the copy's directory."""

    def edit(change: Callable[[dict[str, Any]], None]) -> Path:
        path = copied_bundle / "manifest.json"
        manifest = json.loads(path.read_text())
        change(manifest)
        path.write_text(json.dumps(manifest))
        return copied_bundle

    return edit


@pytest.fixture
def slow_bundle(
    copied_bundle: Path, edit_manifest: Callable[[Callable[[dict[str, Any]], None]], Path]
) -> Callable[..., Path]:
    """Make of the default model one that takes its time: see `slow`. costs: what its manifest says of that."""
    # It needs scikit-learn, which takes most tests of the server longer to import than to run.
    from .slow import Slow

    def make(costs: dict[str, float] | None = None, **times: Any) -> Path:
        artifact = copied_bundle / "model.joblib"
        joblib.dump(Slow(joblib.load(BUNDLE / "model.joblib"), **times), artifact)

        def change(manifest: dict[str, Any]) -> None:
            manifest["sha256"] = hashlib.sha256(artifact.read_bytes()).hexdigest()
            manifest["onnx"] = None
            manifest["no_onnx_reason"] = "it is slow"
            manifest["golden_samples"] = manifest["golden_samples"][:1]
            manifest["format"] = 3 if costs else 2
            manifest["costs"] = {"sklearn": {"memory_mb": 100} | costs} if costs else None

        return edit_manifest(change)

    return make


@pytest.fixture(scope="module")
def quick_costs() -> Iterator[None]:
    """Let packing measure costs in this process and by one call of a size."""
    # See `slow_bundle`.
    from iris_api.packing import costs, writing

    few = partial(costs.measure_here, seconds=costs.SECONDS / 2, repeat_seconds=0)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(writing, "measure", few)
        patch.setattr(costs, "_FEWEST", 1)
        yield


@pytest.fixture(scope="module")
def quick_packing(quick_costs: None) -> Iterator[None]:
    """Let packing prove by a few rows besides, in modules that test anything else of a bundle."""
    from iris_api.packing import writing
    from iris_api.packing.conversion import points

    counts = {"_GRID_POINTS": 500, "_RANDOM_POINTS": 200, "_MIXED_POINTS": 200, "_BORDER_PAIRS": 20}
    with pytest.MonkeyPatch.context() as patch:
        for name, count in counts.items():
            patch.setattr(points, name, count)
        patch.setattr(writing, "_BESIDE_OTHERS", 8)
        yield


MadeOnce = Callable[[str, Callable[[Path], object]], Path]


@pytest.fixture(scope="session")
def made_once(tmp_path_factory: pytest.TempPathFactory, pytestconfig: pytest.Config) -> MadeOnce:
    """Return a folder by its name, made by the first test that asks for it: once a run, however many workers there are.

    What it holds is for all of them: nobody changes it.
    """
    base = tmp_path_factory.getbasetemp()
    # A worker of pytest-xdist has a folder of its own in that of the run.
    base = base.parent if hasattr(pytestconfig, "workerinput") else base

    def make_once(name: str, make: Callable[[Path], object]) -> Path:
        folder, unfinished = base / name, base / f"{name}.new"
        with (base / f"{name}.lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            if not folder.exists():
                shutil.rmtree(unfinished, ignore_errors=True)
                unfinished.mkdir()
                make(unfinished)
                unfinished.rename(folder)
        return folder

    return make_once


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Callable[..., Instance]]:
    """Start real instances; all of them are gone after the test."""
    running: list[Instance] = []

    def start_one(model_dir: Path = BUNDLE, *, arguments: Sequence[str] = (), **settings: str) -> Instance:
        running.append(Instance(tmp_path, model_dir, *arguments, **settings))
        return running[-1]

    yield start_one
    for instance in running:
        instance.close()
