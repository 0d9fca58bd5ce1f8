"""Tables as people have them: of which kind each column is, how a request carries its values, and which table answers.

The estimator answers here by its user's own table, with the names and dtypes that it was fitted on. What serves makes a
table of its own of what a request carries; which one is found by comparing the answers, on rows of which half have a
missing value, an unknown category or a value at a limit.
"""

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import date, datetime
from typing import Any, Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from iris_api.bundle.manifest import MOST_CATEGORIES, NUMERIC, Category, Column, Kind, Table, Value
from iris_api.engines.model import REFUSALS
from iris_api.engines.reviewed import flat
from iris_api.engines.sklearn import refusing
from iris_api.engines.table import Categories, maker
from iris_api.packing.samples import FeatureText, SampleError

CATEGORIES_FILE = "categories.json"
# How far numbers may be apart, above 1 relative to their size: the same estimator computes both.
TOLERANCE = 1e-9
# Rows of the sample that are compared, and as many that were changed.
COMPARED = 500
# What stands for texts in a golden sample: people's own stay private.
INVENTED_TEXT = "an invented text"
UNKNOWN = "an unknown category"
# Up to here a float of 64 bits holds every integer.
_EXACT = 2**53
_SEED = 1

Ask = Callable[[Any], "Answers"]


class Answers(NamedTuple):
    """What an estimator answers to a table."""

    values: NDArray[Any]
    """Of `predict`."""
    shares: NDArray[Any] | None
    """Of `predict_proba`, or scores, if answers are to carry them."""

    def difference(self, other: "Answers", tolerance: float = TOLERANCE) -> str | None:
        """Return where other answers differ, or None if they are the same."""
        if self.values.dtype.kind == "f" and other.values.dtype.kind == "f":
            same = np.isclose(other.values, self.values, rtol=tolerance, atol=tolerance, equal_nan=True)
        else:
            pairs = zip(self.values.tolist(), other.values.tolist(), strict=True)
            same = np.array([left == right for left, right in pairs])
        same = same.reshape(len(same), -1).all(axis=1)
        if self.shares is not None and other.shares is not None:
            near = np.isclose(other.shares, self.shares, rtol=tolerance, atol=tolerance, equal_nan=True)
            same = same & near.reshape(len(near), -1).all(axis=1)
        wrong = np.flatnonzero(~same)
        if not len(wrong):
            return None
        first = int(wrong[0])
        return (
            f"{len(wrong)} of {len(same)} rows are answered otherwise, "
            f"row {first} by {other.values[first]} and not by {self.values[first]}"
        )


def frame_of(names: Sequence[str], kinds: Sequence[Kind], columns: Sequence[Sequence[Value]]) -> Any:
    """Return a DataFrame of a CSV's columns; raise SampleError if that needs more here."""
    try:
        import pandas as pd
    except ImportError:
        raise SampleError(
            "The sample has more than numbers, which takes pandas, and that is not installed: pip install pandas."
        ) from None
    made = {}
    for name, kind, values in zip(names, kinds, columns, strict=True):
        gaps = None in values
        if kind == "number" or (kind == "integer" and gaps):
            made[name] = pd.Series(list(values), dtype="float64")
        elif kind in {"date", "datetime"}:
            try:
                made[name] = pd.to_datetime(pd.Series(list(values)), format="ISO8601")
            except ValueError as error:
                raise SampleError(f"{name}: {error}. A {kind} stands in a CSV such as 2026-01-31.") from None
        else:
            made[name] = pd.Series(list(values))
    return pd.DataFrame(made)


