"""Transformers that take columns of several types: in a graph of ONNX, and in double precision.

A column's encoder is a table here: each category is asked of the encoder itself, once, and so is one that it does not
know. So whatever an encoder does with infrequent, dropped, unknown or missing categories is what the graph does.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn.compose import ColumnTransformer
from sklearn.feature_extraction.text import CountVectorizer, TfidfVectorizer
from sklearn.impute import MissingIndicator, SimpleImputer
from sklearn.pipeline import FeatureUnion, Pipeline
from sklearn.preprocessing import (
    FunctionTransformer,
    MaxAbsScaler,
    MinMaxScaler,
    OneHotEncoder,
    OrdinalEncoder,
    PolynomialFeatures,
    RobustScaler,
    StandardScaler,
    TargetEncoder,
)
from sklearn.utils import check_array

from iris_api.engines.onnx import MISSING
from iris_api.packing.conversion.embedded import embed_transformer
from iris_api.packing.conversion.graph import Graph, NotConvertedError, Tensor

Step = Callable[[Graph, Any, list[Tensor]], list[Tensor]]


def transform(graph: Graph, transformer: Any, tensors: list[Tensor]) -> list[Tensor]:
    """Return what a transformer makes of columns."""
    step = _STEPS.get(type(transformer))
    if step is not None:
        return step(graph, transformer, tensors)
    return [embed_transformer(graph, transformer, graph.matrix(tensors))]


def _pipeline(graph: Graph, pipeline: Pipeline, tensors: list[Tensor]) -> list[Tensor]:
    for _, step in pipeline.steps:
        if not _passes(step):
            tensors = transform(graph, step, tensors)
    return tensors


def _passes(step: Any) -> bool:
    return step is None or (isinstance(step, str) and step == "passthrough")


def _column_transformer(graph: Graph, transformer: ColumnTransformer, tensors: list[Tensor]) -> list[Tensor]:
    columns = graph.columns(tensors)
    parts: list[Tensor] = []
    for name, step, _ in transformer.transformers_:
        chosen = transformer._transformer_to_input_indices[name]
        if (isinstance(step, str) and step == "drop") or not len(chosen):
            continue
        some = [columns[each] for each in chosen]
        found = some if _passes(step) else transform(graph, step, some)
        weight = (transformer.transformer_weights or {}).get(name)
        if weight is not None:
            rows = graph.matrix(found)
            found = [replace(rows, name=graph.node("Mul", rows.name, graph.constant(weight, np.float64)))]
        parts += found
    return parts


def _union(graph: Graph, union: FeatureUnion, tensors: list[Tensor]) -> list[Tensor]:
    if union.transformer_weights:
        raise NotConvertedError("a FeatureUnion with weights")
    parts: list[Tensor] = []
    for _, step in union.transformer_list:
        if not (isinstance(step, str) and step == "drop"):
            parts += tensors if _passes(step) else transform(graph, step, tensors)
    return parts


def _function(graph: Graph, transformer: FunctionTransformer, tensors: list[Tensor]) -> list[Tensor]:
    if transformer.func is None or getattr(transformer.func, "func", None) is check_array:
        # The latter in front of histogram gradient boosting.
        return tensors
    if transformer.func not in _FUNCTIONS or transformer.kw_args:
        function = getattr(transformer.func, "__name__", transformer.func)
        raise NotConvertedError(f"the function {function!r:.80} of a FunctionTransformer")
    rows = graph.matrix(tensors)
    operation = _FUNCTIONS[transformer.func]
    name = _log1p(graph, rows.name) if operation is None else graph.node(operation, rows.name)
    return [replace(rows, name=name)]


_FUNCTIONS: dict[Any, str | None] = {np.log1p: None, np.log: "Log", np.sqrt: "Sqrt", np.abs: "Abs", np.exp: "Exp"}


def _log1p(graph: Graph, name: str) -> str:
    """Return log(1 + x) exactly: what is lost in the sum near 0 is put back by x / ((1 + x) - 1)."""
    one = graph.constant(1.0, np.float64)
    more = graph.node("Add", name, one)
    kept = graph.node("Sub", more, one)
    nothing = _equals(graph, kept, 0.0)
    factor = graph.node("Div", name, graph.node("Where", nothing, one, kept))
    return graph.node("Where", nothing, name, graph.node("Mul", graph.node("Log", more), factor))


def _equals(graph: Graph, name: str, value: float) -> str:
    return graph.node("Equal", name, graph.constant(value, np.float64))


def _scaler(graph: Graph, scaler: Any, tensors: list[Tensor]) -> list[Tensor]:
    rows = graph.matrix(tensors)
    name = rows.name
    if isinstance(scaler, MinMaxScaler):
        name = graph.node("Mul", name, graph.constant(scaler.scale_, np.float64))
        name = graph.node("Add", name, graph.constant(scaler.min_, np.float64))
        if scaler.clip:
            # Clip would have NaN become a limit, or not.
            low, high = (graph.constant(float(each), np.float64) for each in scaler.feature_range)
            name = graph.node("Where", graph.node("Less", name, low), low, name)
            name = graph.node("Where", graph.node("Greater", name, high), high, name)
        return [replace(rows, name=name)]
    centers = {StandardScaler: ("with_mean", "mean_"), RobustScaler: ("with_centering", "center_")}
    is_centering, center = centers.get(type(scaler), ("", ""))
    if is_centering and getattr(scaler, is_centering):
        name = graph.node("Sub", name, graph.constant(getattr(scaler, center), np.float64))
    if scaler.scale_ is not None:
        name = graph.node("Div", name, graph.constant(scaler.scale_, np.float64))
    if isinstance(scaler, MaxAbsScaler) and getattr(scaler, "clip", False):
        raise NotConvertedError("a MaxAbsScaler that clips")
    return [replace(rows, name=name)]


def _polynomials(graph: Graph, polynomials: PolynomialFeatures, tensors: list[Tensor]) -> list[Tensor]:
    rows = graph.matrix(tensors)
    powers = polynomials.powers_
    # The column behind the last is 1: a factor of what has fewer factors than others.
    factors = [np.repeat(np.arange(rows.width), each) for each in powers]
    most = max(map(len, factors))
    places = np.array([np.pad(each, (0, most - len(each)), constant_values=rows.width) for each in factors])
    ones = graph.node("Pad", rows.name, graph.constant([0, 0, 0, 1]), graph.constant(1.0))
    name = graph.node("Gather", ones, graph.constant(places[:, 0]), axis=1)
    for number in range(1, most):
        name = graph.node("Mul", name, graph.node("Gather", ones, graph.constant(places[:, number]), axis=1))
    return [replace(rows, name=name, width=len(powers))]


def _imputer(graph: Graph, imputer: SimpleImputer, tensors: list[Tensor]) -> list[Tensor]:
    columns = graph.columns(tensors)
    statistics = imputer.statistics_.tolist()
    empty = [value is None or (isinstance(value, float) and value != value) for value in statistics]
    is_dropping = any(empty) and not imputer.keep_empty_features and imputer.strategy != "constant"
    if (
        not is_dropping
        and _is_nan(imputer.missing_values)
        and all(each.type in ("double", "int64") for each in columns)
    ):
        # All columns in one step: an integer is none that is missing.
        rows = graph.matrix(tensors)
        gap = graph.node("IsNaN", rows.name)
        fill = graph.constant([statistics], np.float64)
        kept = [replace(rows, name=graph.node("Where", gap, fill, rows.name), missing=None)]
        if imputer.add_indicator:
            chosen = imputer.indicator_.features_
            some = graph.node("Gather", gap, graph.constant(chosen, np.int64), axis=1)
            kept.append(Tensor(graph.cast(some, "double"), "double", len(chosen)))
        return kept
    kept, gaps = [], []
    for column, value, is_empty in zip(columns, statistics, empty, strict=True):
        gap_or_none = _imputed(graph, imputer.missing_values, column)
        gaps.append(gap_or_none or "")
        if not (is_dropping and is_empty):
            kept.append(column if gap_or_none is None else _filled(graph, column, gap_or_none, value))
    if imputer.add_indicator:
        kept += _indicators(graph, imputer.indicator_, gaps)
    return kept


def _filled(graph: Graph, column: Tensor, gap: str, value: Any) -> Tensor:
    if column.type == "string":
        fill = graph.constant([str(value)], object)
        return replace(column, name=graph.node("Where", gap, fill, column.name), missing=None)
    fill = graph.constant(value, np.float64)
    return Tensor(graph.node("Where", gap, fill, graph.matrix([column]).name), "double", 1)


def _is_nan(value: Any) -> bool:
    return isinstance(value, float) and value != value


def _imputed(graph: Graph, missing: Any, column: Tensor) -> str | None:
    """Return where an imputer finds a value missing, or None if it finds none."""
    is_nan = _is_nan(missing)
    if column.type == "double":
        if is_nan or str(missing) == "<NA>":
            return graph.node("IsNaN", column.name)
        return None if missing is None else _equals(graph, column.name, float(missing))
    if column.type == "string":
        means = {"none": missing is None, "nan": is_nan, "NA": is_nan or str(missing) == "<NA>"}
        if isinstance(missing, str):
            return graph.node("Equal", column.name, graph.constant([missing], object))
        return graph.gap(column) if column.missing and means[column.missing] else None
    if missing is None or is_nan or isinstance(missing, str):
        return None
    return _equals(graph, graph.matrix([column]).name, float(missing))


def _indicators(graph: Graph, indicator: MissingIndicator, gaps: list[str]) -> list[Tensor]:
    found = []
    for number in indicator.features_.tolist():
        if not gaps[number]:
            raise NotConvertedError("an indicator of missing values in a column that has none here")
        found.append(Tensor(graph.cast(gaps[number], "double"), "double", 1))
    return found


def _encoder(graph: Graph, encoder: Any, tensors: list[Tensor]) -> list[Tensor]:
    columns = graph.columns(tensors)
    widths = _widths(encoder)
    ends = np.cumsum(widths)
    parts: list[Tensor] = []
    for number, (column, width, end) in enumerate(zip(columns, widths, ends, strict=True)):
        if width:
            known, unknown = _table(encoder, number, slice(end - width, end))
            parts.append(_look_up(graph, column, encoder.categories_[number].tolist(), known, unknown))
    return parts


def _widths(encoder: Any) -> list[int]:
    """Return how many numbers an encoder makes of each column."""
    if isinstance(encoder, OneHotEncoder):
        return [int(each) for each in encoder._n_features_outs]
    width = len(encoder.classes_) if getattr(encoder, "target_type_", None) == "multiclass" else 1
    return [width] * len(encoder.categories_)


def _table(encoder: Any, number: int, place: slice) -> tuple[NDArray[np.float64], NDArray[np.float64] | None]:
    """Return what an encoder makes of each category of a column, and of any other: None if it refuses that."""
    categories = encoder.categories_[number]

    def encode(values: Sequence[Any]) -> NDArray[np.float64]:
        columns = [np.full(len(values), each[0], dtype=each.dtype) for each in encoder.categories_]
        columns[number] = np.array(values, dtype=categories.dtype if categories.dtype.kind != "U" else object)
        found: Any = encoder.transform(_frame(encoder, columns))
        found = found.toarray() if hasattr(found, "toarray") else np.asarray(found)
        return np.asarray(found[:, place], dtype=np.float64)

    known = encode(categories.tolist())
    strange = _strange(categories)
    try:
        return known, encode([strange])[0]
    except ValueError:
        return known, None


def _frame(encoder: Any, columns: list[NDArray[Any]]) -> Any:
    names = getattr(encoder, "feature_names_in_", None)
    if names is not None or len({each.dtype for each in columns}) > 1:
        import pandas

        names = names if names is not None else range(len(columns))
        return pandas.DataFrame(
            {name: pandas.Series(each, dtype=each.dtype) for name, each in zip(names, columns, strict=True)}
        )
    return np.stack(columns, axis=1)


def _strange(categories: NDArray[Any]) -> Any:
    """Return a value that is none of the categories."""
    if any(isinstance(each, str) for each in categories.tolist()):
        return "\N{REPLACEMENT CHARACTER}" * (
            1 + max(len(each) for each in categories.tolist() if isinstance(each, str))
        )
    if categories.dtype.kind == "b":
        return categories[0]
    numbers = [each for each in categories.tolist() if each is not None and each == each]
    return max(numbers, default=0) + 1


def _look_up(
    graph: Graph,
    column: Tensor,
    categories: list[Any],
    known: NDArray[np.float64],
    unknown: NDArray[np.float64] | None,
) -> Tensor:
    """Return for each row the row of the table that is its category's."""
    width = known.shape[1]
    rows = np.vstack([known, np.full(width, np.nan) if unknown is None else unknown])
    gaps = [place for place, each in enumerate(categories) if each is None or each != each]
    texts = [each for each in categories if isinstance(each, str)]
    if column.type == "string":
        if len(texts) + len(gaps) != len(categories):
            raise NotConvertedError("categories that are no texts, of a column of texts")
        kinds = {None: None, "none": None, "nan": np.nan, "NA": np.nan}
        # Of several that stand for a missing value, the one that this column has.
        here = [place for place in gaps if (categories[place] is None) == (kinds[column.missing] is None)]
        gap = here[0] if here else len(categories)
        keys = [MISSING, *texts]
        places = [gap, *(place for place, each in enumerate(categories) if isinstance(each, str))]
        codes = graph.node(
            "LabelEncoder",
            column.name,
            domain="ai.onnx.ml",
            keys_strings=keys,
            values_int64s=places,
            default_int64=len(categories),
        )
        table = graph.node("Gather", graph.constant(rows), graph.node("Squeeze", codes, graph.constant([1], np.int64)))
        return Tensor(table, "double", width)
    if texts:
        raise NotConvertedError("categories that are texts, of a column of numbers")
    if column.type == "bool":
        column = Tensor(graph.cast(column.name, "int64"), "int64", 1)
    dtype = np.float64 if column.type == "double" else np.int64
    numbers = [(place, each) for place, each in enumerate(categories) if place not in gaps]
    values = graph.constant([[each for _, each in numbers]], dtype)
    found = graph.cast(graph.node("Equal", column.name, values), "double")
    order = [place for place, _ in numbers]
    if gaps and column.type == "double":
        found = graph.node("Concat", found, graph.cast(graph.node("IsNaN", column.name), "double"), axis=1)
        order.append(gaps[0])
    # What is none of them has the last place.
    some = graph.node("ReduceSum", found, graph.constant([1], np.int64), keepdims=1)
    found = graph.node("Concat", found, graph.node("Sub", graph.constant(1.0), some), axis=1)
    codes = graph.node("ArgMax", found, axis=1, keepdims=0)
    return Tensor(graph.node("Gather", graph.constant(rows[[*order, len(categories)]]), codes), "double", width)


def _vectorizer(graph: Graph, vectorizer: Any, tensors: list[Tensor]) -> list[Tensor]:
    from iris_api.packing.conversion.embedded import embed_vectorizer

    if len(tensors) != 1 or tensors[0].type != "string":
        raise NotConvertedError(f"a {type(vectorizer).__name__} of anything but one column of texts")
    return [embed_vectorizer(graph, vectorizer, tensors[0])]


_STEPS: dict[type, Step] = {
    Pipeline: _pipeline,
    ColumnTransformer: _column_transformer,
    FeatureUnion: _union,
    FunctionTransformer: _function,
    StandardScaler: _scaler,
    MinMaxScaler: _scaler,
    MaxAbsScaler: _scaler,
    RobustScaler: _scaler,
    PolynomialFeatures: _polynomials,
    SimpleImputer: _imputer,
    OneHotEncoder: _encoder,
    OrdinalEncoder: _encoder,
    TargetEncoder: _encoder,
    CountVectorizer: _vectorizer,
    TfidfVectorizer: _vectorizer,
}
