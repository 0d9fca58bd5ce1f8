"""Large bodies are read in steps: with the same result, and while others are answered."""

from __future__ import annotations

import asyncio
import gzip
import json
import statistics
import time
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from iris_api.bundle.files import read_manifest
from iris_api.engines.model import Model
from iris_api.http.middleware import RequestContext
from iris_api.predict import rows
from iris_api.predict.batching import Awaited, Batcher
from iris_api.predict.codec import MANY, RowCodec
from iris_api.predict.durations import Durations
from iris_api.predict.endpoint import Endpoint
from iris_api.predict.errors import ApiError
from iris_api.predict.limits import Limits
from iris_api.predict.metrics import Metrics
from iris_api.predict.packed import unpacked
from iris_api.predict.reply import Answer, Headers
from iris_api.predict.rows import RowParser, decode, decoded
from iris_api.predict.steps import Steps, Turns, finished
from iris_api.server.app import build_app
from iris_api.settings import Settings
from iris_api.v2.codec import TensorCodec

from ..paths import BUNDLE
from ..strategies import EXAMPLES

JSON = b"application/json"
ROWS = 10_000
LIMITS = Limits(body_bytes=1 << 21, rows=5 * ROWS, values=10 * ROWS)
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
        *(
            "9" * 5000,
            "9" * 5000 + ".5",
            "1e5",
            "-0.25",
            '{"b": [1, 2], "c": "x"}',
            '"ä"',
            '{"a"',
            "]",
            "null",
            "[" * 3000,
        ),
    ]
)


@given(
    st.sampled_from(["[", " [", "[\n", "\ufeff[", "{", "", "[,"]),
    st.lists(ELEMENTS, max_size=12),
    st.sampled_from([",", ", ", "\n,\n", ";", ",,"]),
    st.sampled_from(["]", "\n]\n", ",]", "", "]]", "] x", " ,\n ] ", "\x0b]", "}"]),
    st.sampled_from(
        ["%s", '{"a": %s}', '{"a": [{"b": 1, "c": %s}], "d": 2}', '{"a": %s, "a": 1}', '{"a": 1, %s}', "[%s, 1]"]
    ),
    st.integers(1, 40),
    st.booleans(),
)
@example("", ["1e5"], ",", "]", "%s", 2, False)
@settings(max_examples=max(300, EXAMPLES), deadline=None)
def test_a_large_body_is_read_or_refused_as_a_small_one(
    opening: str, elements: list[str], between: str, closing: str, around: str, piece: int, nan: bool
) -> None:
    body = (around % f"{opening}{between.join(elements)}{closing}").encode()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(rows, "LARGE", 0)
        patch.setattr(rows, "_PIECE", piece)
        in_steps = said(lambda: finished(decoded(body, nan=nan)))
    assert in_steps == said(lambda: decode(body, nan=nan))


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
    values = [value for row in GOOD for value in row.values()] * 5
    tensor = {"name": "input", "shape": [5 * ROWS, 2], "datatype": "FP64", "data": [*values[:-1], "much"]}
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
    """By processor time: what else the machine does counts for nothing, and a collection of garbage but once.

    The unit is a sum of so many numbers on the same processor, 2 to 4 ms: one of them is quicker than another.
    """
    units, took = [], []
    for _ in range(5):
        before = time.thread_time()
        sum(range(200_000))
        units.append(time.thread_time() - before)
    steps = reading(kind)
    try:
        while True:
            before = time.thread_time()
            next(steps)
            took.append(time.thread_time() - before)
    except (StopIteration, ApiError):
        took.append(time.thread_time() - before)
    assert len(took) > 5
    assert sorted(took)[-2] < 2 * statistics.median(units)


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


@pytest.mark.parametrize("count", [MANY - 1, MANY, MANY + 1, 3 * MANY])
def test_many_predictions_are_counted_and_written_in_steps(model: Model, count: int) -> None:
    """As a model answers that has more to say of a row than a column."""
    parsers = [RowParser(model.manifest, LIMITS) for _ in range(2)]
    parsers[1].tables = None
    found = []
    for parser in parsers:
        metrics = Metrics(Settings(model_dir=BUNDLE), model.manifest, "onnx")
        limits = {"max_batch_rows": ROWS, "max_waiting_rows": ROWS}
        batcher = Batcher(model, metrics, Durations(1e-6, 1e-9), deadline=4, **limits)
        endpoint = Endpoint(RowCodec(model.manifest, parser), batcher, metrics, LIMITS)

        async def ask(endpoint: Endpoint = endpoint) -> Answer:
            answer: Awaited[Answer] = Awaited()
            endpoint.submit([(b"content-type", JSON)], json.dumps(GOOD[:count]).encode(), answer.settle)
            return await answer.future

        answer = asyncio.run(ask())
        counted = [
            line for line in metrics.render().decode().splitlines() if line.startswith("iris_api_feature_values")
        ]
        found.append(([each["species"] for each in json.loads(answer.body)], counted))
    assert found[0] == found[1]
    assert len(found[0][0]) == count


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