def with_trained_categories(frame: Any, estimator: Any) -> Any:
    """Return a table whose columns of texts have the dtype category, if LightGBM or XGBoost was trained with such ones.

    Raise SampleError if it cannot be the table that the estimator was trained with: numbers that stand for categories
    would be answered as if they were those that the estimator's own code has.
    """
    trained = trained_categories(estimator)
    if not trained:
        return frame
    if isinstance(frame, np.ndarray):
        names: list[Any] = []
    else:
        import pandas as pd

        names = [name for name in frame.columns if str(frame[name].dtype) == "category"]
        # The dtype category is of this kind, too.
        texts = [name for name in frame.columns if frame[name].dtype.kind == "O" and name not in names]
        if len(names) < len(trained) == len(names) + len(texts):
            in_order = [name for name in frame.columns if name in names or name in texts]
            for name, known in zip(in_order, trained.values(), strict=True):
                if name in texts:
                    frame = frame.assign(**{name: pd.Categorical(frame[name], categories=known)})
            names = [*names, *texts]
    if len(names) < len(trained):
        some = ", ".join(str(value) for each in trained.values() for value in each[:3])
        raise SampleError(
            f"The model was trained with {len(trained)} columns of dtype category ({some}, ...), and the sample has "
            f"{len(names)}: codes of categories are no sample of it. Give the table it was trained with, as a "
            "DataFrame to pack() or, if the categories are texts, as Parquet, which forgets those that are integers: "
            "frame.to_parquet('sample.parquet')."
        )
    return frame


def asker(predict: Callable[[Any], Any], shares: Callable[[Any], Any] | None, lists: bool = False) -> Ask:
    """Return what asks an estimator by the method that answers, and by that of probabilities or scores if any.

    `lists`: whether an answer is a list of values also where it has one alone.
    """

    def ask(table: Any) -> Answers:
        found = None if shares is None else np.asarray(shares(table))
        answers = predict(table)
        if hasattr(answers, "toarray"):
            raise SampleError(
                "The model answers a sparse matrix, which is no list of values. Have it make a dense one, say "
                "sparse_output=False."
            )
        values = np.asarray(answers) if lists else flat(answers)
        return Answers(values, None if found is None else found.reshape(len(found), -1))

    return refusing(ask)


@dataclass(frozen=True)
class TypedColumn:
    """A feature as its column of the user's table tells."""

    name: str
    kind: Kind
    nullable: bool
    column: Column
    values: list[Value]
    """As requests carry them, row by row."""
    categories: list[Any] | None = None
    """Of a column of dtype category, in their order."""
    known: list[Category] = field(default_factory=list)
    """Categories that the estimator knows, as requests carry them; the frequent ones first."""
    open: bool = False
    counts: dict[Value, int] = field(default_factory=dict)
    """How often each category is in the sample, the most frequent first."""


@dataclass(frozen=True)
class Points:
    """Rows to compare: the user's own table of them, and the same as requests carry them."""

    frame: Any
    rows: list[list[Value]]

    def take(self, numbers: Sequence[int]) -> "Points":
        """Return some of the rows."""
        numbers = list(numbers)
        return Points(self.frame.iloc[numbers].reset_index(drop=True), [list(self.rows[number]) for number in numbers])

    def set(self, column: int, about: TypedColumn, number: int, value: Value) -> None:
        """Put a value into one row, in the user's table in the dtype of its column."""
        self.rows[number][column] = value
        name = self.frame.columns[column]
        self.frame[name] = _with(self.frame[name], about, number, value)


def read_columns(frame: Any, texts: Mapping[str, FeatureText], estimator: Any) -> tuple[Any, list[TypedColumn]]:
    """Return the user's table and what its columns are; raise SampleError for one that cannot be a feature.

    The table is changed where somebody says that a column of integers is one of numbers.
    """
    frame = frame.reset_index(drop=True)
    hints = dict(_hints(estimator))
    columns = []
    for number, name in enumerate(frame.columns):
        text = texts.get(str(name), FeatureText())
        if text.kind == "number" and frame[name].dtype.kind in "iu":
            frame = frame.assign(**{name: frame[name].astype("float64")})
        hint = hints.get(name, hints.get(number))
        columns.append(_read_column(str(name), frame[name], text, hint))
    return frame, columns


