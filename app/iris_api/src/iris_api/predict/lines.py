"""Rows that came as lines: CSV, with the names of the features as its first line, and JSON, an object a line."""

import csv
import io
import re
from collections.abc import Collection, Sequence
from typing import Any

import numpy as np

from iris_api.bundle.manifest import NUMERIC, Feature, Manifest
from iris_api.engines.columns import Coded, Table
from iris_api.engines.model import Row
from iris_api.predict.errors import ApiError, Detail, invalid
from iris_api.predict.rows import RowParser, decode
from iris_api.predict.steps import Steps
from iris_api.predict.tables import LEAST_ROWS

_INTEGER = re.compile(r"[+-]?[0-9]+")
_DECIMAL = re.compile(r"[+-]?([0-9]+([.][0-9]*)?|[.][0-9]+)([eE][+-]?[0-9]+)?")
_BOOLEANS = {"true": True, "false": False}
_NO_NAME = "a column without a name (an index? to_csv(..., index=False))"
_BOM = b"\xef\xbb\xbf"


class LineParser:
    """Turns lines into rows of one model's features; what they mean is judged by the parser of JSON."""

    def __init__(self, manifest: Manifest, parser: RowParser) -> None:
        self._features = {feature.name: feature for feature in manifest.features}
        self._parser = parser

    def ndjson(self, body: bytes) -> Steps[list[Row] | Table]:
        """Return the rows of a body with an object on each line; raise ApiError, which says what is wrong and where."""
        lines = body.strip(b" \t\r\n")
        tables = self._parser.tables
        # Between two objects there is one end of a line, and none is elsewhere: what stays of it is no JSON in a text.
        if tables and (ends := lines.count(b"\n")) == lines.count(b"}\n{"):
            table = yield from tables.objects(b"[%b]" % lines.replace(b"}\n{", b"},\n{"))
            # Two objects in a line are none.
            if table is not None and len(table) == ends + 1:
                self._parser.check_rows(len(table))
                return table
        content = []
        for number, line in enumerate(lines.split(b"\n"), 1):
            try:
                content.append(decode(line))
            except ApiError as error:
                raise invalid(error.code, f"Line {number}: {error.message}", *(error.details or [])) from None
            yield
        return (yield from self._parser.validated(content))

    def csv(self, body: bytes) -> Steps[list[Row] | Table]:
        """Return the rows of a body in CSV (RFC 4180); raise ApiError, which says what is wrong and where.

        The first line names the columns, in any order. An empty cell is a missing value. Blanks before a cell are no
        part of it, as packing reads a sample.
        """
        body = body.removeprefix(_BOM)
        try:
            text = body.decode()
        except UnicodeDecodeError:
            raise _no_csv("is not UTF-8") from None
        reader = csv.reader(io.StringIO(text, newline=""), strict=True, skipinitialspace=True)
        try:
            names = named(next(reader, []), self._features)
            self._require_names(names)
            table = yield from self._plain_numbers(body, names)
            if table is not None:
                self._parser.check_rows(len(table))
                return table
            columns = [self._features[name] for name in names]
            rows = []
            for cells in reader:
                # Of a blank line there is nothing to say.
                if cells:
                    rows.append(cells)
                yield
        except csv.Error as error:
            raise _no_csv(f"{error} at line {reader.line_num}") from None
        self._parser.check_rows(len(rows))
        if (table := (yield from self._cells(rows, names))) is not None:
            return table
        content = []
        for number, cells in enumerate(rows):
            if len(cells) != len(names):
                raise _no_csv(f"row {number} has {len(cells)} cells, but the first line names {len(names)} columns")
            content.append({each.name: value_of(each, cell) for each, cell in zip(columns, cells, strict=True)})
            yield
        return (yield from self._parser.validated(content))

    def _cells(self, rows: list[list[str]], names: list[str]) -> Steps[Table | None]:
        """Return rows of cells as a table if all is well with them."""
        tables = self._parser.tables
        if not tables or len(rows) < LEAST_ROWS or any(len(cells) != len(names) for cells in rows):
            return None
        by_name = dict(zip(names, zip(*rows, strict=True), strict=True))
        columns: list[Any] = []
        for feature in self._features.values():
            texts = by_name[feature.name]
            if feature.kind in NUMERIC and (numbers := (yield from tables.cells(texts))) is not None:
                columns.append(numbers)
                continue
            cells = Coded.of(texts)
            values = [value_of(feature, cell) for cell in cells.values]
            if feature.kind in NUMERIC and any(type(value) is str for value in values):
                return None
            columns.append(list(map(values.__getitem__, cells.numbers.tolist())))
            yield
        return (yield from tables.columns(columns))

    def _require_names(self, names: list[str]) -> None:
        missing = [name for name in self._features if name not in names]
        unknown = [name for name in names if name not in self._features]
        if missing or unknown or len(set(names)) != len(names):
            wrong = [f"lacks {', '.join(missing)}"] if missing else []
            wrong += (
                [f"has {', '.join(name[:64] or _NO_NAME for name in unknown[:10])}, which the model does not know"]
                if unknown
                else []
            )
            raise _no_csv(f"its first line, with the names of the columns, {' and '.join(wrong) or 'repeats a name'}")

    def _plain_numbers(self, body: bytes, names: list[str]) -> Steps[Table | None]:
        """Return a body as a table if each line has as many numbers, as JSON writes them, as there are columns."""
        tables = self._parser.tables
        first, _, lines = body.partition(b"\n")
        # A quote in the first line may go around an end of a line, and a carriage return alone is one, too.
        if not tables or b'"' in first or b"\r" in first.removesuffix(b"\r"):
            return None
        if b"\r" in lines:
            lines = lines.replace(b"\r\n", b"\n")
        lines = lines.rstrip(b"\n")
        if b"\r" in lines or b"[" in lines:
            return None
        letters = np.frombuffer(lines, np.uint8)
        ends, commas = np.flatnonzero(letters == ord("\n")), np.flatnonzero(letters == ord(","))
        rows, between = len(ends) + 1, len(names) - 1
        if len(commas) != rows * between or not (np.searchsorted(commas, ends) == np.arange(1, rows) * between).all():
            return None
        order = [names.index(name) for name in self._features]
        return (yield from tables.flat(b"[%b]" % lines.replace(b"\n", b","), rows, order))


def named(cells: Sequence[str], features: Collection[str]) -> list[str]:
    """Return the names of a CSV's columns as those of features; blanks around one do not make it another."""
    own = {name.strip(): name for name in features}
    return [cell if cell in features else own.get(cell.strip(), cell) for cell in cells]


def value_of(feature: Feature, cell: str) -> Any:
    """Return what a cell of a CSV says of a feature, as JSON has it; what it can't be stays a text.

    The parser of JSON refuses that, with the name of the feature.
    """
    if not cell:
        return None
    kind: Any = feature.kind
    if kind == "category" and feature.values:
        kind = {bool: "boolean", int: "integer"}.get(type(feature.values[0]), "text")
    if kind == "boolean":
        return _BOOLEANS.get(cell.strip().lower(), cell)
    if kind in ("number", "integer"):
        text = cell.strip()
        try:
            if _INTEGER.fullmatch(text):
                return int(text)
            if _DECIMAL.fullmatch(text):
                return float(text)
        except ValueError:
            # Python reads no integer of so many digits.
            pass
    return cell


def _no_csv(reason: str) -> ApiError:
    return invalid("invalid_input", "The body is no CSV for this model.", Detail(field="body", reason=reason))
