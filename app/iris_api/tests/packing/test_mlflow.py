"""A folder as MLflow saves it becomes a bundle without MLflow; tests/clients packs one that MLflow itself has saved."""

from __future__ import annotations

import io
import json
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import joblib
import numpy as np
import pandas as pd
import pytest
import sklearn
from sklearn.compose import ColumnTransformer
from sklearn.impute import SimpleImputer
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import OneHotEncoder

from iris_api.bundle.files import read_manifest
from iris_api.engines.model import Model
from iris_api.packing import cli
from iris_api.packing.mlflow import read_saved_model
from iris_api.packing.samples import SampleError

pytestmark = pytest.mark.usefixtures("quick_packing")

ROWS = 40
MLMODEL = f"""\
flavors:
  python_function:
    env: {{conda: conda.yaml, virtualenv: python_env.yaml}}
    loader_module: mlflow.sklearn
    model_path: model.pkl
    predict_fn: predict
    python_version: 3.11.7
  sklearn:
    code: null
    pickled_model: model.pkl
    serialization_format: cloudpickle
    sklearn_version: {sklearn.__version__}
mlflow_version: 3.17.2
saved_input_example_info: {{artifact_path: input_example.json, pandas_orient: split, type: dataframe}}
signature:
  inputs: '[{{"type": "double", "name": "age", "required": false}},
    {{"type": "long", "name": "visits", "required": true}}, {{"type": "string", "name": "zip", "required": true}},
    {{"type": "boolean", "name": "vip", "required": true}},
    {{"type": "datetime", "name": "since", "required": true}}]'
  outputs: '[{{"type": "tensor", "tensor-spec": {{"dtype": "str", "shape": [-1]}}}}]'
  params: null
"""