def _read_column(name: str, series: Any, text: FeatureText, hint: "_Hint | None") -> TypedColumn:
    dtype = "category" if str(series.dtype) == "category" else str(series.dtype)
    gaps = series.isna().to_numpy()
    if gaps.all():
        raise SampleError(
            f"The column {name!r} of the sample has no value at all. Leave it out of the model, or fill it."
        )
    if gaps.any() and text.nullable is False:
        raise SampleError(
            f"{name} is not nullable, as --features says, but the sample has rows without it. Leave these rows out."
        )
    nullable = bool(gaps.any()) if text.nullable is None else text.nullable
    if nullable and (dtype == "bool" or dtype.startswith(("int", "uint"))):
        raise SampleError(
            f"{name} is nullable, as --features says, but its dtype {dtype} holds no missing value. Train the model on "
            f"a column of dtype {'boolean' if dtype == 'bool' else 'float64 or Int64'}."
        )
    first = next((value for value, gap in zip(series.astype(object), gaps, strict=True) if gap), np.nan)
    missing: Literal["none", "nan", "NA"] = "none" if first is None else "nan" if isinstance(first, float) else "NA"
    categories = series.cat.categories.tolist() if dtype == "category" else None
    kind = text.kind or _kind(name, series[~gaps], dtype, hint)
    values = carried(kind, series)
    column = Column(
        dtype=dtype,
        ordered=bool(dtype == "category" and series.cat.ordered),
        missing=missing if dtype == "object" else "nan",
    )
    found = TypedColumn(name, kind, nullable, column, values, categories)
    if kind == "category":
        found = _with_categories(found, text, hint)
    if kind in {"category", "boolean"}:
        counts = _counts(values)
        found = replace(found, counts=counts)
    return found


def _with_categories(found: TypedColumn, text: FeatureText, hint: "_Hint | None") -> TypedColumn:
    """Add the categories that are known, and whether others are accepted as far as the table tells."""
    seen = list(_counts(found.values))
    of_dtype = [_plain("category", each) for each in found.categories or []]
    of_estimator = [_plain("category", each) for each in (hint.categories if hint else None) or [] if each == each]
    kinds = {type(value) for value in [*seen, *of_dtype]}
    if len(kinds) != 1 or not kinds <= {str, int, bool}:
        raise SampleError(
            f"The categories of {found.name!r} are of several types, or none of text, integer and boolean: "
            f"{', '.join(sorted(kind.__name__ for kind in kinds))}. Make texts of them: .astype(str)."
        )
    more = [each for each in [*of_dtype, *of_estimator] if type(each) in kinds]
    known: list[Any] = list(text.values) if text.values else list(dict.fromkeys([*seen, *more]))
    if strange := [value for value in seen if text.values and value not in known]:
        raise SampleError(f"{found.name} has {len(strange)} categories that --features does not list as its values.")
    return replace(found, known=known, open=bool(text.open))


def _counts(values: Sequence[Value]) -> dict[Value, int]:
    counts: dict[Value, int] = {}
    for value in values:
        if value is not None:
            counts[value] = counts.get(value, 0) + 1
    return dict(sorted(counts.items(), key=lambda each: (-each[1], str(each[0]))))


def _kind(name: str, values: Any, dtype: str, hint: "_Hint | None") -> Kind:
    """Return the kind of a column with these values, none of them missing."""
    if dtype == "category":
        return "category"
    if dtype.startswith("datetime64"):
        return "datetime"
    if dtype.lower().startswith("bool"):
        return "boolean"
    if dtype.lower().startswith(("int", "uint")):
        return "integer"
    if dtype.lower().startswith("float"):
        return "number"
    types = {type(value) for value in values.tolist()}
    if types <= {str}:
        distinct = values.nunique()
        is_text = hint.is_text if hint else distinct > MOST_CATEGORIES and distinct > len(values) / 2
        return "text" if is_text else "category"
    for kind, known in _OBJECTS.items():
        if types <= known:
            return kind
    raise SampleError(
        f"The column {name!r} of the sample has values of {', '.join(sorted(each.__name__ for each in types))}, dtype "
        f"{dtype}: a feature is made of numbers, booleans, texts, dates or times, of one type in a column. Convert it "
        "in the table and in a step of the model."
    )


# By the types that a column of objects has; a boolean is an integer to Python, and so comes first.
_OBJECTS: dict[Kind, set[type]] = {
    "boolean": {bool, np.bool_},
    "integer": {int, np.int64},
    "number": {int, float, np.int64, np.float64},
    "date": {date},
}


