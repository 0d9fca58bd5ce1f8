"""Prepares a sample: the user's own table, what its columns are, and what the estimator answers to it."""

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from iris_api.bundle.manifest import MOST_CATEGORIES, Value
from iris_api.bundle.manifest import Table as ServingTable
from iris_api.engines.model import REFUSALS
from iris_api.engines.sklearn import features_of
from iris_api.engines.table import Categories
from iris_api.packing.asking import asker_of, first_line, is_answered, plain_table_error
from iris_api.packing.features import number_feature, typed_feature
from iris_api.packing.given import About, PackError, Sample
from iris_api.packing.golden_rows import choose_points, stand_in
from iris_api.packing.samples import FeatureText, SampleError
from iris_api.packing.tables import (
    COMPARED,
    INVENTED_TEXT,
    Answers,
    Ask,
    Points,
    TypedColumn,
    answered,
    changed_points,
    read_columns,
    serving_table,
    unknown,
)

Table = NDArray[np.float64]


@dataclass(frozen=True)
class Prepared:
    """What packing knows of the table: the user's own, and how requests carry its rows."""

    own: Any
    """The table by which the estimator is asked: an array, or the user's DataFrame."""
    rows: Any
    """The same as requests carry it: an array of floats, or a list of rows."""
    features: list[dict[str, Any]]
    """For the manifest."""
    compared: Any
    """Rows, as requests carry them, to compare what is served with the estimator's own answers."""
    expected: Answers
    golden: tuple[Any, list[list[Value]]] | None = None
    """Golden samples, as the user's own table has them and as requests carry them."""
    table: ServingTable | None = None
    categories: Categories = field(default_factory=dict)


def fit_features(estimator: Any, sample: Sample) -> Sample:
    """Return the sample with exactly the estimator's features, in its order; raise PackError if one is missing."""
    known = features_of(estimator)
    if isinstance(known, list):
        # A CSV may have lost, or gained, blanks around a name.
        stripped = [name.strip() for name in sample.names]
        places = {
            name: list(names).index(each)
            for name in known
            for names, each in ((stripped, name.strip()), (sample.names, name))
            if each in names
        }
        if missing := [name for name in known if name not in places]:
            raise PackError(
                f"The sample lacks the features {', '.join(missing)} that the model was trained with; "
                f"it has {', '.join(sample.names)}."
            )
        columns = [places[name] for name in known]
        rows = sample.rows[:, columns] if isinstance(sample.rows, np.ndarray) else sample.rows.iloc[:, columns]
        return replace(sample, names=known, rows=rows)
    if known is not None and known != len(sample.names):
        raise PackError(
            f"The model takes {known} features, but the sample has {len(sample.names)}: {', '.join(sample.names)}. "
            "Give exactly the model's features, in its order; name the column of the target with --target."
        )
    return sample


def prepare(estimator: Any, about: About, sample: Sample, golden: Sequence[Sequence[float]] | None = None) -> Prepared:
    """Return what the table of a sample is; raise PackError or SampleError if the estimator does not answer it.

    The sample has exactly the features of the estimator.
    """
    texts = {name.strip(): text for name, text in about.features.items()}
    known = [about.features.get(name) or texts.get(name.strip(), FeatureText()) for name in sample.names]
    ask = asker_of(estimator, about)
    if not isinstance(sample.rows, np.ndarray):
        return _prepare_frame(estimator, dict(zip(sample.names, known, strict=True)), sample, ask)
    rows = sample.rows
    try:
        ask(rows)
    except REFUSALS as error:
        if not (gaps := np.argwhere(np.isnan(rows))).size:
            raise plain_table_error(error) from error
        row, column = gaps[0].tolist()
        raise PackError(
            f"{sample.where(row)} has no value for {sample.names[column]}, and the model refuses the sample "
            f"({first_line(error)}). Fill it or leave the row out, or put a step in front of the model that does."
        ) from error
    features = [number_feature(name, rows[:, column], known[column]) for column, name in enumerate(sample.names)]
    for column, feature in enumerate(features):
        # A gap that the sample has was answered above.
        if feature.get("nullable") and not np.isnan(rows[:, column]).any():
            missing = rows[:1].copy()
            missing[0, column] = np.nan
            if not is_answered(estimator, missing):
                raise _refused_gap(sample.names[column])
    compared = _changed_rows(rows, features)
    kept = compared if is_answered(estimator, compared) else rows[: len(compared)]
    given = None
    if golden is not None:
        inputs = np.array(golden, dtype=np.float64)
        given = (inputs, inputs.tolist())
    return Prepared(rows, rows, features, kept, ask(kept), given)


def _refused_gap(name: str) -> PackError:
    return PackError(f"{name} is nullable, as --features says, but the model refuses a missing value.")


