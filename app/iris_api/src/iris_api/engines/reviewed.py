"""What may be left out of a call of some of scikit-learn's own estimators, by a review of their source.

An estimator answers by `predict` and `predict_proba`, and checks that what it computes with is finite. To call both
and to check all is always right. For the types named here less is enough to get exactly the same answer or refusal.
They were reviewed in the source of REVIEWED; of another version, of a subclass or of any other type nothing is known,
however well they agree on a sample:

- SVC(probability=True) predicts by votes of its machines, and estimates probabilities by another model.
- FixedThresholdClassifier, TunedThresholdClassifierCV and VotingClassifier(voting="hard") predict by another rule.
- AdaBoost, gradient boosting, naive Bayes, discriminant analysis, MLPClassifier, SGDClassifier and OneVsRestClassifier
  predict by scores, from which probabilities are computed: where these round to the same number, the class differs.
- KNeighborsClassifier breaks ties among weighted neighbours by sums in another order; RadiusNeighborsClassifier has
  labels for outliers; DummyClassifier may draw both by chance.
"""

from collections.abc import Callable
from typing import Any

import numpy as np
import sklearn
from numpy.typing import NDArray
from scipy.special import expit
from sklearn.calibration import CalibratedClassifierCV
from sklearn.ensemble import (
    BaggingClassifier,
    ExtraTreesClassifier,
    ExtraTreesRegressor,
    RandomForestClassifier,
    RandomForestRegressor,
    VotingClassifier,
)
from sklearn.linear_model import ElasticNet, Lasso, LinearRegression, LogisticRegression, LogisticRegressionCV, Ridge
from sklearn.pipeline import Pipeline
from sklearn.preprocessing import MaxAbsScaler, MinMaxScaler, RobustScaler, StandardScaler
from sklearn.tree import DecisionTreeClassifier, DecisionTreeRegressor, ExtraTreeClassifier, ExtraTreeRegressor
from sklearn.utils.extmath import softmax

from iris_api.bundle.manifest import Manifest

Table = NDArray[Any]
# Values as `predict` answers them, and probabilities as `predict_proba` does if they are wanted.
Decide = Callable[[Table], tuple[Table, Table | None]]

REVIEWED = "1.9"

_TREES = (DecisionTreeClassifier, ExtraTreeClassifier, RandomForestClassifier, ExtraTreesClassifier)
# `predict` is classes_[argmax(predict_proba)], of the same numbers; VotingClassifier only if its voting is soft.
MOST_PROBABLE = (*_TREES, BaggingClassifier, CalibratedClassifierCV, VotingClassifier)
# `predict` is classes_[argmax(decision_function)], or whether that is above 0 for two classes; `predict_proba` is its
# softmax, or its logistic function for two classes.
BY_SCORES = (LogisticRegression, LogisticRegressionCV)
# They scale and shift each feature by itself: what lies between two values stays between them.
SCALERS = (StandardScaler, MinMaxScaler, MaxAbsScaler, RobustScaler)
# They refuse nothing but a wrong shape and what is not finite, trees as float32.
CHECKING_INPUT_ALONE = (
    *_TREES,
    *BY_SCORES,
    DecisionTreeRegressor,
    ExtraTreeRegressor,
    RandomForestRegressor,
    ExtraTreesRegressor,
    LinearRegression,
    Ridge,
    Lasso,
    ElasticNet,
)


def _is_reviewed(estimator: Any, types: tuple[type, ...]) -> bool:
    return type(estimator) in types and sklearn.__version__.rpartition(".")[0] == REVIEWED


def steps_of(estimator: Any) -> tuple[list[Any], Any]:
    """Return the transformers of a plain pipeline and the estimator behind them; of anything else, none and itself.

    For a row or a few, half of the time of scikit-learn's own pipeline goes into finding out anew what its steps are.
    """
    if type(estimator) is not Pipeline:
        return [], estimator
    *transformers, last = [step for _, step in estimator.steps]
    inner, answering = steps_of(last)
    return [*(step for step in transformers if step is not None and step != "passthrough"), *inner], answering


def decider(estimator: Any, probabilities: bool) -> Decide:
    """Return a function that answers a table as an estimator does, by one pass over the model where that is enough."""
    transformers, answering = steps_of(estimator)
    transforms = [step.transform for step in transformers]
    decide = _decide(answering, probabilities)
    if not transforms:
        return decide

    def decide_transformed(rows: Table) -> tuple[Table, Table | None]:
        for transform in transforms:
            rows = transform(rows)
        return decide(rows)

    return decide_transformed


def _decide(estimator: Any, probabilities: bool) -> Decide:
    if not probabilities:
        return lambda rows: (flat(estimator.predict(rows)), None)
    if _is_reviewed(estimator, BY_SCORES):
        return _by_scores(estimator)
    if _is_reviewed(estimator, MOST_PROBABLE) and getattr(estimator, "voting", "soft") == "soft":
        return _by_probabilities(estimator)
    return lambda rows: (flat(estimator.predict(rows)), estimator.predict_proba(rows))


def _by_scores(estimator: Any) -> Decide:
    score, classes = estimator.decision_function, estimator.classes_

    def decide(rows: Table) -> tuple[Table, Table]:
        scores = score(rows)
        if scores.ndim == 1:
            second = expit(scores)
            return classes.take(scores > 0), np.stack([1 - second, second], axis=1)
        return classes.take(scores.argmax(axis=1)), softmax(scores, copy=False)

    return decide


def _by_probabilities(estimator: Any) -> Decide:
    predict_proba, classes = estimator.predict_proba, estimator.classes_

    def decide(rows: Table) -> tuple[Table, Table]:
        shares = predict_proba(rows)
        return classes.take(shares.argmax(axis=1)), shares

    return decide


def flat(answers: Any) -> Table:
    """Return answers as one value a row: a model fitted on a column answers a column."""
    table = np.asarray(answers)
    return table[:, 0] if table.ndim == 2 and table.shape[1] == 1 else table


def is_finite_throughout(estimator: Any, manifest: Manifest) -> bool:
    """Return whether an estimator's checks for finite numbers pass for every row that the manifest accepts.

    Then they can be left out. Behind scalers, the limits of each feature become the limits of what the last step takes.
    """
    if not manifest.is_numeric:
        return False
    transformers, answering = steps_of(estimator)
    if not all(_is_reviewed(step, SCALERS) for step in transformers):
        return False
    if not _is_reviewed(answering, CHECKING_INPUT_ALONE):
        return False
    rows = np.array([each.limits for each in manifest.features], dtype=np.float64).T[[0, 3]]
    try:
        with np.errstate(all="ignore"):
            for step in transformers:
                rows = np.asarray(step.transform(rows))
    except ValueError:
        return False
    return bool((np.abs(rows) <= np.finfo(np.float32).max).all())
