"""Large bodies are read in steps: with the same result, and while others are answered."""

from __future__ import annotations

import asyncio
import gzip
import json
import time
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from iris_api.bundle.files import read_manifest
from iris_api.engines.model import Model
from iris_api.http.middleware import RequestContext
from iris_api.predict import rows
from iris_api.predict.codec import RowCodec
from iris_api.predict.errors import ApiError
from iris_api.predict.limits import Limits
from iris_api.predict.packed import unpacked
from iris_api.predict.reply import Headers
from iris_api.predict.rows import RowParser, decode, decoded
from iris_api.predict.steps import Steps, Turns, finished
from iris_api.server.app import build_app
from iris_api.settings import Settings
from iris_api.v2.codec import TensorCodec

from ..paths import BUNDLE
from ..strategies import EXAMPLES

JSON = b"application/json"
ROWS = 10_000
LIMITS = Limits(body_bytes=1 << 21, rows=ROWS, values=2 * ROWS)
GOOD = [{"petal_length": number / ROWS, "petal_width": 0.5} for number in range(ROWS)]


def bad(position: int, **changed: Any) -> list[dict[str, Any]]:
    """Rows of which one is wrong."""
    return [*GOOD[:position], GOOD[position] | changed, *GOOD[position + 1 :]]


def said(call: Callable[[], Any]) -> object:
    try:
        return repr(call())
    except ApiError as error:
        return error.status, error.code, error.message, error.details


ELEMENTS = st.sampled_from(
    [
        *(
            '{"a": 1}',
            '{"a": "},"}',
            "[]",
            "[1, 2]",
            '"\\ud800"',
            '"\\u00e4"',
            "NaN",
            "01",
            "",
            "1 2",
            '{"a": 1, "a": 2}',
        ),
        *("9" * 5000, '"ä"', '{"a"', "]", "null", "[" * 3000),
    ]
)


@given(
    st.sampled_from(["[", " [", "[\n", "\ufeff[", "{", "", "[,"]),
    st.lists(ELEMENTS, max_size=4),
    st.sampled_from([",", ", ", "\n,\n", ";", ",,"]),
    st.sampled_from(["]", "\n]\n", ",]", "", "]]", "] x", " ,\n ] ", "\x0b]", "}"]),
)
@settings(max_examples=max(300, EXAMPLES), deadline=None)
def test_a_large_list_is_read_or_refused_as_a_small_one(
    opening: str, elements: list[str], between: str, closing: str
) -> None:
    body = f"{opening}{between.join(elements)}{closing}".encode()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(rows, "LARGE", 0)
        in_steps = said(lambda: finished(decoded(body)))
    assert in_steps == said(lambda: decode(body))


def test_the_bad_rows_of_a_large_list_are_named_by_their_numbers() -> None:
    parser = RowParser(read_manifest(BUNDLE), LIMITS)
    content: list[Any] = bad(7777, petal_width="much")
    content[8888] = 1
    with pytest.raises(ApiError) as refused:
        parser.parse(json.dumps(content).encode())
    details = refused.value.details or []
    assert [detail.field for detail in details] == ["7777.petal_width", "8888"]


def reading(kind: str) -> Steps[Any]:
    """What is to be done for a large body, most of them with something wrong at their end."""
    manifest = read_manifest(BUNDLE)
    parser = RowParser(manifest, LIMITS)
    rows, tensors = RowCodec(manifest, parser), TensorCodec(manifest, parser)

    def headers(content_type: str) -> Headers:
        return [(b"content-type", content_type.encode())]

    wrong = bad(ROWS - 1, petal_width="much")
    values: list[Any] = [value for row in wrong for value in row.values()]
    tensor = {"name": "input", "shape": [ROWS, 2], "datatype": "FP64", "data": values}
    kinds: dict[str, Callable[[], Any]] = {
        "objects": lambda: rows.read(headers("application/json"), json.dumps(GOOD).encode()),
        "wrong objects": lambda: rows.read(headers("application/json"), json.dumps(wrong).encode()),
        "cut objects": lambda: rows.read(headers("application/json"), json.dumps(GOOD).encode()[:-9]),
        "wrong lines": lambda: rows.read(
            headers("application/x-ndjson"), "\n".join(json.dumps(row) for row in wrong).encode()
        ),
        "wrong cells": lambda: rows.read(
            headers("text/csv"),
            "\n".join(["petal_length,petal_width", *(",".join(map(str, row.values())) for row in wrong)]).encode(),
        ),
        "wrong tensor": lambda: tensors.read(headers("application/json"), json.dumps({"inputs": [tensor]}).encode()),
        "zeros in gzip": lambda: unpacked(b"gzip", gzip.compress(bytes(LIMITS.body_bytes - 1)), LIMITS),
    }
    steps: Steps[Any] = kinds[kind]()
    return steps


