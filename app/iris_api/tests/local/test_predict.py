"""`iris-model predict` answers the rows of a file as the estimator does, and names the row that it does not answer."""

from __future__ import annotations

import hashlib
import importlib
import io
import json
import os
import subprocess
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import joblib
import numpy as np
import pandas as pd
import pytest
from sklearn.compose import ColumnTransformer
from sklearn.impute import SimpleImputer
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import OneHotEncoder

from iris_api.local import predict
from iris_api.packing.code import read_code
from iris_api.packing.pack import About, dump, pack

from .. import forks
from ..conftest import MadeOnce
from ..paths import BUNDLE, MODELS, SOURCE

ENVIRONMENT = os.environ | {"PYTHONPATH": str(SOURCE)}
TWO = "petal_length,petal_width\n1.4,0.2\n6.5,1.8\n"


class Said(str):
    """What a program printed, and what it complained of."""

    code: int
    err: str


Run = Callable[..., Said]


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str]) -> Run:
    """Run the program as `iris-model predict` starts it."""

    def run_it(bundle: Path, file: Path | str, **options: Any) -> Said:
        request = {"format": "csv", "scores": False, "engine": "auto", "skops_trusted": []} | options
        code = predict.main([json.dumps(request | {"bundle": str(bundle), "file": str(file)})])
        told = capsys.readouterr()
        said = Said(told.out)
        said.code, said.err = code, told.err
        return said

    return run_it


def customers(rows: int = 60) -> pd.DataFrame:
    chance = np.random.default_rng(3)
    frame = pd.DataFrame(
        {
            "age": chance.integers(18, 90, rows).astype(float),
            "visits": chance.integers(0, 20, rows),
            "city": chance.choice(["Aarau", "Bern", "Zug"], rows),
            "vip": chance.random(rows) < 0.4,
        }
    )
    frame.loc[::7, "age"] = np.nan
    frame.loc[::9, "city"] = None
    return frame


def fitted() -> Any:
    frame = customers()
    columns = ColumnTransformer(
        [
            ("numbers", SimpleImputer(), ["age", "visits"]),
            ("city", OneHotEncoder(handle_unknown="ignore"), ["city"]),
            ("vip", "passthrough", ["vip"]),
        ]
    )
    return make_pipeline(columns, LogisticRegression(max_iter=1000)).fit(frame, frame.vip ^ (frame.visits > 9))


@pytest.fixture(scope="module")
def mixed(made_once: MadeOnce, quick_packing: None) -> Path:
    def make(folder: Path) -> None:
        about = About("mixed", "1", "Which customers leave.", target="left", class_names=["no", "yes"])
        frame = customers()
        sample = frame.assign(left=frame.vip ^ (frame.visits > 9))
        pack(folder / "1", about, "model.joblib", dump(fitted()), sample, onnx=False)

    return made_once("customers-bundle", make) / "1"


def test_each_format_of_rows_is_answered_as_by_the_estimator_itself(mixed: Path, run: Run, tmp_path: Path) -> None:
    frame = customers(40)
    rows = [
        {name: None if pd.isna(value) else value for name, value in row.items()}
        for row in frame.astype(object).to_dict("records")
    ]
    files = {name: tmp_path / f"rows.{name}" for name in ("csv", "parquet", "json", "ndjson")}
    # A number of a customer is no feature, and stands first.
    frame.assign(number=range(40))[["number", *frame]].to_csv(files["csv"], index=False)
    frame.to_parquet(files["parquet"])
    files["json"].write_text(json.dumps(rows))
    files["ndjson"].write_text("\n".join(map(json.dumps, rows)))
    expected, shares = fitted().predict(frame), fitted().predict_proba(frame)
    for name, file in files.items():
        said = run(mixed, file, scores=True)
        assert said.code == 0, said.err
        found = pd.read_csv(io.StringIO(said))
        assert list(found) == ["prediction", "left", "prediction_proba_no", "prediction_proba_yes"]
        assert found.prediction.tolist() == expected.tolist(), name
        assert found.left.tolist() == ["yes" if value else "no" for value in expected]
        assert np.abs(found.to_numpy()[:, 2:].astype(float) - shares).max() < 1e-9
        left_out = "iris-model: left out, since the model does not take it: number\n"
        assert said.err == (left_out if name == "csv" else "")


