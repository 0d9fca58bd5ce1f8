"""From a large body to a table, rows x features, without a Python object for each value or row.

This is a short way for what is right, and no second judge: a body that is not taken here, for whatever reason, is
judged by `rows`, which names what is wrong, or takes it too. What is taken has the very values that `rows` would give.
"""

import re
from collections.abc import Iterator, Sequence
from typing import Any

import msgspec
import numpy as np
import simdjson
from numpy.typing import NDArray

from iris_api.bundle.manifest import NUMERIC, Manifest
from iris_api.engines.columns import Table

LEAST_ROWS = 32
"""Rows from which a table is quicker than a list of rows; fewer share a call of the model with others."""
# Up to here a float of 64, of 32, and of 16 bits holds every integer: below, no digit of one can have been lost.
_EXACT = {"FP32": 2**24, "FP16": 2**11}
_EXACT_ELSE = 2**53
_DATA = re.compile(rb'"data"[ \t\r\n]*:[ \t\r\n]*(?=\[)')
_NO_DATA = b"[]"
_ESCAPED = re.compile(r'["\\\x00-\x1f]')
_SPACE = b" \t\r\n"
# Bytes of a piece of a body that is decoded at a time.
_PIECE = 1 << 16


def is_tabular(manifest: Manifest) -> bool:
    """Return whether a model takes tables of floats, none of them missing, and answers a class or a number a row."""
    numeric = all(feature.kind in NUMERIC and not feature.nullable for feature in manifest.features)
    # msgspec knows no field with a quote, a backslash or a control character in its name.
    named = not any(_ESCAPED.search(name) for name in manifest.feature_names)
    return numeric and named and manifest.table is None and manifest.scores is None and not manifest.outputs


class TableReader:
    """Reads the rows of a model whose features are all numbers."""

    def __init__(self, manifest: Manifest) -> None:
        self._width = len(manifest.features)
        self._least = np.array([feature.limits[0] for feature in manifest.features])
        self._greatest = np.array([feature.limits[3] for feature in manifest.features])
        self._whole = [number for number, feature in enumerate(manifest.features) if feature.kind == "integer"]
        self._quotes = 2 * self._width
        fields = [
            (f"feature_{number}", float, msgspec.field(name=name)) for number, name in enumerate(manifest.feature_names)
        ]
        # Without the collector's attention: rows hold nothing but numbers.
        row: Any = msgspec.defstruct("Row", fields, forbid_unknown_fields=True, gc=False)
        self._objects: msgspec.json.Decoder[list[Any]] = msgspec.json.Decoder(list[row])
        self._packed = _Packed(row, self._width)

    def objects(self, body: bytes) -> Table | None:
        """Return the rows of a list of objects in JSON; None if it is to be judged otherwise."""
        # The decoder does not see a repeated name, but the quotes do: each name has at least two, and none is missing.
        quotes = np.count_nonzero(np.frombuffer(body, np.uint8) == ord('"'))
        rows, rest = divmod(quotes, self._quotes)
        if rest or rows < LEAST_ROWS:
            return None
        tables = []
        try:
            # What is outside of the list is white space, or else there is no list.
            start, end = body.index(b"["), body.rindex(b"]")
            if body[:start].strip(_SPACE) or body[end + 1 :].strip(_SPACE):
                return None
            for piece in _pieces(body, start, end, b"},"):
                if not (content := self._objects.decode(piece)):
                    return None
                tables.append(self._packed.table(content))
        except (msgspec.MsgspecError, ValueError, RecursionError):
            return None
        table = np.concatenate(tables)
        return self._acceptable(table) if len(table) == rows else None

    def numbers(self, text: bytes, place: slice, rows: int, datatype: str) -> Table | None:
        """Return the rows of a JSON list of numbers, or of a list for each row; None if it is to be judged otherwise.

        Args:
            text: has the list.
            place: where it begins with [ and ends with ]; what is between may be no JSON at all.
            rows: how many there must be.
            datatype: what the values are said to be, a key of `v2.datatypes.DTYPES`.
        """
        values = self.list_of_numbers(text, place, rows, self._width, datatype)
        return None if values is None else self.values(values, datatype)

    def list_of_numbers(self, text: bytes, place: slice, rows: int, width: int, datatype: str) -> NDArray[Any] | None:
        """Return the numbers of such a list, rows x width of them, as `numbers` takes them."""
        code: Any = "d" if datatype.startswith("FP") else "i"
        letters = np.frombuffer(text, np.uint8)[place]
        opening = np.flatnonzero(letters == ord("["))
        flat = len(opening) == 1
        if not flat and not _is_table(letters, opening, rows, width):
            return None
        values = _numbers(text, place, code, b"," if flat else b"],")
        return None if values is None or len(values) != rows * width else values

    def flat(self, text: bytes, rows: int, order: list[int]) -> Table | None:
        """Return the rows of a JSON list of numbers that came in another order of the features.

        Args:
            text: the list.
            rows: how many there must be.
            order: where the features stand in a row.
        """
        values = _numbers(text, slice(0, len(text)), "d", b",") if rows >= LEAST_ROWS else None
        if values is None or len(values) != rows * self._width:
            return None
        return self._acceptable(values.reshape(-1, self._width)[:, order])

    def values(self, values: NDArray[Any], datatype: str) -> Table | None:
        """Return the rows of values that came row after row; None if they are to be judged otherwise."""
        table = values.reshape(-1, self._width)
        if datatype != "FP64":
            if not _within(table, datatype):
                return None
            table = table.astype(np.float64)
        return self._acceptable(table, _EXACT.get(datatype, _EXACT_ELSE))

    def columns(self, columns: Sequence[tuple[NDArray[Any] | None, str]]) -> Table | None:
        """Return the rows of the values of each feature, as long as each other; None if others must judge.

        Args:
            columns: in the order of the features the values, None for those that are no list of numbers, and what
                datatype they are said to be.
        """
        first = columns[0][0]
        table = np.empty((0 if first is None else len(first), self._width))
        for number, (values, datatype) in enumerate(columns):
            exact = _EXACT.get(datatype, _EXACT_ELSE)
            if values is None or not _within(values, datatype) or not (-exact < values.min() and values.max() < exact):
                return None
            table[:, number] = values
        return self._acceptable(table)

    def _acceptable(self, table: Table | None, exact: int = _EXACT_ELSE) -> Table | None:
        """Return a table whose values are all possible ones and can be no integers that were rounded."""
        if table is None or not ((table >= self._least) & (table <= self._greatest)).all():
            return None
        if not (-exact < table.min() and table.max() < exact):
            return None
        if self._whole:
            whole = table[:, self._whole]
            if (whole != np.floor(whole)).any():
                return None
            table = table.copy()
            # An integer has no -0.0.
            table[:, self._whole] = whole + 0.0
        return table


def _numbers(text: bytes, place: slice, code: Any, between: bytes) -> NDArray[Any] | None:
    """Return the numbers of a list in JSON, or of the lists within; None if it has other things, or is none."""
    parser = simdjson.Parser()
    parts = []
    try:
        for piece in _pieces(text, place.start, place.stop - 1, between):
            numbers: Any = parser.parse(piece)
            parts.append(np.frombuffer(numbers.as_buffer(of_type=code), {"d": np.float64, "i": np.int64}[code]))
            # The parser must have nothing out when it is used again.
            del numbers
            if not len(parts[-1]):
                return None
    except (ValueError, TypeError, AttributeError, RuntimeError, MemoryError):
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

    def table(self, rows: list[Any]) -> Table:
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
