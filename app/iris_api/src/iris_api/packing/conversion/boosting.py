"""Trees of XGBoost, LightGBM and CatBoost, as those of scikit-learn: read from what the libraries write down."""

from __future__ import annotations

import json
import sys
import tempfile
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np

from iris_api.packing.conversion import trees
from iris_api.packing.conversion.graph import Graph, NotConvertedError, Tensor

if TYPE_CHECKING:
    from iris_api.packing.conversion.estimators import Answer


def by_library() -> dict[type, Callable[[Graph, Any, list[Tensor]], Answer]]:
    """Return what converts an estimator by its type, of the libraries that are loaded: no other has made one."""
    found: dict[type, Callable[[Graph, Any, list[Tensor]], Answer]] = {}
    if xgboost := sys.modules.get("xgboost"):
        found |= dict.fromkeys([xgboost.XGBClassifier, xgboost.XGBRFClassifier], _xgboost_classifier)
        found |= dict.fromkeys([xgboost.XGBRegressor, xgboost.XGBRFRegressor], _xgboost_regressor)
    if lightgbm := sys.modules.get("lightgbm"):
        found |= {lightgbm.LGBMClassifier: _lightgbm_classifier, lightgbm.LGBMRegressor: _lightgbm_regressor}
    if catboost := sys.modules.get("catboost"):
        found |= {catboost.CatBoostClassifier: _catboost_classifier, catboost.CatBoostRegressor: _catboost_regressor}
    return found


def _xgboost(graph: Graph, estimator: Any, tensors: list[Tensor]) -> tuple[str, str]:
    """Return raw scores, rows x targets, and the objective."""
    learner = json.loads(bytes(estimator.get_booster().save_raw("json")))["learner"]
    booster, objective = learner["gradient_booster"], learner["objective"]["name"]
    if booster["name"] != "gbtree":
        raise NotConvertedError(f"the booster {booster['name']} of XGBoost")
    if not np.isnan(estimator.missing):
        raise NotConvertedError(f"XGBoost with {estimator.missing} as missing value")
    model = booster["model"]
    first, last = 0, len(model["trees"])
    best = getattr(estimator, "best_iteration", None) if estimator.early_stopping_rounds else None
    if best is not None:
        last = model["iteration_indptr"][best + 1]
    found = []
    for each in model["trees"][first:last]:
        if int(each["tree_param"]["size_leaf_vector"]) > 1:
            raise NotConvertedError("trees of XGBoost with several targets")
        left = np.array(each["left_children"])
        members = {}
        for node, start, size in zip(
            each["categories_nodes"], each["categories_segments"], each["categories_sizes"], strict=True
        ):
            # The categories of a node go right.
            members[node] = each["categories"][start : start + size]
        values = np.array(each["split_conditions"], dtype=np.float32).astype(np.float64)
        tree = trees.Tree(
            left, np.array(each["right_children"]), np.array(each["split_indices"]), values,
            np.array(each["default_left"]), values,
        )  # fmt: skip
        found.append(trees.mirrored(tree, members) if members else tree)
    base = np.array(json.loads(learner["learner_model_param"]["base_score"]), dtype=np.float64).reshape(-1)
    if objective in ("binary:logistic", "reg:logistic"):
        base = np.log(base / (1 - base))
    elif objective in ("count:poisson", "reg:gamma", "reg:tweedie"):
        base = np.log(base)
    # XGBoost adds in single precision, tree by tree, beginning with this.
    targets = [*range(len(base)), *model["tree_info"][first:last]]
    found = [*(_leaf(value) for value in base), *found]
    rows = graph.cast(graph.matrix(tensors).name, "float")
    total = trees.sums(graph, rows, found, targets, trees.LESS, np.float32)
    return graph.cast(total, "double"), objective


def _leaf(value: float) -> trees.Tree:
    nothing = np.array([-1])
    return trees.Tree(nothing, nothing, nothing, nothing, nothing, np.array([value]))


