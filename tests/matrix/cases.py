"""Sixty estimators and tables, as industry has them: what is packed, and which engines answer as the estimator does."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from sklearn import ensemble, linear_model, naive_bayes, neighbors, neural_network, preprocessing, svm, tree
from sklearn.base import BaseEstimator, TransformerMixin
from sklearn.calibration import CalibratedClassifierCV
from sklearn.cluster import KMeans
from sklearn.compose import ColumnTransformer, TransformedTargetRegressor, make_column_selector, make_column_transformer
from sklearn.decomposition import PCA
from sklearn.discriminant_analysis import LinearDiscriminantAnalysis
from sklearn.feature_extraction.text import CountVectorizer, TfidfVectorizer
from sklearn.feature_selection import SelectKBest
from sklearn.impute import KNNImputer, SimpleImputer
from sklearn.model_selection import GridSearchCV
from sklearn.multioutput import MultiOutputClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import (
    FunctionTransformer,
    OneHotEncoder,
    OrdinalEncoder,
    PolynomialFeatures,
    StandardScaler,
    TargetEncoder,
)

NUMBERS = make_column_selector(dtype_include="number")
# Booleans too: an encoder takes them as categories.
OTHERS = make_column_selector(dtype_exclude="number")
TEXTS = make_column_selector(dtype_exclude=["number", "bool"])


class Ratio(TransformerMixin, BaseEstimator):  # type: ignore[misc]
    """Somebody's own transformer: adds the ratio of the first two columns."""

    def fit(self, rows: Any, _target: Any = None) -> Ratio:
        self.n_features_in_ = np.shape(rows)[1]
        return self

    def transform(self, rows: Any) -> Any:
        rows = np.asarray(rows, dtype=float)
        return np.column_stack([rows, rows[:, 0] / (1 + np.abs(rows[:, 1]))])


@dataclass(frozen=True)
class Case:
    """An estimator, the kind of its table (see `tables.TABLES`) and of its target (see `tables.target`)."""

    name: str
    make: Callable[[], Any]
    table: str = "numbers"
    target: str = "class"
    minimum: float | None = None
    """Of each number, as --features would say it."""
    onnx: bool = True
    """Whether ONNX Runtime is proven to answer as it does."""

    @property
    def library(self) -> str:
        """Return what the estimator's own answers are computed by."""
        return next((each for each in ("XGBoost", "LightGBM", "CatBoost") if each in self.name), "scikit-learn")


def prepared(estimator: Any, *, gap: str = "median", **encoder: Any) -> Any:
    """Return the pipeline that most tables have: impute and scale numbers, encode the others."""
    encoder = {"handle_unknown": "ignore"} | encoder
    return make_pipeline(
        make_column_transformer(
            (make_pipeline(SimpleImputer(strategy=gap), StandardScaler()), NUMBERS), (OneHotEncoder(**encoder), OTHERS)
        ),
        estimator,
    )


def logistic() -> Any:
    return linear_model.LogisticRegression(max_iter=500)


def forest(**settings: Any) -> Any:
    return ensemble.RandomForestClassifier(10, max_depth=6, random_state=0, **settings)


def histogram(**settings: Any) -> Any:
    return ensemble.HistGradientBoostingClassifier(max_iter=10, random_state=0, **settings)


def ordinal(estimator: Any, **settings: Any) -> Any:
    settings = {"handle_unknown": "use_encoded_value", "unknown_value": -1} | settings
    return make_pipeline(
        make_column_transformer((OrdinalEncoder(**settings), OTHERS), remainder="passthrough"), estimator
    )


def xgboost(name: str, **settings: Any) -> Any:
    import xgboost as library

    return getattr(library, name)(n_estimators=10, max_depth=4, **settings)


def lightgbm(name: str, **settings: Any) -> Any:
    import lightgbm as library

    return getattr(library, name)(n_estimators=10, min_child_samples=5, verbose=-1, **settings)


def catboost(name: str, **settings: Any) -> Any:
    import catboost as library

    return getattr(library, name)(
        iterations=10, depth=4, verbose=0, allow_writing_files=False, thread_count=1, **settings
    )


