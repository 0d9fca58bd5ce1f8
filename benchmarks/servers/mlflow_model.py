"""Saves the model as MLflow keeps it, then serves it as `mlflow models serve` does."""

from __future__ import annotations

import os
import sys

import joblib
import mlflow.sklearn

model = joblib.load(os.environ["MODEL"])
mlflow.sklearn.save_model(model, "mlflow", serialization_format="cloudpickle", pyfunc_predict_fn="predict_proba")
options = [
    "--env-manager=local",
    "--host=127.0.0.1",
    f"--port={os.environ['PORT']}",
    f"--workers={os.environ['WORKERS']}",
]
program = os.path.join(os.path.dirname(sys.executable), "mlflow")
os.execv(program, [program, "models", "serve", "--model-uri=mlflow", *options])
