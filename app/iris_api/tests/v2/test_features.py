"""A tensor for each feature: the rows are those that /predict gets, whatever way the tensors came."""

from __future__ import annotations

import json
from functools import cache
from typing import Any

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from iris_api.bundle.files import read_manifest
from iris_api.bundle.manifest import CategoryShare, Column, Feature, GoldenSample, Manifest, Reference, Table
from iris_api.engines.columns import Mixed
from iris_api.engines.model import MISSING
from iris_api.predict.errors import ApiError
from iris_api.predict.limits import Limits
from iris_api.predict.reply import Headers
from iris_api.predict.rows import RowParser
from iris_api.predict.steps import finished
from iris_api.predict.tables import LEAST_ROWS
from iris_api.v2.codec import TensorCodec
from iris_api.v2.datatypes import DTYPES
from iris_api.v2.inputs import describe_inputs, example_inputs

from ..paths import BUNDLE
from ..strategies import EXAMPLES, fuzz, json_values

JSON: Headers = [(b"content-type", b"application/json")]
LIMITS = Limits(body_bytes=1 << 20, rows=2 * LEAST_ROWS, values=16 * LEAST_ROWS)
Tensor = tuple[str, str, list[Any]]
"""Name, datatype and values."""


def feature(name: str, kind: str, **more: Any) -> Feature:
    if kind in ("number", "integer"):
        more = {"minimum": 0, "training_minimum": 1, "training_maximum": 9, "maximum": 120} | more
        more["reference"] = Reference(edges=[5.0], shares=[0.5, 0.5])
    if kind in ("boolean", "category"):
        values = more.get("values", [False, True])
        more["shares"] = [CategoryShare(value=value, share=0.25) for value in values]
    return Feature(name=name, description="A feature.", unit="", kind=kind, **more)  # type: ignore[arg-type]


FEATURES = [
    feature("age", "number", nullable=True),
    feature("visits", "integer", maximum=2**60),
    feature("floor", "integer", nullable=True),
    feature("city", "category", values=["Bern", "Zug"], open=True, nullable=True),
    feature("zip", "category", values=["01234", "04109"]),
    feature("size", "category", values=[1, 2, 3], nullable=True),
    feature("shop", "category", values=[10, 20], open=True),
    feature("vip", "boolean"),
    feature("pet", "boolean", nullable=True),
    feature("note", "text"),
    feature("born", "date", nullable=True),
    feature("seen", "datetime"),
]
ROWS: list[dict[str, Any]] = [
    {
        **{
            "age": 30.5,
            "visits": 2**53 + 1,
            "floor": 3,
            "city": "Bern",
            "zip": "01234",
            "size": 2,
            "shop": 30,
            "vip": True,
        },
        **{"pet": False, "note": "é \u2028\x00", "born": "2001-02-03", "seen": "2026-01-31T09:30:00Z"},
    },
    {
        **{
            "age": None,
            "visits": 0,
            "floor": None,
            "city": None,
            "zip": "04109",
            "size": None,
            "shop": 10,
            "vip": False,
        },
        **{"pet": None, "note": "", "born": None, "seen": "2026-01-31"},
    },
]
DATATYPES = {
    **{
        "age": "FP64",
        "visits": "INT64",
        "floor": "FP64",
        "city": "BYTES",
        "zip": "BYTES",
        "size": "FP64",
        "shop": "INT64",
    },
    **{"vip": "BOOL", "pet": "FP64", "note": "BYTES", "born": "BYTES", "seen": "BYTES"},
}
TENSORS: list[Tensor] = [(name, datatype, [row[name] for row in ROWS]) for name, datatype in DATATYPES.items()]


def about(features: list[Feature], sample: dict[str, Any]) -> Manifest:
    manifest = read_manifest(BUNDLE)
    columns = [Column(dtype="int64" if each.kind == "integer" else "object") for each in features]
    golden = GoldenSample(input=sample, prediction=0, probabilities=[1, 0, 0])
    changed = {"features": features, "table": Table(form="objects", columns=columns), "golden_samples": [golden]}
    return manifest.model_copy(update=changed)


