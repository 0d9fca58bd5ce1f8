"""A bundle brings what its model imports: found out, locked together with the application, and tried afresh."""

from __future__ import annotations

import base64
import contextlib
import hashlib
import json
import shutil
import subprocess
import sys
import zipfile
import zipimport
from pathlib import Path
from typing import Any

import cloudpickle
import joblib
import pandas as pd
import pytest
from sklearn.compose import make_column_transformer
from sklearn.datasets import load_iris
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import FunctionTransformer, OneHotEncoder, StandardScaler

import iris_api
from iris_api.bundle.environments import environment_id, needs_environment
from iris_api.bundle.manifest import PYTHONS, Manifest
from iris_api.packing import cli, environment
from iris_api.packing import pack as packing
from iris_api.packing.code import CodeError, make_importable, read_code
from iris_api.packing.environment import Environment, EnvironmentFailedError, compile_lock
from iris_api.packing.imported import Globals, ImportedError, closure, distributions_of, watched

from ..paths import BUNDLE

HERE = environment._HERE
FEATURES = """
import numpy as np
from sklearn.base import BaseEstimator, TransformerMixin

class {name}(TransformerMixin, BaseEstimator):
    def fit(self, X, y=None):
        return self
    def transform(self, X):
        import {lazily}
        return np.asarray(X) * 2
"""


def a_module(folder: Path, module: str, lazily: str = "json") -> Path:
    path = folder / f"{module}.py"
    path.write_text(FEATURES.format(name="Twice", lazily=lazily))
    return path


def a_pipeline(module: str) -> Any:
    rows, classes = load_iris(return_X_y=True)
    return make_pipeline(sys.modules[module].Twice(), LogisticRegression(max_iter=1000)).fit(rows[:, 2:], classes)


@pytest.fixture
def own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A module of one's own that this process can import."""
    path = a_module(tmp_path, "own_features")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "own_features", raising=False)
    __import__("own_features")
    return path


def named_by(estimator: Any, folder: Path, dump: Any = joblib.dump) -> Globals:
    path = folder / "model.joblib"
    dump(estimator, path)
    with watched() as found:
        joblib.load(path)
    return found


def by_value(estimator: Any, path: Path) -> None:
    path.write_bytes(cloudpickle.dumps(estimator))


def test_what_a_model_imports_is_found_with_what_that_requires(own: Path, tmp_path: Path) -> None:
    found = named_by(a_pipeline("own_features"), tmp_path)
    assert {"sklearn", "numpy", "own_features"} <= found.modules
    assert not {"builtins", "copyreg", "iris_api"} & found.modules
    assert not found.by_value
    packages = Environment([read_code(own)]).packages(found)
    assert {"scikit-learn", "scipy", "joblib", "threadpoolctl"} <= packages.keys()
    assert packages["numpy"] == closure(["numpy"])["numpy"]
    assert "xgboost-cpu" not in packages
    # Which name a module is imported by says nothing of the package that brings it.
    assert distributions_of(["sklearn", "yaml"]) == {"scikit-learn", "pyyaml"}


def packages_of(folder: Path, estimator: Any, sample: Any, monkeypatch: pytest.MonkeyPatch) -> set[str]:
    """Return the packages that a bundle would bring."""
    brought: set[str] = set()

    def record(_: Environment, named: Globals, packages: dict[str, str]) -> None:
        brought.update(packages)
        raise EnvironmentFailedError("not here")

    monkeypatch.setattr(Environment, "record", record)
    given = packing.About("mine", "1", "A model."), "model.joblib", packing.dump(estimator), sample
    with contextlib.suppress(packing.PackError):
        packing.pack(folder / "1", *given, onnx=False, environment=Environment())
    assert bool(brought) != (folder / "1").exists()
    return brought


@pytest.mark.usefixtures("quick_packing")
def test_pandas_comes_only_with_a_bundle_that_needs_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    table = pd.DataFrame({"city": ["Bern", "Zug", "Bern", "Aarau"] * 9, "plan": ["free", "paid", "paid"] * 12})
    first = make_pipeline(OneHotEncoder(handle_unknown="ignore"), LogisticRegression())
    by_name = make_pipeline(make_column_transformer((OneHotEncoder(), ["city", "plan"])), LogisticRegression())
    target = table.city == "Bern"
    assert packages_of(tmp_path / "objects", first.fit(table, target), table, monkeypatch) == set()
    assert "pandas" in packages_of(tmp_path / "frame", by_name.fit(table, target), table, monkeypatch)