KINDS = ["objects", "wrong objects", "cut objects", "wrong lines", "wrong cells", "wrong tensor", "zeros in gzip"]


@pytest.mark.parametrize("kind", KINDS)
def test_no_step_of_a_large_body_takes_long(kind: str) -> None:
    """By processor time: what else the machine does counts for nothing, and a collection of garbage but once."""
    took = []
    steps = reading(kind)
    try:
        while True:
            before = time.thread_time()
            next(steps)
            took.append(time.thread_time() - before)
    except (StopIteration, ApiError):
        took.append(time.thread_time() - before)
    assert len(took) > 5
    assert sorted(took)[-2] < 0.005


def test_several_pieces_of_work_take_turns() -> None:
    async def run() -> list[str]:
        done: list[str] = []
        turns = Turns()

        def work(name: str, steps: int) -> Steps[str]:
            for _ in range(steps):
                time.sleep(0.002)
                yield
            return name

        def failing() -> Steps[str]:
            yield
            raise ValueError("wrong")

        turns.submit(work("long", 9), lambda result: done.append(str(result)))
        turns.submit(failing(), lambda result: done.append(str(result)))
        give_up = turns.submit(work("given up", 2), lambda result: done.append(str(result)))
        turns.submit(work("short", 3), lambda result: done.append(str(result)))
        assert give_up()
        assert not give_up()
        while len(done) < 3:
            await asyncio.sleep(0)
        return done

    assert asyncio.run(run()) == ["wrong", "short", "long"]


def test_a_row_is_answered_while_a_large_body_is_read(model: Model) -> None:
    settings = Settings(model_dir=BUNDLE, max_body_bytes=1 << 24, max_rows=ROWS)
    context = build_app(settings, model).context
    order: list[tuple[str, int]] = []

    async def run() -> None:
        def ask(name: str, content: object) -> object:
            scope: Any = {"path": "/predict", "method": "POST", "headers": [(b"content-type", JSON)]}
            handler = context.handler(scope)
            assert handler
            return handler(scope, json.dumps(content).encode(), lambda status, *_: order.append((name, status)))

        ask("wrong", bad(9999, petal_length=None))
        ask("right", GOOD)
        left = ask("left", GOOD)
        assert callable(left)
        await asyncio.sleep(0)
        ask("row", GOOD[0])
        left()
        while len(order) < 3:
            await asyncio.sleep(0)

    asyncio.run(run())
    # Which of the large ones is read first depends on how long the processor is left to each.
    assert order.index(("row", 200)) < order.index(("wrong", 422))
    assert sorted(order) == [("right", 200), ("row", 200), ("wrong", 422)]
    assert context.metrics._requests["/predict", 499] == 1


def test_what_waits_too_long_to_be_read_is_not_answered(model: Model) -> None:
    settings = Settings(model_dir=BUNDLE, max_body_bytes=1 << 24, max_rows=ROWS, request_deadline=0.1)
    context: RequestContext = build_app(settings, model).context
    statuses: list[int] = []

    async def run() -> None:
        scope: Any = {"path": "/predict", "method": "POST", "headers": [(b"content-type", JSON)]}
        handler = context.handler(scope)
        assert handler
        handler(scope, json.dumps(GOOD).encode(), lambda status, *_: statuses.append(status))
        time.sleep(0.2)
        while not statuses:
            await asyncio.sleep(0)

    asyncio.run(run())
    assert statuses == [503]