@pytest.fixture(scope="module")
def manifest() -> Manifest:
    return about(FEATURES, ROWS[0])


@pytest.fixture(scope="module")
def parser(manifest: Manifest) -> RowParser:
    return RowParser(manifest, LIMITS)


@pytest.fixture(scope="module")
def codec(manifest: Manifest, parser: RowParser) -> TensorCodec:
    return TensorCodec(manifest, parser)


def packed(datatype: str, values: list[Any]) -> bytes:
    if datatype == "BYTES":
        texts = [(MISSING if value is None else value).encode() for value in values]
        return b"".join(len(text).to_bytes(4, "little") + text for text in texts)
    return np.array(values, DTYPES.get(datatype, "?")).tobytes()


def request(
    *tensors: Tensor, binary: tuple[str, ...] = (), nested: bool = True, changed: dict[str, Any] | None = None
) -> tuple[Headers, bytes]:
    """A request with some of its tensors in binary; nested: as rows x 1; changed: what else a tensor says."""
    inputs, content = [], b""
    for name, datatype, values in tensors:
        given: dict[str, Any] = {"name": name, "datatype": datatype, "shape": [len(values), 1][: 1 + nested]}
        if name in binary:
            part = packed(datatype, values)
            given["parameters"] = {"binary_data_size": len(part)}
            content += part
        else:
            given["data"] = values
        inputs.append(given | (changed or {}).get(name, {}))
    head = json.dumps({"inputs": inputs}).encode()
    return [(b"inference-header-content-length", b"%d" % len(head))], head + content


def read(codec: TensorCodec, headers: Headers, body: bytes) -> Any:
    """The rows of a request: a list, or a table."""
    found: Any = codec.read(headers, body)
    return (found if isinstance(found, tuple) else finished(found))[0]


def refused(codec: TensorCodec, *tensors: Tensor, **more: Any) -> str:
    with pytest.raises(ApiError) as caught:
        codec.read(*request(*tensors, **more))
    error = codec.refusal(caught.value)
    assert error.status == 400
    return error.message


@pytest.mark.parametrize("nested", [False, True])
@pytest.mark.parametrize("binary", [(), ("age", "city", "vip"), tuple(DATATYPES)], ids=["JSON", "both", "binary"])
def test_the_rows_are_those_of_predict(
    codec: TensorCodec, parser: RowParser, binary: tuple[str, ...], nested: bool
) -> None:
    expected: Any = parser.parse(json.dumps(ROWS).encode())[0]
    for tensors in (TENSORS, TENSORS[::-1]):
        rows = read(codec, *request(*tensors, binary=binary, nested=nested))
        assert [[(type(value), value) for value in row] for row in rows] == [
            [(type(value), value) for value in row] for row in expected
        ]


def test_the_metadata_describe_a_tensor_for_each_feature_and_the_example_is_right(
    codec: TensorCodec, manifest: Manifest
) -> None:
    described = describe_inputs(manifest, "")
    assert [(each.name, each.datatype, each.shape) for each in described] == [
        (name, datatype, [-1, 1]) for name, datatype in DATATYPES.items()
    ]
    assert described[0].parameters == {"kind": "number", "nullable": "true"}
    body = json.dumps({"inputs": example_inputs(manifest)}).encode()
    assert read(codec, JSON, body) == [list(ROWS[0].values())]


@pytest.mark.parametrize("datatype", DTYPES)
@pytest.mark.parametrize("binary", [(), ("age", "visits", "size", "shop")], ids=["JSON", "binary"])
def test_every_datatype_of_numbers_will_do(codec: TensorCodec, datatype: str, binary: tuple[str, ...]) -> None:
    names = ["age", "visits", "floor", "size", "shop"]
    given = [(name, datatype, [3]) for name in names]
    others = [(name, kind, values[:1]) for name, kind, values in TENSORS if name not in names]
    [row] = read(codec, *request(*given, *others, binary=binary))
    found = dict(zip(DATATYPES, row, strict=True))
    assert [(name, type(found[name]), found[name]) for name in names] == [
        *(("age", float, 3), ("visits", int, 3), ("floor", int, 3), ("size", int, 3), ("shop", int, 3)),
    ]