def _changed_rows(rows: Table, features: Sequence[Mapping[str, Any]]) -> Table:
    """Return some rows, and as many in which a value is missing, where that is accepted, or at a limit."""
    count = min(COMPARED, len(rows))
    changed = np.vstack([rows[:count], rows[:count]])
    changes = [
        (column, value)
        for column, about in enumerate(features)
        for value in (about["minimum"], about["maximum"], *([np.nan] if about.get("nullable") else []))
    ]
    for number in range(count):
        column, value = changes[number % len(changes)]
        changed[count + number, column] = value
    return changed


def _prepare_frame(estimator: Any, texts: Mapping[str, FeatureText], sample: Sample, ask: Ask) -> Prepared:
    frame, columns = read_columns(sample.rows, texts, estimator)
    own = _own_table(frame, columns, ask)
    columns = [_with_open(frame, column, number, texts[column.name], ask, own) for number, column in enumerate(columns)]
    features = [typed_feature(column, texts[column.name]) for column in columns]
    points, expected = answered(changed_points(frame, columns, features), ask, own)
    table, categories = serving_table(columns, points, expected, ask)
    rows: Any = [list(row) for row in zip(*(column.values for column in columns), strict=True)]
    if table is None:
        rows = np.array(rows, dtype=np.float64)
    chosen = points.take(choose_points(estimator, expected, min(COMPARED, len(points.rows) // 2)))
    for number, column in enumerate(columns):
        for row, value in enumerate(chosen.rows):
            instead = stand_in(column, value[number], row, texts[column.name])
            if instead is not value[number]:
                chosen.set(number, column, row, instead)
    try:
        chosen, _ = answered(chosen, ask, own)
    except REFUSALS as error:
        invented = [column.name for column in columns if column.kind == "text" and not texts[column.name].examples]
        if not invented:
            raise
        raise PackError(
            f"In golden samples {INVENTED_TEXT!r} stands for the texts of {', '.join(invented)}, and the model refuses "
            f"that ({first_line(error)}). With --features, say that it is a date, a datetime or a category, or give "
            f"texts that may be told: {json.dumps({name: {'examples': ['...']} for name in invented})}"
        ) from error
    golden = (own(chosen.frame), chosen.rows)
    return Prepared(own(frame), rows, features, points.rows, expected, golden, table, categories)


def _as_frame(frame: Any) -> Any:
    return frame


def _as_objects(frame: Any) -> NDArray[Any]:
    objects: NDArray[Any] = frame.to_numpy(dtype=object)
    return objects


def _own_table(frame: Any, columns: Sequence[TypedColumn], ask: Ask) -> Callable[[Any], Any]:
    """Return what makes of a DataFrame the table that the estimator answers: itself, or an array of objects."""
    errors = []
    own: Callable[[Any], Any]
    for own in (_as_frame, _as_objects):
        try:
            ask(own(frame))
        except SampleError:
            raise
        except Exception as error:
            errors.append(error)
            continue
        return own
    missing = [column.name for column in columns if None in column.values]
    hint = f" Missing values are in {', '.join(missing)}: fill them, or leave these rows out." if missing else ""
    raise PackError(
        f"The model cannot answer the sample's own table ({type(errors[0]).__name__}: {first_line(errors[0])}). Give "
        f"the table that it was trained with, with the same names and dtypes.{hint}"
    ) from errors[0]


def _with_open(
    frame: Any, column: TypedColumn, number: int, text: FeatureText, ask: Ask, own: Callable[[Any], Any]
) -> TypedColumn:
    """Return a column with what the estimator says to a category that it does not know, or to a missing value."""

    def takes(value: Value) -> bool:
        one = Points(frame.iloc[[0]].reset_index(drop=True), [[None] * len(frame.columns)])
        one.set(number, column, 0, value)
        try:
            ask(own(one.frame))
        except REFUSALS:
            return False
        return True

    if column.nullable and None not in column.values and not takes(None):
        raise _refused_gap(column.name)
    if column.kind == "category" and text.open is False and not text.values and len(column.known) > MOST_CATEGORIES:
        raise PackError(
            f"{column.name} has {len(column.known)} categories, and --features closes its list without giving it. A "
            "closed list stands whole in the manifest, where people read it: if it may, give it as values; else leave "
            "the list open."
        )
    if column.kind != "category" or text.open is not None:
        return column
    if text.values is None and len(column.known) > MOST_CATEGORIES:
        # A list of all of them would tell of people, and is long: the estimator refuses what it does not know.
        return replace(column, open=True)
    # A column of this dtype makes missing what it does not know: a typing error would be answered.
    return replace(column, open=column.column.dtype != "category" and takes(unknown(column)))
