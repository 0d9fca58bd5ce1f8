"""Classifiers and regressors in double precision; what is not here is left to skl2onnx."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any, NamedTuple

import numpy as np
from sklearn import (
    cluster,
    covariance,
    ensemble,
    linear_model,
    multiclass,
    multioutput,
    naive_bayes,
    neural_network,
    svm,
    tree,
)
from sklearn.base import is_classifier
from sklearn.calibration import CalibratedClassifierCV
from sklearn.compose import TransformedTargetRegressor
from sklearn.discriminant_analysis import LinearDiscriminantAnalysis
from sklearn.dummy import DummyClassifier, DummyRegressor
from sklearn.ensemble._iforest import _average_path_length
from sklearn.linear_model._base import LinearModel
from sklearn.model_selection._search import BaseSearchCV
from sklearn.pipeline import Pipeline

from iris_api.packing.conversion import trees
from iris_api.packing.conversion.embedded import embed
from iris_api.packing.conversion.graph import Graph, NotConvertedError, Tensor, labels_of
from iris_api.packing.conversion.steps import transform

Tensors = list[Tensor]


class Answer(NamedTuple):
    """Names of the outputs of an estimator."""

    values: str
    """What `predict` answers: one a row, rows x 1 of a regressor, or rows x targets of several."""
    shares: str | None = None
    """What `predict_proba` answers, rows x classes."""
    scores: str | None = None
    """What `decision_function` answers, rows x their number."""


def answer(graph: Graph, estimator: Any, tensors: Tensors) -> Answer:
    """Return what an estimator answers to rows that come as columns."""
    if isinstance(estimator, Pipeline):
        *steps, (_, last) = estimator.steps
        for _, step in steps:
            # What only draws samples, as imbalanced-learn does, does nothing to what is asked.
            if step is not None and step != "passthrough" and hasattr(step, "transform"):
                tensors = transform(graph, step, tensors)
        return answer(graph, last, tensors)
    if isinstance(estimator, BaseSearchCV):
        return answer(graph, estimator.best_estimator_, tensors)
    for known, convert in _by_type().items():
        if type(estimator) is known:
            return convert(graph, estimator, tensors)
    if isinstance(estimator, LinearModel) and type(estimator).predict is LinearModel.predict:
        return Answer(_linear(graph, estimator, tensors))
    return _by_skl2onnx(graph, estimator, tensors)


def _by_skl2onnx(graph: Graph, estimator: Any, tensors: Tensors) -> Answer:
    rows = graph.matrix(tensors)
    if not is_classifier(estimator):
        return Answer(graph.cast(embed(graph, estimator, rows)[0], "double"))
    values, *shares = embed(graph, estimator, rows, {"zipmap": False})
    return Answer(values, graph.cast(shares[0], "double") if shares else None)


def _by_type() -> dict[type, Callable[[Graph, Any, Tensors], Answer]]:
    """Return what converts an estimator by its type; no subclass of it, which could answer otherwise."""
    from iris_api.packing.conversion.boosting import by_library

    return {**_KNOWN, **by_library()}


def most_probable(graph: Graph, estimator: Any, shares: str) -> Answer:
    """Return the most probable class, the first of equal ones."""
    return Answer(labels_of(graph, estimator.classes_, graph.node("ArgMax", shares, axis=1, keepdims=0)), shares)


def two_shares(graph: Graph, second: str) -> str:
    """Return the probabilities of two classes by that of the second, rows x 1."""
    return graph.node("Concat", graph.node("Sub", graph.constant(1.0), second), second, axis=1)


def by_scores(graph: Graph, estimator: Any, scores: str, shares: str | None) -> Answer:
    """Return the class with the highest score, or of two the second where its score is above 0."""
    if len(estimator.classes_) > 2:
        number = graph.node("ArgMax", scores, axis=1, keepdims=0)
    else:
        above = graph.node("Greater", scores, graph.constant(0.0))
        number = graph.node("Squeeze", graph.cast(above, "int64"), graph.constant([1], np.int64))
    return Answer(labels_of(graph, estimator.classes_, number), shares, scores)


def _linear(graph: Graph, estimator: Any, tensors: Tensors) -> str:
    rows = graph.matrix(tensors).name
    weights = graph.constant(np.atleast_2d(estimator.coef_).T, np.float64)
    shift = graph.constant(np.atleast_1d(estimator.intercept_), np.float64)
    return graph.node("Add", graph.node("MatMul", rows, weights), shift)


def _logistic(graph: Graph, estimator: Any, tensors: Tensors) -> Answer:
    scores = _linear(graph, estimator, tensors)
    if len(estimator.classes_) > 2:
        return by_scores(graph, estimator, scores, graph.node("Softmax", scores, axis=1))
    return by_scores(graph, estimator, scores, two_shares(graph, graph.node("Sigmoid", scores)))


def _linear_classifier(graph: Graph, estimator: Any, tensors: Tensors) -> Answer:
    if getattr(estimator, "loss", None) in ("log_loss", "modified_huber"):
        raise NotConvertedError(f"{type(estimator).__name__} with the loss {estimator.loss}")
    return by_scores(graph, estimator, _linear(graph, estimator, tensors), None)


def _exponential(graph: Graph, estimator: Any, tensors: Tensors) -> Answer:
    return Answer(graph.node("Exp", _linear(graph, estimator, tensors)))


def _singles(graph: Graph, tensors: Tensors) -> str:
    """Return rows as trees of scikit-learn see them: rounded to single precision."""
    return graph.cast(graph.cast(graph.matrix(tensors).name, "float"), "double")


def _shares(graph: Graph, estimator: Any, rows: str, fitted: Sequence[Any]) -> Answer:
    counts = np.atleast_1d(estimator.n_classes_).tolist()
    some = [
        trees.of_sklearn(each, np.hstack([each.value[:, target, :count] for target, count in enumerate(counts)]))
        for each in _trees(fitted)
    ]
    total = trees.sums(graph, rows, some)
    shares = total if len(fitted) == 1 else graph.node("Div", total, graph.constant(float(len(fitted))))
    if len(counts) == 1:
        return most_probable(graph, estimator, shares)
    ends = np.cumsum([0, *counts])
    parts = []
    for classes, (first, end) in zip(estimator.classes_, itertools.pairwise(ends), strict=True):
        own = graph.node("Gather", shares, graph.constant(np.arange(first, end)), axis=1)
        parts.append(labels_of(graph, classes, graph.node("ArgMax", own, axis=1, keepdims=0)))
    return _side_by_side(graph, parts)


def _side_by_side(graph: Graph, values: Sequence[str]) -> Answer:
    """Return what estimators of one target each answer, as rows x targets."""
    return Answer(graph.node("Concat", *(_column(graph, each) for each in values), axis=1))


def _trees(fitted: Sequence[Any]) -> list[Any]:
    return [each.tree_ for each in fitted]


def _tree_classifier(graph: Graph, estimator: Any, tensors: Tensors) -> Answer:
    return _shares(graph, estimator, _singles(graph, tensors), [estimator])


def _forest_classifier(graph: Graph, estimator: Any, tensors: Tensors) -> Answer:
    return _shares(graph, estimator, _singles(graph, tensors), estimator.estimators_)


def _mean(graph: Graph, estimator: Any, tensors: Tensors) -> Answer:
    fitted = getattr(estimator, "estimators_", [estimator])
    width = estimator.n_outputs_
    some = [
        trees.of_sklearn(each, each.value[:, :, 0] if width > 1 else each.value[:, 0, 0]) for each in _trees(fitted)
    ]
    total = trees.sums(graph, _singles(graph, tensors), some)
    return Answer(graph.node("Div", total, graph.constant(float(len(fitted)))))


def _gradient_boosting(graph: Graph, estimator: Any, tensors: Tensors) -> Answer:
    width = estimator.n_features_in_
    start = _start(estimator, width)
    fitted = [(number, each.tree_) for stage in estimator.estimators_ for number, each in enumerate(stage)]
    some = [trees.of_sklearn(each, each.value[:, 0, 0] * estimator.learning_rate) for _, each in fitted]
    total = trees.sums(graph, _singles(graph, tensors), some, [number for number, _ in fitted])
    raw = graph.node("Add", total, graph.constant(start, np.float64))
    if not is_classifier(estimator):
        return Answer(raw)
    if estimator.loss == "exponential":
        raw = graph.node("Mul", raw, graph.constant(2.0))
    return _boosted(graph, estimator, raw)


def _start(estimator: Any, width: int) -> Any:
    constant = type(estimator.init_) in (DummyClassifier, DummyRegressor)
    if not constant and not (isinstance(estimator.init_, str) and estimator.init_ == "zero"):
        raise NotConvertedError(f"{type(estimator).__name__} that starts with {type(estimator.init_).__name__}")
    return estimator._raw_predict_init(np.zeros((1, width), dtype=np.float32))


def _boosted(graph: Graph, estimator: Any, raw: str) -> Answer:
    """Return class and probabilities of raw scores: a logarithm of odds, or one score for each class."""
    if len(estimator.classes_) > 2:
        return by_scores(graph, estimator, raw, graph.node("Softmax", raw, axis=1))
    shares = two_shares(graph, graph.node("Sigmoid", raw))
    return by_scores(graph, estimator, raw, shares)


def _histogram(graph: Graph, estimator: Any, tensors: Tensors) -> Answer:
    if estimator._preprocessor is not None:
        tensors = transform(graph, estimator._preprocessor, tensors)
    some = [trees.of_histogram(each) for stage in estimator._predictors for each in stage]
    targets = [number for stage in estimator._predictors for number, _ in enumerate(stage)]
    total = trees.sums(graph, graph.matrix(tensors).name, some, targets)
    raw = graph.node("Add", total, graph.constant(estimator._baseline_prediction.reshape(1, -1), np.float64))
    if is_classifier(estimator):
        return _boosted(graph, estimator, raw)
    if estimator.loss in ("poisson", "gamma"):
        return Answer(graph.node("Exp", raw))
    return Answer(raw)


def _gaussian(graph: Graph, estimator: Any, tensors: Tensors) -> Answer:
    rows = graph.node("Unsqueeze", graph.matrix(tensors).name, graph.constant([1], np.int64))
    off = graph.node("Sub", rows, graph.constant(estimator.theta_, np.float64))
    terms = graph.node("Div", graph.node("Mul", off, off), graph.constant(estimator.var_, np.float64))
    half = graph.node(
        "Mul", graph.node("ReduceSum", terms, graph.constant([2], np.int64), keepdims=0), graph.constant(0.5)
    )
    known = np.log(estimator.class_prior_) - 0.5 * np.log(2 * np.pi * estimator.var_).sum(axis=1)
    return _by_likelihood(graph, estimator, graph.node("Sub", graph.constant(known[None, :]), half))


def _by_likelihood(graph: Graph, estimator: Any, likelihood: str) -> Answer:
    number = graph.node("ArgMax", likelihood, axis=1, keepdims=0)
    return Answer(labels_of(graph, estimator.classes_, number), graph.node("Softmax", likelihood, axis=1))


def _multinomial(graph: Graph, estimator: Any, tensors: Tensors) -> Answer:
    weights = graph.constant(estimator.feature_log_prob_.T, np.float64)
    sums = graph.node("MatMul", graph.matrix(tensors).name, weights)
    prior = graph.constant(estimator.class_log_prior_[None, :], np.float64)
    return _by_likelihood(graph, estimator, graph.node("Add", sums, prior))


def _perceptron(graph: Graph, estimator: Any, tensors: Tensors) -> Answer:
    rows = graph.matrix(tensors).name
    activate = {"relu": "Relu", "tanh": "Tanh", "logistic": "Sigmoid", "identity": "Identity"}
    last = {"softmax": "Softmax", **activate}[estimator.out_activation_]
    for number, (weights, shift) in enumerate(zip(estimator.coefs_, estimator.intercepts_, strict=True), 2):
        sums = graph.node("MatMul", rows, graph.constant(weights, np.float64))
        rows = graph.node("Add", sums, graph.constant(shift, np.float64))
        rows = graph.node(last if number == estimator.n_layers_ else activate[estimator.activation], rows)
    if not is_classifier(estimator):
        return Answer(rows)
    if last == "Softmax":
        return most_probable(graph, estimator, rows)
    above = graph.node("Greater", rows, graph.constant(0.5))
    if estimator.n_outputs_ > 1:
        return Answer(graph.cast(above, "int64"))
    number_ = graph.node("Squeeze", graph.cast(above, "int64"), graph.constant([1], np.int64))
    return Answer(labels_of(graph, estimator.classes_, number_), two_shares(graph, rows))


def _kernel(graph: Graph, estimator: Any, tensors: Tensors) -> str:
    """Return the kernel of rows and support vectors, as libsvm computes it."""
    rows, vectors = graph.matrix(tensors).name, np.asarray(estimator.support_vectors_, dtype=np.float64)
    products = graph.node("MatMul", rows, graph.constant(vectors.T))
    gamma, shift = estimator._gamma, float(estimator.coef0)
    if estimator.kernel == "linear":
        return products
    if estimator.kernel == "rbf":
        # The distance as a sum of squares, since a difference of large numbers would lose its digits.
        off = graph.node("Sub", graph.node("Unsqueeze", rows, graph.constant([1], np.int64)), graph.constant(vectors))
        squares = graph.node("ReduceSumSquare", off, graph.constant([2], np.int64), keepdims=0)
        return graph.node("Exp", graph.node("Mul", squares, graph.constant(-gamma, np.float64)))
    scaled = graph.node("Add", graph.node("Mul", products, graph.constant(gamma, np.float64)), graph.constant(shift))
    if estimator.kernel == "sigmoid":
        return graph.node("Tanh", scaled)
    if estimator.kernel == "poly":
        return graph.node("Pow", scaled, graph.constant(float(estimator.degree)))
    raise NotConvertedError(f"{type(estimator).__name__} with a kernel of its own")


def _support_regressor(graph: Graph, estimator: Any, tensors: Tensors) -> Answer:
    weights = graph.constant(np.asarray(estimator._dual_coef_).T, np.float64)
    sums = graph.node("MatMul", _kernel(graph, estimator, tensors), weights)
    return Answer(graph.node("Add", sums, graph.constant(estimator._intercept_, np.float64)))


def _support_classifier(graph: Graph, estimator: Any, tensors: Tensors) -> Answer:
    if estimator.break_ties and len(estimator.classes_) > 2:
        raise NotConvertedError("a support vector machine that breaks ties")
    if estimator.probability is True and len(estimator.classes_) > 2:
        raise NotConvertedError("the probabilities of a support vector machine with more than two classes")
    ends = np.cumsum([0, *estimator._n_support])
    pairs = list(itertools.combinations(range(len(estimator.classes_)), 2))
    weights = np.zeros((ends[-1], len(pairs)))
    votes = np.zeros((2, len(pairs), len(estimator.classes_)))
    for number, (one, other) in enumerate(pairs):
        for mine, row in ((one, other - 1), (other, one)):
            part = slice(ends[mine], ends[mine + 1])
            weights[part, number] = estimator._dual_coef_[row, part]
        votes[0, number, one] = votes[1, number, other] = 1
    sums = graph.node("MatMul", _kernel(graph, estimator, tensors), graph.constant(weights))
    scores = graph.node("Add", sums, graph.constant(estimator._intercept_, np.float64))
    first = graph.cast(graph.node("Greater", scores, graph.constant(0.0)), "double")
    second = graph.node("Sub", graph.constant(1.0), first)
    counts = [graph.node("MatMul", each, graph.constant(votes[side])) for side, each in enumerate((first, second))]
    number_ = graph.node("ArgMax", graph.node("Add", *counts), axis=1, keepdims=0)
    values = labels_of(graph, estimator.classes_, number_)
    if estimator.probability is not True:
        return Answer(values, None, _decisions(graph, estimator, scores, counts, pairs))
    slope, shift = (graph.constant(-each, np.float64) for each in (estimator._probA, estimator._probB))
    share = graph.node("Sigmoid", graph.node("Add", graph.node("Mul", scores, slope), shift))
    # Platt's first class is libsvm's first, and so is a score's.
    return Answer(values, graph.node("Concat", share, graph.node("Sub", graph.constant(1.0), share), axis=1))


def _decisions(graph: Graph, estimator: Any, scores: str, counts: Sequence[str], pairs: Sequence[Any]) -> str:
    """Return what `decision_function` answers: one score, one a pair, or one a class that goes by votes first."""
    if len(pairs) == 1:
        return graph.node("Neg", scores)
    if estimator.decision_function_shape == "ovo":
        return scores
    against = np.zeros((len(pairs), len(estimator.classes_)))
    for number, (one, other) in enumerate(pairs):
        against[number, one], against[number, other] = 1, -1
    sums = graph.node("MatMul", scores, graph.constant(against))
    most = graph.node("Mul", graph.node("Add", graph.node("Abs", sums), graph.constant(1.0)), graph.constant(3.0))
    return graph.node("Add", graph.node("Add", *counts), graph.node("Div", sums, most))


def _each_target(graph: Graph, estimator: Any, tensors: Tensors) -> Answer:
    return _side_by_side(graph, [answer(graph, each, tensors).values for each in estimator.estimators_])


def _chain(graph: Graph, estimator: Any, tensors: Tensors) -> Answer:
    """Return what estimators answer of which each gets the answers of those before it beside the row."""
    if getattr(estimator, "chain_method_", "predict") != "predict":
        raise NotConvertedError(f"a chain by {estimator.chain_method_}")
    columns = [graph.matrix(tensors)]
    for each in estimator.estimators_:
        found = _column(graph, graph.cast(answer(graph, each, columns).values, "double"))
        columns.append(Tensor(found, "double", 1))
    own = np.argsort(estimator.order_)
    return Answer(graph.node("Gather", graph.matrix(columns[1:]).name, graph.constant(own, np.int64), axis=1))


def _one_against_all(graph: Graph, estimator: Any, tensors: Tensors) -> Answer:
    if not estimator.multilabel_:
        return _by_skl2onnx(graph, estimator, tensors)
    if any(getattr(each, "classes_", np.array([])).tolist() != [0, 1] for each in estimator.estimators_):
        raise NotConvertedError("one against all, of a label that is always or never there")
    return _each_target(graph, estimator, tensors)


def _by_border(graph: Graph, scores: str, border: str = "Less") -> Answer:
    """Return -1 for an outlier, whose score is below 0 (by "LessOrEqual" also 0), and 1 for others; rows x 1 each."""
    outlier = graph.node(border, scores, graph.constant(0.0))
    one, other = graph.constant([-1], np.int64), graph.constant([1], np.int64)
    values = graph.node("Where", graph.node("Squeeze", outlier, graph.constant([1], np.int64)), one, other)
    return Answer(values, None, scores)


def _isolation_forest(graph: Graph, estimator: Any, tensors: Tensors) -> Answer:
    rows = _singles(graph, tensors)
    parts = zip(
        estimator.estimators_,
        estimator.estimators_features_,
        estimator._decision_path_lengths,
        estimator._average_path_length_per_tree,
        strict=True,
    )
    some = []
    for each, chosen, length, more in parts:
        tree_ = trees.of_sklearn(each.tree_, np.asarray(length) + np.asarray(more) - 1.0)
        some.append(replace(tree_, feature=np.asarray(chosen)[np.maximum(tree_.feature, 0)]))
    depths = trees.sums(graph, rows, some)
    most = len(some) * float(_average_path_length([estimator._max_samples])[0])
    if not most:
        raise NotConvertedError("an isolation forest of one row a tree")
    shares = graph.node("Pow", graph.constant(2.0), graph.node("Div", depths, graph.constant(-most)))
    return _by_border(graph, _below(graph, graph.node("Neg", shares), estimator.offset_))


def _below(graph: Graph, scores: str, offset: float) -> str:
    return graph.node("Sub", scores, graph.constant(float(offset)))


def _one_class(graph: Graph, estimator: Any, tensors: Tensors) -> Answer:
    return _by_border(graph, _support_regressor(graph, estimator, tensors).values, "LessOrEqual")


def _one_class_by_gradient(graph: Graph, estimator: Any, tensors: Tensors) -> Answer:
    rows = graph.matrix(tensors).name
    sums = graph.node("MatMul", rows, graph.constant(np.reshape(estimator.coef_, (-1, 1)), np.float64))
    return _by_border(graph, graph.node("Sub", sums, graph.constant(np.atleast_1d(estimator.offset_), np.float64)))


def _ellipse(graph: Graph, estimator: Any, tensors: Tensors) -> Answer:
    off = graph.node("Sub", graph.matrix(tensors).name, graph.constant(estimator.location_, np.float64))
    product = graph.node("MatMul", off, graph.constant(estimator.get_precision(), np.float64))
    distance = graph.node("ReduceSum", graph.node("Mul", product, off), graph.constant([1], np.int64), keepdims=1)
    return _by_border(graph, _below(graph, graph.node("Neg", distance), estimator.offset_))


def _nearest_center(graph: Graph, estimator: Any, tensors: Tensors) -> Answer:
    """Return the number of the nearest center, by squares as k-means adds them."""
    centers = np.asarray(estimator.cluster_centers_, dtype=np.float64)
    products = graph.node("MatMul", graph.matrix(tensors).name, graph.constant(-2 * centers.T))
    squares = graph.constant((centers**2).sum(axis=1)[None, :])
    return Answer(graph.node("ArgMin", graph.node("Add", products, squares), axis=1, keepdims=0))


def _voting(graph: Graph, estimator: Any, tensors: Tensors) -> Answer:
    answers = [answer(graph, each, tensors) for each in estimator.estimators_]
    weights = estimator._weights_not_none or [1] * len(answers)
    if not is_classifier(estimator):
        return Answer(_weighted(graph, [each.values for each in answers], weights))
    if estimator.voting != "soft":
        raise NotConvertedError("a vote of classes")
    shares = [each.shares for each in answers if each.shares]
    if len(shares) != len(answers):
        raise NotConvertedError("a vote of estimators without probabilities")
    return most_probable(graph, estimator, _weighted(graph, shares, weights))


def _weighted(graph: Graph, parts: Sequence[str], weights: Sequence[float]) -> str:
    scaled = [
        part if weight == 1 else graph.node("Mul", part, graph.constant(float(weight)))
        for part, weight in zip(parts, weights, strict=True)
    ]
    total = scaled[0]
    for each in scaled[1:]:
        total = graph.node("Add", total, each)
    return graph.node("Div", total, graph.constant(float(sum(weights))))


def _stacking(graph: Graph, estimator: Any, tensors: Tensors) -> Answer:
    parts = []
    for each, method in zip(estimator.estimators_, estimator.stack_method_, strict=True):
        found = answer(graph, each, tensors)
        if method == "predict_proba" and found.shares:
            if len(estimator.classes_) == 2:
                second = graph.node("Gather", found.shares, graph.constant([1], np.int64), axis=1)
                parts.append(Tensor(second, "double", 1))
            else:
                parts.append(Tensor(found.shares, "double", len(estimator.classes_)))
        elif method == "predict" and not is_classifier(estimator):
            parts.append(Tensor(graph.node("Reshape", found.values, graph.constant([-1, 1], np.int64)), "double", 1))
        else:
            raise NotConvertedError(f"a stack of {type(each).__name__} by {method}")
    if estimator.passthrough:
        parts += tensors
    found = answer(graph, estimator.final_estimator_, [graph.matrix(parts)])
    if not is_classifier(estimator):
        return found
    if found.shares is None:
        raise NotConvertedError("a stack whose last estimator has no probabilities")
    return most_probable(graph, estimator, found.shares)


def _bagging(graph: Graph, estimator: Any, tensors: Tensors) -> Answer:
    columns = graph.columns(tensors)
    answers = [
        answer(graph, each, [columns[number] for number in chosen])
        for each, chosen in zip(estimator.estimators_, estimator.estimators_features_, strict=True)
    ]
    ones = [1.0] * len(answers)
    if not is_classifier(estimator):
        return Answer(_weighted(graph, [_column(graph, each.values) for each in answers], ones))
    shares = [each.shares for each in answers if each.shares]
    if len(shares) != len(answers) or any(
        len(each.classes_) != len(estimator.classes_) for each in estimator.estimators_
    ):
        raise NotConvertedError("bagging of estimators without probabilities, or without some of the classes")
    return most_probable(graph, estimator, _weighted(graph, shares, ones))


def _column(graph: Graph, values: str) -> str:
    return graph.node("Reshape", values, graph.constant([-1, 1], np.int64))


def _adaptive(graph: Graph, estimator: Any, tensors: Tensors) -> Answer:
    """Return what weighted votes give, as AdaBoostClassifier counts them: for a class, and against each other."""
    count = len(estimator.classes_)
    weights = estimator.estimator_weights_[: len(estimator.estimators_)]
    parts = []
    for each, weight in zip(estimator.estimators_, weights, strict=True):
        shares = answer(graph, each, tensors).shares
        if shares is None or len(each.classes_) != count:
            raise NotConvertedError("AdaBoost of estimators without probabilities, or without some of the classes")
        against = -weight / (count - 1)
        votes = graph.constant(np.where(np.eye(count, dtype=bool), weight, against), np.float64)
        parts.append(graph.node("Gather", votes, graph.node("ArgMax", shares, axis=1, keepdims=0)))
    scores = _weighted(graph, parts, [1.0] * len(parts))
    scores = graph.node("Mul", scores, graph.constant(len(parts) / weights.sum()))
    if count > 2:
        scaled = graph.node("Div", scores, graph.constant(float(count - 1)))
        return by_scores(graph, estimator, scores, graph.node("Softmax", scaled, axis=1))
    # The first class counts against: what is left is twice the second's score.
    scores = graph.node("MatMul", scores, graph.constant([[-1.0], [1.0]]))
    return by_scores(graph, estimator, scores, two_shares(graph, graph.node("Sigmoid", scores)))


def _transformed(graph: Graph, estimator: Any, tensors: Tensors) -> Answer:
    inverse = getattr(estimator.transformer_, "inverse_func", None)
    values = answer(graph, estimator.regressor_, tensors).values
    if inverse not in (np.exp, np.expm1):
        raise NotConvertedError("a target that is transformed back by anything but exp or expm1")
    values = graph.node("Exp", values)
    return Answer(values if inverse is np.exp else graph.node("Sub", values, graph.constant(1.0)))


def _calibrated(graph: Graph, estimator: Any, tensors: Tensors) -> Answer:
    """Return probabilities by a sigmoid of each inner estimator's scores or probabilities."""
    if len(estimator.classes_) != 2:
        raise NotConvertedError("a calibration of more than two classes")
    parts = []
    for each in estimator.calibrated_classifiers_:
        (calibrator,) = each.calibrators
        if not hasattr(calibrator, "a_"):
            raise NotConvertedError("a calibration by anything but a sigmoid")
        inner = each.estimator
        if hasattr(inner, "decision_function"):
            raise NotConvertedError("a calibration of scores")
        shares = answer(graph, inner, tensors).shares
        if shares is None:
            raise NotConvertedError("a calibration of what has no probabilities")
        second = graph.node("Gather", shares, graph.constant([1], np.int64), axis=1)
        scaled = graph.node("Mul", second, graph.constant(-calibrator.a_, np.float64))
        parts.append(graph.node("Sigmoid", graph.node("Sub", scaled, graph.constant(calibrator.b_, np.float64))))
    return most_probable(graph, estimator, two_shares(graph, _weighted(graph, parts, [1.0] * len(parts))))