@pytest.mark.parametrize(
    ("name", "datatype", "values", "binary", "complaint"),
    [
        (
            "age",
            "BYTES",
            ["1", "2"],
            False,
            "age: the datatype is BYTES, but age is a number, which is sent as FP64",
        ),
        ("visits", "BOOL", [True, True], True, "visits is an integer, which is sent as INT64 or another"),
        ("city", "FP64", [1, 2], False, "city: the datatype is FP64, but city is a category, which is sent as BYTES."),
        ("vip", "FP64", [1, 0], False, "vip is a boolean, which is sent as BOOL."),
        ("pet", "INT8", [1, 0], False, "pet is a boolean, which is sent as BOOL, or as FP64 with NaN for a missing"),
        ("seen", "INT64", [1, 0], True, "seen is a datetime, which is sent as BYTES"),
        ("age", "INT8", [1, 300], False, "age: row 1: 300 is no INT8, an integer from -128 to 127"),
        ("age", "FP16", [1, 2049], False, "age: row 1: The integer 2049 is not held exactly by FP16"),
        ("visits", "INT64", [1, None], False, "1.visits: Input should be a valid integer"),
        ("visits", "FP64", [1, float("nan")], True, "1.visits: Input should be a valid integer"),
        ("visits", "FP32", [1, 2.5], True, "1.visits: Input should be a valid integer"),
        ("vip", "BOOL", [True, None], False, "1.vip: Input should be a valid boolean"),
        ("vip", "BOOL", [True, 1], False, "1.vip: Input should be a valid boolean"),
        ("pet", "FP64", [1, 2], True, "1.pet: Input should be a valid boolean"),
        ("zip", "BYTES", ["01234", "1234"], True, "1.zip: Input should be '01234' or '04109'"),
        ("zip", "BYTES", ["01234", None], True, "1.zip: Input should be '01234' or '04109'"),
        ("city", "BYTES", ["Bern", 5], False, "1.city: Input should be a valid string"),
        ("size", "FP64", [1, 1.5], True, "1.size: Input should be 1, 2 or 3"),
        ("size", "INT8", [1, 4], True, "1.size: Input should be 1, 2 or 3"),
        ("age", "FP64", [1, float("inf")], True, "1.age: Input should be a finite number"),
        ("born", "BYTES", ["2001-02-03", "2001-02-30"], True, "1.born: Input should be a date"),
        ("note", "BYTES", ["a"], False, "note: the shape is [1, 1], but age has [2, 1]. Each tensor has as many rows."),
        (
            "colour",
            "FP64",
            [1, 2],
            False,
            "colour: the model has no such feature. Send one tensor for each of age",
        ),
        ("age", "FP64", [1, 2], False, "age: there is more than one tensor of this name"),
    ],
)
def test_a_tensor_that_is_wrong_is_named(
    codec: TensorCodec, name: str, datatype: str, values: list[Any], binary: bool, complaint: str
) -> None:
    tensors = [each if each[0] != name else (name, datatype, values) for each in TENSORS]
    if (name, datatype, values) not in tensors or complaint.startswith("age: there is more"):
        tensors.append((name, datatype, values))
    assert complaint in refused(codec, *tensors, binary=(name,) if binary else ())