def table() -> pd.DataFrame:
    numbers = np.arange(ROWS)
    return pd.DataFrame(
        {
            "age": numbers * 1.5,
            "visits": numbers,
            "zip": ["4001", "8001"] * (ROWS // 2),
            "vip": numbers % 3 == 0,
            "since": pd.date_range("2026-01-01", periods=ROWS),
        }
    )


def fitted(frame: pd.DataFrame) -> Any:
    columns = ColumnTransformer(
        [
            ("numbers", SimpleImputer(), ["age", "visits"]),
            ("zip", OneHotEncoder(), ["zip"]),
            ("vip", "passthrough", ["vip"]),
        ]
    )
    return make_pipeline(columns, LogisticRegression()).fit(frame, np.where(frame.age > 20, "left", "stays"))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """What MLflow has saved: the dates of its example are texts, and a missing number is NaN."""
    folder, frame = tmp_path / "saved", table()
    folder.mkdir()
    (folder / "MLmodel").write_text(MLMODEL)
    (folder / "model.pkl").write_bytes(pickle.dumps(fitted(frame)))
    frame.loc[::7, "age"] = np.nan
    split = frame.assign(since=frame.since.map(lambda time: time.isoformat())).to_dict(orient="split")
    del split["index"]
    (folder / "input_example.json").write_text(json.dumps(split))
    (folder / "requirements.txt").write_text("mlflow==3.17.2\nscikit-learn\n")
    return folder


def pack(folder: Path, *more: str) -> int:
    given = ["pack", str(folder), *more, "--name=mine", "--version=1", f"--models-dir={folder.parent / 'models'}"]
    return cli.main([*given, "--no-onnx", "--environment=never"])


def test_signature_and_example_say_what_the_features_are(folder: Path) -> None:
    assert pack(folder, "--target=churn") == 0
    bundle = folder.parent / "models" / "mine" / "1"
    manifest = read_manifest(bundle)
    assert [(each.name, each.kind, each.nullable) for each in manifest.features] == [
        ("age", "number", True),
        ("visits", "integer", False),
        ("zip", "category", False),
        ("vip", "boolean", False),
        ("since", "datetime", False),
    ]
    assert (manifest.target.name, manifest.training["samples"]) == ("churn", ROWS)
    assert (bundle / "model.joblib").read_bytes() == (folder / "model.pkl").read_bytes()
    rows: list[list[Any]] = [
        [None, 3, "8001", True, "2026-02-01T00:00:00"],
        [30.0, 39, "4001", False, "2026-02-01T00:00:00"],
    ]
    own = pd.DataFrame(rows, columns=table().columns)
    own["age"], own["since"] = own.age.astype(float), pd.to_datetime(own.since)
    answers = [answer and answer.value for answer in Model.load(bundle).predict(rows)]
    assert answers == fitted(table()).predict(own).tolist()


def test_a_sample_of_ones_own_has_the_types_of_the_signature(folder: Path) -> None:
    (folder / "input_example.json").unlink()
    sample = folder.parent / "sample.csv"
    # A code that looks like a number, and no missing value of what may be missing.
    table().to_csv(sample, index=False)
    assert pack(folder, str(sample)) == 0
    features = {each.name: each for each in read_manifest(folder.parent / "models" / "mine" / "1").features}
    assert (features["zip"].kind, features["zip"].values) == ("category", ["4001", "8001"])
    assert (features["visits"].kind, features["since"].kind) == ("integer", "datetime")
    assert features["age"].nullable


def test_an_array_has_numbers_alone_and_no_names(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rows = np.random.default_rng(0).normal(size=(5, 3))
    (folder / "model.pkl").write_bytes(pickle.dumps(LogisticRegression().fit(rows, [0, 1, 0, 1, 1])))
    (folder / "input_example.json").write_text(json.dumps(rows.tolist()))
    signature = MLMODEL.partition("signature:")[0] + (
        'signature: {inputs: \'[{"type": "tensor", "tensor-spec": {"dtype": "float64", "shape": [-1, 3]}}]\'}\n'
    )
    (folder / "MLmodel").write_text(signature)
    (folder / "requirements.txt").write_text("scikit-learn==1.0\nnumpy>=1.26\n-e .\n\n")
    assert pack(folder) == 0
    names = [each.name for each in read_manifest(folder.parent / "models" / "mine" / "1").features]
    assert names == ["x0", "x1", "x2"]
    told = capsys.readouterr().out
    assert "The input example has only 5 rows" in told
    assert f"scikit-learn {sklearn.__version__} (==1.0 there)" in told and "numpy" not in told


@pytest.mark.parametrize("library", ["xgboost", "lightgbm"])
def test_boosted_trees_are_read_as_their_flavor_keeps_them(folder: Path, library: str) -> None:
    rows, classes = table()[["age", "visits"]], np.arange(ROWS) % 2
    if library == "xgboost":
        from xgboost import XGBClassifier

        estimator: Any = XGBClassifier(n_estimators=2, n_jobs=1).fit(rows, classes)
        estimator.save_model(folder / "model.ubj")
        flavor = "data: model.ubj, model_class: xgboost.sklearn.XGBClassifier"
    else:
        from lightgbm import LGBMClassifier

        estimator = LGBMClassifier(n_estimators=2, n_jobs=1, verbose=-1, min_child_samples=1).fit(rows, classes)
        (folder / "model.pkl").write_bytes(pickle.dumps(estimator))
        flavor = "data: model.pkl, model_class: lightgbm.sklearn.LGBMClassifier, serialization_format: pickle"
    (folder / "MLmodel").write_text(f"flavors: {{python_function: {{}}, {library}: {{{flavor}}}}}\n")
    (folder / "input_example.json").write_text(json.dumps({"columns": [*rows], "data": rows.to_numpy().tolist()}))
    saved = read_saved_model(folder, needs_sample=True)
    opened = joblib.load(io.BytesIO(saved.artifact))
    np.testing.assert_allclose(opened.predict_proba(rows), estimator.predict_proba(rows))
    assert saved.sample is not None and list(saved.sample.columns) == ["age", "visits"]


def test_code_that_was_saved_with_it_comes_along(folder: Path) -> None:
    code = folder / "code"
    (code / "package").mkdir(parents=True)
    for file in ("steps.py", "package/__init__.py", "notes.txt"):
        (code / file).write_text("")
    (folder / "MLmodel").write_text(MLMODEL.replace("code: null", "code: code"))
    assert read_saved_model(folder, needs_sample=True).code == [code / "package", code / "steps.py"]


def test_the_format_of_skops_is_kept_and_another_method_is_told(folder: Path) -> None:
    changed = MLMODEL.replace("cloudpickle", "skops").replace("predict_fn: predict", "predict_fn: predict_proba")
    (folder / "MLmodel").write_text(changed)
    saved = read_saved_model(folder, needs_sample=True)
    assert (saved.suffix, saved.artifact) == (".skops", (folder / "model.pkl").read_bytes())
    assert saved.notes == [
        "MLflow answers predict_proba of this model; here /invocations answers predict, and /predict has both."
    ]


def written(name: str, text: str) -> Callable[[Path], Any]:
    return lambda folder: (folder / name).write_text(text)


def flavors(text: str) -> Callable[[Path], Any]:
    return written("MLmodel", f"flavors: {{{text}}}\n")


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        (flavors("pytorch: {}, python_function: {loader_module: mlflow.pytorch}"), "its flavors are pytorch, python_f"),
        (flavors("python_function: {loader_module: mlflow.pyfunc.model}"), "it is code of its own, a PythonModel"),
        (flavors("xgboost: {data: model.xgb}"), "it is a Booster, .* XGBClassifier or ...Regressor"),
        (flavors("lightgbm: {data: m.lgb, model_class: lightgbm.basic.Booster}"), "it is a Booster, .* LGBMClassifier"),
        (flavors("xgboost: {data: model.pkl, model_class: os.system}"), "its class is os.system, and none of xgboost"),
        (flavors("xgboost: {data: model.pkl, model_class: xgboost.sklearn.XGBRegressor}"), "XGBoost cannot load it"),
        (flavors("xgboost: {data: none.ubj, model_class: xgboost.sklearn.XGBRegressor}"), "none.ubj: cannot be read"),
        (flavors("sklearn: {pickled_model: ../sample.csv}"), "the model is not in the folder"),
        (flavors("sklearn: {pickled_model: none.pkl}"), "none.pkl: cannot be read"),
        (written("MLmodel", "flavors: ["), "it is no YAML"),
        (written("MLmodel", "[]"), "it holds no flavors"),
        (lambda folder: (folder / "MLmodel").unlink(), "MLmodel: cannot be read .* mlflow.sklearn.save_model"),
        (written("MLmodel", MLMODEL.replace('"double"', '"binary"')), "age is of type 'binary' by the signature"),
        (written("MLmodel", MLMODEL.replace('"type": "double"', '"type": {"a": 1}')), "age is of type"),
        (
            lambda folder: (folder / "input_example.json").unlink(),
            r"no input example.*input_example=frame.sample\(500\)",
        ),
        (
            written("input_example.json", '{"columns": ["age"], "data": [[1], [2]]}'),
            "lacks the columns visits, zip, vip",
        ),
        (written("input_example.json", '{"columns": ["age"], "data": [[1, 2], [2, 3]]}'), "it is no table"),
        (written("input_example.json", "["), "it is no JSON"),
        (written("input_example.json", json.dumps([[1, 2, "x", True, "2026-01-01"]])), "needs at least two rows"),
        (
            written("input_example.json", json.dumps([["x", 2, "x", True, "2026-01-01"]] * 2)),
            "age is not of the signature's type float64",
        ),
    ],
)
def test_what_cannot_be_packed_says_why(folder: Path, change: Callable[[Path], Any], complaint: str) -> None:
    change(folder)
    with pytest.raises(SampleError, match=complaint):
        read_saved_model(folder, needs_sample=True)


def test_a_file_needs_a_sample(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    model = folder.parent / "model.joblib"
    model.write_bytes((folder / "model.pkl").read_bytes())
    assert pack(model) == 1
    assert "SAMPLE is missing: give rows that the model was trained on" in capsys.readouterr().err