@pytest.mark.usefixtures("quick_packing")
def test_pandas_comes_with_steps_that_answer_by_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    rows, classes = load_iris(return_X_y=True)
    estimator = make_pipeline(make_pipeline(StandardScaler()).set_output(transform="pandas"), LogisticRegression())
    sample = packing.Sample(["a", "b", "c", "d"], rows, None)
    assert "pandas" in packages_of(tmp_path, estimator.fit(rows, classes), sample, monkeypatch)


def test_code_of_ones_own_must_be_given(own: Path, tmp_path: Path) -> None:
    found = named_by(a_pipeline("own_features"), tmp_path)
    with pytest.raises(EnvironmentFailedError, match=rf"imports own_features, .*--code {own}"):
        Environment().packages(found)
    with pytest.raises(ImportedError, match=r"script or notebook that saved it.*--code features\.py"):
        distributions_of(["__main__"])
    with pytest.raises(ImportedError, match="nothing-like-it is required here, but not installed: pip install"):
        closure(["nothing-like-it"])


def test_code_by_value_is_for_one_python(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    factor = 3
    found = named_by(FunctionTransformer(lambda rows: rows * factor), tmp_path, by_value)
    assert found.by_value
    monkeypatch.setattr(environment, "compile_lock", lambda packages, python: f"numpy==2 # {python}\n")
    monkeypatch.setattr(environment, "_HERE", PYTHONS[0])
    about = Environment().record(found, {"numpy": "2"}).about
    assert list(about["locks"]) == [PYTHONS[0]]
    assert f"by value, written by Python {PYTHONS[0]}" in about["not_for"][PYTHONS[1]]
    # Nor has any host the Python of this notebook.
    monkeypatch.setattr(environment, "_HERE", "3.12")
    with pytest.raises(EnvironmentFailedError, match=r"by value, written by Python 3\.12"):
        Environment().record(found, {"numpy": "2"})


@pytest.mark.parametrize("kind", ["module", "package", "wheel"])
def test_own_code_becomes_a_wheel_that_is_imported(tmp_path: Path, kind: str) -> None:
    given = a_module(tmp_path, "shop_features", lazily="yaml")
    if kind == "package":
        package = tmp_path / "folder" / "shop_features"
        (package / "deep").mkdir(parents=True)
        (package / "__pycache__").mkdir()
        (package / "__pycache__" / "x.pyc").touch()
        (package / "__init__.py").write_text("from shop_features.deep.more import Twice\n")
        (package / "deep" / "__init__.py").touch()
        given.rename(package / "deep" / "more.py")
        given = package
    first = read_code(given)
    if kind == "wheel":
        path = tmp_path / first.name
        path.write_bytes(first.content)
        first = read_code(path)
    assert first.modules == {"shop_features"}
    assert first.imports == {"numpy", "sklearn", "yaml"}
    assert first.content == read_code(given).content
    assert first.requirement.endswith(f" --hash=sha256:{hashlib.sha256(first.content).hexdigest()}")
    (tmp_path / "there").mkdir()
    wheel = tmp_path / "there" / first.name
    wheel.write_bytes(first.content)
    with zipfile.ZipFile(wheel) as packed:
        assert not [name for name in packed.namelist() if name.endswith(".pyc")]
        record = packed.read(next(name for name in packed.namelist() if name.endswith("RECORD"))).decode()
        for line in record.splitlines()[:-1]:
            name, told, size = line.split(",")
            content = packed.read(name)
            digest = base64.urlsafe_b64encode(hashlib.sha256(content).digest()).rstrip(b"=").decode()
            assert (told, size) == (f"sha256={digest}", str(len(content)))
    assert "Twice" in (zipimport.zipimporter(str(wheel)).get_code("shop_features").co_names)


def test_two_versions_of_own_code_are_two_wheels(tmp_path: Path) -> None:
    path = a_module(tmp_path, "shop_features")
    first = read_code(path)
    path.write_text(path.read_text() + "# More.\n")
    assert read_code(path).name != first.name
    # Whoever takes the name of somebody's module at an index must not be installed in its place.
    assert first.name.startswith("bundle_code_shop_features-")


@pytest.mark.parametrize(
    "name", ["notes.txt", "a-module.py", "folder", "broken.py", "nothing.py", "x.whl", "no zip-1-py3-none-any.whl"]
)
def test_what_is_no_code_is_refused(tmp_path: Path, name: str) -> None:
    path = tmp_path / name
    if name == "folder":
        path.mkdir()
    elif name != "nothing.py":
        path.write_text("def (")
    with pytest.raises(CodeError, match=r"(--code takes|cannot be read|a wheel is called)"):
        read_code(path)


def test_what_conflicts_with_the_application_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(
        EnvironmentFailedError, match=r"requires scikit-learn>=\S+, but the model was .* scikit-learn 1\.0\.2"
    ):
        compile_lock({"scikit-learn": "1.0.2"}, HERE)


def test_a_model_of_the_release_alone_brings_nothing(tmp_path: Path) -> None:
    named = named_by(LogisticRegression(), tmp_path)
    plain = Environment()
    assert not plain.is_needed(plain.packages(named))
    assert Environment(wanted=True).is_needed(plain.packages(named))
    assert plain.is_needed({"xgboost-cpu": "3.2.0"})


@pytest.fixture
def here(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> list[str]:
    """An environment that is made fresh but for the packages, which this one lends; locks without an index."""
    made: list[str] = []

    def make(home: Path, lock: str, bundle: Path, code: list[str]) -> Path:
        made.append(lock)
        folder = home / "environment"
        subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(folder)], check=True)
        place = next((folder / "lib").glob("python3.*")) / "site-packages"
        packages = Path(joblib.__file__).parents[1]
        lines = [str(Path(iris_api.__file__).parents[1]), str(packages), *(str(bundle / name) for name in code)]
        (place / "lent.pth").write_text("\n".join(lines))
        return folder / "bin" / "python"

    monkeypatch.setattr(environment, "_make_environment", make)
    monkeypatch.setattr(
        environment,
        "compile_lock",
        lambda packages, _: "".join(f"{name}=={each} --hash=sha256:{'0' * 64}\n" for name, each in packages.items()),
    )
    return made


