"""What skl2onnx converts of its own: models and transformers of doubles, as a part of a larger graph."""

from __future__ import annotations

from typing import Any

import numpy as np
from onnx import helper

from iris_api.packing.conversion.graph import Graph, NotConvertedError, Tensor

# Its converters are tested up to the first.
_OPSETS = {"": 21, "ai.onnx.ml": 3}

# What CountVectorizer takes for a word, and the same for the expressions of ONNX Runtime, whose \\w is of ASCII alone.
_WORD = r"(?u)\b\w\w+\b"
_WORD_OF_RE2 = r"[\pL\pN_]{2,}"


def embed(graph: Graph, part: Any, rows: Tensor, options: dict[str, Any] | None = None) -> list[str]:
    """Return the outputs of what skl2onnx makes of an estimator or a transformer of one tensor."""
    from skl2onnx import to_onnx
    from skl2onnx.common.data_types import DoubleTensorType, StringTensorType

    kind = StringTensorType if rows.type == "string" else DoubleTensorType
    try:
        types = [("input", kind([None, rows.width]))]
        chosen = {id(part): options} if options else None
        model = to_onnx(part, initial_types=types, options=chosen, target_opset=_OPSETS)
    except Exception as error:
        # Each converter fails in its own way; all of them mean the same.
        reason = (str(error).strip().splitlines() or [""])[0][:200]
        raise NotConvertedError(f"{type(part).__name__}: {type(error).__name__}: {reason}") from error
    for node in model.graph.node:
        if node.op_type == "StringNormalizer":
            # The one locale that every Debian has.
            node.attribute.extend([helper.make_attribute("locale", "C.UTF-8")])
    return graph.embed(model, [rows.name])


def embed_transformer(graph: Graph, transformer: Any, rows: Tensor) -> Tensor:
    """Return what a transformer makes of doubles."""
    names = getattr(transformer, "get_feature_names_out", None)
    try:
        width = len(names()) if names else rows.width
    except Exception as error:
        raise NotConvertedError(f"{type(transformer).__name__}: it does not say what it makes") from error
    output, *_ = embed(graph, transformer, rows)
    return Tensor(graph.cast(output, "double"), "double", width)


def _counts(graph: Graph, counter: Any, column: Tensor) -> str:
    """Return how often each word of a vocabulary is in texts, as doubles."""
    words: dict[str, Any] = {}
    if counter.analyzer == "word":
        if counter.tokenizer is not None or counter.token_pattern != _WORD:
            raise NotConvertedError(f"a {type(counter).__name__} with words of its own")
        words = {"tokenexp": _WORD_OF_RE2}
    return graph.cast(embed(graph, counter, column, words)[0], "double")


def embed_vectorizer(graph: Graph, vectorizer: Any, column: Tensor) -> Tensor:
    """Return what CountVectorizer or TfidfVectorizer makes of texts: counts by skl2onnx, their weights in double."""
    from sklearn.feature_extraction.text import CountVectorizer, TfidfVectorizer

    width = len(vectorizer.vocabulary_)
    if not isinstance(vectorizer, TfidfVectorizer):
        return Tensor(_counts(graph, vectorizer, column), "double", width)
    shared = CountVectorizer().get_params()
    counter = CountVectorizer(**{name: value for name, value in vectorizer.get_params().items() if name in shared})
    counter.vocabulary_ = vectorizer.vocabulary_
    counts = _counts(graph, counter, column)
    if vectorizer.sublinear_tf:
        one = graph.constant(1.0)
        some = graph.node("Greater", counts, graph.constant(0.0))
        logarithm = graph.node("Add", graph.node("Log", graph.node("Where", some, counts, one)), one)
        counts = graph.node("Where", some, logarithm, counts)
    if vectorizer.use_idf:
        counts = graph.node("Mul", counts, graph.constant(vectorizer.idf_, np.float64))
    if vectorizer.norm:
        power, axis = {"l2": 2, "l1": 1}[vectorizer.norm], graph.constant([1], np.int64)
        size = graph.node(f"ReduceL{power}", counts, axis, keepdims=1)
        one = graph.constant(1.0)
        counts = graph.node(
            "Div", counts, graph.node("Where", graph.node("Equal", size, graph.constant(0.0)), one, size)
        )
    return Tensor(counts, "double", width)
