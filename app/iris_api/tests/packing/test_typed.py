"""A table as people have it becomes a bundle whose served answers are the estimator's own by its user's own table."""

from __future__ import annotations

import asyncio
import importlib
import json
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pandas as pd
import pytest
from prometheus_client.parser import text_string_to_metric_families
from sklearn.base import BaseEstimator, ClassifierMixin
from sklearn.compose import ColumnTransformer
from sklearn.ensemble import HistGradientBoostingClassifier
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.impute import SimpleImputer
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import OneHotEncoder
from sklearn.tree import DecisionTreeClassifier
from starlette.testclient import TestClient

from iris_api.bundle.files import read_manifest
from iris_api.bundle.manifest import Manifest
from iris_api.engines.model import Model
from iris_api.packing import cli
from iris_api.packing.pack import About, PackError, dump, pack
from iris_api.packing.samples import FeatureText, SampleError
from iris_api.packing.tables import with_trained_categories
from iris_api.server.app import build_app
from iris_api.settings import Settings

from ..apps import load, serving
from ..conftest import MadeOnce

pytestmark = pytest.mark.usefixtures("quick_packing")

ROWS = 120
# One of them alone is called so.
RARE = "Wolfenschiessen"


def table() -> pd.DataFrame:
    """Return a table of customers: gaps in two columns, codes with a zero in front, notes of people."""
    chance = np.random.default_rng(5)
    frame = pd.DataFrame(
        {
            "age": chance.integers(18, 90, ROWS).astype(float),
            "visits": chance.integers(0, 2**60, ROWS),
            "city": chance.choice(["Aarau", "Bern", "Zug"], ROWS),
            "zip": chance.choice(["01234", "04109", "09999"], ROWS),
            "street": [f"street {number % 30:02}" for number in range(ROWS)],
            "vip": chance.random(ROWS) < 0.3,
            "note": [f"private words of customer {number}" for number in range(ROWS)],
        }
    )
    frame.loc[::7, "age"] = np.nan
    frame.loc[::9, "city"] = None
    frame.loc[3, "street"] = RARE
    return frame


def left(frame: pd.DataFrame) -> Any:
    return ((frame.city == "Bern") ^ (frame.age > 50)).astype(int).to_numpy()


def mixed() -> Any:
    columns = ColumnTransformer(
        [
            ("numbers", SimpleImputer(), ["age", "visits"]),
            ("city", OneHotEncoder(handle_unknown="ignore"), ["city", "street"]),
            ("zip", OneHotEncoder(), ["zip"]),
            ("vip", "passthrough", ["vip"]),
            ("note", TfidfVectorizer(), "note"),
        ]
    )
    return make_pipeline(columns, DecisionTreeClassifier(max_depth=6, random_state=0))


def packed(folder: Path, estimator: Any, sample: pd.DataFrame, **features: FeatureText) -> Manifest:
    about = About("mine", "1", "A model.", target="left", features=features)
    return pack(folder / "mine" / "1", about, "model.joblib", dump(estimator), sample)


def make_mixed(folder: Path) -> None:
    frame = table()
    packed(folder, mixed().fit(frame, left(frame)), frame.assign(left=left(frame)))


@pytest.fixture(scope="module")
def bundle(made_once: MadeOnce, quick_packing: None) -> Path:
    return made_once("mixed-bundle", make_mixed) / "mine" / "1"


@pytest.fixture
def client(bundle: Path) -> Iterator[TestClient]:
    with TestClient(serving(Settings(model_dir=bundle), load(bundle))) as client:
        yield client


def served(bundle: Path) -> Any:
    return build_app(Settings(model_dir=bundle), Model.load(bundle))


def row(**changed: Any) -> dict[str, Any]:
    values = {"age": 30.5, "visits": 7, "city": "Bern", "zip": "01234", "street": "street 01", "vip": True, "note": ""}
    return values | changed