def resampled() -> Any:
    from imblearn.over_sampling import RandomOverSampler
    from imblearn.pipeline import make_pipeline as make_sampled

    return make_sampled(StandardScaler(), RandomOverSampler(random_state=0), logistic())


def tfidf(estimator: Any) -> Any:
    return make_pipeline(ColumnTransformer([("words", TfidfVectorizer(), "review")]), estimator)


def described(estimator: Any) -> Any:
    return make_pipeline(
        ColumnTransformer(
            [
                ("words", TfidfVectorizer(sublinear_tf=True), "review"),
                ("plan", OneHotEncoder(handle_unknown="ignore"), ["plan"]),
                ("hours", StandardScaler(), ["hours"]),
            ]
        ),
        estimator,
    )


CASES = [
    # Numbers.
    Case("logistic regression", logistic),
    Case("scaler, logistic regression", lambda: make_pipeline(StandardScaler(), logistic()), target="flag"),
    Case("polynomials, ridge", lambda: make_pipeline(PolynomialFeatures(2), linear_model.Ridge()), target="number"),
    Case("linear regression", linear_model.LinearRegression, target="number"),
    Case("elastic net", lambda: make_pipeline(StandardScaler(), linear_model.ElasticNet()), target="number"),
    Case(
        "Poisson regression",
        lambda: make_pipeline(StandardScaler(), linear_model.PoissonRegressor()),
        target="count",
    ),
    Case(
        "logarithms, Huber regression",
        lambda: make_pipeline(FunctionTransformer(np.log1p), linear_model.HuberRegressor(max_iter=1000)),
        "amounts",
        "number",
        minimum=0,
    ),
    Case("decision tree", lambda: tree.DecisionTreeClassifier(max_depth=5, random_state=0)),
    Case("random forest", forest),
    Case(
        "random forest, regression",
        lambda: ensemble.RandomForestRegressor(10, random_state=0, max_depth=6),
        target="number",
    ),
    Case("extra trees", lambda: ensemble.ExtraTreesClassifier(10, max_depth=6, random_state=0), target="flag"),
    Case("gradient boosting", lambda: ensemble.GradientBoostingClassifier(n_estimators=10, random_state=0)),
    Case(
        "gradient boosting, regression",
        lambda: ensemble.GradientBoostingRegressor(n_estimators=20, random_state=0),
        target="number",
    ),
    Case("histogram gradient boosting", histogram),
    Case("AdaBoost", lambda: ensemble.AdaBoostClassifier(n_estimators=10, random_state=0), target="flag"),
    Case("bagging", lambda: ensemble.BaggingClassifier(n_estimators=5, random_state=0), target="flag"),
    Case("SVC", lambda: make_pipeline(StandardScaler(), svm.SVC())),
    Case("SVR", lambda: make_pipeline(StandardScaler(), svm.SVR()), target="number"),
    Case("LinearSVC", lambda: make_pipeline(StandardScaler(), svm.LinearSVC())),
    Case("nearest neighbours", lambda: make_pipeline(StandardScaler(), neighbors.KNeighborsClassifier())),
    Case("Gaussian naive Bayes", naive_bayes.GaussianNB),
    Case(
        "multilayer perceptron",
        lambda: make_pipeline(StandardScaler(), neural_network.MLPClassifier((8,), max_iter=200, random_state=0)),
    ),
    Case("linear discriminant analysis", LinearDiscriminantAnalysis),
    Case("principal components, logistic regression", lambda: make_pipeline(StandardScaler(), PCA(2), logistic())),
    Case("best features, forest", lambda: make_pipeline(SelectKBest(k=2), forest())),
    Case("grid search", lambda: GridSearchCV(logistic(), {"C": [0.1, 1.0]}, cv=3)),
    Case(
        "voting",
        lambda: ensemble.VotingClassifier(
            [("lines", make_pipeline(StandardScaler(), logistic())), ("trees", forest())], voting="soft"
        ),
    ),
    Case(
        "stacking",
        lambda: ensemble.StackingClassifier(
            [("bayes", naive_bayes.GaussianNB()), ("trees", forest())], logistic(), cv=3
        ),
    ),
    Case("calibrated forest", lambda: CalibratedClassifierCV(forest(), cv=3), target="flag"),
    Case(
        "transformed target",
        lambda: TransformedTargetRegressor(linear_model.Ridge(), func=np.log, inverse_func=np.exp),
        target="amount",
    ),
    Case("XGBoost", lambda: xgboost("XGBClassifier"), target="flag"),
    Case("LightGBM", lambda: lightgbm("LGBMClassifier")),
    Case("CatBoost", lambda: catboost("CatBoostClassifier"), target="flag", onnx=False),
    Case("imbalanced-learn pipeline", resampled, target="flag"),
    # Numbers with gaps.
    Case("mean imputer, forest", lambda: make_pipeline(SimpleImputer(), forest()), "gaps"),
    Case(
        "median imputer with indicators, logistic regression",
        lambda: make_pipeline(SimpleImputer(strategy="median", add_indicator=True), StandardScaler(), logistic()),
        "gaps",
    ),
    Case("nearest-neighbours imputer", lambda: make_pipeline(KNNImputer(), logistic()), "gaps", onnx=False),
    Case("forest with gaps", forest, "gaps"),
    Case("histogram gradient boosting with gaps", histogram, "gaps", "flag"),
    Case("XGBoost with gaps", lambda: xgboost("XGBRegressor"), "gaps", "number"),
    Case("LightGBM with gaps", lambda: lightgbm("LGBMRegressor"), "gaps", "number"),
    # Mixed columns.
    Case("imputer, scaler, one-hot, logistic regression", lambda: prepared(logistic()), "mixed"),
    Case("one-hot of None, logistic regression", lambda: prepared(logistic()), "nones", "flag"),
    Case(
        "one-hot with infrequent categories, forest",
        lambda: prepared(forest(), handle_unknown="infrequent_if_exist", min_frequency=20),
        "mixed",
        "flag",
    ),
    Case(
        "one-hot that refuses the unknown, ridge",
        lambda: prepared(linear_model.Ridge(), handle_unknown="error", drop="first"),
        "mixed",
        "number",
    ),
    Case("ordinal encoder, gradient boosting", lambda: ordinal(histogram()), "mixed"),
    Case(
        "target encoder, logistic regression",
        lambda: make_pipeline(
            make_column_transformer(
                (TargetEncoder(random_state=0), TEXTS),
                (make_pipeline(SimpleImputer(), StandardScaler()), NUMBERS),
            ),
            logistic(),
        ),
        "mixed",
        "flag",
    ),
    Case(
        "one-hot of integers",
        lambda: make_pipeline(
            make_column_transformer(
                (OneHotEncoder(handle_unknown="ignore"), ["branch", "account"]), remainder="passthrough"
            ),
            logistic(),
        ),
        "codes",
    ),
    Case("mixed columns, SVC", lambda: prepared(svm.SVC()), "mixed", "flag"),
    Case(
        "histogram gradient boosting of categories", lambda: histogram(categorical_features="from_dtype"), "categories"
    ),
    Case("XGBoost of categories", lambda: xgboost("XGBClassifier", enable_categorical=True), "categories", "flag"),
    Case("LightGBM of categories", lambda: lightgbm("LGBMClassifier"), "categories", "flag"),
    Case("own transformer", lambda: make_pipeline(SimpleImputer(), Ratio(), logistic()), "gaps", onnx=False),
    # Texts.
    Case(
        "counted words, naive Bayes",
        lambda: make_pipeline(ColumnTransformer([("words", CountVectorizer(), "review")]), naive_bayes.MultinomialNB()),
        "texts",
    ),
    Case("weighted words, logistic regression", lambda: tfidf(logistic()), "texts"),
    Case("words, category and number", lambda: described(logistic()), "tickets", "flag"),
    # Other answers than one class or number.
    Case(
        "several targets",
        lambda: ensemble.RandomForestRegressor(5, max_depth=5, random_state=0),
        target="numbers",
    ),
    Case(
        "several labels",
        lambda: MultiOutputClassifier(logistic()),
        target="flags",
    ),
    Case(
        "outlier detection",
        lambda: ensemble.IsolationForest(n_estimators=10, random_state=0),
    ),
    Case(
        "clusters",
        lambda: make_pipeline(preprocessing.MinMaxScaler(), KMeans(3, random_state=0)),
    ),
]
