"""Rows as lines, and bodies that are compressed."""

from __future__ import annotations

import gzip
import json
from time import process_time
from typing import Any

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from starlette.testclient import TestClient

from iris_api.bundle.files import read_manifest
from iris_api.bundle.manifest import Manifest
from iris_api.engines.columns import Mixed
from iris_api.predict.errors import ApiError
from iris_api.predict.limits import Limits
from iris_api.predict.lines import LineParser
from iris_api.predict.packed import unpacked
from iris_api.predict.rows import RowParser
from iris_api.predict.steps import finished
from iris_api.predict.tables import LEAST_ROWS

from ..paths import BUNDLE
from ..strategies import EXAMPLES

ROWS = LEAST_ROWS + 3
TABLE = [(number / 8, 0.5) for number in range(ROWS)]
CSV = "petal_width,petal_length\r\n" + "".join(f"{width},{length}\r\n" for length, width in TABLE)
NDJSON = "".join(f'{{"petal_length": {length}, "petal_width": {width}}}\n' for length, width in TABLE)
BYTES = [
    b"",
    b"[",
    b"]",
    b"\n",
    b"\r",
    b"\r\n",
    b",",
    b'"',
    b"{",
    b"}",
    b":",
    b"-",
    b" ",
    b"\xff",
    b"}\n{",
    b"1e5",
    b"+",
]
compared = settings(max_examples=max(50, EXAMPLES // 8), deadline=None)


@pytest.fixture(scope="module")
def parsers() -> tuple[LineParser, LineParser]:
    """One that reads large bodies as tables, and one that never does."""
    manifest, limits = read_manifest(BUNDLE), Limits(body_bytes=1 << 20, rows=2 * ROWS, values=8 * ROWS)
    careful = RowParser(manifest, limits)
    careful.tables = None
    return LineParser(manifest, RowParser(manifest, limits)), LineParser(manifest, careful)


def with_code(about: Manifest) -> Manifest:
    """Return a model's manifest with a length that may be missing, and a text in place of the width."""
    length, width = about.features
    code = width.model_copy(
        update={"name": "code", "kind": "text", "reference": None, "minimum": None, "maximum": None}
    )
    changed: Manifest = about.model_copy(
        update={
            "features": [length.model_copy(update={"nullable": True}), code],
            "golden_samples": [
                each.model_copy(update={"input": {"petal_length": 1.0, "code": "a"}}) for each in about.golden_samples
            ],
        }
    )
    return changed


def outcome(parser: LineParser, kind: str, body: bytes) -> object:
    try:
        return np.array(finished(getattr(parser, kind)(body)), dtype=np.float64).tobytes()
    except ApiError as error:
        return error.status, error.code, error.message, error.details


def test_large_bodies_of_lines_are_read_as_arrays(parsers: tuple[LineParser, LineParser]) -> None:
    for kind, body in (("csv", CSV), ("csv", CSV.replace("\r", "").strip()), ("ndjson", NDJSON)):
        table = finished(getattr(parsers[0], kind)(body.encode()))
        assert isinstance(table, np.ndarray)
        assert table.tolist() == [list(row) for row in TABLE]


@given(st.sampled_from([("csv", CSV), ("ndjson", NDJSON)]), st.data())
@compared
def test_damaged_lines_are_read_as_the_careful_way_reads_them(
    parsers: tuple[LineParser, LineParser], sent: tuple[str, str], data: st.DataObject
) -> None:
    kind, body = sent[0], sent[1].encode()
    for _ in range(data.draw(st.integers(1, 2))):
        start = data.draw(st.integers(0, len(body)))
        body = body[:start] + data.draw(st.sampled_from(BYTES)) + body[start + data.draw(st.integers(0, 3)) :]
    quick, careful = (outcome(parser, kind, body) for parser in parsers)
    assert quick == careful


def test_a_carriage_return_ends_the_first_line_of_a_large_body_too(parsers: tuple[LineParser, LineParser]) -> None:
    body = CSV.replace("\r\n", "\n").replace("\n", "\r", 1).encode()
    quick, careful = (outcome(parser, "csv", body) for parser in parsers)
    assert quick == careful == np.array(TABLE).tobytes()


def test_blanks_before_a_cell_are_none_of_it() -> None:
    manifest = with_code(read_manifest(BUNDLE))
    parser = LineParser(manifest, RowParser(manifest, Limits(body_bytes=1 << 20, rows=2 * ROWS, values=8 * ROWS)))
    for count in (1, ROWS):
        plain, blanks = (
            finished(parser.csv((head + line * count).encode()))
            for head, line in (("petal_length,code\n", "1.5,red\n"), ("petal_length , code \n", " 1.5, red\n"))
        )
        assert repr(plain) == repr(blanks)
    quoted, bare = (finished(parser.csv(f"petal_length,code\n1.5,{cell}\n".encode())) for cell in ('" red"', "red"))
    assert quoted != bare


def test_two_objects_in_a_line_are_refused_in_a_large_body_too(parsers: tuple[LineParser, LineParser]) -> None:
    body = NDJSON.replace("}\n{", "},{", 1).encode()
    quick, careful = (outcome(parser, "ndjson", body) for parser in parsers)
    assert quick == careful


def test_an_end_of_a_line_within_a_text_is_refused_in_a_large_body_too() -> None:
    manifest = with_code(read_manifest(BUNDLE))
    parser = LineParser(manifest, RowParser(manifest, Limits(body_bytes=1 << 20, rows=2 * ROWS, values=8 * ROWS)))
    body = "\n".join(['{"petal_length": 1.0, "code": "a"}'] * ROWS)
    assert isinstance(finished(parser.ndjson(body.encode())), Mixed)
    with pytest.raises(ApiError):
        finished(parser.ndjson(body.replace('"a"', '"a}\n{b"', 1).encode()))


@given(
    st.sampled_from(
        ["1", "1.", ".5", "+1", "-0", "nan", "inf", "1_0", " 1 ", "1e3", "[1]", '"1"', "true", "0x1", "9" * 20]
    )
)
@example('"1,5"')
@compared
def test_a_cell_is_read_as_the_careful_way_reads_it(parsers: tuple[LineParser, LineParser], cell: str) -> None:
    body = CSV.replace("0.5,1.0\r", f"{cell},1.0\r", 1).encode()
    assert body != CSV.encode()
    quick, careful = (outcome(parser, "csv", body) for parser in parsers)
    assert quick == careful


def post(client: TestClient, body: bytes | str, kind: str, **headers: str) -> Any:
    content = body.encode() if isinstance(body, str) else body
    return client.post("/predict", content=content, headers={"Content-Type": kind} | headers)


@pytest.mark.parametrize("count", [2, ROWS])
def test_lines_are_answered_as_the_list_is(client: TestClient, count: int) -> None:
    rows = [{"petal_length": length, "petal_width": width} for length, width in TABLE[:count]]
    answer = client.post(
        "/predict", content=json.dumps(rows, separators=(",", ":")), headers={"Content-Type": "application/json"}
    )
    assert answer.status_code == (200 if count == 2 else 413)  # of this client's instance, bodies of 1024 bytes
    csv, lines = (text.splitlines(keepends=True) for text in (CSV, NDJSON))
    if count == 2:
        assert post(client, "".join(csv[:3]), "text/csv; charset=utf-8").json() == answer.json()
        assert post(client, "".join(lines[:2]), "application/x-ndjson").json() == answer.json()
    packed = gzip.compress("".join(csv[: count + 1]).encode())
    assert len(post(client, packed, "text/csv", **{"Content-Encoding": "gzip"}).json()) == count


@pytest.mark.parametrize(
    ("kind", "body", "field", "reason"),
    [
        ("text/csv", "petal_length,petal_width\n1,2\n3,much\n", "1.petal_width", "valid number"),
        ("text/csv", "petal_length,petal_width\n1,\n", "0.petal_width", "valid number"),
        ("text/csv", "petal_length,petal_width\n1,2,3\n", "body", "row 0 has 3 cells"),
        ("text/csv", "petal_length,colour\n1,2\n", "body", "lacks petal_width and has colour"),
        ("text/csv", ",petal_length,petal_width\n0,1,2\n", "body", "has a column without a name (an index?"),
        ("text/csv", "petal_length,petal_width\n", "body", "at least 1 item"),
        ("text/csv", "", "body", "lacks petal_length, petal_width"),
        (
            "application/x-ndjson",
            '{"petal_length": 1, "petal_width": 2}\n{"petal_length": 1}\n',
            "1.petal_width",
            "required",
        ),
        ("application/x-ndjson", '{"petal_length": 1,\n"petal_width": 2}\n', "body", "line 1"),
    ],
)
def test_what_is_wrong_with_a_line_is_said(client: TestClient, kind: str, body: str, field: str, reason: str) -> None:
    answer = post(client, body, kind)
    assert answer.status_code == 422, answer.text
    (detail,) = answer.json()["details"]
    assert detail["field"] == field
    assert reason in detail["reason"]


def test_a_missing_cell_is_a_missing_value_and_a_text_stays_one(parsers: tuple[LineParser, LineParser]) -> None:
    manifest = with_code(read_manifest(BUNDLE))
    parser = LineParser(manifest, RowParser(manifest, Limits(body_bytes=1 << 20, rows=9, values=99)))
    assert finished(parser.csv(b'code,petal_length\n01234,\n"1,5",2\n')) == [[None, "01234"], [2.0, "1,5"]]


@pytest.mark.parametrize(
    ("body", "encoding", "status", "said"),
    [
        (gzip.compress(b" " * 100_000_000), "gzip", 413, "body_too_large"),
        (gzip.compress(b"{}")[:-4], "gzip", 422, "gzip"),
        (b"{}", "gzip", 422, "gzip"),
        (b"{}", "br", 415, "unsupported_media_type"),
        (gzip.compress(b'{"petal_length": 1,') + gzip.compress(b'"petal_width": 1}'), "GZIP", 200, "prediction"),
    ],
    ids=["bomb", "cut", "plain", "brotli", "two members"],
)
def test_a_compressed_body_is_unpacked_within_bounds(
    client: TestClient, body: bytes, encoding: str, status: int, said: str
) -> None:
    answer = post(client, body[:1024] if status == 413 else body, "application/json", **{"Content-Encoding": encoding})
    assert answer.status_code == status, answer.text
    assert said in answer.text


def test_many_small_files_in_a_body_take_a_time_that_grows_with_their_number() -> None:
    def seconds(count: int) -> float:
        body, limits = gzip.compress(b"") * count, Limits(body_bytes=1 << 22, rows=9, values=99)
        started = process_time()
        assert finished(unpacked(b"gzip", body, limits)) == b""
        return process_time() - started

    # Four times as long, and not sixteen times.
    assert min(seconds(100_000) for _ in range(2)) < 9 * min(seconds(25_000) for _ in range(2))


@pytest.mark.parametrize("size", [0, 1, (1 << 14) - 1, 1 << 17, (1 << 20) + 1])
def test_a_compressed_body_of_any_size_is_unpacked_whole(size: int) -> None:
    chance = np.random.default_rng(1)
    limits = Limits(body_bytes=2 * size + 2, rows=9, values=99)
    for content in (bytes(size), chance.bytes(size)):
        packed = gzip.compress(content)
        assert finished(unpacked(b"gzip", packed + gzip.compress(b"]") + packed, limits)) == content + b"]" + content
        with pytest.raises(ApiError, match="unpacked"):
            finished(unpacked(b"gzip", packed + packed[:-1], limits))
