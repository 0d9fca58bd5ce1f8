"""From a large body to a table, without a Python object for each row.

This is a short way for what is right, and no second judge: a body that is not taken here, for whatever reason, is
judged by `rows`, which names what is wrong, or takes it too. What is taken has the very values that `rows` would give.
"""

import re
from collections.abc import Iterator, Sequence
from operator import attrgetter
from typing import Any

import msgspec
import numpy as np
import simdjson
from numpy.typing import NDArray

from iris_api.bundle.manifest import NUMERIC, Feature, Manifest, Value
from iris_api.engines.columns import Coded, Floats, Mixed, Table
from iris_api.predict.dates import is_date, is_datetime
from iris_api.predict.steps import Steps

LEAST_ROWS = 32
"""Rows from which a table is quicker than a list of rows; fewer share a call of the model with others."""
# Up to here a float of 64, of 32, or of 16 bits holds every integer: below, no digit of one can have been lost.
_EXACTS = {"FP16": 2**11, "FP32": 2**24, "FP64": 2**53}
_DATA = re.compile(rb'"data"[ \t\r\n]*:[ \t\r\n]*(?=\[)')
_NO_DATA = b"[]"
_ESCAPED = re.compile(r'["\\\x00-\x1f]')
_SPACE = b" \t\r\n"
_WITH_GAPS: msgspec.json.Decoder[list[Any]] = msgspec.json.Decoder(list[float | list[float | None] | None])
# Bytes of a piece of a body that is decoded at a time.
_PIECE = 1 << 16


def is_tabular(manifest: Manifest) -> bool:
    """Return whether a model answers a class or a number a row, and takes tables."""
    # msgspec knows no field with a quote, a backslash or a control character in its name.
    named = not any(_ESCAPED.search(name) for name in manifest.feature_names)
    return named and manifest.scores is None and not manifest.outputs


def takes_floats(manifest: Manifest) -> bool:
    """Return whether the tables of a model are arrays of floats."""
    return manifest.table is None and all(feature.kind in NUMERIC for feature in manifest.features)


def table_of(manifest: Manifest, rows: Sequence[Sequence[Value]]) -> Table:
    """Return some rows as a table."""
    if takes_floats(manifest):
        return np.array(rows, dtype=np.float64)
    return Mixed.of([feature.kind for feature in manifest.features], rows)


