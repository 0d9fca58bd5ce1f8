"""Large bodies are read as arrays: what is taken so, and with which values, is what the careful way takes."""

from __future__ import annotations

import json
import struct
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from iris_api.bundle.files import read_manifest
from iris_api.bundle.manifest import Manifest
from iris_api.predict.errors import ApiError
from iris_api.predict.limits import Limits
from iris_api.predict.reply import Headers
from iris_api.predict.rows import RowParser
from iris_api.predict.tables import LEAST_ROWS
from iris_api.v2.codec import TensorCodec
from iris_api.v2.datatypes import DTYPES

from ..paths import BUNDLE
from ..strategies import EXAMPLES

ROWS = LEAST_ROWS
compared = settings(max_examples=max(50, EXAMPLES // 8), deadline=None)
# Within these, nearly every float is a possible value.
WIDE = {"minimum": -1e300, "maximum": 1e300}
LITERALS = [
    *("0", "-0", "-0.0", "1", "1.0", "1E2", "1e-400", "4.9e-324", "2.2250738585072011e-308", "1e23", "8.5e22"),
    *("9007199254740991", "9007199254740992", "9007199254740993", "-9007199254740993", "9007199254740993.0", "1e16"),
    *("16777216", "16777217", "16777217.0", "255", "256", "-129", "9223372036854775808", "18446744073709551616"),
    *("NaN", "Infinity", "-Infinity", "nan", "1e999", "-1e999", "1e300", "1.1e300", "9" * 5000, "0." + "1" * 5000),
    *("true", "null", '"1"', '""', "[1]", "[]", "{}", '{"a": 1}', '"\\ud800"', '"\\u0031"', '"\udcff"'),
    *("01", "1.", ".5", "+1", "-", "1_0", "0x1", "1e", "1 2", "1,2", "1, ", "", " 1 ", "\t1\r\n", "\x0b1", "'1'"),
    *("[" * 2000, "[" * 2000 + "]" * 2000, "1]", "1}", "[1", '1, "petal_width": 2', '1, "x": 2', "\ufeff1", "1\x00"),
]
numbers = st.floats(allow_nan=False, allow_infinity=False) | st.integers(-(2**70), 2**70)
values = st.sampled_from(LITERALS) | numbers.map(repr) | st.decimals(-1e9, 1e9, allow_nan=False).map(str)
names = st.sampled_from(
    ["petal_length", "petal_width", "petal\\u005flength", "petal_length\\u0000", "Petal_length", "", 'petal"', "\udcff"]
)
separators = st.sampled_from([(",", ":"), (", ", ": "), (" ,\n", "\t:\r "), (";", ":"), (",,", ":"), (",", "=")])


@pytest.fixture(scope="module", params=["number", "integer"])
def manifest(request: pytest.FixtureRequest) -> Manifest:
    """Of a model that takes nearly any number, or an integer as the second one."""
    about = read_manifest(BUNDLE)
    length, width = (each.model_copy(update=WIDE) for each in about.features)
    if request.param == "integer":
        width = width.model_copy(update={"kind": "integer", "minimum": -(2**60), "maximum": 2**60})
    return about.model_copy(update={"features": [length, width]})


@pytest.fixture(scope="module")
def parsers(manifest: Manifest) -> tuple[RowParser, RowParser]:
    """One that reads large bodies as tables, and one that never does."""
    limits = Limits(body_bytes=1 << 20, rows=2 * ROWS, values=8 * ROWS)
    careful = RowParser(manifest, limits)
    careful.tables = None
    return RowParser(manifest, limits), careful


@pytest.fixture(scope="module")
def codecs(manifest: Manifest, parsers: tuple[RowParser, RowParser]) -> tuple[TensorCodec, TensorCodec]:
    quick, careful = (TensorCodec(manifest, parser) for parser in parsers)
    return quick, careful


def outcome(read: Callable[..., Any], *arguments: object) -> object:
    """What a body gives: the bytes of its values, or the words in which it is refused."""
    try:
        rows = read(*arguments)[0]
    except ApiError as error:
        return error.status, error.code, error.message, error.details
    return np.array(rows, dtype=np.float64).tobytes()


def each_of(literals: list[str]) -> Callable[[Any], Any]:
    """Try these besides random ones."""

    def add(test: Any) -> Any:
        for literal in literals:
            for first, second in ((literal, "2"), ("2", literal)):
                test = example(first, second, "petal_length", (",", ":"), 3, ",")(test)
        return test

    return add


def objects(row: str, position: int, count: int = ROWS, separator: str = ", ") -> bytes:
    """A list of rows, one of them odd."""
    rows = [f'{{"petal_length": {number}.5, "petal_width": 3}}' for number in range(count)]
    rows[position] = row
    return f"[{separator.join(rows)}]".encode("utf-8", "surrogateescape")


@given(values, values, names, separators, st.integers(0, ROWS - 1), st.sampled_from([", ", ",", " ,\n", ",,", ";", ""]))
@each_of(["1", "-0", "-0.0", '1, "petal_width": 2', "1e999", "NaN", "true", "null", '"1"', "9007199254740993"])
@compared
def test_a_list_of_objects_is_read_as_the_careful_way_reads_it(
    parsers: tuple[RowParser, RowParser],
    first: str,
    second: str,
    name: str,
    separators: tuple[str, str],
    position: int,
    between: str,
) -> None:
    comma, colon = separators
    body = objects(f'{{"{name}"{colon}{first}{comma}"petal_width"{colon}{second}}}', position, separator=between)
    quick, careful = (outcome(parser.parse, body) for parser in parsers)
    assert quick == careful


@given(st.data())
@compared
def test_a_damaged_list_of_objects_is_read_as_the_careful_way_reads_it(
    parsers: tuple[RowParser, RowParser], data: st.DataObject
) -> None:
    body = damaged(data, objects('{"petal_width": 1, "petal_length": 2e0}', 3))
    quick, careful = (outcome(parser.parse, body) for parser in parsers)
    assert quick == careful


BYTES = [b"", b"[", b"]", b"{", b"}", b",", b'"', b":", b"-", b"\\", b" ", b"\xff", b"],["]


def damaged(data: st.DataObject, body: bytes) -> bytes:
    """A body with a few bytes of it taken out, put in twice or exchanged for others."""
    for _ in range(data.draw(st.integers(1, 2))):
        start = data.draw(st.integers(0, len(body)))
        end = min(start + data.draw(st.integers(0, 4)), len(body))
        new = data.draw(st.sampled_from(BYTES))
        body = body[:start] + new + body[end:]
    return body


def tensor(data: str, datatype: str, rows: int, *, before: str = "", after: str = "") -> bytes:
    tensor = f'"name": "input", "shape": [{rows}, 2], "datatype": "{datatype}", "data": {data}'
    text = f'{{{before}"inputs": [{{{tensor}}}]{after}}}'
    return text.encode("utf-8", "surrogateescape")


JSON: Headers = [(b"content-type", b"application/json")]
AROUND = [
    *('"id": "a", ', '"id": "\\"data\\": [1]", ', '"id": "\\ud800", ', '"data": [1], ', '"id": 1, "id": 1, '),
    *('"parameters": {"binary_data_output": true, "binary_data_output": true}, ', '"x": {"data": []}, ', "", "", ""),
]


@given(
    *(values, st.sampled_from(sorted(DTYPES)), st.integers(0, 2 * ROWS - 1), st.booleans()),
    *(st.sampled_from(AROUND), st.sampled_from([ROWS, ROWS, ROWS, ROWS - 1, 2 * ROWS])),
)
@example("1.0", "INT64", 0, False, "", ROWS)
@example("9007199254740993", "INT64", 0, False, "", ROWS)
@example("1e39", "FP32", 0, True, "", ROWS)
@compared
def test_a_tensor_in_json_is_read_as_the_careful_way_reads_it(
    codecs: tuple[TensorCodec, TensorCodec],
    value: str,
    datatype: str,
    position: int,
    nested: bool,
    around: str,
    rows: int,
) -> None:
    texts = ["2.0" if datatype.startswith("FP") else "1"] * (2 * ROWS)
    texts[position] = value
    if nested:
        texts = [f"[{first}, {second}]" for first, second in zip(texts[::2], texts[1::2], strict=True)]
    body = tensor(f"[{', '.join(texts)}]", datatype, rows, before=around)
    quick, careful = (outcome(codec.read, JSON, body) for codec in codecs)
    assert quick == careful


@given(st.data(), st.booleans())
@compared
def test_a_damaged_tensor_is_read_as_the_careful_way_reads_it(
    codecs: tuple[TensorCodec, TensorCodec], data: st.DataObject, nested: bool
) -> None:
    table = [[number + 0.5, number] for number in range(ROWS)]
    content = table if nested else [value for row in table for value in row]
    body = damaged(data, tensor(json.dumps(content), "FP64", ROWS, after=', "parameters": {}'))
    quick, careful = (outcome(codec.read, JSON, body) for codec in codecs)
    assert quick == careful


@given(st.sampled_from(sorted(DTYPES)), st.binary(min_size=8, max_size=8), st.integers(0, ROWS - 1))
@example("FP64", struct.pack("<d", float("nan")), 0)
@example("INT64", struct.pack("<q", 2**53 + 1), 0)
@example("UINT64", struct.pack("<Q", 2**64 - 1), 0)
@compared
def test_a_binary_tensor_is_read_as_the_careful_way_reads_it(
    codecs: tuple[TensorCodec, TensorCodec], datatype: str, value: bytes, position: int
) -> None:
    dtype = np.dtype(DTYPES[datatype])
    content = np.arange(2 * ROWS).astype(dtype)
    content[position] = np.frombuffer(value, dtype)[0]
    head = tensor("0", datatype, ROWS).replace(b'"data": 0', b'"parameters": {"binary_data_size": %d}' % content.nbytes)
    headers = [(b"inference-header-content-length", b"%d" % len(head))]
    quick, careful = (outcome(codec.read, headers, head + content.tobytes()) for codec in codecs)
    assert quick == careful


@pytest.mark.parametrize("count", [ROWS, 2 * ROWS])
def test_large_bodies_are_read_as_arrays(
    parsers: tuple[RowParser, RowParser], codecs: tuple[TensorCodec, TensorCodec], count: int
) -> None:
    rows: Any = parsers[0].parse(objects('{"petal_width": 1, "petal_length": 2}', 0, count))[0]
    tensors: list[Any] = [
        codecs[0].read(JSON, tensor(json.dumps(data), datatype, count))
        for data, datatype in (([1.0] * 2 * count, "FP64"), ([[1, 2]] * count, "INT32"))
    ]
    (flat, _), (nested, _) = tensors
    assert [type(each) for each in (rows, flat, nested)] == [np.ndarray] * 3
    assert [each.shape for each in (rows, flat, nested)] == [(count, 2)] * 3


def test_a_body_of_several_pieces_is_read_in_its_order(manifest: Manifest) -> None:
    count = 4000
    parser = RowParser(manifest, Limits(body_bytes=1 << 20, rows=count, values=8 * count))
    rows, _ = parser.parse(objects('{"petal_width": 3, "petal_length": 0.5}', 0, count))
    assert isinstance(rows, np.ndarray)
    assert rows.tolist() == [[number + 0.5, 3] for number in range(count)]
