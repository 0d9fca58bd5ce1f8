"""The shapes in which these dialects carry rows in JSON, turned into rows that the validator of /predict judges.

A row is an object by the features' names or an array in the model's order; a table may come as columns too. Large
batches go as a table, without an object for each row, where there is a quick way: see `predict.tables`. All of it is
done in steps, since a body may be large: see `predict.steps`.
"""

import re
from collections.abc import Sequence
from typing import Any

from pydantic_core import to_json

from iris_api.bundle.manifest import Manifest
from iris_api.engines.columns import Columns, Table
from iris_api.engines.model import Row
from iris_api.predict.codec import Answered, written
from iris_api.predict.errors import ApiError, Detail, invalid
from iris_api.predict.reply import Answer
from iris_api.predict.rows import RowParser, decode
from iris_api.predict.steps import Steps
from iris_api.predict.tables import LEAST_ROWS, without_data

_SPACE = b" \t\r\n"
_LONGEST_NAME = 64
_MOST_NAMES = 10
# Bytes in which a list's first row must begin to be seen.
_LOOKED_AT = 64
# What a missing time is to pandas, which writes it as a text.
_NO_TIME = "NaT"


class Shapes:
    """Reads the rows of one model in any of these shapes; raises ApiError for what is none, or wrong in one.

    Args:
        manifest: of the model.
        parser: judges the rows.
        loose: whether the names of a row may be others than the features', as MLflow does it: a feature that is
            nullable may be left out, and what is no feature (an id, say) is ignored. Both in one row are refused all
            the same: that is a wrong name.
    """

    def __init__(self, manifest: Manifest, parser: RowParser, *, loose: bool = False) -> None:
        self._parser = parser
        self._loose = loose
        self._names = manifest.feature_names
        self._known = set(self._names)
        self._nullable = {feature.name for feature in manifest.features if feature.nullable}
        self._times = {feature.name for feature in manifest.features if feature.kind in {"date", "datetime"}}
        self._least_table = LEAST_ROWS * 2 * len(self._names)

    def rows(self, content: Any, member: str) -> Steps[list[Row]]:
        """Return the rows of a list of objects or of arrays; of a model of one feature, of a list of values too."""
        if not isinstance(content, list):
            raise refused(member, f"must be a list of rows, but is {_a(content)}")
        self._parser.check_rows(len(content))
        if any(isinstance(row, dict) for row in content):
            return (yield from self._validated(content))
        if len(self._names) == 1:
            content = [row if isinstance(row, list) else [row] for row in content]
        return (yield from self._validated((yield from self._objects(content, self._names))))

    def columns(self, content: dict[str, Any], member: str) -> Steps[list[Row]]:
        """Return the rows of an object with a list for each feature, or with a value for each: a single row."""
        if not any(isinstance(values, list) for values in content.values()):
            return (yield from self._validated([content]))
        lengths = {name: len(values) for name, values in content.items() if isinstance(values, list)}
        first, count = next(iter(lengths.items()))
        for name in content:
            if lengths.get(name) != count:
                found = f"{lengths[name]} values" if name in lengths else "no list"
                raise refused(
                    f"{member}.{name[:_LONGEST_NAME]}", f"has {found}, but {first[:_LONGEST_NAME]} has {count}"
                )
        self._parser.check_rows(count)
        objects = []
        for row in zip(*content.values(), strict=True):
            objects.append(dict(zip(content, row, strict=True)))
            yield
        return (yield from self._validated(objects))

    def split(self, content: Any, member: str) -> Steps[list[Row]]:
        """Return the rows of an object with `columns`, the names, and `data`, an array for each row."""
        if not isinstance(content, dict) or not isinstance(content.get("data"), list):
            raise refused(member, "must be an object with columns, a list of names, and data, a list of rows")
        if unknown := content.keys() - {"columns", "data", "index"}:
            raise refused(member, f"has columns, data and index, but no {sorted(unknown)[0][:_LONGEST_NAME]}")
        self._parser.check_rows(len(content["data"]))
        names = self._columns_of(content.get("columns", self._names), f"{member}.columns")
        return (yield from self._validated((yield from self._objects(content["data"], names))))

    def only_list(self, body: bytes, start: "re.Pattern[bytes]") -> Steps[Table | None]:
        """Return the rows of a large body that is one list in an object; None if it is to be judged otherwise.

        Args:
            body: the whole of it.
            start: what such a body begins with, up to the list; of an object with one member.
        """
        tables = self._parser.tables
        if not tables or len(body) < self._least_table or not (found := start.match(body)):
            return None
        # If what is between is valid as a list, nothing else stands in the object.
        end = body.rfind(b"]") + 1
        if body[end:].strip(_SPACE) != b"}":
            return None
        if body[found.end() + 1 : found.end() + _LOOKED_AT].lstrip(_SPACE)[:1] == b"{":
            table = yield from tables.objects(body[found.end() : end])
        else:
            table = yield from self._arrays(body, slice(found.end(), end))
        if table is not None:
            self._parser.check_rows(len(table))
        return table

    def only_split(self, body: bytes, member: str) -> Steps[Table | None]:
        """Return the rows of a large body of such an object, its columns in the model's order; None for any other."""
        if not self._parser.tables or len(body) < self._least_table or not (parts := without_data(body)):
            return None
        rest, places = parts
        if len(places) != 1:
            return None
        try:
            content = decode(rest)
        except ApiError:
            return None
        if not isinstance(content, dict) or content.keys() != {member} or not isinstance(content[member], dict):
            return None
        about = content[member]
        if about.keys() - {"index"} != {"columns", "data"} or about["data"] != [] or about["columns"] != self._names:
            return None
        table = yield from self._arrays(body, places[0])
        if table is not None:
            self._parser.check_rows(len(table))
        return table

    def _arrays(self, body: bytes, place: slice) -> Steps[Table | None]:
        assert self._parser.tables
        rows = body.count(b"[", place.start, place.stop) - 1
        return (yield from self._parser.tables.numbers(body, place, rows, "FP64")) if rows >= LEAST_ROWS else None

    def _columns_of(self, given: Any, place: str) -> Sequence[str]:
        """Return the names of columns; a table that had none came with their numbers."""
        if not isinstance(given, list) or not all(type(name) in (str, int) for name in given):
            raise refused(place, "must be a list of names")
        names = [str(name) for name in given]
        if given == list(range(len(self._names))) and not self._known & {*names}:
            return self._names
        if len(set(names)) != len(names):
            raise refused(place, "has a name twice")
        return names

    def _objects(self, rows: list[Any], names: Sequence[str]) -> Steps[list[dict[str, Any]]]:
        """Return arrays as objects; a row is named by its number, as the validator names it."""
        objects = []
        for number, row in enumerate(rows):
            if not isinstance(row, list):
                raise refused(str(number), f"must be an array with a value for each feature, but is {_a(row)}")
            if len(row) != len(names):
                named = f"{', '.join(name[:_LONGEST_NAME] for name in names[:_MOST_NAMES])}"
                more = ", ..." if len(names) > _MOST_NAMES else ""
                raise refused(str(number), f"has {len(row)} values, and not {len(names)}: {named}{more}")
            objects.append(dict(zip(names, row, strict=True)))
            yield
        return objects

    def _validated(self, rows: list[Any]) -> Steps[list[Row]]:
        if self._loose:
            completed = []
            for row in rows:
                completed.append(self._completed(row) if isinstance(row, dict) else row)
                yield
            rows = completed
        return (yield from self._parser.validated(rows))

    def _completed(self, row: dict[str, Any]) -> dict[str, Any]:
        """Return an object with all features, where those that are left out may be, or without what is no feature."""
        for name in self._times & row.keys():
            if row[name] == _NO_TIME:
                row = {**row, name: None}
        missing = self._known - row.keys()
        if not missing:
            return row if len(row) == len(self._known) else {name: row[name] for name in self._names}
        # What is no feature stays, and is refused.
        return {**row, **dict.fromkeys(missing)} if missing <= self._nullable else row