def carried(kind: Kind, series: Any) -> list[Value]:
    """Return the values of a column as requests carry those of a kind: None for what is missing."""
    gaps = series.isna().to_numpy()
    return [None if gap else _plain(kind, value) for value, gap in zip(series.tolist(), gaps, strict=True)]


def _plain(kind: Kind, value: Any) -> Value:
    """Return a value, which is not missing, as a request carries it."""
    if isinstance(value, np.generic):
        value = value.item()
    if kind in {"date", "datetime"}:
        whole = value.isoformat() if isinstance(value, date | datetime) else str(value)
        return whole[:10] if kind == "date" else whole
    if kind == "number" and isinstance(value, int | float):
        return float(value)
    if kind == "boolean" and isinstance(value, int | float) and value in (0, 1):
        return bool(value)
    if kind in {"integer", "category"} and isinstance(value, float) and value.is_integer():
        return int(value)
    plain: Value = value
    return plain


class _Hint(NamedTuple):
    """What a step of the estimator tells of a column of texts."""

    is_text: bool
    """Whether it is split into words, and so no category."""
    categories: list[Any] | None = None


def _hints(estimator: Any) -> Iterator[tuple[Any, _Hint]]:
    """Yield the columns that a ColumnTransformer at the estimator's start hands to encoders and to vectorizers."""
    while hasattr(estimator, "steps"):
        estimator = next((step for _, step in estimator.steps if step not in (None, "passthrough")), None)
    for _, transformer, columns in getattr(estimator, "transformers_", []):
        steps = [step for _, step in getattr(transformer, "steps", [(None, transformer)])]
        names = [columns] if isinstance(columns, str | int) else columns
        if isinstance(names, slice) or len(names) == 0:
            continue
        categories = next((list(step.categories_) for step in steps if hasattr(step, "categories_")), None)
        is_text = any(hasattr(step, "build_analyzer") for step in steps)
        for place, name in enumerate(names):
            own = categories[place] if categories and len(categories) == len(names) else None
            if is_text or own is not None:
                yield name, _Hint(is_text, None if own is None else own.tolist())


def _with(series: Any, about: TypedColumn, number: int, value: Value) -> Any:
    """Return a column of the user's table with another value in one row, in its own dtype."""
    import pandas as pd

    dtype = about.column.dtype
    if dtype == "category":
        values = series.astype(object)
        known = {_plain("category", each): each for each in about.categories or []}
        values[number] = known.get(value, np.nan)
        return pd.Series(pd.Categorical(values, categories=series.cat.categories, ordered=series.cat.ordered))
    given: Any = value
    if value is None:
        given = {"none": None, "NA": pd.NA}.get(about.column.missing, np.nan) if dtype == "object" else None
    elif dtype == "object" and about.kind == "date":
        given = date.fromisoformat(str(value))
    if isinstance(series.dtype, np.dtype) and dtype[0] in "fiu":
        array = series.to_numpy(copy=True)
        array[number] = np.nan if given is None else given
        return pd.Series(array)
    changed = series.copy()
    changed[number] = given
    return changed


def changed_points(frame: Any, columns: Sequence[TypedColumn], features: Sequence[Mapping[str, Any]]) -> Points:
    """Return rows of the user's table, and as many in which one value is missing, unknown or at a limit."""
    chance = np.random.default_rng(_SEED)
    count = min(COMPARED, len(frame))
    numbers = chance.permutation(len(frame))[:count].tolist()
    rows = [[column.values[number] for column in columns] for number in numbers]
    points = Points(frame.iloc[numbers * 2].reset_index(drop=True), [*rows, *(list(row) for row in rows)])
    changes = [
        (column, about, value)
        for column, (about, feature) in enumerate(zip(columns, features, strict=True))
        for value in _changes(about, feature)
    ]
    for number in range(count, 2 * count) if changes else ():
        # Each change once at least, and some of them together.
        for change in {number % len(changes), int(chance.integers(len(changes)))}:
            points.set(changes[change][0], changes[change][1], number, changes[change][2])
    return points


