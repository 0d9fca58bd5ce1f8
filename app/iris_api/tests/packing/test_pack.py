"""`iris-model`: a user's own model and a sample of its data become a bundle that is served, or a clear refusal."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import joblib
import numpy as np
import pytest
from sklearn.cluster import DBSCAN
from sklearn.datasets import load_diabetes, load_iris
from sklearn.dummy import DummyRegressor
from sklearn.ensemble import HistGradientBoostingRegressor, RandomForestClassifier
from sklearn.linear_model import LinearRegression, LogisticRegression
from sklearn.svm import LinearSVC
from starlette.testclient import TestClient

from iris_api.engines.model import Model
from iris_api.packing import cli
from iris_api.server.app import build_app
from iris_api.settings import Settings

from ..paths import BUNDLE, MODELS

DATA, CLASSES = load_iris(return_X_y=True)
NAMES = ["Sepal Length (cm)", "sepal/width", "petal_length", "petal_width"]
SPECIES = np.array(["setosa", "versicolor", "virginica"])

Pack = Callable[..., Path]

pytestmark = pytest.mark.usefixtures("quick_packing")


@pytest.fixture
def pack(tmp_path: Path) -> Pack:
    """Write an estimator and a sample, pack them as a user would, and return the bundle."""

    def run(
        estimator: Any,
        *options: str,
        names: Sequence[str] = NAMES,
        rows: Any = DATA,
        targets: Any = None,
        suffix: str = ".joblib",
        code: int = 0,
    ) -> Path:
        artifact, sample = tmp_path / f"mine{suffix}", tmp_path / "sample.csv"
        if suffix == ".skops":
            # It takes a third of a second to import.
            from skops import io as skops_io

            skops_io.dump(estimator, artifact)
        else:
            joblib.dump(estimator, artifact)
        columns = [*names, *(["what it is"] if targets is not None else [])]
        table = [
            [*row, *([targets[number]] if targets is not None else [])] for number, row in enumerate(rows.tolist())
        ]
        sample.write_text("\n".join(",".join(map(str, line)) for line in [columns, *table]))
        given = [artifact, sample, "--name=mine", "--version=2.1", f"--models-dir={tmp_path / 'models'}", *options]
        assert cli.main(["pack", *map(str, given)]) == code
        return tmp_path / "models" / "mine" / "2.1"

    return run


def served(bundle: Path) -> TestClient:
    return TestClient(build_app(Settings(model_dir=bundle), Model.load(bundle)))


def row(names: Sequence[str], values: Any) -> dict[str, float]:
    return dict(zip(names, map(float, values), strict=True))


@pytest.mark.kernel
def test_a_classifier_with_texts_as_classes_and_names_no_variable_could_have(pack: Pack) -> None:
    estimator = LogisticRegression(max_iter=1000).fit(DATA, SPECIES[CLASSES])
    bundle = pack(estimator, "--target=what it is", targets=SPECIES[CLASSES])
    client = served(bundle)
    answer = client.post("/predict", json=row(NAMES, DATA[77])).json()
    # The target's name becomes a key of the answer.
    assert answer["prediction"] == answer["what it is"] == estimator.predict(DATA[77:78])[0]
    assert answer["prediction_proba"] == pytest.approx(estimator.predict_proba(DATA[77:78])[0], abs=1e-6)
    refused = client.post("/predict", json=row(NAMES, DATA[77]) | {"sepal/width": "1"}).json()
    assert refused["details"] == [{"field": "sepal/width", "reason": "Input should be a valid number"}]
    properties = client.get("/openapi.json").json()["components"]["schemas"]["Prediction"]["properties"]
    assert properties["prediction"]["type"] == "string"


def test_a_target_column_gives_shares_and_metrics(pack: Pack, tmp_path: Path) -> None:
    estimator = RandomForestClassifier(5, random_state=0).fit(DATA, CLASSES)
    features = tmp_path / "features.json"
    features.write_text(json.dumps({"petal_width": {"unit": "cm", "minimum": 0, "maximum": 9}}))
    options = ["--target=kind", "--classes=a,b,c", f"--features={features}"]
    bundle = pack(estimator, *options, names=[*NAMES, "kind"], rows=np.column_stack([DATA, CLASSES]))
    manifest = json.loads((bundle / "manifest.json").read_text())
    assert list(manifest["costs"]) == ["sklearn", "onnx"]
    assert manifest["classes"][2] == {"value": 2, "name": "c", "share": 1 / 3}
    assert manifest["metrics"]["sample_accuracy"] > 0.95
    assert (manifest["features"][3]["unit"], manifest["features"][3]["maximum"]) == ("cm", 9)
    # Five bins hold about a fifth of the sample each.
    assert sum(manifest["features"][0]["reference"]["shares"]) == pytest.approx(1)
    assert all(0.1 < share < 0.3 for share in manifest["features"][0]["reference"]["shares"])
    assert served(bundle).post("/predict", json=row(NAMES, DATA[0])).json()["kind"] == "a"


def test_a_classifier_without_probabilities(pack: Pack) -> None:
    estimator = LinearSVC(random_state=0).fit(DATA, CLASSES.astype(float))
    answer = served(pack(estimator)).post("/predict", json=row(NAMES, DATA[120])).json()
    assert answer == {"prediction": 2.0, "label": "2.0", "model": "mine", "model_version": "2.1"}


@pytest.mark.kernel
@pytest.mark.parametrize("estimator", [LinearRegression(), HistGradientBoostingRegressor(max_iter=5)])
def test_a_regressor(pack: Pack, estimator: Any) -> None:
    data, target = load_diabetes(return_X_y=True)
    estimator.fit(data, target)
    names = [f"x{number}" for number in range(10)]
    bundle = pack(estimator, "--target=y", names=[*names, "y"], rows=np.column_stack([data, target]))
    client = served(bundle)
    answer = client.post("/predict", json=row(names, data[5])).json()
    assert answer.keys() == {"prediction", "model", "model_version"}
    assert answer["prediction"] == pytest.approx(estimator.predict(data[5:6])[0], rel=1e-12)
    assert "r2" in (bundle / "MODEL_CARD.md").read_text()


def test_a_skops_file(pack: Pack) -> None:
    bundle = pack(RandomForestClassifier(3, random_state=0).fit(DATA, CLASSES), suffix=".skops")
    assert (bundle / "model.skops").exists()
    assert cli.main(["check", str(bundle)]) == 0


def test_columns_are_put_in_the_order_that_the_model_knows(pack: Pack) -> None:
    estimator = LogisticRegression(max_iter=1000).fit(DATA, CLASSES)
    estimator.feature_names_in_ = np.array(NAMES, dtype=object)
    turned = pack(estimator, names=NAMES[::-1], rows=DATA[:, ::-1])
    assert [each["name"] for each in json.loads((turned / "manifest.json").read_text())["features"]] == NAMES


def test_a_missing_feature_is_named(pack: Pack, capsys: pytest.CaptureFixture[str]) -> None:
    estimator = LogisticRegression(max_iter=1000).fit(DATA, CLASSES)
    estimator.feature_names_in_ = np.array([*NAMES[:3], "colour"], dtype=object)
    pack(estimator, code=1)
    assert "lacks the features colour" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("estimator", "options", "complaint"),
    [
        (DBSCAN().fit(DATA), [], "neither a classifier nor a regressor"),
        (LinearRegression().fit(DATA, DATA[:, :2]), ["--outputs=a"], "answers 2 values a row, but 1 names of outputs"),
        (LinearRegression().fit(DATA[:, :3], CLASSES), [], "takes 3 features, but the sample has 4"),
        (LogisticRegression(max_iter=1000).fit(DATA, CLASSES), ["--classes=a,b"], "2 names were given"),
        (DummyRegressor().fit(DATA, CLASSES), ["--target=colour"], "there is no column 'colour'"),
        (DummyRegressor().fit(DATA, CLASSES), ["--name=My Model"], "--name is 'My Model'"),
        (DummyRegressor().fit(DATA, CLASSES), ["--features=/nowhere"], "/nowhere: cannot be read"),
    ],
)
def test_what_makes_no_bundle_is_refused(
    pack: Pack, capsys: pytest.CaptureFixture[str], estimator: Any, options: list[str], complaint: str
) -> None:
    bundle = pack(estimator, *options, code=1)
    said = capsys.readouterr().err
    assert complaint in said
    assert "Traceback" not in said
    assert not bundle.exists()


def test_a_value_that_is_no_number_is_named_by_row_and_column(pack: Pack, capsys: pytest.CaptureFixture[str]) -> None:
    pack(LinearRegression().fit(DATA, CLASSES), targets=["1", "setosa"] * 75, code=1)
    said = capsys.readouterr().err
    assert "line 3 has 'setosa', which is no finite number, for what it is" in said
    assert "--target 'what it is'" in said and '{"what it is": {"kind": "category"}}' in said


def test_a_bundle_is_not_overwritten_unawares(pack: Pack, capsys: pytest.CaptureFixture[str]) -> None:
    estimator = LinearRegression().fit(DATA, CLASSES)
    pack(estimator)
    pack(estimator, code=1)
    assert "is there already" in capsys.readouterr().err
    pack(estimator, "--replace")


def test_check_finds_a_golden_sample_that_is_off(
    edit_manifest: Callable[[Callable[[dict[str, Any]], None]], Path], capsys: pytest.CaptureFixture[str]
) -> None:
    def nudge(manifest: dict[str, Any]) -> None:
        manifest["golden_samples"][0]["probabilities"][0] += 1e-6

    assert cli.main(["check", str(BUNDLE), str(edit_manifest(nudge))]) == 1
    said = capsys.readouterr()
    assert "good, iris 1.0.0" in said.out
    assert "golden sample 1" in said.err


def test_show_prints_the_card_or_the_manifest(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["show", str(BUNDLE)]) == 0
    assert capsys.readouterr().out.startswith("# iris 1.0.0\n")
    assert cli.main(["show", "--json", str(BUNDLE)]) == 0
    assert json.loads(capsys.readouterr().out)["name"] == "iris"


def test_who_asks_for_nothing_is_told_what_there_is(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main([]) == 2
    assert "iris-model pack model.joblib" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("path", "part"),
    [
        (MODELS / "iris", f"Name the version, too: {BUNDLE}."),
        (BUNDLE / "model.joblib", "A bundle is a folder: iris-model pack makes one of a model."),
        (MODELS / "nowhere", "A bundle is a folder such as models/iris/1.0.0"),
    ],
)
@pytest.mark.parametrize("command", ["show", "check"])
def test_who_names_no_bundle_is_told_what_to_name(
    command: str, path: Path, part: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.main([command, str(path)]) == 1
    assert part in capsys.readouterr().err


@pytest.mark.parametrize("command", ["pack", "show", "predict", "serve", "export", "check", "sign", "train", "schema"])
def test_every_command_explains_itself(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit, match="0"):
        cli.main([command, "--help"])
    assert "usage: iris-model " + command in capsys.readouterr().out