@pytest.mark.parametrize(
    ("changed", "complaint"),
    [
        ({"shape": [2, 2]}, "note: the shape is [2, 2], but a tensor of one feature has [rows] or [rows, 1]."),
        ({"parameters": {"binary_data_size": 11}}, "there are bytes after the JSON that no input claims"),
        ({"parameters": {"binary_data_size": 13}}, "note: [2, 1] of BYTES are 13 bytes after the JSON"),
        ({"data": ["a", "b"]}, "and no data in it, but binary_data_size is 12 and 12 bytes came."),
        ({"shape": [1, 1]}, "note: the shape is [1, 1], but age has [2, 1]"),
    ],
)
def test_sizes_and_shapes_of_texts_must_agree(codec: TensorCodec, changed: dict[str, Any], complaint: str) -> None:
    tensors = [*(each for each in TENSORS if each[0] != "note"), ("note", "BYTES", ["é", "ab"])]
    message = refused(codec, *tensors, binary=("note",), changed={"note": changed})
    assert complaint.lower() in message.lower()


def test_numbers_must_have_the_bytes_of_their_shape(codec: TensorCodec) -> None:
    changed = {"visits": {"parameters": {"binary_data_size": 8}}}
    message = refused(codec, *TENSORS, binary=("visits",), changed=changed)
    assert message.startswith("visits: [2, 1] of INT64 are 16 bytes after the JSON and no data in it")


@pytest.mark.parametrize(
    ("content", "complaint"),
    [
        (b"", "note: the shape [2, 1] has 2 texts, but there are 0 in the 0 bytes."),
        (b"\1\0\0\0a", "note: the shape [2, 1] has 2 texts, but there are 1 in the 5 bytes."),
        (b"\1\0\0\0a\1\0\0\0b\0\0\0\0", "note: the shape [2, 1] has 2 texts, but there are more in the 14 bytes."),
        (b"\1\0\0\0a\1\0\0", "note: row 1: 1 bytes of text are announced, but there are 0."),
        (b"\1\0\0\0a\xff\xff\xff\xffb", "note: row 1: 4294967295 bytes of text are announced, but there are 1."),
        (b"\1\0\0\0a\1\0\0\0\xff", "note: row 1: this is no text in UTF-8."),
    ],
)
def test_texts_after_their_lengths(codec: TensorCodec, content: bytes, complaint: str) -> None:
    tensors = [*(each for each in TENSORS if each[0] != "note"), ("note", "BYTES", ["", ""])]
    headers, body = request(
        *tensors, changed={"note": {"data": None, "parameters": {"binary_data_size": len(content)}}}
    )
    with pytest.raises(ApiError) as caught:
        codec.read(headers, body + content)
    assert caught.value.message.startswith(complaint)


def test_a_feature_without_a_tensor_is_named(codec: TensorCodec) -> None:
    message = refused(codec, *TENSORS[2:])
    assert message == "age, visits: there is no tensor of this name, and the model needs one for each feature."
    message = refused(codec, TENSORS[0])
    assert "age: the shape is [2, 1], but a row of this model has 12 values" in message
    assert "or one for each of them" in message


def test_rows_beyond_the_limit_are_refused_before_they_are_read(codec: TensorCodec) -> None:
    tensors = [(name, kind, values) for name, kind, values in TENSORS]
    shapes: dict[str, Any] = {name: {"shape": [10**12]} for name, _, _ in tensors}
    with pytest.raises(ApiError) as caught:
        codec.read(*request(*tensors, changed=shapes))
    assert (caught.value.status, caught.value.code) == (413, "too_many_rows")


def test_one_tensor_of_texts_or_of_what_json_has() -> None:
    texts = [feature("city", "category", values=["Bern", "Zug"]), feature("note", "text", nullable=True)]
    manifest = about(texts, {"city": "Bern", "note": "a"})
    codec = TensorCodec(manifest, RowParser(manifest, LIMITS))
    table: list[list[Any]] = [["Bern", "é"], ["Zug", None]]
    flat = [value for row in table for value in row]
    one: dict[str, Any] = {"any": {"shape": [2, 2]}}
    assert read(codec, *request(("any", "BYTES", flat), changed=one)) == table
    assert read(codec, *request(("any", "BYTES", flat), binary=("any",), changed=one)) == table
    assert read(codec, *request(("any", "BYTES", flat[:2]), changed={"any": {"shape": [2]}})) == table[:1]
    # As before there were datatypes for texts: JSON says itself what a value is.
    assert read(codec, *request(("any", "FP64", flat), changed=one)) == table
    message = refused(codec, ("any", "FP64", [1, 2, 3, 4]), binary=("any",), changed=one)
    assert message == (
        "any: the datatype is FP64, but city is a category, which is sent as BYTES. Send a tensor for each feature."
    )