def pack(folder: Path, *options: str) -> Path:
    rows, classes = load_iris(return_X_y=True)
    lines = ["a,b,y", *(f"{a},{b},{y}" for (a, b), y in zip(rows[:, 2:].tolist(), classes.tolist(), strict=True))]
    (folder / "sample.csv").write_text("\n".join(lines))
    arguments = [str(folder / "model.joblib"), str(folder / "sample.csv"), "--name", "shop", "--version", "1.0.0"]
    done = cli.main(
        ["pack", *arguments, "--target", "y", "--no-onnx", "--models-dir", str(folder / "models"), *options]
    )
    assert done == 0
    return folder / "models" / "shop" / "1.0.0"


@pytest.mark.usefixtures("quick_packing")
def test_a_bundle_brings_own_code_and_is_tried_by_it(own: Path, tmp_path: Path, here: list[str]) -> None:
    joblib.dump(a_pipeline("own_features"), tmp_path / "model.joblib")
    bundle = pack(tmp_path, "--code", str(own))
    manifest = Manifest.model_validate_json((bundle / "manifest.json").read_text())
    assert manifest.environment
    assert list(manifest.environment.locks) == list(PYTHONS)
    (wheel,) = manifest.environment.code
    assert {path.name for path in bundle.iterdir()} == {"manifest.json", "MODEL_CARD.md", *manifest.files}
    for name, sha256 in manifest.files.items():
        assert hashlib.sha256((bundle / name).read_bytes()).hexdigest() == sha256
    assert wheel in manifest.files
    card = (bundle / "MODEL_CARD.md").read_text()
    assert f"scikit-learn {manifest.environment.packages['scikit-learn']}" in card
    assert f"own code in `{wheel}`; for Python 3.11 and 3.13" in card
    # It was tried once, by the lock that the bundle has.
    assert here == [(bundle / manifest.environment.locks[HERE].file).read_text()]