def _xgboost_classifier(graph: Graph, estimator: Any, tensors: list[Tensor]) -> Answer:
    from iris_api.packing.conversion.estimators import most_probable, two_shares

    raw, objective = _xgboost(graph, estimator, tensors)
    if objective in ("multi:softprob", "multi:softmax"):
        return most_probable(graph, estimator, graph.node("Softmax", raw, axis=1))
    if objective != "binary:logistic":
        raise NotConvertedError(f"the objective {objective} of XGBoost")
    return most_probable(graph, estimator, two_shares(graph, graph.node("Sigmoid", raw)))


def _xgboost_regressor(graph: Graph, estimator: Any, tensors: list[Tensor]) -> Answer:
    from iris_api.packing.conversion.estimators import Answer

    raw, objective = _xgboost(graph, estimator, tensors)
    if objective in ("reg:squarederror", "reg:absoluteerror", "reg:pseudohubererror"):
        return Answer(raw)
    if objective in ("count:poisson", "reg:gamma", "reg:tweedie"):
        return Answer(graph.node("Exp", raw))
    raise NotConvertedError(f"the objective {objective} of XGBoost")


def _lightgbm(graph: Graph, estimator: Any, tensors: list[Tensor]) -> tuple[str, str]:
    """Return raw scores, rows x targets, and the objective with its parameters."""
    best = estimator.best_iteration_ or None
    model = estimator.booster_.dump_model(num_iteration=best)
    if model["average_output"]:
        raise NotConvertedError("a forest of LightGBM")
    found = [_lightgbm_tree(each["tree_structure"]) for each in model["tree_info"]]
    targets = [number % model["num_tree_per_iteration"] for number, _ in enumerate(found)]
    return trees.sums(graph, graph.matrix(tensors).name, found, targets), model.get("objective", "")


def _lightgbm_tree(root: dict[str, Any]) -> trees.Tree:
    left, right, features, thresholds, missing, values = ([] for _ in range(6))  # type: ignore[var-annotated]
    members: dict[int, list[int]] = {}
    waiting: list[tuple[dict[str, Any], list[int] | None, int]] = [(root, None, 0)]
    while waiting:
        node, side, parent = waiting.pop()
        number = len(left)
        if side is not None:
            side[parent] = number
        left.append(-1)
        right.append(-1)
        is_leaf = "split_feature" not in node
        values.append(node["leaf_value"] if is_leaf else 0.0)
        features.append(0 if is_leaf else node["split_feature"])
        threshold, goes_left = 0.0, False
        if not is_leaf:
            if node["decision_type"] == "==":
                # What is none of them goes right, and so does a missing value.
                members[number] = [int(code) for code in node["threshold"].split("||")]
            else:
                threshold = float(node["threshold"])
                # Where training saw none missing, a missing value is taken for 0.
                goes_left = node["default_left"] if node["missing_type"] == "NaN" else threshold >= 0
                if node["missing_type"] == "Zero":
                    raise NotConvertedError("LightGBM that takes 0 for a missing value")
            waiting += [(node["left_child"], left, number), (node["right_child"], right, number)]
        thresholds.append(threshold)
        missing.append(goes_left)
    return trees.Tree(
        left=np.array(left),
        right=np.array(right),
        feature=np.array(features),
        threshold=np.array(thresholds),
        missing_left=np.array(missing),
        values=np.array(values),
        members=members,
    )


def _lightgbm_classifier(graph: Graph, estimator: Any, tensors: list[Tensor]) -> Answer:
    from iris_api.packing.conversion.estimators import most_probable, two_shares

    raw, objective = _lightgbm(graph, estimator, tensors)
    name, *parameters = objective.split()
    if name == "multiclass":
        return most_probable(graph, estimator, graph.node("Softmax", raw, axis=1))
    slope = dict(each.split(":") for each in parameters).get("sigmoid")
    if name != "binary" or slope is None:
        raise NotConvertedError(f"the objective {objective} of LightGBM")
    scaled = graph.node("Mul", raw, graph.constant(float(slope)))
    return most_probable(graph, estimator, two_shares(graph, graph.node("Sigmoid", scaled)))