def numeric(*, least: float = -1e300, greatest: float = 1e300, width: int = 2) -> Manifest:
    limits = {"minimum": least, "maximum": greatest}
    manifest = read_manifest(BUNDLE)
    features = [each.model_copy(update=limits) for each in manifest.features]
    return manifest.model_copy(update={"features": features[:width]})


@pytest.fixture(scope="module")
def codecs() -> tuple[TensorCodec, TensorCodec]:
    """One that reads large bodies as tables, and one that never does."""
    manifest = numeric()
    careful = RowParser(manifest, LIMITS)
    careful.tables = None
    return TensorCodec(manifest, RowParser(manifest, LIMITS)), TensorCodec(manifest, careful)


@pytest.mark.parametrize("name", ["input", "petal_width", "x" * 300])
def test_a_single_row_may_have_one_dimension_and_one_tensor_any_name(
    codecs: tuple[TensorCodec, TensorCodec], name: str
) -> None:
    for binary in ((), (name,)):
        assert read(codecs[0], *request((name, "FP32", [6.5, 0.75]), binary=binary, nested=False)) == [[6.5, 0.75]]
        shape = {name: {"shape": [2, 2]}}
        sent = request((name, "INT8", [6, 1, 1, 0]), binary=binary, changed=shape)
        assert read(codecs[0], *sent) == [[6, 1], [1, 0]]


@cache
def short_and_long() -> tuple[TensorCodec, TensorCodec]:
    """A codec, and one that takes the long way always."""
    manifest = numeric(least=0)
    short, long = (TensorCodec(manifest, RowParser(manifest, LIMITS)) for _ in range(2))
    long._inputs.row = lambda *_: None  # type: ignore[method-assign]
    return short, long


def read_or_refused(codec: TensorCodec, body: bytes) -> object:
    try:
        found = codec.read([(b"content-type", b"application/json")], body)
    except ApiError as error:
        return error.message, [detail.model_dump() for detail in error.details or []]
    assert isinstance(found, tuple)
    return found[0]


@fuzz
@example([1, 2], "FP64", [6.5, 0.75], {})
@example([2], "FP64", [6.5, 0.75], {})
@example([1, 2], "FP64", [6.5, 2**53 + 1], {})
@example([1, 2], "FP64", [6.5, 1e308], {})
@example([1, 2], "FP32", [6.5, 1e39], {})
@example([1, 2], "INT64", [6.5, 0.75], {})
@example([1, 2], "FP64", [6.5, 0.75], {"parameters": {"binary_data_size": 16}})
@given(
    shape=st.sampled_from([[1, 2], [2], [1, 1], [2, 2], [2, 1]]),
    datatype=st.sampled_from(["FP64", "FP32", "INT64", "BYTES"]),
    data=st.lists(st.floats(0, 100) | st.floats(allow_nan=False, allow_infinity=False) | json_values, max_size=5),
    more=st.sampled_from([{}, {}, {"parameters": {}}, {"parameters": {"binary_data_size": 0}}]),
)
def test_the_short_way_of_a_row_of_floats_leads_where_the_long_one_does(
    shape: list[int], datatype: str, data: list[Any], more: dict[str, Any]
) -> None:
    short, long = short_and_long()
    sent = {"name": "input", "shape": shape, "datatype": datatype, "data": data} | more
    body = json.dumps({"inputs": [sent]}).encode()
    assert read_or_refused(short, body) == read_or_refused(long, body)