@pytest.mark.usefixtures("quick_packing")
def test_what_answers_otherwise_in_a_fresh_environment_is_refused(
    own: Path,
    tmp_path: Path,
    here: list[str],
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """It reads a file of the folder that it was packed in."""
    own.write_text(
        own.read_text().replace("import json", "import os; assert os.path.exists('sample.csv'), 'no such folder'")
    )
    sys.modules.pop("own_features")
    __import__("own_features")
    monkeypatch.chdir(tmp_path)
    (tmp_path / "sample.csv").touch()
    joblib.dump(a_pipeline("own_features"), tmp_path / "model.joblib")
    with pytest.raises(AssertionError):
        pack(tmp_path, "--code", str(own))
    assert "does not answer as here" in capsys.readouterr().err
    assert not (tmp_path / "models" / "shop").exists()


def test_a_model_that_onnx_serves_needs_no_environment() -> None:
    onnx = {"proof": {"onnxruntime": "1.32.0"}}
    assert not needs_environment({}, "auto", "1.32.0")
    brings: dict[str, Any] = {"environment": {"locks": {}}}
    for manifest, engine, needed in (
        (brings, "auto", True),
        (brings | {"onnx": onnx}, "auto", False),
        (brings | {"onnx": onnx}, "sklearn", True),
        (brings | {"onnx": onnx}, "onnx", False),
        # The proof is of another version; or `auto` may take what needs less memory.
        (brings | {"onnx": {"proof": {"onnxruntime": "1.31.0"}}}, "auto", True),
        (brings | {"onnx": onnx, "costs": {"onnx": {"memory_mb": 900}, "sklearn": {"memory_mb": 90}}}, "auto", True),
        (brings | {"onnx": onnx, "costs": {"onnx": {"memory_mb": 80}, "sklearn": {"memory_mb": 90}}}, "auto", False),
    ):
        assert needs_environment(manifest, engine, "1.32.0") is needed


def test_models_of_the_same_packages_share_an_environment() -> None:
    def manifest(lock: str, code: str = "c") -> dict[str, Any]:
        return {"environment": {"locks": {"3.13": {"sha256": lock}}, "code": {"x.whl": code}}, "sha256": "other"}

    first = environment_id("r1", manifest("a"), "3.13")
    assert first == environment_id("r1", manifest("a") | {"sha256": "another"}, "3.13")
    assert (
        len(
            {
                first,
                *(
                    environment_id(*each, "3.13")
                    for each in (("r2", manifest("a")), ("r1", manifest("b")), ("r1", manifest("a", "d")))
                ),
            }
        )
        == 4
    )
    with pytest.raises(LookupError):
        environment_id("r1", manifest("a"), "3.11")


@pytest.mark.parametrize(
    "environment_part",
    [
        {"packages": {}, "locks": {}},
        {"packages": {}, "locks": {"3.13": {"file": "../x", "sha256": "0" * 64}}},
        {"packages": {}, "locks": {"3.13/..": {"file": "x", "sha256": "0" * 64}}},
        {"packages": {}, "locks": {"3.13": {"file": "model.joblib", "sha256": "0" * 64}}},
        {
            "packages": {},
            "locks": {"3.13": {"file": "x", "sha256": "0" * 64}},
            "code": {"a/b-1-py3-none-any.whl": "0" * 64},
        },
    ],
)
def test_a_manifest_names_files_of_its_own(environment_part: dict[str, Any]) -> None:
    content = json.loads((BUNDLE / "manifest.json").read_text())
    with pytest.raises(ValueError, match=r"environment|two files"):
        Manifest.model_validate(content | {"environment": environment_part})


def test_code_is_importable_while_it_is_packed(tmp_path: Path) -> None:
    path = a_module(tmp_path, "importable_features")
    before = [*sys.path]
    try:
        make_importable([read_code(path)])
        assert __import__("importable_features").Twice
    finally:
        sys.path[:] = before
        shutil.rmtree(tmp_path / "__pycache__", ignore_errors=True)
