"""Trees in double precision, of forests and of gradient boosting: by TreeEnsemble of ai.onnx.ml 5."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray
from onnx import numpy_helper

from iris_api.packing.conversion.graph import Graph

# Modes of a node: at most, less than, one of the members.
AT_MOST, LESS = 0, 1
_MEMBER = 6
_SUM = 1


@dataclass(frozen=True)
class Tree:
    """A tree as arrays of one value a node, of which the first is the root.

    A node without children (-1) is a leaf. At any other a row goes left where its value of `feature` is at most the
    threshold (or less than it), or one of the node's `members` if it has them. Where the value is missing, it goes left
    if `missing_left` says so.
    """

    left: NDArray[Any]
    right: NDArray[Any]
    feature: NDArray[Any]
    threshold: NDArray[Any]
    missing_left: NDArray[Any]
    values: NDArray[Any]
    """Of the leaves; nodes, or nodes x numbers."""
    members: Mapping[int, Sequence[int]] = field(default_factory=dict)
    """Codes that go left, by the number of the node; all others go right."""


def of_sklearn(tree: Any, values: NDArray[Any]) -> Tree:
    """Return a tree of scikit-learn's, `tree_`, whose nodes answer these values."""
    missing = getattr(tree, "missing_go_to_left", np.zeros(tree.node_count))
    left = tree.children_left
    return Tree(left, tree.children_right, tree.feature, tree.threshold, missing, values)


def of_histogram(predictor: Any) -> Tree:
    """Return a tree of histogram gradient boosting."""
    nodes = predictor.nodes
    leaf = nodes["is_leaf"].astype(bool)
    # A category that was not in training is a missing value in front of it.
    members = {
        int(number): [
            code
            for code in range(256)
            if predictor.raw_left_cat_bitsets[nodes["bitset_idx"][number], code // 32] >> (code % 32) & 1
        ]
        for number in np.flatnonzero(nodes["is_categorical"] & ~leaf)
    }
    left, right = (np.where(leaf, -1, nodes[side].astype(np.int64)) for side in ("left", "right"))
    feature, threshold = nodes["feature_idx"], nodes["num_threshold"]
    return Tree(left, right, feature, threshold, nodes["missing_go_to_left"], nodes["value"], members)


def sums(
    graph: Graph,
    rows: str,
    trees: Sequence[Tree],
    targets: Sequence[int] | None = None,
    mode: int = AT_MOST,
    dtype: Any = np.float64,
) -> str:
    """Return the sum of what trees answer to rows of features: a tensor of rows x targets.

    Args:
        graph: where nodes are added.
        rows: name of the tensor.
        trees: of one value a leaf, which is added to the tree's target, or of several, each of them a target.
        targets: one a tree, from 0; None where there is but one, or a leaf has several values.
        mode: AT_MOST or LESS.
        dtype: of the rows and the sum; one after the other is added.
    """
    if trees[0].values.ndim == 1:
        targets = targets or [0] * len(trees)
        return _ensemble(graph, rows, trees, [each.values for each in trees], targets, mode, dtype)
    # A leaf has one number here: that of the row of a table that holds its values.
    counts = np.cumsum([0, *(len(each.values) for each in trees)])
    numbers = [np.arange(start, end) for start, end in itertools.pairwise(counts)]
    leaves = graph.cast(_ensemble(graph, rows, trees, numbers, range(len(trees)), mode, dtype), "int64")
    table = graph.constant(np.concatenate([each.values for each in trees]), np.float64)
    # It adds up in the order of the trees: where classes are as probable as each other, the last bit decides.
    return graph.node("ReduceSum", graph.node("Gather", table, leaves), graph.constant([1], np.int64), keepdims=0)


def _ensemble(
    graph: Graph,
    rows: str,
    trees: Sequence[Tree],
    values: Sequence[NDArray[Any]],
    targets: Sequence[int],
    mode: int,
    dtype: Any,
) -> str:
    attributes: dict[str, list[Any]] = {
        each: []
        for each in ("features", "modes", "splits", "missing", "true", "true_leaf", "false", "false_leaf", "roots")
    }
    members: list[float] = []
    leaf_targets: list[int] = []
    weights: list[float] = []

    def leaf(value: float, target: int) -> int:
        leaf_targets.append(target)
        weights.append(value)
        return len(weights) - 1

    for tree, of_tree, target in zip(trees, values, targets, strict=True):
        inner = np.flatnonzero(tree.left >= 0)
        first = len(attributes["splits"])
        attributes["roots"].append(first)
        if not len(inner):
            # The root is a leaf: both ways lead to it.
            only = leaf(float(of_tree[0]), target)
            row = {"features": 0, "modes": AT_MOST, "splits": 0.0, "missing": 0}
            row |= {"true": only, "true_leaf": 1, "false": only, "false_leaf": 1}
            for name, value in row.items():
                attributes[name].append(value)
            continue
        places = {int(node): first + place for place, node in enumerate(inner)}
        for node in map(int, inner):
            chosen = tree.members.get(node)
            if chosen is not None:
                members += [*chosen, np.nan]
            attributes["features"].append(int(tree.feature[node]))
            attributes["modes"].append(mode if chosen is None else _MEMBER)
            attributes["splits"].append(float(tree.threshold[node]) if chosen is None else 0.0)
            attributes["missing"].append(int(tree.missing_left[node]))
            for name, child in (("true", int(tree.left[node])), ("false", int(tree.right[node]))):
                is_leaf = child not in places
                attributes[name].append(leaf(float(of_tree[child]), target) if is_leaf else places[child])
                attributes[f"{name}_leaf"].append(int(is_leaf))
    return graph.node(
        "TreeEnsemble",
        rows,
        domain="ai.onnx.ml",
        n_targets=max(targets) + 1,
        aggregate_function=_SUM,
        post_transform=0,
        tree_roots=attributes["roots"],
        nodes_featureids=attributes["features"],
        nodes_modes=numpy_helper.from_array(np.array(attributes["modes"], dtype=np.uint8)),
        nodes_splits=numpy_helper.from_array(np.array(attributes["splits"], dtype=dtype)),
        nodes_missing_value_tracks_true=attributes["missing"],
        nodes_truenodeids=attributes["true"],
        nodes_trueleafs=attributes["true_leaf"],
        nodes_falsenodeids=attributes["false"],
        nodes_falseleafs=attributes["false_leaf"],
        leaf_targetids=leaf_targets,
        leaf_weights=numpy_helper.from_array(np.array(weights, dtype=dtype)),
        **({"membership_values": numpy_helper.from_array(np.array(members, dtype=dtype))} if members else {}),
    )


def mirrored(tree: Tree, members: Mapping[int, Sequence[int]]) -> Tree:
    """Return a tree whose members go right as one whose members go left: with both ways of these nodes exchanged."""
    nodes = np.fromiter(members, dtype=np.int64)
    left, right, missing_left = tree.left.copy(), tree.right.copy(), np.array(tree.missing_left, dtype=bool)
    left[nodes], right[nodes] = tree.right[nodes], tree.left[nodes]
    missing_left[nodes] = ~missing_left[nodes]
    return Tree(left, right, tree.feature, tree.threshold, missing_left, tree.values, members)
