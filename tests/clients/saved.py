"""Saves models as their users do, by MLflow: a pipeline over a mixed table with gaps, and one of numbers.

Run by the Python of .cache/clients: python saved.py FOLDER. It prints what the models answer to these rows by MLflow.
"""

import json
import sys
from pathlib import Path

import mlflow.pyfunc
import mlflow.sklearn
import numpy as np
from mlflow.models import infer_signature
from sklearn.compose import ColumnTransformer
from sklearn.impute import SimpleImputer
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import OneHotEncoder
from sklearn.tree import DecisionTreeClassifier, DecisionTreeRegressor
from tables import customers, measures


def main(folder: Path) -> None:
    """Save both models."""
    frame = customers()
    left = np.where((frame.city == "Bern") ^ (frame.age > 40), "left", "stays")
    columns = ColumnTransformer(
        [
            ("numbers", SimpleImputer(), ["age", "visits"]),
            ("city", OneHotEncoder(), ["city"]),
            ("vip", "passthrough", ["vip"]),
        ]
    )
    mixed = make_pipeline(columns, DecisionTreeClassifier(random_state=0)).fit(frame, left)
    numbers = measures()
    numeric = DecisionTreeRegressor(random_state=0).fit(numbers, numbers.sum(axis=1))
    answers = {}
    for name, model, table in (("mixed", mixed, frame), ("numeric", numeric, numbers)):
        mlflow.sklearn.save_model(
            model,
            folder / name,
            serialization_format="cloudpickle",
            signature=infer_signature(table, model.predict(table)),
            input_example=table,
            pip_requirements=["scikit-learn", "cloudpickle"],
        )
        answers[name] = mlflow.pyfunc.load_model(folder / name).predict(table).tolist()
    print(json.dumps(answers))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