def _changes(about: TypedColumn, feature: Mapping[str, Any]) -> list[Value]:
    """Return the values of a feature at the limits of what is accepted."""
    values: list[Value] = [None] if about.nullable else []
    if about.kind in NUMERIC:
        least, greatest = feature["minimum"], feature["maximum"]
        values += [least, greatest]
        if about.kind == "integer" and least <= _EXACT + 1 <= greatest and "float" not in about.column.dtype:
            values.append(_EXACT + 1)
    if about.kind == "boolean":
        values += [False, True]
    if about.kind == "category":
        values += about.known[:MOST_CATEGORIES]
        values += [unknown(about)] if about.open else []
    if about.kind == "text":
        values += ["", INVENTED_TEXT]
    return values


def unknown(about: TypedColumn) -> Category:
    """Return a category that nobody knows."""
    if isinstance(about.known[0], str):
        return UNKNOWN
    return max(int(value) for value in about.known) + 1


def answered(points: Points, ask: Ask, own: Callable[[Any], Any]) -> tuple[Points, Answers]:
    """Return the points that the estimator answers by its user's own table, and its answers.

    Some it may refuse although each value of them is possible; what serves refuses them too. If it refuses all of them,
    what it raises for one is raised.
    """
    refusal: Exception | None = None

    def kept(numbers: list[int]) -> list[int]:
        nonlocal refusal
        try:
            ask(own(points.frame.iloc[numbers]))
        except REFUSALS as error:
            refusal = error
            half = len(numbers) // 2
            return [*kept(numbers[:half]), *kept(numbers[half:])] if half else []
        return numbers

    numbers = kept(list(range(len(points.rows))))
    if refusal and not numbers:
        raise refusal
    points = points.take(numbers)
    return points, ask(own(points.frame))


def serving_table(
    columns: Sequence[TypedColumn], points: Points, expected: Answers, ask: Ask
) -> tuple[Table | None, Categories]:
    """Return the simplest table by which the estimator answers as by its user's own, and the categories of it.

    Raise SampleError if there is none.
    """
    names, kinds = [each.name for each in columns], [each.kind for each in columns]
    categories = {each.name: each.categories for each in columns if each.categories is not None}
    objects = [
        Column(dtype="object", missing=each.column.missing if each.column.dtype == "object" else "nan")
        for each in columns
    ]
    file = {}
    if categories:
        file = {"categories": CATEGORIES_FILE, "categories_sha256": "0" * 64}
    candidates: list[Table | None] = [
        Table(form="objects", columns=objects),
        Table(form="frame", columns=[each.column for each in columns], **file),
    ]
    if {*kinds} <= {"number", "integer", "boolean"} or all(type(v) is not str for row in points.rows for v in row):
        candidates.insert(0, None)
    reason = ""
    for table in candidates:
        try:
            found = ask(maker(names, kinds, table, categories)(points.rows))
        except Exception as error:
            reason = f"{type(error).__name__}: {error}"
            continue
        difference = expected.difference(found)
        if difference is None:
            used = categories if table and table.form == "frame" else {}
            return table, used
        reason = difference
    raise SampleError(
        "The model answers rows as requests carry them otherwise than the sample's own table, whatever table is made "
        f"of them: {reason}. Convert what is special in its columns in a step of the model."
    )


def categories_text(categories: Categories) -> bytes:
    """Return the content of the file of categories."""
    return (json.dumps(categories, ensure_ascii=False) + "\n").encode()


def trained_categories(estimator: Any) -> dict[str, list[Any]]:
    """Return the categories of each column of dtype category that LightGBM or XGBoost was trained with."""
    while hasattr(estimator, "steps") and len(estimator.steps) == 1:
        estimator = estimator.steps[0][1]
    if booster := getattr(estimator, "booster_", None):
        known = getattr(booster, "pandas_categorical", None) or []
        return {f"#{number}": list(each) for number, each in enumerate(known, 1)}
    if hasattr(estimator, "get_booster"):
        try:
            found = estimator.get_booster().get_categories(export_to_arrow=True).to_arrow()
        except Exception:
            # An older version keeps none.
            return {}
        return {str(name): each.to_pylist() for name, each in found if each is not None}
    return {}