class TableReader:
    """Reads the rows of a model as tables: arrays of floats if all of its features are numbers, else by column."""

    def __init__(self, manifest: Manifest) -> None:
        self.takes_floats = takes_floats(manifest)
        """Whether tables are arrays of floats."""
        self._features = manifest.features
        self._kinds = [feature.kind for feature in manifest.features]
        self._width = len(manifest.features)
        numbers = [feature for feature in manifest.features if feature.kind in NUMERIC]
        least, greatest = (np.array([feature.limits[end] for feature in numbers], np.float64) for end in (0, 3))
        # Beyond what is exact an integer may have been rounded.
        self._limits = {
            exact: (np.maximum(least, 1 - exact), np.minimum(greatest, exact - 1)) for exact in _EXACTS.values()
        }
        self._may_miss = np.array([feature.nullable for feature in numbers])
        self._whole = [number for number, feature in enumerate(numbers) if feature.kind == "integer"]
        self._nullable = any(feature.nullable for feature in manifest.features)
        self._quotes = 2 * self._width
        fields = [
            (f"feature_{number}", _type_of(feature), msgspec.field(name=feature.name))
            for number, feature in enumerate(manifest.features)
        ]
        # Without the collector's attention: rows hold nothing that could hold them.
        row: Any = msgspec.defstruct("Row", fields, forbid_unknown_fields=True, gc=False)
        self._objects: msgspec.json.Decoder[list[Any]] = msgspec.json.Decoder(list[row])
        self._get = [attrgetter(name) for name in row.__struct_fields__]
        self._packed = _Packed(row, self._width) if self.takes_floats else None

    def objects(self, body: bytes) -> Steps[Table | None]:
        """Return the rows of a list of objects in JSON; None if it is to be judged otherwise."""
        # The decoder does not see a repeated name, but the quotes do: each name has at least two, and none is missing,
        # and so has each text.
        quotes = np.count_nonzero(np.frombuffer(body, np.uint8) == ord('"'))
        if quotes < LEAST_ROWS * self._quotes or (self.takes_floats and quotes % self._quotes):
            return None
        tables: list[Floats] = []
        columns: list[list[Value]] = [[] for _ in self._get]
        try:
            # What is outside of the list is white space, or else there is no list.
            start, end = body.index(b"["), body.rindex(b"]")
            if body[:start].strip(_SPACE) or body[end + 1 :].strip(_SPACE):
                return None
            for piece in _pieces(body, start, end, b"},"):
                if not (content := self._objects.decode(piece)):
                    return None
                if not self._packed:
                    for column, get in zip(columns, self._get, strict=True):
                        column.extend(map(get, content))
                elif self._nullable and b"null" in piece:
                    # numpy makes NaN of None.
                    tables.append(np.array([list(map(get, content)) for get in self._get], np.float64).T)
                else:
                    tables.append(self._packed.table(content))
                yield
        except (msgspec.MsgspecError, ValueError, RecursionError):
            return None
        if self._packed:
            table = np.concatenate(tables)
            return self._acceptable(table) if len(table) * self._quotes == quotes else None
        texts = sum(type(value) is str for column in columns for value in column)
        if len(columns[0]) * self._quotes + 2 * texts != quotes:
            return None
        return (yield from self.columns(columns))

    def cells(self, cells: Sequence[str]) -> Steps[Floats | None]:
        """Return the numbers of cells, NaN for an empty one; None if one is not written as JSON writes numbers."""
        text = ",".join([cell or "0" for cell in cells])
        values = (
            None if "[" in text else (yield from _numbers(f"[{text}]".encode(), slice(0, len(text) + 2), "d", b","))
        )
        if values is None or len(values) != len(cells):
            return None
        return np.where(np.fromiter(map(bool, cells), bool, len(cells)), values, np.nan)

    def columns(self, columns: Sequence[Sequence[Value] | Floats]) -> Steps[Table | None]:
        """Return rows of which the values of each feature are known; None if they are to be judged otherwise.

        A value must be of the type that its feature has, or None.
        """
        if len(columns[0]) < LEAST_ROWS:
            return None
        numbers, codes = [], []
        for feature, values in zip(self._features, columns, strict=True):
            if feature.kind in NUMERIC:
                try:
                    # numpy makes NaN of None.
                    numbers.append(np.array(values, np.float64))
                except OverflowError:
                    return None
            else:
                codes.append(Coded.of(values))  # type: ignore[arg-type]  # what is no number comes in no array
                if not _accepts(feature, codes[-1]):
                    return None
            yield
        if numbers:
            table = self._acceptable(np.stack(numbers, axis=1))
            if table is None or self.takes_floats:
                return table
            numbers = list(np.ascontiguousarray(table.T))
        numbers.reverse()
        codes.reverse()
        return Mixed(self._kinds, [(numbers if kind in NUMERIC else codes).pop() for kind in self._kinds])

    def numbers(self, text: bytes, place: slice, rows: int, datatype: str) -> Steps[Floats | None]:
        """Return the rows of a JSON list of numbers, or of a list for each row; None if it is to be judged otherwise.

        Args:
            text: has the list.
            place: where it begins with [ and ends with ]; what is between may be no JSON at all.
            rows: how many there must be.
            datatype: what the values are said to be, a key of `v2.datatypes.DTYPES`.
        """
        if not self.takes_floats:
            return None
        values = yield from self._list(text, place, rows, self._width, datatype)
        return None if values is None else self.values(values, datatype)

    def column(self, text: bytes, place: slice, rows: int, datatype: str) -> Steps[Floats | None]:
        """Return the values of one feature of a JSON list of numbers, or of a list for each row, as `numbers` does."""
        values = yield from self._list(text, place, rows, 1, datatype)
        if values is None or not _within(values, datatype):
            return None
        if datatype in _EXACTS and (np.abs(values) >= _EXACTS[datatype]).any():
            return None
        return values.astype(np.float64, copy=False)

    def _list(self, text: bytes, place: slice, rows: int, width: int, datatype: str) -> Steps[NDArray[Any] | None]:
        """Return the numbers of a JSON list, rows x width of them."""
        code: Any = "d" if datatype.startswith("FP") else "i"
        letters = np.frombuffer(text, np.uint8)[place]
        opening = np.flatnonzero(letters == ord("["))
        flat = len(opening) == 1
        if not flat and not _is_table(letters, opening, rows, width):
            return None
        values = yield from _numbers(text, place, code, b"," if flat else b"],", nullable=self._nullable)
        return None if values is None or len(values) != rows * width else values

    def flat(self, text: bytes, rows: int, order: list[int]) -> Steps[Floats | None]:
        """Return the rows of a JSON list of numbers that came in another order of the features.

        Args:
            text: the list.
            rows: how many there must be.
            order: where the features stand in a row.
        """
        if rows < LEAST_ROWS or not self.takes_floats:
            return None
        values = yield from _numbers(text, slice(0, len(text)), "d", b",")
        if values is None or len(values) != rows * self._width:
            return None
        return self._acceptable(values.reshape(-1, self._width)[:, order])

    def values(self, values: NDArray[Any], datatype: str) -> Floats | None:
        """Return the rows of values that came row after row; None if they are to be judged otherwise."""
        if not self.takes_floats:
            return None
        table = values.reshape(-1, self._width)
        if datatype != "FP64":
            if not _within(table, datatype):
                return None
            table = table.astype(np.float64)
        return self._acceptable(table, datatype)

    def _acceptable(self, table: Floats, datatype: str = "FP64") -> Floats | None:
        """Return numbers, rows x features, that are all possible and can be no integers that were rounded."""
        least, greatest = self._limits[_EXACTS.get(datatype, _EXACTS["FP64"])]
        possible = (table >= least) & (table <= greatest)
        if not possible.all() and not (self._nullable and (possible | (np.isnan(table) & self._may_miss)).all()):
            return None
        if self._whole:
            whole = table[:, self._whole]
            if np.logical_and(whole != np.floor(whole), ~np.isnan(whole)).any():
                return None
            table = table.copy()
            # An integer has no -0.0.
            table[:, self._whole] = whole + 0.0
        return table