class PredictionWriter:
    """Writes answers as these dialects do, `{"predictions": [...]}`: what the estimator's `predict` answers."""

    def __init__(self, manifest: Manifest) -> None:
        self._labels = [to_json(each.value) for each in manifest.classes or []]

    def write(self, predictions: Answered) -> Answer:
        """Return the answer to a request."""
        if not isinstance(predictions, Columns):
            return Answer.of(to_json({"predictions": [prediction.value for prediction in predictions]}))
        if predictions.numbers is None:
            return Answer.of(b'{"predictions":%b}' % written(predictions.values))
        labels = b",".join(map(self._labels.__getitem__, predictions.numbers.tolist()))
        return Answer.of(b'{"predictions":[%b]}' % labels)


def refused(place: str, reason: str) -> ApiError:
    """Return the error for a body whose shape is none of a dialect's."""
    return invalid("invalid_input", "The body is not what it must be.", Detail(field=place, reason=reason))


def sentence(error: ApiError) -> str:
    """Return an error with its details, each with its row and field, as one text."""
    reasons = "; ".join(f"{detail.field}: {detail.reason}" for detail in error.details or [])
    return f"{error.message} {reasons}".strip()


def _a(value: Any) -> str:
    kinds = {dict: "an object", list: "a list", str: "a text", bool: "true or false", type(None): "null"}
    return kinds.get(type(value), "a number")