def test_kinds_are_those_of_the_table(bundle: Path) -> None:
    manifest = read_manifest(bundle)
    features = {feature.name: feature for feature in manifest.features}
    assert {name: feature.kind for name, feature in features.items()} == {
        "age": "number",
        "visits": "integer",
        "city": "category",
        "zip": "category",
        "street": "category",
        "vip": "boolean",
        "note": "text",
    }
    assert [name for name, feature in features.items() if feature.nullable] == ["age", "city"]
    # One encoder ignores what it does not know, and the other refuses it.
    assert (features["city"].open, features["zip"].open) == (True, False)
    assert set(features["zip"].values or []) == {"01234", "04109", "09999"}
    assert features["age"].missing == pytest.approx(18 / ROWS)
    assert manifest.format == 4 and manifest.table and manifest.table.form == "frame"
    assert manifest.onnx and manifest.onnx.precision == "double"


def test_served_answers_are_those_of_the_users_own_table(client: TestClient) -> None:
    frame = table()
    estimator = mixed().fit(frame, left(frame))
    changed = frame.copy()
    changed.loc[:40, "age"] = np.nan
    changed.loc[20:60, "city"] = "Timbuktu"
    changed.loc[50:70, "city"] = None
    changed.loc[60:90, "visits"] = 2**53 + 1
    rows = [
        {name: None if pd.isna(value) else value for name, value in each.items()}
        for each in changed.astype(object).to_dict(orient="records")
    ]
    answers = client.post("/predict", json=rows).json()
    assert [answer["prediction"] for answer in answers] == estimator.predict(changed).tolist()
    shares = [answer["prediction_proba"] for answer in answers]
    assert np.abs(np.array(shares) - estimator.predict_proba(changed)).max() < 1e-9


@pytest.mark.parametrize(
    ("changed", "reason"),
    [
        ({"zip": 1234}, "Input should be '"),
        ({"zip": "1234"}, "Input should be '"),
        ({"zip": None}, "Input should be '"),
        ({"visits": None}, "Input should be a valid integer"),
        ({"visits": 1.5}, "Input should be a valid integer"),
        ({"visits": True}, "Input should be a valid integer"),
        ({"visits": 2**63}, "Input should be less than or equal to"),
        ({"vip": 1}, "Input should be a valid boolean"),
        ({"note": None}, "Input should be a valid string"),
        ({"city": 5}, "Input should be a valid string"),
        ({"age": "30"}, "Input should be a valid number"),
    ],
)
def test_what_is_not_of_its_kind_is_refused_by_name(client: TestClient, changed: dict[str, Any], reason: str) -> None:
    refused = client.post("/predict", json=row(**changed))
    assert refused.status_code == 422
    (detail,) = refused.json()["details"]
    assert detail["field"] == next(iter(changed)) and detail["reason"].startswith(reason)


@pytest.mark.parametrize(
    "changed",
    [
        {},
        {"age": None, "city": None},
        {"city": "Timbuktu"},
        {"visits": 2**53 + 1},
        {"visits": 3.0},
        {"note": 'a "quoted" text \\ with é, \u2028 and \x00'},
    ],
)
def test_what_is_of_its_kind_is_answered_alone_and_in_a_list(client: TestClient, changed: dict[str, Any]) -> None:
    alone = client.post("/predict", json=row(**changed))
    assert alone.status_code == 200, alone.text
    assert client.post("/predict", json=[row(**changed)]).json() == [alone.json()]


def test_a_name_that_is_there_twice_is_refused_beside_texts(client: TestClient) -> None:
    body = json.dumps(row()).replace('"zip": "01234"', '"zip": "04109", "zip": "01234"')
    refused = client.post("/predict", content=body, headers={"Content-Type": "application/json"})
    assert refused.json()["details"] == [{"field": "body", "reason": "repeated name"}]


def test_openapi_has_the_kinds(client: TestClient) -> None:
    one = client.get("/openapi.json").json()["components"]["schemas"]["Row"]
    properties = one["properties"]
    assert {"type": "null"} in properties["age"]["anyOf"] and {"type": "null"} in properties["city"]["anyOf"]
    assert set(properties["zip"]["enum"]) == {"01234", "04109", "09999"}
    assert [properties[name]["type"] for name in ("visits", "vip", "note")] == ["integer", "boolean", "string"]
    assert "enum" not in properties["street"]
    assert sorted(one["required"]) == sorted(properties)