def _type_of(feature: Feature) -> Any:
    """Return the type of a feature's values, as msgspec knows types."""
    if feature.kind == "category":
        kind: Any = type((feature.values or [""])[0])
    else:
        kind = {"number": float, "integer": float, "boolean": bool}.get(feature.kind, str)
    return kind | None if feature.nullable else kind


def _accepts(feature: Feature, column: Coded) -> bool:
    """Return whether all values of a column are possible ones of a feature that is no number."""
    if not feature.nullable and (column.numbers < 0).any():
        return False
    is_right = {"date": is_date, "datetime": is_datetime}.get(feature.kind, feature.accepts)
    return all(map(is_right, column.values))


def _numbers(
    text: bytes, place: slice, code: Any, between: bytes, *, nullable: bool = False
) -> Steps[NDArray[Any] | None]:
    """Return the numbers of a list in JSON, or of the lists within; None if it has other things, or is none.

    NaN stands for what is null among floats, if that may be.
    """
    parser = simdjson.Parser()
    parts: list[NDArray[Any]] = []
    try:
        for piece in _pieces(text, place.start, place.stop - 1, between):
            if nullable and code == "d" and b"null" in piece:
                found = _WITH_GAPS.decode(piece)
                # numpy makes NaN of None, and refuses rows of different lengths.
                parts.append(np.array(found, np.float64).ravel())
            else:
                numbers: Any = parser.parse(piece)
                parts.append(np.frombuffer(numbers.as_buffer(of_type=code), {"d": np.float64, "i": np.int64}[code]))
                # The parser must have nothing out when it is used again.
                del numbers
            if not len(parts[-1]):
                return None
            yield
    except (msgspec.MsgspecError, ValueError, TypeError, AttributeError, RuntimeError, MemoryError):
        return None
    return np.concatenate(parts)