def test_a_row_of_floats_takes_the_short_way(monkeypatch: pytest.MonkeyPatch) -> None:
    manifest = numeric()
    codec = TensorCodec(manifest, RowParser(manifest, LIMITS))
    monkeypatch.setattr(codec._inputs, "rows", None)
    assert read(codec, *request(("input", "FP64", [6.5, 0.75]), nested=False)) == [[6.5, 0.75]]


@pytest.mark.parametrize("nested", [False, True])
def test_of_a_single_feature_one_dimension_is_a_column(nested: bool) -> None:
    manifest = numeric(width=1)
    codec = TensorCodec(manifest, RowParser(manifest, LIMITS))
    for count in (3, LEAST_ROWS):
        column: Tensor = ("any", "FP64", [number / 2 for number in range(count)])
        for binary in ((), ("any",)):
            rows = read(codec, *request(column, binary=binary, nested=nested))
            assert np.array(rows).tolist() == [[value] for value in column[2]]


@pytest.mark.parametrize("binary", [(), ("petal_length", "petal_width")], ids=["JSON", "binary"])
@pytest.mark.parametrize("nested", [False, True])
def test_large_columns_of_numbers_are_read_as_arrays(
    codecs: tuple[TensorCodec, TensorCodec], binary: tuple[str, ...], nested: bool
) -> None:
    length = ("petal_length", "FP64", [number / 8 for number in range(LEAST_ROWS)])
    width = ("petal_width", "UINT8", list(range(LEAST_ROWS)))
    for tensors in ((length, width), (width, length)):
        table = read(codecs[0], *request(*tensors, binary=binary, nested=nested))
        assert isinstance(table, np.ndarray)
        assert table.tolist() == [[number / 8, number] for number in range(LEAST_ROWS)]


def outcome(codec: TensorCodec, headers: Headers, body: bytes) -> object:
    """What a body gives: the types and values of its rows, or the words in which it is refused."""
    try:
        rows = read(codec, headers, body)
    except ApiError as error:
        return error.status, error.code, error.message, error.details
    if isinstance(rows, np.ndarray):
        return repr(rows.tolist())
    return repr(rows.tolist() if isinstance(rows, Mixed) else [list(row) for row in rows])