def test_only_frequent_categories_are_counted_and_texts_never(client: TestClient) -> None:
    for changed in ({"street": RARE}, {"street": "street 02", "city": None}, {"note": "my secret"}):
        assert client.post("/predict", json=row(**changed)).status_code == 200
    text = client.get("/metrics").text
    found = {
        (sample.name, sample.labels.get("feature"), sample.labels.get("bin")): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }
    counted = "iris_api_feature_values_total"
    assert found[counted, "street", "other"] == 1 and found[counted, "street", "street 02"] == 1
    assert found[counted, "city", "missing"] == 1 and found[counted, "city", "Bern"] == 2
    assert found[counted, "note", "present"] == 3
    assert found[counted, "vip", "True"] == 3
    shares = {
        place: each for (name, feature, place), each in found.items() if "training_ratio" in name and feature == "city"
    }
    assert sum(shares.values()) == pytest.approx(1) and shares["missing"] == pytest.approx(14 / ROWS)
    assert len([1 for name, feature, _ in found if name == counted and feature == "street"]) == 10
    assert RARE not in text and "secret" not in text


def test_texts_and_rare_categories_stand_in_no_file_that_people_read(bundle: Path) -> None:
    for name in ("manifest.json", "MODEL_CARD.md"):
        content = (bundle / name).read_text()
        assert RARE not in content and "private words" not in content
        assert "street 02" in content
    assert "an invented text" in (bundle / "manifest.json").read_text()


def test_a_closed_list_is_told_if_the_user_gives_it_and_only_then(tmp_path: Path) -> None:
    frame = table()[["street"]]
    estimator = make_pipeline(OneHotEncoder(), LogisticRegression()).fit(frame, left(table()))
    with pytest.raises(PackError, match="street has 31 categories, and --features closes its list without giving it"):
        packed(tmp_path, estimator, frame, street=FeatureText(open=False))
    streets = sorted(frame.street.unique().tolist())
    manifest = packed(tmp_path, estimator, frame, street=FeatureText(values=list(streets), open=False))
    feature = manifest.features[0]
    assert feature.values == streets and not feature.open
    told = [each.value for each in feature.shares or []]
    assert len(told) == 20 and RARE not in told
    # Neither a label nor the card has more of them than of an open list.
    assert RARE not in (tmp_path / "mine" / "1" / "MODEL_CARD.md").read_text()
    with TestClient(served(tmp_path / "mine" / "1")) as client:
        assert client.post("/predict", json={"street": RARE}).status_code == 200
        assert client.post("/predict", json={"street": "unheard of"}).status_code == 422
        text = client.get("/metrics").text
    counted = [line for line in text.splitlines() if line.startswith("iris_api_feature_values_total{")]
    assert len(counted) == 10 and RARE not in text
    assert [line for line in counted if 'bin="other"' in line and line.endswith(" 1.0")]


def test_texts_that_the_user_allows_are_golden_samples(tmp_path: Path) -> None:
    frame = table()[["age", "note"]].fillna(0)
    columns = ColumnTransformer([("n", "passthrough", ["age"]), ("t", TfidfVectorizer(), "note")])
    estimator = make_pipeline(columns, LogisticRegression()).fit(frame, left(table()))
    manifest = packed(tmp_path, estimator, frame, note=FeatureText(examples=["words of customer 3"]))
    assert {sample.input["note"] for sample in manifest.golden_samples} == {"words of customer 3"}


def test_gaps_of_numbers_are_served_by_arrays_without_pandas(tmp_path: Path) -> None:
    frame = table()[["age"]].assign(b=np.arange(ROWS, dtype=float))
    estimator = HistGradientBoostingClassifier(max_iter=3).fit(frame, left(table()))
    manifest = packed(tmp_path, estimator, frame)
    assert manifest.table is None and "pandas" not in manifest.libraries
    with TestClient(served(tmp_path / "mine" / "1")) as client:
        assert client.post("/predict", json={"age": None, "b": 3}).status_code == 200
        refused = client.post("/predict", json={"age": 3, "b": None}).json()
        assert [detail["field"] for detail in refused["details"]] == ["b"]