def _lightgbm_regressor(graph: Graph, estimator: Any, tensors: list[Tensor]) -> Answer:
    from iris_api.packing.conversion.estimators import Answer

    raw, objective = _lightgbm(graph, estimator, tensors)
    name = objective.split()[0] if objective else ""
    if name in ("poisson", "gamma", "tweedie"):
        return Answer(graph.node("Exp", raw))
    if name not in ("regression", "regression_l1", "huber", "fair", "quantile", "mape"):
        raise NotConvertedError(f"the objective {objective} of LightGBM")
    return Answer(raw)


def _catboost(graph: Graph, estimator: Any, tensors: list[Tensor]) -> tuple[str, str]:
    """Return raw scores, rows x targets, and the loss."""
    with tempfile.NamedTemporaryFile(suffix=".json") as file:
        estimator.save_model(file.name, format="json")
        model = json.load(file)
    features = model["features_info"]
    if set(features) - {"float_features"} or "oblivious_trees" not in model:
        raise NotConvertedError("CatBoost with other features than numbers, or with trees that are not symmetric")
    # Where training saw none missing, CatBoost takes a missing value as below every border.
    missing_right = [each["nan_value_treatment"] == "AsTrue" for each in features["float_features"]]
    places = [each["flat_feature_index"] for each in features["float_features"]]
    found = [_oblivious(each, places, missing_right) for each in model["oblivious_trees"]]
    scale, bias = model["scale_and_bias"]
    # It compares in single precision, and adds in double.
    rows = graph.cast(graph.cast(graph.matrix(tensors).name, "float"), "double")
    total = graph.node("Mul", trees.sums(graph, rows, found), graph.constant(float(scale)))
    raw = graph.node("Add", total, graph.constant([bias], np.float64))
    return raw, str(estimator.get_all_params()["loss_function"])


def _oblivious(tree: dict[str, Any], places: list[int], missing_right: list[bool]) -> trees.Tree:
    """Return a tree of which all nodes of a level ask the same: the last split is the root's."""
    splits = tree.get("splits") or []
    depth, leaves = len(splits), 2 ** len(splits)
    values = np.reshape(tree["leaf_values"], (leaves, -1))
    inner = leaves - 1
    nodes = np.arange(inner + leaves)
    level = np.floor(np.log2(nodes + 1)).astype(int)
    asked = [splits[depth - 1 - each] if each < depth else None for each in level]
    if any(each and each["split_type"] != "FloatFeature" for each in asked):
        raise NotConvertedError("CatBoost that asks for anything but a number")
    numbers = [each["float_feature_index"] if each else 0 for each in asked]
    # A value goes left where it is at most the border; the bit of a split is set where it goes right.
    return trees.Tree(
        left=np.where(nodes < inner, 2 * nodes + 1, -1),
        right=np.where(nodes < inner, 2 * nodes + 2, -1),
        feature=np.array([places[each] for each in numbers]),
        threshold=np.array([each["border"] if each else 0.0 for each in asked]),
        missing_left=np.array([not missing_right[each] for each in numbers]),
        values=_squeezed(np.vstack([np.zeros((inner, values.shape[1])), values])),
    )


def _squeezed(values: Any) -> Any:
    return values[:, 0] if values.shape[1] == 1 else values


def _catboost_classifier(graph: Graph, estimator: Any, tensors: list[Tensor]) -> Answer:
    from iris_api.packing.conversion.estimators import most_probable, two_shares

    raw, loss = _catboost(graph, estimator, tensors)
    if loss == "MultiClass":
        return most_probable(graph, estimator, graph.node("Softmax", raw, axis=1))
    if loss not in ("Logloss", "CrossEntropy"):
        raise NotConvertedError(f"the loss {loss} of CatBoost")
    return most_probable(graph, estimator, two_shares(graph, graph.node("Sigmoid", raw)))


def _catboost_regressor(graph: Graph, estimator: Any, tensors: list[Tensor]) -> Answer:
    from iris_api.packing.conversion.estimators import Answer

    raw, loss = _catboost(graph, estimator, tensors)
    name = loss.split(":")[0]
    if name in ("Poisson", "Tweedie"):
        return Answer(graph.node("Exp", raw))
    if name not in ("RMSE", "MAE", "Quantile", "Huber", "MAPE", "MultiRMSE"):
        raise NotConvertedError(f"the loss {loss} of CatBoost")
    return Answer(raw)
