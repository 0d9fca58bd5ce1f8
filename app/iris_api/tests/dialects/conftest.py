from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from starlette.testclient import TestClient

from iris_api.engines.model import Model
from iris_api.server.app import build_app
from iris_api.settings import Settings

from ..conftest import MadeOnce

ROWS = 60


@pytest.fixture(scope="module")
def mixed_bundle(made_once: MadeOnce, quick_costs: None) -> Path:
    """A small model of a number, a category and a time, of which number and time may be missing."""
    import numpy as np
    import pandas as pd
    from sklearn.compose import ColumnTransformer
    from sklearn.impute import SimpleImputer
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import OneHotEncoder
    from sklearn.tree import DecisionTreeClassifier

    from iris_api.packing.pack import About, dump, pack

    def make(folder: Path) -> None:
        frame = pd.DataFrame(
            {
                "age": np.arange(ROWS) * 1.0,
                "city": ["Aarau", "Bern", "Zug"] * (ROWS // 3),
                "since": pd.date_range("2026-01-01", periods=ROWS, freq="D"),
            }
        )
        left = np.where((frame.city == "Bern") ^ (frame.age > 30), "left", "stays")
        frame.loc[::7, "age"], frame.loc[::9, "since"] = np.nan, pd.NaT
        columns = ColumnTransformer([("age", SimpleImputer(), ["age"]), ("city", OneHotEncoder(), ["city"])])
        estimator = make_pipeline(columns, DecisionTreeClassifier(random_state=0)).fit(frame, left)
        about = About("customers", "1", "Who leaves.", target="left")
        pack(folder / "customers" / "1", about, "model.joblib", dump(estimator), frame, onnx=False)

    return made_once("dialects-bundle", make) / "customers" / "1"


@pytest.fixture(scope="module")
def mixed(mixed_bundle: Path) -> Iterator[TestClient]:
    with TestClient(build_app(Settings(model_dir=mixed_bundle), Model.load(mixed_bundle))) as client:
        yield client