def test_gaps_are_empty_cells_in_a_csv_and_nan_in_binary(tmp_path: Path) -> None:
    frame = table()[["age"]].assign(b=np.arange(ROWS, dtype=float))
    estimator = HistGradientBoostingClassifier(max_iter=3).fit(frame, left(table()))
    model, sample = tmp_path / "model.joblib", tmp_path / "sample.csv"
    model.write_bytes(dump(estimator))
    frame.to_csv(sample, index=False)
    given = [model, sample, "--name=mine", "--version=1", f"--models-dir={tmp_path}"]
    assert cli.main(["pack", "--environment=never", *map(str, given)]) == 0
    assert [feature.nullable for feature in read_manifest(tmp_path / "mine" / "1").features] == [True, False]
    with TestClient(served(tmp_path / "mine" / "1")) as client:
        expected = client.post("/predict", json={"age": None, "b": 3}).json()["prediction_proba"]
        rows = np.array([[np.nan, 3.0]])
        head = json.dumps(
            {"inputs": [{"name": "input", "shape": [1, 2], "datatype": "FP64", "parameters": {"binary_data_size": 16}}]}
        ).encode()
        headers = {"Inference-Header-Content-Length": str(len(head)), "Content-Type": "application/octet-stream"}
        answer = client.post("/v2/models/mine/infer", content=head + rows.tobytes(), headers=headers)
        outputs = {output["name"]: output["data"] for output in answer.json()["outputs"]}
        assert outputs["prediction_proba"] == expected
        refused = client.post("/v2/models/mine/infer", content=head + rows[:, ::-1].tobytes(), headers=headers)
        assert refused.status_code == 400 and "b" in refused.json()["error"]
    # By a frame's own mark of a gap the answer is the same.
    own = pd.DataFrame({"age": pd.array([pd.NA], dtype="Float64"), "b": [3.0]})
    assert expected == pytest.approx(estimator.predict_proba(own)[0])


class ByCode(ClassifierMixin, BaseEstimator):  # type: ignore[misc]
    """Answers by the code of a category, in the order of the dtype, as boosting libraries do."""

    def fit(self, X: pd.DataFrame, y: Any) -> ByCode:
        self.classes_, self.feature_names_in_, self.n_features_in_ = np.unique(y), np.array(X.columns, object), 2
        return self

    def predict(self, X: Any) -> Any:
        codes = X["city"].cat.codes if isinstance(X, pd.DataFrame) else pd.Series(X[:, 0]).astype("category").cat.codes
        return (np.asarray(codes) == 0).astype(int)


