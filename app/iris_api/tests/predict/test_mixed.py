"""Batches of mixed tables, and of tables with gaps, are read as arrays: with the values that the careful way gives."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from iris_api.bundle.files import read_manifest
from iris_api.bundle.manifest import CategoryShare, Column, Feature, GoldenSample, Manifest, Table
from iris_api.engines.columns import Coded, Columns, Floats, Mixed, joined
from iris_api.engines.model import Answers, Model, Prediction, Row
from iris_api.engines.table import maker
from iris_api.predict.durations import Durations
from iris_api.predict.errors import ApiError
from iris_api.predict.limits import Limits
from iris_api.predict.lines import LineParser
from iris_api.predict.metrics import Metrics
from iris_api.predict.reply import Headers
from iris_api.predict.rows import RowParser
from iris_api.predict.steps import finished
from iris_api.predict.tables import LEAST_ROWS
from iris_api.settings import Settings
from iris_api.v2.codec import TensorCodec

from ..paths import BUNDLE
from ..strategies import EXAMPLES

ROWS = LEAST_ROWS + 3
compared = settings(max_examples=max(100, EXAMPLES // 8), deadline=None)


def feature(name: str, kind: Any, **more: Any) -> Feature:
    number = read_manifest(BUNDLE).features[0]
    if kind in ("number", "integer"):
        limits = {"minimum": -1e300, "maximum": 1e300} if kind == "number" else {"minimum": -(2**60), "maximum": 2**60}
        return number.model_copy(update={"name": name, "kind": kind} | limits | more)
    if kind in ("category", "boolean"):
        values = more.get("values", [False, True])
        more["shares"] = [CategoryShare(value=value, share=0.25) for value in values]
    return Feature(name=name, description="", unit="", kind=kind, **more)


FEATURES = [
    feature("age", "number", nullable=True),
    feature("visits", "integer"),
    feature("city", "category", values=["Bern", "Zug"], open=True, nullable=True),
    feature("plan", "category", values=["free", "paid"]),
    feature("floor", "category", values=[0, 1, 7], nullable=True),
    feature("vip", "boolean", nullable=True),
    feature("note", "text"),
    feature("since", "date", nullable=True),
    feature("seen", "datetime"),
]
NAMES = [each.name for each in FEATURES]
ROW: dict[str, Any] = {
    **{"age": 30.5, "visits": 7, "city": "Bern", "plan": "free", "floor": 7, "vip": True, "note": "all is well"},
    **{"since": "2026-01-31", "seen": "2026-01-31T09:30:00Z"},
}
OTHER: dict[str, Any] = {
    **{"age": None, "visits": -3, "city": None, "plan": "paid", "floor": None, "vip": None, "note": ""},
    **{"since": None, "seen": "2026-02-01"},
}


def changed(features: Sequence[Feature], sample: dict[str, Any]) -> Manifest:
    about = read_manifest(BUNDLE)
    (golden, *_) = about.golden_samples
    samples = [GoldenSample(**golden.model_dump() | {"input": sample})]
    return about.model_copy(update={"features": list(features), "golden_samples": samples, "format": 4})


MIXED = changed(FEATURES, ROW)
GAPS = changed(
    [feature("age", "number", nullable=True), feature("visits", "integer", nullable=True)], {"age": 1.5, "visits": 7}
)


def parsers(manifest: Manifest) -> tuple[RowParser, RowParser]:
    """One that reads large bodies as tables, and one that never does."""
    limits = Limits(body_bytes=1 << 20, rows=4 * ROWS, values=1 << 20)
    careful = RowParser(manifest, limits)
    careful.tables = None
    return RowParser(manifest, limits), careful


PARSERS, PARSERS_OF_GAPS = parsers(MIXED), parsers(GAPS)


def as_rows(rows: Any) -> list[list[Any]]:
    """The rows of a table or a list, with None for NaN."""
    return (
        [[None if value != value else value for value in row] for row in rows.tolist()]
        if hasattr(rows, "tolist")
        else rows
    )


def outcome(read: Callable[[], Any]) -> object:
    """What a body gives: its values with their types, or the words in which it is refused."""
    try:
        return repr(as_rows(read()))
    except ApiError as error:
        return error.status, error.code, error.message, error.details


VALUES = st.sampled_from(
    [
        *("null", "1", "1.0", "-0.0", "-0", "0", "2.5", "1e2", "9007199254740993", "1e999", "true", "false", "NaN"),
        *(
            '"Bern"',
            '"Zürich"',
            '"free"',
            '"gratis"',
            '"\\u0042ern"',
            '"\\ud800"',
            '"\\ud83d\\ude00"',
            '"\\"},{"',
            '""',
        ),
        *(
            '"2026-01-31"',
            '"2026-02-30"',
            '"2026-01-31t09:30z"',
            '"1"',
            "7",
            "8",
            "7.0",
            "[]",
            "{}",
            '"a},b"',
            '1, "age": 1',
        ),
        *('"a", "note": "b"', "9" * 400),
    ]
)


@given(st.sampled_from(NAMES), VALUES, st.integers(0, ROWS - 1))
@compared
def test_objects_of_a_mixed_table_are_read_as_the_careful_way_reads_them(
    name: str, literal: str, position: int
) -> None:
    texts = [json.dumps(OTHER if number % 3 else ROW) for number in range(ROWS)]
    texts[position] = json.dumps(ROW | {name: "\0"}).replace('"\\u0000"', literal)
    body = f"[{', '.join(texts)}]".encode("utf-8", "surrogateescape")
    quick, careful = (outcome(lambda parser=parser: parser.parse(body)[0]) for parser in PARSERS)  # type: ignore[misc]
    assert quick == careful


@given(st.sampled_from(["age", "visits"]), VALUES, st.integers(0, ROWS - 1), st.integers(0, 3))
@compared
def test_objects_with_gaps_are_read_as_the_careful_way_reads_them(
    name: str, literal: str, position: int, gaps: int
) -> None:
    rows = [{"age": None if number % 4 < gaps else number / 2, "visits": number} for number in range(ROWS)]
    texts = [json.dumps(row) for row in rows]
    texts[position] = json.dumps(rows[position] | {name: "\0"}).replace('"\\u0000"', literal)
    body = f"[{', '.join(texts)}]".encode("utf-8", "surrogateescape")
    quick, careful = (outcome(lambda parser=parser: parser.parse(body)[0]) for parser in PARSERS_OF_GAPS)  # type: ignore[misc]
    # An array has no integers.
    assert str(quick).replace(".0", "") == str(careful).replace(".0", "")


CELLS = st.sampled_from(
    [
        *(
            "",
            " ",
            "1",
            "+1",
            ".5",
            "1.",
            "1e3",
            "-0",
            "nan",
            "1,5",
            "[1]",
            "true",
            "TRUE",
            " False ",
            "Bern",
            "free",
            "x",
        ),
        *("2026-01-31", "2026-01-31T09:30:00Z", "7", "7.0", "01", "9007199254740993", "9" * 400, "1_0", "null", '"'),
    ]
)


@given(st.sampled_from(NAMES), CELLS, st.integers(0, ROWS - 1))
@compared
def test_cells_of_a_mixed_table_are_read_as_the_careful_way_reads_them(name: str, cell: str, position: int) -> None:
    rows = [OTHER if number % 3 else ROW for number in range(ROWS)]
    lines = [{key: "" if value is None else str(value) for key, value in row.items()} for row in rows]
    # An empty cell is a missing value, which a text may not be here.
    for line in lines:
        line["note"] = line["note"] or "words"
    lines[position] = lines[position] | {name: cell}
    quoted = ["{}".format(",".join('"' + value.replace('"', '""') + '"' for value in line.values())) for line in lines]
    body = "\n".join([",".join(NAMES), *quoted]).encode()
    quick, careful = (
        outcome(lambda parser=parser: finished(LineParser(MIXED, parser).csv(body)))  # type: ignore[misc]
        for parser in PARSERS
    )
    assert quick == careful


JSON: Headers = [(b"content-type", b"application/json")]


@given(st.booleans(), st.sampled_from(["FP64", "FP32", "INT64"]), VALUES, st.integers(0, 2 * ROWS - 1))
@example(False, "FP64", "null", 2)
@example(True, "FP64", "null", 2)
@compared
def test_a_tensor_with_gaps_is_read_as_the_careful_way_reads_it(
    nested: bool, datatype: str, literal: str, position: int
) -> None:
    texts = ["1" if number % 2 or datatype == "INT64" else "null" for number in range(2 * ROWS)]
    texts[position] = literal
    if nested:
        texts = [f"[{first}, {second}]" for first, second in zip(texts[::2], texts[1::2], strict=True)]
    tensor = f'"name": "input", "shape": [{ROWS}, 2], "datatype": "{datatype}", "data": [{", ".join(texts)}]'
    body = f'{{"inputs": [{{{tensor}}}]}}'.encode("utf-8", "surrogateescape")
    quick, careful = (
        outcome(lambda parser=parser: TensorCodec(GAPS, parser).read(JSON, body)[0])  # type: ignore[misc, index]
        for parser in PARSERS_OF_GAPS
    )
    assert str(quick).replace(".0", "") == str(careful).replace(".0", "")


def test_large_bodies_are_read_as_tables() -> None:
    body = json.dumps([ROW, OTHER] * ROWS).encode()
    rows, _ = PARSERS[0].parse(body)
    assert isinstance(rows, Mixed)
    assert rows.tolist() == [[row[name] for name in NAMES] for row in [ROW, OTHER] * ROWS]
    assert isinstance(rows.columns[2], Coded)
    assert rows.columns[2].values == ["Bern"]
    cells = ",".join("" if value is None else str(value) for value in {**OTHER, "note": "x"}.values())
    lines = "\n".join([",".join(NAMES), *[",".join(map(str, ROW.values())), cells] * ROWS]).encode()
    table_of_lines: Any = finished(LineParser(MIXED, PARSERS[0]).csv(lines))
    assert isinstance(table_of_lines, Mixed)
    assert table_of_lines[:1].tolist() == rows[:1].tolist()
    gaps: list[dict[str, Any]] = [{"age": 1.5, "visits": None}, {"age": None, "visits": 7}] * ROWS
    table: Any = PARSERS_OF_GAPS[0].parse(json.dumps(gaps).encode())[0]
    assert table.dtype == np.float64
    assert as_rows(table) == [list(row.values()) for row in gaps]


def test_a_mixed_table_is_cut_and_joined_as_its_rows() -> None:
    rows: list[list[Any]] = [[row[name] for name in NAMES] for row in [ROW, OTHER, ROW]]
    table = Mixed.of([each.kind for each in FEATURES], rows)
    assert (len(table), len(table[1:])) == (3, 2)
    again: Any = joined([table[2:], table[:1], table[1:2]])
    assert again.tolist() == [rows[2], rows[0], rows[1]]
    assert joined([table]) is table


def test_floats_of_a_mixed_table_are_those_of_its_rows() -> None:
    rows: list[Any] = [[1.5, True, 3], [None, None, 4]]
    found = Mixed.of(["number", "boolean", "category"], rows).floats
    assert np.array_equal(found, [[1.5, 1.0, 3.0], [math.nan, math.nan, 4.0]], equal_nan=True)


DTYPES = [
    *("float64", "Int64", "object", "category", "Int64", "boolean", "str", "object", "datetime64[us, UTC]"),
]


@pytest.mark.parametrize("form", ["frame", "objects"])
@pytest.mark.parametrize("missing", ["nan", "none", "NA"])
@pytest.mark.parametrize("gaps", [False, True])
def test_an_estimator_gets_the_same_table_of_a_batch_as_of_its_rows(form: Any, missing: Any, gaps: bool) -> None:
    pandas = pytest.importorskip("pandas")
    columns = [Column(dtype=dtype, missing=missing) for dtype in DTYPES]
    made = maker(
        NAMES,
        [each.kind for each in FEATURES],
        Table(form=form, columns=columns, categories="a.json", categories_sha256="0" * 64),
        {"plan": ["paid", "free"]},
    )
    rows: list[Any] = [[row[name] for name in NAMES] for row in ([ROW, OTHER, ROW, OTHER] if gaps else [ROW] * 3)]
    expected, found = made(rows), made(Mixed.of([each.kind for each in FEATURES], rows))
    pandas.testing.assert_frame_equal(pandas.DataFrame(found), pandas.DataFrame(expected))


def assert_counted_alike(manifest: Manifest, rows: list[list[Any]], table: Mixed | Floats) -> None:
    """Assert that the metrics of a table are those of its rows, one after the other."""
    numbers = np.arange(len(rows))
    together, alone = (Metrics(Settings(model_dir=BUNDLE), manifest, "onnx") for _ in range(2))
    together.count_table(table, Columns(numbers, numbers))
    for row, number in zip(rows, numbers.tolist(), strict=True):
        alone.count_row(row, Prediction(number, number))
    said = [
        [line for line in metrics.render().decode().splitlines() if line.startswith("iris_api_")]
        for metrics in (together, alone)
    ]
    assert said[0] == said[1]


def test_values_of_a_mixed_table_are_counted_as_those_of_its_rows() -> None:
    rows: list[list[Any]] = [[row[name] for name in NAMES] for row in [ROW, OTHER, ROW | {"city": "Aarau", "age": 1e9}]]
    assert_counted_alike(MIXED, rows, Mixed.of([each.kind for each in FEATURES], rows))


def test_gaps_of_an_array_are_counted_as_those_of_its_rows() -> None:
    rows: list[list[Any]] = [[None, 7], [1e9, None], [0.5, 3]]
    assert_counted_alike(GAPS, rows, np.array(rows, np.float64))


@pytest.mark.parametrize("golden", [[2**63 - 1], [7, 2**63 - 1]], ids=["alone", "beside others"])
def test_an_instance_starts_whatever_integers_its_golden_samples_have(golden: list[int]) -> None:
    manifest = changed(FEATURES, ROW)
    (sample,) = manifest.golden_samples
    samples = [sample.model_copy(update={"input": ROW | {"visits": visits}}) for visits in golden]
    manifest = manifest.model_copy(update={"golden_samples": samples})
    sizes = []

    class Engine:
        name, tolerance, turns = "sklearn", 0.0, 1

        def __call__(self, rows: Sequence[Row]) -> Answers:
            sizes.append(len(rows))
            assert {row[1] for row in rows} <= {*golden}
            return Answers([0] * len(rows), [[1.0, 0.0, 0.0]] * len(rows))

        def run(self, rows: Any) -> tuple[Any, Any]:
            answers = self(rows.tolist())
            return np.array(answers.values), np.array(answers.probabilities)

    Durations.measured(Model(manifest, Engine()), 4 * LEAST_ROWS)
    assert max(sizes) == 4 * LEAST_ROWS