def test_a_table_larger_than_a_piece_is_answered_whole_and_in_order(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(predict, "PIECE", 3)
    lengths = [1 + number / 2 for number in range(11)]
    file = tmp_path / "rows.csv"
    file.write_text("petal_length,petal_width\n" + "".join(f"{each},1\n" for each in lengths))
    found = pd.read_csv(io.StringIO(run(BUNDLE, file, scores=True)))
    one_by_one = [
        pd.read_csv(io.StringIO(run(BUNDLE, write(tmp_path, f"petal_length,petal_width\n{each},1\n"), scores=True)))
        for each in lengths[::5]
    ]
    assert len(found) == 11
    assert np.allclose(found.iloc[::5, 2:], pd.concat(one_by_one).iloc[:, 2:])
    file.write_text(file.read_text() + "x,1\n")
    said = run(BUNDLE, file)
    assert (said.code, len(said.splitlines())) == (1, 1 + 9)
    assert "row 12, petal_length: Input should be a valid number Rows 1 to 9 are answered above." in said.err


def write(folder: Path, text: str, name: str = "one.csv") -> Path:
    (folder / name).write_text(text)
    return folder / name


def test_answers_come_as_asked_for(run: Run, tmp_path: Path) -> None:
    file = write(tmp_path, TWO)
    assert run(BUNDLE, file) == "prediction,species\n0,setosa\n2,virginica\n"
    objects = [{"prediction": 0, "species": "setosa"}, {"prediction": 2, "species": "virginica"}]
    assert json.loads(run(BUNDLE, file, format="json")) == objects
    assert [json.loads(line) for line in run(BUNDLE, file, format="ndjson").splitlines()] == objects
    with_shares = json.loads(run(BUNDLE, file, format="json", scores=True))
    assert [sum(each["prediction_proba"]) for each in with_shares] == pytest.approx([1, 1])
    said = run(MODELS / "diabetes" / "1.0.0", file, scores=True)
    assert said.err == "iris-model: diabetes has neither probabilities nor scores: leave --scores out.\n"


@pytest.mark.parametrize("lists", [[[True], [False]], [[1, 0], [0, 1]]])
def test_a_list_is_no_boolean(mixed: Path, run: Run, tmp_path: Path, lists: list[Any]) -> None:
    file = tmp_path / "rows.parquet"
    customers(9).iloc[:2].assign(vip=lists).to_parquet(file)
    said = run(mixed, file)
    assert (said.code, said) == (1, "")
    assert "row 1, vip: " in said.err and said.err.count("\n") == 1


def test_blanks_before_a_cell_are_none_of_it_as_packing_reads_a_sample(mixed: Path, run: Run, tmp_path: Path) -> None:
    frame = customers(9).dropna()
    text = frame.to_csv(index=False)
    blanks = text.replace(",", ", ").replace("\n", " \n", 1)
    assert " , " not in blanks
    said = [run(mixed, write(tmp_path, each, f"{number}.csv")) for number, each in enumerate((text, blanks))]
    assert [each.code for each in said] == [0, 0], said[1].err
    assert said[0] == said[1]
    assert len(said[0].splitlines()) == len(frame) + 1


def test_an_end_of_a_line_that_is_none_in_json_may_stand_in_a_text(mixed: Path, run: Run, tmp_path: Path) -> None:
    row = {name: None if pd.isna(value) else value for name, value in customers(9).astype(object).iloc[8].items()}
    lines = [json.dumps(row | {"city": city}, ensure_ascii=False) for city in ("a\u2028b", "Bern")]
    said = run(mixed, write(tmp_path, "\r\n".join(lines), "rows.ndjson"))
    assert (said.code, len(said.splitlines())) == (0, 3), said.err


@pytest.mark.parametrize(
    ("text", "part"),
    [
        ("", "it has no row"),
        ("petal_length,petal_width\n", "it has no row"),
        ("petal_width\n1\n", "it lacks petal_length, which the model takes. It has petal_width."),
        ("petal_length;petal_width\n1;2\n", "separated by ';'"),
        ("petal_length,petal_width,petal_width\n1,2,3\n", "two columns are called petal_width"),
        ("petal_length,petal_width\n1,2\n1\n", "line 3 has 1 values, the header has 2"),
        ('petal_length,petal_width\n1,"2\n', "cannot be read as CSV"),
        ("petal_length,petal_width\n1,2\n1,\n", "row 2, petal_width: Input should be a valid number"),
        ("petal_length,petal_width\n1,2\n1,900\n", "row 2, petal_width: Input should be less than or equal to"),
        ('[{"petal_length": 1, "petal_width": 2}, 3]', "row 2 is no object"),
        ('{"petal_length": 1, "petal_width": 2}\n{"petal_length": 1\n', "line 2 "),
        ('{"petal_length": 1, "petal_width": NaN}', "NaN and Infinity are not JSON"),
        ("[" * 100_000 + "\n" + "]" * 100_000, "nested too deeply"),
        ('[{"petal_length": 1}]', "it lacks petal_width"),
        ('[{"petal_length": 1, "petal_width": 2}, {"petal_length": 1}]', "row 2, petal_width: Field required"),
        (b"petal_length,petal_width\n\xff,2\n", "it is no text in UTF-8 (byte 25)"),
        (None, "cannot be read (No such file or directory)"),
    ],
)
def test_what_is_wrong_with_a_file_is_said_in_one_line(run: Run, tmp_path: Path, text: Any, part: str) -> None:
    file = tmp_path / "rows"
    if text is not None:
        file.write_bytes(text if isinstance(text, bytes) else text.encode())
    said = run(BUNDLE, file)
    assert (said.code, said) == (1, "")
    assert said.err.startswith(f"iris-model: {file}: ") and said.err.count("\n") == 1, said.err
    assert part in said.err


def test_a_bundle_says_what_its_users_environment_lacks(
    run: Run, tmp_path: Path, edit_manifest: Callable[[Callable[[dict[str, Any]], None]], Path]
) -> None:
    def bring(manifest: dict[str, Any]) -> None:
        manifest["environment"] = {
            "packages": {"numpy": np.__version__, "scikit-learn": "0.1", "nowhere": "2.0"},
            "locks": {f"3.{sys.version_info.minor}": {"file": "environment.txt", "sha256": "0" * 64}},
        }

    bundle, file = edit_manifest(bring), write(tmp_path, TWO)
    # ONNX Runtime needs none of it.
    assert run(bundle, file, engine="onnx").err == ""
    said = run(bundle, file, engine="sklearn")
    assert said.code == 0 and said.count("\n") == 3
    assert f"scikit-learn 0.1 ({__import__('sklearn').__version__} here), nowhere 2.0 (not installed here)" in said.err
    assert f"pip install --no-deps -r {bundle}/environment.txt" in said.err

    def trained_elsewhere(manifest: dict[str, Any]) -> None:
        manifest["libraries"]["scikit-learn"] = "0.1"

    edit_manifest(trained_elsewhere)
    said = run(bundle, file, engine="sklearn")
    assert (said.code, said) == (1, "")
    assert "was trained with scikit-learn 0.1" in said.err and "pip install --no-deps -r" in said.err


OWN = """
class Own:
    _estimator_type = "classifier"

    def __init__(self, estimator):
        self.estimator, self.classes_, self.n_features_in_ = estimator, estimator.classes_, 2

    def __sklearn_tags__(self):
        return self.estimator.__sklearn_tags__()

    def predict(self, rows):
        return self.estimator.predict(rows)

    def predict_proba(self, rows):
        return self.estimator.predict_proba(rows)
"""


def test_a_bundles_own_code_is_imported_from_the_bundle(
    copied_bundle: Path,
    tmp_path: Path,
    edit_manifest: Callable[[Callable[[dict[str, Any]], None]], Path],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """In a process of its own, where the module is nowhere else."""
    module = write(tmp_path, OWN, "own_code_of_a_user.py")
    wheel = read_code(module)
    monkeypatch.syspath_prepend(str(tmp_path))
    own = importlib.import_module(module.stem).Own(joblib.load(BUNDLE / "model.joblib"))
    joblib.dump(own, copied_bundle / "model.joblib")
    (copied_bundle / wheel.name).write_bytes(wheel.content)

    def bring(manifest: dict[str, Any]) -> None:
        manifest["sha256"] = hashlib.sha256((copied_bundle / "model.joblib").read_bytes()).hexdigest()
        manifest |= {"onnx": None, "no_onnx_reason": "it is a test", "format": 3, "costs": None}
        manifest["environment"] = {
            "packages": {"numpy": np.__version__},
            "locks": {"3.13": {"file": "environment.txt", "sha256": "0" * 64}},
            "code": {wheel.name: hashlib.sha256(wheel.content).hexdigest()},
        }

    bundle = edit_manifest(bring)
    module.unlink()
    request = {
        "bundle": str(bundle),
        "file": "-",
        "format": "csv",
        "scores": False,
        "engine": "auto",
        "skops_trusted": [],
    }
    predict = partial(forks.run, "iris_api.local.predict", json.dumps(request), text=TWO, env=ENVIRONMENT)
    done = predict()
    assert done.stdout == "prediction,species\n0,setosa\n2,virginica\n", done.stderr
    done = forks.run("iris_api.packing.cli", "check", *[str(bundle)] * 2, env=ENVIRONMENT)
    assert done.stdout.count(": good, ") == 2, done.stderr
    (bundle / wheel.name).write_bytes(wheel.content[:-1])
    done = predict()
    assert (done.returncode, done.stdout) == (1, "")
    assert f"{bundle / wheel.name}: its sha256 is" in done.stderr


def test_the_command_reads_the_standard_input_and_ends_with_its_reader() -> None:
    command = [sys.executable, "-m", "iris_api.packing.cli", "predict", str(BUNDLE), "-"]
    environment = ENVIRONMENT | {"PYTHONPROFILEIMPORTTIME": "1"}
    done = subprocess.run(command, input=TWO, env=environment, capture_output=True, text=True, check=True)
    assert done.stdout == "prediction,species\n0,setosa\n2,virginica\n"
    imported = {line.rpartition("|")[2].strip() for line in done.stderr.splitlines()}
    assert imported & {"onnxruntime", "sklearn"} == {"onnxruntime"}, "scikit-learn takes a second to import"