compared = settings(max_examples=max(50, EXAMPLES // 8), deadline=None)
PIECES = [b"", b"[", b"]", b"{", b"}", b",", b'"', b":", b"-", b"\\", b" ", b"\xff", b"],[", b'"data": [1]', b"null"]


@given(st.data(), st.booleans(), st.sampled_from(sorted(DTYPES)), st.integers(1, 2))
@compared
def test_damaged_columns_are_read_as_the_careful_way_reads_them(
    codecs: tuple[TensorCodec, TensorCodec], data: st.DataObject, nested: bool, datatype: str, changes: int
) -> None:
    values: list[Any] = list(range(LEAST_ROWS))
    shown = [[each] for each in values] if nested else values
    _, body = request(
        *(("petal_length", "FP64", values), ("petal_width", datatype, values)), changed={"petal_width": {"data": shown}}
    )
    for _ in range(changes):
        start = data.draw(st.integers(0, len(body)))
        end = min(start + data.draw(st.integers(0, 4)), len(body))
        body = body[:start] + data.draw(st.sampled_from(PIECES)) + body[end:]
    quick, careful = (outcome(codec, JSON, body) for codec in codecs)
    assert quick == careful


def test_another_list_called_data_is_none_of_a_tensor(codecs: tuple[TensorCodec, TensorCodec]) -> None:
    other = json.dumps({"x": {"data": [7.5] * LEAST_ROWS}})[:-1].encode()
    for names in (["petal_width", "petal_length"], ["input"]):
        tensors: list[Tensor] = [(name, "FP64", [1.5] * LEAST_ROWS) for name in names]
        shape = {"input": {"shape": [LEAST_ROWS // 2, 2]}}
        _, body = request(*tensors, changed=shape)
        rows = read(codecs[0], JSON, other + b", " + body[1:])
        assert {value for row in rows for value in row} == {1.5}


@pytest.mark.parametrize(("datatype", "value"), [("FP32", 2**24 + 1), ("FP16", 2**11 + 1), ("INT64", 2**53 + 1)])
def test_an_integer_of_a_large_column_that_would_be_rounded_is_refused(
    codecs: tuple[TensorCodec, TensorCodec], datatype: str, value: int
) -> None:
    values = [*range(LEAST_ROWS - 1), value]
    message = refused(codecs[0], ("petal_width", datatype, values), ("petal_length", "INT8", [1] * LEAST_ROWS))
    assert f"integer {value} is not held exactly" in message


@given(st.sampled_from(sorted(DTYPES)), st.binary(min_size=8, max_size=8), st.integers(0, LEAST_ROWS - 1))
@compared
def test_a_binary_column_is_read_as_the_careful_way_reads_it(
    codecs: tuple[TensorCodec, TensorCodec], datatype: str, value: bytes, position: int
) -> None:
    content = np.arange(LEAST_ROWS).astype(DTYPES[datatype])
    content[position] = np.frombuffer(value, DTYPES[datatype])[0]
    tensors = [("petal_width", datatype, list(content)), ("petal_length", "FP64", [1.5] * LEAST_ROWS)]
    headers, body = request(*tensors, binary=("petal_width", "petal_length"))
    quick, careful = (outcome(codec, headers, body) for codec in codecs)
    assert quick == careful


LARGE_TENSORS: list[Tensor] = [
    (name, kind, [*values, *values[:1] * (LEAST_ROWS - 2)]) for name, kind, values in TENSORS if name != "visits"
] + [("visits", "INT64", [*range(LEAST_ROWS)])]


@pytest.fixture(scope="module")
def careful(manifest: Manifest) -> TensorCodec:
    """The codec of the model of all kinds that never reads a table."""
    parser = RowParser(manifest, LIMITS)
    parser.tables = None
    return TensorCodec(manifest, parser)


@pytest.mark.parametrize("binary", [(), ("age", "city", "vip"), tuple(DATATYPES)], ids=["JSON", "both", "binary"])
def test_a_large_batch_of_all_kinds_is_a_table_of_the_same_rows(
    codec: TensorCodec, careful: TensorCodec, binary: tuple[str, ...]
) -> None:
    headers, body = request(*LARGE_TENSORS, binary=binary)
    table = read(codec, headers, body)
    assert isinstance(table, Mixed)
    assert repr(table.tolist()) == repr([list(row) for row in read(careful, headers, body)])


ODD: list[Any] = [
    None,
    True,
    False,
    0,
    1,
    3,
    30,
    1.5,
    2.0,
    -0.0,
    121,
    2**53 + 1,
    2**64,
    "",
    "30",
    "Bern",
    "04109",
    "2001-02-03",
]
ODD += [float("nan"), float("inf"), [1], {"a": 1}, MISSING, "é", "9" * 30]


@given(
    *(st.sampled_from(sorted(DATATYPES)), st.sampled_from(ODD), st.integers(0, LEAST_ROWS - 1)),
    *(st.booleans(), st.none() | st.sampled_from([*DTYPES, "BOOL", "BYTES"])),
)
@settings(max_examples=max(100, EXAMPLES // 4), deadline=None)
def test_an_odd_value_of_a_large_batch_is_judged_as_the_careful_way_does(
    codec: TensorCodec, careful: TensorCodec, name: str, odd: Any, position: int, binary: bool, datatype: str | None
) -> None:
    tensors = []
    for each, kind, values in LARGE_TENSORS:
        if each == name:
            values = [*values[:position], odd, *values[position + 1 :]]
            kind = datatype or kind
        tensors.append((each, kind, values))
    try:
        headers, body = request(*tensors, binary=(name,) if binary else ())
    except (ValueError, TypeError, OverflowError, AttributeError):
        return  # numpy, or the text that it is none of, has no such value of the datatype
    found = [outcome(each, headers, body) for each in (codec, careful)]
    assert found[0] == found[1]