_KNOWN: dict[type, Callable[[Graph, Any, Tensors], Answer]] = {
    linear_model.LogisticRegression: _logistic,
    linear_model.LogisticRegressionCV: _logistic,
    LinearDiscriminantAnalysis: _logistic,
    linear_model.RidgeClassifier: _linear_classifier,
    linear_model.RidgeClassifierCV: _linear_classifier,
    linear_model.SGDClassifier: _linear_classifier,
    linear_model.Perceptron: _linear_classifier,
    svm.LinearSVC: _linear_classifier,
    linear_model.PoissonRegressor: _exponential,
    linear_model.GammaRegressor: _exponential,
    tree.DecisionTreeClassifier: _tree_classifier,
    tree.ExtraTreeClassifier: _tree_classifier,
    ensemble.RandomForestClassifier: _forest_classifier,
    ensemble.ExtraTreesClassifier: _forest_classifier,
    tree.DecisionTreeRegressor: _mean,
    tree.ExtraTreeRegressor: _mean,
    ensemble.RandomForestRegressor: _mean,
    ensemble.ExtraTreesRegressor: _mean,
    ensemble.GradientBoostingClassifier: _gradient_boosting,
    ensemble.GradientBoostingRegressor: _gradient_boosting,
    ensemble.HistGradientBoostingClassifier: _histogram,
    ensemble.HistGradientBoostingRegressor: _histogram,
    ensemble.VotingClassifier: _voting,
    ensemble.VotingRegressor: _voting,
    ensemble.StackingClassifier: _stacking,
    ensemble.StackingRegressor: _stacking,
    ensemble.BaggingClassifier: _bagging,
    ensemble.BaggingRegressor: _bagging,
    ensemble.AdaBoostClassifier: _adaptive,
    CalibratedClassifierCV: _calibrated,
    TransformedTargetRegressor: _transformed,
    naive_bayes.GaussianNB: _gaussian,
    naive_bayes.MultinomialNB: _multinomial,
    neural_network.MLPClassifier: _perceptron,
    neural_network.MLPRegressor: _perceptron,
    svm.SVC: _support_classifier,
    svm.SVR: _support_regressor,
    multioutput.MultiOutputClassifier: _each_target,
    multioutput.MultiOutputRegressor: _each_target,
    multioutput.ClassifierChain: _chain,
    multioutput.RegressorChain: _chain,
    multiclass.OneVsRestClassifier: _one_against_all,
    ensemble.IsolationForest: _isolation_forest,
    svm.OneClassSVM: _one_class,
    linear_model.SGDOneClassSVM: _one_class_by_gradient,
    covariance.EllipticEnvelope: _ellipse,
    cluster.KMeans: _nearest_center,
    cluster.MiniBatchKMeans: _nearest_center,
}