def _pieces(text: bytes, start: int, end: int, between: bytes) -> Iterator[bytes]:
    """Yield a list in JSON, from [ to ], as several lists: if each is valid and none is empty, so is the whole.

    What is decoded from a piece lies in memory that the one before has used, and in the processor's cache.
    """
    while (found := text.find(between, start + _PIECE, end)) >= 0:
        comma = found + len(between) - 1
        yield b"[%b]" % text[start + 1 : comma]
        start = comma
    yield b"[%b]" % text[start + 1 : end]


class _Packed:
    """Takes the numbers out of decoded rows, in the way that costs least: by their bytes in MessagePack.

    There, rows of the same names are all of one length: a head, and for each field its name, a mark and eight bytes.
    """

    _MARK = 0xCB

    def __init__(self, row: Any, width: int) -> None:
        self._encode = msgspec.msgpack.Encoder().encode
        self._width = width
        template = self._encode(row(*[1.5] * width))
        number = self._encode(1.5)
        places, start = [], 0
        for name in row.__struct_encode_fields__:
            start = template.index(self._encode(name) + number, start) + len(self._encode(name)) + 1
            places.append(start)
        self._dtype = np.dtype(
            {
                "names": [str(number) for number in range(width)],
                "formats": [">f8"] * width,
                "offsets": places,
                "itemsize": len(template),
            }
        )

    def table(self, rows: list[Any]) -> Floats:
        """Return the numbers of rows."""
        content = self._encode(rows)
        packed = np.frombuffer(content, self._dtype, len(rows), len(content) - len(rows) * self._dtype.itemsize)
        table = np.empty((len(rows), self._width))
        for number, name in enumerate(self._dtype.names or ()):
            table[:, number] = packed[name]
        return table


def without_data(head: bytes) -> tuple[bytes, list[slice]] | None:
    """Return a request in JSON with an empty list as the data of each tensor, and the places of what stood there.

    None if it is not plain where they are. All together are valid JSON if each of them is: a place is that of a
    value, for without a backslash no quote is within a text.
    """
    rest, places, end = [], [], 0
    while found := _DATA.search(head, end):
        start = found.end()
        quote = head.find(b'"', start)
        # Not beyond the quote: what has many lists and no } would be searched many times.
        brace = head.find(b"}", start, len(head) if quote < 0 else quote)
        if not (stop := head.rfind(b"]", start, quote if brace < 0 else brace) + 1):
            return None
        rest.append(head[end:start])
        places.append(slice(start, stop))
        end = stop
    whole = _NO_DATA.join([*rest, head[end:]])
    return (whole, places) if places and b"\\" not in whole else None


def _within(table: NDArray[Any], datatype: str) -> bool:
    """Return whether values are what their datatype holds."""
    if datatype.startswith("FP"):
        # Any other one is beyond what is exact anyway.
        return True
    limits = np.iinfo(datatype.replace("UINT", "uint").replace("INT", "int"))
    return bool(table.min() >= limits.min and table.max() <= limits.max)


def _is_table(letters: NDArray[np.uint8], opening: NDArray[np.intp], rows: int, width: int) -> bool:
    """Return whether a list of rows x width numbers, if it is valid JSON, has a list for each row."""
    commas = np.flatnonzero(letters == ord(","))
    closing = np.flatnonzero(letters == ord("]"))
    if not len(opening) == len(closing) == rows + 1 or len(commas) != rows * width - 1:
        return False
    # Of each row, how many commas come before it and how many before its end.
    firsts = np.arange(rows) * width
    return bool(
        (np.searchsorted(commas, opening[1:]) == firsts).all()
        and (np.searchsorted(commas, closing[:-1]) == firsts + width - 1).all()
    )