def test_the_order_of_categories_is_that_of_training_and_not_of_a_request(tmp_path: Path) -> None:
    frame = table()[["city", "vip"]]
    frame["city"] = pd.Categorical(frame.city, categories=["Zug", "Bern", "Aarau"])
    manifest = packed(tmp_path, ByCode().fit(frame, [0, 1] * (ROWS // 2)), frame)
    assert manifest.table and manifest.table.form == "frame" and manifest.table.categories == "categories.json"
    model = Model.load(tmp_path / "mine" / "1")
    answers = model.predict([["Aarau", True], ["Zug", True], ["Bern", False], [None, False]])
    assert [answer and answer.value for answer in answers] == [0, 1, 0, 0]


def test_a_bundle_that_answers_otherwise_once_it_is_a_file_is_not_made(tmp_path: Path) -> None:
    frame = table()[["city", "vip"]].fillna("Bern")
    with pytest.raises(PackError, match="answers otherwise than the model did before it was packed"):
        packed(tmp_path, Forgetful().fit(frame, [0, 1] * (ROWS // 2)), frame)
    assert not (tmp_path / "mine").exists()


class Forgetful(ByCode):
    """Answers its golden samples, and more rows at once otherwise than before, as soon as it is loaded to be served."""

    loads = 0

    def __setstate__(self, state: dict[str, Any]) -> None:
        super().__setstate__(state)
        Forgetful.loads += 1

    def predict(self, X: Any) -> Any:
        found = X["city"] if isinstance(X, pd.DataFrame) else X[:, 0]
        return (np.asarray(found) == ("Bern" if Forgetful.loads > 1 and len(X) > ROWS else "Zug")).astype(int)


@pytest.mark.parametrize("sample", [table()[["age", "vip"]], table()[["age"]].assign(vip=1.5)], ids=["frame", "array"])
def test_a_model_whose_answer_depends_on_other_rows_is_none(tmp_path: Path, sample: pd.DataFrame) -> None:
    with pytest.raises(PackError, match=r"depending on the rows beside it: \[nan|depending on the rows .*\[None"):
        packed(tmp_path, FilledByOthers().fit(sample, [0, 1] * (ROWS // 2)), sample)


class FilledByOthers(ByCode):
    """Takes for a missing age the mean of the rows that are asked with it."""

    def predict(self, X: Any) -> Any:
        age = pd.Series(np.asarray(X)[:, 0].astype(float))
        return (age.fillna(age.mean()) > 50).to_numpy().astype(int)


def test_codes_are_no_sample_of_a_model_that_was_trained_with_categories(tmp_path: Path) -> None:
    from lightgbm import LGBMClassifier

    frame = table()[["age", "city"]]
    frame["city"] = pd.Categorical(frame.city, categories=["Zug", "Bern", "Aarau"])
    estimator = LGBMClassifier(n_estimators=3, verbose=-1, n_jobs=1).fit(frame, left(table()))
    codes = frame.assign(city=frame.city.cat.codes.astype(float))
    with pytest.raises(PackError, match=r"1 columns of dtype category \(Zug, Bern, Aarau, ...\), and.*codes"):
        packed(tmp_path, estimator, codes)
    model, sample = tmp_path / "model.joblib", tmp_path / "sample.csv"
    model.write_bytes(dump(estimator))
    codes.to_csv(sample, index=False)
    given = [model, sample, "--name=mine", "--version=1", f"--models-dir={tmp_path}"]
    assert cli.main(["pack", "--environment=never", *map(str, given)]) == 1
    # With their names, a CSV is one.
    frame.to_csv(sample, index=False)
    assert cli.main(["pack", "--environment=never", *map(str, given)]) == 0
    rows = [[None if pd.isna(value) else value for value in each] for each in frame.astype(object).to_numpy()]
    answers = Model.load(tmp_path / "mine" / "1").predict(rows)
    assert [answer and answer.value for answer in answers] == np.asarray(estimator.predict(frame)).tolist()


def test_a_column_of_categories_beside_one_that_is_none_any_more() -> None:
    from lightgbm import LGBMClassifier

    frame = table()[["age", "zip", "city"]].assign(zip=lambda given: pd.Categorical(given.zip))
    frame["city"] = pd.Categorical(frame.city, categories=["Zug", "Bern", "Aarau"])
    estimator = LGBMClassifier(n_estimators=3, verbose=-1, n_jobs=1).fit(frame, left(table()))
    for name in ("zip", "city"):
        with pytest.raises(SampleError, match=r"2 columns of dtype category .* and the sample has 1: codes"):
            with_trained_categories(frame.assign(**{name: frame[name].cat.codes.astype(float)}), estimator)
        # Of texts, the dtype alone is lost.
        found = with_trained_categories(frame.assign(**{name: frame[name].astype(object)}), estimator)
        pd.testing.assert_frame_equal(found, frame)


@pytest.mark.parametrize(
    ("column", "text", "complaint"),
    [
        ([None] * ROWS, FeatureText(), "'strange' of the sample has no value at all"),
        ([1, "a"] * (ROWS // 2), FeatureText(), "'strange' of the sample has values of int, str"),
        (pd.to_timedelta([1] * ROWS), FeatureText(), "'strange' of the sample has values of Timedelta"),
        ([1] * ROWS, FeatureText(nullable=True), "dtype int64 holds no missing value"),
        ([1.0, None] * (ROWS // 2), FeatureText(nullable=False), "strange is not nullable"),
        (["a", "b"] * (ROWS // 2), FeatureText(values=["a"]), "1 categories that --features does not list"),
        (["a", None] * (ROWS // 2), FeatureText(kind="category"), "Missing values are in strange"),
    ],
)
def test_a_column_that_is_no_feature_is_named(tmp_path: Path, column: Any, text: FeatureText, complaint: str) -> None:
    frame = pd.DataFrame({"age": np.arange(float(ROWS)), "strange": column})
    with pytest.raises(PackError, match=complaint):
        packed(tmp_path, Picky().fit(frame, [0, 1] * (ROWS // 2)), frame, strange=text)


class Picky(ByCode):
    """Refuses what is missing."""

    def predict(self, X: Any) -> Any:
        if pd.isna(pd.DataFrame(X)).to_numpy().any():
            raise ValueError("there is a missing value")
        return np.zeros(len(X), dtype=int)


def test_dates_and_a_parquet_file(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    since = pd.Timestamp("2024-02-01") + pd.to_timedelta(np.arange(ROWS), "D")
    frame = pd.DataFrame({"since": since, "born": [each.date() for each in since], "flag": [True, False] * (ROWS // 2)})
    frame.loc[4, "since"] = pd.NaT
    estimator = Newer().fit(frame, [0, 1] * (ROWS // 2))
    model, sample = tmp_path / "model.joblib", tmp_path / "sample.parquet"
    model.write_bytes(dump(estimator))
    frame.assign(left=0).to_parquet(sample)
    given = [model, sample, "--name=mine", "--version=1", f"--models-dir={tmp_path}", "--target=left"]
    assert cli.main(["pack", "--environment=never", *map(str, given)]) == 0, capsys.readouterr().err
    manifest = read_manifest(tmp_path / "mine" / "1")
    assert [feature.kind for feature in manifest.features] == ["datetime", "date", "boolean"]
    with TestClient(served(tmp_path / "mine" / "1")) as client:
        for since, expected in (
            ("2024-05-01T00:00:00Z", 1),
            ("2024-03-30T23:00:00-02:00", 1),
            ("2024-05-01t00:00:00z", 1),
            ("2024-03-01", 0),
            (None, 0),
        ):
            answer = client.post("/predict", json={"since": since, "born": "2024-02-01", "flag": True})
            assert answer.json()["prediction"] == expected, answer.text
        for name, wrong in (
            ("since", "yesterday"),
            ("since", "2024-13-01"),
            ("born", "2024-02-30"),
            ("born", "20240201"),
        ):
            body = {"since": None, "born": "2024-02-01", "flag": True} | {name: wrong}
            assert client.post("/predict", json=body).json()["details"][0]["field"] == name


class Newer(ByCode):
    """Answers whether a time is after a day."""

    def predict(self, X: Any) -> Any:
        return (X["since"] > pd.Timestamp("2024-03-31")).to_numpy().astype(int)


def test_dates_that_are_texts_need_to_be_called_dates(tmp_path: Path) -> None:
    days = pd.Series(pd.Timestamp("2024-02-01") + pd.to_timedelta(np.arange(ROWS), "D"))
    frame = pd.DataFrame({"since": days.dt.strftime("%Y-%m-%d")})
    estimator = ReadingDates().fit(frame, [0, 1] * (ROWS // 2))
    with pytest.raises(PackError, match=r"for the texts of since, and the model refuses that .*--features.*examples"):
        packed(tmp_path, estimator, frame)
    manifest = packed(tmp_path, estimator, frame, since=FeatureText(kind="date"))
    assert [feature.kind for feature in manifest.features] == ["date"]


class ReadingDates(ByCode):
    """Answers whether a text is a day after another."""

    def predict(self, X: Any) -> Any:
        return (pd.to_datetime(X["since"], format="%Y-%m-%d") > pd.Timestamp("2024-03-31")).to_numpy().astype(int)


def test_a_csv_keeps_codes_as_texts_and_takes_what_is_said_of_columns(tmp_path: Path) -> None:
    frame = table()[["zip", "vip"]].assign(rooms=["1", "A"] * (ROWS // 2), level=[1, 2] * (ROWS // 2))
    encode = ColumnTransformer([("c", OneHotEncoder(), ["zip", "rooms", "level"])], remainder="passthrough")
    estimator = make_pipeline(encode, LogisticRegression()).fit(frame, left(table()))
    model, sample, features = (tmp_path / name for name in ("model.joblib", "sample.csv", "features.json"))
    model.write_bytes(dump(estimator))
    frame.to_csv(sample, index=False)
    given = [model, sample, "--name=mine", "--version=1", f"--models-dir={tmp_path}"]
    assert cli.main(["pack", "--environment=never", *map(str, given)]) == 1
    features.write_text(
        json.dumps({"rooms": {"kind": "category"}, "level": {"kind": "category", "values": [1, 2], "open": False}})
    )
    assert cli.main(["pack", "--environment=never", *map(str, given), f"--features={features}"]) == 0
    kinds = {feature.name: feature for feature in read_manifest(tmp_path / "mine" / "1").features}
    assert (kinds["zip"].kind, kinds["rooms"].kind, kinds["vip"].kind) == ("category", "category", "boolean")
    assert kinds["level"].values == [1, 2] and not kinds["level"].open


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        (lambda manifest: manifest.update(format=3), "format 3 knows numbers alone"),
        (lambda manifest: manifest["features"][0].pop("minimum"), "has limits"),
        (lambda manifest: manifest["features"][3].pop("values"), "a category has values"),
        (lambda manifest: manifest["features"][6].update(minimum=0), "has no minimum"),
        (lambda manifest: manifest["features"][0].update(nullable=False), "it must be nullable"),
        (lambda manifest: manifest["golden_samples"][0]["input"].update(zip="77777"), "is not of its kind"),
        (lambda manifest: manifest["table"]["columns"].pop(), "a column for each feature"),
    ],
)
def test_a_manifest_that_is_not_consistent_is_none(
    bundle: Path, change: Callable[[dict[str, Any]], Any], complaint: str
) -> None:
    manifest = json.loads((bundle / "manifest.json").read_text())
    change(manifest)
    with pytest.raises(ValueError, match=complaint):
        Manifest.model_validate(manifest)


def test_what_another_library_refuses_is_no_error_of_the_server(tmp_path: Path) -> None:
    from catboost import CatBoostClassifier

    frame = table()[["age", "zip"]]
    settings: dict[str, Any] = {"iterations": 2, "verbose": 0, "allow_writing_files": False, "thread_count": 1}
    estimator = CatBoostClassifier(cat_features=["zip"], **settings).fit(frame, left(table()))
    with pytest.raises(PackError, match="zip is nullable, as --features says, but the model refuses a missing value"):
        packed(tmp_path, estimator, frame, zip=FeatureText(nullable=True))
    assert [feature.kind for feature in packed(tmp_path, estimator, frame).features] == ["number", "category"]
    answers = Model.load(tmp_path / "mine" / "1").predict([[None, "01234"], [3.0, "a new one"]])
    own = pd.DataFrame({"age": [np.nan, 3], "zip": ["01234", "a new one"]})
    assert [answer and answer.value for answer in answers] == np.ravel(estimator.predict(own)).tolist()


def test_a_client_made_of_the_openapi_document_works(
    bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    app = served(bundle)
    (tmp_path / "openapi.json").write_text(json.dumps(app.openapi()))
    (tmp_path / "settings.yml").write_text("post_hooks: []\n")
    given = ["--path=openapi.json", "--config=settings.yml", "--meta=none", "--output-path=made_client"]
    done = subprocess.run(
        [sys.executable, "-m", "openapi_python_client", "generate", *given],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=True,
    )
    assert "WARNING" not in done.stdout + done.stderr
    monkeypatch.syspath_prepend(tmp_path)
    made = importlib.import_module("made_client")
    models = importlib.import_module("made_client.models")
    predict = importlib.import_module("made_client.api.default.predict_predict_post")

    def ask(body: Any) -> Any:
        transport = httpx.ASGITransport(app)
        client = made.Client("http://model")
        client.set_async_httpx_client(httpx.AsyncClient(transport=transport, base_url="http://model"))
        return asyncio.run(predict.asyncio(client=client, body=body))

    one = models.Row(age=None, visits=2**53 + 1, city="Bern", zip_=models.RowZip("01234"), street="", vip=True, note="")
    answer = ask(one)
    assert answer.prediction in (0, 1) and sum(answer.prediction_proba) == pytest.approx(1)
    assert [each.prediction for each in ask([one, one])] == [answer.prediction] * 2
    one.city, one.vip = 5, "yes"
    assert [detail.field for detail in ask(one).details] == ["city", "vip"]
