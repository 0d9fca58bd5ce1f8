"""The models that come with the project, on the data that come with scikit-learn.

The same libraries on the same kind of processor give the same bundles, byte for byte: nothing in them depends on when
they were made. Another processor rounds the last bits differently.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sklearn.datasets import load_diabetes, load_iris, load_wine
from sklearn.ensemble import RandomForestClassifier
from sklearn.linear_model import LogisticRegression, Ridge
from sklearn.model_selection import train_test_split
from sklearn.pipeline import Pipeline
from sklearn.preprocessing import StandardScaler

from iris_api.bundle.manifest import Manifest
from iris_api.packing.asking import scores
from iris_api.packing.given import About, Sample
from iris_api.packing.pack import dump, pack
from iris_api.packing.samples import FeatureText

SEED = 1
HELD_OUT = 0.2


@dataclass(frozen=True)
class Recipe:
    """How one model is made."""

    about: About
    load: Callable[..., Any]
    """scikit-learn's function that returns the data."""
    estimator: Callable[[], Any]
    columns: Sequence[int] | None = None
    """Which of the data's columns; None takes all."""
    golden: Sequence[Sequence[float]] | None = None
    compress: int = 0


# No petal has a negative size, and none of any flower is longer than a metre.
_SEPAL = {
    "sepal_length": FeatureText("Length of a sepal", "cm", 0, 100),
    "sepal_width": FeatureText("Width of a sepal", "cm", 0, 100),
}
_PETAL = {
    "petal_length": FeatureText("Length of a petal", "cm", 0, 100),
    "petal_width": FeatureText("Width of a petal", "cm", 0, 100),
}
# The first is the example of the documentation; one of each class; near a border; at the limits.
_PETALS_GOLDEN = [(6.5, 0.8), (1.4, 0.2), (4.35, 1.35), (4.9, 1.7), (0.0, 0.0), (100.0, 100.0)]
_SPECIES = ("setosa", "versicolor", "virginica")


def _iris(name: str, description: str, features: dict[str, FeatureText]) -> About:
    return About(
        name,
        "1.0.0",
        description,
        target="species",
        target_description="Species of the iris",
        features=features,
        class_names=_SPECIES,
    )


def _logistic_regression(inverse_regularisation: float) -> Pipeline:
    classifier = LogisticRegression(C=inverse_regularisation, random_state=SEED)
    return Pipeline([("scale", StandardScaler()), ("classify", classifier)])


RECIPES = {
    "iris": Recipe(
        _iris(
            "iris",
            "Species of an iris from the size of its petals: standard scaler and logistic regression.",
            _PETAL,
        ),
        load_iris,
        # Of 1, 3, 10 ... 10000 the one with the least log loss in cross-validation on all the data (5 folds, 10 times).
        lambda: _logistic_regression(30),
        columns=(2, 3),
        golden=_PETALS_GOLDEN,
    ),
    "iris-forest": Recipe(
        _iris("iris-forest", "Species of an iris from the size of its petals: random forest of 100 trees.", _PETAL),
        load_iris,
        lambda: RandomForestClassifier(n_estimators=100, random_state=SEED),
        columns=(2, 3),
        golden=_PETALS_GOLDEN,
        compress=9,
    ),
    "iris-full": Recipe(
        _iris(
            "iris-full",
            "Species of an iris from the size of its sepals and petals: standard scaler and logistic regression.",
            _SEPAL | _PETAL,
        ),
        load_iris,
        lambda: _logistic_regression(30),
    ),
    "diabetes": Recipe(
        About(
            "diabetes",
            "1.0.0",
            "Progression of diabetes a year after ten measurements at its start: standard scaler and ridge regression.",
            target="progression",
            target_description="Progression of the disease a year after the baseline, a score from 25 to 346",
            features={
                "age": FeatureText("Age", "years", 0, 150),
                "sex": FeatureText("Sex, as coded in the data: 1 or 2", "", 1, 2),
                "bmi": FeatureText("Body mass index", "kg/m²", 5, 200),
                "bp": FeatureText("Average blood pressure", "mmHg", 10, 400),
                "s1": FeatureText("Total serum cholesterol", "mg/dl", 0, 2000),
                "s2": FeatureText("Low-density lipoproteins", "mg/dl", 0, 2000),
                "s3": FeatureText("High-density lipoproteins", "mg/dl", 0, 1000),
                "s4": FeatureText("Total cholesterol / HDL", "", 0, 100),
                "s5": FeatureText("Logarithm of serum triglycerides, possibly", "", 0, 20),
                "s6": FeatureText("Blood sugar", "mg/dl", 0, 2000),
            },
        ),
        lambda **kwargs: load_diabetes(scaled=False, **kwargs),
        lambda: Pipeline([("scale", StandardScaler()), ("regress", Ridge(alpha=10))]),
    ),
    "wine": Recipe(
        About(
            "wine",
            "1.0.0",
            "Cultivar of a wine from thirteen chemical measurements: standard scaler and logistic regression.",
            target="cultivar",
            target_description="Cultivar the wine was made from",
            class_names=("class_0", "class_1", "class_2"),
        ),
        load_wine,
        lambda: _logistic_regression(1),
    ),
}


def train(name: str, directory: Path) -> Manifest:
    """Train the model of a name in RECIPES, write its bundle to a directory and return its manifest."""
    recipe = RECIPES[name]
    data = recipe.load()
    columns = list(recipe.columns or range(data.data.shape[1]))
    names = list(recipe.about.features) or [str(each) for each in data.feature_names]
    classifies = hasattr(data, "target_names")
    x_train, x_test, y_train, y_test = train_test_split(
        data.data[:, columns],
        data.target,
        test_size=HELD_OUT,
        random_state=SEED,
        stratify=data.target if classifies else None,
    )
    estimator = recipe.estimator().fit(x_train, y_train)
    about = About(
        **{
            **vars(recipe.about),
            "training": {
                "data": f"scikit-learn's bundled {name.partition('-')[0]} data",
                "seed": SEED,
                "samples": len(x_train),
                "held_out_samples": len(x_test),
            },
        }
    )
    held_out = scores(estimator, x_test, y_test.tolist(), classifies)
    return pack(
        directory,
        about,
        "model.joblib",
        dump(estimator, recipe.compress),
        Sample(names, x_train, y_train.tolist()),
        metrics={f"held_out_{metric}": value for metric, value in held_out.items()},
        golden=recipe.golden,
    )
